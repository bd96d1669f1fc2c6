"""The turns that the loop takes on one grid, from the table of a sampler and what is beside it."""

from typing import Any, NamedTuple

import jax
import numpy as np

from ..errors import InputError
from . import starts
from .grids import Knots
from .hooks import Hooks, Renoise, arrivals
from .inpaint import renoised
from .loop import Turn, as_table, turns
from .numerics import namespace
from .samplers.base import Plan, Sampler


class Course(NamedTuple):
    """All turns from the first step to the last.

    Attributes:
        table: the turns.
        level_times: the time of the model's first evaluation in each turn, as the plan has it.
        ends: the turns with which the steps are complete, shape (steps,).
        times: of the start, and of the end of each step, shape (steps + 1,).
        cost: evaluations a turn.
    """

    table: Turn
    level_times: Any
    ends: np.ndarray
    times: Any
    cost: int

    @property
    def evaluations(self) -> int:
        """How often the model is called."""
        return self.cost * jax.tree.leaves(self.table)[0].shape[0]

    def part(self, done: int, count: int) -> "Course":
        """The `count` steps after the first `done`."""
        first = self.ends[done - 1] + 1 if done else 0
        last = self.ends[done + count - 1] + 1 if count else first
        return Course(
            jax.tree.map(lambda part: part[first:last], self.table),
            self.level_times[first:last],
            self.ends[done : done + count] - first,
            self.times[done : done + count + 1],
            self.cost,
        )


def course(
    sampler: Sampler, plan: Plan, knots: Knots, hooks: Hooks, key: Any, dtype: Any
) -> Course:
    """The turns of a plan, with hooks those of its steps in the order in which they are taken.

    Args:
        sampler: whose plan it is.
        plan: the table.
        knots: of the grid.
        hooks: what is done beside the steps.
        key: of everything that is drawn on the way, or keys, one for each sample.
        dtype: of the samples.

    Raises:
        InputError: resampling with a sampler that remembers the steps before.
    """
    cost = plan.evaluations // jax.tree.leaves(plan.rows)[0].shape[0]
    draws = key if sampler.noisy else None
    if not hooks.steers:
        times = knots.level.t[np.append(0, plan.reached)]
        table = turns(plan, draws, dtype)
        return Course(table, plan.rows.level.t, plan.ends, times, cost)
    inpaint, steps = hooks.inpaint, len(plan.ends)
    visits = hooks.visits(steps)
    keys = None
    if inpaint is not None:
        keys = starts.split(starts.fold_in(key, 1), len(visits))
        if inpaint.resamplings > 1 and not sampler.forgetful:
            raise InputError(
                f"resamplings={inpaint.resamplings} goes back to more noise, and {sampler!r} "
                "remembers the steps before: use a sampler that does not, such as DDPM(), "
                "DDIM(), DPMSolver() or EDMSampler()."
            )
    arrival, order = arrivals(plan, knots, visits, keys)
    plan = plan._replace(rows=jax.tree.map(lambda part: part[order], plan.rows))
    table = turns(plan, draws, dtype)._replace(arrival=as_table(arrival, dtype))
    ends = np.flatnonzero(np.diff(np.append(arrival.step, len(visits))))
    if inpaint is not None and inpaint.resamplings > 1:
        stretch, spread = renoised(visits, knots, plan.reached)
        first = np.diff(np.append(-1, arrival.step)) > 0
        xp = namespace(stretch, spread)
        before = Renoise(
            xp.where(first, stretch[arrival.step], 1.0),
            xp.where(first, spread[arrival.step], 0.0),
            starts.split(starts.fold_in(key, 2), len(order)),
        )
        table = table._replace(before=as_table(before, dtype))
    reached = plan.reached[[visit.step for visit in visits]]
    times = knots.level.t[np.append(0, reached)]
    return Course(table, plan.rows.level.t, ends, times, cost)
