"""Noise schedules: x_t = alpha(t) x_0 + sigma(t) eps, from data at small t to noise at large t.

A schedule knows alpha, sigma, their rates of change, half the log-signal-to-noise ratio
log_snr = log(alpha / sigma), which falls strictly in t, and its inverse. The formulas are arranged
so that they lose nothing in single precision at either end, where the textbook forms cancel.
NumPy arrays are answered in NumPy, anything else in JAX.
"""

import math
from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from ..errors import InputError
from ..ground.tracing import is_traced
from .numerics import namespace


class Level(NamedTuple):
    """One noise level: the time, alpha, sigma and their rates, all numbers or arrays of them."""

    t: Any
    alpha: Any
    sigma: Any
    alpha_rate: Any
    sigma_rate: Any


def _number(t: Any) -> Any:
    # Python numbers go to JAX as well, where they keep the precision of what they meet.
    return t if isinstance(t, np.ndarray | np.generic) else jnp.asarray(t)


class Schedule(eqx.Module):
    """How much signal and how much noise there is at time t.

    Attributes:
        begin: where sampling begins unless told otherwise: the noisiest usable time.
        end: where it ends: the cleanest time at which a noise prediction still means something.
        domain: times for which the schedule is defined.
        grid: the spacing of the steps unless told otherwise.
    """

    begin: ClassVar[float] = 1.0
    end: ClassVar[float] = 1e-3
    domain: ClassVar[tuple[float, float]] = (0.0, 1.0)
    grid: ClassVar[str] = "log_snr"

    @abstractmethod
    def log_alpha(self, t: Any) -> Any:
        """The logarithm of the signal's amplitude."""

    @abstractmethod
    def sigma(self, t: Any) -> Any:
        """The standard deviation of the noise."""

    @abstractmethod
    def alpha_rate(self, t: Any) -> Any:
        """The derivative of alpha in t."""

    @abstractmethod
    def sigma_rate(self, t: Any) -> Any:
        """The derivative of sigma in t."""

    @abstractmethod
    def log_snr_inverse(self, log_snr: Any) -> Any:
        """The time at which log(alpha / sigma) has this value."""

    def alpha(self, t: Any) -> Any:
        """The amplitude of the signal."""
        log_alpha = self.log_alpha(t)
        return namespace(log_alpha).exp(log_alpha)

    def log_snr(self, t: Any) -> Any:
        """log(alpha / sigma): half the logarithm of the signal-to-noise ratio."""
        sigma = self.sigma(t)
        return self.log_alpha(t) - namespace(sigma).log(sigma)

    def prior_scale(self, t: Any) -> Any:
        """The standard deviation of the samples at the noisy end."""
        return self.sigma(t)

    def level(self, t: Any) -> Level:
        """Everything about time t that a prediction is converted with."""
        return Level(t, self.alpha(t), self.sigma(t), self.alpha_rate(t), self.sigma_rate(t))


class _VariancePreserving(Schedule):
    """alpha^2 + sigma^2 = 1, so that everything follows from log alpha."""

    @abstractmethod
    def log_alpha_rate(self, t: Any) -> Any:
        """The derivative of log alpha in t."""

    @abstractmethod
    def log_alpha_inverse(self, log_alpha: Any) -> Any:
        """The time at which log alpha has this value."""

    def sigma(self, t: Any) -> Any:
        log_alpha = self.log_alpha(t)
        xp = namespace(log_alpha)
        # sqrt(1 - alpha^2) would lose every digit as alpha tends to 1.
        return xp.sqrt(-xp.expm1(2 * log_alpha))

    def alpha_rate(self, t: Any) -> Any:
        return self.alpha(t) * self.log_alpha_rate(t)

    def sigma_rate(self, t: Any) -> Any:
        return -(self.alpha(t) ** 2) * self.log_alpha_rate(t) / self.sigma(t)

    def log_snr_inverse(self, log_snr: Any) -> Any:
        log_snr = _number(log_snr)
        xp = namespace(log_snr)
        return self.log_alpha_inverse(-0.5 * xp.logaddexp(0.0, -2 * log_snr))

    def prior_scale(self, t: Any) -> Any:
        return 1.0


