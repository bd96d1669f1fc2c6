"""Samplers that evaluate the model several times within a step and remember nothing of the last.

Each turn of the loop is one evaluation, so that steps of different orders go through the same loop
and the model is traced once.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..grids import Knots
from ..numerics import namespace
from ..schedules import Level
from .base import Evaluate, Plan, Sampler


class Row(NamedTuple):
    """One evaluation: x <- scale base + sum_j weights[j] m_j, m_0 the newest value.

    On the first evaluation of a step x, after x <- stretch x + spread z where noise is added,
    becomes the base of the step.
    """

    level: Level
    first: Any
    scale: Any
    weights: Any
    stretch: Any = None
    spread: Any = None


class Stages(NamedTuple):
    """Steps of one order p: arrays of shape (steps,), one for each of the p evaluations.

    `weights[i]` holds those of the i-th evaluation, newest value first.
    """

    levels: list[Level]
    scales: list[Any]
    weights: list[list[Any]]
    stretch: Any = None
    spread: Any = None


def landing(stages: Stages, last: Stages, lands: Any) -> Stages:
    """The steps, and where `lands` in their place those of one evaluation that end on clean data.

    For steps of which only the compiled program knows whether they do. Their other evaluations
    leave the sample where it is.

    Args:
        stages: the steps in general, with finite numbers everywhere.
        last: the same steps with one evaluation each.
        lands: shape (steps,).
    """

    def select(yes: Any, no: Any) -> Any:
        return jnp.where(lands, yes, no)

    depth = len(stages.levels)
    levels = [Level(*map(select, stages.levels[0], level)) for level in stages.levels]
    scales, weights = [], []
    for i in range(depth):
        end = i == depth - 1
        scales.append(select(last.scales[0] if end else 1.0, stages.scales[i]))
        ahead = stages.weights[i]
        first = last.weights[0][0] if end else 0.0  # of m_0, the value at the start of the step
        keep = [0.0] * (len(ahead) - 1) + [first]
        weights.append([select(yes, no) for yes, no in zip(keep, ahead, strict=True)])
    return Stages(levels, scales, weights, stages.stretch, stages.spread)


def interleave(groups: dict[int, Stages], orders: tuple[int, ...]) -> Plan:
    """Puts steps of several orders into the order in which they are taken.

    Args:
        groups: for each order, its steps (those i with `orders[i]` equal to it, ascending).
        orders: the order of every step.
    """
    depth = max(orders)
    first_turns = np.cumsum([0, *orders[:-1]])
    parts, turns = [], []
    for order, stages in groups.items():
        mine = np.flatnonzero(np.asarray(orders) == order)
        for i in range(order):
            scale = stages.scales[i]
            xp = namespace(scale, *stages.weights[i])
            zero, one = xp.zeros_like(scale), xp.ones_like(scale)
            weights = [*stages.weights[i], *[zero] * (depth - len(stages.weights[i]))]
            noise = ()
            if stages.spread is not None:
                noise = (stages.stretch, stages.spread) if i == 0 else (one, zero)
            level = Level(*(xp.broadcast_to(part, zero.shape) for part in stages.levels[i]))
            first = np.full(zero.shape, i == 0)
            parts.append(Row(level, first, scale, xp.stack(weights, axis=-1), *noise))
            turns.append(first_turns[mine] + i)
    where = np.argsort(np.concatenate(turns))

    def merge(*leaves: Any) -> Any:
        return namespace(*leaves).concatenate(leaves)[where]

    rows = jax.tree.map(merge, *parts)
    total = int(sum(orders))
    return Plan(rows, np.cumsum(orders) - 1, total)


class Singlestep(Sampler):
    """A sampler with several evaluations a step, linear in x and in the values of the step."""

    @property
    def depth(self) -> int:
        """How many values of the model a step uses."""
        return self.evaluations

    def init(self, x: Array) -> Any:
        return x, x, (jnp.zeros_like(x),) * (self.depth - 1)

    def step(self, evaluate: Evaluate, state: Any, row: Row, draw: Array | None) -> Any:
        x, base, past = state
        if draw is not None:
            x = row.stretch * x + row.spread * draw
        if self.depth == 1:
            x = row.scale * x + row.weights[0] * evaluate(x, row.level)
            return x, x, past
        base = jnp.where(row.first, x, base)
        values = (evaluate(x, row.level), *past)
        x = row.scale * base + sum(row.weights[j] * value for j, value in enumerate(values))
        return x, base, values[: self.depth - 1]

    def sample(self, state: Any) -> Array:
        return state[0]


def subset(knots: Knots, starts: Any, ends: Any) -> tuple[Level, Level, Any]:
    """The levels at both ends of the steps from knots `starts` to `ends`, and their sizes."""
    source = Level(*(part[starts] for part in knots.level))
    target = Level(*(part[ends] for part in knots.level))
    return source, target, knots.log_snr[ends] - knots.log_snr[starts]
