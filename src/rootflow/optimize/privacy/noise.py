"""Noise that the number format can carry.

In floating point m + noise takes values that depend on m, and an attack reads m off them (Mironov,
2012). On a grid nothing of that kind is left: the message is rounded to multiples of a power of
two, the noise is a real normal number rounded to the same multiples, and their sum is exact. That
is the rounding of a Gaussian release, so it is private as the release is, with a sensitivity larger
by the spacing times sqrt(d), which the account includes.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import ndtri
from jaxtyping import Array, Float, PRNGKeyArray

from ...errors import InputError

#: How many spacings of the numbers the noise must have in its standard deviation.
SPACINGS = 2.0**10

_FINEST = 28  # the noise has at most 2^29 spacings of the grid in its standard deviation


def grid_bits(sigma: float, clip: float, dtype: Any, grid: bool | None, what: str) -> int | None:
    """The fineness of the grid as a power of two below sigma; None for floating-point noise.

    Args:
        sigma: the standard deviation of the noise, 0 for none.
        clip: the largest norm of the message, in the same unit.
        dtype: the type in which messages are computed.
        grid: as users give it; None for a grid wherever sums are made in double precision.
        what: the release, for the message of an error.

    Raises:
        InputError: the spacing of the numbers would swallow the noise, or a grid is asked for and
            there is no double precision.
    """
    if sigma == 0 or math.isinf(clip):
        return None
    spacing = float(jnp.finfo(dtype).eps) * clip
    if sigma < SPACINGS * spacing:
        raise InputError(
            f"the noise of {what} has a standard deviation of {sigma:.3g} and would be added to "
            f"numbers of up to {clip:.3g}, which {np.dtype(dtype).name} spaces by {spacing:.3g}: "
            f"it must be at least {SPACINGS:.0f} spacings. Use float64 "
            '(jax.config.update("jax_enable_x64", True)), or more noise.'
        )
    double = jnp.result_type(float) == jnp.float64
    if grid and not double:
        raise InputError(
            "noise on a grid needs the sums of double precision: "
            'jax.config.update("jax_enable_x64", True), or grid=False.'
        )
    if not (double if grid is None else grid):
        return None
    # The message must be a multiple of the grid that double precision holds exactly.
    return min(_FINEST, 51 - math.ceil(math.log2(max(clip / sigma, 1.0))))


def inflation(bits: int | None, dimension: int) -> float:
    """What rounding to the grid adds to the sensitivity, in standard deviations of the noise."""
    return 0.0 if bits is None else math.sqrt(dimension) * 2.0**-bits


def released(
    key: PRNGKeyArray, message: Float[Array, " d"], sigma: Any, bits: int | None
) -> Float[Array, " d"]:
    """The message with noise of standard deviation `sigma`, which may be 0."""
    if bits is None:
        return message + sigma * jax.random.normal(key, message.shape, message.dtype)
    some = lax.stop_gradient(sigma) > 0
    _, exponent = jnp.frexp(jnp.where(some, lax.stop_gradient(sigma), 1.0))
    spacing = jnp.ldexp(jnp.ones((), message.dtype), exponent - 1 - bits)
    noise = sigma * fine_normal(key, message.shape)
    return jnp.where(some, rounded(message, spacing) + rounded(noise, spacing), message)


@jax.custom_jvp
def rounded(x: Float[Array, " d"], spacing: Float[Array, ""]) -> Float[Array, " d"]:
    """The nearest multiples. Their derivative is that of x, the mean over a random offset."""
    return jnp.round(x / spacing) * spacing


@rounded.defjvp
def _rounded_jvp(primals, tangents):
    return rounded(*primals), tangents[0]


def fine_normal(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Standard normal numbers as fine in their tails as in the middle, in double precision.

    The probability beyond is drawn as a floating-point number with a random exponent, so that
    neighbouring values are 2^-52 of it apart however small it is: every multiple of the grid can
    come out, with its probability to about 2^-20.
    """
    words = jax.random.bits(key, (2, *shape), jnp.uint64)
    exponent = lax.clz(words[0]).astype(jnp.int32) + 1
    mantissa = 1.0 + (words[1] >> 12).astype(jnp.float64) * 2.0**-52
    beyond = jnp.ldexp(mantissa, -exponent - 1)  # half of a uniform number from (0, 1)
    size = -ndtri(beyond)
    return jnp.where(words[1] & 1, size, -size)


def swallowed(moved_noise: Float[Array, ""], estimate: Float[Array, " d"]) -> Float[Array, ""]:
    """Whether noise is below `SPACINGS` spacings of the numbers to which it is added."""
    largest = jnp.max(jnp.abs(estimate))
    spacing = jnp.finfo(estimate.dtype).eps * largest
    return (moved_noise > 0) & (moved_noise < SPACINGS * spacing)
