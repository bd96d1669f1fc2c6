"""`rf.evaluate`: a model beside data at given parameters, without fitting."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from ..errors import InputError
from ..flows.methods import AutoSwitch, Method
from ..tables.names import did_you_mean
from .assembly import Origin, assembled, local_at, prepared
from .described import described
from .model import Dose, Model, Noise, Parameter
from .numbers import finite
from .problem import Layout, Solver
from .result import FitResult
from .solving import Solving, check_method, name_of, options
from .table import Dataset, Table

EVALUATED = (
    "Evaluated at given values, not fitted: errors, intervals and bands are those of a fit that "
    "had ended there."
)


def evaluate(
    model: Model | Callable[[Any, Any, Any], Any] | str | os.PathLike[str],
    data: Table | Dataset | Mapping[str, Any] | str | os.PathLike[str],
    *,
    values: Mapping[str, float] | None = None,
    states: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Parameter] | None = None,
    observed: Mapping[str, Callable[..., Any]] | None = None,
    noise: str | Noise | Mapping[str, Noise | str] = "normal",
    doses: Sequence[Dose] = (),
    time: str = "time",
    group: str | None = None,
    method: str | Method | AutoSwitch | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_steps: int | None = None,
) -> FitResult:
    """A model beside data at given parameters: what `rf.fit` returns, without a search.

    Likelihood, residuals, curves and bands are those at the values. What is not given stands at its
    guess; a scale of the noise that the model does not give takes its best value for these
    parameters.

    Args:
        model: as in `rf.fit`.
        data: as in `rf.fit`.
        values: by name, parameters and fitted initial values; of per-group parameters either one
            for all groups, or `name[group]`.
        states: of a function, initial value of each state.
        parameters: of a function, the unknowns.
        observed: of a function, data column to model value.
        noise: of a function, as in `rf.fit`.
        doses: of a function, jumps of a state.
        time: of a function, name of the time column.
        group: of a function, name of the column that tells experiments apart.
        method: of the solves, as in `rf.fit`.
        rtol: their relative tolerance.
        atol: their absolute tolerance.
        max_steps: the most steps of one.

    Returns:
        A `FitResult` whose `converged` is False and whose `outcome` is `"evaluated"`.

    Raises:
        InputError: as `rf.fit`; a name that is no parameter, a value outside of the bounds; a solve
            that fails at the values.
    """
    model, dataset, text = described(
        model, data, states, parameters, observed, noise, doses, time, group
    )
    no_random(model, "evaluated")
    given = {"method": method, "rtol": rtol, "atol": atol, "max_steps": max_steps}
    solving = options(model.solve, given)
    values = {} if values is None else values
    model = with_fixed(model, values)
    result = at_values(model, dataset, solving, values)
    return replace(result, model_text=text)


def at_values(
    model: Model, dataset: Dataset, solving: Solving, values: Mapping[str, Any],
    chosen: Callable[[Solver], bool] = lambda solver: False,
) -> FitResult:  # fmt: skip
    """The result at values of the free parameters, by name or `name[group]`.

    Args:
        model: what is solved.
        dataset: beside what.
        solving: how.
        values: see above.
        chosen: whether a solver is known to be the one that the values need.

    Raises:
        InputError: as `evaluate`.
    """
    with jax.enable_x64(True):
        search = prepared(model, dataset, solving)
        search.solver = next(filter(chosen, search.solvers), search.solver)
        check_method(model, search.lay, search.solver, search.data)
        u = coordinates(model, search.lay, dataset.groups, values)
        local = local_at(model, search.lay, search.solver, search.data, u)
        if not np.isfinite(local.value):
            try:
                search.need(u)
                local = local_at(model, search.lay, search.solver, search.data, u)
                if not np.isfinite(local.value):
                    raise InputError("The likelihood or its derivative is not finite at the guess.")
            except InputError as error:
                raise InputError(str(error).replace("at the guess", "at these values")) from None
        origin = Origin(
            ending=lambda flat, at_bound: ("evaluated", EVALUATED),
            converged=False,
            method=(
                f"evaluated at given values ({name_of(search.solver)}, rtol {solving.rtol:g}, "
                f"atol {solving.atol:g})"
            ),
        )
        return assembled(search, dataset, u, local, solving, origin)


def no_random(model: Model, what: str) -> None:
    """Refuses models with random effects.

    Raises:
        InputError: it is one.
    """
    if model.random is not None:
        raise InputError(
            f"A model with random effects cannot be {what} at given values; fit it (rf.fit), or "
            "take its random effects away."
        )


def with_fixed(model: Model, values: Mapping[str, Any]) -> Model:
    """The model with other values of its fixed parameters, where there are such among `values`.

    Raises:
        InputError: `values` is no dictionary, or a value that the parameter cannot have.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"values must be a dictionary from name to number; got {values!r:.80}.")
    changed = {
        name: _made(name, lambda p=p, name=name: replace(p, guess=finite("it", values[name])))
        for name, p in model.fitted.items()
        if p.fixed and name in values
    }
    if not changed:
        return model
    parameters = {name: changed.get(name, p) for name, p in model.parameters.items()}
    states = {name: changed.get(name, start) for name, start in model.states.items()}
    return replace(model, parameters=parameters, states=states)


def coordinates(
    model: Model, lay: Layout, groups: Sequence[str], values: Mapping[str, Any]
) -> Float[np.ndarray, " n"]:
    """A point of the search from values by name; what is not named stands at its guess.

    Raises:
        InputError: a name that is none, a value that is no number or lies outside of the bounds.
    """
    u = np.array(lay.start, float)
    names = [
        name if g < 0 else f"{name}[{groups[g]}]"
        for name, g in zip(lay.names, lay.groups, strict=True)
    ]
    known = list(dict.fromkeys([*names, *lay.names]))
    fixed = [name for name, p in model.fitted.items() if p.fixed]
    for name in sorted(values, key=lambda name: str(name) in names):  # one group before all
        if name in fixed:
            continue
        if name not in known:
            close = did_you_mean(str(name), [*known, *fixed])
            raise InputError(
                f"values has {name!r}, which is no parameter or fitted initial value.{close} "
                f"There are: {', '.join([*known, *fixed])}."
            )
        value = _made(name, lambda name=name: finite("it", values[name]))
        low, high = model.fitted[name if name in lay.names else name.rsplit("[", 1)[0]].limits
        if not low <= value <= high or value <= 0 and lay.log[_first(names, lay, name)]:
            raise InputError(
                f"values has {name} = {value:g}, outside of its bounds [{low:g}, {high:g}]; widen "
                "them in the model, or give another value."
            )
        for i, whole in enumerate(names):
            if name in (whole, lay.names[i]):
                u[i] = np.log(value) if lay.log[i] else value
    return u


def _first(names: Sequence[str], lay: Layout, name: str) -> int:
    return names.index(name) if name in names else lay.names.index(name)


def _made(name: Any, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except InputError as error:
        raise InputError(f"values has {name!r}, and {error}") from None
