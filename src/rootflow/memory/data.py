"""Noisy examples of archetypes: made, measured, and averaged as they come in."""

import math
import warnings
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray

from ..errors import InputError
from ..ground.tracing import is_traced
from . import checks
from .law import entropy
from .law import load as gardner_load
from .theory import replica_symmetric


class DataWarning(UserWarning):
    """Examples from which a memory will not learn its archetypes."""


class Examples(NamedTuple):
    """Archetypes, shape (K, N), and examples of them, shape (K, M, N); all +1 and -1."""

    archetypes: Float[Array, "K N"]
    examples: Float[Array, "K M N"]


def examples(
    key: PRNGKeyArray,
    *,
    neurons: int,
    archetypes: int,
    quality: float,
    quantity: int,
    dtype: Any = None,
) -> Examples:
    """Random archetypes, and examples in which each neuron is right with probability (1 + r) / 2.

    Args:
        key: for archetypes and errors.
        neurons: N.
        archetypes: K.
        quality: r in (0, 1].
        quantity: M.
        dtype: of the numbers; by default JAX's float.

    Raises:
        InputError: a quality outside (0, 1], or sizes that are not positive whole numbers.
    """
    N, K = checks.count("neurons", neurons), checks.count("archetypes", archetypes)
    M, r = checks.count("quantity", quantity), checks.quality(quality)
    key_xi, key_chi = jax.random.split(key)
    dtype = jnp.result_type(float) if dtype is None else dtype
    xi = jax.random.rademacher(key_xi, (K, N), dtype)
    right = jax.random.bernoulli(key_chi, (1 + r) / 2, (K, M, N))
    return Examples(xi, jnp.where(right, xi[:, None], -xi[:, None]))


def mean_examples(
    key: PRNGKeyArray, archetypes: Float[Array, "K N"], *, quality: float, quantity: int
) -> Float[Array, "K N"]:
    """Means of `quantity` examples, drawn from their binomial law without making the examples.

    Raises:
        InputError: as in `examples`.
    """
    from scipy.stats import binom

    M = checks.count("quantity", quantity)
    checks.quality(quality)
    r = checks.constant("quality", quality)
    steps = jnp.asarray(binom.cdf(np.arange(M), M, (1 + r) / 2), archetypes.dtype)
    uniform = jax.random.uniform(key, archetypes.shape, archetypes.dtype)
    right = jnp.searchsorted(
        steps, uniform, side="right", method="compare_all" if M < 65 else "scan"
    )
    return archetypes * ((2 * right - M) / M).astype(archetypes.dtype)


def estimate_quality(examples: ArrayLike) -> Float[Array, ""]:
    """r from examples alone: two examples of one archetype overlap by r^2.

    Args:
        examples: shape (K, M, N), at least two examples of each archetype; +1 and -1, or numbers
            of any size (r is then relative to their root mean square).

    Returns:
        r; 0 where examples overlap by less than nothing.

    Raises:
        InputError: another shape, or one example of each.
    """
    data = checks.number("examples", examples)
    if data.ndim != 3 or data.shape[1] < 2:
        raise InputError(
            "examples must have shape (K, M, N) with at least two examples (M) of each archetype, "
            f"for r shows in the overlaps of pairs; got {data.shape}."
        )
    M = data.shape[1]
    own = jnp.sum(data**2)
    pairs = jnp.sum(jnp.sum(data, axis=1) ** 2) - own
    square = pairs / ((M - 1) * own)
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)


class Assessment(NamedTuple):
    """What a data set promises before a memory is built from it.

    Attributes:
        quality, entropy, load: r and rho, estimated, and Gardner's load.
        overlap: m of the replica symmetric theory; NaN where that has no solution.
    """

    quality: Float[Array, ""]
    entropy: Float[Array, ""]
    load: Float[Array, ""]
    overlap: Float[Array, ""]


