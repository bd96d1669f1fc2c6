"""Stiff problems of the literature beside SciPy and diffrax."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import rootflow as rf

from ._solvers import Solver, diffrax, in_scipy, ours
from .harness.comparison import Build, Comparison, Row
from .problems import STIFF, Problem

MEMBERS = 1000
OURS = "Rodas5P"
PROBLEMS = {problem.name: problem for problem in STIFF}
ROBERTSON = PROBLEMS["Robertson to 1e+11"]
ACCURACY = 1e-6
#: What the issue of the bar was measured at: rtol = 1e-6, atol = 1e-9, the same for all components.
_BAR = Problem(**{**vars(ROBERTSON), "size": 1e-3})


def side(solver: Solver, problem: Problem, tolerance: float) -> Build:
    def build():
        solve = solver.build(problem)
        return lambda: solve(tolerance).y

    return build


def matched(solver: Solver, problem: Problem, target: float) -> Build:
    """At the loosest tolerance, in steps of a quarter of a power of ten, that meets the error."""

    def build():
        solve = solver.build(problem)
        tolerance = loosest(solve, problem, target)
        return lambda: solve(tolerance).y

    return build


def loosest(solve: Callable, problem: Problem, target: float) -> float:
    for k in range(8, 49):
        tolerance = 10.0 ** (-k / 4)
        if problem.error(solve(tolerance).y, ACCURACY) <= target:
            return tolerance
    raise RuntimeError(f"{problem.name}: no tolerance down to 1e-12 has an error of {target:g}.")


def error(problem: Problem) -> Callable[[Any], float]:
    """The largest error of a component, relative to its own size (above the problem's `size`)."""
    return lambda y: ACCURACY * problem.error(y, ACCURACY)


def batch(solver: str, problem: Problem, tolerance: float) -> Build:
    """The rate constants of Robertson's reaction vary from member to member."""

    def build():
        rates = jnp.asarray(np.exp(0.1 * np.random.default_rng(0).normal(size=(MEMBERS, 3))))
        solve = jax.jit(jax.vmap(_robertson_of(solver, problem, tolerance)))
        return lambda: solve(rates)

    return build


def scaled(t, y, rates):
    a, b, c = y
    first, second, third = 0.04 * a, 1e4 * b * c, 3e7 * b**2
    first, second, third = rates[0] * first, rates[1] * second, rates[2] * third
    return jnp.stack([second - first, first - second - third, third])


def _robertson_of(solver: str, problem: Problem, tolerance: float) -> Callable:
    y0, atol = jnp.asarray(problem.y0), tolerance * jnp.asarray(problem.size)

    def mine(rates):
        sol = rf.solve_ode(
            scaled, y0, problem.span, rates, method=getattr(rf, OURS)(), rtol=tolerance, atol=atol,
            max_steps=4096,
        )  # fmt: skip
        return sol.ys[-1]

    def theirs(rates):
        import diffrax as dfx

        sol = dfx.diffeqsolve(
            dfx.ODETerm(scaled),  # pyright: ignore[reportArgumentType]
            dfx.Kvaerno5(), *problem.span, None, y0, rates, max_steps=4096,
            stepsize_controller=dfx.PIDController(tolerance, atol, pcoeff=0.3, icoeff=0.4),
        )  # fmt: skip
        assert sol.ys is not None
        return sol.ys[-1]

    return mine if solver == "rootflow" else theirs


def rows(quick: bool) -> Sequence[Row]:
    mine, lsoda, kvaerno = ours(OURS), in_scipy("LSODA"), diffrax("Kvaerno5")
    wide = f"{ROBERTSON.name}, rtol 1e-6, atol 1e-9"
    made = [
        Row(
            f"{wide}, LSODA", side(mine, _BAR, 1e-6), side(lsoda, _BAR, 1e-6), bar=1.0,
            error=error(_BAR),
        ),
        Row(
            f"{wide}, Kvaerno5", side(mine, _BAR, 1e-6), side(kvaerno, _BAR, 1e-6), bar=0.5,
            error=error(_BAR), peer_name="diffrax",
        ),
        Row(
            f"first call, {wide}, Kvaerno5", side(mine, _BAR, 1e-6), side(kvaerno, _BAR, 1e-6),
            bar=0.5, kind="first call", peer_name="diffrax",
        ),
    ]  # fmt: skip
    if quick:
        return made
    made.append(
        Row(
            f"{MEMBERS:,} of {wide}, vmap, Kvaerno5",
            batch("rootflow", _BAR, 1e-6), batch("diffrax", _BAR, 1e-6), bar=0.25,
            peer_name="diffrax",
        )
    )  # fmt: skip
    for name in ("Van der Pol, scaled, 1e-6", "OREGO", "HIRES", "POLLU", ROBERTSON.name):
        problem = PROBLEMS[name]
        solve = mine.build(problem)
        target = problem.error(solve(loosest(solve, problem, 1.0)).y, ACCURACY)
        for peer in (in_scipy("LSODA"), in_scipy("BDF"), in_scipy("Radau"), kvaerno):
            made.append(
                Row(
                    f"{name}, {peer.method}", matched(mine, problem, target),
                    matched(peer, problem, target), bar=1.0, error=error(problem),
                    peer_name=peer.package,
                )
            )  # fmt: skip
    return made


COMPARISON = Comparison(
    title=f"stiff problems, {OURS}, float64; where no tolerance is named, both sides at the "
    "loosest that brings every component to a relative error of 1e-6 or to that of rootflow",
    peer="scipy",
    rows=rows,
)
