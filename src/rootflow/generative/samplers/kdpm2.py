"""Second-order steps of k-diffusion, in the noise level, deterministic and ancestral."""

import equinox as eqx

from ..grids import Knots
from ..numerics import namespace
from ..schedules import Schedule
from .base import Plan, require
from .ddim import transfer
from .exponential import Exponential
from .singlestep import Singlestep, Stages, Steps, landing_plan


class KDPM2(Singlestep):
    """DPM-Solver-2 as in k-diffusion (`sample_dpm_2`, `sample_dpm_2_ancestral`).

    A midpoint step in the noise level, with the middle in log_snr. With eta = 0 it is
    `DPMSolver(order=2)`. Else it goes down to the level rho sqrt(1 - eta^2 (1 - e^(-2h))), rho that
    of the end, and adds noise up to rho. A step to clean data is an Euler step.

    Attributes:
        eta: from 0, deterministic, to 1.
    """

    form = "noise"
    evaluations = 2

    eta: float = eqx.field(static=True, default=0.0)

    def __check_init__(self) -> None:
        require(0 <= self.eta <= 1, f"eta={self.eta} must be at least 0 and at most 1.")

    @property
    def noisy(self) -> bool:
        return self.eta > 0

    def plan(self, schedule: Schedule, knots: Knots, orders: tuple[int, ...] | None) -> Plan:
        def stages(steps: Steps, order: int) -> Stages:
            return self._stages(schedule, steps, order)

        return landing_plan(schedule, knots, 2, stages)

    def _stages(self, schedule: Schedule, steps: Steps, order: int) -> Stages:
        source, target, begin, h = steps
        xp = namespace(h)
        step = Exponential("data", source, target, h)
        rho, end = source.sigma / source.alpha, target.sigma / target.alpha
        fresh = step.shrink(2.0)
        kept = step.decay() if self.eta == 1 else xp.sqrt(1 - self.eta**2 * fresh)
        down = end * kept if self.eta else end
        up = target.alpha * self.eta * end * xp.sqrt(fresh)
        scale, change = target.alpha / source.alpha, target.alpha * (down - rho)
        if order == 1:
            return Stages([source], [scale], [[change]], after=[up] if self.noisy else None)
        reach = h - xp.log(kept) if self.eta else h  # of the deterministic part, in log_snr
        middle = schedule.level(schedule.log_snr_inverse(begin + 0.5 * reach))
        first = Exponential("noise", source, middle, 0.5 * reach)
        return Stages(
            [source, middle],
            [first.scale(), scale],
            [[first.weight(1)], [change, 0.0 * change]],
            after=[0.0 * up, up] if self.noisy else None,
        )


class DPMSolverSDE(Singlestep):
    """Stochastic single steps of DPM-Solver++ of second order (k-diffusion, `sample_dpmpp_sde`).

    From s to t by way of the level at the fraction r of the step in log_snr, each with the transfer
    of `DDIM(eta)`: x_u from m_0, then x_t from (1 - 1/(2r)) m_0 + 1/(2r) m_u. The noise of both is
    of one Brownian path over the noise level, so that what was drawn for x_u is a part of what x_t
    is given. A step to clean data is a step to the predicted data.

    Attributes:
        eta: from 0, deterministic (then it is `DPMSolver(order=2, form="data")`), to 1.
        r: where the middle is, above 0 and below 1.
    """

    evaluations = 2

    eta: float = eqx.field(static=True, default=1.0)
    r: float = eqx.field(static=True, default=0.5)

    def __check_init__(self) -> None:
        require(0 <= self.eta <= 1, f"eta={self.eta} must be at least 0 and at most 1.")
        require(0 < self.r < 1, f"r={self.r} must be above 0 and below 1.")

    @property
    def noisy(self) -> bool:
        return self.eta > 0

    @property
    def echoes(self) -> bool:
        return self.noisy

    def plan(self, schedule: Schedule, knots: Knots, orders: tuple[int, ...] | None) -> Plan:
        def stages(steps: Steps, order: int) -> Stages:
            return self._stages(schedule, steps, order)

        return landing_plan(schedule, knots, 2, stages)

    def _stages(self, schedule: Schedule, steps: Steps, order: int) -> Stages:
        source, target, begin, h = steps
        xp = namespace(h)
        scale, weight, spread = transfer(Exponential("data", source, target, h), self.eta)
        if order == 1:
            noise = ([spread], [0.0 * spread]) if self.noisy else (None, None)
            return Stages([source], [scale], [[weight]], after=noise[0], echo=noise[1])
        middle = schedule.level(schedule.log_snr_inverse(begin + self.r * h))
        inner = Exponential("data", source, middle, self.r * h)
        first_scale, first_weight, first_spread = transfer(inner, self.eta)
        late = weight / (2 * self.r)
        after = echo = None
        if self.noisy:
            # Of the path's increment over the step, the share that belongs to its first part:
            # (rho_s - rho_u) / (rho_s - rho_t), rho = e^-log_snr.
            share = xp.expm1(-self.r * h) / xp.expm1(-h)
            after = [first_spread, spread * xp.sqrt(1 - share)]
            echo = [0.0 * spread, spread * xp.sqrt(share)]
        return Stages(
            [source, middle],
            [first_scale, scale],
            [[first_weight], [late, weight - late]],
            after=after,
            echo=echo,
        )
