"""The phi functions of exponential methods, of diagonals and of matrices.

phi_0(z) = exp(z), phi_{k+1}(z) = (phi_k(z) - 1/k!) / z. The formula loses all digits for small z,
where the Taylor series is exact; matrices are scaled until they are small and doubled back.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

#: Terms of the Taylor series of phi_3 for |z| <= 1: 1 / 18! is below the round-off of float64.
_TERMS = 16
#: Doublings that a matrix may need: norms up to 2 ** 40.
_DOUBLINGS = 40

Phi = tuple[Array, Array, Array, Array]  # phi_0 to phi_3


def _taylor(product, one: Array, z: Array) -> Phi:
    """By Horner's rule, for |z| <= 1; the lower functions follow without cancellation."""
    third = one / math.factorial(_TERMS + 3)
    for k in reversed(range(_TERMS)):
        third = product(z, third) + one / math.factorial(k + 3)
    second = product(z, third) + one / 2
    first = product(z, second) + one
    return product(z, first) + one, first, second, third


def double(product: Callable[[Array, Array], Array], one: Array, phi: Phi) -> Phi:
    """The functions of 2 z from those of z.

    Source: B. Skaflestad & W. Wright, "The scaling and modified squaring method for matrix
    functions related to the exponential", Applied Numerical Mathematics 59 (2009), Section 3.
    """
    zeroth, first, second, third = phi
    return (
        product(zeroth, zeroth),
        product(zeroth + one, first) / 2,
        (product(first, first) + 2 * second) / 4,
        (product(first, second) + second + 2 * third) / 8,
    )


def of_diagonal(z: Float[Array, " n"]) -> Phi:
    """phi_0, ..., phi_3 of each number."""
    small = jnp.abs(z) < 1
    series = _taylor(jnp.multiply, jnp.ones_like(z), jnp.where(small, z, 0.0))
    safe = jnp.where(small, 1.0, z)
    large = [jnp.exp(safe)]
    for k in range(3):
        large.append((large[-1] - 1 / math.factorial(k)) / safe)
    zeroth, first, second, third = (
        jnp.where(small, a, b) for a, b in zip(series, large, strict=True)
    )
    return zeroth, first, second, third


def of_matrix(z: Float[Array, "n n"]) -> Phi:
    """phi_0, ..., phi_3 of a matrix, by scaling and doubling."""
    one = jnp.eye(z.shape[0], dtype=z.dtype)
    size = lax.stop_gradient(jnp.max(jnp.sum(jnp.abs(z), axis=0)))
    doublings = jnp.clip(jnp.ceil(jnp.log2(jnp.maximum(size, 1.0))), 0, _DOUBLINGS)
    phi = _taylor(jnp.matmul, one, z / 2.0**doublings)

    def again(phi, i):
        # Not a loop of so many turns as it takes: that would have no derivative in reverse.
        phi = lax.cond(i < doublings, lambda p: double(jnp.matmul, one, p), lambda p: p, phi)
        return phi, None

    return jax.lax.scan(again, phi, jnp.arange(_DOUBLINGS))[0]
