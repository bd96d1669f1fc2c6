"""`rf.fit`: parameters of a differential equation from data, with their uncertainty."""

import os
import time
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np

from ..errors import InputError, SolveError
from ..flows.solution import Result
from ..roots.solvers import damped_newton
from ..roots.solvers.damped_newton import CONVERGED, RUNNING
from . import problem, uncertainty
from .model import Dose, Model, Noise, Parameter
from .modelfile import load_model
from .problem import Layout, Solver
from .result import Estimate, FitResult, Start
from .table import Dataset, Table, assemble, load_table

Progress = Callable[[float, float, str], None]

#: Steps that a solve may take; the many are tried if the model needs more at the guess.
_FEW_STEPS, _MANY_STEPS = 512, 16384
#: Trial steps between two reports of progress.
_CHUNK = 5
#: Promised reduction of the negative log-likelihood at which a search has converged.
_TOLERANCE = 1e-9
#: Ends within this much of the best negative log-likelihood count as the best.
_SAME = 1e-3
#: 95 % quantile of the chi-square distribution with one degree of freedom.
_CHI_SQUARE = 3.841458820694124


def fit(
    model: Model | Callable[[Any, Any, Any], Any] | str | os.PathLike,
    data: Table | Dataset | Mapping[str, Any] | str | os.PathLike,
    *,
    states: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Parameter] | None = None,
    observed: Mapping[str, Callable] | None = None,
    noise: str | Noise | Mapping[str, Noise] = "normal",
    doses: tuple[Dose, ...] = (),
    time: str = "time",
    group: str | None = None,
    starts: int | None = None,
    seed: int = 0,
    profile: bool = False,
    rtol: float = 1e-8,
    atol: float = 1e-10,
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
        noise: `"normal"`, `"lognormal"`, `"proportional"`, a `Noise`, or one for each column.
        doses: jumps of a state.
        time: name of the time column.
        group: name of the column that tells experiments apart.
        starts: number of searches; the first begins at the guess. Default 16.
        seed: of the random starts.
        profile: also compute profile-likelihood intervals.
        rtol: relative tolerance of the solves.
        atol: absolute tolerance of the solves.
        max_iterations: trial steps of a search.
        progress: called with the finished fraction, the best cost so far and a message.

    Returns:
        A `FitResult`. Without convergence its `converged` is False and a warning says so.

    Raises:
        InputError: a model or data that cannot be used, or a solve that fails at the guess.
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
        model = _model(model, data, states, parameters, observed, noise, doses, time, group)
    starts = 16 if starts is None else starts
    if isinstance(starts, bool) or not isinstance(starts, int | np.integer) or starts < 1:
        raise InputError(f"starts must be a positive integer; got {starts!r}.")
    dataset = data if isinstance(data, Dataset) else assemble(model, data)
    with jax.enable_x64(True):
        return _fit(
            model, dataset, int(starts), seed, profile, rtol, atol, max_iterations, progress
        )


def _model(f, data, states, parameters, observed, noise, doses, time, group) -> Model:
    if not callable(f):
        raise InputError(f"model must be an rf.Model or a function f(t, y, p); got {f!r}.")
    if states is None or parameters is None:
        raise InputError(
            "A function f(t, y, p) needs states={name: initial value} and "
            "parameters={name: rf.Parameter(guess)}."
        )
    if observed is None:
        columns = data.columns if isinstance(data, Table) else data
        names = [name for name in states if not isinstance(data, Dataset) and name in columns]
        if not names:
            raise InputError(
                f"No data column has the name of a state ({', '.join(states)}): say what is "
                "measured by observed={column: function (t, y, p)}."
            )
    else:
        names = None
    if isinstance(noise, str):
        noise = Noise(noise)  # pyright: ignore[reportArgumentType]
    return _cached_model(
        f,
        tuple(states.items()),
        tuple(parameters.items()),
        tuple(observed.items()) if observed is not None else tuple(names or ()),
        noise if isinstance(noise, Noise) else tuple(noise.items()),
        tuple(doses),
        time,
        group,
    )


@lru_cache(maxsize=64)
def _cached_model(f, states, parameters, observed, noise, doses, time, group) -> Model:
    """One `Model`, and so one compiled program, for equal arguments."""

    def state(name):
        return lambda t, y, p, c: y[name]

    def given(g):
        return lambda t, y, p, c: g(t, y, p)

    columns = {x: state(x) if isinstance(x, str) else None for x in observed}
    columns = {
        (x if isinstance(x, str) else x[0]): (state(x) if isinstance(x, str) else given(x[1]))
        for x in observed
    }
    return Model(
        vector_field=lambda t, y, p, c: f(t, y, p),
        states=dict(states),
        parameters=dict(parameters),
        observed=columns,
        noise=dict.fromkeys(columns, noise) if isinstance(noise, Noise) else dict(noise),
        doses=doses,
        time=time,
        group=group,
    )


