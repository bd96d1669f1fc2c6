"""The schedule of a network trained with a table of betas."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from ..errors import InputError
from .numerics import is_traced, namespace
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

    Args:
        betas: shape (N,), N at least 2, each above 0 and below 1.

    Raises:
        InputError: betas of another shape or out of range.
    """

    log_alphas: Any  # at t = 0, 1/N ... 1, shape (N + 1,)
    # The last step of the table at which a noticeable signal is left. Decided once, so that it is
    # the same where the table has become an argument of a compiled function.
    begin: float = eqx.field(static=True)  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, betas: ArrayLike):
        table: Any = betas if is_traced(betas) else np.asarray(betas, dtype=np.float64)
        if np.ndim(table) != 1 or np.size(table) < 2:
            raise InputError(f"betas must have shape (N,), N >= 2; got shape {np.shape(table)}.")
        xp = namespace(table)
        if xp is np:
            bad = ~((np.asarray(table) > 0) & (np.asarray(table) < 1))
            if bad.any():
                n = int(np.argmax(bad))
                raise InputError(
                    f"betas[{n}] = {np.asarray(table)[n]} must lie above 0 and below 1: no noise, "
                    "or no signal, leaves nothing to predict."
                )
        cumulative = 0.5 * xp.cumsum(xp.log1p(-table))
        self.log_alphas = xp.concatenate([xp.zeros_like(cumulative[:1]), cumulative])
        self.begin = _begin(self.log_alphas)

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

    def _interval(self, t: Any) -> tuple[Any, Any]:
        """The interval of the table that t lies in, and its ends in log alpha."""
        xp = namespace(t, self.log_alphas)
        k = xp.clip(xp.floor(t * self.size), 0, self.size - 1).astype(int)
        table = xp.asarray(self.log_alphas)
        return k, (table[k], table[k + 1])

    def log_alpha(self, t: Any) -> Any:
        t = _number(t)
        k, (left, right) = self._interval(t)
        return left + (t * self.size - k) * (right - left)

    def log_alpha_rate(self, t: Any) -> Any:
        _, (left, right) = self._interval(_number(t))
        return self.size * (right - left)

    def log_alpha_inverse(self, log_alpha: Any) -> Any:
        xp = namespace(log_alpha, self.log_alphas)
        table = xp.asarray(self.log_alphas)
        k = xp.clip(xp.searchsorted(-table, -log_alpha) - 1, 0, self.size - 1)
        left, right = table[k], table[k + 1]
        return (k + (log_alpha - left) / (right - left)) / self.size


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
