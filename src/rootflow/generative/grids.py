"""Time grids: where the steps of a sampler begin and end, from noise to data.

A grid of n steps is n + 1 times, strictly decreasing, whose first is `begin` and whose last is
`end`, both exactly.
"""

from abc import abstractmethod
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from ..errors import InputError
from .numerics import as_numbers, is_traced, namespace
from .schedules import Level, Schedule


class Grid(eqx.Module):
    """A spacing of the times: uniform in some function of the time."""

    @abstractmethod
    def times(self, schedule: Schedule, fractions: Any, begin: Any, end: Any) -> Any:
        """The times at `fractions` of the way from `begin` to `end`, in this spacing."""


class Uniform(Grid):
    """Uniform in t^power: 1 for uniform times, 1/2 for the quadratic spacing (Song et al. 2021)."""

    power: float = eqx.field(static=True, default=1.0)

    def __check_init__(self):
        if not self.power > 0:
            raise InputError(f"power={self.power} must be positive.")

    def times(self, schedule: Schedule, fractions: Any, begin: Any, end: Any) -> Any:
        first, last = begin**self.power, end**self.power
        return (first + fractions * (last - first)) ** (1 / self.power)


class LogSNR(Grid):
    """Uniform in log_snr, which is uniform in the logarithm of the noise level (Lu et al. 2022)."""

    def times(self, schedule: Schedule, fractions: Any, begin: Any, end: Any) -> Any:
        first, last = schedule.log_snr(begin), schedule.log_snr(end)
        return schedule.log_snr_inverse(first + fractions * (last - first))


class Karras(Grid):
    """Uniform in (sigma / alpha)^(1/rho) (Karras et al. 2022, eq. 5)."""

    rho: float = eqx.field(static=True, default=7.0)

    def __check_init__(self):
        if not self.rho > 0:
            raise InputError(f"rho={self.rho} must be positive.")

    def times(self, schedule: Schedule, fractions: Any, begin: Any, end: Any) -> Any:
        first, last = schedule.log_snr(begin), schedule.log_snr(end)
        xp = namespace(first, last, fractions)
        first, last = xp.exp(-first / self.rho), xp.exp(-last / self.rho)
        return schedule.log_snr_inverse(-self.rho * xp.log(first + fractions * (last - first)))


NAMED: dict[str, Grid] = {
    "time": Uniform(),
    "quadratic": Uniform(0.5),
    "log_snr": LogSNR(),
    "karras": Karras(),
}


class Knots(NamedTuple):
    """The ends of the steps: arrays of shape (n + 1,).

    If `clean`, the last of them is clean data: alpha = 1, sigma = 0, log_snr infinite.
    """

    level: Level
    log_snr: Any
    clean: bool

    @property
    def steps(self) -> int:
        """n."""
        return self.log_snr.shape[0] - 1


def times(
    schedule: Schedule,
    steps: int | None = None,
    *,
    grid: str | Grid | ArrayLike | None = None,
    begin: ArrayLike | None = None,
    end: ArrayLike | None = None,
) -> Any:
    """The times of a grid, as `sample` uses it.

    Args:
        schedule: the noise schedule.
        steps: the number of steps n; may be left out with an array of times.
        grid: `"time"`, `"quadratic"`, `"log_snr"`, `"karras"`, a `Grid`, or the times themselves,
            strictly decreasing. By default `schedule.grid`.
        begin: the first time, by default `schedule.begin`.
        end: the last time, by default `schedule.end`.

    Returns:
        Shape (n + 1,): a NumPy array in double precision unless something is traced.

    Raises:
        InputError: times that do not decrease or lie outside the schedule, an unknown grid.
    """
    grid = schedule.grid if grid is None else grid
    if not isinstance(grid, str | Grid):
        return _given(schedule, steps, grid, begin, end)
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
        raise InputError(f"steps must be a positive integer; got {steps!r}.")
    first = as_numbers(schedule.begin if begin is None else begin)
    last = as_numbers(schedule.end if end is None else end)
    first = check_inside(schedule, first, "begin")
    last = check_inside(schedule, last, "end")
    if not is_traced(first, last) and not first > last:
        raise InputError(
            f"begin={float(first)} must be later than end={float(last)}: sampling goes from noise "
            "at large times to data at small ones."
        )
    inner = np.arange(1, steps) / steps
    spaced = _spacing(grid, schedule, first, last).times(schedule, inner, first, last)
    xp = namespace(spaced, first, last)
    # The ends as they were given, not as they come back from the spacing.
    knots = xp.concatenate([xp.reshape(first, (1,)), spaced, xp.reshape(last, (1,))])
    return _check_decreasing(knots)


