"""Random minibatches that are what the accountant takes them for."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ...errors import InputError
from . import checks
from .events import Event, Sampling, subsampled

#: The probability that a Poisson minibatch does not fit into its room; it is accounted for.
_CUT = 1e-30


class Drawn(NamedTuple):
    """Which records, and their weights: 1 / batch, or 0 for what fills the room."""

    records: Int[Array, " room"]
    weights: Float[Array, " room"]


class Sampler(eqx.Module):
    """Minibatches from the first `size` of `most` records.

    Attributes:
        batch: the size, or its mean where every record is drawn by itself. Sums are divided by it,
            whatever came out, so that the sensitivity is known.
        sampling: "poisson" or "fixed".
        room: the most records that a minibatch has.
        thresholds: for each client, the probability of a record times 2^32, rounded down.
    """

    batch: int = eqx.field(static=True)
    sampling: Sampling = eqx.field(static=True)
    most: int = eqx.field(static=True)
    room: int = eqx.field(static=True)
    thresholds: Array

    @classmethod
    def of(cls, batch: Any, sampling: Sampling, sizes: tuple[int, ...]) -> "Sampler":
        """For clients with these numbers of records.

        Raises:
            InputError: more than the records of a client, or less than one.
        """
        batch, least = checks.whole("batch", batch), min(sizes)
        if batch > least:
            raise InputError(
                f"batch={batch} is more than the {least} records there are (of the smallest "
                "client): take a smaller one."
            )
        room = batch
        if sampling == "poisson":
            room = max(_room(n, batch / n) for n in sizes)
        rates = np.array([min(batch / n, 1.0) for n in sizes])
        thresholds = np.minimum(np.floor(rates * 2.0**32), 2.0**32 - 1).astype(np.uint32)
        return cls(batch, sampling, max(sizes), room, jnp.asarray(thresholds))

    def __call__(self, key: PRNGKeyArray, client: Any, size: Any, dtype: Any) -> Drawn:
        """One minibatch of a client with `size` records."""
        if self.sampling == "fixed":
            order = jax.random.permutation(key, self.most)
            # The first of a random order that are the client's own.
            own = jnp.nonzero(order < size, size=self.batch)[0]
            return Drawn(order[own], jnp.full(self.batch, 1 / self.batch, dtype))
        words = jax.random.bits(key, (self.most,), jnp.uint32)
        mask = jnp.arange(self.most) < size
        if self.batch < self.most:
            mask &= (words < self.thresholds[client]) | (size <= self.batch)
        places = jnp.nonzero(mask, size=self.room, fill_value=0)[0]
        filled = jnp.arange(self.room) < jnp.sum(mask)
        return Drawn(places, filled.astype(dtype) / self.batch)

    def event(self, multiplier: float, size: int) -> Event:
        """What one release of a minibatch of a client spends."""
        failure = _CUT if self.sampling == "poisson" and self.room < size else 0.0
        rate = min(self.batch / size, 1.0)
        return subsampled(multiplier, rate, sampling=self.sampling, failure=failure)


def _room(n: int, rate: float) -> int:
    """The least room of which Chernoff's bound says that a minibatch exceeds it hardly ever."""
    target = -math.log(_CUT)
    low, high = math.floor(n * rate), n
    while low < high:
        middle = (low + high) // 2
        share = middle / n
        if share <= rate:
            low = middle + 1
            continue
        divergence = share * math.log(share / rate)
        divergence += (1 - share) * math.log((1 - share) / (1 - rate)) if share < 1 else 0.0
        low, high = (low, middle) if n * divergence >= target else (middle + 1, high)
    return high
