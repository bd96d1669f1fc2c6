"""Fractional Brownian motion, exactly."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.scipy.special import gammaln
from jaxtyping import Array, ArrayLike, Float, Shaped, UInt32

from ...errors import InputError
from .base import Increment, Noise, checked_shape, checked_span, within
from .counter import words


def checked_hurst(hurst: ArrayLike) -> Float[Array, ""]:
    """The Hurst index, a number in (0, 1)."""
    known = not isinstance(hurst, Tracer)
    if np.ndim(hurst) or (known and not 0 < float(np.asarray(hurst)) < 1):
        raise InputError(f"The Hurst index must be one number between 0 and 1; got {hurst!r}.")
    hurst = jnp.asarray(hurst, jnp.result_type(float))
    # There is no such process for another index, whose formulas have values all the same.
    return hurst if known else jnp.where((hurst > 0) & (hurst < 1), hurst, jnp.nan)


def variance(kind: int, hurst: ArrayLike) -> Array:
    """The variance at time 1 of the process of type I or II, before it is standardised.

    Type I: 1 / (Gamma(2 H + 1) sin(pi H)); type II: 1 / (2 H Gamma(H + 1/2)**2).
    """
    h = jnp.asarray(hurst)
    if kind == 1:
        return jnp.exp(-gammaln(2 * h + 1)) / jnp.sin(jnp.pi * h)
    return jnp.exp(-2 * gammaln(h + 0.5)) / (2 * h)


def covariance(s: ArrayLike, t: ArrayLike, hurst: ArrayLike) -> Array:
    """The covariance (s^2H + t^2H - |t - s|^2H) / 2 of fractional Brownian motion."""
    s, t, power = jnp.asarray(s), jnp.asarray(t), 2 * jnp.asarray(hurst)

    def raised(x):
        positive = x > 0
        return jnp.where(positive, jnp.where(positive, x, 1.0) ** power, 0.0)

    return 0.5 * (raised(s) + raised(t) - raised(jnp.abs(t - s)))


class FractionalBrownianMotion(Noise):
    """A fractional Brownian motion B on [t0, t1], B(t0) = 0, drawn from its exact law.

    Its increments are stationary and Gaussian, of variance |t - s|**(2 hurst); they are correlated
    unless hurst is 1/2. The law of B is no product over the tree of a Brownian motion, so that one
    of two things has to be fixed beforehand:

    - without `steps`, a call `path(ts)` draws B at the times `ts`, by a Cholesky factor of their
      covariance: O(n**3), for some hundred times. Another set of times gives another draw.
    - with `steps`, B is drawn on the grid of so many equal steps, by circulant embedding
      (O(n log n)), and is one path: linear between the grid points. This is the one that
      `rf.solve_sde` can be driven with, for hurst > 1/2; for any hurst see `MarkovFractional`.

    Args:
        key: a random key.
        hurst: the Hurst index, in (0, 1); may be traced, and values are differentiable in it.
        shape: shape of B(t).
        t0: start of the span.
        t1: end of the span.
        steps: how many steps the grid has.

    Raises:
        InputError: a Hurst index outside (0, 1), a time outside the span.

    Source: R. B. Davies & D. S. Harte, "Tests for Hurst effect" (1987); A. T. A. Wood & G. Chan,
    "Simulation of stationary Gaussian processes in [0, 1]^d" (1994).
    """

    data: UInt32[Array, "2"]
    hurst: Float[Array, ""]
    t0: Shaped[Any, ""]
    t1: Shaped[Any, ""]
    shape: tuple[int, ...] = eqx.field(static=True)
    steps: int | None = eqx.field(static=True)
    table: Float[Array, "points m"] | None

    def __init__(
        self,
        key: Array,
        hurst: ArrayLike,
        t0: ArrayLike = 0.0,
        t1: ArrayLike = 1.0,
        *,
        shape: tuple[int, ...] = (),
        steps: int | None = None,
    ) -> None:
        self.data = words(key)
        self.hurst = checked_hurst(hurst)
        self.shape = checked_shape(shape)
        self.t0, self.t1 = checked_span(t0, t1, jnp.result_type(float))
        if steps is not None and (
            isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1
        ):
            raise InputError(f"steps must be a positive integer; got {steps!r}.")
        self.steps = None if steps is None else int(steps)
        self.table = None if steps is None else self._grid()

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    def _normals(self, *shape: int) -> Array:
        key = jax.random.wrap_key_data(self.data, impl="threefry2x32")
        return jax.random.normal(key, (*shape, self.size), self.hurst.dtype)

    def __call__(self, t: ArrayLike) -> Float[Array, "..."]:
        """B at the times `t`, of any shape: an array of shape `t.shape + shape`."""
        t = within(t, self.t0, self.t1)
        values = self._exact(t.ravel()) if self.table is None else self._linear(t.ravel())
        return values.reshape(*t.shape, *self.shape)

    def increment(self, s: ArrayLike, t: ArrayLike) -> Float[Array, "..."]:
        """B(t) - B(s), of shape `shape`."""
        values = self(jnp.stack(jnp.broadcast_arrays(jnp.asarray(s), jnp.asarray(t))))
        return values[1] - values[0]

    def _exact(self, t: Array) -> Array:
        x = (t - self.t0) / (self.t1 - self.t0)
        matrix = covariance(x[:, None], x, self.hurst)
        # B(t0) = 0, and a time may be there twice: the factor needs a little help.
        jitter = 8 * t.size * jnp.finfo(matrix.dtype).eps
        factor = jnp.linalg.cholesky(matrix + jitter * jnp.eye(t.size))
        drawn = jnp.where((x > 0)[:, None], factor @ self._normals(t.size), 0.0)
        return jnp.asarray(self.t1 - self.t0) ** self.hurst * drawn

    def _grid(self) -> Array:
        """B at the points of the grid, (steps + 1, m): sums of fractional Gaussian noise."""
        n = self.steps
        assert n is not None
        k = jnp.arange(n + 1, dtype=self.hurst.dtype)
        lag = 2 * covariance(k, k + 1, self.hurst)  # k^2H + (k+1)^2H - 1
        power = lag + 1  # k^2H + (k + 1)^2H
        single = covariance(k, k, self.hurst)  # k^2H
        after = power - single
        before = jnp.where(k > 0, jnp.roll(single, 1), 1.0)  # |k - 1|^2H
        gamma = 0.5 * (after - 2 * single + before)
        row = jnp.concatenate([gamma, gamma[-2:0:-1]])  # 2 n long
        # All eigenvalues are positive, for every Hurst index; what is not is rounding.
        eigenvalues = jnp.maximum(jnp.fft.fft(row).real, 0.0)
        positive = eigenvalues > 0
        root = jnp.where(positive, jnp.sqrt(jnp.where(positive, eigenvalues, 1.0)), 0.0)
        a, b = self._normals(2, 2 * n)
        noise = jnp.fft.fft(root[:, None] * (a + 1j * b) / np.sqrt(2 * n), axis=0).real[:n]
        size = jnp.asarray(self.t1 - self.t0) / n
        path = jnp.cumsum(noise, axis=0) * size**self.hurst
        return jnp.concatenate([jnp.zeros_like(path[:1]), path])

    def _linear(self, t: Array) -> Array:
        assert self.table is not None and self.steps is not None
        x = jax.lax.stop_gradient((t - self.t0) / (self.t1 - self.t0)) * self.steps
        i = jnp.clip(jnp.floor(x), 0, self.steps - 1)
        inside = (x - i)[:, None]
        i = i.astype(jnp.int32)
        return (1 - inside) * self.table[i] + inside * self.table[i + 1]

    def start(self, t: Array) -> Any:
        if self.table is None:
            raise InputError(
                "A solve needs one path: make the FractionalBrownianMotion with steps=, or use "
                "MarkovFractional."
            )
        return self._linear(t[None])[0]

    def advance(self, t: Array, h: Array, state: Any) -> tuple[Increment, Any]:
        end = self._linear((t + h)[None])[0]
        return Increment(end - state), end
