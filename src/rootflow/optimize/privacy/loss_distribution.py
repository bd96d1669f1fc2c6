"""Composition of subsampled Gaussian releases, by the distribution of their privacy loss.

The loss log(P/Q) of each release is put on a grid so that both P and Q keep their masses (the
"connecting of dots" of Doroshenko, Ghazi, Kamath, Kumar and Manurangsi, 2022), which can only
overstate what is lost, and the distributions are convolved by Fourier transforms. They are tilted
by e^(theta loss) before, so that round-off is relative to what matters at the delta in question,
however small that is.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, ndtr

from .events import Event, Sampled
from .gaussian_dp import find_root

_FEW = 1 << 12  # nodes that are enough for bounds, where the integrands are smooth
_REACH = 37.0  # standard deviations: nothing that double precision could show lies beyond
_LEFT_OUT = math.log(1e-15)


class Fineness(NamedTuple):
    """Nodes of the loss of one release, and cells of the grid of the composed one."""

    nodes: int
    cells: int


FINE = Fineness(1 << 16, 1 << 18)
ROUGH = Fineness(1 << 14, 1 << 16)  # overstates a little more


class Loss(NamedTuple):
    """The privacy loss of one release, as masses at nodes, and how often it is composed."""

    log_mass: np.ndarray
    loss: np.ndarray
    count: int

    def log_mgf(self, theta: float) -> float:
        """The logarithm of the mean of e^(theta loss) over all the releases."""
        total: Any = logsumexp(self.log_mass + theta * self.loss)
        return self.count * float(total)


def directions(event: Event) -> tuple[str, ...]:
    """The orders in which a pair of neighbours has to be looked at."""
    poisson = any(s.sampling == "poisson" for s in event.sampled)
    return ("remove", "add") if poisson else ("replace",)


def losses(event: Event, direction: str, nodes: int = _FEW) -> list[Loss]:
    """The losses of an event between neighbours in one direction."""
    found = [_sampled(s, direction, nodes) for s in event.sampled]
    if event.mu_squared > 0:
        found.append(_plain(event.mu, nodes))
    return found


def _midpoints(low: float, high: float, nodes: int) -> tuple[np.ndarray, float]:
    width = (high - low) / nodes
    return low + width * (np.arange(nodes) + 0.5), width


def _plain(mu: float, nodes: int) -> Loss:
    u, width = _midpoints(-_REACH, _REACH, nodes)
    return Loss(_log_normal(u) + math.log(width), mu * u + mu**2 / 2, 1)


def _sampled(s: Sampled, direction: str, nodes: int) -> Loss:
    """Where P or Q is the mixture of N(0, z^2) and N(1, z^2) with weight `rate` on the second.

    Zhu, Dong and Wang (2022), theorem 11 for Poisson minibatches and proposition 30 for those of
    fixed size, where positive losses come from one order of the mixture, negative ones from the
    other, and the rest of the mass has none.
    """
    z, q = s.multiplier, s.rate
    first = 0.5 if s.sampling == "fixed" else -_REACH * z
    x, width = _midpoints(first, 1 + _REACH * z, nodes)
    zero = _log_normal(x / z) - math.log(z) + math.log(width)
    one = _log_normal((x - 1) / z) - math.log(z) + math.log(width)
    mixed = np.logaddexp(math.log1p(-q) + zero, math.log(q) + one)
    loss = _log_ratio(x, z, q)
    if direction == "remove":
        return Loss(mixed, loss, s.count)
    if direction == "add":
        return Loss(zero, -loss, s.count)
    none = math.log1p(-q) + math.log(ndtr(0.5 / z) - ndtr(-0.5 / z))
    masses = np.concatenate([mixed, zero, [none]])
    return Loss(masses, np.concatenate([loss, -loss, [0.0]]), s.count)


def _log_ratio(x: np.ndarray, z: float, q: float) -> np.ndarray:
    u = (2 * x - 1) / (2 * z**2)
    near = np.log1p(q * np.expm1(np.minimum(u, 1.0)))
    return np.where(u < 1.0, near, np.logaddexp(math.log1p(-q), math.log(q) + u))


def _log_normal(u: np.ndarray) -> np.ndarray:
    return -(u**2) / 2 - math.log(2 * math.pi) / 2


def log_mgf(found: Iterable[Loss], theta: float) -> float:
    """Of the composed loss."""
    return sum(one.log_mgf(theta) for one in found)


class Composed(NamedTuple):
    """The composed loss on a grid, tilted: the mass at `loss[i]` is e^log_scale[i] * tilted[i]."""

    loss: np.ndarray
    tilted: np.ndarray
    log_scale: np.ndarray

    def log_delta(self, epsilon: float) -> float:
        """The logarithm of the delta at epsilon; -inf where it is lost in round-off."""
        beyond = slice(int(np.searchsorted(self.loss, epsilon, side="right")), None)
        scale = self.log_scale[beyond]
        if not scale.size:
            return -math.inf
        most = scale.max()
        terms = self.tilted[beyond] * np.exp(scale - most) * -np.expm1(epsilon - self.loss[beyond])
        total = float(terms.sum())
        return math.log(total) + float(most) if total > 0 else -math.inf


def delta_of(event: Event, epsilon: float, fineness: Fineness = FINE) -> float:
    """The delta of an event at epsilon: the larger of the two orders of neighbours."""
    worst = -math.inf
    for direction in directions(event):
        found = losses(event, direction)
        theta = _least(lambda t, found=found: log_mgf(found, t) - t * epsilon)
        worst = max(worst, _composed(event, direction, found, theta, fineness).log_delta(epsilon))
    return min(1.0, math.exp(worst) + event.failure * (1 + math.exp(min(epsilon, 700.0))))


def epsilon_of(event: Event, delta: float, fineness: Fineness = FINE) -> float:
    """The epsilon of an event at delta."""
    return max(_one_way(event, direction, delta, fineness) for direction in directions(event))


def _one_way(event: Event, direction: str, delta: float, fineness: Fineness) -> float:
    found = losses(event, direction)
    if event.failure * 2 >= delta:
        return math.inf
    target = math.log(delta)
    bound = lambda t: (log_mgf(found, t) - target) / t
    theta = _least(bound)
    composed = _composed(event, direction, found, theta, fineness)

    def excess(epsilon: float) -> float:
        failing = event.failure * (1 + math.exp(min(epsilon, 700.0)))
        # What may fail is spent first, by the larger epsilon, so that the sum stays below delta.
        return composed.log_delta(epsilon) - (math.log(delta - failing) if failing else target)

    if excess(0.0) <= 0:
        return 0.0
    most = bound(theta) + 1e-9
    if event.failure * (1 + math.exp(min(most, 700.0))) >= delta:
        return math.inf
    return find_root(excess, 0.0, most)


def _least(bound: Callable[[float], float]) -> float:
    """The theta > 0 at which a bound of Chernoff is smallest."""
    best: Any = minimize_scalar(lambda s: bound(math.exp(s)), bounds=(-7.0, 7.0), method="bounded")
    return math.exp(float(best.x))


def _composed(
    event: Event, direction: str, found: list[Loss], theta: float, fineness: Fineness
) -> Composed:
    low, high = _window(found, theta)
    cells = fineness.cells
    h = (high - low) / cells
    spectrum: np.ndarray | None = None
    for rough, one in zip(found, losses(event, direction, fineness.nodes)):
        log_total = rough.log_mgf(theta) / rough.count
        transform = np.fft.rfft(_on_grid(one, theta, log_total, h, cells)) ** one.count
        spectrum = transform if spectrum is None else spectrum * transform
    assert spectrum is not None
    masses = np.fft.irfft(spectrum, cells)
    first = math.floor(low / h)
    places = first + np.arange(cells)
    loss = h * places
    log_scale = log_mgf(found, theta) - theta * loss
    return Composed(loss, masses[places % cells], log_scale)


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


def _window(found: list[Loss], theta: float) -> tuple[float, float]:
    """Where all of the tilted loss is, but for 1e-15 of it, by Chernoff's bound on both sides."""
    total = log_mgf(found, theta)
    step = 1e-4 * max(theta, 1e-3)
    above, below = log_mgf(found, theta + step), log_mgf(found, theta - step)
    centre = (above - below) / (2 * step)
    spread = math.sqrt(max((above - 2 * total + below) / step**2, 1e-16))

    def beyond(sign: int, width: float) -> float:
        tail = lambda s: (
            log_mgf(found, theta + sign * s) - total - sign * s * (centre + sign * width)
        )
        rates = np.geomspace(0.3 / spread, 30.0 / spread, 12)
        return min(tail(s) for s in rates)

    ends = []
    for sign in (-1, 1):
        width = 9 * spread
        while beyond(sign, width) > _LEFT_OUT:
            width *= 1.3
        ends.append(centre + sign * width)
    return ends[0], ends[1]