def assess(
    examples: ArrayLike,
    *,
    order: int,
    temperature: float = 0.0,
    supervised: bool = True,
    wanted: float = 0.9,
) -> Assessment:
    """Estimates r and rho of examples, and warns where theory retrieves less than is wanted.

    Theory is for archetypes that are independent of one another; those of real data are not, and
    do worse.

    Args:
        examples: shape (K, M, N), +1 and -1.
        order: P of the memory to be built.
        temperature: T at which it will run.
        supervised: whether it will average examples by their label.
        wanted: the overlap below which a `DataWarning` is given.

    Raises:
        InputError: as in `estimate_quality` and `replica_symmetric`.
    """
    r = estimate_quality(examples)
    K, M, N = np.shape(examples)
    gamma = gardner_load(archetypes=K, neurons=N, order=order)
    if not r > 0:
        warnings.warn(
            "examples of one archetype do not resemble one another (estimated quality 0): no "
            "memory can learn from them; check how they were grouped.",
            DataWarning,
            stacklevel=2,
        )
        return Assessment(r, jnp.asarray(jnp.inf), gamma, jnp.zeros(()))
    r = jnp.minimum(r, 1.0)
    state = replica_symmetric(
        order=order, load=gamma, temperature=temperature, quality=r, quantity=M,
        supervised=supervised, throw=False,
    )  # fmt: skip
    rho = entropy(quality=r, quantity=M)
    if not state.m >= wanted:
        warnings.warn(
            f"with an estimated quality of {float(r):.3g} and {M} examples (entropy "
            f"{float(rho):.3g}) at load {float(gamma):.3g} the expected overlap is "
            f"{float(state.m):.3g}, less than {wanted:g}: rootflow.memory.plan says how many "
            "examples and which order would do.",
            DataWarning,
            stacklevel=2,
        )
    return Assessment(r, rho, gamma, state.m)


class RunningMean(eqx.Module):
    """Means of examples that arrive in batches, with exact counts.

    Sums of +1 and -1 are whole numbers, so that the order of arrival has no influence.

    Attributes:
        total: sum of the examples of each archetype, shape (K, N).
        squares: sum of their squared lengths, shape (K,).
        quantity: examples seen of each, shape (K,).
    """

    total: Float[Array, "K N"]
    squares: Float[Array, " K"]
    quantity: Int[Array, " K"]

    @classmethod
    def start(cls, archetypes: int, neurons: int) -> "RunningMean":
        """Nothing seen yet.

        Raises:
            InputError: sizes that are not positive whole numbers.
        """
        K, N = checks.count("archetypes", archetypes), checks.count("neurons", neurons)
        return cls(jnp.zeros((K, N)), jnp.zeros(K), jnp.zeros(K, int))

    def add(self, labels: Int[ArrayLike, " B"], examples: Float[ArrayLike, "B N"]) -> "RunningMean":
        """With a batch added; `labels` say which archetype each example belongs to.

        Raises:
            InputError: shapes that do not go together, or a label out of range.
        """
        data, kinds = checks.number("examples", examples), jnp.asarray(labels)
        K, N = self.total.shape
        if data.ndim != 2 or data.shape[1] != N or kinds.shape != data.shape[:1]:
            raise InputError(
                f"a batch is labels of shape (B,) and examples of shape (B, {N}); got "
                f"{kinds.shape} and {data.shape}."
            )
        if not jnp.issubdtype(kinds.dtype, jnp.integer):
            raise InputError(f"labels must be whole numbers; got {kinds.dtype}.")
        if not is_traced(kinds) and np.any((np.asarray(kinds) < 0) | (np.asarray(kinds) >= K)):
            raise InputError(f"labels must lie between 0 and {K - 1}; got {np.asarray(kinds)}.")
        data = data.astype(self.total.dtype)
        return RunningMean(
            self.total.at[kinds].add(data),
            self.squares.at[kinds].add(jnp.sum(data**2, axis=1)),
            self.quantity.at[kinds].add(1),
        )

    @property
    def mean(self) -> Float[Array, "K N"]:
        """The mean examples; zero for an archetype of which none was seen."""
        return self.total / jnp.maximum(self.quantity, 1)[:, None]

    @property
    def quality(self) -> Float[Array, " K"]:
        """r of each archetype from the overlaps of its examples; NaN with fewer than two."""
        pairs = jnp.sum(self.total**2, axis=1) - self.squares
        square = pairs / ((self.quantity - 1) * self.squares)
        return jnp.where(self.quantity > 1, jnp.sqrt(jnp.maximum(square, 0.0)), math.nan)

    @property
    def entropy(self) -> Float[Array, " K"]:
        """rho of each archetype; NaN with fewer than two examples, infinite where r is 0."""
        r = self.quality
        return (1 - r**2) / (self.quantity * r**2)
