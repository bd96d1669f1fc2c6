"""Time grids: where the steps of a sampler begin and end, from noise to data.

A grid of n steps is n + 1 times, strictly decreasing, whose first is `begin` and whose last is
`end`, both exactly.
"""

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from ..errors import InputError
from ..ground.tracing import is_traced, raise_if
from .numerics import as_numbers, namespace
from .schedules import Level, Schedule


class Grid(eqx.Module):
    """A spacing of the times: uniform in some function of the time.

    Attributes:
        in_levels: whether that is a function of sigma / alpha, which must be finite at both ends.
    """

    in_levels: ClassVar[bool] = False

    @abstractmethod
    def times(self, schedule: Schedule, fractions: Any, begin: Any, end: Any) -> Any:
        """The times at `fractions` of the way from `begin` to `end`, in this spacing."""


class Uniform(Grid):
    """Uniform in t^power: 1 for uniform times, 1/2 for the quadratic spacing (Song et al. 2021)."""

    power: float = eqx.field(static=True, default=1.0)

    def __check_init__(self) -> None:
        if not self.power > 0:
            raise InputError(f"power={self.power} must be positive.")

    def times(self, schedule: Schedule, fractions: Any, begin: Any, end: Any) -> Any:
        first, last = begin**self.power, end**self.power
        return (first + fractions * (last - first)) ** (1 / self.power)


class LogSNR(Grid):
    """Uniform in log_snr, which is uniform in the logarithm of the noise level (Lu et al. 2022)."""

    in_levels = True

    def times(self, schedule: Schedule, fractions: Any, begin: Any, end: Any) -> Any:
        first, last = schedule.log_snr(begin), schedule.log_snr(end)
        return schedule.log_snr_inverse(first + fractions * (last - first))


class Karras(Grid):
    """Uniform in (sigma / alpha)^(1/rho) (Karras et al. 2022, eq. 5)."""

    in_levels = True

    rho: float = eqx.field(static=True, default=7.0)

    def __check_init__(self) -> None:
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

    At an end without noise log_snr is infinite, at one without signal minus infinity.

    Attributes:
        level: the noise levels.
        log_snr: log(alpha / sigma).
        clean: whether it is known that the last of them is clean data, so that the last step may
            cost less.
        lands: whether the last of them is clean data; traced where the times are.
    """

    level: Level
    log_snr: Any
    clean: bool
    lands: Any

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
    spaced = spacing(grid, schedule, first, last).times(schedule, inner, first, last)
    xp = namespace(spaced, first, last)
    # The ends as they were given, not as they come back from the spacing.
    knots = xp.concatenate([xp.reshape(first, (1,)), spaced, xp.reshape(last, (1,))])
    return _check_decreasing(knots)


def spacing(grid: str | Grid, schedule: Schedule, first: Any, last: Any) -> Grid:
    """The spacing of this name; raises `InputError` where it cannot reach an end."""
    if isinstance(grid, Grid):
        found = grid
    elif grid in NAMED:
        found = NAMED[grid]
    else:
        names = ", ".join(repr(name) for name in NAMED)
        raise InputError(f"grid={grid!r} is not known; use {names}, a Grid or an array of times.")
    if found.in_levels:
        with np.errstate(divide="ignore"):
            ends = schedule.log_snr(first), schedule.log_snr(last)
        for name, time, log_snr in zip(("begin", "end"), (first, last), ends, strict=True):
            if not is_traced(log_snr) and not np.isfinite(log_snr):
                raise InputError(
                    f"{name}={float(time)} has log_snr {float(log_snr)}, so that a grid spaced in "
                    f'log_snr cannot reach it: use grid="time", or move {name} inwards.'
                )
    return found


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

    Inside `jit` a runtime error of JAX, which only what is computed from the returned value
    waits for. An end of the schedule counts as inside in the precision of the time, and a time a
    hair beyond it, as tables of noise levels of a few digits lead to, is taken for the end.
    """
    low, high = schedule.domain
    what = f"outside the times {low} ... {high} of {type(schedule).__name__}"
    dtype = getattr(time, "dtype", np.dtype(float))
    if jnp.issubdtype(dtype, jnp.floating):
        least, most = (float(np.asarray(end, dtype)) for end in (low, high))
        low, high = min(low, least), max(high, most)
    hair = _HAIR * (high - low) if np.isfinite(high - low) else 0.0
    xp = namespace(time)
    near = (time < low) & (time >= low - hair), (time > high) & (time <= high + hair)
    if is_traced(time) or np.any(near):
        time = xp.where(near[0], low, xp.where(near[1], high, time)).astype(dtype)
    if is_traced(time):
        bad = ~((time >= low) & (time <= high) & jnp.isfinite(time))
        return raise_if(time, bad.any(), f"{name} lies {what}: keep it between them.", InputError)
    bad = ~((time >= low) & (time <= high) & np.isfinite(time))
    if np.any(bad):
        value = float(np.asarray(time)[bad][0]) if np.ndim(time) else float(time)
        raise InputError(f"{name} is {value}, {what}.")
    return time


