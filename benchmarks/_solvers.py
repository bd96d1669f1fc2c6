"""Solvers of every package under one signature, for the problems of `benchmarks.problems`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.integrate

import rootflow as rf

from .problems import Problem

MAX_STEPS = 100_000


class Answer(NamedTuple):
    """The state at the end, and how often the vector field was evaluated (`None`: not told)."""

    y: Any
    evaluations: Any


Solve = Callable[[float], Answer]


class Solver(NamedTuple):
    """A method of a package; `build(problem)` compiles a function of the tolerance."""

    package: str
    method: str
    build: Callable[[Problem], Solve]

    @property
    def label(self) -> str:
        return f"{self.package} {self.method}"


def _inputs(problem: Problem) -> tuple:
    y0, size = jnp.asarray(problem.y0), jnp.asarray(problem.atol(1.0))
    return y0, size, jax.tree.map(jnp.asarray, problem.args)


def ours(method: str) -> Solver:
    """The method of that name, or "auto"."""

    def build(problem: Problem) -> Solve:
        y0, size, args = _inputs(problem)
        chosen: Any = "auto" if method == "auto" else getattr(rf, method)()

        @jax.jit
        def solve(y0, args, tolerance):
            sol = rf.solve_ode(
                problem.f, y0, problem.span, args, method=chosen, rtol=tolerance,
                atol=tolerance * size, max_steps=MAX_STEPS, throw=False,
            )  # fmt: skip
            return Answer(jnp.where(sol.result == 0, sol.ys[-1], jnp.nan), sol.stats.evaluations)

        return lambda tolerance: solve(y0, args, tolerance)

    return Solver("rootflow", method, build)


def diffrax(method: str) -> Solver:
    def build(problem: Problem) -> Solve:
        import diffrax as dfx

        y0, size, args = _inputs(problem)
        solver = getattr(dfx, method)()
        stages = {"Tsit5": 6, "Dopri5": 6, "Dopri8": 13}.get(method)

        @jax.jit
        def solve(y0, args, tolerance):
            # The derivative of the controller that diffrax recommends for stiff problems.
            gains = {} if stages else {"pcoeff": 0.3, "icoeff": 0.4}
            sol = dfx.diffeqsolve(
                dfx.ODETerm(problem.f),  # pyright: ignore[reportArgumentType]
                solver, *problem.span, None, y0, args, max_steps=MAX_STEPS, throw=False,
                stepsize_controller=dfx.PIDController(tolerance, tolerance * size, **gains),  # pyright: ignore
            )  # fmt: skip
            assert sol.ys is not None
            y = jnp.where(sol.result == dfx.RESULTS.successful, sol.ys[-1], jnp.nan)
            return Answer(y, sol.stats["num_steps"] * stages if stages else None)

        return lambda tolerance: solve(y0, args, tolerance)

    return Solver("diffrax", method, build)


def in_scipy(method: str) -> Solver:
    """SciPy; it calls the vector field and its Jacobian as compiled by JAX, but see `BY_HAND`."""

    def build(problem: Problem) -> Solve:
        args = problem.args
        compiled = jax.jit(lambda t, y: problem.f(t, y, args))
        jacobian = jax.jit(jax.jacfwd(lambda y, t: problem.f(t, y, args)))
        f: Callable = lambda t, y: np.asarray(compiled(t, y))
        jac: Callable = lambda t, y: np.asarray(jacobian(y, t))
        for name, pair in BY_HAND.items():
            if problem.name.startswith(name):
                f, jac = (lambda t, y, g=g: g(y, args) for g in pair)
        options = {"jac": jac} if method in ("Radau", "BDF", "LSODA") else {}

        def solve(tolerance: float) -> Answer:
            sol = scipy.integrate.solve_ivp(
                f, problem.span, problem.y0, method, rtol=tolerance,
                atol=problem.atol(tolerance), **options,  # pyright: ignore
            )  # fmt: skip
            y = sol.y[:, -1] if sol.success else np.full_like(problem.y0, np.nan)
            return Answer(y, sol.nfev)

        return solve

    return Solver("scipy", method, build)


def _robertson(y, args):
    first, second, third = 0.04 * y[0], 1e4 * y[1] * y[2], 3e7 * y[1] * y[1]
    return [second - first, first - second - third, third]


def _robertson_jacobian(y, args):
    b, c = 1e4 * y[1], 1e4 * y[2]
    d = 6e7 * y[1]
    return [[-0.04, c, b], [0.04, -c - d, -b], [0.0, d, 0.0]]


def _van_der_pol(y, args):
    damping, spring = args
    return [y[1], damping * (1 - y[0] * y[0]) * y[1] - spring * y[0]]


def _van_der_pol_jacobian(y, args):
    damping, spring = args
    return [[0.0, 1.0], [-2 * damping * y[0] * y[1] - spring, damping * (1 - y[0] * y[0])]]


#: Small problems in plain Python, which SciPy calls faster than anything compiled.
BY_HAND = {
    "Robertson": (_robertson, _robertson_jacobian),
    "Van der Pol": (_van_der_pol, _van_der_pol_jacobian),
}
