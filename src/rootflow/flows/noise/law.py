"""The weights with which Ornstein-Uhlenbeck processes make up fractional noise."""

from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import gammaln
from jaxtyping import Array, ArrayLike, Float

from ...errors import InputError
from ...ground.tracing import is_traced
from .fractional import checked_hurst, variance


def rates(terms: int, largest: ArrayLike, offset: float = 0.0) -> Float[Array, " terms"]:
    """A geometric grid of decay rates up to `largest`, symmetric about 1.

    With an `offset` it is the number offset (counted from the middle one) that is 1.
    """
    if terms == 1:
        return jnp.ones(1)
    k = jnp.arange(1, terms + 1) - (terms + 1) / 2 - offset
    return jnp.asarray(largest, float) ** (2 * k / (terms - 1 - 2 * offset))


def spread_rates(terms: int, hurst: ArrayLike, kind: int) -> Float[Array, " terms"]:
    """Geometric rates whose range grows with the number of terms, for a horizon of 1.

    For ten terms and more they leave a smaller error than a fixed range. The smallest is
    exp(-a sqrt(K) / ((d - H) A)) and the largest exp(a sqrt(K) / (H A)), with
    A = sqrt(1 / H + 1 / (d - H)), a = 1.06418; d is 1 for type I, and 3/2 (H < 1/2) or 5/2 for
    type II.
    """
    h = jnp.asarray(hurst)
    d = 1.0 if kind == 1 else jnp.where(h < 0.5, 1.5, 2.5)
    scale = 1.06418 * terms**0.5 / jnp.sqrt(1 / h + 1 / (d - h))
    return jnp.exp(jnp.linspace(-scale / (d - h), scale / h, terms))


def quadrature_weights(hurst: ArrayLike, rates: Float[Array, " terms"]) -> Float[Array, " terms"]:
    """Weights from the exact representation by piecewise linear interpolation over the rates.

    The older choice (both types have the same); the optimal weights err less. Not standardised.
    """
    h, g = jnp.asarray(hurst), jnp.asarray(rates)
    rough = h < 0.5
    gap = jnp.diff(g)
    # H < 1/2: integrals of hat times power; H > 1/2: of minus the slope of the hat times power.
    p = jnp.where(rough, -h - 0.5, 0.5 - h)
    once = jnp.diff(g ** (p + 1)) / (p + 1)
    twice = jnp.diff(g ** (p + 2)) / (p + 2)
    down = jnp.where(rough, g[1:] * once - twice, once) / gap  # the falling side, from its left end
    up = jnp.where(rough, twice - g[:-1] * once, -once) / gap  # the rising side, to its right end
    unit = gammaln(h + 0.5) + gammaln(jnp.where(rough, 0.5, 1.5) - h)
    return jnp.exp(-unit) * (
        jnp.concatenate([down, jnp.zeros(1)]) + jnp.concatenate([jnp.zeros(1), up])
    )


#: Below this a series for the incomplete gamma function, above it a continued fraction.
_CROSSING = 3.0


def _lower_series(a: Array, z: Array) -> Array:
    """P(a, z) exp(z) / z**a, the sum of z**n / Gamma(a + n + 1), for z up to about `_CROSSING`.

    (Like the functions below it has all its derivatives in `a`, which JAX's own does not.)
    """
    series = lax.fori_loop(0, 40, lambda i, x: 1 + z / (a + 40 - i) * x, jnp.ones_like(z))
    return jnp.exp(-gammaln(a + 1)) * series


