"""The limited-memory BFGS method for large unconstrained problems.

Two-loop recursion (Nocedal 1980) with a line search for the weak Wolfe conditions by bisection and
doubling (Lewis and Overton 2013, algorithm 2.6).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ...ground.varying import fori_loop
from ..iterate import Tolerance, Vector
from .wolfe import weak_wolfe


class _State(NamedTuple):
    value: Float[Array, ""]
    gradient: Vector
    moves: Float[Array, "m n"]
    changes: Float[Array, "m n"]
    inverse: Float[Array, " m"]
    count: Int[Array, ""]


class LBFGS(eqx.Module):
    """Limited-memory BFGS; `problem` is the objective f of a vector.

    Attributes:
        tolerance: the iteration ends when the quasi-Newton step is this small.
        history: pairs of steps and gradient changes that are kept.
    """

    tolerance: Tolerance
    history: int = eqx.field(static=True, default=10)

    def init(self, problem: Callable[[Vector], Array], x: Vector) -> _State:
        value, gradient = jax.value_and_grad(problem)(x)
        zeros = jnp.zeros((self.history, x.shape[0]), x.dtype)
        inverse = jnp.zeros(self.history, x.dtype)
        return _State(value.astype(x.dtype), gradient, zeros, zeros, inverse, jnp.asarray(0))

    def step(
        self, problem: Callable[[Vector], Array], x: Vector, state: _State
    ) -> tuple[Vector, Any, Array]:
        value, gradient, moves, changes, inverse, count = state
        direction = -self._precondition(state)
        slope = jnp.vdot(direction, gradient)
        downhill = slope < 0
        direction = jnp.where(downhill, direction, -gradient)
        slope = jnp.where(downhill, slope, -jnp.vdot(gradient, gradient))
        length = jnp.max(jnp.abs(gradient))
        first = jnp.where(count == 0, 1 / jnp.maximum(1, length), 1.0).astype(x.dtype)
        t, new_value, new_gradient, found = weak_wolfe(problem, x, direction, value, slope, first)
        move, change = t * direction, new_gradient - gradient
        error = self.tolerance.scaled(direction, x)
        # Before there is any history the direction is a gradient, which has another unit than x.
        error = jnp.where(count == 0, jnp.maximum(error, 2.0), error)
        error = jnp.where(length == 0, 0.0, error)
        curvature = jnp.vdot(move, change)
        keep = curvature > 1e-14 * jnp.linalg.norm(move) * jnp.linalg.norm(change)
        row = count % self.history
        moves = jnp.where(keep, moves.at[row].set(move), moves)
        changes = jnp.where(keep, changes.at[row].set(change), changes)
        safe = jnp.where(keep, curvature, 1)
        inverse = jnp.where(keep, inverse.at[row].set(1 / safe), inverse)
        # A line search that finds nothing from the plain gradient has nowhere else to go.
        hopeless = ~found & ((count == 0) | ~downhill) & (length > 0)
        reset = ~found & ~hopeless
        count = jnp.where(reset, 0, count + keep)
        inverse = jnp.where(reset, 0, inverse)
        error = jnp.where(hopeless & ~(error <= 1), jnp.nan, error)
        error = jnp.where(reset & ~(error <= 1), jnp.maximum(error, 2.0), error)
        x = jnp.where(found, x + move, x)
        value = jnp.where(found, new_value, value)
        gradient = jnp.where(found, new_gradient, gradient)
        return x, _State(value, gradient, moves, changes, inverse, count), error

    def _precondition(self, state):
        """The approximate inverse Hessian applied to the gradient."""
        _, gradient, moves, changes, inverse, count = state
        m = self.history

        def newest_first(i, carry):
            q, weights = carry
            row = (count - 1 - i) % m
            weight = inverse[row] * jnp.vdot(moves[row], q)
            return q - weight * changes[row], weights.at[row].set(weight)

        q, weights = fori_loop(0, m, newest_first, (gradient, jnp.zeros_like(inverse)))
        last = (count - 1) % m
        curvature = jnp.vdot(changes[last], changes[last])
        usable = (inverse[last] > 0) & (curvature > 0)
        scale = jnp.where(usable, 1 / jnp.where(usable, inverse[last] * curvature, 1), 1)

        def oldest_first(i, q):
            row = (count + i) % m
            return q + moves[row] * (weights[row] - inverse[row] * jnp.vdot(changes[row], q))

        return fori_loop(0, m, oldest_first, scale * q)
