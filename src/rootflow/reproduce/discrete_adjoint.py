"""The order of Tsit5, and the exactness of the discrete adjoint."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import rootflow as rf

from .harness.axes import grid_and_legend
from .harness.entry import Claim, Entry, Outcome, Paper, Report

# Lotka-Volterra: nonlinear, not chaotic, and polynomial, so that a complex step is exact.
_POPULATION = np.array([10.0, 5.0])
_RATES = np.array([1.1, 0.4, 0.4, 0.1])
_SPAN = (0.0, 10.0)


def _predation(t, y, p):
    prey, predator = y
    return jnp.array(
        [
            p[0] * prey - p[1] * prey * predator,
            p[3] * prey * predator - p[2] * predator,
        ]
    )


def _modulated_growth(t, y, args):
    """y' = y cos t, whose solution from y(0) = 1 is exp(sin t)."""
    return y * jnp.cos(t)


def _solve(p, rtol, saveat=None):
    options = {"method": rf.Tsit5(), "rtol": rtol, "atol": 1e-3 * rtol, "saveat": saveat}
    return rf.solve_ode(_predation, _POPULATION, _SPAN, p, **options)


_final = jax.jit(lambda p, rtol: _solve(p, rtol).ys[-1])
_gradient = jax.jit(jax.jacrev(lambda p, rtol: _solve(p, rtol).ys[-1, 0]))
_sensitivity = jax.jit(jax.jacfwd(lambda p, rtol: _solve(p, rtol).ys[-1, 0]))
_evaluations = jax.jit(lambda rtol: _solve(_RATES, rtol).stats.evaluations)


class _FixedSteps(NamedTuple):
    sizes: np.ndarray
    errors: np.ndarray


def _fixed_steps(counts: list[int]) -> _FixedSteps:
    end = 6.0
    exact = np.exp(np.sin(end))

    @jax.jit
    def error(dt):
        sol = rf.solve_ode(
            _modulated_growth, jnp.array(1.0), (0.0, end), method=rf.Tsit5(), dt=dt, max_steps=2048
        )
        return jnp.abs(sol.ys[-1] - exact)

    sizes = end / np.array(counts)
    return _FixedSteps(sizes, np.array([error(dt) for dt in sizes]))


class _Tolerances(NamedTuple):
    rtols: np.ndarray
    evaluations: np.ndarray
    value_errors: np.ndarray
    gradient_errors: np.ndarray


def _tolerances(rtols: np.ndarray) -> _Tolerances:
    """Errors of the solution and of its discrete gradient, against a far tighter solve."""
    reference = _final(_RATES, 1e-13)
    reference_gradient = _gradient(_RATES, 1e-13)
    return _Tolerances(
        rtols,
        np.array([_evaluations(rtol) for rtol in rtols]),
        np.array([_distance(_final(_RATES, rtol), reference) for rtol in rtols]),
        np.array([_distance(_gradient(_RATES, rtol), reference_gradient) for rtol in rtols]),
    )


def _distance(a, b) -> float:
    a, b = np.asarray(a), np.asarray(b)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def _complex_step_gradient(rtol: float) -> np.ndarray:
    """The derivative of the accepted steps, without automatic differentiation.

    The steps of the adaptive solve are taken again with the sizes it chose, one fixed step at a
    time, in complex arithmetic: Im F(p + i e) / e with e = 1e-100 has no cancellation, and its
    truncation error of order e^2 is nothing (Squire and Trapp, 1998).
    """
    sol = _solve(_RATES, rtol, saveat="steps")
    ends = np.asarray(sol.ts)[: int(sol.stats.accepted)]
    times = np.concatenate([[_SPAN[0]], ends])
    tiny = 1e-100

    @jax.jit
    def replay(y, p, times):
        def step(y, interval):
            t0, t1 = interval
            sol = rf.solve_ode(
                _predation, y, (t0, t1), p, method=rf.Tsit5(), dt=t1 - t0, max_steps=4
            )
            return sol.ys[-1], sol.stats.steps

        return jax.lax.scan(step, y, (times[:-1], times[1:]))

    columns = []
    for direction in np.eye(_RATES.size):
        p = _RATES + 1j * tiny * direction
        y, steps = replay(_POPULATION.astype(p.dtype), p, times)
        if not (np.asarray(steps) == 1).all():
            raise RuntimeError(f"a frozen step was split: {np.unique(np.asarray(steps))} steps")
        columns.append(float(y[0].imag) / tiny)
    return np.array(columns)


