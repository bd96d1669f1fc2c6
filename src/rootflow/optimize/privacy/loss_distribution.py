"""Composition of subsampled Gaussian releases, by the distribution of their privacy loss.

The loss log(P/Q) of each release is put on a grid so that both P and Q keep their masses (the
"connecting of dots" of Doroshenko, Ghazi, Kamath, Kumar and Manurangsi, 2022), which can only
overstate what is lost, and the distributions are convolved by Fourier transforms. They are tilted
by e^(theta loss) before, so that round-off is relative to what matters at the delta in question,
however small that is.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, ndtr, softmax

from .events import Event, Sampled
from .gaussian_dp import find_root

_FEW = 1 << 12  # nodes that are enough for bounds, where the integrands are smooth
_REACH = 37.0  # standard deviations: nothing that double precision could show lies beyond
_DROP = 50.0  # of the logarithm of a density: what is smaller drowns in round-off
_GAUSS = np.polynomial.legendre.leggauss(8)
_LEFT_OUT = math.log(1e-15)
_TILTS = (1.0, 0.25, 0.03)  # of Chernoff's


class Fineness(NamedTuple):
    """Nodes of the loss of one release, and cells of the grid of the composed one."""

    nodes: int
    cells: int


FINE = Fineness(1 << 16, 1 << 18)
ROUGH = Fineness(1 << 14, 1 << 16)  # overstates a little more


class Loss(NamedTuple):
    """The privacy loss of one release, as masses at nodes."""

    log_mass: np.ndarray
    loss: np.ndarray


class Release(NamedTuple):
    """Releases that are all alike, between neighbours in one direction.

    Attributes:
        of: the subsampled release, or the mu of a plain one.
        direction: "remove", "add" or "replace".
        count: how often it is composed.
    """

    of: Sampled | float
    direction: str
    count: int

    def at(self, theta: float, nodes: int = _FEW) -> Loss:
        """The loss of one of them, with nodes wherever its mass times e^(theta loss) counts."""
        if isinstance(self.of, Sampled):
            return _sampled(self.of, self.direction, theta, nodes)
        return _plain(self.of, theta, nodes)

    def log_mgf(self, theta: float) -> float:
        """The logarithm of the mean of e^(theta loss) over all of them."""
        if not isinstance(self.of, Sampled):
            return self.count * theta * (theta + 1) * self.of**2 / 2
        one = self.at(theta)
        total: Any = logsumexp(one.log_mass + theta * one.loss)
        return self.count * float(total)

    def moments(self, theta: float) -> tuple[float, float]:
        """Mean and variance of the loss of all of them under the mass times e^(theta loss)."""
        one = self.at(theta)
        mass = softmax(one.log_mass + theta * one.loss)
        mean = float(mass @ one.loss)
        return self.count * mean, self.count * float(mass @ (one.loss - mean) ** 2)


def directions(event: Event) -> tuple[str, ...]:
    """The orders in which a pair of neighbours has to be looked at."""
    poisson = any(s.sampling == "poisson" for s in event.sampled)
    return ("remove", "add") if poisson else ("replace",)


def releases(event: Event, direction: str) -> list[Release]:
    """The releases of an event between neighbours in one direction."""
    found = [Release(s, direction, s.count) for s in event.sampled]
    if event.mu_squared > 0:
        found.append(Release(event.mu, direction, 1))
    return found


def _plain(mu: float, theta: float, nodes: int) -> Loss:
    centre = theta * mu  # of the normal density times e^(theta loss)
    u, weight = _quadrature([(centre - _REACH, centre + _REACH)], nodes)
    return Loss(_log_normal(u) + np.log(weight), mu * u + mu**2 / 2)


def _sampled(s: Sampled, direction: str, theta: float, nodes: int) -> Loss:
    """Where P or Q is the mixture of N(0, z^2) and N(1, z^2) with weight `rate` on the second.

    Zhu, Dong and Wang (2022), theorem 11 for Poisson minibatches and proposition 30 for those of
    fixed size, where positive losses come from one order of the mixture, negative ones from the
    other, and the rest of the mass has none.
    """
    z, q = s.multiplier, s.rate
    if direction == "remove":
        zero, ratio = _nodes(z, q, theta + 1, nodes)
        return Loss(zero + ratio, ratio)
    if direction == "add":
        zero, ratio = _nodes(z, q, -theta, nodes)
        return Loss(zero, -ratio)
    # A ratio above 1 is least at the border, so that a negative power of it needs no nodes of its
    # own.
    zero, ratio = _nodes(z, q, max(theta + 1, 0.0), nodes, 0.5)
    other, inverse = _nodes(z, q, max(-theta, 0.0), nodes, 0.5)
    none = math.log1p(-q) + math.log(ndtr(0.5 / z) - ndtr(-0.5 / z))
    masses = np.concatenate([zero + ratio, other, [none]])
    return Loss(masses, np.concatenate([ratio, -inverse, [0.0]]))


def _nodes(
    z: float, q: float, power: float, nodes: int, first: float = -math.inf
) -> tuple[np.ndarray, np.ndarray]:
    """Nodes beyond `first` where N(0, z^2) times a power of the ratio mixture / N(0, z^2) counts.

    Returns the logarithms of the masses of N(0, z^2) and of the ratios.
    """

    def log_product(x):
        return _log_normal(x / z) + power * _log_ratio(x, z, q)

    # Its derivative is (power s(x) - x) / z^2 with a logistic function s between 0 and 1.
    low, high = min(0.0, power) - _REACH * z, max(0.0, power) + _REACH * z
    sharpest = 1 / z**2 + max(-power, 0.0) / (4 * z**4)
    pieces = [(max(a, first), b) for a, b in _support(log_product, low, high, sharpest)]
    x, weight = _quadrature([(a, b) for a, b in pieces if a < b] or [(first, first + z)], nodes)
    return _log_normal(x / z) + np.log(weight / z), _log_ratio(x, z, q)


def _support(
    log_density: Callable[[np.ndarray], np.ndarray], low: float, high: float, sharpest: float
) -> list[tuple[float, float]]:
    """Intervals outside of which a density is below e^-_DROP of its maximum.

    They come from ever finer looks. Where the second derivative of the logarithm is at least
    -sharpest, a point that is d below the maximum has a slope of at most sqrt(2 d sharpest), which
    limits what a cell may hide from its midpoint.
    """
    pieces, before = [(low, high)], math.inf
    while (total := sum(b - a for a, b in pieces)) < 0.7 * before:
        before = total
        x, width = _midpoints(pieces, 1 << 10)
        values = log_density(x)
        hidden = (math.sqrt(_DROP) + width * math.sqrt(sharpest / 8)) ** 2
        kept = values >= values.max() - hidden
        left, right = (x - width / 2)[kept], (x + width / 2)[kept]
        gaps = left[1:] - right[:-1] > width[kept][1:] / 2
        starts, ends = np.append(True, gaps), np.append(gaps, True)
        pieces = list(zip(left[starts].tolist(), right[ends].tolist(), strict=True))
    return pieces


def _quadrature(pieces: list[tuple[float, float]], nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Gauss and Legendre, panel by panel."""
    x, width = _midpoints(pieces, nodes // len(_GAUSS[0]))
    places, weights = (np.multiply.outer(width / 2, values) for values in _GAUSS)
    return (x[:, None] + places).ravel(), weights.ravel()


def _midpoints(pieces: list[tuple[float, float]], nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Midpoints of about so many cells that share out the intervals, and their widths."""
    total = sum(high - low for low, high in pieces)
    x, widths = [], []
    for low, high in pieces:
        count = math.ceil(nodes * (high - low) / total)
        width = (high - low) / count
        x.append(low + width * (np.arange(count) + 0.5))
        widths.append(np.full(count, width))
    return np.concatenate(x), np.concatenate(widths)


def _log_ratio(x: np.ndarray, z: float, q: float) -> np.ndarray:
    u = (2 * x - 1) / (2 * z**2)
    near = np.log1p(q * np.expm1(np.minimum(u, 1.0)))
    return np.where(u < 1.0, near, np.logaddexp(math.log1p(-q), math.log(q) + u))


def _log_normal(u: np.ndarray) -> np.ndarray:
    return -(u**2) / 2 - math.log(2 * math.pi) / 2


def log_mgf(found: Iterable[Release], theta: float) -> float:
    """Of the composed loss."""
    return sum(one.log_mgf(theta) for one in found)


class Composed(NamedTuple):
    """The composed loss on a grid, tilted.

    Attributes:
        loss: the grid.
        tilted: e^(theta loss - log_total) times the mass there.
        theta: the tilt.
        log_total: the logarithm of the mean of e^(theta loss).
        lost: the tilted mass that is out of place, beyond the grid or by round-off.
    """

    loss: np.ndarray
    tilted: np.ndarray
    theta: float
    log_total: float
    lost: float

    def log_delta(self, epsilon: float) -> float:
        """The logarithm of an upper bound of the delta at epsilon."""
        beyond = slice(int(np.searchsorted(self.loss, epsilon, side="right")), None)
        above = self.loss[beyond] - epsilon
        terms = self.tilted[beyond] * np.exp(-self.theta * above) * -np.expm1(-above)
        # In units of Chernoff's bound.
        share = max(float(terms.sum()), 0.0) + self.lost
        return math.log(share) + self.log_total - self.theta * epsilon


def delta_of(event: Event, epsilon: float, fineness: Fineness = FINE) -> float:
    """The delta of an event at epsilon: the larger of the two orders of neighbours."""
    worst = -math.inf
    for direction in directions(event):
        found = releases(event, direction)
        theta = _least(lambda t, found=found: log_mgf(found, t) - t * epsilon)
        bounds = (c.log_delta(epsilon) for c in _compositions(found, theta, fineness))
        worst = max(worst, min(bounds))
    return min(1.0, math.exp(worst) + event.failure * (1 + math.exp(min(epsilon, 700.0))))


def epsilon_of(event: Event, delta: float, fineness: Fineness = FINE) -> float:
    """The epsilon of an event at delta."""
    return max(_one_way(event, direction, delta, fineness) for direction in directions(event))


def _one_way(event: Event, direction: str, delta: float, fineness: Fineness) -> float:
    found = releases(event, direction)
    if event.failure * 2 >= delta:
        return math.inf
    target = math.log(delta)
    bound = lambda t: (log_mgf(found, t) - target) / t
    theta = _least(bound)
    most = bound(theta) + 1e-9
    if event.failure * (1 + math.exp(min(most, 700.0))) >= delta:
        return math.inf

    def within(composed: Composed) -> float:
        def excess(epsilon: float) -> float:
            failing = event.failure * (1 + math.exp(min(epsilon, 700.0)))
            # What may fail is spent first, by the larger epsilon, so that the sum stays below
            # delta.
            return composed.log_delta(epsilon) - (math.log(delta - failing) if failing else target)

        if excess(0.0) <= 0:
            return 0.0
        if excess(most) > 0:
            return math.inf if event.failure else most
        return find_root(excess, 0.0, most)

    return min(within(composed) for composed in _compositions(found, theta, fineness))


def _least(bound: Callable[[float], float]) -> float:
    """The theta > 0 at which a bound of Chernoff is smallest."""
    best: Any = minimize_scalar(lambda s: bound(math.exp(s)), bounds=(-7.0, 7.0), method="bounded")
    return math.exp(float(best.x))


def _compositions(found: list[Release], theta: float, fineness: Fineness) -> Iterator[Composed]:
    """The composed loss for several tilts: each gives upper bounds, and the least of them counts.

    Chernoff's theta suits the smallest deltas, but may move the weight to the rarest and largest
    losses. Then the grid is too wide to be fine; a smaller theta leaves them where they are.
    """
    return (_composed(found, theta * share, fineness) for share in _TILTS)


def _composed(found: list[Release], theta: float, fineness: Fineness) -> Composed:
    low, high = _window(found, theta)
    cells = fineness.cells
    h = (high - low) / cells
    spectrum: np.ndarray | None = None
    for one in found:
        log_total = one.log_mgf(theta) / one.count
        masses = _on_grid(one.at(theta, fineness.nodes), theta, log_total, h, cells)
        transform = np.fft.rfft(masses) ** one.count
        spectrum = transform if spectrum is None else spectrum * transform
    assert spectrum is not None
    masses = np.fft.irfft(spectrum, cells)
    places = math.floor(low / h) + np.arange(cells)
    total = log_mgf(found, theta)
    return Composed(h * places, masses[places % cells], theta, total, _lost(found))


def _lost(found: list[Release]) -> float:
    """A bound of the tilted mass beyond both ends of the grid, and of the round-off in powers."""
    return 2 * math.exp(_LEFT_OUT) + sum(one.count for one in found) * np.finfo(float).eps


def _on_grid(one: Loss, theta: float, log_total: float, h: float, cells: int) -> np.ndarray:
    """Tilted masses on the multiples of h, taken around the circle of the transform.

    A mass with loss s above the grid point i goes to i and i + 1 so that its P and its Q are kept.
    """
    place = np.floor(one.loss / h)
    above = one.loss - place * h
    upper = np.expm1(-above) / math.expm1(-h)
    mass = np.exp(one.log_mass + theta * one.loss - log_total)
    at = place.astype(np.int64) % cells
    down = mass * (1 - upper) * np.exp(-theta * above)
    up = mass * upper * np.exp(theta * (h - above))
    return np.bincount(at, down, cells) + np.bincount((at + 1) % cells, up, cells)


def _window(found: list[Release], theta: float) -> tuple[float, float]:
    """Where all of the tilted loss is, but for 1e-15 of it, by Chernoff's bound on both sides."""
    total = log_mgf(found, theta)
    means, variances = zip(*(one.moments(theta) for one in found), strict=True)
    centre, spread = sum(means), max(math.sqrt(sum(variances)), 1e-8)

    def end(sign: int) -> float:
        # By the best tilt s beyond theta, which is of the order of 1 / spread in light tails.
        reach = lambda log_s: (
            (log_mgf(found, theta + sign * math.exp(log_s)) - total - _LEFT_OUT) / math.exp(log_s)
        )
        light = -math.log(spread)
        ends = min(light, 0.0) - 3, max(light, 0.0) + 4
        best: Any = minimize_scalar(reach, bounds=ends, method="bounded", options={"xatol": 0.05})
        return sign * float(best.fun)

    return min(end(-1), centre - 9 * spread), max(end(1), centre + 9 * spread)
