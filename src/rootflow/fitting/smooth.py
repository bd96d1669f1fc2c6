"""Laplace's density with a smooth kink, so that its gradient is zero where it is highest."""

import jax.numpy as jnp
from jaxtyping import Array, Float

#: So close to the kink, in units of the scale, it is a parabola.
_BLUNT = 1e-5


def bluntly(x: Float[Array, "*n"], unit: Array | float) -> Float[Array, "*n"]:
    """The size of x, at least that of the kink; x divided by it is the slope of `blunt`."""
    return jnp.maximum(jnp.abs(x), _BLUNT * unit)


def blunt(x: Float[Array, "*n"], unit: Array | float) -> Float[Array, "*n"]:
    """The size of x, a parabola within a hundred-thousandth of the unit from zero (Huber's)."""
    size = bluntly(x, unit)
    return 0.5 * (x**2 / size + size)
