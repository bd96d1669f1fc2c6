"""Certified minimisation of an energy on a grid beside L-BFGS of SciPy with energies in NumPy.

Both minimise the same discrete energy, |p|²/2 + √(1 + |p|²) - 1 with forward differences, from
zero; its minimiser is known. Ours stops when its certificate says that the error in H is below 1e-5
of the solution. The peer has no certificate and is given the gradient tolerance with which it gets
about as far; the achieved error stands beside.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from rootflow import pde

from .harness.comparison import Build, Comparison, Row


def surface(x, u, p):
    return 0.5 * p @ p + jnp.sqrt(1.0 + p @ p) - 1.0


def setting(n: int) -> tuple[pde.SineGrid, pde.Energy, Any]:
    grid = pde.SineGrid(2, n, differences="forward")
    star = jnp.prod(jnp.sin(jnp.pi * grid.points), axis=-1)
    return grid, pde.Energy(surface, ellipticity=(1.0, 2.0)).with_solution(star, grid), star


def ours(n: int) -> Build:
    def build() -> Callable[[], Any]:
        grid, problem, _ = setting(n)
        return lambda: pde.minimise(problem, grid, relative_error=1e-5, keep=False).u

    return build


def peer(n: int) -> Build:
    def build() -> Callable[[], Any]:
        from scipy.optimize import minimize

        _, problem, _ = setting(n)
        f = np.asarray(problem.source)

        def value(flat):
            u = np.zeros((n + 1, n + 1))
            u[1:-1, 1:-1] = flat.reshape(n - 1, n - 1)
            p, q = np.diff(u, axis=0)[:, :-1] * n, np.diff(u, axis=1)[:-1] * n
            root = np.sqrt(1 + p * p + q * q)
            energy = np.sum(0.5 * (p * p + q * q) + root - 1) / n**2
            energy -= np.sum(f * u[1:-1, 1:-1]) / n**2
            p, q = p * (1 + 1 / root), q * (1 + 1 / root)
            slope = (p[:-1, 1:] - p[1:, 1:] + q[1:, :-1] - q[1:, 1:]) / n - f / n**2
            return energy, slope.ravel()

        options = {"maxiter": 10_000, "maxfun": 20_000, "gtol": 1e-5 / n**2, "ftol": 0.0}
        start = np.zeros((n - 1) ** 2)
        return lambda: minimize(
            value, start, jac=True, method="L-BFGS-B", options=options
        ).x.reshape(n - 1, n - 1)

    return build


def distance(n: int) -> Callable[[Any], float]:
    """The relative error in H."""
    grid, _, star = setting(n)
    return lambda u: float(grid.h1_norm(jnp.asarray(u) - star) / grid.h1_norm(star))


def rows(quick: bool) -> Sequence[Row]:
    sizes = (16,) if quick else (32, 64, 128)
    return [
        Row(f"minimum of an energy, {n} x {n}", ours(n), peer(n), error=distance(n)) for n in sizes
    ]


COMPARISON = Comparison(
    title="a nonlinear energy on the unit square, float64, relative error 1e-5 in H",
    peer="scipy",
    rows=rows,
)
