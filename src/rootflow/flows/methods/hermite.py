"""The interpolant of methods that have none of their own."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def hermite(
    h: Array,
    y0: Float[Array, " n"],
    y1: Float[Array, " n"],
    slope0: Float[Array, " n"],
    slope1: Float[Array, " n"],
) -> Float[Array, "3 n"]:
    """Coefficients of s, s**2, s**3 of the cubic that meets states and slopes at both ends.

    Slopes are derivatives by time; `h` is the size of the step.
    """
    move, first, last = y1 - y0, h * slope0, h * slope1
    return jnp.stack([first, 3 * move - 2 * first - last, first + last - 2 * move])