def _upper_scaled(a: Array, z: Array) -> Array:
    """Q(a, z) exp(z), Q being the regularised upper incomplete gamma function."""
    large = z >= _CROSSING
    # Each branch gets an argument at which it is finite, so that derivatives are.
    near = jnp.where(large, 1.0, z)
    far = jnp.where(large, z, _CROSSING)

    def level(i, fraction):
        k = 80 - i
        return 1 + (k - a) / far / (1 + k / far / fraction)

    fraction = lax.fori_loop(0, 80, level, jnp.ones_like(far))
    asymptotic = jnp.exp(a * jnp.log(far) - gammaln(a)) / far / fraction
    series = jnp.exp(near) - jnp.exp(a * jnp.log(near)) * _lower_series(a, near)
    return jnp.where(large, asymptotic, series)


def _lower(a: Array, z: Array) -> Array:
    """P(a, z), the regularised lower incomplete gamma function, z > 0."""
    large = z >= _CROSSING
    near = jnp.where(large, 1.0, z)
    series = jnp.exp(a * jnp.log(near) - near) * _lower_series(a, near)
    return jnp.where(large, 1 - jnp.exp(-z) * _upper_scaled(a, z), series)


def _remainder(z: Array) -> Array:
    """1 - (1 - exp(-z)) / z."""
    small = z < 0.5
    near, far = jnp.where(small, z, 0.0), jnp.where(small, 1.0, z)
    series = jnp.zeros_like(z)
    for n in range(15, 1, -1):  # z / 2! - z**2 / 3! + ...
        series = near / n * (1 - series)
    return jnp.where(small, series, 1 + jnp.expm1(-far) / far)


def _past(a: Array, z: Array) -> Array:
    """2 z - z**a / Gamma(a + 1) + exp(-z) - Q(a, z) exp(z), which is O(z**(a + 1))."""
    small = z < 1
    near, far = jnp.where(small, z, 0.5), jnp.where(small, 1.0, z)
    # exp(z) P(a, z) / z**a is the series without its first term, exp(-z) - exp(z) is odd.
    power = near * _lower_series(a + 1, near)
    sine = jnp.zeros_like(z)
    for n in range(19, 2, -2):
        sine = near**2 / (n * (n - 1)) * (1 + sine)
    series = jnp.exp(a * jnp.log(near)) * power - 2 * near * sine
    plain = 2 * far - jnp.exp(a * jnp.log(far) - gammaln(a + 1)) + jnp.exp(-far)
    return jnp.where(small, series, plain - _upper_scaled(a, far))


@partial(jax.jit, static_argnums=0)  # so that a law made outside `jit` is compiled once
def _normal_equations(
    kind: int, hurst: Array, rates: Array, horizon: Array
) -> tuple[Array, Array, Array]:
    """A, b and c of the mean square error (w A w - 2 b w + c) / horizon."""
    g, T = rates, horizon
    total = g[:, None] + g
    a = hurst + 0.5
    c = variance(kind, hurst) * T ** (2 * hurst + 1) / (2 * hurst + 1)
    if kind == 1:
        # Written so that nothing cancels where a rate is small.
        once = _remainder(g * T)
        return T * (once[:, None] + once) / total, _past(a, g * T) / g ** (a + 1), c
    b = T / g**a * _lower(a, g * T) - a / g ** (a + 1) * _lower(a + 1, g * T)
    return T * _remainder(total * T) / total, b, c


def _weighted_sum(x: Array, rate: Array) -> Array:
    """(1 - exp(-rate x)) / rate, also for a rate of zero."""
    zero = rate == 0
    safe = jnp.where(zero, 1.0, rate)
    return jnp.where(zero, x, -jnp.expm1(-safe * x) / safe)


def memory_covariance(
    kind: int, rates: Float[Array, " terms"], s: Array, t: Array
) -> Float[Array, "... terms terms"]:
    """The covariances of Y[i](s) - Y[i](0) and Y[j](t) - Y[j](0), for times s <= t."""
    s, t = s[..., None, None], t[..., None, None]
    gi, gj = rates[:, None], rates
    # Y[j] forgets between s and t; what is symmetric in i and j may be written either way.
    if kind == 1:
        each = jnp.exp(-gj * (t - s)) - jnp.exp(-gj * t) - jnp.exp(-gi * s) + 1
        return each / (gi + gj)
    return jnp.exp(-gj * (t - s)) * _weighted_sum(s, gi + gj)


