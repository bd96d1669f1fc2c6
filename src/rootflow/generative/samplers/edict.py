"""EDICT: two coupled samples, each moved with the noise seen at the other."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Array

from ..grids import Knots
from ..schedules import Level, Schedule
from .base import Evaluate, Plan, Reversible, require
from .exponential import Exponential
from .multistep import steps_between


class Row(NamedTuple):
    """One step: a and b of the DDIM step a x + b eps."""

    level: Level
    scale: Any
    weight: Any


class EDICT(Reversible):
    """Exact diffusion inversion by coupled transformations (Wallace, Gokul and Naik 2023, eq. 14).

    x' = a x + b eps(y), y' = a y + b eps(x'), then both are mixed: x <- p x' + (1 - p) y',
    y <- p y' + (1 - p) x. Two evaluations a step. The two drift apart where steps are large. Mixing
    multiplies x - y by p^2, so that going back multiplies rounding errors by p^-2 each step.

    Attributes:
        mix: p, above 0 and at most 1.
    """

    form = "noise"
    evaluations = 2
    knob = "mix"

    mix: float = eqx.field(static=True, default=0.93)

    def __check_init__(self) -> None:
        require(0 < self.mix <= 1, f"mix={self.mix} must be above 0 and at most 1.")

    def plan(self, schedule: Schedule, knots: Knots, orders: tuple[int, ...] | None) -> Plan:
        with np.errstate(all="ignore"):
            source, target, h, *_ = steps_between(knots)
            step = Exponential("noise", source, target, h)
            rows = Row(source, step.scale(), step.weight(1))
        return Plan(rows, np.arange(knots.steps), 2 * knots.steps, ())

    def init(self, x: Array) -> tuple[Array, Array]:
        return x, x

    def step(self, evaluate: Evaluate, state: Any, row: Row, draw: Array | None) -> Any:
        x, y = state
        x = row.scale * x + row.weight * evaluate(y, row.level)
        y = row.scale * y + row.weight * evaluate(x, row.level)
        x = self.mix * x + (1 - self.mix) * y
        y = self.mix * y + (1 - self.mix) * x
        return x, y

    def back(self, evaluate: Evaluate, state: Any, row: Row) -> Any:
        x, y = state
        y = (y - (1 - self.mix) * x) / self.mix
        x = (x - (1 - self.mix) * y) / self.mix
        y = (y - row.weight * evaluate(x, row.level)) / row.scale
        x = (x - row.weight * evaluate(y, row.level)) / row.scale
        return x, y

    def turn(self, evaluate: Evaluate, x: Array, row: Any) -> Any:
        return x, x

    def sample(self, state: Any) -> Array:
        return state[0]

    def put(self, state: Any, x: Array) -> Any:
        # The other sample moves along, or mixing would undo the change.
        return x, state[1] + (x - state[0])

    def growth(self, steps: int) -> float:
        # In logarithms: a power that overflows is as bad as any.
        return math.exp(min(-2 * steps * math.log(self.mix), 700.0))
