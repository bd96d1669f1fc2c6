"""What a run releases: Gaussian releases, subsampled ones, and any composition of them."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Literal, NamedTuple

from ...errors import InputError
from . import checks

Sampling = Literal["poisson", "fixed"]


class Sampled(NamedTuple):
    """Gaussian releases of random minibatches, all alike.

    Attributes:
        multiplier: the standard deviation of the noise over the sensitivity of one minibatch.
        rate: the probability that a given record is in it.
        sampling: "poisson", each record by itself, with neighbours by adding or removing a record;
            "fixed", that many without replacement, with neighbours by replacing one.
        count: how many of them.
    """

    multiplier: float
    rate: float
    sampling: str
    count: int


@dataclasses.dataclass(frozen=True)
class Event:
    """A composition of releases; later ones may depend on what came out of earlier ones.

    Add events or multiply one by a whole number to compose.

    Attributes:
        mu_squared: the sum of 1/z^2 over the plain Gaussian releases.
        sampled: the subsampled releases.
        failure: the probability of an outcome for which nothing is promised.
    """

    mu_squared: float = 0.0
    sampled: tuple[Sampled, ...] = ()
    failure: float = 0.0

    def __add__(self, other: "Event") -> "Event":
        return compose([self, other])

    def __mul__(self, times: int) -> "Event":
        times = checks.whole("the number of repetitions", times, 0)
        if times == 0:
            return Event()
        sampled = tuple(s._replace(count=s.count * times) for s in self.sampled)
        return Event(self.mu_squared * times, sampled, self.failure * times)

    __rmul__ = __mul__

    @property
    def mu(self) -> float:
        """The parameter of Gaussian differential privacy of the plain releases."""
        return math.sqrt(self.mu_squared)

    @property
    def private(self) -> bool:
        """Whether every release has noise."""
        return math.isfinite(self.mu_squared) and all(s.multiplier > 0 for s in self.sampled)


def gaussian(noise_multiplier: float) -> Event:
    """One release of a quantity with Gaussian noise.

    Args:
        noise_multiplier: the standard deviation of the noise over the sensitivity, the most that
            the quantity moves (in the Euclidean norm) between neighbours. 0 for no noise.

    Raises:
        InputError: a multiplier that is negative or not finite.
    """
    z = checks.number("noise_multiplier", noise_multiplier, zero=True)
    return Event(mu_squared=math.inf if z == 0 else z**-2)


def subsampled(
    noise_multiplier: float, rate: float, *, sampling: Sampling = "poisson", failure: float = 0.0
) -> Event:
    """One Gaussian release of a random minibatch, which stays secret.

    Args:
        noise_multiplier: the standard deviation of the noise over the sensitivity of a minibatch.
        rate: the probability that a given record is in the minibatch; 1 for all of the data.
        sampling: "poisson" (each record by itself; neighbours differ by a record added or removed)
            or "fixed" (a fixed number without replacement; a record is replaced). The accountant
            must be told what the sampler does: the two differ.
        failure: the probability that the minibatch drawn is not of that law, for instance because
            it was cut to a capacity.

    Raises:
        InputError: numbers outside their ranges.
    """
    z = checks.number("noise_multiplier", noise_multiplier, zero=True)
    q = checks.fraction("rate", rate, one=True)
    checks.one_of("sampling", sampling, ("poisson", "fixed"))
    if not 0 <= failure < 1:
        raise InputError(f"failure must be at least 0 and below 1; got {failure!r}.")
    if q == 1:
        return dataclasses.replace(gaussian(z), failure=failure)
    return Event(sampled=(Sampled(z, q, sampling, 1),), failure=failure)


def compose(events: Iterable[Event]) -> Event:
    """All of the events, each of which may depend on the outcomes of those before it."""
    events = list(events)
    for event in events:
        if not isinstance(event, Event):
            raise InputError(
                f"compose takes events (from gaussian and subsampled); got {event!r:.60}."
            )
    counts: dict[Sampled, int] = {}
    for one in (s for event in events for s in event.sampled):
        alike = one._replace(count=1)
        counts[alike] = counts.get(alike, 0) + one.count
    sampled = tuple(s._replace(count=n) for s, n in counts.items())
    kinds = {s.sampling for s in sampled}
    if len(kinds) > 1:
        raise InputError(
            "Poisson and fixed-size minibatches are accounted for different neighbours (a record "
            "added or removed; one replaced) and cannot be composed: use one kind."
        )
    total = math.fsum(event.mu_squared for event in events)
    return Event(total, sampled, math.fsum(event.failure for event in events))
