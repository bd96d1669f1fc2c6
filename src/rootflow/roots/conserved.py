"""What an autonomous flow conserves, and its steady states among all that have it.

If w.f(y) = 0 for all y, then w.y does not change along the flow, df/dy is singular everywhere
(w is in its left null space), and which of the many roots of f is meant is decided by the start.
With P the projector on all such w the equations f(y) + P (y - y0) = 0 say both: f vanishes, and
what is conserved has kept its value. Their Jacobian is regular at an isolated steady state, and
their implicit derivative includes that with respect to the start.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._typing import PyTree
from ..ground.varying import cond
from .linear import jacobian_matrix, lu_solver
from .trees import from_vector, size, to_vector

#: Beyond this many unknowns no null space is looked for.
LIMIT = 1024


class Conserved(NamedTuple):
    """What a flow conserves: the projector on it, and whether there is anything."""

    projector: Float[Array, "n n"]
    some: Bool[Array, ""]

    def kept(self, value: PyTree, y: PyTree, y0: PyTree) -> PyTree:
        """`value`, that of the field at `y`, plus P (y - y0)."""

        def moved():
            return self.projector @ (to_vector(y) - to_vector(y0))

        # Most fields conserve nothing, and shall not pay for a product of matrices.
        unravel = from_vector(y)
        part = cond(self.some, moved, lambda: jnp.zeros_like(to_vector(y)))
        return jax.tree.map(jnp.add, value, unravel(part))


def conserved(f: Callable[[PyTree], PyTree], y0: PyTree) -> Conserved | None:
    """The linear quantities that the flow of `f` conserves.

    They are the common left null space of the Jacobian at three points about `y0`, as far as the
    field has no component along it. Where the Jacobian at `y0` is regular there are none, and
    nothing more is computed. The derivative with respect to what `f` closes over is that of the
    null space, whose vectors may depend on it; the one with respect to `y0` is zero.

    Returns:
        The quantities, or None above `LIMIT` unknowns, where they are not looked for.
    """
    n = size(y0)
    if n > LIMIT:
        return None
    unravel = from_vector(y0)
    start = jax.lax.stop_gradient(to_vector(y0))

    def field(v):
        return to_vector(f(unravel(v)))

    here = jacobian_matrix(field, start)
    nothing = jnp.zeros((n, n), start.dtype)
    projector = cond(is_singular(here), lambda: _projector(field, start, here), lambda: nothing)
    return Conserved(projector, jnp.any(projector != 0))


def is_singular(matrix: Float[Array, "n n"]) -> Bool[Array, ""]:
    """Whether a matrix may be singular; round-off leaves pivots well above its unit."""
    return lu_solver(matrix, margin=1e3)[2]


def on_continuum(f: Callable[[PyTree], PyTree], y: PyTree, known: Conserved) -> Bool[Array, ""]:
    """Whether the steady state `y` has others next to it, among all that keep what is conserved."""
    unravel, point = from_vector(y), to_vector(y)

    def field(v):
        return to_vector(f(unravel(v)))

    matrix = jacobian_matrix(field, point) + known.projector
    eps = float(jnp.finfo(point.dtype).eps)

    def has_neighbours():
        # Inverse iteration ends in the direction in which the field does not change.
        scale = jnp.max(jnp.abs(matrix))
        scale = jnp.where(scale > 0, scale, 1)
        shift = eps**0.75 * scale * jnp.eye(point.shape[0], dtype=point.dtype)
        solve = lu_solver(matrix + shift)[0]
        start = jnp.asarray(np.random.default_rng(0).normal(size=point.shape), point.dtype)
        direction = start
        for _ in range(3):
            direction = solve(direction)
            direction = direction / jnp.linalg.norm(direction)
        size = jnp.max(jnp.abs(point))
        length = 1e-2 * jnp.where(size > 0, size, 1)
        ahead = jnp.max(jnp.abs(field(point + length * direction)))
        back = jnp.max(jnp.abs(field(point - length * direction)))
        return jnp.minimum(ahead, back) <= eps**0.6 * scale * length

    return cond(is_singular(matrix), has_neighbours, lambda: jnp.asarray(False))


def _projector(field, start, here):
    n, dtype = start.shape[0], start.dtype
    eps = float(jnp.finfo(dtype).eps)
    points = [start, *_neighbours(start)]
    jacobians = [here, *(jacobian_matrix(field, v) for v in points[1:])]
    # A point outside of the field's domain says nothing.
    finite = lambda v: jnp.where(jnp.all(jnp.isfinite(v)), v, 0)
    matrix = jnp.concatenate([finite(v) for v in jacobians], axis=1)
    inverse = jnp.linalg.pinv(matrix, rtol=1e3 * n * eps)
    projector = jnp.eye(n, dtype=dtype) - matrix @ inverse
    values = jnp.stack([finite(field(v)) for v in points], axis=1)
    along = jnp.max(jnp.abs(projector @ values))
    return jnp.where(along <= eps**0.5 * jnp.max(jnp.abs(values)), projector, 0)


def _neighbours(start):
    """Points about a state, on the same side of zero: concentrations stay positive."""
    rng = np.random.default_rng(0)
    size = jnp.max(jnp.abs(start))
    size = jnp.where(size > 0, size, 1)
    for _ in range(2):
        stretch, shift = (jnp.asarray(rng.uniform(size=start.shape), start.dtype) for _ in range(2))
        yield start * (1 + 0.1 * stretch) + 0.05 * size * shift
