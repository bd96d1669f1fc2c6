"""What a run states about its privacy, and the noise with which it keeps a budget."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...errors import InputError
from . import accountant
from .accountant import Budget
from .events import Event, compose, gaussian


class Release(NamedTuple):
    """One kind of release of a run.

    Attributes:
        name: for people.
        count: how many of them there are.
        sensitivity: the most that the message moves between neighbours; for changes of the
            gradient, over the distance moved.
        share: of the budget, mu squared.
        events: what all of them spend, for a noise multiplier. Several where it differs from client
            to client: each record is in one of them, so the worst counts.
    """

    name: str
    count: int
    sensitivity: float
    share: float
    events: Callable[[float], tuple[Event, ...]]


def with_count(multiplier: float, count_noise: float | None) -> float:
    """The multiplier of two releases of the same data at once; the second one may be absent."""
    if count_noise is None or multiplier == 0:
        return multiplier
    return (multiplier**-2 + count_noise**-2) ** -0.5


def full_batch(
    name: str, count: int, sensitivity: float, share: float, count_noise: float | None = None
) -> Release:
    """Releases that see all of the data, each perhaps with the number of clipped records."""
    events = lambda z: (gaussian(with_count(z, count_noise)) * count,)
    return Release(name, count, sensitivity, share, events)


@dataclasses.dataclass(frozen=True)
class Account:
    """What a run spends, by the releases that it makes.

    Attributes:
        epsilon: at `delta`; infinite without noise.
        delta: of the budget, or as asked for.
        adjacency: "replace" or "add-remove": which data sets are neighbours.
        kinds: the names of the kinds of releases.
        releases: how many there are of each kind.
        noise: the standard deviation of each kind; for changes of the gradient, over the distance
            moved.
        sensitivity: in the same units.
        multipliers: noise over sensitivity, with what a grid adds to the sensitivity.
        records: N, by which one record counts at most 1 / N.
        events: the composition; several where clients differ, each holding for its own records.
    """

    epsilon: float
    delta: float
    adjacency: str
    kinds: tuple[str, ...]
    releases: tuple[int, ...]
    noise: tuple[float, ...]
    sensitivity: tuple[float, ...]
    multipliers: tuple[float, ...]
    records: int
    events: tuple[Event, ...]

    def epsilon_at(self, delta: float) -> float:
        """The epsilon at another delta."""
        return max(accountant.epsilon(event, delta=delta) for event in self.events)

    def delta_at(self, epsilon: float) -> float:
        """The delta at another epsilon."""
        return max(accountant.delta(event, epsilon=epsilon) for event in self.events)

    def __str__(self) -> str:
        neighbours = {
            "replace": "that differ in one record, which is replaced",
            "add-remove": "of which one has a record more",
        }[self.adjacency]
        lines = [
            f"({self.epsilon:.6g}, {self.delta:g})-differential privacy between data {neighbours}"
        ]
        rows = zip(self.kinds, self.releases, self.noise, self.multipliers)
        lines += [
            f"  {count} x {kind}: noise {sigma:.4g}, multiplier {z:.4g}"
            for kind, count, sigma, z in rows
            if count
        ]
        return "\n".join(lines)


def account(
    kinds: Sequence[Release],
    noise: Sequence[float],
    inflations: Sequence[float],
    *,
    delta: float,
    adjacency: str,
    records: int,
    count: tuple[int, float, float] | None = None,
) -> Account:
    """The account of releases with this noise.

    `count` has the number, the noise multiplier and the sensitivity of the releases of the share of
    clipped records; what they spend is in the events of the kinds already.
    """
    multipliers = tuple(
        _multiplier(sigma, kind.sensitivity, extra)
        for sigma, kind, extra in zip(noise, kinds, inflations)
    )
    events = combined(kinds, multipliers)
    rows = [
        (kind.name, kind.count, sigma, kind.sensitivity, z)
        for kind, sigma, z in zip(kinds, noise, multipliers)
    ]
    if count is not None:
        number, z, unit = count
        rows.append(("share of clipped records", number, z * unit, unit, z))
    names, counts, sigmas, sensitivities, multipliers = zip(*rows)
    return Account(
        epsilon=max(accountant.epsilon(event, delta=delta) for event in events),
        delta=delta,
        adjacency=adjacency,
        kinds=names,
        releases=counts,
        noise=sigmas,
        sensitivity=sensitivities,
        multipliers=multipliers,
        records=records,
        events=events,
    )


def calibrated(
    kinds: Sequence[Release], budget: Budget, *, exact_shares: bool = True
) -> list[float]:
    """The noise multipliers with which the releases spend a budget.

    Each kind alone would spend its share of mu squared. Shares add up for Gaussian releases only:
    where some are subsampled, or more is released (`exact_shares=False`), all multipliers are then
    scaled alike.
    """
    mu = budget.mu
    total = math.fsum(kind.share for kind in kinds if kind.count)
    multipliers = []
    for kind in kinds:
        if kind.count == 0:
            multipliers.append(math.inf)
            continue
        own = mu * math.sqrt(kind.share / total)
        multipliers.append(_alone(kind, own))
    if exact_shares and all(not event.sampled for event in combined(kinds, multipliers)):
        return multipliers

    def spends(scale: float, which: int) -> Event:
        return combined(kinds, [z * scale for z in multipliers])[which]

    several = len(combined(kinds, multipliers))
    scale = max(accountant.solve(lambda s, i=i: spends(s, i), budget, 1.0) for i in range(several))
    return [z * scale for z in multipliers]


def combined(kinds: Sequence[Release], multipliers: Sequence[float]) -> tuple[Event, ...]:
    """All the releases together, once for each client that may be the worst."""
    parts = [kind.events(z) for kind, z in zip(kinds, multipliers) if kind.count]
    several = max((len(part) for part in parts), default=1)
    return tuple(compose(part[i if len(part) > 1 else 0] for part in parts) for i in range(several))


def _alone(kind: Release, mu: float) -> float:
    """The multiplier with which a kind spends about `mu` by itself."""
    plain = all(not event.sampled for event in kind.events(1.0))
    if plain:
        return math.sqrt(kind.count) / mu
    # Many subsampled releases are about sqrt(count) rate sqrt(e^(1/z^2) - 1)-Gaussian (Bu, Dong,
    # Long and Su, 2020).
    worst = max(sum(s.count * s.rate**2 for s in event.sampled) for event in kind.events(1.0))
    return 1 / math.sqrt(math.log1p(mu**2 / worst))


def _multiplier(sigma: float, sensitivity: float, extra: float) -> float:
    if sigma == 0 or math.isinf(sensitivity):
        return 0.0
    return 1 / (sensitivity / sigma + extra)


def noise_for(kind: Release, multiplier: float, extra: float) -> float:
    """The standard deviation with which a release has this multiplier, on a grid.

    Raises:
        InputError: the grid is too coarse for so many parameters.
    """
    if kind.count == 0:
        return 0.0
    left = 1 / multiplier - extra
    if left <= 0:
        raise InputError(
            f"rounding to the grid would move the {kind.name} by more than the noise covers "
            f"(multiplier {multiplier:.3g}): pass grid=False."
        )
    return kind.sensitivity / left
