"""The noise of PFGM++ in D extra dimensions."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from ...errors import InputError
from ...ground.tracing import is_traced, raise_if
from ..numerics import expand

_WHICH = "1 is the Poisson flow, math.inf is diffusion, and 64 to 2048 is where images do best."


def _dimension(d: Any) -> Any:
    """The dimension; inside `jit` checked when it is known."""
    if not is_traced(d):
        return d
    return raise_if(d, ~(d >= 1).all(), f"dimension must be at least 1: {_WHICH}", InputError)


class PoissonNoise(eqx.Module):
    """The law of w = (x - y) / sigma under p_r(x | y) ~ (|x - y|^2 + r^2)^(-(N + D) / 2).

    With r = sigma sqrt(D) this is Student's t with D degrees of freedom in N dimensions,
    w = z / sqrt(chi^2_D / D) with one chi^2 a sample. Drawn like that nothing over- or underflows
    in single precision, for any D; the radius |w| has the law of sqrt(D B / (1 - B)), B of
    Beta(N / 2, D / 2) (Xu et al. 2023, eq. 8), where B rounds to 0 or 1 for large D.

    Attributes:
        dimension: D, any number from 1 (Poisson flow) to infinity (diffusion). With the same key a
            larger D uses the same normal numbers z.

    Raises:
        InputError: D below 1.
    """

    dimension: Any = eqx.field(converter=_dimension)

    def __check_init__(self) -> None:
        d = self.dimension
        if is_traced(d):
            return
        if not eqx.is_array_like(d) or np.ndim(d) or isinstance(d, bool | complex) or not d >= 1:
            raise InputError(f"dimension={d!r} must be a number of at least 1: {_WHICH}")

    @property
    def gaussian(self) -> bool:
        """Whether this is the noise of a diffusion model."""
        return not is_traced(self.dimension) and bool(np.isinf(self.dimension))

    def radius(self, sigma: ArrayLike) -> Array:
        """r = sigma sqrt(D), the length of the extra coordinates at noise level sigma."""
        return jnp.asarray(sigma) * jnp.sqrt(self._finite("a radius"))

    def sigma(self, radius: ArrayLike) -> Array:
        """The noise level sigma = r / sqrt(D) at radius r."""
        return jnp.asarray(radius) / jnp.sqrt(self._finite("a radius"))

    def _finite(self, what: str) -> Any:
        if self.gaussian:
            raise InputError(f"With infinite dimension {what} is infinite: use sigma.")
        return self.dimension

    def draw(self, key: Key[Array, ""], shape: tuple[int, ...], dtype: Any = float) -> Array:
        """Noise w of shape (batch, ...); the perturbed data are y + sigma w.

        Args:
            key: for the draw.
            shape: batch first. Each sample has its own chi^2.
            dtype: of floating-point numbers.
        """
        if len(shape) < 1:
            raise InputError("shape must have a batch axis, (batch, ...); got ().")
        key_normal, key_scale = jax.random.split(key)
        z = jax.random.normal(key_normal, shape, dtype)
        if self.gaussian:
            return z
        half = 0.5 * jnp.asarray(self.dimension, z.dtype)
        if not is_traced(self.dimension) and self.dimension > 2:
            share = jax.random.gamma(key_scale, half, shape[:1], z.dtype) / half
            return z * expand(jax.lax.rsqrt(share), z)
        # A chi^2 of few degrees of freedom may be too small for a number that is not a logarithm.
        log_share = jax.random.loggamma(key_scale, half, shape[:1], z.dtype) - jnp.log(half)
        return z * expand(jnp.exp(-0.5 * log_share), z)

    def log_density(self, x: Float[ArrayLike, "batch ..."], sigma: ArrayLike) -> Array:
        """log p_r(x | 0), shape (batch,), at a noise level of shape () or (batch,)."""
        x = jnp.asarray(x)
        size = math.prod(x.shape[1:])
        sigma = jnp.asarray(sigma, x.dtype)
        squares = jnp.sum((x / expand(sigma, x)) ** 2, axis=tuple(range(1, x.ndim)))
        return self.log_shape(squares, size) - size * jnp.log(sigma) + self._log_norm(size, x.dtype)

    def log_shape(self, squares: Array, size: int) -> Array:
        """-(N + D) / 2 log(1 + squares / D), which is log p_r(x | 0) up to a constant.

        Args:
            squares: |x|^2 / sigma^2.
            size: N.
        """
        if self.gaussian:
            return -0.5 * squares
        # log1p keeps the digits that log would lose for large D.
        d = jnp.asarray(self.dimension, squares.dtype)
        return -0.5 * (size + d) * jnp.log1p(squares / d)

    def _log_norm(self, size: int, dtype: Any) -> Any:
        """log Gamma((N + D) / 2) - log Gamma(D / 2) - N / 2 log(pi D)."""
        if self.gaussian:
            return -0.5 * size * math.log(2 * math.pi)
        half = 0.5 * jnp.asarray(self.dimension, dtype)
        return _log_gamma_ratio(half, 0.5 * size) - 0.5 * size * math.log(2 * math.pi)

    def prior(self, sigma: ArrayLike) -> Callable[[Array], Array]:
        """The log-density of the start of sampling at noise level sigma, for `log_likelihood`."""
        return lambda x: self.log_density(x, sigma)


def _log_gamma_ratio(a: Array, h: float) -> Array:
    """log Gamma(a + h) - log Gamma(a) - h log a, which tends to 0, without cancellation."""
    direct = jax.lax.lgamma(a + h) - jax.lax.lgamma(a) - h * jnp.log(a)
    # The difference of two of Stirling's series.
    large = jnp.maximum(a, 32.0)

    def rest(z):
        return (1 / 12 - (1 / 360 - 1 / (1260 * z**2)) / z**2) / z

    series = (large + h - 0.5) * jnp.log1p(h / large) - h + rest(large + h) - rest(large)
    return jnp.where(a < 32, direct, series)
