"""The Marchenko-Pastur law: the spectrum of noise, and where spikes above it appear."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ..errors import InputError
from .checks import require_positive

# The 99.9 per cent point of the Tracy-Widom law of order 1.
_TRACY_WIDOM = 3.27


class MarchenkoPastur(NamedTuple):
    """The limit law of eigenvalues of a sample covariance of pure noise.

    Rows of d numbers of variance `scale`, N of them, ratio = d / N (Marchenko and Pastur 1967).
    For ratio > 1 a share of 1 - 1 / ratio of the eigenvalues is zero.

    Attributes:
        scale: the variance.
        ratio: d / N.
    """

    scale: float
    ratio: float

    @property
    def edges(self) -> tuple[float, float]:
        """The ends of the bulk, scale (1 -+ sqrt(ratio))^2."""
        root = math.sqrt(self.ratio)
        return self.scale * (1 - root) ** 2, self.scale * (1 + root) ** 2

    def density(self, t: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """The density of the continuous part, at t."""
        low, high = self.edges
        t = np.asarray(t, float)
        inside = np.clip((high - t) * (t - low), 0, None)
        safe = np.where(inside > 0, t, 1)
        return np.where(inside > 0, np.sqrt(inside) / safe, 0) / (
            2 * np.pi * self.scale * self.ratio
        )

    def appears(self, spike: float) -> float:
        """Where an eigenvalue `spike` of the population shows in the sample.

        At spike (1 + ratio scale / (spike - scale)) above scale (1 + sqrt(ratio)), else at the edge
        (Baik, Ben Arous and Peche 2005; Baik and Silverstein 2006).
        """
        if spike <= self.scale * (1 + math.sqrt(self.ratio)):
            return self.edges[1]
        return spike * (1 + self.ratio * self.scale / (spike - self.scale))

    def population(self, value: float) -> float:
        """The spike of the population behind a sample eigenvalue; NaN inside the bulk."""
        value = value / self.scale
        if value <= (1 + math.sqrt(self.ratio)) ** 2:
            return math.nan
        half = (value + 1 - self.ratio) / 2
        return self.scale * (half + math.sqrt(half**2 - value))

    def largest(self, dimension: int) -> float:
        """What the largest of the noise stays below in 999 of 1000 samples (Johnstone 2001)."""
        n, d = dimension / self.ratio, dimension
        spread = (math.sqrt(n) + math.sqrt(d)) * (1 / math.sqrt(n) + 1 / math.sqrt(d)) ** (1 / 3)
        return self.edges[1] + _TRACY_WIDOM * self.scale * spread / n


def fit(
    values: Float[np.ndarray, " m"],
    weights: Float[np.ndarray, " m"] | None = None,
    *,
    dimension: int | None = None,
) -> MarchenkoPastur:
    """Fits the law to the bulk of a spectrum, leaving outliers out.

    The mean of all eigenvalues, zeros included, is scale, and the mean of their squares scale^2
    (1 + ratio). Values above the edge of the law with these moments are left out and the moments
    taken again, until nothing changes. Negative values count as zero: they are no noise of a
    covariance.

    Args:
        values: eigenvalues, or nodes of a quadrature of them.
        weights: of the values; by default equal.
        dimension: how many eigenvalues there are; by default the number of `values`.

    Raises:
        InputError: values that are not finite, or none above zero.
    """
    values = np.clip(np.asarray(values, float).ravel(), 0, None)
    weights = np.ones_like(values) if weights is None else np.asarray(weights, float).ravel()
    dimension = len(values) if dimension is None else dimension
    if not np.all(np.isfinite(values)) or np.max(values, initial=0) <= 0:
        raise InputError(
            "the Marchenko-Pastur law needs finite eigenvalues, some of them above zero."
        )
    kept = np.ones(len(values), bool)
    law = _moments(values, weights)
    # Every round leaves out more or stops, so there are at most as many as values.
    for _ in range(len(values)):
        now = kept & (values <= law.largest(dimension))
        if not np.any(now & (values > 0)) or np.array_equal(now, kept):
            break
        kept = now
        law = _moments(values[kept], weights[kept])
    return law


def _moments(values, weights) -> MarchenkoPastur:
    total = np.sum(weights)
    first, second = np.sum(weights * values) / total, np.sum(weights * values**2) / total
    # Equal eigenvalues have no spread: the smallest ratio keeps the law a law.
    ratio = max(second / first**2 - 1, 1e-6)
    return MarchenkoPastur(require_positive(first, "the mean eigenvalue"), float(ratio))