@partial(jax.jit, static_argnums=(0, 1, 2), static_argnames=("max_iterations",))
def _advance(model, lay, solver, data, states, lower, upper, free, steps, *, max_iterations):
    return damped_newton.advance(
        problem.objective(model, lay, solver, data), states, lower, upper, free,
        steps=steps, tolerance=_TOLERANCE, max_iterations=max_iterations,
    )  # fmt: skip


@partial(jax.jit, static_argnums=(0, 1, 2))
def _linearised(model, lay, solver, data, u):
    """Linked model values, their derivative by local parameters, and result codes."""
    return problem.group_values(model, lay, solver, u, data, derivative=True)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _values(model, lay, solver, data, u):
    eta, _, codes = problem.group_values(model, lay, solver, u, data, derivative=False)
    return eta, codes


def _fit(model, dataset, starts, seed, profile, rtol, atol, max_iterations, progress):
    clock = _Clock()
    lay = problem.layout(model, len(dataset.groups))
    data = problem.group_data(model, dataset)
    t0 = float(dataset.t0[0]) if np.all(dataset.t0 == dataset.t0[0]) else None
    points = _latin_hypercube(lay, starts, seed)
    search = _Search(model, lay, data, max_iterations, progress)
    free = np.ones((starts, lay.size), bool)
    search.solver = Solver(rtol, atol, _FEW_STEPS, t0)
    states = search.run(points, free)
    if states is None:
        search.solver = Solver(rtol, atol, _MANY_STEPS, t0)
        trouble = _trouble(model, lay, search.solver, data, points[0])
        states = None if trouble else search.run(points, free)
        if states is None:
            raise InputError(trouble or f"{_NOT_FINITE} {_HINT}")
    clock.lap("search")
    values = np.asarray(states.local.value)
    best = int(np.argmin(values))
    u = np.asarray(states.x[best])
    scales, squares = (np.asarray(x[best]) for x in states.local.aux)
    information = np.asarray(states.local.curvature[best])
    status = np.asarray(states.status)
    converged = bool(status[best] == CONVERGED)

    observations = dataset.observations
    dof = observations - lay.size
    fitted_scale = any(noise.scale is None for noise in model.noise.values())
    inflation = observations / dof if fitted_scale and dof > 0 else 1.0
    at_bound = np.where(u <= lay.lower, "lower", np.where(u >= lay.upper, "upper", ""))
    found = uncertainty.from_information(information, inflation, at_bound != "")
    value = lay.values(u)
    se = np.sqrt(np.maximum(np.diagonal(found.covariance), 0.0))
    se = np.where(found.lost, np.inf, np.where(at_bound != "", np.nan, se))
    quantile = _student(dof)
    lower, upper = lay.values(u - quantile * se), lay.values(u + quantile * se)
    slope = np.where(lay.log, value, 1.0)  # of the natural parameter by its coordinate
    natural = found.covariance * np.outer(slope, slope)
    names = _free_names(lay, dataset)
    clock.lap("uncertainty")
    intervals: list[tuple[float, float] | None] = [None] * lay.size
    if profile:
        intervals = _profile(search, lay, u, float(values[best]), se)
        clock.lap("profile")

    warnings = [] if converged else [_not_converged(status[best], max_iterations)]
    warnings += uncertainty.explain(found, names, lay.log, value)
    warnings += [
        f"{names[i]} is on its {at_bound[i]} bound, {value[i]:.4g}: the data would take it "
        "further. Widen the bound, or fix it there; its error cannot be computed."
        for i in np.flatnonzero(at_bound != "")
    ]
    if fitted_scale and dof <= 0:
        warnings.append(
            f"There are {observations} measurements for {lay.size} free parameters: the errors "
            "mean nothing. Fix parameters, give the scale of the noise, or add data."
        )
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
    estimates += _scale_estimates(model, dataset, scales)
    finished = np.isin(status, (CONVERGED,))
    listed = [
        Start(float(v), bool(ok), int(n), bool(v - values[best] <= _SAME))
        for v, ok, n in zip(values, finished, np.asarray(states.iterations), strict=True)
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
            f"solve (Tsit5, rtol {rtol:g}, atol {atol:g}), {starts} "
            f"start{'s' if starts > 1 else ''} (the guess, then a Latin hypercube)"
        ),
        seconds=clock.laps, converged=converged,
        message="converged" if converged else _not_converged(status[best], max_iterations),
        _predict=_Predictor(
            model, lay, search.solver, data, u, found.covariance, quantile, scales
        ),
    )  # fmt: skip


