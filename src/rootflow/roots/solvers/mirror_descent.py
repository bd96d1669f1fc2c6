"""Mirror descent: gradient steps in the coordinates of a Bregman potential.

x <- project(mirror(x) - step * gradient) (Nemirovski and Yudin 1983; Beck and Teboulle 2003). With
the negative entropy and the simplex this is the exponentiated gradient method, whose step size is
found here by backtracking against the Kullback-Leibler divergence.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..iterate import Tolerance, Vector


class Mirrored(NamedTuple):
    """Minimise f(x) over a set, in the geometry of a potential.

    `mirror` is the gradient of the potential, `project` its Bregman projection from mirror space,
    `divergence(x, y)` the Bregman divergence.
    """

    f: Callable[[Vector], Array]
    mirror: Callable[[Vector], Vector]
    project: Callable[[Vector], Vector]
    divergence: Callable[[Vector, Vector], Array]


class MirrorDescent(eqx.Module):
    """Mirror descent; `problem` is a `Mirrored`.

    Attributes:
        tolerance: of the change of x in one step.
        step_size: a fixed step size, or None for backtracking.
    """

    tolerance: Tolerance
    step_size: Array | float | None = None

    def init(self, problem: Mirrored, x: Vector) -> Float[Array, ""]:
        step = 1.0 if self.step_size is None else self.step_size
        return jnp.asarray(step, x.dtype)

    def step(self, problem: Mirrored, x: Vector, size: Float[Array, ""]):
        value, gradient = jax.value_and_grad(problem.f)(x)
        dual = problem.mirror(x)
        if self.step_size is not None:
            point = problem.project(dual - size * gradient)
            return point, size, self.tolerance.scaled(point - x, x)
        noise = 10 * jnp.finfo(x.dtype).eps * jnp.abs(value)

        def proceed(carry):
            _, _, enough, k = carry
            return ~enough & (k < 60)

        def halve(carry):
            _, size, _, k = carry
            size = 0.5 * size
            point = problem.project(dual - size * gradient)
            model = value + jnp.vdot(gradient, point - x) + problem.divergence(point, x) / size
            return point, size, problem.f(point) <= model + noise, k + 1

        # Tries twice the last size first, so that it can grow again, but never without limit: at
        # round-off level every size passes.
        start = (x, jnp.minimum(4 * size, 1e6), jnp.asarray(False), 0)
        point, size, _, _ = jax.lax.while_loop(proceed, halve, start)
        return point, size, self.tolerance.scaled(point - x, x)


def safe_log(x: Array) -> Array:
    """log x, with zero replaced by the smallest normal number."""
    return jnp.log(jnp.maximum(x, jnp.finfo(x.dtype).tiny))


def kullback_leibler(x: Array, y: Array) -> Float[Array, ""]:
    """The divergence sum x log(x / y) - x + y of non-negative vectors."""
    return jnp.sum(x * (safe_log(x) - safe_log(y)) - x + y)
