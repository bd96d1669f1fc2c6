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
    eta: float = 0.0

    def _finite_step(self) -> Any:
        # A step to clean data is infinite in log_snr: only weight(1) has a meaning there.
        xp = namespace(self.h)
        return xp.where(xp.isfinite(self.h), self.h, 1.0)

    def scale(self) -> Any:
        """The coefficient of x_s."""
        if self.form == "noise":
            return self.target.alpha / self.source.alpha
        ratio = self.target.sigma / self.source.sigma
        return ratio * namespace(self.h).exp(-self.eta * self.h) if self.eta else ratio

    def weight(self, k: int) -> Any:
        """The coefficient of the k-th coefficient of m, counted from 1."""
        xp = namespace(self.h)
        if k == 1:  # in a form that bears an infinite step
            if self.form == "data":
                towards_data = -self.target.alpha * xp.expm1(-(1 + self.eta) * self.h)
                if self.eta:
                    return towards_data
                reach = self.source.alpha * self.target.sigma / self.source.sigma
                return xp.where(self.h > 0, towards_data, reach * xp.expm1(self.h))
            reach = self.target.alpha * self.source.sigma / self.source.alpha
            return (1 + self.eta) * reach * xp.expm1(-self.h)
        h = self._finite_step()
        if self.form == "data":
            w = (1 + self.eta) * h
            return self.target.alpha * w * phi(k, -w)
        return -(1 + self.eta) * self.target.sigma * h * phi(k, h)

    def spread(self) -> Any:
        """The standard deviation of the noise that is added."""
        xp = namespace(self.h)
        if self.form == "data":
            return self.target.sigma * xp.sqrt(-xp.expm1(-2 * self.eta * self.h))
        # sigma_t sqrt(e^(2h) - 1), without the overflow of a step to clean data.
        reach = self.target.alpha * self.source.sigma / self.source.alpha
        return self.eta * reach * xp.sqrt(-xp.expm1(-2 * self.h))
