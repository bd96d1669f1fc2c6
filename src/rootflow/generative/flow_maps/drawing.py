"""What the losses of flow maps have in common: batches, times, noisy points, teachers."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..._typing import PyTree
from ...errors import InputError
from ..denoiser import Denoiser
from ..grids import NAMED, Grid
from ..numerics import expand, namespace
from ..predictions import data_and_noise
from ..schedules import Level, Schedule
from .maps import check_map


class Point(NamedTuple):
    """Noisy data x at time s, and dx/dt on the straight way between its data and its noise."""

    x: Array
    velocity: Array
    s: Array


def split(batch: Any) -> tuple[Array, PyTree]:
    """The data and the condition of a batch, which is the data alone or a pair of the two."""
    data, condition = batch if isinstance(batch, tuple) else (batch, None)
    data = jnp.asarray(data)
    if data.ndim < 2 or not jnp.issubdtype(data.dtype, jnp.floating):
        raise InputError(
            "A batch must be data of shape (batch, ...), floating-point, or a pair (data, "
            f"condition); got {data.dtype} of shape {data.shape}."
        )
    return data, condition


def check_times(times: Any) -> None:
    """Raises `InputError` for what is not the name of a grid, or a grid."""
    if not isinstance(times, Grid) and times not in NAMED:
        raise InputError(
            f"times={times!r} is not known; use {', '.join(map(repr, NAMED))} or a Grid."
        )


def draw_times(
    times: str | Grid, schedule: Schedule, end: float, key: PRNGKeyArray, n: int, dtype: Any
) -> Float[Array, " n"]:
    """n times, independent, in this spacing between the schedule's begin and `end`."""
    grid = NAMED[times] if isinstance(times, str) else times
    fractions = jax.random.uniform(key, (n,), dtype)
    begin, end_ = jnp.asarray(schedule.begin, dtype), jnp.asarray(end, dtype)
    drawn = grid.times(schedule, fractions, begin, end_)
    return jnp.clip(drawn, end_, begin)


def draw_point(schedule: Schedule, data: Array, s: Array, key: PRNGKeyArray) -> Point:
    """The data with noise of time s."""
    return noisy(schedule, data, jax.random.normal(key, data.shape, data.dtype), s)


def noisy(schedule: Schedule, data: Array, noise: Array, s: Array) -> Point:
    """The data with this noise at time s."""
    _, alpha, sigma, alpha_rate, sigma_rate = (expand(part, data) for part in schedule.level(s))
    return Point(alpha * data + sigma * noise, alpha_rate * data + sigma_rate * noise, s)


def squared(error: Array) -> Float[Array, " batch"]:
    """The mean square of each sample's numbers."""
    return jnp.mean(error**2, axis=tuple(range(1, error.ndim)))


def frozen(model: Any) -> Any:
    """The model, whose parameters are not differentiated."""
    return jax.tree.map(
        lambda leaf: jax.lax.stop_gradient(leaf) if eqx.is_inexact_array(leaf) else leaf, model
    )


def check_teacher(teacher: Any, loss: str) -> None:
    """Raises `InputError` where a teacher is missing."""
    if not isinstance(teacher, Denoiser):
        raise InputError(
            f"{loss} distils a trained model: give teacher=Denoiser(...) "
            f"(of a trained flow map, its .denoiser()); got {teacher!r}."
        )


def teacher_velocity(
    teacher: Denoiser, schedule: Schedule, x: Array, t: Array, condition: PyTree
) -> Array:
    """dx/dt by the teacher; a teacher on another schedule is asked at the same noise level.

    It is never asked outside its own schedule, nor beyond the noisiest usable time of that. Further
    out its data are those at the nearest level that it knows, or on the clean side its noise.
    """
    teacher = frozen(teacher)
    t = _clipped(schedule, t)
    level = schedule.level(t)
    same = teacher.schedule == schedule
    if same and teacher.predicts not in ("noise", "score"):
        return jax.lax.stop_gradient(teacher.predict("flow", x, level, condition))
    log_snr = schedule.log_snr(t)
    low, high = _known_levels(teacher, same, x.dtype)
    bounded = jnp.clip(log_snr, low, high)
    inverse = teacher.schedule.log_snr_inverse(bounded)
    there = teacher.schedule.level(jnp.where(bounded == log_snr, t, inverse) if same else inverse)
    # In units of sqrt(alpha^2 + sigma^2) a sample is the same on every schedule, at either end.
    scaled = expand(_size(there) / _size(level), x) * x
    value = teacher.predict(teacher.predicts, scaled, there, condition)
    data, noise = data_and_noise(teacher.predicts, value, scaled, there)
    _, alpha, sigma, alpha_rate, sigma_rate = (expand(part, x) for part in level)
    # The two agree but for levels that the teacher does not know.
    clean = alpha > sigma
    data, noise = (
        jnp.where(clean, (x - sigma * noise) / jnp.where(clean, alpha, 1.0), data),
        jnp.where(clean, noise, (x - alpha * data) / jnp.where(clean, 1.0, sigma)),
    )
    return jax.lax.stop_gradient(alpha_rate * data + sigma_rate * noise)


