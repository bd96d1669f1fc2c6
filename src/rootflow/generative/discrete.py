"""The schedule of a network trained with a table of betas."""

import math
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from ..errors import InputError
from ..ground.tracing import is_traced
from .numerics import namespace
from .schedules import _number, _VariancePreserving

# Sampling begins where log_snr is at least this (Lu et al. 2022, released code): the tables of
# cosine schedules end at -9.9, where steps of uniform log_snr would be wasted.
_NOISIEST = -5.1


class DiscreteBetas(_VariancePreserving):
    """A table of N betas, made continuous (Lu et al. 2022, app. D.4).

    Step n of the table, n = 0 ... N-1, stands at t = (n + 1) / N, with
    log alpha = 1/2 sum_{i <= n} log(1 - beta_i). Between the steps log alpha is linear in t, as it
    is between the first step and clean data at t = 0. A network trained on the table is told the
    step: give its `Denoiser` the argument `time=schedule.label`.

    A last beta of 1 leaves no signal at t = 1 (`rescale_zero_terminal_snr`; Lin et al. 2024).
    Sampling then begins there, in steps uniform in time, and needs a model of the data, the
    velocity or the flow: noise says nothing about the data where there is nothing else. Over the
    last step of such a table alpha itself is linear in t.

    Args:
        betas: shape (N,), N at least 2, each above 0 and below 1; the last may be 1.
        between: what is linear in t between the steps: `"log_alpha"`, the noise level
            `"sigma"` / alpha, or its logarithm `"log_sigma"`. Libraries differ in it, and so in
            the label that a noise level between two steps has.

    Raises:
        InputError: betas of another shape or out of range.
    """

    log_alphas: Any  # at t = 0, 1/N ... 1, shape (N + 1,)
    # The last step of the table at which a noticeable signal is left. Decided once, so that it is
    # the same where the table has become an argument of a compiled function.
    begin: float = eqx.field(static=True)  # pyright: ignore[reportIncompatibleVariableOverride]
    grid: str = eqx.field(static=True)  # pyright: ignore[reportIncompatibleVariableOverride]
    between: str = eqx.field(static=True)
    silent: bool = eqx.field(static=True)  # whether no signal is left at t = 1

    def __init__(
        self,
        betas: ArrayLike,
        *,
        between: Literal["log_alpha", "sigma", "log_sigma"] = "log_alpha",
    ) -> None:
        if between not in ("log_alpha", "sigma", "log_sigma"):
            raise InputError(
                f"between={between!r} is not known; use 'log_alpha', 'sigma' or 'log_sigma'."
            )
        table: Any = betas if is_traced(betas) else np.asarray(betas, dtype=np.float64)
        if np.ndim(table) != 1 or np.size(table) < 2:
            raise InputError(f"betas must have shape (N,), N >= 2; got shape {np.shape(table)}.")
        xp = namespace(table)
        if xp is np:
            bad = ~((table > 0) & (table < 1))
            bad[-1] &= table[-1] != 1
            if bad.any():
                n = int(np.argmax(bad))
                raise InputError(
                    f"betas[{n}] = {table[n]} must lie above 0 and below 1 (the last one may be "
                    "1): no noise, or no signal before the end, leaves nothing to predict."
                )
        with np.errstate(divide="ignore"):
            cumulative = 0.5 * xp.cumsum(xp.log1p(-table))
        self.log_alphas = xp.concatenate([xp.zeros_like(cumulative[:1]), cumulative])
        self.between = between
        self.silent = xp is np and bool(table[-1] == 1)
        self.begin = 1.0 if self.silent else _begin(self.log_alphas)
        self.grid = "time" if self.silent else "log_snr"

    @property
    def size(self) -> int:
        """N, the number of steps in the table."""
        return self.log_alphas.shape[0] - 1

    @property
    def end(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The first step of the table."""
        return 1 / self.size

    def label(self, t: Any) -> Any:
        """The step of the table at time t, as a number between 0 and N - 1.

        Whole where t is the time of a step to its own precision, so that it may be cut to an index.
        """
        steps = self.size * _number(t)
        if not jnp.issubdtype(steps.dtype, jnp.floating):
            return steps - 1
        xp = namespace(steps)
        nearest = xp.round(steps)
        slack = 2 * float(jnp.finfo(steps.dtype).eps)
        off = xp.where(abs(steps - nearest) <= slack * abs(steps), nearest - steps, 0.0)
        # Taken off, which is exact, rather than replaced: the derivative stays N.
        return steps + (off if xp is np else jax.lax.stop_gradient(off)) - 1

    def time(self, label: Any) -> Any:
        """The time of a step of the table: `(label + 1) / N`."""
        return (_number(label) + 1) / self.size

    def _place(self, t: Any) -> "_Place":
        """The interval of the table that t lies in."""
        xp = namespace(t, self.log_alphas)
        k = xp.clip(xp.floor(t * self.size), 0, self.size - 1).astype(int)
        table = xp.asarray(self.log_alphas)
        last = (k == self.size - 1) & self.silent
        left, right = table[k], table[k + 1]
        # Any other end keeps the formulas of the intervals that have one finite.
        right = xp.where(last, left - 1, right) if self.silent else right
        return _Place(t * self.size - k, left, right, k == 0, last)

    def _inner(self, at: "_Place") -> tuple[Any, Any]:
        """log alpha and its rate where the interval has signal at both ends."""
        xp = namespace(at.left)
        if self.between == "log_alpha":
            return at.left + at.part * (at.right - at.left), self.size * (at.right - at.left)
        low, high = (xp.sqrt(xp.expm1(-2 * end)) for end in (at.left, at.right))
        rho, rate = low + at.part * (high - low), self.size * (high - low)
        if self.between == "log_sigma":  # from no noise at all the line is straight all the same
            growth = xp.log(high / xp.where(at.first, 0.5 * high, low))
            curved = high * xp.exp((at.part - 1) * growth)
            rho = xp.where(at.first, rho, curved)
            rate = xp.where(at.first, rate, self.size * growth * curved)
        return -0.5 * xp.log1p(rho**2), -rho * rate / (1 + rho**2)

    def log_alpha(self, t: Any) -> Any:
        at = self._place(_number(t))
        value, _ = self._inner(at)
        if not self.silent:
            return value
        xp = namespace(value)
        fading = at.left + xp.log1p(-xp.where(at.last, at.part, 0.0))
        return xp.where(at.last, fading, value)

    def log_alpha_rate(self, t: Any) -> Any:
        at = self._place(_number(t))
        _, rate = self._inner(at)
        if not self.silent:
            return rate
        fading = -self.size / (1 - namespace(rate).where(at.last, at.part, 0.0))
        return namespace(rate).where(at.last, fading, rate)

    # Over a last step that loses the signal not by way of log alpha, which is infinite at its end
    # although these are not.
    def alpha(self, t: Any) -> Any:
        if not self.silent:
            return super().alpha(t)
        at = self._place(_number(t))
        value, _ = self._inner(at)
        xp = namespace(value)
        return xp.where(at.last, xp.exp(at.left) * (1 - at.part), xp.exp(value))

    def sigma(self, t: Any) -> Any:
        if not self.silent:
            return super().sigma(t)
        at = self._place(_number(t))
        value, _ = self._inner(at)
        xp = namespace(value)
        alpha = xp.exp(at.left) * (1 - at.part)
        fading = xp.sqrt(xp.where(at.last, (1 - alpha) * (1 + alpha), 1.0))
        safe = xp.where(at.last, at.left, value)
        return xp.where(at.last, fading, xp.sqrt(-xp.expm1(2 * safe)))

    def alpha_rate(self, t: Any) -> Any:
        if not self.silent:
            return super().alpha_rate(t)
        at = self._place(_number(t))
        value, rate = self._inner(at)
        xp = namespace(value)
        return xp.where(at.last, -self.size * xp.exp(at.left), xp.exp(value) * rate)

    def sigma_rate(self, t: Any) -> Any:
        return -self.alpha(t) * self.alpha_rate(t) / self.sigma(t)

    def log_alpha_inverse(self, log_alpha: Any) -> Any:
        xp = namespace(log_alpha, self.log_alphas)
        table = xp.asarray(self.log_alphas)
        k = xp.clip(xp.searchsorted(-table, -log_alpha) - 1, 0, self.size - 1)
        left, right = table[k], table[k + 1]
        last = (k == self.size - 1) & self.silent
        right = xp.where(last, left - 1, right) if self.silent else right
        inside = xp.where(last, left, log_alpha) if self.silent else log_alpha
        if self.between == "log_alpha":
            part = (inside - left) / (right - left)
        else:
            low, high, rho = (xp.sqrt(xp.expm1(-2 * at)) for at in (left, right, inside))
            part = (rho - low) / (high - low)
            if self.between == "log_sigma":
                first = k == 0
                low, safe = xp.where(first, 0.5 * high, low), xp.where(first, high, rho)
                part = xp.where(first, part, xp.log(safe / low) / xp.log(high / low))
        if self.silent:
            part = xp.where(last, -xp.expm1(xp.where(last, log_alpha - left, 0.0)), part)
        return (k + part) / self.size


class _Place(NamedTuple):
    """Where a time lies in a table.

    Attributes:
        part: how far into its interval.
        left: log alpha at the beginning of that.
        right: log alpha at its end.
        first: whether it is the first interval.
        last: whether it is one that ends without signal.
    """

    part: Any
    left: Any
    right: Any
    first: Any
    last: Any


def _begin(log_alphas: Any) -> float:
    """The time of the last step with log_snr not below the noisiest; 1 if the table is traced."""
    if is_traced(log_alphas):
        return 1.0
    table = np.asarray(log_alphas, dtype=np.float64)[1:]
    log_snr = table - 0.5 * np.log(-np.expm1(2 * table))
    usable = np.flatnonzero(log_snr >= _NOISIEST)
    return float(usable[-1] + 1) / len(table) if usable.size else 1.0


def linear_betas(n: int = 1000, first: float = 1e-4, last: float = 0.02) -> np.ndarray:
    """Betas rising linearly, shape (n,) (Ho et al. 2020, sec. 4)."""
    return np.linspace(first, last, n)


def scaled_linear_betas(n: int = 1000, first: float = 0.00085, last: float = 0.012) -> np.ndarray:
    """Betas whose square roots rise linearly, shape (n,) (Rombach et al. 2022)."""
    return np.linspace(first**0.5, last**0.5, n) ** 2


def cosine_betas(n: int = 1000, offset: float = 0.008, most: float = 0.999) -> np.ndarray:
    """Betas of the cosine schedule, each at most `most`, shape (n,) (Nichol and Dhariwal 2021)."""
    steps = np.arange(n + 1) / n
    kept = np.cos(0.5 * np.pi * (steps + offset) / (1 + offset)) ** 2
    return np.minimum(1 - kept[1:] / kept[:-1], most)


def exponential_betas(n: int = 1000, most: float = 0.999) -> np.ndarray:
    """Betas under which alpha^2 falls as e^(-12 t), each at most `most`, shape (n,)."""
    return np.minimum(np.full(n, -math.expm1(-12 / n)), most)


def sigmoid_betas(n: int = 1000, first: float = 1e-4, last: float = 0.02) -> np.ndarray:
    """Betas rising from `first` to `last` as a logistic curve on [-6, 6], shape (n,)."""
    return first + (last - first) / (1 + np.exp(-np.linspace(-6, 6, n)))


def rescale_zero_terminal_snr(betas: ArrayLike) -> np.ndarray:
    """The table with no signal left at its end (Lin et al. 2024, algorithm 1).

    alpha is shifted to zero at the last step and scaled back to what it was at the first one, so
    that the last beta becomes 1. For models of the data or the velocity: retrain, or fine-tune.

    Args:
        betas: shape (N,), each above 0 and below 1.

    Raises:
        InputError: betas of another shape or out of range.
    """
    table = np.asarray(betas, dtype=np.float64)
    before = np.exp(DiscreteBetas(table).log_alphas[1:])
    alphas = (before - before[-1]) * (before[0] / (before[0] - before[-1]))
    first = table[:1]  # as it was, to the last digit
    return np.concatenate([first, 1 - (alphas[1:] / alphas[:-1]) ** 2])
