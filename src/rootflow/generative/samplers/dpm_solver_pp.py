"""DPM-Solver++, multistep and single-step, deterministic and stochastic."""

from typing import Any, Literal

import equinox as eqx

from ..grids import Knots
from ..numerics import namespace
from ..schedules import Schedule
from .base import require
from .exponential import Exponential
from .multistep import Multistep, orders_of_steps, steps_between


class DPMSolverPlusPlus(Multistep):
    """DPM-Solver++ of order 1, 2M or 3M (Lu et al. 2022b, algorithm 2), or SDE-DPM-Solver++.

    One evaluation a step. In the step's own units, with a the slope of the model's value through
    the last two evaluations and b the one before,

    2M:  x_t = scale x_s + w_1 (m_0 + a / 2), or with `rule="taylor"` ... + w_1 m_0 + w_2 a;
    3M:  x_t = scale x_s + w_1 m_0 + w_2 G_1 + w_3 G_2,
         G_1 = a + r_0 / (r_0 + r_1) (a - b),  G_2 = c (a - b) / (r_0 + r_1).

    Attributes:
        order: 1, 2 or 3; the first steps are of lower order while values gather.
        eta: 0 is the differential equation; 1 the stochastic one, SDE-DPM-Solver++.
        rule: how order 2 uses the slope; order 3 is always `"taylor"`.
        strict: in order 3, c = 2, which is of third order. Without it c = 1 as in the published
            code and other libraries, which is of second order and often better below 20 steps.
        lower_order_final: lower the order of the last steps; by default below 10 steps.
        form: `"data"`, or `"noise"` for multistep DPM-Solver on the noise prediction.
    """

    order: int = eqx.field(static=True, default=2)
    eta: float = eqx.field(static=True, default=0.0)
    rule: Literal["midpoint", "taylor"] = eqx.field(static=True, default="midpoint")
    strict: bool = eqx.field(static=True, default=False)
    lower_order_final: bool | None = eqx.field(static=True, default=None)
    form: Literal["data", "noise"] = eqx.field(  # pyright: ignore[reportIncompatibleVariableOverride]
        static=True, default="data", kw_only=True
    )

    def __check_init__(self) -> None:
        require(self.order in (1, 2, 3), f"order={self.order!r} must be 1, 2 or 3.")
        require(self.eta >= 0, f"eta={self.eta} must not be negative.")
        require(
            self.rule in ("midpoint", "taylor"),
            f"rule={self.rule!r} is not known; use 'midpoint' or 'taylor'.",
        )
        require(self.form in ("data", "noise"), f"form={self.form!r} must be 'data' or 'noise'.")
        require(
            self.form == "data" or self.eta in (0, 1),
            f"eta={self.eta} must be 0 or 1 in the noise form.",
        )

    @property
    def noisy(self) -> bool:
        return self.eta > 0

    @property
    def depth(self) -> int:
        return self.order

    def coefficients(self, schedule: Schedule, knots: Knots) -> tuple[Any, list[Any], Any]:
        source, target, h, size, before, before_that = steps_between(knots)
        xp = namespace(h)
        step = Exponential(self.form, source, target, h, self.eta)
        orders = orders_of_steps(self.order, knots, self.lower_order_final)
        # a = (m_0 - m_1) / r_0 and b = (m_1 - m_2) / r_1; each order says what it makes of them.
        inverse_0, inverse_1 = size / before, size / before_that
        on_a, on_b = xp.zeros_like(h), xp.zeros_like(h)
        if self.order > 1:
            second = 0.5 * step.weight(1) if self.rule == "midpoint" else step.weight(2)
            on_a = xp.where(orders == 2, second, on_a)
        if self.order > 2:
            c = 2.0 if self.strict else 1.0
            share = before / (before + before_that)  # r_0 / (r_0 + r_1)
            curve = c * step.weight(3) * size / (before + before_that)
            on_a = xp.where(orders == 3, step.weight(2) * (1 + share) + curve, on_a)
            on_b = xp.where(orders == 3, -step.weight(2) * share - curve, on_b)
        by_0 = xp.where(orders > 1, on_a * inverse_0, 0.0)
        by_1 = xp.where(orders > 2, on_b * inverse_1, 0.0)
        weights = [step.weight(1) + by_0, by_1 - by_0, -by_1][: self.order]
        return step.scale(), weights, step.spread() if self.noisy else None
