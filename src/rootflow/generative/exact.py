"""Data whose diffusion is known in closed form: mixtures of normal distributions.

Under x_t = alpha x_0 + sigma eps a mixture stays one, with means alpha m_k and covariances
alpha^2 C_k + sigma^2 I. So its density, score and every kind of prediction are formulas, and what a
sampler does wrong is the sampler's own error, not a network's.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from ..errors import InputError
from .denoiser import Denoiser
from .numerics import expand, is_traced
from .predictions import KINDS
from .schedules import Schedule


class GaussianMixture(eqx.Module):
    """A mixture of k normal distributions in d dimensions, and its diffusion.

    Args:
        means: shape (k, d).
        std: standard deviation of the components: one number, shape (k,), or (k, d).
        weights: shape (k,), positive, scaled to sum to one; equal by default.
        axes: shape (k, d, d), orthonormal columns: the principal axes along which `std` is
            measured; by default those of the coordinates.

    Raises:
        InputError: shapes that do not go together, weights that are not positive.
    """

    means: Float[Array, "k d"]
    variances: Float[Array, "k d"]
    log_weights: Float[Array, " k"]
    axes: Float[Array, "k d d"] | None

    def __init__(
        self,
        means: ArrayLike,
        std: ArrayLike = 1.0,
        weights: ArrayLike | None = None,
        axes: ArrayLike | None = None,
    ):
        means = jnp.asarray(means, dtype=jnp.result_type(float, jnp.asarray(means).dtype))
        if means.ndim != 2:
            raise InputError(f"means must have shape (k, d); got {means.shape}.")
        k, d = means.shape
        std = jnp.asarray(std, means.dtype)
        if std.shape not in ((), (k,), (k, d)):
            raise InputError(
                f"std must be a number or of shape ({k},) or {(k, d)}; got {std.shape}."
            )
        if weights is not None and not is_traced(weights) and not (np.asarray(weights) > 0).all():
            raise InputError(f"weights must be positive; got {np.asarray(weights).tolist()}.")
        weights = jnp.full(k, 1 / k) if weights is None else jnp.asarray(weights, means.dtype)
        if weights.shape != (k,):
            raise InputError(f"weights must have shape ({k},), one a mean; got {weights.shape}.")
        if axes is not None and np.shape(axes) != (k, d, d):
            raise InputError(f"axes must have shape {(k, d, d)}; got {np.shape(axes)}.")
        self.means = means
        self.variances = jnp.broadcast_to(std[:, None] ** 2 if std.ndim == 1 else std**2, (k, d))
        self.log_weights = jnp.log(weights / jnp.sum(weights))
        self.axes = None if axes is None else jnp.asarray(axes, means.dtype)

    def _parts(self, schedule: Schedule, x: Array, t: Any) -> tuple[Array, Array, Array]:
        """Offsets from the components along their axes, variances, and log-densities."""
        alpha = expand(schedule.alpha(t), x)[..., None] if jnp.ndim(t) else schedule.alpha(t)
        sigma = expand(schedule.sigma(t), x)[..., None] if jnp.ndim(t) else schedule.sigma(t)
        offset = x[..., None, :] - alpha * self.means
        if self.axes is not None:
            offset = jnp.einsum("...kd,kde->...ke", offset, self.axes)
        variance = alpha**2 * self.variances + sigma**2
        size = jnp.sum(offset**2 / variance + jnp.log(2 * math.pi * variance), axis=-1)
        return offset, variance, self.log_weights - 0.5 * size

    def log_density(self, schedule: Schedule, x: Float[Array, "... d"], t: ArrayLike) -> Array:
        """The log-density of x_t at x, shape (...)."""
        return jax.nn.logsumexp(self._parts(schedule, jnp.asarray(x), jnp.asarray(t))[2], axis=-1)

    def score(self, schedule: Schedule, x: Float[Array, "... d"], t: ArrayLike) -> Array:
        """The gradient of the log-density of x_t at x."""
        offset, variance, log_parts = self._parts(schedule, jnp.asarray(x), jnp.asarray(t))
        pull = -offset / variance
        if self.axes is not None:
            pull = jnp.einsum("...ke,kde->...kd", pull, self.axes)
        return jnp.sum(jax.nn.softmax(log_parts, axis=-1)[..., None] * pull, axis=-2)

    def mean(self, schedule: Schedule, x: Float[Array, "... d"], t: ArrayLike) -> Array:
        """The mean of the data given x_t = x."""
        x, t = jnp.asarray(x), jnp.asarray(t)
        offset, variance, log_parts = self._parts(schedule, x, t)
        alpha = schedule.alpha(t)
        alpha = expand(alpha, x)[..., None] if jnp.ndim(t) else alpha
        step = alpha * self.variances / variance * offset
        if self.axes is not None:
            step = jnp.einsum("...ke,kde->...kd", step, self.axes)
        return jnp.sum(jax.nn.softmax(log_parts, axis=-1)[..., None] * (self.means + step), axis=-2)

    def predict(self, kind: str, schedule: Schedule, x: Float[Array, "... d"], t: Any) -> Array:
        """The best prediction of this kind, in mean square, at (x, t).

        It exists also where there is no signal, and none of it is divided by alpha or sigma.
        """
        x, t = jnp.asarray(x), jnp.asarray(t)
        score = self.score(schedule, x, t)
        if kind == "score":
            return score
        level = schedule.level(t)
        _, alpha, sigma, alpha_rate, sigma_rate = (expand(part, x) for part in level)
        noise = -sigma * score
        if kind == "noise":
            return noise
        data = self.mean(schedule, x, t)
        if kind == "data":
            return data
        if kind == "velocity":
            return alpha * noise - sigma * data
        if kind == "flow":
            return alpha_rate * data + sigma_rate * noise
        raise InputError(f"kind={kind!r} is not known; use one of {', '.join(KINDS)}.")

    def denoiser(self, schedule: Schedule, predicts: str = "noise", **options: Any) -> Denoiser:
        """The perfect model of this data on a schedule; `options` as of `Denoiser`."""
        return Denoiser(_Perfect(self, schedule, predicts), schedule, predicts, **options)

    def draw(self, key: Key[Array, ""], n: int) -> Float[Array, "n d"]:
        """n samples of the data."""
        which, where = jax.random.split(key)
        k = jax.random.categorical(which, self.log_weights, shape=(n,))
        step = jnp.sqrt(self.variances[k]) * jax.random.normal(
            where, (n, self.means.shape[1]), self.means.dtype
        )
        if self.axes is not None:
            step = jnp.einsum("ne,nde->nd", step, self.axes[k])
        return self.means[k] + step

    def flow_map(
        self, schedule: Schedule, x: Float[Array, "n d"], begin: ArrayLike, end: ArrayLike
    ) -> Float[Array, "n d"]:
        """Where the probability flow carries x from time `begin` to time `end`, exactly.

        For one component, or in one dimension: there the flow keeps the order of the samples, so it
        maps quantiles to quantiles.

        Raises:
            InputError: several components in several dimensions, where there is no formula.
        """
        k, d = self.means.shape
        x = jnp.asarray(x)
        if k == 1:
            offset, before, _ = self._parts(schedule, x, jnp.asarray(begin))
            _, after, _ = self._parts(schedule, x, jnp.asarray(end))
            moved = (jnp.sqrt(after / before) * offset)[..., 0, :]
            if self.axes is not None:
                moved = moved @ self.axes[0].T
            return schedule.alpha(end) * self.means[0] + moved
        if d != 1:
            raise InputError(
                f"flow_map knows one component or one dimension; this mixture has {k} in {d}."
            )
        return self._by_quantiles(schedule, x, begin, end)

    def _by_quantiles(self, schedule: Schedule, x: Array, begin: Any, end: Any) -> Array:
        def tails(x, t):
            """The logarithms of the probabilities below and above x."""
            alpha, sigma = schedule.alpha(t), schedule.sigma(t)
            z = (x - alpha * self.means[:, 0]) / jnp.sqrt(
                alpha**2 * self.variances[:, 0] + sigma**2
            )
            log_cdf = jax.scipy.stats.norm.logcdf
            below = jax.nn.logsumexp(self.log_weights + log_cdf(z), axis=-1)
            return below, jax.nn.logsumexp(self.log_weights + log_cdf(-z), axis=-1)

        below, above = tails(x, begin)
        reach = schedule.alpha(end) * jnp.max(jnp.abs(self.means)) + 40 * jnp.sqrt(
            schedule.alpha(end) ** 2 * jnp.max(self.variances) + schedule.sigma(end) ** 2
        )

        def halve(_, bracket):
            low, high = bracket
            middle = 0.5 * (low + high)
            now_below, now_above = tails(middle[:, None], end)
            # The smaller tail has the more digits.
            left = jnp.where(below < above, now_below < below, now_above > above)
            return jnp.where(left, middle, low), jnp.where(left, high, middle)

        start = (jnp.full(x.shape[0], -reach), jnp.full(x.shape[0], reach))
        low, high = jax.lax.fori_loop(0, 64, halve, start)
        return (0.5 * (low + high))[:, None]


class _Perfect(eqx.Module):
    data: GaussianMixture
    schedule: Schedule
    predicts: str = eqx.field(static=True)

    def __call__(self, x: Array, t: Any) -> Array:
        return self.data.predict(self.predicts, self.schedule, x, t)


def ring(modes: int = 8, radius: float = 2.0, std: float = 0.3) -> GaussianMixture:
    """Equal components on a circle in the plane."""
    angle = 2 * np.pi * np.arange(modes) / modes
    return GaussianMixture(radius * np.stack([np.cos(angle), np.sin(angle)], axis=1), std)
