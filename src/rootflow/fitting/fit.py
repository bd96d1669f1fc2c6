"""`rf.fit`: parameters of a differential equation from data, with their uncertainty."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ..errors import InputError
from ..flows.methods import AutoSwitch, Method
from . import functions, problem, uncertainty
from .convergence import Outcome, judged, outcome
from .from_functions import model_from_functions
from .model import Dose, Model, Noise, Parameter
from .modelfile import load_model
from .predict import Predictor
from .problem import Layout, Solver
from .result import Estimate, FitResult, Start
from .search import Progress, Search
from .solving import Solving, check_method, name_of, options
from .table import Dataset, Table, assemble, load_table
from .uncertainty import Uncertainty

__all__ = ["Progress", "fit"]


def fit(
    model: Model | Callable[[Any, Any, Any], Any] | str | os.PathLike,
    data: Table | Dataset | Mapping[str, Any] | str | os.PathLike,
    *,
    states: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Parameter] | None = None,
    observed: Mapping[str, Callable] | None = None,
    noise: str | Noise | Mapping[str, Noise | str] = "normal",
    doses: Sequence[Dose] = (),
    time: str = "time",
    group: str | None = None,
    starts: int | None = None,
    seed: int = 0,
    screen: int = 4,
    profile: bool = False,
    method: str | Method | AutoSwitch | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_steps: int | None = None,
    max_iterations: int = 200,
    progress: Progress | None = None,
) -> FitResult:
    """Fits the parameters and initial values of a differential equation by maximum likelihood.

    Levenberg-Marquardt within the bounds, on the exact derivative of the solve; from the guess and
    from random starts (Latin hypercube) all at once, in one batched program. It computes in
    float64 whatever JAX is set to.

    Args:
        model: a `Model`, the path of a model file, or the vector field `f(t, y, p)`, with `y` and
            `p` dictionaries of the states and parameters and a dictionary of derivatives as its
            value. For a function, say what is in the model by the next arguments.
        data: columns by name (arrays or lists; NaN: no measurement), or the path of a CSV file.
        states: initial value of each state: a number, a `Parameter`, or a function `(p, c)`.
        parameters: the unknowns, each a `Parameter(guess, lower, upper, scale=...)`.
        observed: data column to model value, a function `(t, y, p)`. Default: the columns that
            have the name of a state.
        noise: `"normal"`, `"lognormal"`, `"proportional"` or another kind of `Noise`, a `Noise`,
            or a dictionary of one for each column; a scale that is computed is `f(t, y, p)`.
        doses: jumps of a state.
        time: name of the time column.
        group: name of the column that tells experiments apart.
        starts: number of searches; the first begins at the guess. Default 16.
        seed: of the random starts.
        screen: each other search begins at the best of so many points that are drawn within the
            bounds and led a few steps along growing parts of the data. 0: it begins at a drawn
            point itself.
        profile: also compute profile-likelihood intervals.
        method: how the equations are solved. `"auto"`: by Tsit5, an explicit method, and if that
            takes too many steps or the equations turn out to be stiff, by Rodas5P; `"explicit"`:
            Tsit5; `"stiff"`: Rodas5P; the name of a method, such as `"Kvaerno5"`; or a method that
            chooses its own steps, such as `rf.BDF()`. Default: what the model says, or `"auto"`.
        rtol: relative tolerance of the solves, from 1e-14 to 0.1. Default: what the model says, or
            1e-8.
        atol: absolute tolerance of the solves, at least 0. Default: what the model says, or 1e-10.
        max_steps: the most steps of a solve. Default: what the model says, or 512, and 16384 where
            those do not do.
        max_iterations: trial steps of a search.
        progress: called with the finished fraction, the best cost so far and a message.

    Returns:
        A `FitResult`: of the searches whose value is the best to round-off (within a millionth, or
        1e-9 of the value) the best that converged. If none of them did, its `converged` is False
        and a warning says so.

    Raises:
        InputError: a model, data or options that cannot be used, or a solve that fails at the
            guess.
    """
    if isinstance(model, str | os.PathLike):
        model = load_model(model)
    if isinstance(data, str | os.PathLike):
        data = load_table(data)
    if isinstance(model, Model):
        given = [states, parameters, observed, doses or None, group]
        if any(x is not None for x in given) or noise != "normal" or time != "time":
            raise InputError(
                "The model already says its states, parameters, observed, noise, doses, time and "
                "group: leave those arguments out, or pass the vector field f(t, y, p) instead."
            )
    else:
        model = model_from_functions(
            model, data, states, parameters, observed, noise, doses, time, group
        )
    starts = 16 if starts is None else starts
    _check_options(starts, seed, screen, max_iterations)
    given = {"method": method, "rtol": rtol, "atol": atol, "max_steps": max_steps}
    solving = options(model.solve, given)
    dataset = data if isinstance(data, Dataset) else assemble(model, data)
    with jax.enable_x64(True):
        return _fit(
            model, dataset, int(starts), seed, int(screen), profile, solving, int(max_iterations),
            progress,
        )  # fmt: skip


def _check_options(starts, seed, screen, max_iterations):
    least = {
        "starts": (starts, 1), "seed": (seed, 0), "screen": (screen, 0),
        "max_iterations": (max_iterations, 1),
    }  # fmt: skip
    for name, (value, low) in least.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < low:
            wanted = "a positive integer" if low else "an integer, at least 0"
            raise InputError(f"{name} must be {wanted}; got {value!r}.")


def _fit(model, dataset, starts, seed, screen, profile, solving: Solving, max_iterations, progress):
    clock = _Clock()
    functions.check(model)
    lay = problem.layout(model, len(dataset.groups))
    data = problem.group_data(model, dataset)
    t0 = float(dataset.t0[0]) if np.all(dataset.t0 == dataset.t0[0]) else None
    search = Search(model, lay, data, solving.solvers(t0), max_iterations, progress)
    check_method(model, lay, search.solver, data)
    states = search.from_guess(starts, seed, screen)
    states, used = search.retried(states, np.ones((starts, lay.size), bool))
    clock.lap("search")
    values = np.asarray(states.local.value)
    best, done, reached = judged(states, lay, search.noise(states))
    search.settle(used[best])
    u = np.asarray(states.x[best])
    scales, squares, parts = (np.asarray(x[best]) for x in states.local.aux)
    parts = parts if len(parts) else np.asarray(states.local.curvature[best])[None]
    converged = bool(done[best])

    observations = dataset.observations
    counts = np.array([np.isfinite(dataset.values[c]).sum() for c in model.noise], float)
    fitted_scale = np.array([noise.scale is None for noise in model.noise.values()])
    if problem.has_priors(model):  # the last part of the information is that of the priors
        counts, fitted_scale = np.append(counts, 0.0), np.append(fitted_scale, False)
    at_bound = np.where(u <= lay.lower, "lower", np.where(u >= lay.upper, "upper", ""))
    found = uncertainty.from_information(parts, counts, fitted_scale, at_bound != "")
    dof = observations - found.rank
    value = lay.values(u)
    se = np.sqrt(np.maximum(np.diagonal(found.covariance), 0.0))
    se = np.where(found.lost, np.inf, np.where(at_bound != "", np.nan, se))
    quantile = found.quantiles(np.diagonal(found.parts, axis1=1, axis2=2))
    lower, upper = lay.values(u - quantile * se), lay.values(u + quantile * se)
    slope = np.where(lay.log, value, 1.0)  # of the natural parameter by its coordinate
    natural = found.covariance * np.outer(slope, slope)
    names = _free_names(lay, dataset)
    clock.lap("uncertainty")
    intervals: list[tuple[float, float] | None] = [None] * lay.size
    if profile:
        intervals = _profile(search, lay, u, float(values[best]), se, found)
        clock.lap("profile")

    blocked = bool(np.broadcast_to(states.blocked, values.shape)[best] > 0)
    ended = outcome(
        converged, int(np.asarray(states.status)[best]), blocked, len(found.undetermined) > 0,
        bool(np.any(at_bound != "")),
    )  # fmt: skip
    message = _message(ended, max_iterations, search.solver)
    warnings = [] if converged else [message]
    warnings += uncertainty.explain(found, names, lay.log, value)
    warnings += [
        f"{names[i]} is on its {at_bound[i]} bound, {value[i]:.4g}: the data would take it "
        "further. Widen the bound, or fix it there; its error cannot be computed."
        for i in np.flatnonzero(at_bound != "")
    ]
    warnings += _without_freedom(model, fitted_scale, counts, found, lay.size)
    units = {name: p.unit for name, p in model.fitted.items()}
    estimates = [
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
    estimates += _fixed_estimates(model)
    estimates += _scale_estimates(model, scales, counts, found.freedom)
    listed = [
        Start(
            float(v), bool(ok), int(n), bool(same), name_of(solver), tuple(lay.values(x).tolist())
        )
        for v, ok, n, same, solver, x in zip(
            values,
            done,
            np.asarray(states.iterations),
            reached,
            used,
            np.asarray(states.x),
            strict=True,
        )
    ]
    return FitResult(
        model=model, dataset=dataset, estimates=estimates, free_names=names,
        covariance=np.where(np.logical_or.outer(found.lost, found.lost), np.nan, natural),
        correlation=uncertainty.correlation(natural),
        nll=float(values[best]), rss=float(squares.sum()), observations=observations, dof=dof,
        scales={c: float(s) for c, s in zip(model.noise, scales, strict=True)},
        warnings=warnings, starts=listed, seed=seed,
        method=(
            "maximum likelihood by Levenberg-Marquardt within bounds, exact derivative of the "
            f"solve ({name_of(search.solver)}, rtol {solving.rtol:g}, atol {solving.atol:g}), "
            f"{starts} "
            f"start{'s' if starts > 1 else ''} (the guess, then a Latin hypercube)"
        ),
        seconds=clock.laps, converged=converged,
        message=message, outcome=ended,
        _predict=Predictor(model, lay, search.solvers_from_here(), data, u, found, scales),
        solver=name_of(search.solver), solver_reason=search.reason,
    )  # fmt: skip


class _Clock:
    def __init__(self):
        self.laps: dict[str, float] = {}
        self.last = time.perf_counter()

    def lap(self, name: str):
        now = time.perf_counter()
        self.laps[name] = now - self.last
        self.last = now


def _message(ended: Outcome, max_iterations: int, solver: Solver) -> str:
    if ended == "flat":
        return "converged, where the data leave a combination of the parameters open (flat)"
    if ended == "at a bound":
        return "converged at a bound"
    if ended == "out of iterations":
        return (
            f"The search did not converge in {max_iterations} iterations: the estimates are the "
            "best found, not the best there is. Give better guesses or narrower bounds, or more "
            "iterations (max_iterations; --max-iterations on the command line)."
        )
    if ended == "blocked":
        stiff = any(method.jacobians for method in solver.method.methods)
        way = "" if stiff else 'let a stiff method solve them (method = "auto" or "stiff"), '
        return (
            "The search stopped where the equations cannot be solved further on by "
            f"{solver.max_steps} steps of {name_of(solver)}: {way}allow more steps (max_steps), or "
            "narrow the bounds."
        )
    if ended == "stalled":
        return (
            "The search stalled: no step improves the fit, yet it does not look like a minimum. "
            "The model may not be smooth in its parameters there; tighten rtol (--rtol on the "
            "command line) or change the guesses."
        )
    return "converged"


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
            interval = uncertainty.scale_interval(s, int(counts[i]), float(freedom[i]))
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
