"""UniPC: a predictor, and a corrector that uses the next evaluation before it is needed."""

import math
from typing import Any, Literal

import equinox as eqx

from ..grids import Knots
from ..numerics import namespace
from ..schedules import Schedule
from .base import require
from .corrected import Corrected, order_weights
from .exponential import Exponential
from .multistep import orders_of_steps, steps_between


class UniPC(Corrected):
    """UniPC of order 1, 2 or 3 in the data form (Zhao et al. 2023, algorithms 1, 2 and app. C).

    One evaluation a step: the value at the predicted sample serves the corrector of that step and
    the predictor of the next. With the corrector the order rises by one.

    Attributes:
        order: of the predictor.
        variant: `"bh2"`, B(h) = e^h - 1, or `"bh1"`, B(h) = h where that is finite.
        corrector: without it this is UniP.
        lower_order_final: lower the order of the last steps; by default below 10 steps.
    """

    order: int = eqx.field(static=True, default=2)
    variant: Literal["bh1", "bh2"] = eqx.field(static=True, default="bh2")
    corrector: bool = eqx.field(static=True, default=True)
    lower_order_final: bool | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        require(self.order in (1, 2, 3), f"order={self.order!r} must be 1, 2 or 3.")
        require(
            self.variant in ("bh1", "bh2"),
            f"variant={self.variant!r} is not known; use 'bh1' or 'bh2'.",
        )

    @property
    def nodes(self) -> tuple[int, int]:
        return self.order, self.order + 1 if self.corrector else 0

    def coefficients(
        self, schedule: Schedule, knots: Knots
    ) -> tuple[Any, list[Any], list[Any], Any]:
        source, target, h, size, before, before_that = steps_between(knots)
        xp = namespace(h)
        orders = orders_of_steps(self.order, knots, self.lower_order_final)
        step = Exponential("data", source, target, h)
        # The order conditions of both are sum_j w_j r_j^(k-1) = k! weight(k + 1), with r_j < 0
        # where an earlier evaluation stands, in units of the step, and r = 1 at its end. A single
        # difference is given half of B(h) instead (sec. 3.1 there).
        sides = [math.factorial(k) * step.weight(k + 1) for k in range(1, self.order + 1)]
        single = 0.5 * step.weight(1)
        if self.variant == "bh1":  # of an infinite step only the other B(h) is finite
            single = xp.where(xp.isfinite(h), 0.5 * target.alpha * size, single)
        r = [-before / size, -(before + before_that) / size][: self.order - 1]
        slopes = [xp.zeros_like(size)] * (self.order - 1)
        corrections, arrival = list(slopes), single
        for order in range(2, self.order + 1):
            now = orders == order
            # Any other numbers keep the equations solvable where this order is not used.
            nodes = [xp.where(now, r_j, -1.0 - j) for j, r_j in enumerate(r[: order - 1])]
            predict = [single] if order == 2 else order_weights(nodes, sides[: order - 1])
            correct = order_weights([*nodes, xp.ones_like(size)], sides[:order])
            arrival = xp.where(now, correct[-1], arrival)
            for j, node in enumerate(nodes):
                slopes[j] = xp.where(now, predict[j] / node, slopes[j])
                corrections[j] = xp.where(now, correct[j] / node, corrections[j])
        first = step.weight(1)
        predictor = [first - sum(slopes), *slopes]
        # Newest value first: at the end of the step, at its start, and before it.
        corrector = [arrival, first - arrival - sum(corrections), *corrections]
        return step.scale(), predictor, corrector if self.corrector else [], None
