"""Means of random samples, with their standard errors."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Estimate(NamedTuple):
    """A number with an error bar.

    Attributes:
        value: unbiased, unless said otherwise.
        standard_error: the standard deviation of `value`, estimated from the spread of the samples.
        probes: the random vectors that it took.
    """

    value: Float[Array, ""]
    standard_error: Float[Array, ""]
    probes: int


def estimate(samples: Float[Array, " probes"]) -> Estimate:
    """The mean of independent samples."""
    n = samples.shape[0]
    return Estimate(jnp.mean(samples), jnp.std(samples, ddof=1) / np.sqrt(n), n)


def ratio(above: Float[Array, " probes"], below: Float[Array, " probes"]) -> Estimate:
    """The ratio of two means of paired samples; its error to first order (the delta method)."""
    n = above.shape[0]
    top, bottom = jnp.mean(above), jnp.mean(below)
    value = top / jnp.where(bottom == 0, 1, bottom)
    slopes = (above - value * below) / jnp.where(bottom == 0, 1, bottom)
    return Estimate(value, jnp.std(slopes, ddof=1) / np.sqrt(n), n)


def root(squared: Estimate) -> Estimate:
    """The square root of an estimate that is not negative; its error to first order."""
    value = jnp.sqrt(jnp.maximum(squared.value, 0))
    error = squared.standard_error / (2 * jnp.where(value > 0, value, 1))
    return Estimate(value, jnp.where(value > 0, error, 0), squared.probes)
