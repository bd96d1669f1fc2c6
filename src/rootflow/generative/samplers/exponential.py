"""The exact linear part of a step, shared by every sampler that integrates in log_snr.

From s to t with h = log_snr(t) - log_snr(s) > 0, and the model's value m a polynomial in the
fraction u of the step, m = m_0 + m_1 u + m_2 u^2 / 2 + ..., the probability-flow equation has the
solution (Lu et al. 2022, prop. 3.1; Lu et al. 2022b, prop. 4.1)

    x_t = scale x_s + sum_k weight(k + 1) m_k,

    noise form:  scale = alpha_t / alpha_s,   weight(k) = -sigma_t h phi_k(h),
    data form:   scale = sigma_t / sigma_s,   weight(k) =  alpha_t h phi_k(-h).

A stochastic step with strength eta >= 0 has w = (1 + eta) h in the place of h in the data form,
scale = sigma_t / sigma_s e^(-eta h), and adds sigma_t sqrt(1 - e^(-2 eta h)) z; in the noise form
(eta is 0 or 1) the weights are doubled and sigma_t sqrt(e^(2h) - 1) z is added (Lu et al. 2022b,
sec. 4.3 and app. A).

A step is infinite if it begins where there is no signal or ends where there is no noise. There only
weight(1) has a meaning. It is then worked out from the levels, e^-h = alpha_s sigma_t / (sigma_s
alpha_t), and so is its derivative, which is finite. In the noise form a step to clean data ends on
the data that the model says, without any noise, whatever eta is.
"""

from typing import Any, NamedTuple

from ..numerics import namespace, phi
from ..schedules import Level


class Exponential(NamedTuple):
    """The pieces of a step of size h, from the noise level `source` to `target`."""

    form: str
    source: Level
    target: Level
    h: Any
    eta: Any = 0.0  # or one a step, in the data form

    def _stochastic(self) -> bool:
        return not isinstance(self.eta, int | float) or self.eta != 0

    def _infinite(self) -> Any:
        return ~namespace(self.h).isfinite(self.h)

    def _finite_step(self) -> Any:
        return namespace(self.h).where(self._infinite(), 1.0, self.h)

    def decay(self, power: Any = 1.0) -> Any:
        """e^(-power h) for power >= 0."""
        xp, infinite = namespace(self.h), self._infinite()
        below = xp.where(infinite, self.source.sigma * self.target.alpha, 1.0)
        ratio = xp.where(infinite, self.source.alpha * self.target.sigma, 1.0) / below
        if not (isinstance(power, int | float) and power == 1):
            ratio = ratio**power
        return xp.where(infinite, ratio, xp.exp(-power * self._finite_step()))

    def shrink(self, power: Any = 1.0) -> Any:
        """1 - e^(-power h) for power > 0, to round-off."""
        xp, infinite = namespace(self.h), self._infinite()
        return xp.where(infinite, 1 - self.decay(power), -xp.expm1(-power * self._finite_step()))

    def scale(self) -> Any:
        """The coefficient of x_s."""
        if self.form == "noise":
            return self.target.alpha / self.source.alpha
        ratio = self.target.sigma / self.source.sigma
        return ratio * self.decay(self.eta) if self._stochastic() else ratio

    def weight(self, k: int) -> Any:
        """The coefficient of the k-th coefficient of m, counted from 1."""
        xp, h = namespace(self.h), self._finite_step()
        if k == 1 and self.form == "data":
            if self._stochastic():
                return self.target.alpha * self.shrink(1 + self.eta)
            reach = self.source.alpha * self.target.sigma / self.source.sigma
            finite = xp.where(h > 0, -self.target.alpha * xp.expm1(-h), reach * xp.expm1(h))
            return xp.where(self._infinite(), self.target.alpha - reach, finite)
        if k == 1:
            reach = self.target.alpha * self.source.sigma / self.source.alpha
            finite = (1 + self.eta) * reach * xp.expm1(-h)
            return xp.where(self._infinite(), self.target.sigma - reach, finite)
        if self.form == "data":
            w = (1 + self.eta) * h
            return self.target.alpha * w * phi(k, -w)
        return -(1 + self.eta) * self.target.sigma * h * phi(k, h)

    def spread(self) -> Any:
        """The standard deviation of the noise that is added."""
        xp = namespace(self.h)
        if self.form == "data":
            return self.target.sigma * xp.sqrt(self.shrink(2 * self.eta))
        # sigma_t sqrt(e^(2h) - 1) without an overflow.
        reach = self.target.alpha * self.source.sigma / self.source.alpha
        spread = self.eta * reach * xp.sqrt(-xp.expm1(-2 * self._finite_step()))
        return xp.where(self._infinite(), 0.0, spread)
