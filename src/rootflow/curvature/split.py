"""The Hessian in two parts: H = G + R, Gauss-Newton and residual."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Key

from ..errors import InputError
from . import spectra, traces
from .checks import require_count, require_key
from .estimates import Estimate, ratio
from .losses import LossOperator
from .operators import Operator, compiled
from .quadrature import quadratures


class Split(NamedTuple):
    """H = G + R and how large the parts are.

    Attributes:
        gauss_newton: the operator G.
        residual: the operator R; all negative curvature of a convex objective comes from it.
        norm_ratio: |R|_F / |H|_F. Near a fitted point R is small and H is G.
        negative_share: the sum of |lambda| over negative eigenvalues of H, over that over all.
        negative_count: the share of the eigenvalues that are negative.
    """

    gauss_newton: LossOperator
    residual: LossOperator
    norm_ratio: Estimate
    negative_share: Estimate
    negative_count: Estimate


def split(
    operator: LossOperator,
    *,
    probes: int = 32,
    steps: int = 60,
    key: Key[Any, ""],
    exact: int = 500,
) -> Split:
    """Splits the Hessian of a loss, and says how much of it is negative and how much residual.

    Args:
        operator: any operator of the loss, for example its Hessian.
        probes: random vectors for the norms, and an eighth of them, at least 4, for the spectrum of
            operators with more than `exact` rows.
        steps: products for each of the latter.
        key: for them.
        exact: a matrix of at most so many rows is formed: its numbers have no standard error.
    """
    if not isinstance(operator, LossOperator):
        raise InputError(
            "split takes the operator of a loss, as curvature.hessian makes it; a product alone "
            "does not say which part of it is the Gauss-Newton matrix."
        )
    require_key(key, "split")
    probes = require_count(probes, "probes", 2)
    hessian, other = operator.of_kind("hessian"), operator.of_kind("residual")
    key_norm, key_share = jax.random.split(key)
    if operator.size <= exact:
        size = jnp.linalg.norm(spectra.matrix(hessian, limit=exact))
        left = jnp.linalg.norm(spectra.matrix(other, limit=exact))
        norm_ratio = _certain(left / jnp.where(size == 0, 1, size))
    else:
        norm_ratio = _norm_ratio(hessian, other, key_norm, probes)
    share, count = negative(
        hessian, probes=max(4, probes // 8), steps=steps, key=key_share, exact=exact
    )
    return Split(operator.of_kind("gauss_newton"), other, norm_ratio, share, count)


def negative(
    operator: Operator,
    *,
    probes: int = 8,
    steps: int = 60,
    key: Key[Any, ""],
    exact: int = 500,
) -> tuple[Estimate, Estimate]:
    """The share of negative curvature of an operator, by size and by number; as in `Split`.

    Eigenvalues below the round-off of the largest count as zero in the second.
    """
    n, dtype = operator.size, operator.dtype
    tiny = n**0.5 * 10 * float(jnp.finfo(dtype).eps)
    if n <= exact:
        values = spectra.eigenvalues(operator, limit=exact)
        total = jnp.sum(jnp.abs(values))
        mass = jnp.sum(jnp.clip(-values, 0)) / jnp.where(total == 0, 1, total)
        below = values < -tiny * jnp.max(jnp.abs(values))
        return _certain(mass), _certain(jnp.mean(below, dtype=dtype))
    nodes, weights = quadratures(operator, probes, steps, key)
    below = jnp.sum(weights * jnp.clip(-nodes, 0), axis=1)
    size = jnp.sum(weights * jnp.abs(nodes), axis=1)
    few = jnp.sum(weights * (nodes < -tiny * jnp.max(jnp.abs(nodes))), axis=1)
    return ratio(below, size), ratio(few, jnp.ones_like(few))


def _certain(value) -> Estimate:
    return Estimate(value, jnp.zeros_like(value), 0)


@compiled
def _norm_ratio(hessian, other, key, probes) -> Any:
    n, dtype = hessian.size, hessian.dtype
    whole, part = hessian.linear(), other.linear()

    def one(key):
        v = traces.draw(key, (1, n), dtype, "rademacher")[0]
        return jnp.sum(part(v) ** 2), jnp.sum(whole(v) ** 2)

    above, below = jax.lax.map(one, jax.random.split(key, probes))
    squared = ratio(above, below)
    value = jnp.sqrt(squared.value)
    error = squared.standard_error / (2 * jnp.where(value > 0, value, 1))
    return Estimate(value, error, probes)
