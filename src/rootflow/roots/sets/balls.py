"""Euclidean and maximum-norm balls, and cones."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...errors import InputError
from ..checks import require_fit
from ..spectral import of_symmetric
from .base import Set, largest, number, numbers, require_positive, vector


def safe_norm(x: Array) -> Array:
    """The Euclidean norm along the last axis (kept), with derivative zero at the origin."""
    squared = jnp.sum(x * x, axis=-1, keepdims=True)
    return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)


class L2Ball(Set):
    """Vectors of Euclidean length at most `radius`, along the last axis."""

    radius: Any = eqx.field(converter=numbers, default=1.0)

    def __check_init__(self):
        require_positive(self.radius, "radius", "L2Ball", zero=True)

    def project(self, x: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
        x = vector(x, "L2Ball")
        radius = number(self.radius, "radius", "L2Ball", x.dtype)
        length = safe_norm(x)
        outside = length > radius
        return jnp.where(outside, x * (radius / jnp.where(outside, length, 1)), x)

    def violation(self, x):
        x = vector(x, "L2Ball")
        return largest(safe_norm(x) - number(self.radius, "radius", "L2Ball", x.dtype))


class L2Sphere(Set):
    """Vectors of Euclidean length `radius`, along the last axis (not convex).

    Every point of the sphere is nearest to the origin; its projection here has equal entries.
    """

    radius: Any = eqx.field(converter=numbers, default=1.0)

    def __check_init__(self):
        require_positive(self.radius, "radius", "L2Sphere")

    def project(self, x: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
        x = vector(x, "L2Sphere")
        length = safe_norm(x)
        some = length > 0
        middle = jnp.asarray(x.shape[-1] ** -0.5, x.dtype)
        radius = number(self.radius, "radius", "L2Sphere", x.dtype)
        return radius * jnp.where(some, x / jnp.where(some, length, 1), middle)

    def violation(self, x):
        x = vector(x, "L2Sphere")
        return largest(jnp.abs(safe_norm(x) - number(self.radius, "radius", "L2Sphere", x.dtype)))


class LInfBall(Set):
    """Vectors with no entry larger than `radius` in absolute value."""

    radius: Any = eqx.field(converter=numbers, default=1.0)

    def __check_init__(self):
        require_positive(self.radius, "radius", "LInfBall", zero=True)

    def project(self, x: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
        x = self._point(x)
        return jnp.where(jnp.abs(x) > self.radius, jnp.sign(x) * self.radius, x)

    def violation(self, x):
        return largest(jnp.abs(self._point(x)) - self.radius)

    def _point(self, x):
        x = vector(x, "LInfBall", 0)
        require_fit(self.radius, x.shape, "LInfBall: radius", "the point")
        return x


class SecondOrderCone(Set):
    """Vectors whose first entry is at least the Euclidean length of the others: t >= |z|."""

    def project(self, x: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
        x = self._point(x)
        t, z = x[..., :1], x[..., 1:]
        length = safe_norm(z)
        inside, polar = length <= t, length <= -t
        middle = 0.5 * (length + t)
        direction = z / jnp.where(length > 0, length, 1)
        edge = jnp.concatenate([middle, middle * direction], axis=-1)
        return jnp.where(inside, x, jnp.where(polar, 0, edge))

    def violation(self, x):
        x = self._point(x)
        return largest(safe_norm(x[..., 1:]) - x[..., :1])

    def _point(self, x):
        x = vector(x, "SecondOrderCone")
        if x.shape[-1] < 2:
            raise InputError(
                f"SecondOrderCone needs at least 2 entries, but the shape is {x.shape}"
            )
        return x


def _positive_part(values, parameter):
    on = values > 0
    return jnp.where(on, values, 0), on.astype(values.dtype), jnp.zeros_like(values)


class PositiveSemidefinite(Set):
    """Symmetric matrices without negative eigenvalues, in the last two axes.

    The projection takes the symmetric part first; its derivative exists at repeated eigenvalues.
    """

    def project(self, x: Float[Array, "*b n n"]) -> Float[Array, "*b n n"]:
        x = self._matrix(x)
        return of_symmetric(_positive_part, x, jnp.zeros((), x.dtype))

    def violation(self, x):
        x = self._matrix(x)
        mirror = jnp.swapaxes(x, -1, -2)
        return largest(-jnp.linalg.eigvalsh(0.5 * (x + mirror)), jnp.abs(x - mirror))

    def _matrix(self, x):
        x = vector(x, "PositiveSemidefinite", 2)
        if x.shape[-1] != x.shape[-2]:
            raise InputError(f"PositiveSemidefinite needs a square matrix, not shape {x.shape}")
        return x