def _linear_betas(t: Any, beta_min: Any, beta_max: Any) -> Any:
    """Half of the integral of beta_min + (beta_max - beta_min) t from 0 to t."""
    return 0.25 * (beta_max - beta_min) * t**2 + 0.5 * beta_min * t


def _linear_betas_inverse(half: Any, beta_min: Any, beta_max: Any) -> Any:
    # The root of the quadratic in the form without a difference of near-equal numbers.
    root = namespace(half).sqrt(beta_min**2 + 4 * (beta_max - beta_min) * half)
    return 4 * half / (beta_min + root)


def _check_betas(beta_min: Any, beta_max: Any) -> None:
    if not is_traced(beta_min, beta_max) and not 0 < beta_min < beta_max:
        raise InputError(
            f"beta_min={beta_min} and beta_max={beta_max} must be positive and in this order."
        )


class VPLinear(_VariancePreserving):
    """Variance preserving with beta(t) linear in t (Ho et al. 2020; Song et al. 2021, eq. 32).

    log alpha = -(beta_max - beta_min) t^2 / 4 - beta_min t / 2.
    """

    beta_min: Any = 0.1
    beta_max: Any = 20.0

    def __check_init__(self) -> None:
        _check_betas(self.beta_min, self.beta_max)

    def log_alpha(self, t: Any) -> Any:
        return -_linear_betas(_number(t), self.beta_min, self.beta_max)

    def log_alpha_rate(self, t: Any) -> Any:
        return -0.5 * (self.beta_min + (self.beta_max - self.beta_min) * _number(t))

    def log_alpha_inverse(self, log_alpha: Any) -> Any:
        return _linear_betas_inverse(-log_alpha, self.beta_min, self.beta_max)


class VPCosine(_VariancePreserving):
    """Variance preserving with alpha a cosine of t (Nichol and Dhariwal 2021, eq. 17).

    Sampling begins at t = 0.9946 as in Lu et al. (2022), app. D.4: at t = 1 there is no signal.
    """

    begin: ClassVar[float] = 0.9946

    offset: float = eqx.field(static=True, default=0.008)

    def __check_init__(self) -> None:
        if not 0 < self.offset < 1:
            raise InputError(f"offset={self.offset} must lie between 0 and 1.")

    def _angle(self, t: Any) -> Any:
        return 0.5 * math.pi * (t + self.offset) / (1 + self.offset)

    def _left(self, t: Any) -> Any:
        # What is left to a right angle, for t from 1/2 on.
        late = namespace(t).where(t < 0.5, 0.5, t)
        return 0.5 * math.pi * (1 - late) / (1 + self.offset)

    def log_alpha(self, t: Any) -> Any:
        # log cos(a + d) - log cos(a): a log1p of what is small for small t, and for large t the
        # cosine as the sine of what is left to a right angle.
        t = _number(t)
        xp = namespace(t)
        early = t < 0.5
        start = self._angle(0.0)
        turn = 0.5 * math.pi * xp.where(early, t, 0.5) / (1 + self.offset)
        change = (
            -2 * xp.sin(0.5 * turn) * (xp.sin(0.5 * turn) + math.tan(start) * xp.cos(0.5 * turn))
        )
        late = xp.log(xp.sin(self._left(t))) - math.log(math.cos(start))
        return xp.where(early, xp.log1p(change), late)

    def log_alpha_rate(self, t: Any) -> Any:
        t = _number(t)
        xp = namespace(t)
        early = t < 0.5
        tangent = xp.tan(self._angle(xp.where(early, t, 0.5)))
        slope = xp.where(early, tangent, 1 / xp.tan(self._left(t)))
        return -0.5 * math.pi / (1 + self.offset) * slope

    # For large t not by way of log alpha, which is infinite at t = 1 although these are not.
    def alpha(self, t: Any) -> Any:
        t = _number(t)
        xp = namespace(t)
        early = t < 0.5
        late = xp.sin(self._left(t)) / math.cos(self._angle(0.0))
        return xp.where(early, xp.exp(self.log_alpha(xp.where(early, t, 0.0))), late)

    def sigma(self, t: Any) -> Any:
        t = _number(t)
        xp = namespace(t)
        early = t < 0.5
        alpha = self.alpha(xp.where(early, 0.5, t))
        near = super().sigma(xp.where(early, t, 0.5))
        return xp.where(early, near, xp.sqrt((1 - alpha) * (1 + alpha)))

    def alpha_rate(self, t: Any) -> Any:
        t = _number(t)
        xp = namespace(t)
        early = t < 0.5
        near = super().alpha_rate(xp.where(early, t, 0.25))
        turn = 0.5 * math.pi / (1 + self.offset)
        return xp.where(early, near, -turn * xp.cos(self._left(t)) / math.cos(self._angle(0.0)))

    def sigma_rate(self, t: Any) -> Any:
        return -self.alpha(t) * self.alpha_rate(t) / self.sigma(t)

    def log_alpha_inverse(self, log_alpha: Any) -> Any:
        # With cos(start + turn) = alpha cos(start): solved for the turn itself, because the
        # difference of the two angles would lose the small times.
        xp = namespace(log_alpha)
        start = self._angle(0.0)
        alpha, drop = xp.exp(log_alpha), -xp.expm1(log_alpha)
        # sin(turn) = sin(end) cos(start) - cos(end) sin(start), and sin(end) - sin(start) from
        # sin^2(end) - sin^2(start) = cos^2(start) (1 - alpha^2).
        cosine, sine = math.cos(start), math.sin(start)
        end_sine = xp.sqrt(sine**2 + cosine**2 * drop * (1 + alpha))
        rise = cosine**2 * drop * (1 + alpha) / (end_sine + sine)
        turn_sine = cosine * (rise + drop * sine)
        turn_cosine = alpha * cosine**2 + end_sine * sine
        return 2 * (1 + self.offset) / math.pi * xp.arctan2(turn_sine, turn_cosine)


