"""DPM-Solver: single steps of order 1, 2 and 3, on the noise or on the data prediction."""

from typing import Any, Literal

import equinox as eqx
import numpy as np

from ...errors import InputError
from ...ground.tracing import is_traced
from ..grids import Knots, noisy_throughout
from ..schedules import Schedule
from .base import Plan, require
from .exponential import Exponential
from .singlestep import Singlestep, Stages, interleave, landing, subset


def fast_orders(order: int, evaluations: int) -> tuple[int, ...]:
    """Orders of the steps of DPM-Solver-fast (Lu et al. 2022, sec. 3.4): they cost `evaluations`.

    As many steps of `order` as fit, and lower ones at the end. In order 3 the last step is never of
    order 3.
    """
    if order == 1:
        return (1,) * evaluations
    if order == 2:
        return (2,) * (evaluations // 2) + (1,) * (evaluations % 2)
    whole, rest = divmod(evaluations, 3)
    tail = {0: (2, 1), 1: (1,), 2: (2,)}[rest]
    return (3,) * (whole - (rest == 0)) + tail


class DPMSolver(Singlestep):
    """DPM-Solver-1, -2 or -3 (Lu et al. 2022, algorithms 1 and 2), or their data form.

    With `steps=n` every step is of the given order and costs as many evaluations; with
    `evaluations=n` the orders are those of DPM-Solver-fast, which cost exactly n.

    2:  u = x_{r_1}, one first-order step to log_snr_s + r_1 h;
        x_t = scale x_s + w_1 m_0 + w_1 / (2 r_1) (m_1 - m_0)       r_1 = 1/2
    3:  u_2 = first-order step to r_2 + r_2 / r_1 w_2 (m_1 - m_0);
        x_t = scale x_s + w_1 m_0 + w_2 / r_2 (m_2 - m_0)           r_1 = 1/3, r_2 = 2/3

    Attributes:
        order: 1, 2 or 3.
        form: `"noise"` for DPM-Solver, `"data"` for DPM-Solver++ S. The data form is far better
            with few steps, and with guidance.
        rule: `"standard"` as above, or `"taylor"`, which uses every value of the step in a Taylor
            expansion.
    """

    order: int = eqx.field(static=True, default=2)
    form: Literal["data", "noise"] = eqx.field(  # pyright: ignore[reportIncompatibleVariableOverride]
        static=True, default="noise", kw_only=True
    )
    rule: Literal["standard", "taylor"] = eqx.field(static=True, default="standard")

    def __check_init__(self) -> None:
        require(self.order in (1, 2, 3), f"order={self.order!r} must be 1, 2 or 3.")
        require(self.form in ("data", "noise"), f"form={self.form!r} must be 'data' or 'noise'.")
        require(
            self.rule in ("standard", "taylor"),
            f"rule={self.rule!r} is not known; use 'standard' or 'taylor'.",
        )

    @property
    def evaluations(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.order

    def budget(self, evaluations: int, log_snr_grid: bool) -> tuple[int, tuple[int, ...] | None]:
        orders = fast_orders(self.order, evaluations)
        # On other grids the evaluations themselves stand on the grid (released code).
        return (len(orders) if log_snr_grid else evaluations), orders

    def plan(self, schedule: Schedule, knots: Knots, orders: tuple[int, ...] | None) -> Plan:
        between = orders is not None and sum(orders) + knots.clean == knots.steps
        if orders is None:
            orders = (self.order,) * (knots.steps - knots.clean)
        if knots.clean:
            orders = (*orders, 1)
        orders = _checked(orders, knots, between)
        starts = np.cumsum([0, *(orders[:-1] if between else (1,) * (len(orders) - 1))])
        ends = np.append(starts[1:], knots.steps)
        groups = {}
        with np.errstate(all="ignore"):
            whole = noisy_throughout(schedule, knots)
            for order in sorted(set(orders)):
                mine = np.flatnonzero(np.asarray(orders) == order)
                begin, end = starts[mine], ends[mine]
                fractions = [i / order for i in range(1, order)]
                if between:
                    inner = [whole.log_snr[begin + i] for i in range(1, order)]
                    h = whole.log_snr[end] - whole.log_snr[begin]
                    fractions = [(at - whole.log_snr[begin]) / h for at in inner]
                single = order == 1
                stages = self._stages(schedule, knots if single else whole, begin, end, fractions)
                if not single and is_traced(knots.lands):
                    last = self._stages(schedule, knots, begin, end, [])
                    stages = landing(stages, last, (end == knots.steps) & knots.lands)
                groups[order] = stages
        return interleave(groups, orders, ends)

    def _stages(
        self, schedule: Schedule, knots: Knots, starts: Any, ends: Any, r: list[Any]
    ) -> Stages:
        """The evaluations of steps from `starts` to `ends`, with stages at fractions `r` of h."""
        source, target, begin, h = subset(knots, starts, ends)
        middle = [schedule.level(schedule.log_snr_inverse(begin + r_i * h)) for r_i in r]
        to = [Exponential(self.form, source, level, r_i * h) for level, r_i in zip(middle, r)]
        to.append(Exponential(self.form, source, target, h))
        taylor = self.rule == "taylor"
        return Stages([source, *middle], [part.scale() for part in to], step_weights(to, r, taylor))


def step_weights(to: list[Exponential], r: list[Any], taylor: bool) -> list[list[Any]]:
    """Weights of the model's values for each evaluation of one step, newest value first.

    Args:
        to: from the beginning of the step to each of its stages and to its end.
        r: the stages' fractions of the step.
        taylor: which rule for the last combination.
    """
    weights = [[to[0].weight(1)]]
    if len(to) == 2:
        slope = to[1].weight(2) / r[0] if taylor else to[1].weight(1) / (2 * r[0])
        weights.append([slope, to[1].weight(1) - slope])
    if len(to) == 3:
        bend = r[1] / r[0] * to[1].weight(2)
        weights.append([bend, to[1].weight(1) - bend])
        first, last = 0.0 * r[1], to[2].weight(2) / r[1]
        if taylor:
            # The parabola through the three values: G_1 its slope, G_2 its curvature at 0.
            gap = r[1] - r[0]
            curve = 2 * to[2].weight(3)
            first = (to[2].weight(2) * r[1] - curve) / (gap * r[0])
            last = (curve - to[2].weight(2) * r[0]) / (gap * r[1])
        weights.append([last, first + 0 * last, to[2].weight(1) - last - first])
    return weights


def _checked(orders: tuple[int, ...], knots: Knots, between: bool) -> tuple[int, ...]:
    wanted = sum(orders) if between else len(orders)
    if wanted != knots.steps:
        raise InputError(
            f"{knots.steps} steps of the grid do not go with evaluations={sum(orders)}: give a "
            "grid by name, or times for each evaluation."
        )
    return orders
