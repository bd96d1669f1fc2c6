"""What the functions of a model return, looked at before anything is computed with them.

A model from Python can return anything. What a solve could not use, or would drop in silence (a
derivative of something that is no state), is answered here, in terms of the user's own function.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..errors import InputError
from ..flows.events import Event
from ..ground.programs import Behaviour
from ..ground.tracing import primitives
from ..tables.names import did_you_mean
from .model import Model

#: Code in these places is not the user's.
_NOT_THEIRS = (
    *(str(Path(str(module.__file__)).parent) + os.sep for module in (jax, np, eqx)),
    str(Path(__file__).parents[1]) + os.sep,
)
_PRODUCTS = {"dot_general", "conv_general_dilated"}
_ABSTRACT = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError)


@lru_cache(maxsize=64)
def check(model: Model) -> None:
    """Calls every function of the model once, on abstract numbers.

    Raises:
        InputError: one raises, or returns what cannot be used; the message says which, where in the
            user's file, and what it should return.
    """
    number = jax.ShapeDtypeStruct((), jnp.result_type(float))
    y, p, c = (dict.fromkeys(x, number) for x in (model.states, model.parameters, model.covariates))

    def look(t, y, p, c):
        slope = _called(model, "The vector field", model.vector_field, t, y, p, c)
        _check_slopes(model, slope)
        rows = {**c, **dict.fromkeys(model.rows, t)}
        for column, function in model.observed.items():
            what = f"The function of the observed column {column!r}"
            _check_number(what, _called(model, what, function, t, y, p, rows))
            scale = model.noise[column].scale
            if callable(scale):
                what = f"The function of the noise of {column!r}"
                _check_number(what, _called(model, what, scale, t, y, p, rows))
        for name, start in model.states.items():
            if callable(start):
                what = f"The function of the initial value of {name!r}"
                _check_number(what, _called(model, what, start, p, c))
        for label, values in model.conditions.items():
            for name, value in values.items():
                if callable(value):
                    what = f"The function of {name!r} in condition {label!r}"
                    _check_number(what, _called(model, what, value, p, c))
        for stop in model.stops:
            if callable(stop):
                what = "The function of a time in stops"
                _check_number(what, _called(model, what, stop, p, c))
        for event in model.events:
            _check_event(model, event, t, y, p, c)
        for dose in model.doses:
            for part in ("time", "amount"):
                function = getattr(dose, part)
                if callable(function):
                    what = f"The function of the {part} of a dose into {dose.state!r}"
                    _check_number(what, _called(model, what, function, p, c))

    try:
        jax.eval_shape(look, number, y, p, c)
    except InputError as error:  # anew, without the notes on JAX's frames
        raise InputError(str(error)) from None


def as_seen(model: Model) -> Model:
    """The model, or another of the same content if its functions have changed what they do.

    Programs are kept for a model. A Python function that reads a global number does something else
    once that is another.
    """
    with jax.enable_x64(True):
        now = Behaviour(*_calls(model))
    if not now.key:
        return model
    return model if _FIRST.setdefault(model, now) == now else _changed(model, now)


_FIRST: WeakKeyDictionary[Model, Behaviour] = WeakKeyDictionary()


@lru_cache(maxsize=64)
def _changed(model: Model, now: Behaviour) -> Model:
    return replace(model)


def _calls(model: Model) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """The user's own functions in a model, with arguments."""
    t = np.zeros(())
    y, p, c = (dict.fromkeys(x, t) for x in (model.states, model.parameters, model.covariates))
    rows = {**c, **dict.fromkeys(model.rows, t)}
    scales = [law.scale for law in model.noise.values()]
    events = [part for event in model.events for part in (event.condition, event.jump)]
    doses = [part for dose in model.doses for part in (dose.time, dose.amount)]
    values = [value for values in model.conditions.values() for value in values.values()]
    for functions, arguments in (
        ([model.vector_field], (t, y, p, c)),
        ([*model.observed.values(), *scales], (t, y, p, rows)),
        (events, (t, y, (p, c))),
        ([*model.states.values(), *values, *model.stops, *doses], (p, c)),
    ):
        yield from ((f, arguments) for f in functions if callable(f) and not _is_formula(f))


def _is_formula(function: Any) -> bool:
    """Whether a function is one of a text, which does not change."""
    inner = getattr(function, "function", function)  # of the wrappers of `from_functions`
    return type(inner).__module__.startswith("rootflow.")


