"""Ultra-detection: patterns that are found although noise on every coupling drowns them.

The factors that couplings are made of, products of P / 2 neurons, are seen through normal noise of
size omega = tau N^((P - 1 - b) / 4), with K = alpha N^b patterns. For b = 1 and P = 4 the noise
grows as the square root of N, and retrieval survives.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ..errors import InputError
from . import checks

_MOST = 2**28  # numbers in the noisy factors of one memory

Scalar = Float[Array, ""]


class Detection(NamedTuple):
    """Overlaps of repeats, each with patterns and noise of its own.

    Attributes:
        one_step: after one parallel step without noise from the pattern, shape (repeats,).
        m: where the sequential dynamics came to rest (or after the sweeps allowed).
        archetypes: K.
        noise: omega, in units of the signal on every factor.
    """

    one_step: Float[Array, " repeats"]
    m: Float[Array, " repeats"]
    archetypes: int
    noise: float


def detection_one_step(
    *, order: int, load: ArrayLike, noise: ArrayLike, exponent: float = 1.0
) -> Scalar:
    """The overlap after one parallel step from a pattern, in the limit of many neurons.

    m = erf(1 / sqrt((4 / P) (tau^2 + alpha tau^4))) for b = 1, where tau^2 is the noise of the
    pattern's own factors; for b > 1 that vanishes, and tau^2 with it.

    Args:
        order: P, even.
        load: alpha = K / N^b.
        noise: tau = omega / N^((P - 1 - b) / 4).
        exponent: b, from 1 to P - 1.

    Raises:
        InputError: an odd order, a negative load or noise, an exponent out of range.
    """
    P = checks.order(order, even="ultra-detection, whose factors join P / 2 neurons")
    alpha = checks.number("load", load, low=0.0)
    tau = checks.number("noise", noise, low=0.0)
    b = checks.constant("exponent", exponent, low=1.0, high=P - 1.0)
    own = tau**2 if b == 1 else 0.0
    total = 4 / P * (own + alpha * tau**4)
    clean = total <= 0
    return jnp.where(clean, 1.0, jax.lax.erf(1 / jnp.sqrt(jnp.where(clean, 1.0, total))))


def simulate_detection(
    key: PRNGKeyArray,
    *,
    neurons: int,
    order: int = 4,
    load: float,
    noise: float,
    exponent: float = 1.0,
    temperature: float = 0.0,
    sweeps: int = 30,
    repeats: int = 1,
    dtype: Any = None,
) -> Detection:
    """Starts a memory with noisy factors at its first pattern and lets it run.

    E = -1 / (2 N^(P-1)) sum_mu (sum over P / 2 neurons of A^mu sigma ... sigma)^2, where A is the
    product of the pattern's neurons and noise. The noise is data, so that the factors are held in
    memory, N^(P/2) numbers a pattern, and a sweep costs K N^(P/2+1).

    Args:
        key: for patterns, noise and dynamics.
        neurons: N.
        order: P, even.
        load: alpha, with K = alpha N^b patterns, at least one.
        noise: tau, with omega = tau N^((P - 1 - b) / 4).
        exponent: b.
        temperature: T of Glauber's dynamics.
        sweeps: the most sweeps; at T = 0 fewer when nothing changes.
        repeats: memories.
        dtype: of the numbers; by default JAX's float.

    Raises:
        InputError: as in `detection_one_step`; more factors than fit.
    """
    P = checks.order(order, even="ultra-detection, whose factors join P / 2 neurons")
    N, repeats = checks.count("neurons", neurons), checks.count("repeats", repeats)
    alpha = checks.constant("load", load, low=0.0)
    tau = checks.constant("noise", noise, low=0.0)
    b = checks.constant("exponent", exponent, low=0.0, high=P - 1.0)
    T = checks.number("temperature", temperature, low=0.0)
    checks.scalars(temperature=T)
    K = max(1, round(alpha * N**b))
    if K * N ** (P // 2) > _MOST:
        raise InputError(
            f"{K} patterns of {N} neurons have {K * N ** (P // 2):.3g} noisy factors, more than "
            f"{_MOST:.3g}; take fewer neurons or a smaller load."
        )
    omega = tau * N ** ((P - 1 - b) / 4)
    dtype = jnp.dtype(jnp.result_type(float) if dtype is None else dtype)
    sizes = (N, K, P // 2, checks.count("sweeps", sweeps), dtype)
    keys = jax.random.split(key, repeats)
    one_step, m = _repeat(keys, jnp.asarray(omega, dtype), T.astype(dtype), sizes)
    return Detection(one_step, m, K, omega)


@eqx.filter_jit
def _repeat(keys, omega, T, sizes) -> tuple[Array, Array]:
    return jax.lax.map(lambda key: _once(key, omega, T, *sizes), keys)


def _once(key, omega, T, N: int, K: int, half: int, most: int, dtype) -> tuple[Array, Array]:
    key_xi, key_noise, key_run = jax.random.split(key, 3)
    xi = jax.random.rademacher(key_xi, (K, N), dtype)
    factors = omega * jax.random.normal(key_noise, (K,) + (N,) * half, dtype)
    # In units in which a pattern's own sum is sqrt(N): squares of N^half may be out of range.
    factors = (factors + _products(xi, half)) * N ** (0.5 - half)
    start = xi[0]

    slopes = jax.grad(lambda sigma: 0.5 * jnp.sum(_contract(factors, sigma) ** 2))
    before = jnp.mean(start * jnp.sign(slopes(start)))

    def sweep(carry):
        sigma, k, _ = carry
        key_order, key_spin = jax.random.split(jax.random.fold_in(key_run, k))
        order = jax.random.permutation(key_order, N)
        noise = jax.random.uniform(key_spin, (N,), dtype)

        def visit(j, state):
            sigma, sums = state
            flipped = sigma.at[order[j]].multiply(-1)
            others = _contract(factors, flipped)
            # E(flipped) - E, as a product: squares would cancel.
            cost = 0.5 * jnp.sum((sums - others) * (sums + others))
            chance = jax.nn.sigmoid(-cost / jnp.where(T > 0, T, 1.0))
            flip = jnp.where(T > 0, noise[j] < chance, cost < 0)
            return jnp.where(flip, flipped, sigma), jnp.where(flip, others, sums)

        new, _ = jax.lax.fori_loop(0, N, visit, (sigma, _contract(factors, sigma)))
        return new, k + 1, jnp.any(new != sigma)

    def proceed(carry):
        return (carry[1] < most) & (carry[2] | (T > 0))

    end = jax.lax.while_loop(proceed, sweep, (start, jnp.asarray(0), jnp.asarray(True)))[0]
    return before, jnp.mean(start * end)


def _products(xi: Array, half: int) -> Array:
    """xi_i1 ... xi_i(P/2) of every pattern."""
    product = xi
    for _ in range(half - 1):
        product = product[..., None] * xi.reshape(len(xi), *(1,) * (product.ndim - 1), -1)
    return product


def _contract(factors: Array, sigma: Array) -> Array:
    """The sum over all P / 2 neurons of A sigma ... sigma, for every pattern."""
    while factors.ndim > 1:
        factors = factors @ sigma
    return factors
