"""Dense quasi-Newton methods: BFGS and its self-scaled relatives, for functions of some size.

They keep the whole approximate inverse Hessian, so a step costs a few products with a matrix of the
square of the unknowns: more than L-BFGS, and far fewer steps where the problem is badly
conditioned, as residuals of differential equations are.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..iterate import Tolerance, Vector
from .wolfe import weak_wolfe

UPDATES = ("bfgs", "ssbfgs", "ssbroyden")


class _State(NamedTuple):
    value: Float[Array, ""]
    gradient: Vector
    inverse: Float[Array, "n n"]
    count: Int[Array, ""]


class QuasiNewton(eqx.Module):
    """A step along -H g that satisfies Wolfe's conditions, then an update of H.

    With s the step, y the change of the gradient and v = √(yᵀHy) [s / yᵀs - Hy / yᵀHy], the update
    is H <- [H - H y yᵀ H / yᵀHy + φ v vᵀ] / τ + s sᵀ / yᵀs. Broyden's class has τ = 1 and BFGS
    φ = 1; the self-scaled ones choose τ < 1 where H is too small for what the step has seen, and
    SSBroyden φ as well (Al-Baali, Spedicato and Maggioni 2014; for residuals of differential
    equations arXiv 2501.16371).

    Attributes:
        tolerance: the iteration ends when the quasi-Newton step is this small.
        update: "bfgs", "ssbfgs" or "ssbroyden".
    """

    tolerance: Tolerance
    update: str = eqx.field(static=True, default="ssbroyden")

    def init(self, problem: Callable[[Vector], Array], x: Vector) -> _State:
        value, gradient = jax.value_and_grad(problem)(x)
        identity = jnp.eye(x.shape[0], dtype=x.dtype)
        return _State(value.astype(x.dtype), gradient, identity, jnp.asarray(0))

    def resume(self, problem: Callable[[Vector], Array], x: Vector, state: _State) -> _State:
        """The state at a point to which something else has moved: what is known of H stays."""
        value, gradient = jax.value_and_grad(problem)(x)
        return state._replace(value=value.astype(x.dtype), gradient=gradient)

    def step(
        self, problem: Callable[[Vector], Array], x: Vector, state: _State
    ) -> tuple[Vector, Any, Array]:
        value, gradient, inverse, count = state
        direction = -(inverse @ gradient)
        slope = jnp.vdot(direction, gradient)
        downhill = slope < 0
        direction = jnp.where(downhill, direction, -gradient)
        slope = jnp.where(downhill, slope, -jnp.vdot(gradient, gradient))
        length = jnp.max(jnp.abs(gradient))
        known = (count > 0) & downhill
        first = jnp.where(known, 1.0, 1 / jnp.maximum(1, length)).astype(x.dtype)
        t, new_value, new_gradient, found = weak_wolfe(problem, x, direction, value, slope, first)
        move, change = t * direction, new_gradient - gradient
        error = self.tolerance.scaled(direction, x)
        # Before anything is known of H the direction is a gradient, which has another unit than x.
        error = jnp.where(known, error, jnp.maximum(error, 2.0))
        error = jnp.where(length == 0, 0.0, error)
        curvature = jnp.vdot(move, change)
        keep = found & (curvature > 1e-14 * jnp.linalg.norm(move) * jnp.linalg.norm(change))
        # The length of a step along the gradient says nothing of an old H.
        fresh = (count == 0) | ~downhill
        updated = self._updated(inverse, gradient, t, move, change, curvature, keep, fresh)
        # A line search that finds nothing from the plain gradient has nowhere else to go.
        hopeless = ~found & fresh & (length > 0)
        reset = ~found & ~hopeless
        error = jnp.where(hopeless & ~(error <= 1), jnp.nan, error)
        error = jnp.where(reset & ~(error <= 1), jnp.maximum(error, 2.0), error)
        count = jnp.where(reset, 0, jnp.where(keep & fresh, 1, count + keep))
        state = _State(
            jnp.where(found, new_value, value),
            jnp.where(found, new_gradient, gradient),
            jnp.where(reset, jnp.eye(x.shape[0], dtype=x.dtype), updated),
            count,
        )
        return jnp.where(found, x + move, x), state, error

    def _updated(self, inverse, gradient, t, move, change, curvature, keep, fresh):
        """H after the step, or H itself where it may not be updated."""
        safe = jnp.where(keep, curvature, 1)
        squares = jnp.where(keep, jnp.vdot(change, change), 1)
        # The first H is the multiple of the identity that has the curvature of the first step.
        scale = safe / squares
        turned = jnp.where(fresh, scale * change, inverse @ change)
        inner = jnp.vdot(change, turned)
        usable = keep & (inner > 0)
        inner = jnp.where(usable, inner, 1)
        # sᵀ H⁻¹ s / yᵀs and yᵀ H y / yᵀs, whose product is at least one.
        b = -t * jnp.vdot(move, gradient) / safe / jnp.where(fresh, scale, 1)
        tau, phi = self._scaling(b, inner / safe, inverse.shape[0])
        v = jnp.sqrt(inner) * (move / safe - turned / inner)
        before = jnp.where(fresh, scale * jnp.eye(len(move), dtype=move.dtype), inverse)
        changed = before - jnp.outer(turned, turned) / inner + phi * jnp.outer(v, v)
        return jnp.where(usable, changed / tau + jnp.outer(move, move) / safe, inverse)

    def _scaling(self, b, h, n):
        """τ and φ of the update."""
        one = jnp.ones_like(b)
        if self.update == "bfgs":
            return one, one
        if self.update == "ssbfgs":
            return jnp.minimum(1, 1 / b), one
        a = jnp.maximum(h * b - 1, jnp.finfo(b.dtype).eps)
        c = jnp.sqrt(a / (1 + a))
        low = jnp.minimum(1, h * (1 - c))
        theta = jnp.maximum((low - 1) / a, jnp.minimum(1 / low, (1 - b) / b))
        sigma = 1 + theta * a
        tau = jnp.minimum(jnp.minimum(1, 1 / b) * sigma ** (-1 / max(n - 1, 1)), sigma)
        return tau, (1 - theta) / (1 + a * theta)