class _Clock:
    def __init__(self):
        self.laps: dict[str, float] = {}
        self.last = time.perf_counter()

    def lap(self, name: str):
        now = time.perf_counter()
        self.laps[name] = now - self.last
        self.last = now


class _Search:
    """A batch of searches, in chunks so that progress can be told."""

    solver: Solver

    def __init__(self, model, lay: Layout, data, max_iterations: int, progress):
        self.model, self.lay, self.data = model, lay, data
        self.max_iterations = max_iterations
        self.progress = progress

    def run(self, points: np.ndarray, free: np.ndarray, need_first: bool = True):
        """The final states, or `None` if the objective cannot be evaluated at the first point."""
        columns = np.zeros((len(points), len(self.model.observed)))
        states = damped_newton.init(points, (columns, columns))
        chunk = np.int32(_CHUNK if self.progress else self.max_iterations + 1)
        while True:
            states = _advance(
                self.model, self.lay, self.solver, self.data, states,
                self.lay.lower, self.lay.upper, free, chunk, max_iterations=self.max_iterations,
            )  # fmt: skip
            status = np.asarray(states.status)
            if need_first and not np.isfinite(states.local.value[0]):
                return None
            done = np.mean(status > RUNNING)
            if self.progress:
                best = float(np.min(states.local.value))
                self.progress(float(done), best, f"{int((status > RUNNING).sum())} of "
                              f"{len(points)} searches finished")  # fmt: skip
            if done == 1:
                return states


_HINT = "Change the guesses (or their bounds), or check the equations and their units."
_NOT_FINITE = "The likelihood or its derivative is not finite at the guess."


def _trouble(model: Model, lay: Layout, solver: Solver, data, u) -> str:
    """Why the likelihood cannot be evaluated at the guess; empty if it can."""
    eta, codes = map(np.asarray, _values(model, lay, solver, data, u))
    worst = Result(int(codes.max()))
    if worst is Result.max_steps:
        return (
            f"The model cannot be solved at the guess: {solver.max_steps} steps do not reach the "
            f"last measurement, because it blows up or is stiff. {_HINT}"
        )
    if worst is not Result.success:
        return (
            "The model cannot be solved at the guess: the solution blows up or leaves the domain "
            f"of a function before the last measurement. {_HINT}"
        )
    measured = np.asarray(data.weights) > 0
    for i, column in enumerate(model.observed):
        if not np.all(np.isfinite(eta[:, i][measured[:, i]])):
            kind = model.noise[column].kind
            why = " (lognormal noise needs it positive)" if kind == "lognormal" else ""
            return (
                f"At the guess the model's value of {column!r} is not usable{why} at some "
                f"measured time. {_HINT}"
            )
    return ""


def _not_converged(status: int, max_iterations: int) -> str:
    if status == damped_newton.MAX_ITERATIONS:
        return (
            f"The search did not converge in {max_iterations} iterations: the estimates are the "
            "best found, not the best there is. Give better guesses or narrower bounds."
        )
    return (
        "The search stalled: no step improves the fit, yet it does not look like a minimum. The "
        "model may not be smooth in its parameters there; tighten rtol or change the guesses."
    )


def _latin_hypercube(lay: Layout, starts: int, seed: int) -> np.ndarray:
    """The guess, and a Latin hypercube within the bounds.

    Where a bound is missing, starts are drawn within a factor of 10 of the guess (log scale), or
    within its size (linear).
    """
    rng = np.random.default_rng(seed)
    reach = np.where(lay.log, np.log(10.0), np.maximum(np.abs(lay.start), 1.0))
    low = np.where(np.isfinite(lay.lower), lay.lower, lay.start - reach)
    high = np.where(np.isfinite(lay.upper), lay.upper, lay.start + reach)
    low, high = np.minimum(low, lay.start), np.maximum(high, lay.start)
    rest = starts - 1
    points = [lay.start]
    if rest:
        cells = np.stack([rng.permutation(rest) for _ in range(lay.size)], axis=1)
        share = (cells + rng.uniform(size=cells.shape)) / rest
        points += list(low + share * (high - low))
    return np.array(points)


