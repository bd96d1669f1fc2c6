"""The flat ends of a profile: their compositions, the scatter, and whether they are flat."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from ..errors import InputError
from .curves import Phases

if TYPE_CHECKING:
    from .profile import Profile

#: Of the points, how many an end may have at most.
_LARGEST_SHARE = 1 / 3
#: A trend of this many standard errors is no plateau.
_TREND = 2.0
#: What an end may change over a twentieth of the points, of the whole step.
_FLAT = 0.005


def noise_of(x: Float[np.ndarray, " n"], N: Float[np.ndarray, " n"], phases: Phases) -> float:
    """The standard deviation of the scatter, from each point's distance to its neighbours' line.

    A median, so that the curvature of the steep part does not count; after Gasser, Sroka and
    Jennen-Steinmetz (1986), Biometrika 73, 625.
    """
    distances = []
    for first, last in phases:
        a, b = x[first:last], N[first:last]
        if len(a) < 3:
            continue
        share = (a[1:-1] - a[:-2]) / (a[2:] - a[:-2])
        line = b[:-2] * (1 - share) + b[2:] * share
        distances.append((b[1:-1] - line) / np.sqrt(1 + share**2 + (1 - share) ** 2))
    if not distances:
        return 0.0
    return float(1.4826 * np.median(np.abs(np.concatenate(distances))))


def plateau(
    x: Float[np.ndarray, " n"], N: Float[np.ndarray, " n"], noise: Float[np.ndarray, " n"]
) -> float:
    """The composition of the end at which the arrays begin: the mean of the points without trend.

    Args:
        x: positions, from the end inwards.
        N: mole fractions.
        noise: their standard deviations.
    """
    if not np.all(noise > 0):
        return float(N[0])
    weights = 1 / noise**2
    best = float(N[0])
    for count in range(3, max(4, int(len(N) * _LARGEST_SHARE) + 1)):
        mean, slope, error = _line(x[:count], N[:count], weights[:count])
        if abs(slope) > _TREND * error:
            break
        best = mean
    return best


def _line(x: np.ndarray, N: np.ndarray, weights: np.ndarray) -> tuple[float, float, float]:
    """The weighted mean, the slope of the weighted line and its standard error."""
    total = weights.sum()
    mean, centre = (weights @ N) / total, (weights @ x) / total
    spread = weights @ (x - centre) ** 2
    if spread == 0:
        return float(mean), 0.0, np.inf
    return float(mean), float(weights @ ((x - centre) * (N - mean)) / spread), 1 / np.sqrt(spread)


class Flatness(NamedTuple):
    """How flat one end of a profile is.

    Attributes:
        change: what the composition changes over the end's points, of the whole step.
        error: its standard error, from the scatter.
        offset: from the given composition of the end, of the whole step; 0 where none was given.
    """

    change: float
    error: float
    offset: float

    @property
    def flat(self) -> bool:
        """Whether the couple may be taken as infinite on this side."""
        return (
            abs(self.change) <= max(_FLAT, 4 * self.error)
            and abs(self.offset) <= max(4 * _FLAT, 4 * self.error)
        )  # fmt: skip


def end_flatness(profile: "Profile") -> tuple[Flatness, Flatness]:
    """How flat the two ends are; where one is not, diffusion may have reached the end of the alloy.

    The end is a twentieth of the length or of the points, whichever are fewer, but at least five
    points, within its phase.
    """
    x, N, noise = np.asarray(profile.x), np.asarray(profile.N), profile.noise
    ends = np.asarray(profile.ends)
    step = abs(ends[1] - ends[0])
    found = []
    for side, (first, last) in enumerate((profile.phases[0], profile.phases[-1])):
        edge = x[0] if side == 0 else x[-1]
        near = int(np.sum(np.abs(x[first:last] - edge) <= (x[-1] - x[0]) / 20))
        count = min(last - first, max(5, min(near, len(x) // 20)))
        take = slice(first, first + count) if side == 0 else slice(last - count, last)
        weights = 1 / np.maximum(noise[take], 1e-12) ** 2
        mean, slope, error = _line(x[take], N[take], weights)
        width = x[take][-1] - x[take][0]
        offset = (mean - ends[side]) / step if profile.given_ends else 0.0
        found.append(Flatness(slope * width / step, error * width / step, offset))
    return found[0], found[1]


def not_flat(profile: "Profile") -> str:
    """What is wrong with the ends, or an empty text where both are flat."""
    for name, end in zip(("left", "right"), end_flatness(profile), strict=True):
        if not end.flat:
            amount = 100 * (end.change if abs(end.change) > _FLAT else end.offset)
            return (
                f"the {name} end of the profile is not flat: it is {abs(amount):.2g} % of the step "
                "away from a plateau"
            )
    return ""


def require_flat(profile: "Profile") -> None:
    """Refuses a couple that cannot be taken as infinite.

    Raises:
        InputError: an end that is not flat; the message says which, and by how much.
    """
    wrong = not_flat(profile)
    if wrong:
        raise InputError(
            f"{wrong}. These methods need alloys that diffusion has not crossed: measure further "
            "out (or fit the profile, fit_profile, if it is only cut off), or, if the alloy ends "
            "there, anneal for a shorter time. check_ends=False goes on all the same."
        )
