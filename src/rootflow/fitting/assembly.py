"""From a point in the coordinates of the search to a `FitResult`."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from ..roots.solvers.damped_newton import Local
from . import functions, problem, uncertainty
from .compiled import compiled
from .convergence import Outcome
from .model import Model
from .predict import Predictor
from .problem import GroupData, Layout, Solver
from .result import Estimate, FitResult, Start
from .search import Progress, Search
from .solving import Solving, name_of
from .table import Dataset
from .uncertainty import Uncertainty

#: How it ended, and the sentence that says so; from whether the point is flat, and at a bound.
Ending = Callable[[bool, bool], tuple[Outcome, str]]


@dataclass
class Origin:
    """How a point came to be.

    Attributes:
        ending: see `Ending`.
        converged: whether a search ended there.
        method: what was done, in words.
        starts: the searches.
        seed: of their starts.
        profile: whether profile intervals are asked for.
        seconds: by stage, so far.
    """

    ending: Ending
    converged: bool
    method: str
    starts: list[Start] = field(default_factory=list)
    seed: int = 0
    profile: bool = False
    seconds: dict[str, float] = field(default_factory=dict)


@compiled(static_argnums=(0, 1, 2))
def _local(model, lay, solver, data, u):
    return problem.objective(model, lay, solver, data)(u)


def local_at(model: Model, lay: Layout, solver: Solver, data: GroupData, u: np.ndarray) -> Local:
    """The objective and its derivatives at one point, as NumPy arrays."""
    return jax.tree.map(np.asarray, _local(model, lay, solver, data, u))


def prepared(
    model: Model, dataset: Dataset, solving: Solving, max_iterations: int = 1,
    progress: Progress | None = None, devices: Any = None,
) -> Search:  # fmt: skip
    """A search that has not begun."""
    functions.check(model)
    lay = problem.layout(model, len(dataset.groups))
    data = problem.group_data(model, dataset)
    t0 = float(dataset.t0[0]) if np.all(dataset.t0 == dataset.t0[0]) else None
    return Search(model, lay, data, solving.solvers(t0), max_iterations, progress, devices)


def assembled(
    search: Search, dataset: Dataset, u: Float[np.ndarray, " n"], local: Local, solving: Solving,
    origin: Origin,
) -> FitResult:  # fmt: skip
    """The result at a point: estimates with their uncertainty, warnings, predictions.

    Args:
        search: model, layout, data, and the solver to use.
        dataset: the data as a user knows them.
        u: the point, in the coordinates of the search.
        local: the objective and its derivatives there.
        solving: how the equations were asked to be solved.
        origin: how the point came to be.
    """
    clock = Clock()
    model, lay = search.model, search.lay
    scales, squares, parts, coupling = (np.asarray(x) for x in local.aux)
    parts = parts if len(parts) else np.asarray(local.curvature)[None]
    counts = np.array([np.isfinite(dataset.values[c]).sum() for c in model.noise], float)
    fitted_scale = np.array([noise.scale is None for noise in model.noise.values()])
    if problem.has_priors(model):  # the last part of the information is that of the priors
        counts, fitted_scale = np.append(counts, 0.0), np.append(fitted_scale, False)
    at_bound = np.where(u <= lay.lower, "lower", np.where(u >= lay.upper, "upper", ""))
    value = lay.values(u)
    found = uncertainty.from_information(
        parts, counts, fitted_scale, at_bound != "", lay.log, value
    )
    se = np.sqrt(np.maximum(np.diagonal(found.covariance), 0.0))
    se = np.where(found.lost, np.inf, np.where(at_bound != "", np.nan, se))
    slope = np.where(lay.log, value, 1.0)  # of the natural parameter by its coordinate
    natural = found.covariance * np.outer(slope, slope)
    names = _free_names(lay, dataset)
    clock.lap("uncertainty")
    intervals: list[tuple[float, float] | None] = [None] * lay.size
    if origin.profile:
        intervals = _profile(search, lay, u, float(local.value), se, found)
        clock.lap("profile")

    ended, message = origin.ending(len(found.undetermined) > 0, bool(np.any(at_bound != "")))
    warnings = [] if origin.converged else [message]
    warnings += uncertainty.explain(found, names, lay.log, value)
    warnings += [
        f"{names[i]} is on its {at_bound[i]} bound, {value[i]:.4g}: the data would take it "
        "further. Widen the bound, or fix it there; its error cannot be computed."
        for i in np.flatnonzero(at_bound != "")
    ]
    warnings += _without_freedom(model, fitted_scale, counts, found, lay.size)
    estimates = _free_estimates(model, lay, dataset, u, se, found, at_bound, intervals)
    estimates += _fixed_estimates(model)
    freedom, worth = found.freedom[: len(scales)], counts[: len(scales)]
    if len(coupling):  # what is not known of the parameters is not known of the scale either
        spread = np.einsum("cm,mk,ck->c", coupling, found.covariance, coupling)
        less = 1 / (1 + np.where(np.isinf(freedom), 0.0, freedom) * spread / np.maximum(worth, 1))
        freedom, worth = freedom * less, worth * less
    estimates += _scale_estimates(model, scales, worth, freedom)
    return FitResult(
        model=model, dataset=dataset, estimates=estimates, free_names=names,
        covariance=np.where(np.logical_or.outer(found.lost, found.lost), np.nan, natural),
        correlation=uncertainty.correlation(natural),
        nll=float(local.value), rss=float(squares.sum()), observations=dataset.observations,
        dof=dataset.observations - found.rank,
        scales={c: float(s) for c, s in zip(model.noise, scales, strict=True)},
        warnings=warnings, starts=origin.starts, seed=origin.seed, method=origin.method,
        seconds={**origin.seconds, **clock.laps}, converged=origin.converged,
        message=message, outcome=ended,
        _predict=Predictor(
            model, lay, search.solvers_from_here(), search.data, u, found, scales
        ),
        solver=name_of(search.solver), solver_reason=search.reason, solving=solving,
    )  # fmt: skip


def _free_estimates(
    model: Model, lay: Layout, dataset: Dataset, u, se, found: Uncertainty, at_bound, intervals
) -> list[Estimate]:
    value = lay.values(u)
    slope = np.where(lay.log, value, 1.0)
    quantile = found.quantiles(np.diagonal(found.parts, axis1=1, axis2=2))
    lower, upper = lay.values(u - quantile * se), lay.values(u + quantile * se)
    units = {name: p.unit for name, p in model.fitted.items()}
    return [
        Estimate(
            name=lay.names[i],
            group=None if lay.groups[i] < 0 else dataset.groups[lay.groups[i]],
            value=float(value[i]), se=float(se[i] * slope[i]),
            lower=float(lower[i]), upper=float(upper[i]),
            unit=units[lay.names[i]], fixed=False, at_bound=str(at_bound[i]),  # type: ignore
            kind="parameter" if lay.names[i] in model.parameters else "initial",
            profile=intervals[i],
        )
        for i in range(lay.size)
    ]  # fmt: skip


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self.last: float = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = now - self.last
        self.last = now


def _without_freedom(model: Model, fitted, counts, found, size: int) -> list[str]:
    """Warnings about columns whose scale the fit leaves nothing to tell by."""
    bare = [c for c, left in zip(model.noise, found.freedom, strict=False) if left <= 0]
    if not bare:
        return []
    if len(bare) == len(model.noise):
        told = f"There are {int(counts.sum())} measurements for {size} free parameters"
    else:
        told = f"The fit passes through every measurement of {', '.join(bare)}"
    return [
        f"{told}: the errors mean nothing. Fix parameters, give the scale of the noise, or add "
        "data."
    ]


def _free_names(lay: Layout, dataset: Dataset) -> list[str]:
    return [
        name if g < 0 else f"{name}[{dataset.groups[g]}]"
        for name, g in zip(lay.names, lay.groups, strict=True)
    ]


def _fixed_estimates(model: Model) -> list[Estimate]:
    return [
        Estimate(
            name, None, p.guess, 0.0, p.guess, p.guess, p.unit, True, "",
            "parameter" if name in model.parameters else "initial",
        )
        for name, p in model.fitted.items()
        if p.fixed
    ]  # fmt: skip


def _scale_estimates(model: Model, scales, counts, freedom) -> list[Estimate]:
    """Scales of the noise, each the maximum-likelihood value with its chi-square interval."""
    out = []
    for i, (column, noise) in enumerate(model.noise.items()):
        if callable(noise.scale):  # parameters of its own tell it
            continue
        s, fixed = float(scales[i]), noise.scale is not None
        interval = (0.0, s, s)
        if not fixed:
            interval = uncertainty.scale_interval(s, float(counts[i]), float(freedom[i]))
        unit = model.units.get(column, "") if noise.kind == "normal" else ""
        out.append(Estimate(column, None, s, *interval, unit, fixed, "", "scale"))
    return out


def _profile(
    search: Search, lay: Layout, u, best: float, se, found: Uncertainty
) -> list[tuple[float, float] | None]:
    """Profile-likelihood intervals: each parameter held at a row of values, the others refitted."""
    sides = np.array([0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0])
    n = len(sides)
    out: list[tuple[float, float] | None] = []
    for j in range(lay.size):
        quantile, level = found.profile_level(j)
        if not np.isfinite(level):
            out.append((np.nan, np.nan))
            continue
        step = (
            se[j] if np.isfinite(se[j]) and se[j] > 0 else (1.0 if lay.log[j] else abs(u[j]) or 1)
        )
        offsets = np.concatenate([-sides, sides]) * quantile * step
        points = np.tile(u, (len(offsets), 1))
        points[:, j] = np.clip(u[j] + offsets, lay.lower[j], lay.upper[j])
        free = np.ones_like(points, bool)
        free[:, j] = False
        states = search.run(points, free)
        states, _ = search.retried(states, free)
        rise = 2 * (np.asarray(states.local.value) - best)
        moved = points[:, j] - u[j]
        low = uncertainty.crossing(moved[:n], rise[:n], level)
        high = uncertainty.crossing(moved[n:], rise[n:], level)
        ends = np.clip([u[j] + low, u[j] + high], lay.lower[j], lay.upper[j])
        with np.errstate(over="ignore"):
            ends = np.exp(ends) if lay.log[j] else ends
        out.append((float(ends[0]), float(ends[1])))
    return out
