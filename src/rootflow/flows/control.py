"""Step-size control: the first step, and the proportional-integral controller.

The controller works with the logarithm of the scaled error: one logarithm and one exponential for
each step, where powers would cost two of each.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from .system import Tolerances

_SAFETY = math.log(0.9)
_SHRINK = math.log(0.2)
_GROW = math.log(10.0)
#: Logarithm of the smallest scaled error that is told apart from zero.
_FLOOR = math.log(1e-10)
#: Stands for an error that is not a number: the step is rejected and shrunk as far as allowed.
_HOPELESS = 50.0


def scale(tolerances: Tolerances, *states: Array) -> Array:
    """The tolerated local error, at the largest of the states given."""
    size = jnp.abs(states[0])
    for state in states[1:]:
        size = jnp.maximum(size, jnp.abs(state))
    return tolerances.atol + tolerances.rtol * size


def mean_square(x: Array) -> Float[Array, ""]:
    """Mean of |x|**2, without the square root that has no derivative at zero."""
    return jnp.mean(jnp.real(x * jnp.conj(x)) if jnp.iscomplexobj(x) else x * x)


def log_error(error: Array, y0: Array, y1: Array, tolerances: Tolerances) -> Float[Array, ""]:
    """Logarithm of the root mean square of the local error in units of the tolerance."""
    square = mean_square(error / scale(tolerances, y0, y1))
    value = 0.5 * jnp.log(jnp.maximum(square, math.exp(2 * _FLOOR)))
    return jnp.where(jnp.isfinite(value), value, _HOPELESS)


def factor(error: Array, previous: Array, accepted: Array, order: int) -> Float[Array, ""]:
    """By how much to change the step: a proportional-integral controller.

    Source: Hairer & Wanner, Solving ODEs II, Section IV.2. The exponents 1/k and 0.3/k take fewer
    steps here than the usual 0.7/k and 0.4/k at the same achieved error, and reject few of them.
    """
    change = _SAFETY - (1.0 / order) * error + (0.3 / order) * previous
    return jnp.exp(jnp.clip(change, _SHRINK, jnp.where(accepted, _GROW, 0.0)))


def first_step(f, t, y, slope, span, direction, args, tolerances, order: int):
    """A first step from the size of y, y' and y'' (Hairer, Norsett & Wanner I, Section II.4)."""
    units = scale(tolerances, y)
    tiny = jnp.finfo(t.dtype).tiny
    size, speed = jnp.sqrt(mean_square(y / units)), jnp.sqrt(mean_square(slope / units))
    small = (size < 1e-5) | (speed < 1e-5)
    guess = jnp.where(small, 1e-6, 0.01 * size / jnp.maximum(speed, tiny))
    guess = jnp.minimum(guess, span)
    moved = f(t + direction * guess, y + direction * guess * slope, args)
    bend = jnp.sqrt(mean_square((moved - slope) / units)) / jnp.maximum(guess, tiny)
    largest = jnp.maximum(speed, bend)
    refined = jnp.where(
        largest <= 1e-15,
        jnp.maximum(1e-6, guess * 1e-3),
        (0.01 / jnp.maximum(largest, tiny)) ** (1 / order),
    )
    return jnp.minimum(jnp.minimum(100 * guess, refined), span)
