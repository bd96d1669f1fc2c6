"""Sets given by one linear equation or inequality, or by a system of equations."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...errors import InputError
from ..checks import concrete
from .base import Set, known_and, largest, number, numbers, require_length, vector


def _check_normal(normal: Any, owner: str) -> None:
    if np.ndim(normal) != 1:
        raise InputError(f"{owner}: normal must be a vector, but its shape is {np.shape(normal)}")
    if known_and(normal, lambda a: ~np.any(a != 0) | ~np.all(np.isfinite(a))):
        raise InputError(f"{owner}: normal={np.asarray(normal)} must be finite and not zero")


def _check_offset(offset: Any, owner: str, *, infinite: bool = False) -> None:
    if known_and(offset, lambda v: ~np.isfinite(v) & ~(infinite & (v == np.inf))):
        raise InputError(f"{owner}: offset={np.asarray(offset)} must be finite")


def _excess(x: Any, normal: Any, offset: Any, owner: str) -> tuple[Array, Array, Array]:
    """The point, the normal, and normal . x - offset; -inf where the offset is infinite."""
    x, normal = vector(x, owner), jnp.asarray(normal)
    require_length(x, normal.shape[0], owner)
    return x, normal, x @ normal - number(offset, "offset", owner, x.dtype)


def _along(excess: Array, normal: Array) -> Array:
    """The shortest vector whose product with the normal is `excess`."""
    # In units of its largest entry, whose square may be out of the range of numbers.
    unit = jax.lax.stop_gradient(jnp.max(jnp.abs(normal)))
    scaled = normal / unit
    return (excess / unit / (scaled @ scaled))[..., None] * scaled


class Hyperplane(Set):
    """Vectors x with normal . x = offset, along the last axis."""

    normal: Float[Array, " n"] = eqx.field(converter=numbers)
    offset: Any = eqx.field(converter=numbers, default=0.0)

    def __check_init__(self):
        _check_normal(self.normal, "Hyperplane")
        _check_offset(self.offset, "Hyperplane")

    def project(self, x: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
        x, a, excess = _excess(x, self.normal, self.offset, "Hyperplane")
        return x - _along(excess, a)

    def violation(self, x):
        return largest(jnp.abs(_excess(x, self.normal, self.offset, "Hyperplane")[2]))


class HalfSpace(Set):
    """Vectors x with normal . x <= offset, along the last axis; an infinite offset is none."""

    normal: Float[Array, " n"] = eqx.field(converter=numbers)
    offset: Any = eqx.field(converter=numbers, default=0.0)

    def __check_init__(self):
        _check_normal(self.normal, "HalfSpace")
        _check_offset(self.offset, "HalfSpace", infinite=True)

    def project(self, x: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
        x, a, excess = _excess(x, self.normal, self.offset, "HalfSpace")
        return x - _along(jnp.where(excess <= 0, 0, excess), a)

    def violation(self, x):
        return largest(_excess(x, self.normal, self.offset, "HalfSpace")[2])


class Affine(Set):
    """Vectors x with matrix x = offset, along the last axis.

    Attributes:
        matrix: m equations for n unknowns, shape (m, n), of full row rank.
        offset: right-hand side, shape (m,).

    Raises:
        InputError: shapes do not match, or the equations depend on each other.
    """

    matrix: Float[Array, "m n"] = eqx.field(converter=numbers)
    offset: Float[Array, " m"] = eqx.field(converter=numbers)

    def __check_init__(self):
        check_system(self.matrix, self.offset, "Affine", "matrix", "offset")
        known = concrete(self.matrix)
        if known is not None and np.linalg.matrix_rank(known) < known.shape[0]:
            raise InputError(
                f"Affine: the {known.shape[0]} rows of matrix are linearly dependent (rank "
                f"{np.linalg.matrix_rank(known)}); drop the redundant equations"
            )

    def project(self, x: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
        x, a, residual = self._residual(x)
        dual = jnp.linalg.solve(a @ a.T, residual[..., None])[..., 0]
        return x - dual @ a

    def violation(self, x):
        return largest(jnp.abs(self._residual(x)[2]))

    def _residual(self, x):
        x, a = vector(x, "Affine"), jnp.asarray(self.matrix)
        require_length(x, a.shape[1], "Affine")
        return x, a, x @ a.T - self.offset


def check_system(
    matrix: Any, offset: Any, owner: str, name: str, other: str, *, infinite: bool = False
) -> None:
    """Raises unless the shapes are (m, n) and (m,) and all known numbers are finite.

    Right-hand sides of `infinite` systems may be +inf.
    """
    shape, right = np.shape(matrix), np.shape(offset)
    if len(shape) != 2 or right != shape[:1]:
        raise InputError(
            f"{owner}: {name} must have shape (m, n) and {other} shape (m,), but they have shapes "
            f"{shape} and {right}"
        )
    if known_and(matrix, lambda v: ~np.isfinite(v)):
        raise InputError(f"{owner}: {name} contains NaN or infinity")
    if known_and(offset, lambda v: ~np.isfinite(v) & ~(infinite & (v == np.inf))):
        hint = " other than inf for no restriction" if infinite else ""
        raise InputError(f"{owner}: {other} contains NaN or infinity{hint}")
