"""One implicit step of a density that drifts and diffuses, by exponentially fitted fluxes.

(n' - n) / h + div J(n') = 0 with J = D (B(-z) n'_i - B(z) n'_j) κ on the face between the cells i
and j, z the drift over the face. The matrix has positive diagonal, negative entries elsewhere and
columns that sum to the volumes over h: n' is not negative, and its integral is that of n.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...ground.elimination import krylov
from ...ground.krylov import bicgstab
from ...ground.varying import cond
from .. import elimination
from ..grids import Grid, Volumes
from .exponential_fitting import bernoulli, half_sinh

#: Where conjugate gradients would lose more digits than this, another method is used.
_LOST = 1e3
#: Up to so many cells the matrix of that method is formed: it may converge badly on coarse grids.
_DENSE = 64


class Drift(NamedTuple):
    """What moves a density.

    Attributes:
        steps: along each axis, z on the inner faces: what the drift's potential rises by.
        diffusion: along each axis, the diffusion coefficient on the inner faces, or one number.
        potential: the potential in the cells, where z is its difference and the diffusion one
            number; the system is then symmetric in the right variables.
    """

    steps: tuple[Array, ...]
    diffusion: tuple[Array, ...] | float = 1.0
    potential: Array | None = None

    def weights(self, grid: Volumes) -> tuple[Array, ...]:
        """Area over distance times the diffusion coefficient, for every inner face."""
        some = self.diffusion
        each = some if isinstance(some, tuple) else (some,) * grid.ndim
        return tuple(jnp.asarray(k * d) for k, d in zip(grid.conductances, each))


class Solved(NamedTuple):
    """A density after a step.

    Attributes:
        n: the density.
        repair: how far the linear solver was from a density of the right integral that is not
            negative, relative: what was set to zero and what the integral was corrected by.
    """

    n: Array
    repair: Float[Array, ""]


def fluxes(grid: Volumes, drift: Drift, n: Array) -> tuple[Array, ...]:
    """What passes the inner faces, along each axis: flux times area."""
    found = []
    for axis, (weight, z) in enumerate(zip(drift.weights(grid), drift.steps)):
        here, there = _sides(n, axis)
        found.append(weight * (bernoulli(-z) * here - bernoulli(z) * there))
    return tuple(found)


def step(grid: Volumes, drift: Drift, n: Array, h: Array) -> Solved:
    """The density after an implicit Euler step of length h."""
    if grid.ndim == 1:
        return _repaired(grid, n, _line(grid, drift, n, h))
    assert isinstance(grid, Grid)
    if drift.potential is None:
        return _repaired(grid, n, _general(grid, drift, n, h))
    # What conjugate gradients leave is relative to g, which is large where cells are low in a
    # steep potential: the error of n is larger by this factor.
    root = _root(drift.potential)
    largest = jnp.max(jnp.abs(n))
    factor = jnp.max(jnp.abs(n) / root) / jnp.where(largest > 0, largest, 1)
    new = cond(
        factor > _LOST,
        lambda n, h: _general(grid, drift, n, h), lambda n, h: _symmetric(grid, drift, n, h), n, h,
    )  # fmt: skip
    return _repaired(grid, n, new)


def _repaired(grid: Volumes, old: Array, new: Array) -> Solved:
    """The exact solution is not negative and keeps the integral: so is what is nearest to it.

    What is far from both is no solution: NaN, which ends the run or asks for a smaller step.
    """
    clipped = jnp.maximum(new, 0)
    before, after = grid.integrate(old), grid.integrate(clipped)
    factor = jnp.where(after > 0, before / jnp.where(after > 0, after, 1), 1)
    largest = jnp.max(jnp.abs(old))
    below = jnp.maximum(-jnp.min(new), 0) / jnp.where(largest > 0, largest, 1)
    repair = jnp.maximum(below, jnp.abs(factor - 1))
    good = repair <= 1e6 * _tolerance(old)
    return Solved(jnp.where(good, clipped * factor, jnp.nan), repair)


def _sides(field: Array, axis: int) -> tuple[Array, Array]:
    """The cells before and after each inner face along an axis."""
    last = field.shape[axis]
    index = [slice(None)] * field.ndim
    index[axis] = slice(0, last - 1)
    here = field[tuple(index)]
    index[axis] = slice(1, last)
    return here, field[tuple(index)]


def _line(grid: Volumes, drift: Drift, n: Array, h: Array) -> Array:
    (weight,), (z,) = drift.weights(grid), drift.steps
    out, back = weight * bernoulli(-z), weight * bernoulli(z)
    mass = jnp.asarray(jnp.broadcast_to(grid.volumes, grid.shape) / h)
    diagonal = mass + jnp.pad(out, (0, 1)) + jnp.pad(back, (1, 0))
    return elimination.tridiagonal(-out, diagonal, -back, mass * n)


def _tolerance(n: Array) -> float:
    return 1e-12 if n.dtype == jnp.float64 else 1e-5


def _preconditioner(grid: Grid, h: Array, diffusion: Array | float):
    inverse = 1 / (1 / h + diffusion * grid.eigenvalues)

    def apply(v):
        modes = grid.transform(v.reshape(grid.shape)) * inverse
        return grid.inverse_transform(modes.astype(v.dtype)).ravel()

    return apply


def _root(potential: Array) -> Array:
    """exp(φ / 2), at most one, and not zero."""
    root = jnp.exp(0.5 * (potential - jnp.max(potential)))
    return jnp.maximum(root, jnp.sqrt(jnp.finfo(root.dtype).tiny))


def _symmetric(grid: Grid, drift: Drift, n: Array, h: Array) -> Array:
    """In g = exp(-φ/2) n the matrix is symmetric, and exp(φ/2) is an eigenvector of it, to 1/h.

    Along it the answer is known, which keeps the integral to round-off however long is iterated;
    the rest is found from the old density by conjugate gradients.
    """
    assert drift.potential is not None
    root = _root(drift.potential)
    volume = math.prod(grid.widths)
    rates = [w / volume for w in drift.weights(grid)]
    diagonal, sides = jnp.full(grid.shape, 1.0, n.dtype) / h, []
    for axis, (rate, z) in enumerate(zip(rates, drift.steps)):
        sides.append(rate * half_sinh(z))
        before, after = _padding(grid.ndim, axis)
        diagonal = diagonal + jnp.pad(rate * bernoulli(-z), after)
        diagonal = diagonal + jnp.pad(rate * bernoulli(z), before)

    def product(v):
        g = v.reshape(grid.shape)
        total = diagonal * g
        for axis, side in enumerate(sides):
            here, there = _sides(g, axis)
            before, after = _padding(grid.ndim, axis)
            total = total - jnp.pad(side * there, after) - jnp.pad(side * here, before)
        return total.ravel()

    old = (n / root).ravel()
    right = old / h - product(old)  # what is left for the change of g; none of it along the root
    direction = root.ravel() / jnp.linalg.norm(root)
    right = right - direction * jnp.vdot(direction, right)
    change = elimination.positive_definite(
        product, right, _preconditioner(grid, h, jnp.mean(rates[0]) * grid.widths[0] ** 2),
        _tolerance(n),
    )  # fmt: skip
    change = change - direction * jnp.vdot(direction, change)
    return (old + change).reshape(grid.shape) * root


def _padding(ndim: int, axis: int) -> tuple[list[Any], list[Any]]:
    """Paddings that add a cell before and after the faces along an axis."""
    before = [(1, 0) if a == axis else (0, 0) for a in range(ndim)]
    after = [(0, 1) if a == axis else (0, 0) for a in range(ndim)]
    return before, after


def _general(grid: Grid, drift: Drift, n: Array, h: Array) -> Array:
    """By a Krylov method for any matrix, along lines of one axis after the other beforehand.

    The product of the steps along each axis alone is near the whole step where h is short, and
    keeps positivity and the integral as that does.
    """
    volume = math.prod(grid.widths)
    outs, backs = [], []
    for weight, z in zip(drift.weights(grid), drift.steps):
        outs.append(h * weight / volume * bernoulli(-z))
        backs.append(h * weight / volume * bernoulli(z))

    def product(v):
        field = v.reshape(grid.shape)
        return (field + h * grid.divergence(fluxes(grid, drift, field))).ravel()

    if n.size <= _DENSE:
        matrix = jax.jacfwd(product)(jnp.zeros_like(n).ravel())
        return jnp.linalg.solve(matrix, n.ravel()).reshape(grid.shape)

    def along(field, axis, transposed):
        out, back = (jnp.moveaxis(some[axis], axis, -1) for some in (outs, backs))
        lower, upper = (-back, -out) if transposed else (-out, -back)
        widths = [(0, 0)] * (field.ndim - 1)
        diagonal = 1 + jnp.pad(out, [*widths, (0, 1)]) + jnp.pad(back, [*widths, (1, 0)])
        rows = jnp.moveaxis(field, axis, -1)
        flat = [x.reshape(-1, x.shape[-1]) for x in (lower, diagonal, upper, rows)]
        solved = jax.vmap(elimination.tridiagonal)(*flat)
        return jnp.moveaxis(solved.reshape(rows.shape), -1, axis)

    def lines(v, transposed):
        field = v.reshape(grid.shape)
        for axis in range(grid.ndim)[:: -1 if transposed else 1]:
            field = along(field, axis, transposed)
        return field.ravel()

    solve = krylov(
        product, int(np.prod(grid.shape)), _tolerance(n), lambda v: lines(v, False),
        lambda v: lines(v, True), bicgstab,
    )  # fmt: skip
    return solve(n.ravel()).reshape(grid.shape)