def memory_root(kind: int, rates: Float[Array, " terms"]) -> Float[Array, "terms terms"]:
    """A square root R of the covariance R R' of Y(0); zero for type II."""
    if kind == 2:
        return jnp.zeros((rates.size, rates.size))
    # A Cauchy matrix, of a condition that its Cholesky factor does not survive in float32.
    values, vectors = jnp.linalg.eigh(1 / (rates[:, None] + rates))
    return vectors * jnp.sqrt(jnp.maximum(values, 0.0))


class MarkovLaw(eqx.Module):
    """The weights of the Markov approximation of fractional noise, and what follows from them.

    B(t) is the sum of w[k] (Y[k](t) - Y[k](0)) with dY[k] = -g[k] Y[k] dt + dW, one W for all k.
    A law and a key make a path, `MarkovFractional`.

    Args:
        hurst: the Hurst index, in (0, 1); may be traced, and all is differentiable in it. `None`:
            white noise, one term with rate 0 and weight 1.
        horizon: length of the span over which the mean square error is least.
        kind: 1 (Mandelbrot-Van Ness, stationary increments) or 2 (Riemann-Liouville, Y(0) = 0).
        terms: how many processes.
        largest: the largest decay rate; the smallest is its inverse.
        rates: other decay rates, (terms,); `"spread"`: those of `spread_rates` over the horizon.
        standard: divide by the standard deviation of the process at time 1.

    Raises:
        InputError: a Hurst index outside (0, 1), a type other than 1 and 2, no terms, rates that
            are not positive.

    Source: as `MarkovFractional`.
    """

    hurst: Float[Array, ""] | None
    horizon: Float[Array, ""]
    rates: Float[Array, " terms"]
    weights: Float[Array, " terms"]
    kind: int = eqx.field(static=True)
    standard: bool = eqx.field(static=True)

    def __init__(
        self,
        hurst: ArrayLike | None,
        horizon: ArrayLike = 1.0,
        *,
        kind: Literal[1, 2] = 2,
        terms: int = 5,
        largest: ArrayLike = 20.0,
        rates: ArrayLike | Literal["spread"] | None = None,
        standard: bool = True,
    ) -> None:
        if kind not in (1, 2):
            raise InputError(f"kind must be 1 (Mandelbrot-Van Ness) or 2; got {kind!r}.")
        if isinstance(terms, bool) or not isinstance(terms, int) or terms < 1:
            raise InputError(f"terms must be a positive integer; got {terms!r}.")
        if not (is_traced(largest) or np.ndim(largest) == 0 and float(np.asarray(largest)) > 1):
            raise InputError(f"largest must be above 1; got {largest!r}.")
        if not (is_traced(horizon) or np.ndim(horizon) == 0 and float(np.asarray(horizon)) > 0):
            raise InputError(f"horizon must be a positive number; got {horizon!r}.")
        self.horizon = _above(0.0, horizon)
        self.kind, self.standard = int(kind), bool(standard)
        if hurst is None:
            self.kind, self.hurst = 2, None
            self.rates, self.weights = jnp.zeros(1), jnp.ones(1)
            return
        self.hurst = checked_hurst(hurst)
        self.rates = self._rates(rates, terms, largest)
        A, b, _ = _normal_equations(self.kind, self.hurst, self.rates, self.horizon)
        # The rows of nearby rates are nearly the same: in units of the diagonal, and with a little
        # more on it, rounding is not blown up.
        unit = jax.lax.rsqrt(jnp.diagonal(A))
        ridge = 4 * jnp.finfo(A.dtype).eps * jnp.eye(self.rates.size)
        solved = jnp.linalg.solve(A * unit[:, None] * unit + ridge, b * unit)
        self.weights = solved * unit / self._unit()

    def _rates(self, rates: Any, terms: int, largest: ArrayLike) -> Array:
        if isinstance(rates, str):
            if rates != "spread":
                raise InputError(f'rates must be an array, "spread" or None; got {rates!r}.')
            return spread_rates(terms, self.hurst, self.kind) / self.horizon  # pyright: ignore
        if rates is None:
            return _geometric(terms, _above(1.0, largest))
        rates = jnp.asarray(rates, self.horizon.dtype)
        if rates.ndim != 1 or not rates.size or not (is_traced(rates) or bool(jnp.all(rates > 0))):
            raise InputError(f"rates must be positive numbers, an array (terms,); got {rates}.")
        return _above(0.0, rates)

    def _unit(self) -> Array:
        return jnp.sqrt(variance(self.kind, self.hurst)) if self.standard else jnp.ones(())  # pyright: ignore

    @property
    def error(self) -> Float[Array, ""]:
        """Root mean square error over the horizon, relative to that of leaving the process out."""
        if self.hurst is None:
            return jnp.zeros(())
        A, b, c = _normal_equations(self.kind, self.hurst, self.rates, self.horizon)
        w = self.weights * self._unit()
        return jnp.sqrt(jnp.maximum((w @ A @ w - 2 * b @ w + c) / c, 0.0))

    def covariance(self, s: ArrayLike, t: ArrayLike) -> Float[Array, "..."]:
        """The covariance of B at times s and t after its start, broadcast against one another."""
        s, t = jnp.asarray(s), jnp.asarray(t)
        each = memory_covariance(self.kind, self.rates, jnp.minimum(s, t), jnp.maximum(s, t))
        return jnp.sum(self.weights[:, None] * self.weights * each, (-2, -1))

    def at(self, t: ArrayLike) -> tuple[Float[Array, " terms"], None]:
        """The weights at a time, and their derivative; here they are the same at all times."""
        return self.weights, None

    def start_root(self) -> Float[Array, "terms terms"]:
        """A square root R of the covariance R R' of Y(0); zero for type II."""
        return memory_root(self.kind, self.rates)

    def transition(
        self, h: ArrayLike
    ) -> tuple[Float[Array, " terms"], Float[Array, "terms terms"]]:
        """The exact step of Y: Y(t + h) = decay * Y(t) + a draw with this covariance.

        NaN for a step back in time.
        """
        h = jnp.where(jnp.asarray(h) >= 0, h, jnp.nan)
        decay = jnp.exp(-self.rates * h)
        return decay, _weighted_sum(jnp.asarray(h), self.rates[:, None] + self.rates)

    def sample(self, key: Array, ts: Float[Array, " n"]) -> Float[Array, " n"]:
        """B at increasing times after its start, from its exact law (no limit on the spacing).

        Another set of times gives another draw.
        """
        ts = jnp.asarray(ts, self.rates.dtype)
        first, rest = jax.random.split(key)
        start = self.start_root() @ jax.random.normal(first, self.rates.shape, ts.dtype)
        gaps = jnp.diff(ts, prepend=0.0)
        draws = jax.random.normal(rest, (ts.size, self.rates.size), ts.dtype)

        def step(y, row):
            h, draw = row
            decay, noise = self.transition(h)
            values, vectors = jnp.linalg.eigh(noise)
            y = decay * y + vectors @ (jnp.sqrt(jnp.maximum(values, 0.0)) * draw)
            return y, self.weights @ (y - start)

        return jax.lax.scan(step, start, (gaps, draws))[1]


def _above(least: float, x: ArrayLike) -> Array:
    """Numbers above `least`; of those that are traced, and could not be checked, NaN otherwise."""
    x = jnp.asarray(x, jnp.result_type(float))
    return jnp.where(x > least, x, jnp.nan) if is_traced(x) else x


_geometric = rates  # the argument of the same name hides it
