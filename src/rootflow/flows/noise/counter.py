"""Random numbers as a function of (key, counter), in arithmetic that fuses with what uses them.

A path draws many numbers for each query. Those of `jax.random` are as good, but on a CPU the
compiler cannot fuse them with the arithmetic around them: these take a fraction of the time.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, UInt32

from ...errors import InputError

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)

#: Coefficients of the two branches of the inverse error function, highest order first.
_CENTRE = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
    -0.00125372503, -0.00417768164, 0.246640727, 1.50140941,
)  # fmt: skip
_TAIL = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
    -0.0076224613, 0.00943887047, 1.00167406, 2.83297682,
)  # fmt: skip


def words(key: Array) -> UInt32[Array, "2"]:
    """Two words that stand for a key of `jax.random`, of any kind."""
    data = jnp.asarray(key) if not hasattr(key, "dtype") else key
    typed = jnp.issubdtype(data.dtype, jax.dtypes.prng_key)
    if not typed and not (data.dtype == jnp.uint32 and data.ndim == 1):
        raise InputError(
            "key must be a random key such as jax.random.key(0); got an array of dtype "
            f"{data.dtype} and shape {jnp.shape(data)}."
        )
    if typed and data.ndim:
        raise InputError(
            f"key must be one random key; got {data.shape}: use jax.vmap over the keys, one path "
            "for each."
        )
    return jax.random.bits(data, (2,), jnp.uint32)


def threefry(
    key: UInt32[Array, "2"], x0: UInt32[Array, "..."], x1: UInt32[Array, "..."]
) -> tuple[UInt32[Array, "..."], UInt32[Array, "..."]]:
    """Threefry-2x32 with 20 rounds: 64 random bits for the counter (x0, x1).

    Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011).
    """
    schedule = (key[0], key[1], key[0] ^ key[1] ^ _PARITY)
    x0, x1 = x0 + schedule[0], x1 + schedule[1]
    for i in range(5):
        for r in _ROTATIONS[i % 2]:
            x0 = x0 + x1
            x1 = ((x1 << np.uint32(r)) | (x1 >> np.uint32(32 - r))) ^ x0
        x0 = x0 + schedule[(i + 1) % 3]
        x1 = x1 + schedule[(i + 2) % 3] + np.uint32(i + 1)
    return x0, x1


def _log(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The logarithm of numbers in (0, 1], to 2e-10 in float64: exponent, and a series for the rest.

    The library's own does not vectorise in float64, and takes longer than all else together.
    """
    if x.dtype == jnp.float32:
        return jnp.log(x)
    bits = lax.bitcast_convert_type(x, jnp.int64)
    exponent = ((bits >> 52).astype(jnp.int32) - 1023).astype(x.dtype)
    mantissa = lax.bitcast_convert_type((bits & ((1 << 52) - 1)) | (1023 << 52), x.dtype)
    s = (mantissa - 1.5) / (mantissa + 1.5)  # log(m / 1.5) = 2 artanh(s)
    total = jnp.zeros_like(x)
    for k in (11, 9, 7, 5, 3, 1):
        total = 1 / k + s * s * total
    return exponent * math.log(2) + math.log(1.5) + 2 * s * total


def normal(bits: UInt32[Array, "..."], dtype: Any) -> Float[Array, "..."]:
    """Standard normal numbers from 32 random bits each, up to 6.3 in size.

    One bit is the sign, the others the probability of the tail, so that the tail is as finely
    resolved as the centre is. The approximation is to 2e-6 (beyond 5.2: to 4e-4), and it is
    evaluated in the precision asked for, so that the same number comes out in every program to the
    rounding of that precision.

    Source: M. Giles, "Approximating the erfinv function" (2010), single precision.
    """
    f = np.dtype(dtype).type
    tail = ((bits >> np.uint32(1)).astype(jnp.int32).astype(dtype) + f(0.5)) * f(2**-31)
    w = -_log(tail * (f(2) - tail))
    central = w < f(5)
    # Both branches are polynomials: which coefficients to use is all that is selected.
    s = jnp.where(central, w - f(2.5), jnp.sqrt(w) - f(3))
    value = jnp.where(central, f(_CENTRE[0]), f(_TAIL[0]))
    for a, b in zip(_CENTRE[1:], _TAIL[1:]):
        value = jnp.where(central, f(a), f(b)) + value * s
    value = value * (f(1) - tail) * f(np.sqrt(2))
    return jnp.where((bits & np.uint32(1)) == 0, value, -value)


def normals(
    key: UInt32[Array, "2"], node: UInt32[Array, "..."], lane: UInt32[Array, "..."], dtype: Any
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Two independent standard normal numbers for each (node, lane)."""
    a, b = threefry(key, *jnp.broadcast_arrays(node, lane))
    return normal(a, dtype), normal(b, dtype)
