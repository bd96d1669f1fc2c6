"""Estimates from samples, each with an interval that says how far it may be trusted."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import ArrayLike, Float, PRNGKeyArray
from scipy.stats import binom, norm, t

from ..errors import InputError
from ..ground.checks import whole
from . import checks


class Estimate(NamedTuple):
    """An estimate and its interval of confidence.

    Attributes:
        value: of the quantity.
        low: the lower end; -inf where the samples say nothing.
        high: the upper end.
        samples: how many there were.
    """

    value: float
    low: float
    high: float
    samples: int


class Interval(NamedTuple):
    """From low to high."""

    low: float
    high: float


def mean_interval(samples: Float[ArrayLike, " n"], *, level: float = 0.95) -> Interval:
    """The interval of Student's t around the mean.

    Raises:
        InputError: fewer than two samples, or a level outside (0, 1).
    """
    x = checks.samples("samples", samples, 2)
    half = t.ppf(0.5 + checks.fraction("level", level) / 2, x.size - 1) * x.std(ddof=1)
    return Interval(float(x.mean() - half / x.size**0.5), float(x.mean() + half / x.size**0.5))


def mean(samples: Float[ArrayLike, " n"], *, level: float = 0.95) -> Estimate:
    """The mean, with `mean_interval`."""
    x = checks.samples("samples", samples, 2)
    return Estimate(float(x.mean()), *mean_interval(x, level=level), x.size)


def quantile(
    samples: Float[ArrayLike, " n"], probability: float, *, level: float = 0.95
) -> Estimate:
    """A quantile, its interval between two of the ordered samples, whatever their distribution.

    Where there are too few samples beyond the quantile for an interval to end at one of them, it is
    infinite on that side: the samples do not say.

    Raises:
        InputError: a probability or level outside (0, 1).
    """
    x = np.sort(checks.samples("samples", samples, 2))
    p = checks.fraction("probability", probability)
    outside = (1 - checks.fraction("level", level)) / 2
    # P(x_(l) > quantile) <= outside and P(x_(u) < quantile) <= outside, counted from one.
    low = int(binom.ppf(outside, x.size, p))
    high = int(binom.ppf(1 - outside, x.size, p)) + 1
    return Estimate(
        float(np.quantile(x, p)),
        float(x[low - 1]) if low >= 1 else -np.inf,
        float(x[high - 1]) if high <= x.size else np.inf,
        x.size,
    )


def exceedance(
    samples: Float[ArrayLike, " n"], *, threshold: float, level: float = 0.95
) -> Estimate:
    """The probability of more than a threshold, with Wilson's interval.

    That does not end at zero where no sample was beyond it: no event in n samples is still
    compatible with a probability of about 3.8 / n.

    Raises:
        InputError: a threshold that is no number, or a level outside (0, 1).

    Source: E. B. Wilson, Journal of the American Statistical Association 22 (1927).
    """
    x = checks.samples("samples", samples)
    if not np.isfinite(threshold):
        raise InputError(f"threshold must be a finite number; got {threshold!r}.")
    n, p = x.size, float(np.mean(x > threshold))
    z = norm.ppf(0.5 + checks.fraction("level", level) / 2)
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low = 0.0 if p == 0 else float(middle - half)
    high = 1.0 if p == 1 else float(middle + half)
    return Estimate(p, low, high, n)


class TwoLevel(NamedTuple):
    """A mean from few dear samples and many cheap ones.

    Attributes:
        estimate: of the dear quantity's mean.
        weight: alpha, of the cheap quantity.
        correlation: of the two.
        gain: variance of the mean of the dear samples alone, over that of this estimate.
    """

    estimate: Estimate
    weight: float
    correlation: float
    gain: float


def two_level(
    dear: Float[ArrayLike, " n"],
    paired: Float[ArrayLike, " n"],
    cheap: Float[ArrayLike, " m"],
    *,
    level: float = 0.95,
) -> TwoLevel:
    """The mean of a dear quantity, with a cheap one as control variate.

        mean(dear - alpha paired) + alpha mean(cheap)

    with alpha = cov(dear, paired) / var(paired) / (1 + n / m), which for n pairs and m other cheap
    samples has the least variance. What is cheap may be wrong
    as a whole: the pairs take that out. It must be the same quantity in both places.

    Args:
        dear: by full runs, or a fine mesh.
        paired: the cheap quantity for the same loads.
        cheap: for other loads of the same law, independent of those.
        level: of the interval.

    Raises:
        InputError: fewer than three pairs, or numbers that do not match.
    """
    Q, q = checks.samples("dear", dear, 3), checks.samples("paired", paired, 3)
    many = checks.samples("cheap", cheap, 2)
    if Q.size != q.size:
        raise InputError(f"dear and paired must match; got {Q.size} and {q.size} samples.")
    n, m = Q.size, many.size
    spread = q.var(ddof=1)
    cov = float(np.cov(Q, q)[0, 1])
    weight = cov / spread / (1 + n / m) if spread > 0 else 0.0
    rest = Q - weight * q
    variance = rest.var(ddof=1) / n + weight**2 * many.var(ddof=1) / m
    value = float(rest.mean() + weight * many.mean())
    half = float(t.ppf(0.5 + checks.fraction("level", level) / 2, n - 2) * np.sqrt(variance))
    alone = Q.var(ddof=1) / n
    both = np.sqrt(Q.var(ddof=1) * spread)
    return TwoLevel(
        Estimate(value, value - half, value + half, n + m), float(weight),
        float(cov / both) if both > 0 else 0.0,
        float(alone / variance) if variance > 0 else np.inf,
    )  # fmt: skip


class Sobol(NamedTuple):
    """Sensitivity indices of one input, or group of inputs.

    Attributes:
        first: the part of the variance that goes when it alone becomes known.
        total: the part that stays until it is known too.
    """

    first: Estimate
    total: Estimate


def sobol(
    quantity: Callable[[dict[str, Any]], Any],
    inputs: Mapping[str, Callable[[PRNGKeyArray, int], Any]],
    *,
    key: PRNGKeyArray,
    count: int,
    level: float = 0.95,
    resamples: int = 200,
) -> dict[str, Sobol]:
    """Sobol indices of independent inputs, numbers or whole arrays, by pick and freeze.

    For a conditional generator the inputs are its conditions, and its noise as one group.

    Args:
        quantity: of arrays by name, (count, ...) each, shape (count,).
        inputs: how each is drawn, `draw(key, count)`.
        key: explicit randomness.
        count: n; the quantity is found for n (inputs + 2) samples.
        level: of the intervals, by bootstrap.
        resamples: of the bootstrap.

    Raises:
        InputError: no inputs, or a quantity of another shape or without variance.

    Source: Saltelli et al., Computer Physics Communications 181 (2010), first index (b) and
    Jansen's total index (f).
    """
    if not inputs:
        raise InputError("sobol needs at least one input: give inputs={'name': draw}.")
    count = whole("count", count, 4)
    first, second, boot = jax.random.split(key, 3)

    def drawn(key):
        keys = jax.random.split(key, len(inputs))
        return {name: draw(k, count) for k, (name, draw) in zip(keys, inputs.items())}

    def found(values):
        y = np.asarray(quantity(values), float)
        if y.shape != (count,):
            raise InputError(f"the quantity must have shape ({count},); got {y.shape}.")
        return checks.finite("the quantity", y)

    A, B = drawn(first), drawn(second)
    y, z = found(A), found(B)
    if not np.var(np.concatenate([y, z])) > 0:
        raise InputError("the quantity does not vary: it has no sensitivities.")
    rng = np.random.default_rng(np.asarray(jax.random.key_data(boot)).ravel())
    picks = rng.integers(0, count, (resamples, count))
    outside = (1 - checks.fraction("level", level)) / 2

    def estimate(numbers, square):
        variance = np.var(np.concatenate([y[picks], z[picks]], axis=1), axis=1)
        again = numbers[picks].mean(axis=1) / np.maximum(variance, 1e-300)
        low, high = np.quantile(again, [outside, 1 - outside])
        return Estimate(float(numbers.mean() / square), float(low), float(high), count)

    variance = float(np.var(np.concatenate([y, z])))
    middle = float(np.mean(np.concatenate([y, z])))
    out = {}
    for name in inputs:
        mixed = found(A | {name: B[name]})
        out[name] = Sobol(
            estimate((z - middle) * (mixed - y), variance),
            estimate(0.5 * (y - mixed) ** 2, variance),
        )
    return out