class SubVP(Schedule):
    """The sub-variance-preserving schedule (Song et al. 2021, eq. 29): sigma = 1 - alpha^2."""

    beta_min: Any = 0.1
    beta_max: Any = 20.0

    def __check_init__(self) -> None:
        _check_betas(self.beta_min, self.beta_max)

    def log_alpha(self, t: Any) -> Any:
        return -_linear_betas(_number(t), self.beta_min, self.beta_max)

    def sigma(self, t: Any) -> Any:
        log_alpha = self.log_alpha(t)
        return -namespace(log_alpha).expm1(2 * log_alpha)

    def _log_alpha_rate(self, t: Any) -> Any:
        return -0.5 * (self.beta_min + (self.beta_max - self.beta_min) * _number(t))

    def alpha_rate(self, t: Any) -> Any:
        return self.alpha(t) * self._log_alpha_rate(t)

    def sigma_rate(self, t: Any) -> Any:
        return -2 * self.alpha(t) ** 2 * self._log_alpha_rate(t)

    def log_snr_inverse(self, log_snr: Any) -> Any:
        # (1 - alpha^2) / alpha = q is sinh(-log alpha) = q / 2.
        log_snr = _number(log_snr)
        xp = namespace(log_snr)
        half = xp.arcsinh(0.5 * xp.exp(-log_snr))
        return _linear_betas_inverse(half, self.beta_min, self.beta_max)


class _Exploding(Schedule):
    """alpha = 1."""

    def log_alpha(self, t: Any) -> Any:
        return 0.0 * _number(t)

    def alpha_rate(self, t: Any) -> Any:
        return 0.0 * _number(t)


