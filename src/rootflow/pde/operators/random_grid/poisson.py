"""The nonlinear Poisson problem solved by collocation, to nearly all digits."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ....errors import InputError
from ....ground.checks import whole
from ....ground.tracing import is_traced
from ....roots.root import root

# The smallest conductivity.
LEAST = 0.1


def chebyshev_sum(z: Float[Array, " terms"], x: Array) -> Array:
    """Σ z_i T_i(x) at places of any shape, by the recurrence of the polynomials."""
    before, here = jnp.ones_like(x), x
    total = z[0] * before
    for coefficient in z[1:]:
        total = total + coefficient * here
        before, here = here, 2 * x * here - before
    return total


def conductivity(u: Array, q: Array) -> Array:
    """κ = log(1 + exp(u q)) + 0.1."""
    return jax.nn.softplus(u * q) + LEAST


def nonlinear_poisson(
    z: Float[ArrayLike, " terms"],
    w: ArrayLike,
    *,
    points: Float[ArrayLike, "..."],
    nodes: int = 48,
) -> Float[Array, "..."]:
    """-(κ u')' = w on [-1, 1], u(±1) = 0, κ = log(1 + exp(u Σ z_i T_i(x))) + 0.1.

    Collocation at Chebyshev points, solved with `rf.root`; differentiable in z and w. With z = 0 it
    is w (1 - x²) / (2 (log 2 + 0.1)).

    Args:
        z: coefficients of the Chebyshev polynomials T_0, T_1, ...
        w: the source.
        points: where u is wanted, any shape, in [-1, 1].
        nodes: of the collocation.

    Raises:
        InputError: no z, or points outside of [-1, 1].
        SolveError: Newton's method does not converge.
    """
    z, w, points = jnp.asarray(z), jnp.asarray(w), jnp.asarray(points)
    kind = jnp.result_type(float, z, w, points)
    z, w, points = (v.astype(kind) for v in (z, w, points))
    if z.ndim != 1 or z.size == 0 or w.shape != ():
        raise InputError(f"z must have shape (terms,) and w (); got {z.shape} and {w.shape}.")
    if not is_traced(points) and points.size and float(jnp.max(jnp.abs(points))) > 1:
        raise InputError(
            f"points must lie in [-1, 1]; the farthest is at {float(jnp.max(jnp.abs(points))):g}."
        )
    return _solve(z, w, points, whole("nodes", nodes, 4))


@eqx.filter_jit
def _solve(z, w, points, nodes):
    x, slope, coefficients = (jnp.asarray(v, points.dtype) for v in _collocation(nodes))
    q = chebyshev_sum(z, x)

    def condition(inner, q, w):
        u = jnp.pad(inner, 1)
        return (slope @ (conductivity(u, q) * (slope @ u)))[1:-1] + w

    start = (w * (1 - x**2) / (2 * (np.log(2) + LEAST)))[1:-1]
    u = jnp.pad(root(condition, start, q, w), 1)
    orders = jnp.arange(nodes, dtype=points.dtype)
    waves = jnp.cos(jnp.arccos(jnp.clip(points, -1, 1))[..., None] * orders)
    return waves @ (coefficients @ u)


@functools.lru_cache
def _collocation(n: int) -> tuple[Any, Any, Any]:
    """Chebyshev points, the matrix of d/dx, and that from values to coefficients."""
    x = -np.cos(np.pi * np.arange(n) / (n - 1))
    ends = np.where((np.arange(n) == 0) | (np.arange(n) == n - 1), 2.0, 1.0)
    signs = ends * (-1.0) ** np.arange(n)
    slope = np.outer(signs, 1 / signs) / (x[:, None] - x + np.eye(n))
    slope -= np.diag(slope.sum(1))
    waves = np.cos(np.outer(np.arccos(np.clip(x, -1, 1)), np.arange(n)))
    return x, slope, np.linalg.inv(waves)
