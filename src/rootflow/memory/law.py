"""What noisy examples do to a memory: the law of a mean of examples, and the noise of the others.

Source of the model: Agliari, Albanese, Alemanno, Alessandrelli, Barra, Giannotti, Lotito and
Pedreschi (2023), Physica A 626, 129076 (supervised) and 627, 129143 (unsupervised).
"""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ..errors import InputError
from ..ground.tracing import is_traced
from . import checks

_MOST_TERMS = 4096  # of the binomial average


def entropy(*, quality: ArrayLike, quantity: ArrayLike) -> Float[Array, "..."]:
    """The entropy of a data set, rho = (1 - r^2) / (M r^2): 0 where the archetype is known.

    Args:
        quality: r in (0, 1]; a pixel of an example equals the archetype's with probability
            (1 + r) / 2.
        quantity: M, examples for each archetype.

    Returns:
        rho, of the shape that the two broadcast to.

    Raises:
        InputError: a quality outside (0, 1], fewer than one example.
    """
    r, M = checks.quality(quality), checks.quantity(quantity)
    return (1 - r) * (1 + r) / (M * r**2)


def tuple_entropy(*, quality: ArrayLike, quantity: ArrayLike, order: int) -> Float[Array, "..."]:
    """The entropy of products of P pixels, rho_P = (1 - r^(2P)) / (M r^(2P)).

    What an unsupervised memory averages are such products, one by one for each example: it needs
    about r^(-2P) examples where a supervised one needs r^(-2).

    Raises:
        InputError: as in `entropy`.
    """
    P = checks.order(order)
    r, M = checks.quality(quality), checks.quantity(quantity)
    power = r ** (2 * P)
    return (1 - power) / (M * power)


def load(*, archetypes: ArrayLike, neurons: int, order: int) -> Float[Array, ""]:
    """Gardner's load, gamma = (P! / 2) K / N^(P-1); for P = 2 it is K / N.

    Args:
        archetypes: K.
        neurons: N.
        order: P.

    Raises:
        InputError: no neurons, an order below two or with a factorial that overflows.
    """
    P, N = checks.order(order), checks.count("neurons", neurons)
    K = checks.number("archetypes", archetypes, low=0.0)
    # By logarithms: N^(P-1) may overflow where the quotient does not.
    return K * math.exp(math.lgamma(P + 1) - math.log(2) - (P - 1) * math.log(N))


def archetypes_at(*, load: float, neurons: int, order: int) -> int:
    """K, the number of archetypes nearest to a load, and at least one.

    Raises:
        InputError: a negative load; as in `load`.
    """
    P, N = checks.order(order), checks.count("neurons", neurons)
    gamma = checks.constant("load", load, low=0.0)
    return max(1, round(gamma * math.exp((P - 1) * math.log(N) + math.log(2) - math.lgamma(P + 1))))


class Law(eqx.Module):
    """What the replica symmetric equations know of the data.

    Attributes:
        order: P, as a number, so that one compiled program serves all orders.
        pairwise: whether P = 2, whose crosstalk answers to itself.
        entropy: rho.
        crosstalk: what the other archetypes' noise is multiplied by: 1 for a supervised memory,
            (1 + rho_P) / (1 + rho)^P for an unsupervised one.
        minor: for P = 2 and unsupervised learning, the number and the weight of the further
            directions that the examples of an archetype span.
        points, weights: values and probabilities of the mean example over r times the archetype,
            where it is not taken to be normal.
    """

    order: Array
    pairwise: Array
    entropy: Array
    crosstalk: Array
    minor: tuple[Array, Array]
    points: Array | None = None
    weights: Array | None = None


def law(
    order: Any,
    entropy_: Any,
    quality: Any,
    quantity: Any,
    supervised: bool,
    small_sample: bool = False,
) -> Law:
    """The law of the data, from an entropy or from a quality and a quantity."""
    P = checks.order(order)
    given = (quality is not None) + (quantity is not None)
    if given == 1 or (given == 2) == (entropy_ is not None):
        raise InputError(
            "the data are described by entropy=, or by quality= and quantity= together; give one "
            "of the two."
        )
    if entropy_ is not None:
        rho = checks.number("entropy", entropy_, low=0.0)
        zero = jnp.zeros_like(rho)
        checks.scalars(entropy=rho)
        if not supervised or small_sample:
            what = "supervised=False" if not supervised else "small_sample=True"
            raise InputError(f"{what} needs quality= and quantity=: entropy= does not say enough.")
        return Law(*_order(P, rho), rho, jnp.ones_like(rho), (zero, zero))
    rho = entropy(quality=quality, quantity=quantity)
    checks.scalars(quality=quality, quantity=quantity)
    crosstalk, minor = jnp.ones_like(rho), (jnp.zeros_like(rho), jnp.zeros_like(rho))
    if not supervised:
        rho_P = tuple_entropy(quality=quality, quantity=quantity, order=P)
        crosstalk = (1 + rho_P) / (1 + rho) ** P
        minor = (jnp.asarray(quantity, rho.dtype) - 1, rho / (1 + rho))
    known = (*_order(P, rho), rho, crosstalk, minor)
    return Law(*known, *_binomial(quality, quantity)) if small_sample else Law(*known)


def _order(P: int, rho: Array) -> tuple[Array, Array]:
    return jnp.asarray(P, rho.dtype), jnp.asarray(P == 2)


def _binomial(quality: Any, quantity: Any) -> tuple[Array, Array]:
    """Values of mean(chi) / r and their probabilities, differentiable in r."""
    if is_traced(quantity) or int(quantity) != quantity or quantity > _MOST_TERMS:
        raise InputError(
            f"small_sample=True averages over a binomial law: quantity must be a whole number of "
            f"at most {_MOST_TERMS}; got {quantity}. With more examples the normal law is exact "
            "enough."
        )
    M, r = int(quantity), checks.quality(quality)
    right = np.arange(M + 1)
    log_count = [math.lgamma(M + 1) - math.lgamma(j + 1) - math.lgamma(M - j + 1) for j in right]
    log_count = np.asarray(log_count)
    # In logarithms, for the counts overflow; but one factor of (1 - r) / 2 stays as it is, so that
    # r = 1 has a derivative too.
    miss = jnp.maximum((1 - r) / 2, np.finfo(r.dtype).tiny)
    log_weights = jnp.asarray(log_count, r.dtype) + right * jnp.log((1 + r) / 2)
    log_weights = log_weights + np.maximum(M - right - 1, 0) * jnp.log(miss)
    weights = jnp.where(right == M, 1.0, (1 - r) / 2) * jnp.exp(log_weights)
    # Filled up to one of a few sizes, so that other quantities are not compiled anew.
    fill = max(64, 1 << M.bit_length()) - (M + 1)
    points = jnp.asarray((2 * right - M) / M, r.dtype) / r
    return jnp.pad(points, (0, fill)), jnp.pad(weights, (0, fill))
