"""Which steps to take: those that were asked for, or those that are left of an earlier run."""

from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..ground.tracing import is_traced
from . import grids
from .grids import Grid
from .numerics import as_numbers
from .samplers.base import Sampler
from .samples import Inversion, Paused
from .schedules import Schedule
from .starts import share_of_steps

STEPS = 20  # unless told otherwise


class Asked(NamedTuple):
    """What `sample` was asked for."""

    steps: Any
    evaluations: Any
    grid: Any
    begin: Any
    end: Any
    strength: Any
    denoise: Any


class Layout(NamedTuple):
    """The times of the grid, the orders of its steps if they differ, and whether more follows."""

    times: Any
    orders: tuple[int, ...] | None
    denoise: bool


def laid_out(schedule: Schedule, sampler: Sampler, start: Any, asked: Asked) -> Layout:
    """The steps to take.

    Raises:
        InputError: what was asked for does not fit together, or not with the start.
    """
    if isinstance(start, Paused):
        return _resumed(schedule, sampler, start, asked)
    found = _laid_out(schedule, sampler, asked, bool(asked.denoise))
    if asked.strength is None:
        return found
    if asked.evaluations is not None:
        raise InputError(
            f"strength={asked.strength} takes a share of the steps: say how many with steps=... "
            f"and leave out evaluations={asked.evaluations}."
        )
    count = len(found.times) - 1
    return found._replace(times=found.times[count - share_of_steps(asked.strength, count) :])


def _laid_out(schedule: Schedule, sampler: Sampler, asked: Asked, denoise: bool) -> Layout:
    """The steps, as they were asked for."""
    steps, evaluations, grid, begin, end, *_ = asked
    grid = schedule.grid if grid is None else grid
    named = isinstance(grid, str | Grid)
    orders = None
    if steps is not None and evaluations is not None:
        raise InputError(
            f"steps={steps} and evaluations={evaluations} are two ways to say how much work to do: "
            "give one of them."
        )
    if evaluations is not None:
        if isinstance(evaluations, bool) or not isinstance(evaluations, int | np.integer):
            raise InputError(f"evaluations must be a positive integer; got {evaluations!r}.")
        if evaluations < 1 + denoise:
            raise InputError(f"evaluations={evaluations} leaves nothing to sample with.")
        in_log_snr = grid == "log_snr" if isinstance(grid, str) else isinstance(grid, grids.LogSNR)
        # A last step to clean data costs one evaluation, whether it is `denoise` or on the grid.
        lands = named and grids.is_clean(schedule, schedule.end if end is None else end)
        left = int(evaluations) - (denoise or lands)
        steps, orders = sampler.budget(left, in_log_snr) if left else (0, None)
        steps += lands
        if not named and orders is None:
            raise InputError(
                f"The grid of times says how many steps to take: leave out "
                f"evaluations={evaluations}."
            )
        steps = steps if named else None
    elif steps is None and named:
        steps = STEPS
    return Layout(grids.times(schedule, steps, grid=grid, begin=begin, end=end), orders, denoise)


def _resumed(schedule: Schedule, sampler: Sampler, paused: Paused, asked: Asked) -> Layout:
    """The steps that sampling was begun with; what is asked for again must agree with them."""
    denoise = asked.denoise
    if asked.strength is not None:
        raise InputError(f"start is on its way already: leave out strength={asked.strength}.")
    if paused.sampler != sampler:
        how = "found by inverting" if isinstance(paused, Inversion) else "reached by"
        raise InputError(
            f"start was {how} {paused.sampler!r}, and the sampler is {sampler!r}: the way on from "
            "there is right only with the same one."
        )
    if isinstance(paused, Inversion):
        denoise = bool(denoise)
    elif denoise is not None and denoise != paused.denoise:
        raise InputError(
            f"start was reached with denoise={paused.denoise}, and denoise={denoise} now: leave it "
            "out, or give the same."
        )
    else:
        denoise = paused.denoise
    if all(part is None for part in asked[:5]):
        return Layout(as_numbers(paused.times), paused.orders, denoise)
    times, orders, _ = found = _laid_out(schedule, sampler, asked, denoise)
    if not is_traced(paused.times, times):
        now, had = np.asarray(as_numbers(times)), np.asarray(paused.times, dtype=np.float64)
        if now.shape != had.shape or not np.allclose(now, had, rtol=1e-6, atol=0):
            raise InputError(
                f"start was found on a grid of {len(had) - 1} steps from {had[0]:.6g} to "
                f"{had[-1]:.6g}, and this one has {len(now) - 1} from {now[0]:.6g} to "
                f"{now[-1]:.6g}: leave steps, grid, begin and end out, or give the same."
            )
    if orders != paused.orders:
        raise InputError(
            f"start was found with steps of the orders {paused.orders}, and these are {orders}: "
            "leave steps and evaluations out, or give the same."
        )
    return found


def steps_done(start: Any, total: int, layout: Layout) -> int:
    """How many of the steps lie behind the start."""
    if not isinstance(start, Paused):
        return 0
    if start.total is None:
        return len(layout.times) - 1 - start.remaining
    if start.total != total:
        raise InputError(
            f"start was found on a way of {start.total} steps, and this one has {total}: give the "
            "same inpaint=... as before."
        )
    return total - start.remaining


def steps_to_take(stop: Any, left: int, full: bool) -> int:
    """The steps to take of those that are left."""
    if stop is None:
        return left
    if isinstance(stop, bool) or not isinstance(stop, int | np.integer) or stop < 0:
        raise InputError(f"stop={stop!r} must be a number of steps.")
    if stop > left:
        raise InputError(f"stop={stop} is more than the {left} steps that are left.")
    if full:
        raise InputError(
            "With stop=... sample returns where it stopped: leave out full=True and "
            "trajectory=True."
        )
    return int(stop)
