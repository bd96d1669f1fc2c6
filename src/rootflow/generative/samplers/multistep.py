"""Samplers that remember what the model said at earlier steps: one evaluation a step."""

from abc import abstractmethod
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from ..grids import Knots
from ..numerics import namespace
from ..schedules import Level, Schedule
from .base import Evaluate, Plan, Sampler, require

LOWER_BELOW = 10
"""With fewer steps than this the last ones are of lower order (Lu et al. 2022b, released code)."""


class Row(NamedTuple):
    """One step: x <- scale x + sum_j weights[j] m_j + spread z, m_0 the newest evaluation."""

    level: Level
    scale: Any
    weights: Any
    spread: Any


class Multistep(Sampler):
    """A sampler that is linear in x and in the last few values of the model."""

    @property
    @abstractmethod
    def depth(self) -> int:
        """How many values of the model a step uses."""

    @abstractmethod
    def coefficients(self, schedule: Schedule, knots: Knots) -> tuple[Any, list[Any], Any]:
        """scale (steps,), weights (a list of arrays (steps,), newest first), and spread."""

    @property
    def forgetful(self) -> bool:
        return self.depth == 1

    @property
    def fewest(self) -> int:
        return self.depth

    def plan(self, schedule: Schedule, knots: Knots, orders: tuple[int, ...] | None) -> Plan:
        steps = knots.steps
        require(
            steps >= self.fewest,
            f"{steps} steps are fewer than the order {self.fewest} of {self!r}: take more steps, "
            "or a lower order.",
        )
        with np.errstate(all="ignore"):  # an infinite step, to or from an end of the schedule
            scale, weights, spread = self.coefficients(schedule, knots)
        xp = namespace(scale, *weights)
        level = Level(*(part[:-1] for part in knots.level))
        rows = Row(level, scale, xp.stack(weights, axis=-1), spread if self.noisy else None)
        return Plan(rows, np.arange(steps), steps)

    def init(self, x: Array) -> tuple[Array, tuple[Array, ...]]:
        return x, (jnp.zeros_like(x),) * (self.depth - 1)

    def step(self, evaluate: Evaluate, state: Any, row: Row, draw: Array | None) -> Any:
        x, past = state
        values = (evaluate(x, row.level), *past)
        x = row.scale * x + sum(row.weights[j] * value for j, value in enumerate(values))
        if draw is not None:
            x = x + row.spread * draw
        return x, values[: self.depth - 1]

    def sample(self, state: Any) -> Array:
        return state[0]

    def put(self, state: Any, x: Array) -> Any:
        return (x, *state[1:])


def orders_of_steps(
    order: int, knots: Knots, lower_order_final: bool | None
) -> Int[np.ndarray, " steps"] | Int[Array, " steps"]:
    """The order of each step: rising from 1 as values gather, and falling again if asked to.

    A step to clean data is always of order 1: beyond the last evaluation nothing is known. So is
    one from where there is no signal, whose value is infinitely far away in log_snr and serves no
    later step. Traced where the times are, and then the same as for times that are known.
    """
    steps = knots.steps
    orders = np.minimum(np.arange(1, steps + 1), order)
    lower = steps < LOWER_BELOW if lower_order_final is None else lower_order_final
    if lower:
        orders = np.minimum(orders, np.arange(steps, 0, -1))
    xp = namespace(knots.log_snr)
    begins, ends = xp.isinf(knots.log_snr[0]), xp.isinf(knots.log_snr[-1])
    forgetful = np.minimum(orders, np.maximum(np.arange(steps), 1))
    orders = xp.where(begins, forgetful, orders)
    return xp.where(ends & (np.arange(steps) == steps - 1), 1, orders)


class Steps(NamedTuple):
    """The steps between knots: ends of each, its size in log_snr, and sizes of those before it.

    `h` is infinite at ends without signal or noise. `size` and the earlier sizes are finite, with
    any number in the place of an infinite one, which `orders_of_steps` keeps out of use; those
    that do not exist are stood in for by the step's own size.
    """

    source: Level
    target: Level
    h: Any
    size: Any
    before: Any
    before_that: Any


def steps_between(knots: Knots) -> Steps:
    """Takes the knots apart into steps."""
    source = Level(*(part[:-1] for part in knots.level))
    target = Level(*(part[1:] for part in knots.level))
    xp = namespace(knots.log_snr)
    h = knots.log_snr[1:] - knots.log_snr[:-1]
    size = xp.where(xp.isfinite(h), h, 1.0)
    before = xp.concatenate([size[:1], size[:-1]])
    before_that = xp.concatenate([before[:1], before[:-1]])
    return Steps(source, target, h, size, before, before_that)