@lru_cache(maxsize=64)
def multiplies(model: Model) -> bool:
    """Whether the vector field multiplies matrices, as a neural network does."""
    if not model.states:  # of a population: formulas of the time
        return False
    number = jax.ShapeDtypeStruct((), jnp.result_type(float))
    y, p, c = (dict.fromkeys(x, number) for x in (model.states, model.parameters, model.covariates))
    traced = jax.make_jaxpr(model.vector_field)(number, y, p, c)
    return not _PRODUCTS.isdisjoint(primitives(traced.jaxpr))


def _check_event(model: Model, event: Event, t, y, p, c):
    what = "The condition of an event"
    _check_number(what, _called(model, what, event.condition, t, y, (p, c)))
    if event.jump is None:
        return
    what = "The jump of an event"
    changed = _called(model, what, event.jump, t, y, (p, c))
    if not isinstance(changed, Mapping) or not set(changed) <= set(model.states):
        raise InputError(
            f"{what} returns {_described(changed)}; it must return a dictionary of the states that "
            f"change ({_listed(model.states)}), with what they become."
        )
    for name, value in changed.items():
        _check_number(f"What an event makes of {name!r}", value)


def _called(model: Model, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{what} cannot be evaluated{_place(error)}: {_reason(model, error)}"
        ) from None


def _place(error: BaseException) -> str:
    """The last line of the user's own code that an error came through."""
    place, trace = "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith(_NOT_THEIRS):
            place = f" ({Path(file).name}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return place


def _reason(model: Model, error: Exception) -> str:
    used = f"y holds {_listed(model.states)}; p holds {_listed(model.parameters)}"
    if model.covariates:
        used += f"; c holds {_listed(model.covariates)}"
    if isinstance(error, KeyError):
        key = error.args[0] if error.args else ""
        known = [*model.states, *model.parameters, *model.covariates]
        return (
            f"there is no [{key!r}].{did_you_mean(key, known)} States and parameters are "
            f"dictionaries, read by name: {used}."
        )
    if isinstance(error, _ABSTRACT):
        return (
            "it asks for the value of a number that is not known while the program is compiled. "
            "Write jnp.where(condition, a, b) for if, and jnp.exp(x) for np.exp(x), math.exp(x) "
            "or float(x)."
        )
    text = str(error).strip().partition("\n")[0]
    return (
        f"{type(error).__name__}: {text:.200}{'' if text.endswith('.') else '.'} It is given "
        f"dictionaries of numbers ({used}), and is written with jax.numpy."
    )


def _check_slopes(model: Model, slope: Any):
    example = ", ".join(f"{name!r}: ..." for name in list(model.states)[:3])
    if not isinstance(slope, Mapping):
        raise InputError(
            f"The vector field returns {_described(slope)}; it must return a dictionary with the "
            f"derivative of each state, {{{example}}}."
        )
    missing = [name for name in model.states if name not in slope]
    extra = [name for name in slope if name not in model.states]
    if missing:
        raise InputError(
            f"The vector field returns no derivative of {_listed(missing)}; it returns "
            f"{_listed(slope) or 'an empty dictionary'}. Give one for each state, 0.0 * y[name] "
            "where it does not move."
        )
    if extra:
        raise InputError(
            f"The vector field returns a derivative of {extra[0]!r}, which is not a state"
            f" ({_listed(model.states)}).{did_you_mean(extra[0], model.states)} Give it an initial "
            "value in states, or leave it out."
        )
    for name in model.states:
        _check_number(f"The derivative of {name!r}", slope[name])


def _check_number(what: str, value: Any):
    try:
        fine = not isinstance(value, Mapping | str) and jnp.shape(value) == ()
        fine = fine and jnp.issubdtype(jnp.result_type(value), jnp.number)
        fine = fine and not jnp.issubdtype(jnp.result_type(value), jnp.complexfloating)
    except (TypeError, ValueError):
        fine = False
    if not fine:
        raise InputError(f"{what} is {_described(value)}; it must be one real number.")


def _described(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        kind = jnp.dtype(value.dtype).name
        return f"an array of shape {value.shape}, {kind}" if value.shape else f"a {kind}"
    if value is None:
        return "None (is the return missing?)"
    return f"a {type(value).__name__}"


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(map(repr, names))
