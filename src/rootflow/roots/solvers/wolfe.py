"""A step length that satisfies the weak Wolfe conditions, by bisection and doubling."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...ground.varying import while_loop
from ..iterate import Vector


def weak_wolfe(
    problem: Callable[[Vector], Array],
    x: Vector,
    direction: Vector,
    value: Float[Array, ""],
    slope: Float[Array, ""],
    first: Float[Array, ""],
) -> tuple[Float[Array, ""], Float[Array, ""], Vector, Bool[Array, ""]]:
    """A step t along a direction that falls, from `first` on.

    Args:
        problem: f.
        x: where to start.
        direction: d, with slope = d · ∇f(x) < 0.
        value: f(x).
        slope: d · ∇f(x).
        first: the length that is tried first.

    Returns:
        t, f and ∇f at x + t d, and whether they satisfy f <= f(x) + 1e-4 t slope and
        d · ∇f >= 0.9 slope.
    """
    noise = 10 * jnp.finfo(x.dtype).eps * jnp.abs(value)

    def proceed(carry):
        *_, found, k = carry
        return ~found & (k < 40)

    def step(carry):
        t, low, high, _, _, _, k = carry
        at, gradient = jax.value_and_grad(problem)(x + t * direction)
        along = jnp.vdot(gradient, direction)
        # Near the minimum f is constant to round-off, and its slope must judge alone.
        enough = at <= value + 1e-4 * t * slope
        enough |= (at <= value + noise) & (jnp.abs(along) <= jnp.abs(slope))
        enough &= jnp.isfinite(at)
        flat = along >= 0.9 * slope
        high = jnp.where(enough, high, t)
        low = jnp.where(enough & ~flat, t, low)
        found = enough & flat
        middle = jnp.where(jnp.isfinite(high), 0.5 * (low + high), 2 * t)
        return jnp.where(found, t, middle), low, high, at.astype(x.dtype), gradient, found, k + 1

    zero = jnp.zeros((), x.dtype)
    start = (first, zero, zero + jnp.inf, value, jnp.zeros_like(x), jnp.asarray(False), 0)
    t, _, _, at, gradient, found, _ = while_loop(proceed, step, start)
    return t, at, gradient, found
