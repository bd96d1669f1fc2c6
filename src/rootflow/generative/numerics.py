"""One set of formulas in NumPy and in JAX.

What a sampler needs from a schedule is a table of numbers that is the same for every sample. It is
computed in NumPy, in double precision whatever the precision of the samples, so that it costs no
compilation and no accuracy; in JAX where something in it is traced, for instance because the time
grid is being differentiated.
"""

import math
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..ground.tracing import is_traced


def namespace(*values: Any) -> ModuleType:
    """`numpy` if every value is a NumPy array or a Python number, else `jax.numpy`."""
    return jnp if any(isinstance(value, jax.Array) for value in values) else np


def as_numbers(value: Any) -> Any:
    """A float array: in NumPy and double precision unless it is traced."""
    if is_traced(value):
        return jnp.asarray(value)
    return np.asarray(value, dtype=np.float64)


def expand(coefficient: Any, x: Any) -> Any:
    """A number per sample, shape (batch,), made to multiply `x` of shape (batch, ...)."""
    missing = np.ndim(x) - np.ndim(coefficient)
    if np.ndim(coefficient) == 0 or missing <= 0:
        return coefficient
    return coefficient.reshape(coefficient.shape + (1,) * missing)


def doubled_axis(found: tuple[int, ...], shape: tuple[int, ...]) -> int | None:
    """The axis in which `found` is twice `shape`, if that is all that the two differ in."""
    if len(found) != len(shape):
        return None
    apart = [i for i, (n, m) in enumerate(zip(found, shape, strict=True)) if n != m]
    return apart[0] if len(apart) == 1 and found[apart[0]] == 2 * shape[apart[0]] else None


_TERMS = 18  # of the series where |z| < 1: the first one left out is below 1e-17


def phi(k: int, z: Any) -> Any:
    """The function phi_k of exponential integrators, to round-off for every finite z.

    phi_1(z) = (e^z - 1) / z and phi_{k+1}(z) = (phi_k(z) - 1/k!) / z (Hochbruck and Ostermann,
    2010, Acta Numerica 19, eq. 2.10). The recursion cancels for small z, where the series
    phi_k(z) = sum_n z^n / (n + k)! takes its place.
    """
    xp = namespace(z)
    small = abs(z) < 1
    near, far = xp.where(small, z, 0.0), xp.where(small, 1.0, z)
    series = near * 0.0
    for n in reversed(range(_TERMS)):
        series = series * near + 1.0 / math.factorial(n + k)
    recursion = xp.expm1(far) / far
    for j in range(1, k):
        recursion = (recursion - 1.0 / math.factorial(j)) / far
    return xp.where(small, series, recursion)
