"""Mirror descent: gradient steps in the coordinates of a Bregman potential.

x <- project(mirror(x) - step * gradient) (Nemirovski and Yudin 1983; Beck and Teboulle 2003). With
the negative entropy and the simplex this is the exponentiated gradient method.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...ground.varying import while_loop
from ..iterate import Tolerance, Vector


class Mirrored(NamedTuple):
    """Minimise f(x) over a set, in the geometry of a potential.

    `mirror` is the gradient of the potential, `project` its Bregman projection from mirror space.
    """

    f: Callable[[Vector], Array]
    mirror: Callable[[Vector], Vector]
    project: Callable[[Vector], Vector]


class MirrorState(NamedTuple):
    """The step size last used, and the gradient of f at x."""

    size: Float[Array, ""]
    gradient: Vector


class MirrorDescent(eqx.Module):
    """Mirror descent; `problem` is a `Mirrored`.

    Attributes:
        tolerance: of the change of x in one step.
        step_size: a fixed step size, or None for backtracking.
    """

    tolerance: Tolerance
    step_size: Array | float | None = None

    def init(self, problem: Mirrored, x: Vector) -> MirrorState:
        step = 1.0 if self.step_size is None else self.step_size
        return MirrorState(jnp.asarray(step, x.dtype), jax.grad(problem.f)(x))

    def step(self, problem: Mirrored, x: Vector, state: MirrorState) -> tuple[Vector, Any, Array]:
        size, gradient = state
        gradient_of = jax.grad(problem.f)
        dual = problem.mirror(x)
        if self.step_size is not None:
            point = problem.project(dual - size * gradient)
            state = MirrorState(size, gradient_of(point))
            return point, state, self.tolerance.scaled(point - x, x)

        def proceed(carry):
            *_, enough, k = carry
            return ~enough & (k < 60)

        def halve(carry):
            _, size, _, _, k = carry
            size = 0.5 * size
            point = problem.project(dual - size * gradient)
            slope = gradient_of(point)
            move = point - x
            # Both sides are second differences: of f, and of the potential in the units of the
            # step. For a convex f the test implies that f does not grow, and unlike a comparison
            # of values of f it can be made down to round-off in x.
            bend = jnp.vdot(slope - gradient, move)
            room = jnp.vdot(problem.mirror(point) - dual, move) / size
            noise = 10 * jnp.finfo(x.dtype).eps * jnp.vdot(jnp.abs(slope), jnp.abs(move))
            return point, size, slope, bend <= room + noise, k + 1

        # Tries twice the last size first, so that it can grow again, but never without limit: at
        # round-off level every size passes.
        start = (x, jnp.minimum(4 * size, 1e6), gradient, jnp.asarray(False), 0)
        point, size, slope, _, _ = while_loop(proceed, halve, start)
        return point, MirrorState(size, slope), self.tolerance.scaled(point - x, x)


def safe_log(x: Array) -> Array:
    """log x, with zero replaced by the smallest normal number."""
    return jnp.log(jnp.maximum(x, jnp.finfo(x.dtype).tiny))
