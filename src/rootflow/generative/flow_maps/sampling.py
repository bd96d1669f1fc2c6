"""A few jumps from noise to data."""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from ..._typing import PyTree
from ...errors import InputError
from ...ground.programs import Behaviour, compiled_for
from ...ground.tracing import is_traced
from .. import gradients, grids
from ..failures import raise_if_not_finite
from ..grids import Grid, Knots
from ..loop import turns
from ..numerics import namespace
from ..samplers.base import Plan, Sampler, require
from ..samples import as_asked
from ..schedules import Level, Schedule
from ..starts import first_samples, keys_for, size_of_batch
from .maps import Map, check_map


class _Row(NamedTuple):
    level: Level  # where the jump begins
    target: Any  # the time where it ends
    stretch: Any  # then x <- stretch x + spread z
    spread: Any


class Jumps(Sampler):
    """Jumps to the next times, with fresh noise in between (gamma-sampling, Kim et al. 2024).

    For gamma > 0 a jump goes on to the noise level sqrt(1 - gamma^2) rho, and noise brings the
    sample back to the level rho = sigma / alpha of the next time. 0 follows the flow; 1 jumps to
    the data and starts again, which is the multistep sampling of consistency models.

    Attributes:
        gamma: from 0 to 1.
    """

    gamma: float = eqx.field(static=True, default=0.0)

    def __check_init__(self) -> None:
        require(0 <= self.gamma <= 1, f"gamma={self.gamma} must be at least 0 and at most 1.")

    @property
    def noisy(self) -> bool:
        return self.gamma > 0

    def plan(self, schedule: Schedule, knots: Knots, orders: Any = None) -> Plan:
        source = Level(*(part[:-1] for part in knots.level))
        ends, last = knots.level.t[1:], knots.level.t[-1]
        xp = namespace(ends)
        if not self.gamma:
            one = xp.ones_like(ends)
            return Plan(_Row(source, ends, one, 0 * one), np.arange(knots.steps), knots.steps)
        between = Level(*(part[1:-1] for part in knots.level))
        lowest = schedule.sigma(last) / schedule.alpha(last)
        rho = xp.maximum(np.sqrt(1 - self.gamma**2) * between.sigma / between.alpha, lowest)
        with np.errstate(divide="ignore"):
            inner = schedule.log_snr_inverse(-xp.log(rho))
        inner = xp.where(rho == lowest, last, inner)
        targets = xp.append(inner, last)
        stretch = between.alpha / schedule.alpha(inner)
        fresh = between.sigma**2 - (stretch * schedule.sigma(inner)) ** 2
        spread = xp.sqrt(xp.maximum(fresh, 0.0))
        rows = _Row(source, targets, xp.append(stretch, 1.0), xp.append(spread, 0.0))
        return Plan(rows, np.arange(knots.steps), knots.steps)

    def init(self, x: Array) -> Any:
        return x

    def step(self, evaluate: Any, state: Any, row: _Row, draw: Array | None) -> Any:
        x = evaluate(state, row)
        return x if draw is None else row.stretch * x + row.spread * draw

    def sample(self, state: Any) -> Array:
        return state

    def put(self, state: Any, x: Array) -> Any:
        return x


def sample(
    model: Map,
    condition: PyTree = None,
    *,
    start: Float[ArrayLike, "batch ..."] | None = None,
    shape: tuple[int, ...] | None = None,
    key: Key[Array, "*batch"] | None = None,
    steps: int | None = None,
    gamma: float | None = None,
    grid: str | Grid | ArrayLike | None = None,
    begin: ArrayLike | None = None,
    end: ArrayLike | None = None,
    trajectory: bool = False,
    full: bool = False,
    throw: bool = True,
) -> Any:
    """Draws samples in a few jumps; one by default.

    Args:
        model: the map.
        condition: handed to the network.
        start: noise at `begin`, shape (batch, ...).
        shape: instead of `start`: the shape to draw, batch first. Needs `key`.
        key: for the start, and for the noise where gamma > 0; or a key for each sample, shape
            (batch,).
        steps: jumps, one evaluation each.
        gamma: see `Jumps`; by default 0, and 1 for a map that jumps to its end alone.
        grid: the times between the jumps, as of `generative.sample`; by default uniform if the end
            is 0, else the schedule's own.
        begin: the noisy end; by default the schedule's.
        end: the clean end; by default the map's.
        trajectory: keep the samples at every time; implies `full`.
        full: return `Samples`.
        throw: raise if a sample becomes NaN or infinite.

    Raises:
        InputError: arguments that do not fit together. SolveError: a value that is not finite.
    """
    check_map(model)
    schedule = model.schedule
    end = model.end if end is None else end
    named = grid is None or isinstance(grid, str | Grid)
    if grid is None:
        at_zero = not is_traced(end) and float(np.asarray(end)) == 0.0
        grid = "time" if at_zero else schedule.grid
    if named:
        steps = 1 if steps is None else steps
        times = grids.times(schedule, steps, grid=grid, begin=begin, end=end)
    else:
        times = grids.times(schedule, steps, grid=grid, begin=begin)
    if gamma is None:
        gamma = 0.0 if model.anywhere else 1.0
    jumps = Jumps(gamma)
    if not model.anywhere and gamma != 1 and times.shape[0] > 2:
        raise InputError(
            f"{type(model).__name__} jumps to its end alone: several steps need gamma=1, which "
            f"adds noise in between; got gamma={gamma}."
        )
    knots = grids.knots(schedule, times)
    table = jumps.plan(schedule, knots)
    noisy = jumps.noisy and knots.steps > 1
    needed = "the noise" if start is None or noisy else None
    key_start, key_draws = keys_for(key, needed, size_of_batch(start, shape))
    x = first_samples(start, shape, key_start, schedule.prior_scale(times[0]))
    rows = turns(table, key_draws if noisy else None, x.dtype)
    value, record = _run(model, condition, jumps, x, rows, trajectory)
    if throw:
        value = raise_if_not_finite(value, record.finite, table.rows.level.t)
    passed = record.sample if trajectory else None
    return as_asked(value, x, passed, times, knots.steps, full)


@compiled_for(
    lambda model, condition, jumps, x, rows, keep: Behaviour(
        (model, (x, jnp.zeros((), x.dtype), jnp.zeros((), x.dtype), condition))
    )
)
def _run(model, condition, jumps, x, rows, keep):
    def evaluate(x, row):
        return model(x, row.level.t, row.target, condition)

    return gradients.march("direct", jumps, evaluate, x, rows, keep=keep, hooks=None)
