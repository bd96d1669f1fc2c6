"""Work-precision diagrams of differential-algebraic and delay equations.

Neither SciPy nor diffrax solves either. SciPy is shown with what its user can do by hand: solve for
an algebraic variable that the equations contain linearly, which leaves an ordinary equation, and
the method of steps for a delay, one call of `solve_ivp` with dense output for each. The transistor
amplifier, whose mass matrix is singular without being diagonal, has no peer.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.integrate

import rootflow as rf

from ._diagrams import SECONDS, Curve, Panel, Point, draw, quickest, swept
from .harness.comparison import Comparison, Row
from .problems import DAE, STIFF, Problem

TOLERANCES = tuple(10.0**-k for k in range(3, 11))
TARGET = 1e-6
_SET = {problem.name: problem for problem in (*DAE, *STIFF)}
Solve = Callable[[float], Any]


def _conserved(t, y, args):
    """Robertson's reaction with conservation in the place of its third equation."""
    a, b, c = y
    first, second, third = 0.04 * a, 1e4 * b * c, 3e7 * b**2
    return jnp.stack([second - first, first - second - third, a + b + c - 1])


ROBERTSON = dataclasses.replace(
    _SET["Robertson to 1e+11"], f=_conserved, mass=np.diag([1.0, 1.0, 0.0])
)
ALGEBRAIC = {
    "pendulum, index 1": _SET["pendulum"],
    "Robertson to 1e11, DAE": ROBERTSON,
    "chemical Akzo Nobel": _SET["chemical Akzo Nobel"],
    "transistor amplifier": _SET["transistor amplifier"],
}


def ours(problem: Problem, method: str) -> Solve:
    args = jax.tree.map(jnp.asarray, problem.args)

    @jax.jit
    def solve(tolerance):
        sol = rf.solve_dae(
            problem.f, jnp.asarray(problem.y0), problem.span, args, mass=problem.mass,
            method=getattr(rf, method)(), rtol=tolerance, atol=tolerance * problem.size,
            max_steps=100_000, throw=False,
        )  # fmt: skip
        return jnp.where(sol.result == 0, sol.ys[-1], jnp.nan)

    return solve


def reduced(problem: Problem, method: str) -> Solve | None:
    """SciPy on the equation without its last unknown; None where that is not to be had."""
    mass = problem.mass
    assert mass is not None
    if np.any(mass != np.diag(np.append(np.ones(len(mass) - 1), 0.0))):
        return None

    def whole(t, y):
        at = lambda z: problem.f(t, jnp.append(y, z), problem.args)[-1]
        return jnp.append(y, at(0.0) / (at(0.0) - at(1.0)))

    field = jax.jit(lambda t, y: problem.f(t, whole(t, y), problem.args)[:-1])
    jacobian = jax.jit(jax.jacfwd(lambda t, y: problem.f(t, whole(t, y), problem.args)[:-1], 1))
    options: dict[str, Any] = {}
    if method in ("Radau", "BDF", "LSODA"):
        options = {"jac": lambda t, y: np.asarray(jacobian(t, y))}

    def solve(tolerance):
        sol = scipy.integrate.solve_ivp(
            lambda t, y: np.asarray(field(t, y)), problem.span, problem.y0[:-1], method,
            rtol=tolerance, atol=problem.atol(tolerance)[:-1], **options,
        )  # fmt: skip
        end = whole(problem.span[1], sol.y[:, -1])
        return np.asarray(end) if sol.success else np.full_like(problem.y0, np.nan)

    return solve


# Delays: y'(t) = f(y, y(t - delay)), y = start before zero.


def _linear(y, past):
    return -past


def _mackey_glass(y, past):
    return 0.2 * past / (1 + past**10) - 0.1 * y


def polynomial(t: float) -> float:
    """Of y' = -y(t - 1), y = 1 before: the sum of (-1)^k (t - k + 1)^k / k!."""
    total, factorial, k = 1.0, 1.0, 1
    while t - k + 1 > 0:
        factorial *= k
        total += (-1) ** k * (t - k + 1) ** k / factorial
        k += 1
    return total


#: The field, the delay, the number before zero, and the end.
DELAYED: dict[str, tuple[Callable[..., Any], float, float, float]] = {
    "y' = -y(t - 1)": (_linear, 1.0, 1.0, 10.0),
    "Mackey-Glass, delay 17": (_mackey_glass, 17.0, 1.2, 100.0),
}


