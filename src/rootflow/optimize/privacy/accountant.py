"""From what was released to (epsilon, delta), and back."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from scipy.optimize import minimize_scalar

from ...errors import InputError
from . import checks, gaussian_dp, loss_distribution
from .events import Event, compose, gaussian, subsampled
from .loss_distribution import FINE, ROUGH

Method = Literal["exact", "rdp", "classic"]


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much a run may reveal: (epsilon, delta) differential privacy.

    Args:
        epsilon: positive and finite.
        delta: above 0 and below 1; well below one over the number of records.

    Raises:
        InputError: numbers outside their ranges.
    """

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "epsilon", checks.number("epsilon", self.epsilon))
        object.__setattr__(self, "delta", checks.fraction("delta", self.delta))

    @property
    def mu(self) -> float:
        """The parameter of the Gaussian releases that spend exactly this."""
        return gaussian_dp.mu_of(self.epsilon, self.delta)


def gdp_parameter(*, epsilon: float, delta: float) -> float:
    """The mu for which mu-Gaussian differential privacy is (epsilon, delta), exactly.

    A single Gaussian release with noise multiplier 1 / mu spends exactly that (Dong, Roth and Su,
    2022, corollary 2.13).

    Raises:
        InputError: epsilon or delta outside their ranges.
    """
    return Budget(epsilon, delta).mu


def epsilon(event: Event, *, delta: float, method: Method = "exact") -> float:
    """The epsilon that an event spends at delta.

    Args:
        event: from `gaussian`, `subsampled` and `compose`.
        delta: above 0 and below 1.
        method: "exact": a closed form for Gaussian releases, and for subsampled ones the
            distribution of the privacy loss (an upper bound, but for 1e-6 of it; about 1e-3 too
            large at rates below 1e-4). "rdp": Rényi's divergences and their conversion by Canonne,
            Kamath and Steinke (2020), looser.
            "classic": mu^2 / 2 + mu sqrt(2 ln(1 / delta)), for Gaussian releases only, looser
            still; for comparison with what others print.

    Returns:
        Infinity where something is released without noise.

    Raises:
        InputError: `delta` outside its range, or "classic" for subsampled releases.
    """
    delta = checks.fraction("delta", delta)
    checks.one_of("method", method, ("exact", "rdp", "classic"))
    _event(event)
    return _spent(event, delta, method, FINE)


def _spent(event: Event, delta: float, method: str, fineness: loss_distribution.Fineness) -> float:
    if not event.private:
        return math.inf
    if method == "rdp":
        return _by_renyi(event, delta)
    if method == "classic":
        if event.sampled:
            raise InputError('method="classic" knows no subsampling: use "exact" or "rdp".')
        return event.mu_squared / 2 + event.mu * math.sqrt(2 * math.log(1 / delta))
    if event.sampled or event.failure:
        return loss_distribution.epsilon_of(event, delta, fineness)
    return gaussian_dp.epsilon_of(event.mu, delta)


def delta(event: Event, *, epsilon: float) -> float:
    """The delta of an event at epsilon; exact as for `epsilon`.

    Raises:
        InputError: an epsilon that is negative or not finite.
    """
    at = checks.number("epsilon", epsilon, zero=True)
    _event(event)
    if not event.private:
        return 1.0
    if event.sampled or event.failure:
        return loss_distribution.delta_of(event, at)
    return gaussian_dp.delta_of(event.mu, at)


def rdp(event: Event, order: float) -> float:
    """Rényi's divergence of an event, the larger of the two orders of neighbours.

    For Gaussian releases order * mu^2 / 2.

    Args:
        event: as for `epsilon`.
        order: above 1.

    Raises:
        InputError: an order of at most 1.
    """
    order = checks.number("order", order)
    if order <= 1:
        raise InputError(f"order must be above 1; got {order!r}.")
    _event(event)
    if not event.private:
        return math.inf
    if not event.sampled:
        return order * event.mu_squared / 2
    ways = (loss_distribution.releases(event, d) for d in loss_distribution.directions(event))
    return max(loss_distribution.log_mgf(found, order - 1) for found in ways) / (order - 1)


def noise_multiplier(
    budget: Budget,
    *,
    releases: int = 1,
    rate: float = 1.0,
    sampling: Literal["poisson", "fixed"] = "poisson",
    method: Method = "exact",
) -> float:
    """The noise multiplier with which so many releases spend a budget.

    Args:
        budget: to be spent.
        releases: how many, all alike.
        rate: the probability that a record is in the minibatch of a release; 1 for all data.
        sampling: as in `subsampled`.
        method: as in `epsilon`.

    Raises:
        InputError: numbers outside their ranges.
    """
    releases = checks.whole("releases", releases)
    rate = checks.fraction("rate", rate, one=True)
    if rate == 1 and method == "exact":
        return math.sqrt(releases) / budget.mu

    def spends(z: float) -> Event:
        return subsampled(z, rate, sampling=sampling) * releases

    return solve(spends, budget, 1 / budget.mu, method=method)


def solve(
    event_of: Callable[[float], Event], budget: Budget, guess: float, *, method: Method = "exact"
) -> float:
    """The scale of the noise at which `event_of(scale)` spends a budget, from below."""

    def excess(log_scale: float, fineness: loss_distribution.Fineness = ROUGH) -> float:
        event = event_of(math.exp(log_scale))
        spent = _spent(event, budget.delta, method, fineness)
        return math.log(max(spent, 1e-300) / budget.epsilon)

    low = high = math.log(guess)
    while excess(high) > 0:
        high += 0.7
        if high > math.log(guess) + 60:
            raise InputError(
                f"no amount of noise keeps epsilon = {budget.epsilon:g} at delta = "
                f"{budget.delta:g}: allow a larger delta, or release less besides."
            )
    while excess(low) < 0:
        low -= 0.7
        if low < math.log(guess) - 60:
            return math.exp(low)
    found = gaussian_dp.find_root(excess, low, high, rtol=1e-7)
    while excess(found, FINE) > 0:  # a root is found to a tolerance, a budget is kept
        found += 1e-6
    return math.exp(found)


def _by_renyi(event: Event, delta: float) -> float:
    """Canonne, Kamath and Steinke (2020), proposition 12, at the best order."""
    if event.failure:
        raise InputError('method="rdp" has no place for outcomes that may fail: use "exact".')

    def at(log_excess: float) -> float:
        order = 1 + math.exp(log_excess)
        conversion = math.log1p(-1 / order) - math.log(delta * order) / (order - 1)
        return rdp(event, order) + conversion

    # A convex valley in practice; a coarse look keeps the search in the right one.
    points = np.linspace(math.log(1e-2), math.log(1e6), 40)
    values = [at(x) for x in points]
    i = int(np.argmin(values))
    ends = points[max(i - 1, 0)], points[min(i + 1, len(points) - 1)]
    best: Any = minimize_scalar(at, bounds=ends, method="bounded", options={"xatol": 1e-7})
    return max(0.0, min(float(best.fun), values[i]))


def _event(event: Event) -> None:
    if not isinstance(event, Event):
        raise InputError(
            f"an event is asked for (rootflow.optimize.privacy.gaussian, subsampled, compose); got "
            f"{event!r:.60}."
        )


__all__ = [
    "Budget",
    "Event",
    "compose",
    "delta",
    "epsilon",
    "gaussian",
    "gdp_parameter",
    "noise_multiplier",
    "rdp",
    "solve",
    "subsampled",
]
