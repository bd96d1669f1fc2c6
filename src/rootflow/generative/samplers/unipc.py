"""UniPC: a predictor, and a corrector that uses the next evaluation before it is needed."""

import math
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..grids import Knots
from ..numerics import namespace
from ..schedules import Level, Schedule
from .base import Evaluate, Plan, Sampler, require
from .exponential import Exponential
from .multistep import orders_of_steps, steps_between


class Row(NamedTuple):
    """One evaluation: correct the sample at it, then predict the next.

    corrected = keep x + back base + sum_j corrector[j] m_j;  x <- scale corrected + sum_j ...
    """

    level: Level
    keep: Any
    back: Any
    corrector: Any
    scale: Any
    predictor: Any


class UniPC(Sampler):
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

    def __check_init__(self):
        require(self.order in (1, 2, 3), f"order={self.order!r} must be 1, 2 or 3.")
        require(
            self.variant in ("bh1", "bh2"),
            f"variant={self.variant!r} is not known; use 'bh1' or 'bh2'.",
        )

    @property
    def fewest(self) -> int:
        return self.order

    def plan(self, schedule: Schedule, knots: Knots, orders: tuple[int, ...] | None) -> Plan:
        steps = knots.steps
        require(
            steps >= self.order,
            f"{steps} steps are fewer than the order {self.order} of {self!r}: take more steps, or "
            "a lower order.",
        )
        with np.errstate(all="ignore"):
            rows = self._rows(knots)
        return Plan(rows, np.arange(steps), steps)

    def _rows(self, knots: Knots) -> Row:
        source, target, h, size, before, before_that = steps_between(knots)
        xp = namespace(h)
        steps = knots.steps
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
            predict = [single] if order == 2 else _weights(nodes, sides[: order - 1])
            correct = _weights([*nodes, xp.ones_like(size)], sides[:order])
            arrival = xp.where(now, correct[-1], arrival)
            for j, node in enumerate(nodes):
                slopes[j] = xp.where(now, predict[j] / node, slopes[j])
                corrections[j] = xp.where(now, correct[j] / node, corrections[j])
        first = step.weight(1)
        predictor = [first - sum(slopes), *slopes]
        # Newest value first: at the end of the step, at its start, and before it.
        corrector = [arrival, first - arrival - sum(corrections), *corrections]
        # A step is corrected in the next row, with the evaluation at its end; so the first row has
        # nothing to correct, and the last step is not corrected.
        start = np.arange(steps) == 0
        keep, scale = np.where(start, 1.0, 0.0), step.scale()
        if not self.corrector:
            keep, corrector = np.ones(steps), [0.0 * part for part in corrector]

        def later(part: Any) -> Any:
            return xp.concatenate([xp.zeros_like(part[:1]), part[:-1]])

        back = later(scale) if self.corrector else 0.0 * size
        level = Level(*(part[:-1] for part in knots.level))
        corrector = xp.stack([later(part) for part in corrector], axis=-1)
        return Row(level, keep, back, corrector, scale, xp.stack(predictor, axis=-1))

    def init(self, x: Array) -> Any:
        return x, x, (jnp.zeros_like(x),) * self.order

    def step(self, evaluate: Evaluate, state: Any, row: Row, draw: Array | None) -> Any:
        x, base, past = state
        values = (evaluate(x, row.level), *past)
        if self.corrector:
            x = row.keep * x + row.back * base
            x = x + sum(row.corrector[j] * value for j, value in enumerate(values))
        ahead = row.scale * x
        ahead = ahead + sum(row.predictor[j] * values[j] for j in range(self.order))
        return ahead, x, values[: self.order]

    def sample(self, state: Any) -> Array:
        return state[0]


def _weights(nodes: list[Any], sides: list[Any]) -> list[Any]:
    """Solves sum_j w_j nodes_j^(k-1) = sides_k for the w_j, step by step."""
    xp = namespace(*nodes, *sides)
    powers = xp.stack(
        [xp.stack([r**k for r in nodes], axis=-1) for k in range(len(nodes))], axis=-2
    )
    solved = xp.linalg.solve(powers, xp.stack(sides, axis=-1)[..., None])[..., 0]
    return [solved[..., j] for j in range(len(nodes))]
