"""Traces and Frobenius norms from random products, with standard errors."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Key

from ..errors import InputError
from ..ground.tracing import nonfinite, raise_if
from .checks import require_count, require_key, require_operator, require_positive
from .estimates import Estimate, estimate, root
from .operators import Operator, compiled

Distribution = Literal["rademacher", "normal", "sphere"]


def trace(
    operator: Operator,
    *,
    probes: int = 32,
    key: Key[Array, ""],
    method: Literal["hutchinson", "hutch++"] = "hutchinson",
    distribution: Distribution = "rademacher",
    target: float | None = None,
    max_probes: int = 10_000,
) -> Estimate:
    """The trace of an operator, without bias, and its standard error.

    Hutchinson's estimate (1990) is the mean of v.H v over random v; for the default signs the
    variance of one is 2 (|H|_F^2 - sum of H_ii^2). Hutch++ (Meyer et al. 2021) spends a third of
    the products on a sketch of the leading eigenvectors, where it takes the trace exactly, another
    third for that, and the last third for the rest: better where few eigenvalues make most of it.

    Args:
        operator: of which; it need not be symmetric.
        probes: products, at least 2 (6 for Hutch++).
        key: for them.
        method: `"hutchinson"` or `"hutch++"`.
        distribution: of the probes: random signs, normal numbers, or the sphere of radius sqrt(n).
        target: go on until the standard error is at most this (not inside `jit`). At least two
            rounds of `probes` are made, so that no lucky spread ends it early.
        max_probes: the most to take for it.

    Raises:
        InputError: products that are not finite; options that do not fit.
    """
    require_operator(operator)
    require_key(key, "trace")
    if method not in ("hutchinson", "hutch++"):
        raise InputError(f"method={method!r} is not known; use 'hutchinson' or 'hutch++'.")
    _check_distribution(distribution)
    probes = require_count(probes, "probes", 2 if method == "hutchinson" else 6)
    if target is None:
        if method == "hutch++":
            return _finite(_hutch_pp(operator, key, probes, distribution))
        return _finite(estimate(_samples(operator, key, probes, distribution)[0]))
    target = require_positive(target, "target")
    rounds: list[Array] = []
    while True:
        key, now = jax.random.split(key)
        if method == "hutch++":
            # Every round is an estimate of its own; their spread is the error.
            rounds.append(_hutch_pp(operator, now, probes, distribution).value[None])
        else:
            rounds.append(_samples(operator, now, probes, distribution)[0])
        if isinstance(rounds[-1], Tracer):
            raise InputError("target= decides from numbers, which is not possible inside jit.")
        made = len(rounds) * probes
        enough = len(rounds) >= (2 if method == "hutchinson" else 4)
        found = estimate(jnp.concatenate(rounds)) if enough else None
        if found is not None and (found.standard_error <= target or made >= max_probes):
            return _finite(found._replace(probes=made))
        if not bool(jnp.isfinite(rounds[-1]).all()):
            return _finite(estimate(jnp.concatenate([*rounds, *rounds])))


def frobenius(
    operator: Operator,
    *,
    probes: int = 32,
    key: Key[Array, ""],
    distribution: Distribution = "rademacher",
) -> Estimate:
    """The Frobenius norm, from |H|_F^2 = E |H v|^2; arguments as for `trace`."""
    require_operator(operator)
    require_key(key, "frobenius")
    _check_distribution(distribution)
    probes = require_count(probes, "probes", 2)
    return _finite(root(estimate(_samples(operator, key, probes, distribution)[1])))


def _check_distribution(name) -> None:
    if name not in ("rademacher", "normal", "sphere"):
        raise InputError(
            f"distribution={name!r} is not known; use 'rademacher', 'normal' or 'sphere'."
        )


def _finite(found: Estimate) -> Estimate:
    value = raise_if(
        found.value,
        nonfinite(found.value),
        "the operator's products are not finite: look for NaN or infinities in the parameters, "
        "the data or the loss",
        InputError,
    )
    return found._replace(value=value)


def draw(
    key: Key[Array, ""], shape: tuple[int, int], dtype: Any, distribution: Distribution
) -> Array:
    """Random rows with E v v^T = I."""
    if distribution == "rademacher":
        return jax.random.rademacher(key, shape, dtype)
    v = jax.random.normal(key, shape, dtype)
    if distribution == "sphere":
        v = v * jnp.sqrt(shape[1]) / jnp.linalg.norm(v, axis=1, keepdims=True)
    return v


def _images(operator: Operator, product, rows: Array) -> Array:
    """The product with every row, some at a time."""
    at_once = operator.at_once(rows.shape[0])
    return jax.lax.map(product, rows, batch_size=at_once if at_once > 1 else None)


@compiled
def _samples(operator, key, probes, distribution):
    """v.H v and |H v|^2 for random v."""
    n, dtype = operator.size, operator.dtype
    product = operator.linear()
    at_once = operator.at_once(probes)

    def one(key):
        v = draw(key, (1, n), dtype, distribution)[0]
        image = product(v)
        return jnp.vdot(v, image), jnp.vdot(image, image)

    keys = jax.random.split(key, probes)
    return jax.lax.map(one, keys, batch_size=at_once if at_once > 1 else None)


@compiled
def _hutch_pp(operator, key, probes, distribution):
    n, dtype = operator.size, operator.dtype
    product = operator.linear()
    sketch = min(probes // 3, n)
    rest = probes - 2 * sketch
    key_sketch, key_rest = jax.random.split(key)
    start = draw(key_sketch, (sketch, n), dtype, "normal")
    q, _ = jnp.linalg.qr(_images(operator, product, start).T)
    leading = jnp.sum(q * _images(operator, product, q.T).T)
    v = draw(key_rest, (rest, n), dtype, distribution)
    v = v - (v @ q) @ q.T
    left = estimate(jnp.sum(v * _images(operator, product, v), axis=1))
    return Estimate(leading + left.value, left.standard_error, probes)
