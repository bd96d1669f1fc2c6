"""Averages over one Gaussian field, down to zero temperature.

The theory needs E tanh(a), E sech^2(a) / T, E sech^4(a) / T and E ln cosh(a) with
a = (s + sqrt(v) g) / T and g of N(0, 1). Where the field is wide, sqrt(v) >= T / 2, each is its
limit at T = 0, an error function or a constant, and a correction around a = 0 whose integrand is
smooth on the scale of a itself; there T = 0 is a number like any other. Where the field is narrow
the trapezoidal rule in g converges faster than any power; g and -g are taken together, which leaves
functions of v alone, so that v = 0 has derivatives too. In float64 errors are those of round-off.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_WIDE = 0.5  # of sqrt(v) / T
# Past a = 20 corrections are below 1e-17; Gauss-Legendre converges like 1.5^-2n here.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(128)
_U, _DU = 10 * (_NODES + 1), 10 * _WEIGHTS
_SPACING = 0.25
_G = np.arange(1, 39) * _SPACING  # a pair g, -g each; zero beside them
_DG = _SPACING * np.exp(-0.5 * _G**2) / math.sqrt(2 * math.pi)
_DG0 = _SPACING / math.sqrt(2 * math.pi)

# tanh^2(sqrt(x)) = sum_k c_k x^k, which converges for x below (pi / 2)^2.
_SERIES = 0.05
_TERMS = 13


def _taylor() -> np.ndarray:
    """c_1, c_2, ...: of tanh z = sum_k a_k z^(2k+1), with tanh' = 1 - tanh^2."""
    a, squares = [1.0], []
    for k in range(1, _TERMS):
        squares.append(sum(a[i] * a[k - 1 - i] for i in range(k)))
        a.append(-squares[-1] / (2 * k + 1))
    return np.array(squares)


Scalar = Float[Array, ""]


def magnetisation(s: Scalar, v: Scalar, temperature: Scalar) -> Scalar:
    """E tanh."""
    gap = 2 / (1 + np.exp(2 * _U))  # 1 - tanh

    def wide(s, v, T):
        return jax.lax.erf(s / jnp.sqrt(2 * v)) - T * _around_zero(gap, s, v, T, sign=-1)

    def narrow(t, S, B, rest, T):
        return t * (_DG0 + _sum(2 * rest / (rest + S * B)))

    return _either(wide, narrow, s, v, temperature)


def response(s: Scalar, v: Scalar, temperature: Scalar) -> Scalar:
    """E sech^2 / T: how m answers to a field."""
    kernel = 1 / np.cosh(_U) ** 2

    def wide(s, v, T):
        return _around_zero(kernel, s, v, T, sign=1)

    def narrow(t, S, B, rest, T):
        pairs = 2 * rest * (1 + t**2 * B) / (rest + S * B) ** 2
        return S * (_DG0 + _sum(pairs)) / T

    return _either(wide, narrow, s, v, temperature)


def squared_response(s: Scalar, v: Scalar, temperature: Scalar) -> Scalar:
    """E sech^4 / T, finite at zero temperature."""
    kernel = 1 / np.cosh(_U) ** 4

    def wide(s, v, T):
        return _around_zero(kernel, s, v, T, sign=1)

    def narrow(t, S, B, rest, T):
        x = t**2 * B
        pairs = 2 * rest**2 * (1 + 6 * x + x**2) / (rest + S * B) ** 4
        return S**2 * (_DG0 + _sum(pairs)) / T

    return _either(wide, narrow, s, v, temperature)


def log_cosh(s: Scalar, v: Scalar, temperature: Scalar) -> Scalar:
    """E ln cosh, for a positive temperature."""
    correction = np.log1p(np.exp(-2 * _U))

    def wide(s, v, T):
        size = jnp.sqrt(2 * v / math.pi) * jnp.exp(-(s**2) / (2 * v))
        size = size + s * jax.lax.erf(s / jnp.sqrt(2 * v))
        return size / T - math.log(2) + T * _around_zero(correction, s, v, T, sign=1)

    def inside(a, t, S, B, rest):
        alone = jnp.logaddexp(a, -a) - math.log(2)
        return alone + _sum(jnp.log(rest + S * B) - jnp.log(rest))

    s, v, T, is_wide = _sides(s, v, temperature)
    a, *parts = _pairs(s, v, T, is_wide)
    return jnp.where(is_wide, wide(s, jnp.where(is_wide, v, 1.0), T), inside(a, *parts))


def _around_zero(kernel: np.ndarray, s: Scalar, v: Scalar, T: Scalar, sign: int) -> Scalar:
    """The integral over u > 0 of kernel(u) times the density of the field at T u and at -T u."""
    u = np.asarray(_U, dtype=s.dtype)
    right = jnp.exp(-((T * u - s) ** 2) / (2 * v))
    left = jnp.exp(-((T * u + s) ** 2) / (2 * v))
    weights = np.asarray(kernel * _DU / math.sqrt(2 * math.pi), dtype=s.dtype)
    return jnp.sum((right + sign * left) * weights) / jnp.sqrt(v)


def _either(wide: Callable[..., Any], narrow: Callable[..., Any], s, v, temperature) -> Scalar:
    """The formula that fits, each given arguments at which the other does no harm."""
    s, v, T, is_wide = _sides(s, v, temperature)
    _, *parts = _pairs(s, v, T, is_wide)
    inside = narrow(*parts, jnp.where(is_wide, 1.0, jnp.maximum(T, _floor(T))))
    return jnp.where(is_wide, wide(s, jnp.where(is_wide, v, 1.0), T), inside)


def _sides(s, v, temperature) -> tuple[Scalar, Scalar, Scalar, Array]:
    """Arguments of one precision, and whether the field is wide."""
    dtype = jnp.result_type(float, s, v, temperature)
    s, v, T = (jnp.asarray(x, dtype) for x in (s, v, temperature))
    return s, v, T, (v >= (_WIDE * T) ** 2) & (v > 0)


def _pairs(s: Scalar, v: Scalar, T: Scalar, is_wide: Array) -> tuple[Scalar, ...]:
    """a, tanh a and sech^2 a at g = 0, and tanh^2 and sech^2 of the distance of each g from there.

    A field without any width at T = 0 saturates: its derivatives are zero then.
    """
    cold = jnp.maximum(T, _floor(T))
    a = jnp.where(is_wide, 0.0, s / cold)
    y = jnp.where(is_wide, 0.0, v / cold**2)
    t = jnp.tanh(a)
    x = y * np.asarray(_G**2, dtype=s.dtype)
    series = jnp.where(x < _SERIES, x, 0.0)
    near = series * jnp.polyval(np.asarray(_taylor()[::-1], dtype=s.dtype), series)
    far = jnp.tanh(jnp.sqrt(jnp.where(x < _SERIES, 1.0, x)))
    B = jnp.where(x < _SERIES, near, far**2)
    return a, t, 1 - t**2, B, 1 - B


def _floor(T: Scalar) -> np.ndarray:
    """A temperature that stands for zero."""
    return np.asarray(np.finfo(T.dtype).tiny ** 0.25, dtype=T.dtype)


def _sum(values: Array) -> Scalar:
    return jnp.sum(values * np.asarray(_DG, dtype=values.dtype))
