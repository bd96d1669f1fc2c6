"""Paths from a standard normal base as noise schedules, in the time 1 - t.

A path has its data at t = 1 and a schedule at 0; the rates change their sign.
"""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ...ground.tracing import is_traced
from ..numerics import namespace
from ..schedules import Schedule


def _number(t: Any) -> Any:
    return t if isinstance(t, np.ndarray | np.generic) else jnp.asarray(t)


class QuarterTurn(Schedule):
    """alpha = cos(pi t / 2), sigma = sin(pi t / 2), the schedule of `OneSidedTrigonometric`."""

    grid: ClassVar[str] = "time"

    def alpha(self, t: Any) -> Any:
        t = _number(t)
        return namespace(t).sin(0.5 * math.pi * (1 - t))

    def log_alpha(self, t: Any) -> Any:
        alpha = self.alpha(t)
        return namespace(alpha).log(alpha)

    def sigma(self, t: Any) -> Any:
        t = _number(t)
        return namespace(t).sin(0.5 * math.pi * t)

    def alpha_rate(self, t: Any) -> Any:
        return -0.5 * math.pi * self.sigma(t)

    def sigma_rate(self, t: Any) -> Any:
        return 0.5 * math.pi * self.alpha(t)

    def log_snr_inverse(self, log_snr: Any) -> Any:
        log_snr = _number(log_snr)
        xp = namespace(log_snr)
        return 2 / math.pi * xp.arctan(xp.exp(-log_snr))


class SquareRoot(Schedule):
    """alpha = 1 - t, sigma = sqrt(t (2 - t)), the schedule of `OneSidedVP`."""

    grid: ClassVar[str] = "time"

    def alpha(self, t: Any) -> Any:
        return 1 - _number(t)

    def log_alpha(self, t: Any) -> Any:
        t = _number(t)
        return namespace(t).log1p(-t)

    def sigma(self, t: Any) -> Any:
        t = _number(t)
        return namespace(t).sqrt(t * (2 - t))

    def alpha_rate(self, t: Any) -> Any:
        return 0.0 * _number(t) - 1.0

    def sigma_rate(self, t: Any) -> Any:
        return (1 - _number(t)) / self.sigma(t)

    def log_snr_inverse(self, log_snr: Any) -> Any:
        # t = 1 - 1 / sqrt(1 + q) with q = sigma^2 / alpha^2, without the difference.
        log_snr = _number(log_snr)
        xp = namespace(log_snr)
        variance = xp.exp(-xp.logaddexp(0.0, 2 * log_snr))
        alpha = xp.exp(-0.5 * xp.logaddexp(0.0, -2 * log_snr))  # sqrt(1 - variance) cancels
        return variance / (1 + alpha)


class PathSchedule(Schedule):
    """Any path from a standard normal base: its noise is alpha x0 + gamma z.

    Attributes:
        path: the path, in whose time t = 1 is the data.
    """

    grid: ClassVar[str] = "time"

    path: Any

    def _of(self, t: Any, pick: Any) -> Any:
        as_numpy = isinstance(t, np.ndarray | np.generic)
        if not as_numpy:
            return pick(self.path.coefficients(1 - jnp.asarray(t)))
        with jax.ensure_compile_time_eval():
            value = pick(self.path.coefficients(1 - jnp.asarray(t)))
        return value if is_traced(value) else np.asarray(value, np.float64)

    def alpha(self, t: Any) -> Any:
        return self._of(t, lambda c: c.beta)

    def log_alpha(self, t: Any) -> Any:
        alpha = self.alpha(t)
        return namespace(alpha).log(alpha)

    def sigma(self, t: Any) -> Any:
        return self._of(t, lambda c: jnp.hypot(c.alpha, c.gamma))

    def alpha_rate(self, t: Any) -> Any:
        return self._of(t, lambda c: -c.beta_rate)

    def sigma_rate(self, t: Any) -> Any:
        return self._of(
            t, lambda c: -(c.alpha * c.alpha_rate + c.product) / jnp.hypot(c.alpha, c.gamma)
        )

    def log_snr_inverse(self, log_snr: Any) -> Any:
        log_snr = _number(log_snr)
        xp = namespace(log_snr)

        def halve(_: Any, bracket: Any) -> Any:
            low, high = bracket
            middle = 0.5 * (low + high)
            with np.errstate(divide="ignore"):
                before = self.log_snr(middle) > log_snr
            return xp.where(before, middle, low), xp.where(before, high, middle)

        bracket = xp.zeros_like(log_snr), xp.ones_like(log_snr)
        if xp is np:
            for turn in range(60):  # which exhausts double precision
                bracket = halve(turn, bracket)
            return 0.5 * (bracket[0] + bracket[1])
        low, high = jax.lax.fori_loop(0, 60, halve, bracket)
        # A step of Newton's method has the derivative that the bisection lacks.
        t = jax.lax.stop_gradient(0.5 * (low + high))
        rate = self.alpha_rate(t) / self.alpha(t) - self.sigma_rate(t) / self.sigma(t)
        step = (self.log_snr(t) - log_snr) / rate
        return t - jnp.where(jnp.isfinite(step), step, 0.0)
