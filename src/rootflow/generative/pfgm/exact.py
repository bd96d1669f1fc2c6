"""The field of known charges in closed form: the oracle of PFGM++."""

import math
from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ...errors import InputError
from ...ground.batches import in_batches
from ...ground.tracing import is_traced
from ..denoiser import Denoiser
from ..exact import GaussianMixture
from ..numerics import expand
from ..schedules import EDM
from .noise import PoissonNoise


class ExactField(eqx.Module):
    """Data whose perturbed density and best denoiser are known.

    Attributes:
        noise: the noise law.
    """

    noise: eqx.AbstractVar[PoissonNoise]

    @abstractmethod
    def mean(self, x: Float[Array, "batch ..."], sigma: ArrayLike) -> Array:
        """D*(x, sigma), the mean of the data given x; sigma has shape () or (batch,)."""

    @abstractmethod
    def log_density(self, x: Float[Array, "batch ..."], sigma: ArrayLike) -> Array:
        """The log-density of x at noise level sigma, shape (batch,)."""

    def slope(self, x: Float[Array, "batch ..."], radius: ArrayLike) -> Array:
        """E_x / E_r = dx/dr, the direction of the electric field at radius r (Xu et al., eq. 4)."""
        radius = jnp.asarray(radius)
        return (x - self.mean(x, self.noise.sigma(radius))) / expand(radius, x)

    def denoiser(self, **options: Any) -> Denoiser:
        """The perfect model, with the noise level as time; `options` as of `Denoiser`."""
        return Denoiser(self.mean, EDM(), "data", **options)


class Charges(ExactField):
    """Points y_j of given weights.

    Args:
        points: shape (k, ...).
        noise: the noise law.
        weights: shape (k,), positive, scaled to sum to one; equal by default.
        together: in single precision, for how many x at a time the differences to all points are
            held in memory.

    Raises:
        InputError: shapes that do not go together, weights that are not positive.
    """

    points: Float[Array, "k ..."]
    noise: PoissonNoise
    log_weights: Float[Array, " k"]
    together: int = eqx.field(static=True)

    def __init__(
        self,
        points: ArrayLike,
        noise: PoissonNoise,
        weights: ArrayLike | None = None,
        together: int = 64,
    ) -> None:
        points = jnp.asarray(points, dtype=jnp.result_type(float, jnp.asarray(points).dtype))
        if points.ndim < 2 or not len(points):
            raise InputError(f"points must have shape (k, ...), k >= 1; got {points.shape}.")
        _check_noise(noise)
        if weights is not None and not is_traced(weights) and not (np.asarray(weights) > 0).all():
            raise InputError(f"weights must be positive; got {np.asarray(weights).tolist()}.")
        count = len(points)
        weights = jnp.ones(count) if weights is None else jnp.asarray(weights)
        if weights.shape != (count,):
            raise InputError(f"weights must have shape ({count},), one a point.")
        if isinstance(together, bool) or not isinstance(together, int) or together < 1:
            raise InputError(f"together={together!r} must be a positive integer.")
        self.points, self.noise, self.together = points, noise, together
        self.log_weights = jnp.log(weights / jnp.sum(weights)).astype(points.dtype)

    def log_posterior(self, x: Float[Array, "batch ..."], sigma: ArrayLike) -> Array:
        """log(weight_j) + log p(x | y_j) up to a constant: shape (batch, k)."""
        x = self._checked(x)
        flat, points = x.reshape(len(x), -1), self.points.reshape(len(self.points), -1)
        sigma = jnp.broadcast_to(jnp.asarray(sigma, x.dtype), (len(x),))

        if x.dtype == jnp.float64:
            # One product of matrices; of sixteen digits enough are left.
            centre = jnp.mean(points, axis=0)
            flat, points = flat - centre, points - centre
            lengths = jnp.sum(flat**2, axis=1)[:, None] + jnp.sum(points**2, axis=1)
            squares = jnp.maximum(lengths - 2 * flat @ points.T, 0.0) / sigma[:, None] ** 2
            return self.log_weights + self.noise.log_shape(squares, points.shape[1])

        def each(one):
            x, sigma = one
            squares = jnp.sum(((x - points) / sigma) ** 2, axis=-1)
            return self.log_weights + self.noise.log_shape(squares, points.shape[1])

        return in_batches(each, (flat, sigma), self.together)

    def mean(self, x: Float[Array, "batch ..."], sigma: ArrayLike) -> Array:
        share = jax.nn.softmax(self.log_posterior(x, sigma), axis=-1)
        return jnp.tensordot(share, self.points.astype(share.dtype), 1)

    def log_density(self, x: Float[Array, "batch ..."], sigma: ArrayLike) -> Array:
        x = self._checked(x)
        parts = jax.nn.logsumexp(self.log_posterior(x, sigma), axis=-1)
        return parts + self.noise.log_density(jnp.zeros_like(x), sigma)

    def _checked(self, x: Any) -> Array:
        x = jnp.asarray(x)
        if x.shape[1:] != self.points.shape[1:]:
            raise InputError(
                f"x must have shape (batch, ...) with samples like the points, "
                f"{self.points.shape[1:]}; got {x.shape}."
            )
        return x


