"""`rf.simulate`: the curves of a model at given values, without a fit."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from ..errors import InputError, SolveError
from ..flows.methods import AutoSwitch, Method
from . import predict
from .assembly import prepared
from .described import model_of
from .evaluate import coordinates, with_fixed
from .forecast import rows
from .from_functions import model_from_functions
from .model import Dose, Model, Parameter
from .result import FitResult
from .solving import check_method, options
from .table import Dataset


@dataclass(frozen=True, eq=False)
class Simulation:
    """The curves of a model.

    Attributes:
        model: what was solved.
        dataset: its groups and, if there are any, measurements.
        times: shape (groups, times).
        curves: by observed column, shape (groups, times).
        values: of every parameter and fitted initial value, `name[group]` where groups have theirs.
    """

    model: Model
    dataset: Dataset
    times: Float[np.ndarray, "groups times"]
    curves: dict[str, Float[np.ndarray, "groups times"]] = field(repr=False)
    values: dict[str, float]

    def __getitem__(self, column: str) -> Float[np.ndarray, "groups times"]:
        """The curve of an observed column."""
        return self.curves[column]

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Writes what `rootflow simulate` writes: a table, a figure, and the values.

        Raises:
            InputError: the folder holds something else than an earlier simulation.
            OSError: it cannot be written.
        """
        from .predictions import write_simulation

        write_simulation(self, Path(folder))


def simulate(
    model: Model | FitResult | Callable[[Any, Any, Any], Any] | str | os.PathLike[str],
    ts: Any = None,
    *,
    data: Any = None,
    values: Mapping[str, float] | None = None,
    states: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Parameter] | None = None,
    observed: Mapping[str, Callable[..., Any]] | None = None,
    doses: Sequence[Dose] = (),
    time: str = "time",
    group: str | None = None,
    method: str | Method | AutoSwitch | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_steps: int | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> Simulation:
    """The curves of a model at its guesses or at given values; nothing is fitted.

    Of a model with random effects the curves are those of the typical subjects, and subjects are
    drawn beside them: the result is a `PopulationSimulation`.

    Args:
        model: as in `rf.fit`, or a fit: then values are those that were fitted, and rows and
            options of the solves those of the fit, unless they are given. A path may be that of
            a model file, of the folder of a fit, or of a PEtab problem (`problem.yaml`), which
            brings its rows too.
        ts: times, shape (times,) for all groups or (groups, times). `None`: those of `data`.
        data: a table with groups, covariates, conditions, doses and times, as `rf.fit` takes it;
            what the model observes may be missing in it. `None`: one group, for models that need
            nothing else from a table. It starts at the model's t0, or at the first time.
        values: as in `rf.evaluate`; of a model with random effects also `sd(ka)`, `corr(ka, cl)`,
            `noise of level` and `proportional noise of level`.
        states: of a function, initial value of each state.
        parameters: of a function, the unknowns.
        observed: of a function, data column to model value; default: all states.
        doses: of a function, jumps of a state.
        time: of a function, name of the time column.
        group: of a function, name of the column that tells experiments apart.
        method: of the solves, as in `rf.fit`.
        rtol: their relative tolerance.
        atol: their absolute tolerance.
        max_steps: the most steps of one.
        draws: of a model with random effects, subjects drawn for each group.
        seed: of the draws.

    Raises:
        InputError: a model, a table, values or times that cannot be used.
        SolveError: the model cannot be solved over the times.
    """
    source = source_of(model)
    model, data = source.model, source.data if data is None else data
    if not isinstance(model, Model):
        named = {name: [0.0] for name in states} if isinstance(states, Mapping) else None
        model = model_from_functions(
            model, named, states, parameters, observed, "normal", doses, time, group
        )
    given = {"method": method, "rtol": rtol, "atol": atol, "max_steps": max_steps}
    solving = options({**model.solve, **source.solve}, given)
    values = {} if values is None else values
    model = with_fixed(model, values)
    dataset = _alone(model, ts) if data is None else rows(model, data)
    values = _with_fitted(source.values, values, dataset)
    times = dataset.ts if ts is None else predict.times(ts, len(dataset.groups))
    if model.random is not None:
        from .population.simulate import simulated

        return simulated(model, dataset, times, values, solving, draws, seed)
    plain = replace(model, noise={})  # as they are, not as noise sees them
    with jax.enable_x64(True):
        search = prepared(plain, dataset, solving)
        check_method(plain, search.lay, search.solver, search.data)
        u = coordinates(plain, search.lay, dataset.groups, values)
        curves = predict.means(plain, search.lay, search.solvers, search.data, u, times)
    if not np.isfinite(curves).all():
        raise SolveError("The model has values that are not finite at the times asked for.")
    names = [
        name if g < 0 else f"{name}[{dataset.groups[g]}]"
        for name, g in zip(search.lay.names, search.lay.groups, strict=True)
    ]
    told = {name: p.guess for name, p in model.fitted.items() if p.fixed}
    told |= dict(zip(names, search.lay.values(u).tolist(), strict=True))
    by_column = {column: curves[:, i] for i, column in enumerate(model.observed)}
    return Simulation(model, dataset, times, by_column, told)


