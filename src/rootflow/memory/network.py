"""Dense Hebbian networks: energies of P-body couplings, without the tensor of couplings.

E = -1 / (2 N^(P-1)) sum over rows h and over distinct neurons of h_i1 ... h_iP sigma_i1 ...
sigma_iP. The inner sum is P! times the elementary symmetric polynomial e_P of h_i sigma_i, which
Newton's identities give from the power sums p_k = sum_i (h_i sigma_i)^k; leaving a neuron out takes
its term off each p_k. So a flip costs a few operations for each row.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ..errors import InputError
from ..ground.tracing import is_traced
from . import checks

_TOGETHER = 2**22  # numbers in a table of rows and neurons that is worked on at once


class DenseHebbian(eqx.Module):
    """An associative memory with couplings of P neurons.

    Args:
        rows: what the couplings are made of, shape (rows, N): one row for each archetype, its mean
            example (supervised), or one for each example (unsupervised).
        order: P; odd orders are allowed, their energy is not symmetric under sigma -> -sigma.
        normalise: divide each row by its own root mean square, as the mean of noisy or biased
            examples needs; otherwise rows are used as they are.
        distinct: couplings join distinct neurons. Otherwise the energy is the plain power
            (sum_i h_i sigma_i)^P of dense associative memories, which retrieves at lower loads.
        weights: factors of the rows, shape (rows,); one by default.

    Raises:
        InputError: shapes that do not go together, fewer neurons than P, a row of zeros, or an
            order whose factorial overflows the precision.
    """

    rows: Float[Array, "rows N"]
    weights: Float[Array, " rows"]
    order: int = eqx.field(static=True)
    distinct: bool = eqx.field(static=True)

    def __init__(
        self,
        rows: ArrayLike,
        order: int,
        *,
        normalise: bool = True,
        distinct: bool = True,
        weights: ArrayLike | None = None,
    ) -> None:
        h = checks.number("rows", rows)
        if h.ndim != 2 or not h.size:
            raise InputError(f"rows must have shape (rows, N), both at least 1; got {h.shape}.")
        self.order = checks.order(order, h.dtype)
        self.distinct = bool(distinct)
        count, N = h.shape
        if distinct and self.order > N:
            raise InputError(
                f"order={self.order} distinct neurons cannot be had of {N}; take a smaller order "
                "or distinct=False."
            )
        # The extremes of a term in the units of `scale`.
        if 0.25 * self.order * math.log(N) > math.log(float(jnp.finfo(h.dtype).max)) - 8:
            raise InputError(
                f"order={self.order} with {N} neurons overflows {h.dtype.name}; take a smaller "
                "order, or float64."
            )
        if normalise:
            size = jnp.sqrt(jnp.mean(h**2, axis=1, keepdims=True))
            if not is_traced(size) and not np.all(np.asarray(size) > 0):
                row = int(np.argmin(np.asarray(size)[:, 0]))
                raise InputError(
                    f"row {row} is zero everywhere, as a mean of two opposite examples is; leave "
                    "it out, or take an odd number of examples."
                )
            h = h / size
        self.rows = h
        self.weights = jnp.ones(count, h.dtype) if weights is None else self._checked(weights)

    def _checked(self, weights: Any) -> Array:
        array = checks.number("weights", weights)
        if array.shape != self.rows.shape[:1]:
            raise InputError(
                f"weights must have shape {self.rows.shape[:1]}, one for each row; got "
                f"{array.shape}."
            )
        return array.astype(self.rows.dtype)

    @classmethod
    def supervised(
        cls,
        examples: ArrayLike,
        order: int,
        *,
        quality: ArrayLike | None = None,
        distinct: bool = True,
    ) -> "DenseHebbian":
        """A memory of mean examples: labels say which examples belong together.

        Args:
            examples: shape (K, M, N), +1 and -1, or real numbers.
            order: P.
            quality: r, for rows scaled by sqrt(r^2 + (1 - r^2) / M) as in the theory; otherwise
                each by its own root mean square.
            distinct: as in `DenseHebbian`.

        Raises:
            InputError: as in `DenseHebbian`.
        """
        data = _examples(examples)
        mean = jnp.mean(data, axis=1)
        if quality is None:
            return cls(mean, order, distinct=distinct)
        r = checks.quality(quality)
        R = r**2 + (1 - r**2) / data.shape[1]
        return cls(mean / jnp.sqrt(R), order, normalise=False, distinct=distinct)

    @classmethod
    def unsupervised(
        cls,
        examples: ArrayLike,
        order: int,
        *,
        quality: ArrayLike | None = None,
        distinct: bool = True,
    ) -> "DenseHebbian":
        """A memory of single examples: their products are averaged, and no label is needed.

        Args:
            examples: shape (K, M, N), +1 and -1; which belong together has no influence.
            order: P.
            quality: r, for energies in the units of the supervised memory, with
                R^(P/2) = (r^2 + (1 - r^2) / M)^(P/2); by default estimated.
            distinct: as in `DenseHebbian`.

        Raises:
            InputError: as in `DenseHebbian`; one example and no quality.
        """
        from .data import estimate_quality

        data = _examples(examples)
        K, M, N = data.shape
        r = estimate_quality(data) if quality is None else checks.quality(quality)
        R = r**2 + (1 - r**2) / M
        weights = jnp.full(K * M, 1.0, data.dtype) / (M * R ** (order / 2))
        rows = data.reshape(K * M, N)
        return cls(rows, order, normalise=False, distinct=distinct, weights=weights)

    @property
    def neurons(self) -> int:
        """N."""
        return self.rows.shape[1]

    @property
    def load(self) -> Array:
        """Gardner's load of the rows, (P! / 2) sum_k w_k^2 (mean h_k^2)^P / N^(P-1)."""
        P, N = self.order, self.neurons
        power = jnp.sum(self.weights**2 * jnp.mean(self.rows**2, axis=1) ** P)
        return power * math.exp(math.lgamma(P + 1) - math.log(2) - (P - 1) * math.log(N))

    def energy(self, sigma: Float[ArrayLike, " N"]) -> Float[Array, ""]:
        """E of a configuration of +1 and -1, shape (N,).

        Raises:
            InputError: another shape, or other numbers.
        """
        sigma = checks.spins("sigma", sigma, self.neurons).astype(self.rows.dtype)
        u = self.rows / scale(self.neurons) * sigma
        return energy_of_sums(self, sums(self, u))

    def fields(self, sigma: Float[ArrayLike, " N"]) -> Float[Array, " N"]:
        """The field on each neuron, -dE/d sigma_i, that its own spin has no part in.

        For couplings of distinct neurons `sigma` may also hold magnetisations in [-1, 1], for the
        energy is linear in each of them.

        Raises:
            InputError: another shape, or numbers that are not allowed.
        """
        if self.distinct:
            sigma = checks.number("sigma", sigma, low=-1.0, high=1.0)
            if sigma.shape != (self.neurons,):
                raise InputError(
                    f"sigma must have shape ({self.neurons},), a number for each neuron; got "
                    f"{sigma.shape}. For several configurations use jax.vmap."
                )
        else:
            sigma = checks.spins("sigma", sigma, self.neurons)
        return fields(self, sigma.astype(self.rows.dtype))

    def flip_cost(self, sigma: Float[ArrayLike, " N"]) -> Float[Array, " N"]:
        """What flipping each spin alone would add to the energy.

        Raises:
            InputError: another shape, or other numbers than +1 and -1.
        """
        sigma = checks.spins("sigma", sigma, self.neurons).astype(self.rows.dtype)
        return 2 * sigma * fields(self, sigma)

    def overlaps(self, sigma: Float[ArrayLike, "... N"]) -> Float[Array, "... rows"]:
        """The overlap of configurations with each row, (1 / N) sum_i h_i sigma_i."""
        return jnp.asarray(sigma, self.rows.dtype) @ self.rows.T / self.neurons