def ours_delayed(name: str, method: str) -> Solve:
    field, delay, start, end = DELAYED[name]

    @jax.jit
    def solve(tolerance):
        sol = rf.solve_dde(
            lambda t, y, past, args: field(y, past[0]), lambda t: jnp.asarray(start), (delay,),
            (0.0, end), method=getattr(rf, method)(), rtol=tolerance, atol=tolerance,
            max_steps=2048, throw=False,
        )  # fmt: skip
        return jnp.where(sol.result == 0, sol.ys[-1], jnp.nan)

    return solve


def by_steps(name: str, method: str) -> Solve:
    """The method of steps with SciPy: one solve for each delay, on the one before."""
    field, delay, start, end = DELAYED[name]

    def solve(tolerance):
        before: Callable[[float], Any] = lambda t: start
        y, t = np.asarray([start]), 0.0
        while t < end:
            stop = min(t + delay, end)
            past = lambda t, before=before: before(t - delay)
            sol = scipy.integrate.solve_ivp(
                lambda t, y, past=past: field(y, past(t)), (t, stop), y, method,
                rtol=max(tolerance, 3e-14), atol=tolerance, dense_output=True,
            )  # fmt: skip
            before, y, t = sol.sol, sol.y[:, -1], stop
        return y[0]

    return solve


@functools.cache
def reference(name: str) -> float:
    if name.startswith("y'"):
        return polynomial(DELAYED[name][3])
    return float(by_steps(name, "DOP853")(3e-14))


def error_of(title: str) -> Callable[[Any], float]:
    if title in ALGEBRAIC:
        problem = ALGEBRAIC[title]
        return lambda y: TARGET * problem.error(y, TARGET)
    return lambda y: abs(float(y) - reference(title)) / max(abs(reference(title)), 1e-3)


def solvers(title: str) -> dict[tuple[str, str], Solve]:
    """By package and method."""
    found: dict[tuple[str, str], Solve | None] = {}
    if title in DELAYED:
        for method in ("Tsit5", "Vern7", "Rodas5P"):
            found["rootflow", method] = ours_delayed(title, method)
        for method in ("RK45", "DOP853"):
            found["scipy", f"{method}, by steps"] = by_steps(title, method)
    else:
        problem = ALGEBRAIC[title]
        for method in ("Rodas5P", "Kvaerno5", "BDF"):
            found["rootflow", method] = ours(problem, method)
        for method in ("Radau", "LSODA") if problem.stiff else ("DOP853", "Radau"):
            found["scipy", f"{method}, reduced"] = reduced(problem, method)
    return {key: solve for key, solve in found.items() if solve is not None}


@functools.cache
def panels(quick: bool) -> list[Panel]:
    tolerances = TOLERANCES[:: 3 if quick else 1]
    made = []
    for title in (*ALGEBRAIC, *DELAYED):
        curves = [
            swept(
                *key, solve, tolerances, error_of(title), repeats=1 if quick else 3, patience=1.0,
            )
            for key, solve in solvers(title).items()
        ]  # fmt: skip
        made.append(Panel(title, curves))
    return made


def rows(quick: bool) -> Sequence[Row]:
    made = []
    for panel in panels(quick):
        mine, peer = (quickest(panel.curves, p, TARGET) for p in ("rootflow", "scipy"))
        if mine is None or peer is None:
            continue
        made.append(
            Row(
                f"{panel.title}: {mine[0].method} and {peer[0].method}",
                lambda c=mine, t=panel.title: again(t, *c),
                lambda c=peer, t=panel.title: again(t, *c),
                bar=1.0, error=error_of(panel.title),
            )
        )  # fmt: skip
    _DRAWN.append(quick)
    return made


def again(title: str, curve: Curve, point: Point) -> Callable[[], Any]:
    """The solve of a point of a curve."""
    solve = solvers(title)[curve.package, curve.method]
    return lambda: solve(point.setting)


#: Whether the last rows were made quickly: the pictures show the same.
_DRAWN: list[bool] = []


def pictures(out: Path) -> list[Path]:
    return [
        draw(
            panels(_DRAWN[-1]), [SECONDS], "largest relative error at the end",
            out / "work_precision_dae.png", bottom=1e-13, across=3,
        )
    ]  # fmt: skip


COMPARISON = Comparison(
    title=f"the quickest method of each package that meets a relative error of {TARGET:g}, float64",
    peer="scipy",
    rows=rows,
    pictures=pictures,
)
