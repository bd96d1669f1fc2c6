"""Newton's method for a minimum, with a damping that adapts as in Levenberg and Marquardt.

The step solves (H + mu I) d = -g with the exact Hessian; mu grows until the matrix is positive
definite and the step lowers f as the quadratic model says, and goes to zero near a minimum
(Nocedal and Wright, Numerical Optimization, 2nd edition, chapters 3 and 4; the update of mu is that
of Nielsen 1999).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..iterate import Tolerance, Vector
from ..linear import definite_solver


class _State(NamedTuple):
    value: Float[Array, ""]
    gradient: Vector
    damping: Float[Array, ""]
    growth: Float[Array, ""]
    at_rest: Bool[Array, ""]  # no step leads on, whether or not there is a minimum


def aside(x: Vector) -> Vector:
    """A small step in a direction that no symmetry has."""
    direction = jnp.cos(1.0 + jnp.arange(x.size)).astype(x.dtype)
    return 1e-3 * jnp.maximum(1.0, jnp.max(jnp.abs(x))) * direction


def off_rest(f: Callable[[Vector], Array], x: Vector) -> tuple[Vector, Vector]:
    """Where to start: beside `x` if f has no slope there, as nothing leads away from a maximum.

    Returns:
        The start, and the gradient at `x`.
    """
    gradient = jax.grad(f)(x)
    return jnp.where(jnp.any(gradient), x, x + aside(x)), gradient


class Newton(eqx.Module):
    """Damped Newton minimisation; `problem` is the objective f of a vector.

    Attributes:
        tolerance: the iteration ends when an undamped Newton step is this small.
        singular: for an f whose Hessian may be singular at the minimum, a typical size of the terms
            of its gradient: the Hessian is shifted in proportion to the gradient, which keeps the
            convergence superlinear (Li, Fukushima, Qi and Yamashita 2004), and the iteration ends
            when the gradient is small.
    """

    tolerance: Tolerance
    singular: Array | float | None = None

    def init(self, problem: Callable[[Vector], Array], x: Vector) -> _State:
        value, gradient = jax.value_and_grad(problem)(x)
        zero = jnp.zeros((), x.dtype)
        at_rest = jnp.max(jnp.abs(gradient)) == 0
        return _State(value.astype(x.dtype), gradient, zero, zero + 2, at_rest)

    def step(
        self, problem: Callable[[Vector], Array], x: Vector, state: _State
    ) -> tuple[Vector, Any, Array]:
        value, gradient, damping, growth, at_rest = state
        hessian = jax.jacfwd(jax.grad(problem))(x)
        curvature = jnp.max(jnp.abs(hessian))
        scale = jnp.where(curvature > 0, curvature, 1)
        identity = jnp.eye(x.shape[0], dtype=x.dtype)
        slope = jnp.max(jnp.abs(gradient))
        if self.singular is not None:
            floor = 10 * x.shape[0] * jnp.finfo(x.dtype).eps
            hessian = hessian + scale * jnp.clip(slope / self.singular, floor, 1e-3) * identity
        # Where no step leads on, the curvature decides whether there is a minimum.
        damping = jnp.where(at_rest, 1e-3 * scale, damping)
        solve, definite = definite_solver(hessian + damping * identity)
        # Where there is no minimum of the model, try nothing and damp more; leave a maximum or a
        # saddle, which no gradient leads away from.
        off = at_rest & ~definite
        move = jnp.where(definite, -solve(gradient), jnp.where(off, aside(x), 0))
        new_value, new_gradient = jax.value_and_grad(problem)(x + move)
        new_value = new_value.astype(x.dtype)

        if self.singular is None:
            size = self.tolerance.scaled(move, x)
        else:
            # Along flat directions x is not determined, and says nothing.
            size = self.tolerance.scaled(gradient, jnp.asarray(self.singular))
        error = jnp.where(definite, size, jnp.inf)
        short = (error <= 1e3) & (damping > 1e-3 * scale)
        # A step that damping made short says nothing about the distance to the minimum; where f is
        # not curved along it, there is none.
        bend = jnp.vdot(move, hessian @ move)
        free = damping * jnp.vdot(move, move) <= 1e-3 * bend
        error = jnp.where(free, error, jnp.maximum(error, 2.0))

        predicted = -jnp.vdot(gradient, move) - 0.5 * bend
        gain = (value - new_value) / jnp.where(predicted > 0, predicted, 1)
        gain = jnp.where(predicted > 0, gain, 0)
        # Close to the minimum differences of f are round-off, and the gradient decides.
        new_slope = jnp.max(jnp.abs(new_gradient))
        settled = (error <= 1e4) & (new_slope <= 0.5 * slope) | (error <= 1) & (new_slope <= slope)
        accept = definite & ((gain > 1e-4) | settled) | off
        accept &= jnp.isfinite(new_value) & jnp.isfinite(new_slope)

        error = jnp.where((slope == 0) & at_rest & definite, 0.0, error)
        alive = jnp.isfinite(value) & jnp.isfinite(slope) & (damping < 1e30 * scale)
        error = jnp.where(alive, error, jnp.nan)

        quality = jnp.where(settled, 1, jnp.clip(gain, -1, 2))
        smaller = damping * jnp.maximum(0.1, 1 - (2 * quality - 1) ** 3)
        smaller = jnp.where(smaller < 1e-10 * scale, 0, smaller)
        larger = jnp.maximum(damping * growth, 1e-3 * scale)
        damping = jnp.where(accept, smaller, larger)
        growth = jnp.where(accept, 2.0, 2 * growth).astype(x.dtype)
        x = jnp.where(accept, x + move, x)
        value = jnp.where(accept, new_value, value)
        gradient = jnp.where(accept, new_gradient, gradient)
        at_rest = short | (jnp.max(jnp.abs(gradient)) == 0)
        return x, _State(value, gradient, damping, growth, at_rest), error