def _check_decreasing(knots: Any) -> Any:
    """The knots, strictly decreasing."""
    if is_traced(knots):
        return raise_if(
            knots,
            ~(jnp.diff(knots) < 0).all(),
            "Times must decrease strictly, from noise to data: the grid has a time that is not "
            "below the one before it.",
            InputError,
        )
    bad = ~(np.diff(knots) < 0)
    if bad.any():
        i = int(np.argmax(bad))
        raise InputError(
            f"Times must decrease strictly, from noise to data: times[{i}] = {knots[i]} is "
            f"followed by times[{i + 1}] = {knots[i + 1]}."
        )
    return knots


# Of the schedule's span: beyond its ends by less is rounding in somebody's table.
_HAIR = 1e-5

NEARLY_NOISE = -7.0  # log_snr where all but a thousandth of a sample is noise


def with_signal(schedule: Schedule, begin: Any) -> Any:
    """`begin`, or where it has no signal at all the time of log_snr -7."""
    alpha = schedule.alpha(begin)
    if not is_traced(alpha) and alpha > 0:
        return begin
    nearly = schedule.log_snr_inverse(np.asarray(NEARLY_NOISE))
    return jnp.where(alpha > 0, begin, nearly) if is_traced(alpha) else nearly


def knots(schedule: Schedule, times: Any, *, clean: bool = False) -> Knots:
    """The noise levels at the times; with `clean`, followed by clean data.

    Times that end where there is no noise end on clean data too. Derivatives are finite where the
    levels have them, although log_snr is infinite there.

    Raises:
        InputError: with `clean`, times that end on clean data already (inside `jit` a runtime error
            of JAX).
    """
    with np.errstate(all="ignore"):
        alpha, sigma = schedule.alpha(times), schedule.sigma(times)
        xp = namespace(alpha, sigma, times)
        middle = 0.5 * (times[0] + times[-1])
        middle = middle if xp is np else jax.lax.stop_gradient(middle)
        # A formula that is infinite at a time spoils the derivative even where it is not used.
        silent, noiseless = alpha == 0, sigma == 0
        log_snr = schedule.log_snr(xp.where(silent | noiseless, middle, times))
        ended = noiseless & (np.arange(times.shape[0]) == times.shape[0] - 1)
        noisy = xp.where(ended, middle, times)
        rates = [rate(noisy) for rate in (schedule.alpha_rate, schedule.sigma_rate)]
    log_snr = xp.where(silent, -np.inf, xp.where(noiseless, np.inf, log_snr))
    rates = [xp.where(ended, 0.0, rate) for rate in rates]
    lands = noiseless[-1]
    known = not is_traced(lands)
    if clean:
        already = (
            "The grid ends at zero noise, which is clean data already: leave out denoise=True."
        )
        if known and lands:
            raise InputError(already)
        if not known:
            log_snr = raise_if(log_snr, lands, already, InputError)
        pieces = zip((times, alpha, sigma, *rates), (0.0, 1.0, 0.0, 0.0, 0.0), strict=True)
        level = Level(*(xp.append(part, last) for part, last in pieces))
        return Knots(level, xp.append(log_snr, np.inf), True, True)
    level = Level(times, alpha, sigma, *rates)
    lands = bool(lands) if known else lands
    return Knots(level, log_snr, known and bool(lands), lands)


def is_clean(schedule: Schedule, time: Any) -> bool:
    """Whether it is known that there is no noise at this time."""
    with np.errstate(all="ignore"):
        sigma = schedule.sigma(as_numbers(time))
    return not is_traced(sigma) and bool(np.all(sigma == 0))


def noisy_throughout(schedule: Schedule, given: Knots) -> Knots:
    """The knots, with the last one moved inwards where it is traced and may be clean data.

    For formulas of steps that end with some noise, evaluated beside that of a step to clean data.
    """
    if not is_traced(given.lands):
        return given
    t = jnp.asarray(given.level.t)
    inner = jax.lax.stop_gradient(0.5 * (t[-2] + t[-1]))
    return knots(schedule, t.at[-1].set(jnp.where(given.lands, inner, t[-1])))


def refuse_clean(given: Knots, message: str) -> Knots:
    """The knots; raises `InputError` where they end on clean data.

    Inside `jit`, where the times are traced, a runtime error of JAX.
    """
    if is_traced(given.lands):
        return given._replace(log_snr=raise_if(given.log_snr, given.lands, message, InputError))
    if given.lands:
        raise InputError(message)
    return given