def _clipped(schedule: Schedule, t: Array) -> Array:
    """t moved into the schedule, whose ends may lie outside by rounding to the precision of t."""
    low, high = schedule.domain
    kind = np.dtype(t.dtype).type
    least, most = kind(low), kind(high)
    least = np.nextafter(least, kind(np.inf)) if least < low else least
    most = np.nextafter(most, kind(-np.inf)) if most > high else most
    return jnp.clip(t, least, most)


def _known_levels(teacher: Denoiser, same: bool, dtype: Any) -> tuple[Any, Any]:
    """The least and the largest log_snr at which a teacher is asked.

    Where alpha / sigma is below the root of the rounding error a prediction of the noise no longer
    says what the data are, and the other way round.
    """
    limit = -0.5 * math.log(jnp.finfo(dtype).eps)
    if same:
        return -limit, math.inf
    schedule = teacher.schedule
    with np.errstate(divide="ignore"):
        noisiest = schedule.log_snr(np.asarray(schedule.begin, np.float64))
        cleanest = schedule.log_snr(np.asarray(schedule.domain[0], np.float64))
    xp = namespace(noisiest, cleanest)
    return xp.maximum(noisiest, -limit), xp.minimum(cleanest, limit)


def _size(level: Level) -> Any:
    return jnp.hypot(level.alpha, level.sigma)


def teacher_step(
    teacher: Denoiser,
    schedule: Schedule,
    x: Array,
    s: Array,
    t: Array,
    condition: PyTree,
    steps: int = 1,
) -> Array:
    """From s to t by Heun steps of the teacher's flow, uniform in time."""
    size = (t - s) / steps

    def once(i, x):
        now = s + i * size
        first = teacher_velocity(teacher, schedule, x, now, condition)
        guess = x + expand(size, x) * first
        after = now + size
        # At the clean end itself a teacher may have no velocity: the last half step is Euler's.
        safe = jnp.where(schedule.sigma(after) > 0, after, now)
        second = teacher_velocity(teacher, schedule, guess, safe, condition)
        second = jnp.where(expand(schedule.sigma(after) > 0, x), second, first)
        return x + 0.5 * expand(size, x) * (first + second)

    return jax.lax.stop_gradient(jax.lax.fori_loop(0, steps, once, x))


class MapLoss(eqx.Module):
    """A loss for `rf.train`: `loss(model, batch, key)`, the model a map to any time.

    A batch is the data, shape (batch, ...), or (data, condition).
    """

    times: str | Grid = eqx.field(default="time", kw_only=True)

    def __check_init__(self) -> None:
        check_times(self.times)

    def drawn(self, model: Any, batch: Any, key: PRNGKeyArray) -> tuple[Point, Array, PyTree, Any]:
        """A noisy point at s, a second time t <= s, the condition, and a key that is left."""
        check_map(model)
        if not model.anywhere:
            raise InputError(
                f"{type(self).__name__} trains a map to any time, such as FlowMap(network); "
                f"{type(model).__name__} jumps to its end alone."
            )
        data, condition = split(batch)
        key_s, key_t, key_noise, rest = jax.random.split(key, 4)
        args = (self.times, model.schedule, model.end)
        one, other = (draw_times(*args, k, data.shape[0], data.dtype) for k in (key_s, key_t))
        s, t = jnp.maximum(one, other), jnp.minimum(one, other)
        return draw_point(model.schedule, data, s, key_noise), t, condition, rest