def _difference_errors(rtol: float, increments: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Errors of central differences of the adaptive solve, whose steps move with p."""
    errors = []
    for increment in increments:
        columns = [
            (_final(_RATES + e, rtol)[0] - _final(_RATES - e, rtol)[0]) / (2 * increment)
            for e in increment * np.eye(_RATES.size)
        ]
        errors.append(_distance(columns, exact))
    return np.array(errors)


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def _run(report: Report, quick: bool) -> Outcome:
    report(0.0, "fixed steps")
    fixed = _fixed_steps([24, 48, 96] if quick else [24, 34, 48, 68, 96, 136, 192])

    report(0.2, "tolerances")
    rtols = 10.0 ** -np.arange(5, 12, 2 if quick else 1)
    adaptive = _tolerances(rtols)

    report(0.5, "the same steps in complex arithmetic")
    rtol = 1e-6
    reverse, forward = _gradient(_RATES, rtol), _sensitivity(_RATES, rtol)
    frozen = _complex_step_gradient(rtol)

    report(0.8, "finite differences")
    increments = 10.0 ** -np.arange(1, 12, 2 if quick else 1)
    differences = _difference_errors(rtol, increments, frozen)

    report(0.95, "figure")
    exactness = _distance(reverse, frozen)
    measurements = {
        "order": _slope(fixed.sizes, fixed.errors),
        "work": -1 / _slope(adaptive.value_errors, adaptive.evaluations),
        "proportional": _slope(adaptive.rtols, adaptive.value_errors),
        "exact": exactness,
        "modes": _distance(forward, reverse),
    }
    data = {
        "fixed": fixed._asdict(),
        "adaptive": adaptive._asdict(),
        "increments": increments,
        "difference_errors": differences,
        "gradient": reverse,
    }
    figure = _draw(fixed, adaptive, increments, differences, exactness)
    report(1.0)
    return Outcome(measurements, figure, data)


def _draw(
    fixed: _FixedSteps,
    adaptive: _Tolerances,
    increments: np.ndarray,
    differences: np.ndarray,
    exactness: float,
) -> Figure:
    figure = Figure(figsize=(6.0, 8.6), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1)

    guide = fixed.errors[0] * (fixed.sizes / fixed.sizes[0]) ** 5
    top.loglog(fixed.sizes, guide, color="0.6", linestyle="--", label="slope 5")
    top.loglog(fixed.sizes, fixed.errors, "o-", color="C0", label="Tsit5, fixed steps")
    top.set(xlabel="step size", ylabel="error at the end", title="Order of convergence")
    top.set_xticks([0.03, 0.05, 0.1, 0.2], ["0.03", "0.05", "0.1", "0.2"])
    top.set_xticks([], minor=True)

    middle.loglog(adaptive.rtols, adaptive.value_errors, "o-", color="C0", label="solution")
    middle.loglog(
        adaptive.rtols, adaptive.gradient_errors, "s-", color="C3", label="discrete gradient"
    )
    middle.loglog(adaptive.rtols, adaptive.rtols, color="0.6", linestyle="--", label="slope 1")
    middle.set(
        xlabel="relative tolerance",
        ylabel="relative error",
        title="Adaptive steps, against the exact solution",
    )

    bottom.loglog(increments, differences, "o-", color="C1", label="finite differences")
    bottom.axhline(max(exactness, np.finfo(float).eps), color="C3", label="discrete adjoint")
    bottom.set(
        xlabel="increment of the finite difference",
        ylabel="relative error",
        title="Gradient, against the derivative of the steps taken",
    )
    for axes in (top, middle, bottom):
        grid_and_legend(axes)
    return figure


_KIDGER = "Kidger (2022), discretise-then-optimise"
_TSITOURAS = "Tsitouras (2011), Computers & Mathematics with Applications 62, 770-775"

ENTRY = Entry(
    name="discrete-adjoint",
    title="The order of Tsit5 and the exactness of the discrete adjoint",
    paper=Paper(
        authors="Kidger", year=2022, title="On Neural Differential Equations", arxiv="2202.02435"
    ),
    claims=(
        Claim(
            id="order",
            text="With fixed steps the error of Tsit5 falls with the fifth power of the step size.",
            published=5,
            holds=("between", 4.8, 5.4),
            source=_TSITOURAS,
        ),
        Claim(
            id="work",
            text="With adaptive steps the error falls with at least that power of the work "
            "(p in error = const * evaluations^-p).",
            published=5,
            holds=(">=", 4.5),
            source=_TSITOURAS,
        ),
        Claim(
            id="proportional",
            text="The error achieved is proportional to the tolerance asked for (exponent).",
            published=1,
            holds=("between", 0.8, 1.2),
            source="Higham (1991), IMA Journal of Numerical Analysis 11, 457-480",
        ),
        Claim(
            id="exact",
            text="The discrete adjoint is the exact derivative of the steps taken "
            "(relative difference from a complex step through the same steps).",
            published="exact",
            holds=("<=", 1e-12),
            source=_KIDGER,
        ),
        Claim(
            id="modes",
            text="Forward and reverse mode give the same derivative (relative difference).",
            published="to round-off",
            holds=("<=", 1e-12),
            source=_KIDGER,
        ),
    ),
    run=_run,
    protocol=(
        "Order: y' = y cos t from y(0) = 1 to t = 6, closed form exp(sin t); the slope of log "
        "error against log step size.\n\n"
        "Adaptive steps and gradients: Lotka-Volterra, four rates, ten units of time, float64; "
        "atol is rtol / 1000. Both populations at the end, and the gradient of the prey, are "
        "compared with a solve at rtol 1e-13 (norm of the difference over the norm). Evaluations "
        "include the first step's search and rejected steps; they weigh less at tight tolerances, "
        "so the power of the work comes out above 5.\n\n"
        "Exactness: the accepted steps of the solve at rtol 1e-6 are taken again, each with the "
        "size that was chosen, in complex arithmetic with an imaginary increment of 1e-100 in one "
        "rate at a time. Its imaginary part is the derivative of those very steps to round-off, "
        "and no automatic differentiation takes part in it."
    ),
    caption=(
        "Top: the error of Tsit5 with fixed steps. Middle: with adaptive steps the solution and "
        "its discrete gradient follow the tolerance. Bottom: finite differences of the adaptive "
        "solve against the discrete adjoint, both compared with the derivative of the steps taken."
    ),
)
