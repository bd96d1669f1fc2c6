"""The simplex and sets whose projection rests on it."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._typing import PyTree
from ...errors import InputError
from ...ground.derivative import custom_jvp
from ...ground.varying import while_loop
from .base import ArraySet, largest, number, numbers, over_leading, require_positive

# Up to this length every entry is compared with every other, which needs no loop and no sort.
_COMPARE_ALL = 32


def _threshold(x: Float[Array, " n"], total: Float[Array, ""]) -> Float[Array, ""]:
    """The tau with sum of max(x - tau, 0) = total."""
    n = x.shape[0]
    if n <= _COMPARE_ALL:
        # The excess (sum of the k largest - total) / k is greatest at the right k.
        above = (x[None, :] >= x[:, None]).astype(x.dtype)
        return jnp.max((above @ x - total) / jnp.sum(above, axis=1))

    # Michelot (1986): average over the entries still above tau until none leaves; tau only grows.
    def proceed(carry):
        tau, before = carry
        return tau > before

    def step(carry):
        tau, _ = carry
        inside = x > tau
        count = jnp.sum(inside)
        update = (jnp.sum(jnp.where(inside, x, 0)) - total) / jnp.maximum(count, 1)
        return jnp.where(count > 0, jnp.maximum(update, tau), tau), tau

    first = (jnp.sum(x) - total) / n
    return while_loop(proceed, step, (first, jnp.full_like(first, -jnp.inf)))[0]


@custom_jvp
def project_simplex(x: Float[Array, " n"], total: Float[Array, ""]) -> Float[Array, " n"]:
    """The projection of one vector on the simplex of the given total."""
    # Relative to the largest entry, so that large common offsets cost no accuracy; infinite ones
    # share everything. What is lower by more than the total gets nothing, however low.
    top = jnp.max(x, initial=-jnp.inf)
    x = jnp.maximum(jnp.where(x == top, 0, x - top), -total)
    return jnp.maximum(x - _threshold(x, total), 0)


@project_simplex.defjvp
def _project_simplex_jvp(primals, tangents):
    x, total = primals
    x_dot, total_dot = tangents
    p = project_simplex(x, total)
    support = (p > 0).astype(p.dtype)
    count = jnp.maximum(jnp.sum(support), 1)
    return p, support * (x_dot + (total_dot - jnp.vdot(support, x_dot)) / count)


class Simplex(ArraySet):
    """Non-negative vectors with a given sum, along the last axis.

    Attributes:
        radius: the sum, a positive number (default 1: probability vectors).
    """

    radius: Any = eqx.field(converter=numbers, default=1.0)

    def __check_init__(self) -> None:
        require_positive(self.radius, "radius", "Simplex")

    def _project(self, x: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
        total = number(self.radius, "radius", "Simplex", x.dtype)
        return over_leading(lambda v: project_simplex(v, total), x)

    def project_kl(self, log_x: PyTree) -> PyTree:
        """The nearest point in Kullback-Leibler divergence to exp(log_x): a softmax."""

        def softmax(log_x):
            radius = number(self.radius, "radius", "Simplex", log_x.dtype)
            return radius * jax.nn.softmax(log_x, axis=-1)

        return self._through(softmax, log_x)

    def _violation(self, x):
        return largest(-x, jnp.abs(jnp.sum(x, axis=-1) - self.radius))


class SparseSimplex(ArraySet):
    """Points of the simplex with at most `sparsity` non-zero entries (not a convex set).

    Attributes:
        sparsity: how many entries may be non-zero.
        radius: the sum.
    """

    sparsity: int
    radius: Any = eqx.field(converter=numbers, default=1.0)

    def __check_init__(self) -> None:
        require_positive(self.radius, "radius", "SparseSimplex")
        if not isinstance(self.sparsity, (int, np.integer)) or self.sparsity < 1:
            raise InputError(
                f"SparseSimplex: sparsity={self.sparsity!r} must be a positive integer"
            )

    def _project(self, x: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
        total = number(self.radius, "radius", "SparseSimplex", x.dtype)
        keep = min(self.sparsity, x.shape[-1])

        def one(v):
            top, places = jax.lax.top_k(v, keep)
            return jnp.zeros_like(v).at[places].set(project_simplex(top, total))

        return over_leading(one, x)

    def _violation(self, x):
        rest = jnp.sort(jnp.abs(x), axis=-1)[..., : max(x.shape[-1] - self.sparsity, 0)]
        return largest(-x, jnp.abs(jnp.sum(x, axis=-1) - self.radius), rest)


@custom_jvp
def _project_l1_ball(x, radius):
    inside = jnp.sum(jnp.abs(x)) <= radius
    return jnp.where(inside, x, jnp.sign(x) * project_simplex(jnp.abs(x), radius))


@_project_l1_ball.defjvp
def _project_l1_ball_jvp(primals, tangents):
    x, radius = primals
    x_dot, radius_dot = tangents
    p = _project_l1_ball(x, radius)
    inside = jnp.sum(jnp.abs(x)) <= radius
    sign = jnp.sign(p)
    count = jnp.maximum(jnp.sum(jnp.abs(sign)), 1)
    along = (radius_dot - jnp.vdot(sign, x_dot)) / count
    return p, jnp.where(inside, x_dot, jnp.abs(sign) * x_dot + sign * along)


class L1Ball(ArraySet):
    """Vectors whose absolute values sum to at most `radius`, along the last axis."""

    radius: Any = eqx.field(converter=numbers, default=1.0)

    def __check_init__(self) -> None:
        require_positive(self.radius, "radius", "L1Ball", zero=True)

    def _project(self, x: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
        radius = number(self.radius, "radius", "L1Ball", x.dtype)
        return over_leading(lambda v: _project_l1_ball(v, radius), x)

    def _violation(self, x):
        return largest(jnp.sum(jnp.abs(x), axis=-1) - self.radius)


class L1Sphere(ArraySet):
    """Vectors whose absolute values sum to exactly `radius`, along the last axis (not convex)."""

    radius: Any = eqx.field(converter=numbers, default=1.0)

    def __check_init__(self) -> None:
        require_positive(self.radius, "radius", "L1Sphere")

    def _project(self, x: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
        radius = number(self.radius, "radius", "L1Sphere", x.dtype)

        def one(v):
            # A zero may move either way, and must be allowed to move.
            sign = jnp.where(v < 0, -1, 1).astype(v.dtype)
            return sign * project_simplex(jnp.abs(v), radius)

        return over_leading(one, x)

    def _violation(self, x):
        return largest(jnp.abs(jnp.sum(jnp.abs(x), axis=-1) - self.radius))