def _examples(examples: Any) -> Array:
    data = checks.number("examples", examples)
    if data.ndim != 3 or not data.size:
        raise InputError(
            f"examples must have shape (K, M, N): archetypes, examples of each, neurons; got "
            f"{data.shape}."
        )
    return data


def scale(neurons: int) -> float:
    """The unit of h_i sigma_i in power sums: between those of signal, N, and of noise, sqrt(N).

    P-th powers of both then stay in the range of single precision.
    """
    return neurons**0.75


def falling(powers: list[Array]) -> Array:
    """k! e_k from the power sums p_1 ... p_k, by Newton's identities.

    k! rather than e_k itself: its terms have whole coefficients, and no factorial is divided out.
    """
    a = [jnp.ones_like(powers[0]) if powers else jnp.ones(())]
    for k in range(1, len(powers) + 1):
        terms, coefficient = 0.0, 1.0
        for i in range(1, k + 1):
            terms = terms + (-1) ** (i - 1) * coefficient * a[k - i] * powers[i - 1]
            coefficient *= k - i
        a.append(jnp.asarray(terms))
    return a[-1]


def sums(net: DenseHebbian, u: Float[Array, "... N"]) -> list[Array]:
    """The power sums that the network's energy needs, over the last axis."""
    last = net.order if net.distinct else 1
    return [jnp.sum(u**k, axis=-1) for k in range(1, last + 1)]


def energy_of_sums(net: DenseHebbian, powers: list[Array]) -> Array:
    """E from the power sums of every row."""
    P, N = net.order, net.neurons
    each = falling(powers) if net.distinct else powers[0] ** P
    # scale^P / N^(P-1), of which neither factor need be in range.
    return -0.5 * N ** (1 - 0.25 * P) * (net.weights @ each)


def slope(net: DenseHebbian, rest: list[Array], t: Array) -> Array:
    """The change of a row's term with u_i = t, over 2 t, from the power sums without neuron i."""
    P = net.order
    if net.distinct:
        return P * falling(rest[: P - 1])
    # ((A + t)^P - (A - t)^P) / 2 t, term by term: as a difference of powers it would cancel.
    A, y = rest[0] ** 2, t**2
    odd = range(1, P + 1, 2)
    value, factor = jnp.zeros_like(A), jnp.ones_like(A)
    for j in odd:
        value = value * A if j > 1 else value
        value = value + math.comb(P, j) * factor
        factor = factor * y
    return value if P % 2 else value * rest[0]


def prefactor(net: DenseHebbian) -> float:
    """What turns sums of weight * u * slope into a field times a spin."""
    return 0.5 * net.neurons ** (1 - 0.25 * net.order)


def fields(net: DenseHebbian, sigma: Array) -> Array:
    """The field on each neuron, given any numbers of [-1, 1] (spins alone for plain powers)."""
    h = net.rows / scale(net.neurons)
    powers = sums(net, h * sigma)

    def one(column, spin):
        t = column * spin
        rest = [p - t**k for k, p in enumerate(powers, start=1)]
        return jnp.sum(net.weights * column * slope(net, rest, t))

    if h.size <= _TOGETHER:
        found = jax.vmap(one)(h.T, sigma)
    else:
        found = jax.lax.map(lambda x: one(*x), (h.T, sigma))
    return prefactor(net) * found
