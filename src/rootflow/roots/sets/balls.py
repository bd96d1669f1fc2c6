"""Euclidean and maximum-norm balls, and cones."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...errors import InputError
from ..checks import require_fit
from ..spectral import of_symmetric
from .base import ArraySet, largest, number, numbers, require_positive


def length_and_direction(x: Array) -> tuple[Array, Array]:
    """The Euclidean norm along the last axis (kept), and x of length one in its place.

    The squares of numbers of any size neither overflow nor vanish. At the origin the derivative of
    the norm is zero, and so is the direction; in an infinite vector the infinite entries decide.
    """
    top = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, keepdims=True, initial=0.0))
    infinite = jnp.isinf(top)
    unit = jnp.where((top > 0) & ~infinite, top, 1)
    signs = jnp.where(jnp.isinf(x), jnp.sign(x), 0)
    scaled = jnp.where(infinite, signs, x / unit)
    squared = jnp.sum(scaled * scaled, axis=-1, keepdims=True)
    some = squared != 0
    root = jnp.where(some, jnp.sqrt(jnp.where(some, squared, 1)), 0)
    return jnp.where(infinite, jnp.inf, unit * root), scaled / jnp.where(some, root, 1)


class L2Ball(ArraySet):
    """Vectors of Euclidean length at most `radius`, along the last axis."""

    radius: Any = eqx.field(converter=numbers, default=1.0)

    def __check_init__(self) -> None:
        require_positive(self.radius, "radius", "L2Ball", zero=True)

    def _project(self, x: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
        radius = number(self.radius, "radius", "L2Ball", x.dtype)
        length, direction = length_and_direction(x)
        return jnp.where(length <= radius, x, radius * direction)

    def _violation(self, x):
        radius = number(self.radius, "radius", "L2Ball", x.dtype)
        return largest(length_and_direction(x)[0] - radius)


class L2Sphere(ArraySet):
    """Vectors of Euclidean length `radius`, along the last axis (not convex).

    Every point of the sphere is nearest to the origin; its projection here has equal entries.
    """

    radius: Any = eqx.field(converter=numbers, default=1.0)

    def __check_init__(self) -> None:
        require_positive(self.radius, "radius", "L2Sphere")

    def _project(self, x: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
        length, direction = length_and_direction(x)
        middle = jnp.asarray(max(x.shape[-1], 1) ** -0.5, x.dtype)
        radius = number(self.radius, "radius", "L2Sphere", x.dtype)
        return radius * jnp.where(length == 0, middle, direction)

    def _violation(self, x):
        radius = number(self.radius, "radius", "L2Sphere", x.dtype)
        return largest(jnp.abs(length_and_direction(x)[0] - radius))


class LInfBall(ArraySet):
    """Vectors with no entry larger than `radius` in absolute value."""

    axes: ClassVar[int] = 0

    radius: Any = eqx.field(converter=numbers, default=1.0)

    def __check_init__(self) -> None:
        require_positive(self.radius, "radius", "LInfBall", zero=True)

    def _project(self, x: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
        return jnp.where(jnp.abs(x) > self.radius, jnp.sign(x) * self.radius, x)

    def _violation(self, x):
        return largest(jnp.abs(x) - self.radius)

    def _checked(self, point, x):
        require_fit(self.radius, point.shape, "LInfBall: radius", "the point")
        return point


class SecondOrderCone(ArraySet):
    """Vectors whose first entry is at least the Euclidean length of the others: t >= |z|."""

    def _project(self, x: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
        t, z = x[..., :1], x[..., 1:]
        length, direction = length_and_direction(z)
        inside, polar = length <= t, length <= -t
        middle = 0.5 * length + 0.5 * t
        edge = jnp.concatenate([middle, middle * direction], axis=-1)
        return jnp.where(inside, x, jnp.where(polar, 0, edge))

    def _violation(self, x):
        return largest(length_and_direction(x[..., 1:])[0] - x[..., :1])

    def _checked(self, point, x):
        if point.shape[-1] < 2:
            raise InputError(
                f"SecondOrderCone needs at least 2 entries, but the shape is {point.shape}"
            )
        return point


def _positive_part(values, parameter):
    off = values <= 0
    return jnp.where(off, 0, values), (~off).astype(values.dtype), jnp.zeros_like(values)


class PositiveSemidefinite(ArraySet):
    """Symmetric matrices without negative eigenvalues, in the last two axes.

    The projection takes the symmetric part first; its derivative exists at repeated eigenvalues,
    and its second derivatives are NaN where two of them agree to some digits.
    """

    axes: ClassVar[int] = 2

    def _project(self, x: Float[Array, "*b n n"]) -> Float[Array, "*b n n"]:
        return of_symmetric(_positive_part, x, jnp.zeros((), x.dtype))

    def _violation(self, x):
        mirror = jnp.swapaxes(x, -1, -2)
        return largest(-jnp.linalg.eigvalsh(0.5 * (x + mirror)), jnp.abs(x - mirror))

    def _checked(self, point, x):
        if point.shape[-1] != point.shape[-2]:
            raise InputError(f"PositiveSemidefinite needs a square matrix, not shape {point.shape}")
        return point
