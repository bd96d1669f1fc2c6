"""Preconditioned descent on grids: rates, certificates, and the plain gradient beside them."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ... import pde

TOLERANCE = 1e-5


class Descent(NamedTuple):
    """One run: steps to the tolerance, how rate and bound compare, and the true errors."""

    dim: int
    n: int
    kappa: float
    steps: int
    worst: float
    bound: float
    certificate: float
    errors: list[Any]
    bounds: list[Any]


def problem_on(kappa: float, grid: pde.SineGrid) -> tuple[pde.Energy, Any]:
    """The energy of |p|²/2 + κ (√(1 + |p|²) - 1) whose discrete minimiser is ∏ sin πx_i."""
    star = jnp.prod(jnp.sin(jnp.pi * grid.points), axis=-1)

    def L(x, u, p):
        return 0.5 * p @ p + kappa * (jnp.sqrt(1.0 + p @ p) - 1.0)

    return pde.Energy(L, ellipticity=(1.0, 1.0 + kappa)).with_solution(star, grid), star


def run(dim: int, n: int, kappa: float, constants_of: Any = "sharp") -> Descent:
    """Until the relative error in H is certain to be below the tolerance."""
    grid = pde.SineGrid(dim, n, differences="forward")
    problem, star = problem_on(kappa, grid)
    found = pde.minimise(problem, grid, relative_error=TOLERANCE, constants_of=constants_of)
    size = float(grid.h1_norm(star))
    assert found.iterates is not None
    errors = np.array([float(grid.h1_norm(jnp.asarray(u) - star)) for u in found.iterates])
    gaps = found.energies - float(problem.energy(star, grid))
    keep = gaps[1:] > 1e-12 * abs(gaps[0])
    return Descent(
        dim, n, kappa,
        steps=int(np.argmax(errors / size < TOLERANCE)),
        worst=float((gaps[1:] / gaps[:-1])[keep].max()),
        bound=found.rate_bound,
        certificate=float((found.error_bounds / errors).min()),
        errors=(errors / size).tolist(),
        bounds=(found.error_bounds / size).tolist(),
    )  # fmt: skip


def plain(n: int, kappa: float) -> int:
    """Steps of the gradient of L², with the longest step its Lipschitz constant allows; d = 1."""
    grid = pde.SineGrid(1, n, differences="forward")
    problem, star = problem_on(kappa, grid)
    step = 1.0 / ((1 + kappa) * float(np.max(grid.eigenvalues)))
    size = float(grid.h1_norm(star))

    @eqx.filter_jit
    def count():
        def far(carry):
            u, k = carry
            return (grid.h1_norm(u - star) > TOLERANCE * size) & (k < 200_000)

        def move(carry):
            u, k = carry
            return u - step * problem.gradient(u, grid), k + 1

        return jax.lax.while_loop(far, move, (jnp.zeros(grid.shape), jnp.zeros((), int)))[1]

    return int(count())
