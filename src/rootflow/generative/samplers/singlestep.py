"""Samplers that evaluate the model several times within a step and remember nothing of the last.

Each turn of the loop is one evaluation, so that steps of different orders go through the same loop
and the model is traced once.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ...ground.tracing import is_traced
from ..grids import Knots, noisy_throughout
from ..numerics import namespace
from ..schedules import Level, Schedule
from .base import Evaluate, Plan, Sampler


class Row(NamedTuple):
    """One evaluation: x <- scale base + sum_j weights[j] m_j, m_0 the newest value.

    On the first evaluation of a step x, after x <- stretch x + spread z where noise is added,
    becomes the base of the step. `after` z + `echo` z', z' the noise of the last evaluation, is
    added at the end.
    """

    level: Level
    first: Any
    scale: Any
    weights: Any
    stretch: Any = None
    spread: Any = None
    after: Any = None
    echo: Any = None


class Stages(NamedTuple):
    """Steps of one order p: arrays of shape (steps,), one for each of the p evaluations.

    `weights[i]` holds those of the i-th evaluation, newest value first. `stretch` and `spread` are
    of the noise before the step, `after` and `echo` of that after each of its evaluations.
    """

    levels: list[Level]
    scales: list[Any]
    weights: list[list[Any]]
    stretch: Any = None
    spread: Any = None
    after: list[Any] | None = None
    echo: list[Any] | None = None


class Steps(NamedTuple):
    """The levels at both ends of steps, the log_snr at their beginnings, and their sizes in it."""

    source: Level
    target: Level
    begin: Any
    h: Any


def subset(knots: Knots, starts: Any, ends: Any) -> Steps:
    """The steps from knots `starts` to `ends`."""
    source = Level(*(part[starts] for part in knots.level))
    target = Level(*(part[ends] for part in knots.level))
    begin = knots.log_snr[starts]
    return Steps(source, target, begin, knots.log_snr[ends] - begin)


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
    after, echo = (
        part and [select(0.0, noise) for noise in part] for part in (stages.after, stages.echo)
    )
    return Stages(levels, scales, weights, stages.stretch, stages.spread, after, echo)


def landing_plan(
    schedule: Schedule,
    knots: Knots,
    order: int,
    stages: Callable[[Steps, int], Stages],
) -> Plan:
    """The plan of steps of one order, of which one that ends on clean data takes one evaluation.

    Args:
        schedule: the noise schedule.
        knots: of the grid.
        order: evaluations a step.
        stages: `(steps, order) -> Stages`, of the order asked for or of one evaluation.
    """
    orders = (order,) * (knots.steps - knots.clean) + (1,) * knots.clean
    groups = {}
    with np.errstate(all="ignore"):
        whole = noisy_throughout(schedule, knots)
        for evaluations in sorted(set(orders)):
            mine = np.flatnonzero(np.asarray(orders) == evaluations)
            source = knots if evaluations == 1 else whole
            found = stages(subset(source, mine, mine + 1), evaluations)
            if evaluations > 1 and is_traced(knots.lands):
                last = stages(subset(knots, mine, mine + 1), 1)
                found = landing(found, last, (mine == knots.steps - 1) & knots.lands)
            groups[evaluations] = found
    return interleave(groups, orders)


def interleave(
    groups: dict[int, Stages], orders: tuple[int, ...], reach: np.ndarray | None = None
) -> Plan:
    """Puts steps of several orders into the order in which they are taken.

    Args:
        groups: for each order, its steps (those i with `orders[i]` equal to it, ascending).
        orders: the order of every step.
        reach: as of `Plan`.
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
            if stages.after is not None:
                nothing = noise if noise else (None, None)
                echo = None if stages.echo is None else stages.echo[i]
                noise = (*nothing, stages.after[i], echo)
            level = Level(*(xp.broadcast_to(part, zero.shape) for part in stages.levels[i]))
            first = np.full(zero.shape, i == 0)
            parts.append(Row(level, first, scale, xp.stack(weights, axis=-1), *noise))
            turns.append(first_turns[mine] + i)
    where = np.argsort(np.concatenate(turns))

    def merge(*leaves: Any) -> Any:
        return namespace(*leaves).concatenate(leaves)[where]

    rows = jax.tree.map(merge, *parts)
    total = int(sum(orders))
    return Plan(rows, np.cumsum(orders) - 1, total, reach=reach)


class Singlestep(Sampler):
    """A sampler with several evaluations a step, linear in x and in the values of the step."""

    @property
    def forgetful(self) -> bool:
        return True

    @property
    def depth(self) -> int:
        """How many values of the model a step uses."""
        return self.evaluations

    @property
    def echoes(self) -> bool:
        """Whether noise is used again in the evaluation after the one that it was drawn for."""
        return False

    def init(self, x: Array) -> Any:
        nothing = jnp.zeros_like(x)
        state = x, x, (nothing,) * (self.depth - 1)
        return (*state, nothing) if self.echoes else state

    def step(self, evaluate: Evaluate, state: Any, row: Row, draw: Array | None) -> Any:
        x, base, past, *last = state
        if row.spread is not None:
            x = row.stretch * x + row.spread * draw
        base = x if self.depth == 1 else jnp.where(row.first, x, base)
        values = (evaluate(x, row.level), *past)
        x = row.scale * base + sum(row.weights[j] * value for j, value in enumerate(values))
        if row.after is not None:
            x = x + row.after * draw
        if row.echo is not None:
            x = x + row.echo * last[0]
        state = x, x if self.depth == 1 else base, values[: self.depth - 1]
        return (*state, draw) if self.echoes else state

    def sample(self, state: Any) -> Array:
        return state[0]

    def put(self, state: Any, x: Array) -> Any:
        return (x, *state[1:])