def _spacing(grid: str | Grid, schedule: Schedule, first: Any, last: Any) -> Grid:
    if isinstance(grid, Grid):
        spacing = grid
    elif grid in NAMED:
        spacing = NAMED[grid]
    else:
        names = ", ".join(repr(name) for name in NAMED)
        raise InputError(f"grid={grid!r} is not known; use {names}, a Grid or an array of times.")
    if isinstance(spacing, LogSNR | Karras):
        with np.errstate(divide="ignore"):
            ends = schedule.log_snr(first), schedule.log_snr(last)
        for name, time, log_snr in zip(("begin", "end"), (first, last), ends, strict=True):
            if not is_traced(log_snr) and not np.isfinite(log_snr):
                raise InputError(
                    f"{name}={float(time)} has log_snr {float(log_snr)}, so that a grid spaced in "
                    f'log_snr cannot reach it: use grid="time", or move {name} inwards.'
                )
    return spacing


def _given(schedule: Schedule, steps: Any, grid: Any, begin: Any, end: Any) -> Any:
    knots = as_numbers(grid)
    if begin is not None or end is not None:
        raise InputError("The times are given: leave out begin and end, which are in them.")
    if knots.ndim != 1 or knots.shape[0] < 2:
        raise InputError(f"A grid of times must have shape (n + 1,), n >= 1; got {knots.shape}.")
    if steps is not None and steps != knots.shape[0] - 1:
        raise InputError(
            f"steps={steps!r} does not go with {knots.shape[0]} times, which are "
            f"{knots.shape[0] - 1} steps: leave steps out."
        )
    return _check_decreasing(check_inside(schedule, knots, "The grid of times"))


def check_inside(schedule: Schedule, time: Any, name: str) -> Any:
    """The time, or times; raises `InputError` if one of them lies outside the schedule.

    Inside `jit` a runtime error of Equinox, which only what is computed from the returned value
    waits for. An end of the schedule counts as inside in the precision of the time.
    """
    low, high = schedule.domain
    what = f"outside the times {low} ... {high} of {type(schedule).__name__}"
    dtype = getattr(time, "dtype", np.dtype(float))
    if jnp.issubdtype(dtype, jnp.floating):
        least, most = (float(np.asarray(end, dtype)) for end in (low, high))
        low, high = min(low, least), max(high, most)
    if is_traced(time):
        bad = ~((time >= low) & (time <= high) & jnp.isfinite(time))
        return eqx.error_if(time, bad.any(), f"{name} lies {what}: keep it between them.")
    bad = ~((time >= low) & (time <= high) & np.isfinite(time))
    if np.any(bad):
        value = float(np.asarray(time)[bad][0]) if np.ndim(time) else float(time)
        raise InputError(f"{name} is {value}, {what}.")
    return time


def _check_decreasing(knots: Any) -> Any:
    """The knots, strictly decreasing."""
    if is_traced(knots):
        return eqx.error_if(
            knots,
            ~(jnp.diff(knots) < 0).all(),
            "Times must decrease strictly, from noise to data: the grid has a time that is not "
            "below the one before it.",
        )
    bad = ~(np.diff(knots) < 0)
    if bad.any():
        i = int(np.argmax(bad))
        raise InputError(
            f"Times must decrease strictly, from noise to data: times[{i}] = {knots[i]} is "
            f"followed by times[{i + 1}] = {knots[i + 1]}."
        )
    return knots


NEARLY_NOISE = -7.0  # log_snr where all but a thousandth of a sample is noise


def with_signal(schedule: Schedule, begin: Any) -> Any:
    """`begin`, or where it has no signal at all the time of log_snr -7."""
    with np.errstate(divide="ignore"):
        log_snr = schedule.log_snr(begin)
    if is_traced(log_snr) or np.isfinite(log_snr) or not log_snr < 0:
        return begin
    return schedule.log_snr_inverse(np.asarray(NEARLY_NOISE))


def knots(schedule: Schedule, times: Any, *, clean: bool = False) -> Knots:
    """The noise levels at the times; with `clean`, followed by clean data."""
    with np.errstate(divide="ignore", invalid="ignore"):
        level, log_snr = schedule.level(times), schedule.log_snr(times)
    if clean:
        xp = namespace(log_snr)
        level = Level(*(xp.append(x, last) for x, last in zip(level, (0.0, 1.0, 0.0, 0.0, 0.0))))
        log_snr = xp.append(log_snr, np.inf)
    return Knots(level, log_snr, clean)
