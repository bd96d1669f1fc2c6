"""Averages over runs of equal neighbours: the derivative of isotonic and total-variation fits."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def runs(x: Float[Array, " n"]) -> Int[Array, " n"]:
    """Numbers the runs of equal neighbours 0, 1, 2, ..."""
    return jnp.concatenate([jnp.zeros(1, int), jnp.cumsum(x[1:] != x[:-1])])


def run_means(values: Float[Array, " n"], ids: Int[Array, " n"]) -> Float[Array, " n"]:
    """Replaces every value by the mean over its run; linear in `values`."""
    n = ids.shape[0]
    sums = jax.ops.segment_sum(values, ids, n)
    return sums[ids] / run_lengths(ids).astype(values.dtype)


def run_lengths(ids: Int[Array, " n"]) -> Int[Array, " n"]:
    """The length of the run that each entry belongs to."""
    n = ids.shape[0]
    return jax.ops.segment_sum(jnp.ones(n, int), ids, n)[ids]
