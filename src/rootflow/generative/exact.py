"""Data whose diffusion is known in closed form: mixtures of normal distributions.

Under x_t = alpha x_0 + sigma eps a mixture stays one, with means alpha m_k and covariances
alpha^2 C_k + sigma^2 I. So its density, score and every kind of prediction are formulas, and what a
sampler does wrong is the sampler's own error, not a network's. The same holds on a path between two
mixtures, `Interpolated`.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from ..errors import InputError
from ..ground.tracing import is_traced
from .denoiser import Denoiser
from .interpolants.fields import Fields, as_kinds
from .interpolants.paths import Coefficients, Path
from .numerics import expand
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
    ) -> None:
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
        def law(t):
            alpha, sigma = schedule.alpha(t), schedule.sigma(t)
            variances = alpha**2 * self.variances[:, 0] + sigma**2
            return self.log_weights, alpha * self.means[:, 0], variances

        return _by_quantiles(x, law(begin), law(end))


def _by_quantiles(x: Array, before: tuple[Any, ...], after: tuple[Any, ...]) -> Array:
    """What has the probability below it after that x, shape (n, 1), has before.

    Both laws are mixtures on a line: log weights, means and variances, each of shape (k,).
    """

    def tails(x, law):
        """The logarithms of the probabilities below and above x."""
        log_weights, means, variances = law
        z = (x - means) / jnp.sqrt(variances)
        log_cdf = jax.scipy.stats.norm.logcdf
        below = jax.nn.logsumexp(log_weights + log_cdf(z), axis=-1)
        return below, jax.nn.logsumexp(log_weights + log_cdf(-z), axis=-1)

    below, above = tails(x, before)
    reach = jnp.max(jnp.abs(after[1])) + 40 * jnp.sqrt(jnp.max(after[2]))

    def halve(_, bracket):
        low, high = bracket
        middle = 0.5 * (low + high)
        now_below, now_above = tails(middle[:, None], after)
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


class Interpolated(eqx.Module):
    """A path between two mixtures that are independent of one another, in closed form.

    x_t is a mixture with a component for each pair of theirs: means alpha m0_i + beta m1_j and
    covariances alpha^2 C0_i + beta^2 C1_j + gamma^2 I (Albergo, Boffi and Vanden-Eijnden 2023,
    app. A). Density and fields are formulas at all times, ends included, and no weight underflows.

    Args:
        path: a path that is linear in space.
        data: the law of x1.
        base: the law of x0, of the same dimension; `None` for a path without x0.

    Raises:
        InputError: a base where the path has none, or none where it has one; another dimension; a
            path that is not linear.
    """

    path: Path
    data: GaussianMixture
    base: GaussianMixture | None
    log_weights: Float[Array, " k"]
    means: tuple[Float[Array, "k d"], Float[Array, "k d"]]
    covariances: tuple[Array, Array]

    def __init__(
        self, path: Path, data: GaussianMixture, base: GaussianMixture | None = None
    ) -> None:
        if not isinstance(path, Path) or not path.linear:
            raise InputError(f"path must be a path that is linear in space; got {path!r}.")
        if (base is None) != (path.sides != "two"):
            raise InputError(
                f"{type(path).__name__} has "
                + ("an x0: give base=..." if base is None else "no x0: leave out the base.")
            )
        k1, d = data.means.shape
        if base is not None and base.means.shape[1] != d:
            raise InputError(
                f"base and data must have one dimension; got {base.means.shape[1]} and {d}."
            )
        k0 = 1 if base is None else base.means.shape[0]
        full = data.axes is not None or (base is not None and base.axes is not None)
        kind = data.means.dtype
        first = (
            jnp.zeros((1, d), kind),
            jnp.zeros((1, d, d) if full else (1, d), kind),
            jnp.zeros(1, kind),
        )
        if base is not None:
            first = (base.means, _covariances(base, full), base.log_weights)
        second = (data.means, _covariances(data, full), data.log_weights)
        if full and jnp.ndim(path.coefficients(0.5).alpha):
            raise InputError(
                "Weights of the path that differ between the axes need mixtures whose axes are "
                "those of the coordinates."
            )
        rows = [jnp.repeat(part, k1, axis=0) for part in first]
        columns = [jnp.concatenate([part] * k0) for part in second]
        self.path, self.data, self.base = path, data, base
        self.means = rows[0], columns[0]
        self.covariances = rows[1], columns[1]
        self.log_weights = rows[2] + columns[2]

    @property
    def _full(self) -> bool:
        """Whether covariances are matrices, and not their diagonals."""
        return self.covariances[0].ndim == 3

    def _coefficients(self, x: Array, t: Any) -> Coefficients:
        # With an axis for the components before that of the space.
        t = expand(jnp.asarray(t, x.dtype), x)
        return self.path.coefficients(t[..., None] if jnp.ndim(t) else t)

    def _times(self, matrix: Array, vector: Array) -> Array:
        return jnp.einsum("...ij,...j->...i", matrix, vector) if self._full else matrix * vector

    def _combined(self, at0: Any, at1: Any, isotropic: Any) -> Array:
        """at0 C0 + at1 C1 + isotropic I, for each component."""
        first, second = self.covariances
        if not self._full:
            return at0 * first + at1 * second + isotropic
        at0, at1 = (w[..., None] if jnp.ndim(w) else w for w in (at0, at1))
        unit = jnp.eye(first.shape[-1], dtype=first.dtype)
        isotropic = isotropic[..., None] if jnp.ndim(isotropic) else isotropic
        return at0 * first + at1 * second + isotropic * unit

    def _parts(self, x: Array, t: Any) -> tuple[Coefficients, Array, Array]:
        """The weights of the path, C^-1 (x - m), and log-densities of the components."""
        c = self._coefficients(x, t)
        offset = x[..., None, :] - (c.alpha * self.means[0] + c.beta * self.means[1])
        covariance = self._combined(c.alpha**2, c.beta**2, c.gamma**2)
        if self._full:
            root = jnp.linalg.cholesky(covariance)
            root = jnp.broadcast_to(root, (*offset.shape, offset.shape[-1]))
            pull = jax.scipy.linalg.cho_solve((root, True), offset[..., None])[..., 0]
            logs = 2 * jnp.log(jnp.diagonal(root, axis1=-2, axis2=-1))
        else:
            pull, logs = offset / covariance, jnp.log(covariance)
        size = jnp.sum(offset * pull + math.log(2 * math.pi) + logs, axis=-1)
        return c, pull, self.log_weights - 0.5 * size

    def log_density(self, x: Float[ArrayLike, "... d"], t: ArrayLike) -> Array:
        """The log-density of x_t at x, shape (...); t is one time or one per sample."""
        return jax.nn.logsumexp(self._parts(_as_floats(x), t)[2], axis=-1)

    def at(self, kind: str, x: Float[ArrayLike, "... d"], t: ArrayLike) -> Array:
        """The field `b`, `v`, `s`, `eta`, `eta0` or `eta1` at (x, t), as in `Fields`.

        The score is there also where the path has no latent noise.
        """
        x = _as_floats(x)
        c, pull, log_parts = self._parts(x, t)
        mean0, mean1 = self.means
        if kind == "s":
            each = -pull
        elif kind == "eta":
            each = c.gamma * pull
        elif kind in ("b", "v"):
            growth = self._combined(
                c.alpha * c.alpha_rate,
                c.beta * c.beta_rate,
                c.product if kind == "b" else jnp.zeros_like(c.product),
            )
            each = c.alpha_rate * mean0 + c.beta_rate * mean1 + self._times(growth, pull)
        elif kind == "eta1" or (kind == "eta0" and self.base is not None):
            first = kind == "eta0"
            mean, weight = (mean0, c.alpha) if first else (mean1, c.beta)
            each = mean + weight * self._times(self.covariances[0 if first else 1], pull)
        else:
            raise InputError(
                f"{kind!r} is not a field of {type(self.path).__name__}; use b, v, s, eta, eta1"
                + (" or eta0." if self.base is not None else ".")
            )
        return jnp.sum(jax.nn.softmax(log_parts, axis=-1)[..., None] * each, axis=-2)

    def score(self, x: Float[ArrayLike, "... d"], t: ArrayLike) -> Array:
        """The gradient of the log-density of x_t at x."""
        return self.at("s", x, t)

    def b(self, x: Float[ArrayLike, "... d"], t: ArrayLike) -> Array:
        """The drift of the flow at x."""
        return self.at("b", x, t)

    def v(self, x: Float[ArrayLike, "... d"], t: ArrayLike) -> Array:
        """The mean of dI/dt given x_t = x."""
        return self.at("v", x, t)

    def eta(self, x: Float[ArrayLike, "... d"], t: ArrayLike) -> Array:
        """The mean of the latent noise given x_t = x."""
        return self.at("eta", x, t)

    def fields(self, predicts: str | tuple[str, ...] = ("b", "s")) -> Fields:
        """The perfect model of these fields."""
        kinds = as_kinds(predicts)
        return Fields(_PerfectFields(self, kinds), self.path, kinds)

    def draw(self, key: Key[Array, ""], n: int, t: ArrayLike = 1.0) -> Float[Array, "n d"]:
        """n samples of x_t."""
        key0, key1, key_z = jax.random.split(key, 3)
        x1 = self.data.draw(key1, n)
        x0 = None if self.base is None else self.base.draw(key0, n)
        c = self.path.coefficients(jnp.asarray(t, x1.dtype))
        z = jax.random.normal(key_z, x1.shape, x1.dtype)
        return self.path.interpolate(t, x0, x1)[0] + c.gamma * z

    def flow_map(self, x: Float[ArrayLike, "n 1"], begin: ArrayLike, end: ArrayLike) -> Array:
        """Where the flow carries x from time `begin` to time `end`, exactly, on a line.

        There the flow keeps the order of the samples, so it maps quantiles to quantiles.

        Raises:
            InputError: more than one dimension, where there is no formula.
        """
        x = _as_floats(x)
        if x.ndim != 2 or x.shape[1] != 1 or self.means[0].shape[1] != 1:
            raise InputError(
                f"flow_map is known in one dimension, for x of shape (n, 1); x has shape {x.shape}."
            )

        def law(t):
            c = self.path.coefficients(jnp.asarray(t, x.dtype))
            first, second = (part.reshape(-1) for part in self.covariances)
            variances = c.alpha**2 * first + c.beta**2 * second + c.gamma**2
            mean0, mean1 = (part[:, 0] for part in self.means)
            return self.log_weights, c.alpha * mean0 + c.beta * mean1, variances

        return _by_quantiles(x, law(begin), law(end))


def _as_floats(x: Any) -> Array:
    return jnp.asarray(x, jnp.result_type(float, jnp.asarray(x).dtype))


def _covariances(mixture: GaussianMixture, full: bool) -> Array:
    if not full:
        return mixture.variances
    if mixture.axes is None:
        return jax.vmap(jnp.diag)(mixture.variances)
    return jnp.einsum("kde,ke,kfe->kdf", mixture.axes, mixture.variances, mixture.axes)


class _PerfectFields(eqx.Module):
    law: Interpolated
    kinds: tuple[str, ...] = eqx.field(static=True)

    def __call__(self, x: Array, t: Any) -> dict[str, Array]:
        return {kind: self.law.at(kind, x, t) for kind in self.kinds}


def ring(modes: int = 8, radius: float = 2.0, std: float = 0.3) -> GaussianMixture:
    """Equal components on a circle in the plane."""
    angle = 2 * np.pi * np.arange(modes) / modes
    return GaussianMixture(radius * np.stack([np.cos(angle), np.sin(angle)], axis=1), std)