@dataclass(frozen=True)
class Source:
    """What is simulated, and what it brings along.

    Attributes:
        model: the model, or a vector field.
        data: rows of its own; `None`: none.
        values: that were fitted, by name.
        solve: options of the solves.
    """

    model: Any
    data: Dataset | None = None
    values: dict[str, float] = field(default_factory=dict)
    solve: dict[str, Any] = field(default_factory=dict)


def source_of(what: Any) -> Source:
    """A model, a fit, or the path of a model file, a fit or a PEtab problem, as `simulate` has it.

    Raises:
        InputError: a file or folder that cannot be used.
    """
    if isinstance(what, Source):
        return what
    if isinstance(what, str | os.PathLike):
        path = Path(what)
        if path.is_dir():
            from .store import load_fit

            what = load_fit(path)
        elif path.suffix.lower() in (".yaml", ".yml"):
            from .petab import load_petab

            return Source(*load_petab(path))
    if isinstance(what, FitResult):
        told = what.solving
        solve = {name: getattr(told, name) for name in ("method", "rtol", "atol", "max_steps")}
        solve = {name: value for name, value in solve.items() if value is not None}
        return Source(what.model, what.dataset, _fitted(what), solve)
    return Source(model_of(what)[0])


def _fitted(fit: FitResult) -> dict[str, float]:
    """The estimates by name; those on a bound exactly on it."""
    out = {}
    for e in fit.estimates:
        if e.fixed or e.kind == "scale" and fit.model.random is None:
            continue
        name = f"noise of {e.name}" if e.kind == "scale" else e.name
        name = name if e.group is None else f"{name}[{e.group}]"
        at_end = e.at_bound and e.name in fit.model.fitted
        out[name] = fit.model.fitted[e.name].limits[e.at_bound == "upper"] if at_end else e.value
    return out


def _with_fitted(
    fitted: Mapping[str, float], values: Mapping[str, Any], dataset: Dataset
) -> dict[str, Any]:
    """The values given, over those that were fitted to groups that the rows have.

    Raises:
        InputError: a group without values of its own, where the fit has some for each.
    """
    out = {name: x for name, x in fitted.items() if not name.endswith("]")}
    own = dict.fromkeys(name[: name.index("[")] for name in fitted if name.endswith("]"))
    for name in own:
        for label in dataset.groups:
            whole = f"{name}[{label}]"
            if whole in fitted:
                out[whole] = fitted[whole]
            elif whole not in values and name not in values:
                raise InputError(
                    f"{dataset.table.source}: group {label!r} was not in the fit, which gave each "
                    f"group its own {name}: give one by values (--set {whole}=VALUE)."
                )
    # A value for all groups goes before those that were fitted to each.
    out = {n: x for n, x in out.items() if not (n.endswith("]") and n[: n.index("[")] in values)}
    return out | dict(values)


def _alone(model: Model, ts: Any) -> Dataset:
    """One group with the times asked for, of a model that needs no other columns."""
    needed = [*model.covariates, *model.rows]
    if model.dosing is not None:
        needed.append("doses")
    if model.conditions:
        needed.append(model.condition or model.group or "conditions")
    if needed:
        raise InputError(
            f"The model takes {', '.join(needed)} from a table: give one by data (DATA on the "
            "command line); what it observes may be missing there."
        )
    if ts is None:
        raise InputError("There are no times: give ts, or a table by data.")
    asked = predict.times(ts, 1)[0]
    started = asked if model.t0 is None else np.maximum(asked, model.t0)
    table: dict[str, Any] = {model.time: np.unique(started)}
    if model.group is not None:
        table[model.group] = ["1"] * len(table[model.time])
    return rows(model, table)
