"""How good a model is, without solving an equation: the variational bound, and SURE."""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from .._typing import PyTree
from ..errors import InputError
from ..ground.tracing import is_traced
from ..training.keys import check_key
from . import grids
from .denoiser import Denoiser
from .flow import check_signal
from .grids import Grid
from .likelihood import divergence, probe_directions
from .numerics import as_numbers, expand, namespace
from .sample import check_denoiser
from .starts import as_samples


def elbo(
    denoiser: Denoiser,
    data: Float[ArrayLike, "batch ..."],
    condition: PyTree = None,
    *,
    key: Key[Array, ""],
    steps: int = 256,
    grid: str | Grid | ArrayLike = "log_snr",
    begin: ArrayLike | None = None,
    end: ArrayLike | None = None,
) -> Float[Array, " batch"]:
    """A lower bound of the log-density of clean data, in nats, estimated without bias.

    -ELBO = KL(p(x_T | x_0) | N(0, s^2)) - E log p(x_0 | x_end)
            + sum over steps of (SNR(t) - SNR(s)) / 2 E |x_0 - prediction(x_s, s)|^2

    (Kingma et al. 2021, eq. 11-14), with t the clean end of each step, s the noisy one, and
    p(x_0 | x_end) normal about x_end / alpha with standard deviation sigma / alpha. With more steps
    the bound of a perfect model tends to the log-density; every step is evaluated once, with noise
    of its own.

    Args:
        denoiser: the model.
        data: shape (batch, ...).
        condition: handed to the model.
        key: for the noise.
        steps: steps of the grid; one evaluation each.
        grid: as in `sample`; in `"log_snr"` the first step from pure noise leads to log_snr -7.
        begin: the noisy end; by default the schedule's.
        end: the clean end; by default the schedule's.

    Returns:
        Shape (batch,).

    Raises:
        InputError: arguments that do not fit together.
    """
    check_denoiser(denoiser)
    schedule = denoiser.schedule
    check_key(key)
    x = as_samples(data, "data")
    given = None if not isinstance(grid, str | Grid) else steps
    first = as_numbers(schedule.begin if begin is None else begin)
    inner = grids.with_signal(schedule, first)
    if is_traced(first) or inner is first or grid != "log_snr" or steps < 2:
        times = grids.times(schedule, given, grid=grid, begin=begin, end=end)
    else:
        # From pure noise one step leads to where log_snr is finite.
        first = grids.check_inside(schedule, first, "begin")
        times = grids.times(schedule, steps - 1, grid=grid, begin=inner, end=end)
        times = namespace(times).append(first, times)
    check_signal(denoiser, times[0])
    knots = grids.knots(schedule, times)
    size, axes = math.prod(x.shape[1:]), tuple(range(1, x.ndim))
    with np.errstate(divide="ignore"):
        snr = (knots.level.alpha / knots.level.sigma) ** 2
    if not np.isfinite(np.asarray(snr, dtype=float)).all():
        raise InputError("The clean end has no noise, so that its SNR is infinite: move end in.")
    levels = jax.tree.map(lambda part: jnp.asarray(part[:-1], x.dtype), knots.level)
    rises = jnp.asarray(snr[1:] - snr[:-1], x.dtype)

    def one(total, turn):
        level, rise, key = turn
        noisy = level.alpha * x + level.sigma * jax.random.normal(key, x.shape, x.dtype)
        miss = denoiser.predict("data", noisy, level, condition) - x
        return total + 0.5 * rise * jnp.sum(miss**2, axis=axes), None

    keys = jax.random.split(key, len(rises))
    steps_cost, _ = jax.lax.scan(one, jnp.zeros(x.shape[0], x.dtype), (levels, rises, keys))
    prior = schedule.prior_scale(times[0])
    alpha, sigma = knots.level.alpha[0], knots.level.sigma[0]
    share = (sigma / prior) ** 2
    kl = 0.5 * jnp.sum((alpha * x / prior) ** 2, axis=axes)
    kl = kl + 0.5 * size * (share - 1 - np.log(share))
    left = knots.level.sigma[-1] / knots.level.alpha[-1]
    reconstruction = 0.5 * size * (math.log(2 * math.pi) + 1 + 2 * np.log(left))
    return -(kl + reconstruction + steps_cost).astype(x.dtype)


def sure(
    denoiser: Denoiser,
    x: Float[ArrayLike, "batch ..."],
    t: ArrayLike,
    condition: PyTree = None,
    *,
    trace: Literal["exact", "hutchinson"] = "exact",
    probes: int = 1,
    key: Key[Array, ""] | None = None,
) -> Float[Array, " batch"]:
    """Stein's unbiased estimate of |prediction - x_0|^2 from noisy samples alone.

    |D - y|^2 + 2 v div D - d v, with y = x / alpha, v = (sigma / alpha)^2, D the predicted data as
    a function of y, d the numbers in a sample (Stein 1981). Its mean over the noise is the mean
    squared error, so a model can be judged where clean data are not known.

    Args:
        denoiser: the model.
        x: noisy samples at time t, shape (batch, ...).
        t: the time, shape () or (batch,).
        condition: handed to the model.
        trace: `"exact"` or `"hutchinson"`, as in `log_likelihood`.
        probes: random probes a sample.
        key: for the probes.

    Returns:
        Shape (batch,): summed over the numbers of a sample.
    """
    check_denoiser(denoiser)
    x = as_samples(x, "x")
    if trace not in ("exact", "hutchinson"):
        raise InputError(f"trace={trace!r} is not known; use 'exact' or 'hutchinson'.")
    level: Any = denoiser.schedule.level(jnp.asarray(t, x.dtype))
    directions = probe_directions(x, trace, probes, key)
    data, push = jax.linearize(lambda x: denoiser.predict("data", x, level, condition), x)
    trace_of_slope = divergence(push, directions, x)
    axes = tuple(range(1, x.ndim))
    alpha, sigma = level.alpha, level.sigma
    miss = jnp.sum((data - x / expand(alpha, x)) ** 2, axis=axes)
    variance = (sigma / alpha) ** 2
    size = math.prod(x.shape[1:])
    # The divergence in y is alpha times that in x.
    return miss + 2 * variance * alpha * trace_of_slope - size * variance