class VE(_Exploding):
    """Variance exploding (Song et al. 2021, eq. 30): sigma = sigma_min (sigma_max/sigma_min)^t."""

    end: ClassVar[float] = 0.0

    sigma_min: Any = 0.01
    sigma_max: Any = 50.0

    def __check_init__(self) -> None:
        low, high = self.sigma_min, self.sigma_max
        if not is_traced(low, high) and not 0 < low < high:
            raise InputError(f"sigma_min={low} and sigma_max={high} must be positive, in order.")

    def _growth(self) -> Any:
        xp = namespace(self.sigma_min, self.sigma_max)
        ratio = xp.log(self.sigma_max) - xp.log(self.sigma_min)
        return float(ratio) if xp is np else ratio

    def sigma(self, t: Any) -> Any:
        t = _number(t)
        return self.sigma_min * namespace(t, self.sigma_min).exp(self._growth() * t)

    def sigma_rate(self, t: Any) -> Any:
        return self._growth() * self.sigma(t)

    def log_snr(self, t: Any) -> Any:
        xp = namespace(self.sigma_min)
        smallest = xp.log(self.sigma_min)
        return -(float(smallest) if xp is np else smallest) - self._growth() * _number(t)

    def log_snr_inverse(self, log_snr: Any) -> Any:
        xp = namespace(self.sigma_min)
        smallest = xp.log(self.sigma_min)
        smallest = float(smallest) if xp is np else smallest
        return (-_number(log_snr) - smallest) / self._growth()


class EDM(_Exploding):
    """The time is the noise level (Karras et al. 2022, table 1): alpha = 1, sigma = t."""

    begin: ClassVar[float] = 80.0
    end: ClassVar[float] = 0.002
    domain: ClassVar[tuple[float, float]] = (0.0, math.inf)
    grid: ClassVar[str] = "karras"

    def sigma(self, t: Any) -> Any:
        return _number(t)

    def sigma_rate(self, t: Any) -> Any:
        return 0.0 * _number(t) + 1.0

    def log_snr_inverse(self, log_snr: Any) -> Any:
        log_snr = _number(log_snr)
        return namespace(log_snr).exp(-log_snr)


class VPLevel(_VariancePreserving):
    """Variance preserving, and the time is the noise level sigma / alpha.

    For networks trained on samples of unit variance that are told the noise level itself.
    """

    begin: ClassVar[float] = 80.0
    end: ClassVar[float] = 0.002
    domain: ClassVar[tuple[float, float]] = (0.0, math.inf)
    grid: ClassVar[str] = "karras"

    def log_alpha(self, t: Any) -> Any:
        t = _number(t)
        return -0.5 * namespace(t).log1p(t**2)

    def log_alpha_rate(self, t: Any) -> Any:
        t = _number(t)
        return -t / (1 + t**2)

    def log_alpha_inverse(self, log_alpha: Any) -> Any:
        xp = namespace(log_alpha)
        return xp.sqrt(xp.expm1(-2 * log_alpha))

    def sigma(self, t: Any) -> Any:
        t = _number(t)
        return t / namespace(t).sqrt(1 + t**2)

    def sigma_rate(self, t: Any) -> Any:
        return self.alpha(t) ** 3

    def log_snr(self, t: Any) -> Any:
        t = _number(t)
        return -namespace(t).log(t)

    def log_snr_inverse(self, log_snr: Any) -> Any:
        log_snr = _number(log_snr)
        return namespace(log_snr).exp(-log_snr)


class RectifiedFlow(Schedule):
    """Straight lines from data to noise (Liu et al. 2023; Lipman et al. 2023).

    alpha = 1 - t, sigma = t. Time runs from data at 0 to noise at 1, where no signal is left.
    """

    grid: ClassVar[str] = "time"

    def alpha(self, t: Any) -> Any:
        return 1 - _number(t)

    def log_alpha(self, t: Any) -> Any:
        t = _number(t)
        return namespace(t).log1p(-t)

    def sigma(self, t: Any) -> Any:
        return _number(t)

    def alpha_rate(self, t: Any) -> Any:
        return 0.0 * _number(t) - 1.0

    def sigma_rate(self, t: Any) -> Any:
        return 0.0 * _number(t) + 1.0

    def log_snr_inverse(self, log_snr: Any) -> Any:
        log_snr = _number(log_snr)
        xp = namespace(log_snr)
        return xp.exp(-xp.logaddexp(0.0, log_snr))
