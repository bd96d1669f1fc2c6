"""The Lorenz system, beside diffrax: one solve, a thousand, the gradient, and compile times."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp

import rootflow as rf

from .harness.comparison import Build, Comparison, Row

START = np.array([1.0, 1.0, 1.0])
PARAMETERS = np.array([10.0, 28.0, 8.0 / 3.0])
MEMBERS = 1000
MAX_STEPS = 4096


class Problem(NamedTuple):
    """A span, and a tolerance that leaves correct digits at its end: the system is chaotic."""

    end: float
    tolerance: float


PROBLEMS = (Problem(1.0, 1e-6), Problem(20.0, 1e-8))


def lorenz(t, y, p):
    x, y, z = y
    return jnp.stack([p[0] * (y - x), x * (p[1] - z) - y, x * y - p[2] * z])


Solve = Callable[[Any, Any], Any]


def ours(problem: Problem) -> Solve:
    def final(y0, p):
        sol = rf.solve_ode(
            lorenz,
            y0,
            (0.0, problem.end),
            p,
            method=rf.Tsit5(),
            rtol=problem.tolerance,
            atol=problem.tolerance,
            max_steps=MAX_STEPS,
        )
        return sol.ys[-1]

    return final


def theirs(problem: Problem) -> Solve:
    import diffrax as dfx

    def final(y0, p):
        sol = dfx.diffeqsolve(
            dfx.ODETerm(lorenz),  # pyright: ignore[reportArgumentType]
            dfx.Tsit5(),
            0.0,
            problem.end,
            None,
            y0,
            p,
            stepsize_controller=dfx.PIDController(problem.tolerance, problem.tolerance),
            max_steps=MAX_STEPS,
        )
        assert sol.ys is not None
        return sol.ys[-1]

    return final


def starts() -> np.ndarray:
    return START + 0.1 * np.random.default_rng(0).normal(size=(MEMBERS, 3))


def single(side: Callable[[Problem], Solve], problem: Problem) -> Build:
    def build():
        call = jax.jit(side(problem))
        y0, p = jnp.asarray(START), jnp.asarray(PARAMETERS)
        return lambda: call(y0, p)

    return build


def batch(side: Callable[[Problem], Solve], problem: Problem) -> Build:
    def build():
        call = jax.jit(jax.vmap(side(problem), in_axes=(0, None)))
        y0, p = jnp.asarray(starts()), jnp.asarray(PARAMETERS)
        return lambda: call(y0, p)

    return build


def gradient(side: Callable[[Problem], Solve], problem: Problem) -> Build:
    """The gradient of x + y + z at the end in the three parameters."""

    def build():
        final = side(problem)
        call = jax.jit(jax.grad(lambda p, y0: final(y0, p).sum()))
        y0, p = jnp.asarray(START), jnp.asarray(PARAMETERS)
        return lambda: call(p, y0)

    return build


def batch_gradient(side: Callable[[Problem], Solve], problem: Problem) -> Build:
    def build():
        final = side(problem)
        call = jax.jit(jax.vmap(jax.grad(lambda p, y0: final(y0, p).sum()), in_axes=(None, 0)))
        y0, p = jnp.asarray(starts()), jnp.asarray(PARAMETERS)
        return lambda: call(p, y0)

    return build


def reference(y0: np.ndarray, end: float) -> tuple[np.ndarray, np.ndarray]:
    """Final states (n, 3) and their derivatives in the parameters (n, 3, 3), by DOP853 of SciPy.

    The variational equations are integrated with the system, at a tolerance of 1e-13.
    """
    s, r, b = PARAMETERS
    n = len(y0)

    def field(t, flat):
        x, y, z = flat[: 3 * n].reshape(3, n)
        sx, sy, sz = flat[3 * n :].reshape(3, 3, n)  # component, parameter, member
        dx, dy, dz = s * (y - x), x * (r - z) - y, x * y - b * z
        ux = s * (sy - sx)
        uy = (r - z) * sx - sy - x * sz
        uz = y * sx + x * sy - b * sz
        ux[0] += y - x
        uy[1] += x
        uz[2] -= z
        return np.concatenate([a.ravel() for a in (dx, dy, dz, ux, uy, uz)])

    start = np.concatenate([y0.T.ravel(), np.zeros(9 * n)])
    sol = solve_ivp(field, (0.0, end), start, method="DOP853", rtol=1e-13, atol=1e-13)
    final = sol.y[:, -1]
    return final[: 3 * n].reshape(3, n).T, final[3 * n :].reshape(3, 3, n).transpose(2, 0, 1)


def distance(exact: np.ndarray) -> Callable[[Any], float]:
    """The relative error of a result; for a batch, the median over its members."""

    def error(result) -> float:
        difference = np.linalg.norm(np.asarray(result) - exact, axis=-1)
        return float(np.median(difference / np.linalg.norm(exact, axis=-1)))

    return error


def rows(quick: bool) -> Sequence[Row]:
    made = []
    for problem in PROBLEMS[:1] if quick else PROBLEMS:
        y, dy = (a[0] for a in reference(START[None], problem.end))
        ys, dys = reference(starts(), problem.end)
        state, states = distance(y), distance(ys)
        slope, slopes = distance(dy.sum(axis=0)), distance(dys.sum(axis=1))
        span = f"T = {problem.end:g}"
        made += [
            Row(
                f"one solve, {span}",
                single(ours, problem),
                single(theirs, problem),
                bar=0.5,
                error=state,
            ),
            Row(
                f"{MEMBERS:,} solves under vmap, {span}",
                batch(ours, problem),
                batch(theirs, problem),
                bar=0.2,
                error=states,
            ),
            Row(
                f"gradient, {span}",
                gradient(ours, problem),
                gradient(theirs, problem),
                bar=0.45,
                error=slope,
            ),
            Row(
                f"{MEMBERS:,} gradients under vmap, {span}",
                batch_gradient(ours, problem),
                batch_gradient(theirs, problem),
                error=slopes,
            ),
            Row(
                f"first call, {span}",
                single(ours, problem),
                single(theirs, problem),
                bar=0.4,
                kind="first call",
            ),
            Row(
                f"first call of the gradient, {span}",
                gradient(ours, problem),
                gradient(theirs, problem),
                bar=0.45,
                kind="first call",
            ),
        ]
    return made


COMPARISON = Comparison(
    title="Lorenz, Tsit5, float64, rtol = atol = 1e-6 up to T = 1 and 1e-8 up to T = 20",
    peer="diffrax",
    rows=rows,
)