class MixtureCharges(ExactField):
    """A mixture of normal distributions, by quadrature over the scale of the noise.

    Given chi^2_D / D = s the noise is normal of variance sigma^2 / s, for which `GaussianMixture`
    has formulas; what is left is one integral over log s. The trapezoidal rule on it converges
    exponentially: with the default number of nodes errors are those of double precision for D from
    1 to 10^4 and distances up to 40 sigma.

    Args:
        data: the mixture.
        noise: the noise law.
        nodes: of the quadrature.

    Raises:
        InputError: anything else than a mixture and a noise law; too few nodes.
    """

    data: GaussianMixture
    noise: PoissonNoise
    nodes: int = eqx.field(static=True, default=256)

    def __check_init__(self) -> None:
        if not isinstance(self.data, GaussianMixture):
            raise InputError(f"data must be a GaussianMixture; got {self.data!r}.")
        _check_noise(self.noise)
        if self.nodes < 8:
            raise InputError(f"nodes={self.nodes} must be at least 8.")

    def mean(self, x: Float[Array, "batch d"], sigma: ArrayLike) -> Array:
        if self.noise.gaussian:
            return self.data.mean(EDM(), jnp.asarray(x), sigma)
        x, scales, log_parts = self._parts(x, sigma)
        means = jax.vmap(lambda scale: self.data.mean(EDM(), x, scale))(scales)
        return jnp.sum(jax.nn.softmax(log_parts, axis=0)[..., None] * means, axis=0)

    def log_density(self, x: Float[Array, "batch d"], sigma: ArrayLike) -> Array:
        if self.noise.gaussian:
            return self.data.log_density(EDM(), jnp.asarray(x), sigma)
        return jax.nn.logsumexp(self._parts(x, sigma)[2], axis=0)

    def _parts(self, x: Any, sigma: Any) -> tuple[Array, Array, Array]:
        """x, and at each node sigma / sqrt(s) and the log of its share of the density at x.

        Shapes (batch, d), (nodes, batch), (nodes, batch).
        """
        x = jnp.asarray(x)
        if x.ndim != 2 or x.shape[1] != self.data.means.shape[1]:
            raise InputError(
                f"x must have shape (batch, {self.data.means.shape[1]}); got {x.shape}."
            )
        size = x.shape[1]
        d = jnp.asarray(self.noise.dimension, x.dtype)
        sigma = jnp.broadcast_to(jnp.asarray(sigma, x.dtype), x.shape[:1])
        distance = jnp.sum((x[:, None] - self.data.means) ** 2, axis=-1)
        squares = jnp.max(distance, axis=1) / sigma**2
        # The integrand has its peak between what the farthest component asks for and s = 1, falls
        # like a Gaussian of width 1 / sqrt(shape) there, and like s^shape to the left.
        left, right = 0.5 * (size + d), 0.5 * d
        low = -jnp.log1p(squares / d) - 9 / jnp.sqrt(left) - 36 / left
        high = jnp.maximum(jnp.log1p(size / d), 0.0) + 9 / jnp.sqrt(right)
        high = jnp.minimum(high, jnp.log(80.0) - jnp.log(jnp.minimum(right, 1.0)))
        step = (high - low) / (self.nodes - 1)
        log_s = low + step * jnp.arange(self.nodes, dtype=x.dtype)[:, None]
        # chi^2_D / D has the density of a gamma law; in log s another factor s. Near s = 1, where
        # for large D all of it lies, expm1 keeps the digits.
        log_law = _log_gamma_constant(right) - right * (jnp.expm1(log_s) - log_s)
        scales = sigma * jnp.exp(-0.5 * log_s)
        log_given = jax.vmap(lambda scale: self.data.log_density(EDM(), x, scale))(scales)
        return x, scales, log_law + jnp.log(step) + log_given


def _log_gamma_constant(a: Array) -> Array:
    """a log a - a - log Gamma(a), for the law of u = log s, exp(-a (e^u - 1 - u)) but for this."""
    large = jnp.maximum(a, 32.0)
    rest = (1 / 12 - (1 / 360 - 1 / (1260 * large**2)) / large**2) / large
    series = 0.5 * jnp.log(large / (2 * math.pi)) - rest
    return jnp.where(a < 32, a * jnp.log(a) - a - jax.lax.lgamma(a), series)


def _check_noise(noise: Any) -> None:
    if not isinstance(noise, PoissonNoise):
        raise InputError(f"noise must be PoissonNoise(dimension); got {noise!r}.")
