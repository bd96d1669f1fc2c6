"""The samplers of Karras et al. (2022): Runge-Kutta steps in the noise level, with churn."""

import math
from typing import Any

import equinox as eqx
import numpy as np

from ...ground.tracing import is_traced
from ..grids import Knots
from ..numerics import namespace
from ..schedules import Level, Schedule
from .base import Plan, require
from .singlestep import Singlestep, Stages, Steps, landing_plan

# Butcher tableaus of the steps: the rows of stages after the first, the last the step itself.
_TABLEAUS: dict[int, list[list[float]]] = {
    1: [[1.0]],
    2: [[1.0], [1 / 2, 1 / 2]],
    4: [[1 / 2], [0.0, 1 / 2], [0.0, 0.0, 1.0], [1 / 6, 1 / 3, 1 / 3, 1 / 6]],
}


class EDMSampler(Singlestep):
    """Euler (1), Heun (2) or classical Runge-Kutta (4) steps in the noise level sigma / alpha.

    In y = x / alpha and rho = sigma / alpha the probability-flow equation is dy/drho = eps, on
    every schedule. With `churn` each step first adds noise, up to the level rho (1 + g),
    g = min(churn / steps, sqrt 2 - 1), and starts from there (algorithm 2); order 2 without it is
    algorithm 1. A step to clean data (`denoise=True`) is an Euler step, as there.

    Attributes:
        order: 1, 2 or 4.
        churn: S_churn; 0 is deterministic.
        churn_from: S_min, the least noise level with churn.
        churn_to: S_max, the largest.
        churn_scale: S_noise, the standard deviation of the added noise, in its own units.
    """

    form = "noise"

    order: int = eqx.field(static=True, default=2)
    churn: float = eqx.field(static=True, default=0.0)
    churn_from: float = eqx.field(static=True, default=0.0)
    churn_to: float = eqx.field(static=True, default=math.inf)
    churn_scale: float = eqx.field(static=True, default=1.0)

    def __check_init__(self) -> None:
        require(self.order in _TABLEAUS, f"order={self.order!r} must be 1, 2 or 4.")
        require(self.churn >= 0, f"churn={self.churn} must not be negative.")
        require(
            0 <= self.churn_from < self.churn_to,
            f"churn_from={self.churn_from} must not be negative and lie below "
            f"churn_to={self.churn_to}.",
        )

    @property
    def evaluations(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.order

    @property
    def noisy(self) -> bool:
        return self.churn > 0

    def plan(self, schedule: Schedule, knots: Knots, orders: tuple[int, ...] | None) -> Plan:
        def stages(steps: Steps, order: int) -> Stages:
            return self._stages(schedule, steps.source, steps.target, order, knots.steps)

        return landing_plan(schedule, knots, self.order, stages)

    def _stages(
        self, schedule: Schedule, source: Level, target: Level, order: int, steps: int
    ) -> Stages:
        stretch = spread = None
        if self.noisy:
            churned, added = self._churned(schedule, source, steps)
            stretch = churned.alpha / source.alpha
            spread = churned.alpha * added
            source = churned
        begin, end = source.sigma / source.alpha, target.sigma / target.alpha
        xp = namespace(begin, end)
        tableau = _TABLEAUS[order]
        levels = [source]
        for row in tableau[:-1]:
            at = begin + sum(row) * (end - begin)
            last = sum(row) == 1.0
            levels.append(target if last else schedule.level(schedule.log_snr_inverse(-xp.log(at))))
        reached = [*levels[1:], target]
        scales = [level.alpha / source.alpha for level in reached]
        weights = [
            [level.alpha * (end - begin) * entry for entry in reversed(row)]
            for level, row in zip(reached, tableau)
        ]
        return Stages(levels, scales, weights, stretch, spread)

    def _churned(self, schedule: Schedule, source: Level, steps: int) -> tuple[Level, Any]:
        """The level after noise is added, and how much of it, in the units of x / alpha."""
        rho = source.sigma / source.alpha
        xp = namespace(rho)
        growth = min(self.churn / steps, math.sqrt(2) - 1)
        growth = xp.where((rho >= self.churn_from) & (rho <= self.churn_to), growth, 0.0)
        time = schedule.log_snr_inverse(-xp.log(rho * (1 + growth)))
        # Where nothing is added the time is as it was, to the last digit.
        time = xp.where(growth > 0, time, source.t)
        if not is_traced(time):
            high = schedule.domain[1]
            worst = float(np.max(np.asarray(time)))
            require(
                worst <= high,
                f"Churn would raise the noise to time {worst:.4g}, beyond the schedule, which ends "
                f"at {high:.4g}: set churn_to below the first noise level, or begin later.",
            )
        added = rho * xp.sqrt(growth * (2 + growth)) * self.churn_scale
        return schedule.level(time), added
