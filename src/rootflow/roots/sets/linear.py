"""Sets given by one linear equation or inequality, or by a system of equations."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._typing import PyTree
from ...errors import InputError
from ..checks import concrete
from ..trees import to_vector
from .base import ArraySet, known_and, largest, number, numbers, require_length


def _coefficients(value: Any) -> Any:
    """Field converter: lists of numbers become arrays, and so do the leaves of other pytrees."""
    if isinstance(value, (list, tuple)) and all(np.ndim(v) == 0 for v in jax.tree.leaves(value)):
        return jnp.asarray(value)
    return jax.tree.map(numbers, value)


class _OneRow(ArraySet):
    """What a hyperplane and a half-space share: one row of coefficients and a right-hand side."""

    normal: PyTree = eqx.field(converter=_coefficients)
    offset: Any = eqx.field(converter=numbers, default=0.0)

    infinite: ClassVar[bool] = False

    def __check_init__(self) -> None:
        owner, leaves = self._name, jax.tree.leaves(self.normal)
        if not self.joint and not (eqx.is_array_like(self.normal) and np.ndim(self.normal) == 1):
            kind = type(self.normal).__name__
            shape = np.shape(self.normal) if eqx.is_array_like(self.normal) else kind
            raise InputError(
                f"{owner}: normal must be a vector, but its shape is {shape}; for a pytree of the "
                "shapes of the point, which is one vector then, set joint=True"
            )
        known = [concrete(leaf) for leaf in leaves]
        seen = [leaf for leaf in known if leaf is not None]
        zero = len(seen) == len(known) and not any(np.any(leaf != 0) for leaf in seen)
        if zero or not all(np.all(np.isfinite(leaf)) for leaf in seen):
            raise InputError(f"{owner}: normal={self.normal} must be finite and not zero")
        allowed = np.inf if self.infinite else np.nan
        if known_and(self.offset, lambda v: ~np.isfinite(v) & ~(v == allowed)):
            hint = f"; {self.offset} leaves no point, inf is no restriction"
            raise InputError(
                f"{owner}: offset={np.asarray(self.offset)} must be finite"
                + (hint if self.infinite else "")
            )

    def _checked(self, point, x):
        if self.joint and jax.tree.structure(self.normal) == jax.tree.structure(x):
            pairs = zip(jax.tree.leaves(self.normal), jax.tree.leaves(x), strict=True)
            alike = all(np.shape(a) in (np.shape(v), (np.size(v),)) for a, v in pairs)
        else:
            # One vector for all of them, in the order of the leaves.
            alike = eqx.is_array_like(self.normal) and np.ndim(self.normal) == 1
        if not alike:
            raise InputError(
                f"{self._name}: a normal of the structure and shapes "
                f"{jax.tree.map(np.shape, self.normal)} does not fit a point of "
                f"{jax.tree.map(np.shape, x)}; give one like the point, or one vector"
            )
        require_length(point, sum(np.size(a) for a in jax.tree.leaves(self.normal)), self._name)
        return point

    def _excess(self, x: Array) -> tuple[Array, Array]:
        """The normal, and normal . x - offset; -inf where the offset is infinite."""
        normal = to_vector(jax.tree.map(jnp.asarray, self.normal))
        return normal, x @ normal - number(self.offset, "offset", self._name, x.dtype)


def _along(excess: Array, normal: Array) -> Array:
    """The shortest vector whose product with the normal is `excess`."""
    # In units of its largest entry, whose square may be out of the range of numbers.
    unit = jax.lax.stop_gradient(jnp.max(jnp.abs(normal)))
    scaled = normal / unit
    return (excess / unit / (scaled @ scaled))[..., None] * scaled


class Hyperplane(_OneRow):
    """Vectors x with normal . x = offset, along the last axis.

    Attributes:
        normal: shape (n,); with `joint=True` also a pytree like the point.
        offset: a number.
    """

    def _project(self, x: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
        normal, excess = self._excess(x)
        return x - _along(excess, normal)

    def _violation(self, x):
        return largest(jnp.abs(self._excess(x)[1]))


class HalfSpace(_OneRow):
    """Vectors x with normal . x <= offset, along the last axis; an infinite offset is none.

    Attributes:
        normal: shape (n,); with `joint=True` also a pytree like the point.
        offset: a number, or inf.
    """

    infinite: ClassVar[bool] = True

    def _project(self, x: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
        normal, excess = self._excess(x)
        # An offset of -inf, which is refused where it is known, leaves no point.
        excess = jnp.where(excess == jnp.inf, jnp.nan, excess)
        return x - _along(jnp.where(excess <= 0, 0, excess), normal)

    def _violation(self, x):
        return largest(self._excess(x)[1])


class Affine(ArraySet):
    """Vectors x with matrix x = offset, along the last axis.

    Attributes:
        matrix: m equations for n unknowns, shape (m, n), of full row rank.
        offset: right-hand side, shape (m,).

    Raises:
        InputError: shapes do not match, or the equations depend on each other.
    """

    matrix: Float[Array, "m n"] = eqx.field(converter=numbers)
    offset: Float[Array, " m"] = eqx.field(converter=numbers)

    def __check_init__(self) -> None:
        check_system(self.matrix, self.offset, "Affine", "matrix", "offset")
        known = concrete(self.matrix)
        if known is not None and np.linalg.matrix_rank(known) < known.shape[0]:
            raise InputError(
                f"Affine: the {known.shape[0]} rows of matrix are linearly dependent (rank "
                f"{np.linalg.matrix_rank(known)}); drop the redundant equations"
            )

    def _project(self, x: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
        a, residual = self._residual(x)
        # Not by a @ a.T, whose condition is the square of that of a.
        q, r = jnp.linalg.qr(a.T)
        along = jax.scipy.linalg.solve_triangular(r, residual[..., None], trans="T")[..., 0]
        return x - along @ q.T

    def _violation(self, x):
        return largest(jnp.abs(self._residual(x)[1]))

    def _checked(self, point, x):
        require_length(point, np.shape(self.matrix)[1], "Affine")
        return point

    def _residual(self, x):
        a = jnp.asarray(self.matrix)
        return a, x @ a.T - self.offset


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
        if infinite and known_and(offset, lambda v: v == -np.inf):
            row = int(np.argmax(np.asarray(offset) == -np.inf))
            hint += f": row {row} asks for a product of at most -inf, which no point has"
        raise InputError(f"{owner}: {other} contains NaN or infinity{hint}")
