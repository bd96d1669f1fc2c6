"""The Hurst index from data, by maximum likelihood."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jax.scipy.special import erfc
from jaxtyping import Array, ArrayLike, Float

from ...errors import InputError
from ...roots.argmin import argmin
from .fractional import covariance
from .law import MarkovLaw
from .linear import LinearFractional

#: The search for the parameters ends when steps and changes of the loss are below this.
_CLOSE = 1e-9
#: Up to so many times a Cholesky factor of their covariance is quicker than a filter.
_FEW = 256


class HurstEstimate(eqx.Module):
    """What `estimate_hurst` found.

    Attributes:
        hurst: the Hurst index.
        scale: standard deviation of the process at time 1 (of the process of the Markov law, where
            that is not standardised).
        error: standard deviation of the observations.
        standard_errors: of (hurst, scale, error) as far as they were estimated, from the curvature
            of the likelihood; NaN where it has none.
        log_likelihood: at the estimate.
        brownian: the largest log-likelihood with a Hurst index of 1/2.
        p_value: of the likelihood-ratio test of the index 1/2.
    """

    hurst: Float[Array, ""]
    scale: Float[Array, ""]
    error: Float[Array, ""]
    standard_errors: Float[Array, " parameters"]
    log_likelihood: Float[Array, ""]
    brownian: Float[Array, ""]

    @property
    def p_value(self) -> Float[Array, ""]:
        ratio = jnp.maximum(self.log_likelihood - self.brownian, 0.0)
        return erfc(jnp.sqrt(ratio))


def estimate_hurst(
    ts: ArrayLike,
    paths: ArrayLike,
    *,
    error: ArrayLike | Literal["fit"] = 0.0,
    approximation: dict[str, Any] | None = None,
) -> HurstEstimate:
    """The Hurst index and the scale of fractional Brownian motion seen at the times `ts`.

    The likelihood is Gaussian: that of the exact law by default (stationary increments, O(n**3)),
    or that of the Markov approximation by a Kalman filter (O(n) for long series; also type II).
    Estimates with few terms are biased where the approximation is poor: see `MarkovLaw.error`.

    Args:
        ts: increasing times after the start, where every path is 0; (n,).
        paths: observations, (..., n); independent paths of one index and scale. NaN: missing.
        error: standard deviation of the observations; `"fit"`: estimate it too.
        approximation: options of `MarkovLaw` such as `dict(kind=2, terms=8, largest=100.0)`; the
            horizon is the last time unless given. `None`: the exact law.

    Raises:
        InputError: times that do not increase from above 0, shapes that do not fit, too few
            observations.
    """
    ts, paths = jnp.asarray(ts, float), jnp.asarray(paths, float)
    if ts.ndim != 1 or paths.ndim < 1 or paths.shape[-1] != ts.size:
        raise InputError(
            f"ts must have shape (n,) and paths (..., n); got {ts.shape} and {paths.shape}."
        )
    if not (bool(jnp.all(jnp.diff(ts, prepend=0.0) > 0)) and bool(jnp.all(jnp.isfinite(ts)))):
        raise InputError(f"The times must increase, from above 0 (where paths are 0); got {ts}.")
    paths = paths.reshape(-1, ts.size)
    there = ~np.isnan(np.asarray(paths))
    fit = isinstance(error, str)
    if fit and error != "fit":
        raise InputError(f'error must be a number or "fit"; got {error!r}.')
    if int(there.sum()) < 4:
        raise InputError(f"At least 4 observations are needed; got {int(there.sum())}.")
    # In units of the data, so that every unknown is of order one.
    unit = float(jnp.sqrt(jnp.nanmean(paths**2))) or 1.0
    same = bool(np.all(there == there[:1]))  # then one factorisation serves all
    options = None if approximation is None else _hashable(approximation)
    fitted = _fitter(tuple(ts.tolist()), tuple(there[0].tolist()) if same else None, options, fit)
    start = jnp.asarray([0.0, 0.0] + [np.log(0.1)] * fit)
    known_error = jnp.asarray(0.0 if fit else error, float) / unit
    found = fitted(start, paths / unit, known_error)
    (hurst, scale, noise), spread, value, half = found
    units = np.array([1.0, unit, unit])[: spread.size]
    counted = there.sum() * np.log(unit)
    return HurstEstimate(
        hurst, scale * unit, noise * unit, spread * units, value - counted, half - counted
    )


def _hashable(options: dict[str, Any]) -> tuple[Any, ...]:
    plain = lambda value: tuple(np.ravel(value).tolist()) if np.ndim(value) else value
    return tuple((name, plain(options[name])) for name in sorted(options))


@functools.lru_cache(maxsize=16)
def _fitter(
    times: tuple[Any, ...], seen: tuple[Any, ...] | None, options: tuple[Any, ...] | None, fit: bool
) -> Callable[..., Any]:
    """The compiled fit for these times; `seen`: which of them every path has."""
    ts = np.array(times)
    grow = float(np.sqrt(ts.mean()))

    def parameters(x: Array, error: Array):
        hurst, scale = jax.nn.sigmoid(x[0]), jnp.exp(x[1]) / grow
        return hurst, scale, jnp.exp(x[2]) if fit else error

    def loss(x: Array, data: Array, error: Array, free: Array) -> Array:
        """Minus the log-likelihood; with the index held at 1/2 where `free` is 0."""
        hurst, scale, noise = parameters(x.at[0].multiply(free), error)
        there = ~jnp.isnan(data) if seen is None else np.array(seen)
        if options is None:
            return -_dense(covariance(ts[:, None], ts, hurst), data, there, scale, noise)
        law = MarkovLaw(hurst, **{"horizon": times[-1], **dict(options)})
        if ts.size <= _FEW:
            return -_dense(law.covariance(ts[:, None], ts), data, there, scale, noise)
        model = LinearFractional(law, 0.0, scale, error=noise)
        return -jnp.sum(model.log_likelihood(ts, data[..., None], seen=there))

    @jax.jit
    def fitted(start: Array, data: Array, error: Array):
        def best(free):
            # First derivatives only: second ones of this loss take minutes to compile.
            method = optx.BFGS(rtol=_CLOSE, atol=_CLOSE)
            x = argmin(loss, start, data, error, free, method=method, max_steps=500, throw=False)
            return x, -loss(x, data, error, free)

        xs, (value, half) = jax.lax.map(best, jnp.array([1.0, 0.0]))
        x = xs[0]
        # The curvature from differences of the gradient: compiled in a fraction of the time.
        step = float(jnp.finfo(x.dtype).eps) ** (1 / 3) * jnp.eye(x.size)
        gradient = jax.grad(loss)
        ends = jax.lax.map(
            lambda d: gradient(x + d, data, error, 1.0), jnp.concatenate([step, -step])
        )
        curvature = (ends[: x.size] - ends[x.size :]) / (2 * step[0, 0])
        slope = jax.jacfwd(lambda x: jnp.stack(parameters(x, error)[: x.size]))(x)
        inverse = jnp.linalg.inv(0.5 * (curvature + curvature.T))
        variance = jnp.diagonal(slope @ inverse @ slope.T)
        return parameters(x, error), jnp.sqrt(variance), value, half

    return fitted


def _dense(unit: Array, data, there, scale, noise) -> Array:
    """Log-density of all paths; `there` is (n,) where it is that of all."""
    whole = scale**2 * unit
    eps = 4 * unit.shape[0] * jnp.finfo(whole.dtype).eps

    def one(y, there):
        # A missing one is independent of the rest, and 0: it says nothing.
        matrix = jnp.where(there[:, None] & there, whole, 0.0)
        extra = jnp.where(there, noise**2 + eps * jnp.diagonal(whole), 1.0)
        root = jnp.linalg.cholesky(matrix + jnp.diag(extra))
        white = jax.scipy.linalg.solve_triangular(root, jnp.where(there, y, 0.0), lower=True)
        logs = jnp.sum(jnp.log(jnp.diagonal(root)))
        return -0.5 * white @ white - logs - 0.5 * jnp.sum(there) * np.log(2 * np.pi)

    return jnp.sum(jax.vmap(one, (0, None if there.ndim == 1 else 0))(data, there))