def _student(dof: int) -> float:
    """97.5 % quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(dof, 0.975)) if dof > 0 else float("nan")


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


def _scale_estimates(model: Model, dataset: Dataset, scales: np.ndarray) -> list[Estimate]:
    """Scales of the noise; a fitted one has the error s / sqrt(2 n) of a maximum likelihood."""
    out = []
    for (column, noise), s in zip(model.noise.items(), scales, strict=True):
        n = int(np.isfinite(dataset.values[column]).sum())
        fixed = noise.scale is not None
        relative = 0.0 if fixed else 1 / np.sqrt(2 * n)
        spread = np.exp(1.959963984540054 * relative)
        unit = model.units.get(column, "") if noise.kind == "normal" else ""
        out.append(
            Estimate(
                column, None, float(s), float(s * relative), float(s / spread), float(s * spread),
                unit, fixed, "", "scale",
            )
        )  # fmt: skip
    return out


def _profile(search: _Search, lay: Layout, u, best: float, se) -> list[tuple[float, float] | None]:
    """Profile-likelihood intervals: each parameter held at a row of values, the others refitted."""
    sides = np.array([0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0])
    offsets = np.concatenate([-sides, sides])
    out: list[tuple[float, float] | None] = []
    for j in range(lay.size):
        step = (
            se[j] if np.isfinite(se[j]) and se[j] > 0 else (1.0 if lay.log[j] else abs(u[j]) or 1)
        )
        points = np.tile(u, (len(offsets), 1))
        points[:, j] = np.clip(u[j] + offsets * step, lay.lower[j], lay.upper[j])
        free = np.ones_like(points, bool)
        free[:, j] = False
        states = search.run(points, free, need_first=False)
        assert states is not None
        rise = 2 * (np.asarray(states.local.value) - best)
        moved = points[:, j] - u[j]
        n = len(sides)
        low = uncertainty.crossing(moved[:n], rise[:n], _CHI_SQUARE)
        high = uncertainty.crossing(moved[n:], rise[n:], _CHI_SQUARE)
        ends = np.clip([u[j] + low, u[j] + high], lay.lower[j], lay.upper[j])
        with np.errstate(over="ignore"):
            ends = np.exp(ends) if lay.log[j] else ends
        out.append((float(ends[0]), float(ends[1])))
    return out


class _Predictor:
    """Predictions with their bands. The times of the data are always asked for along with others.

    So one compiled program, and one run of it, serves both the curve and the residuals.
    """

    def __init__(self, model, lay, solver, data, u, covariance, quantile, scales):
        self.model, self.lay, self.solver, self.data = model, lay, solver, data
        self.u, self.covariance = u, covariance
        self.quantile, self.scales = quantile, scales
        self.at_data: tuple | None = None

    def __call__(self, ts: np.ndarray, noise: bool) -> dict[str, tuple]:
        slots = self.data.ts.shape[1]
        if self.at_data is not None and np.array_equal(ts, self.data.ts):
            mean, variance = self.at_data
        else:
            mean, variance = self._values(np.concatenate([self.data.ts, ts], axis=1))
            self.at_data = mean[..., :slots], variance[..., :slots]
            mean, variance = mean[..., slots:], variance[..., slots:]
        out = {}
        for i, (column, law) in enumerate(self.model.noise.items()):
            middle, spread = mean[:, i], variance[:, i]
            if noise:
                size = np.abs(middle) if law.kind == "proportional" else 1.0
                spread = spread + (self.scales[i] * size) ** 2
            reach = self.quantile * np.sqrt(np.maximum(spread, 0.0))
            band = (middle, middle - reach, middle + reach)
            out[column] = tuple(map(np.exp, band)) if law.kind == "lognormal" else band
        return out

    def _values(self, ts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Linked model values and their variance from that of the parameters."""
        with jax.enable_x64(True):
            at = self.data._replace(ts=ts)
            mean, jacobian, codes = map(
                np.asarray, _linearised(self.model, self.lay, self.solver, at, self.u)
            )
        if codes.any():
            raise SolveError(
                "The fitted model could not be solved over the times asked for: it blows up or "
                "becomes stiff beyond the data. Ask for a shorter span."
            )
        index = self.lay.index
        local = self.covariance[index[:, :, None], index[:, None, :]]
        return mean, np.einsum("gcsm,gmk,gcsk->gcs", jacobian, local, jacobian)
