"""A `Model` from the plain functions of `rf.fit(f, ...)`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from ..errors import InputError
from .model import Dose, Model, Noise, Parameter
from .numbers import number
from .table import Dataset, Table, table_from_columns


# Classes rather than closures, so that a fit of functions that can be pickled can be pickled too.
@dataclass(frozen=True)
class WithoutCovariates:
    """`function(t, y, p)` as a model calls it, `(t, y, p, c)`."""

    function: Callable[[Any, Any, Any], Any]

    def __call__(self, t: Any, y: Any, p: Any, c: Any) -> Any:
        return self.function(t, y, p)


@dataclass(frozen=True)
class ReadState:
    """A column that measures a state."""

    name: str

    def __call__(self, t: Any, y: Any, p: Any, c: Any) -> Any:
        return y[self.name]


def model_from_functions(
    f: Any, data: Any, states: Any, parameters: Any, observed: Any, noise: Any, doses: Any,
    time: Any, group: Any,
) -> Model:  # fmt: skip
    """The model that the arguments of `rf.fit` describe; one object for equal arguments.

    Raises:
        InputError: an argument of another kind than `rf.fit` takes.
    """
    if not callable(f):
        raise InputError(f"model must be an rf.Model or a function f(t, y, p); got {f!r}.")
    if states is None or parameters is None:
        raise InputError(
            "A function f(t, y, p) needs states={name: initial value} and "
            "parameters={name: rf.Parameter(guess)}."
        )
    _mapping("states", states, "{name: initial value}, such as {'x': 10.0}")
    _mapping("parameters", parameters, "{name: rf.Parameter(guess)}")
    if observed is None:
        observed = tuple(_observed_states(states, data))
    else:
        _mapping("observed", observed, "{column: function (t, y, p)}")
        observed = tuple(observed.items())
    for name, value in (("time", time), ("group", group)):
        if not (isinstance(value, str) or name == "group" and value is None):
            raise InputError(f"{name} must be the name of a data column; got {value!r}.")
    given = (
        f,
        tuple((name, _start(name, value)) for name, value in states.items()),
        tuple(parameters.items()),
        observed,
        _noise(noise),
        (doses,) if isinstance(doses, Dose) else _doses(doses),
        time,
        group,
    )
    try:
        hash(given)
    except TypeError:  # a function object that holds arrays, say: it gets a model of its own
        return _model(*given)
    return _cached_model(*given)


def _mapping(name: str, value: Any, wanted: str):
    if not isinstance(value, Mapping):
        raise InputError(f"{name} must be a dictionary, {wanted}; got {value!r:.80}.")


def _observed_states(states: Mapping[str, Any], data: Any) -> list[str]:
    if isinstance(data, Dataset):
        columns = data.values
    elif isinstance(data, Table):
        columns = data.columns
    else:
        columns = table_from_columns(data).columns
    names = [name for name in states if name in columns]
    if not names:
        raise InputError(
            f"No data column has the name of a state ({', '.join(map(str, states))}): say what is "
            "measured by observed={column: function (t, y, p)}."
        )
    return names


def _start(name: Any, value: Any) -> Any:
    if isinstance(value, Parameter) or callable(value):
        return value
    return number(f"the initial value of state {name!r}", value)


def _noise(noise: Any) -> Any:
    if isinstance(noise, str):
        return Noise(noise)  # pyright: ignore[reportArgumentType]
    if isinstance(noise, Noise):
        return noise
    _mapping("noise", noise, "{column: rf.Noise(kind)}, or one rf.Noise or kind for all columns")
    return tuple(noise.items())


def _doses(doses: Any) -> tuple[Dose, ...]:
    try:
        listed = tuple(doses)
    except TypeError:
        listed = (doses,)
    for dose in listed:
        if not isinstance(dose, Dose):
            raise InputError(
                f"doses holds {dose!r:.80}; give a list of rf.Dose(time, state, amount)."
            )
    return listed


def _model(f, states, parameters, observed, noise, doses, time, group) -> Model:
    columns = {
        (x if isinstance(x, str) else x[0]): (
            ReadState(x) if isinstance(x, str) else WithoutCovariates(_function(*x))
        )
        for x in observed
    }
    return Model(
        vector_field=WithoutCovariates(f),
        states=dict(states),
        parameters=dict(parameters),
        observed=columns,
        noise=(
            dict.fromkeys(columns, _of_model(noise))
            if isinstance(noise, Noise)
            else {name: _of_model(law) for name, law in noise}
        ),
        doses=doses,
        time=time,
        group=group,
    )


def _of_model(law: Any) -> Any:
    if isinstance(law, Noise) and callable(law.scale):
        scale: Any = law.scale
        return replace(law, scale=WithoutCovariates(scale))
    return law


def _function(column: Any, value: Any) -> Callable[..., Any]:
    if not callable(value):
        raise InputError(
            f"observed[{column!r}] is {value!r:.80}; give a function (t, y, p), such as "
            "lambda t, y, p: y['x']."
        )
    return value


#: One `Model`, and so one compiled program, for equal arguments.
_cached_model = lru_cache(maxsize=64)(_model)
