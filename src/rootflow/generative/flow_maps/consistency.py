"""Consistency models on a grid of times: distillation and training."""

import math
from abc import abstractmethod
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..._typing import PyTree
from ...errors import InputError
from .. import grids
from ..denoiser import Denoiser
from ..grids import Grid
from ..losses import LogNormal
from ..schedules import Schedule
from .drawing import check_teacher, frozen, noisy, split, squared, teacher_step
from .maps import Map, check_map


class _Consistency(eqx.Module):
    """d(Psi_{s -> end}(x_s), Psi_{r -> end}(x_r)) at neighbouring times r < s of a grid."""

    steps: int = eqx.field(static=True, default=64)
    grid: str | Grid | None = None
    metric: Literal["squared", "huber"] = eqx.field(static=True, default="squared")
    weighted: bool = eqx.field(static=True, default=False)
    often: LogNormal | None = None

    def __check_init__(self) -> None:
        steps = self.steps
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise InputError(f"steps={steps!r} must be a positive integer.")
        if self.metric not in ("squared", "huber"):
            raise InputError(f"metric={self.metric!r} is not known; use 'squared' or 'huber'.")
        if self.often is not None and not isinstance(self.often, LogNormal):
            raise InputError(f"often must be LogNormal(mean, std); got {self.often!r}.")

    def _points(self, model: Map, schedule: Schedule) -> tuple[Any, Any]:
        """The times from noise to data, and how often each but the last is drawn: None if alike."""
        grid = self.grid
        if grid is None:
            grid = "time" if model.end == 0 else schedule.grid
        times = grids.times(schedule, self.steps, grid=grid, end=model.end)
        if self.often is None:
            return times, None
        from scipy.special import erf  # here, as it takes long to import

        with np.errstate(divide="ignore"):
            log_rho = -np.asarray(schedule.log_snr(times))
        below = erf((log_rho - self.often.mean) / (math.sqrt(2) * self.often.std))
        shares = below[:-1] - below[1:]
        return times, shares / shares.sum()

    def __call__(self, model: Map, batch: Any, key: PRNGKeyArray) -> Float[Array, ""]:
        check_map(model)
        schedule = model.schedule
        data, condition = split(batch)
        times, shares = self._points(model, schedule)
        key_index, key_noise = jax.random.split(key)
        if shares is None:
            index = jax.random.randint(key_index, data.shape[:1], 0, self.steps)
        else:
            index = jax.random.choice(
                key_index, self.steps, data.shape[:1], p=jnp.asarray(shares, data.dtype)
            )
        times = jnp.asarray(times, data.dtype)
        s, r = times[index], times[index + 1]
        noise = jax.random.normal(key_noise, data.shape, data.dtype)
        x = noisy(schedule, data, noise, s).x
        before = self.neighbour(schedule, x, data, noise, s, r, condition)
        end = jnp.full_like(s, model.end)
        target = jax.lax.stop_gradient(frozen(model)(before, r, end, condition))
        error = model(x, s, end, condition) - target
        value = squared(error)
        if self.metric == "huber":
            size = error.size // error.shape[0]
            offset = 0.00054 * math.sqrt(size)
            # sqrt(e + c^2) - c without the difference.
            value = size * value
            value = value / (jnp.sqrt(value + offset**2) + offset)
        if self.weighted:
            value = value / (s - r)
        return jnp.mean(value)

    @abstractmethod
    def neighbour(
        self,
        schedule: Schedule,
        x: Array,
        data: Array,
        noise: Array,
        s: Array,
        r: Array,
        condition: PyTree,
    ) -> Array:
        """x_r on the trajectory through x_s."""


class ConsistencyDistillation(_Consistency):
    """x_r is one Heun step of a teacher away from x_s (Song et al. 2023, algorithm 2).

    The parameters of the target are those of the model, without an average (Song and Dhariwal
    2024, sec. 3.2).

    Args:
        teacher: the `Denoiser` to distil, on any schedule.
        steps: of the grid of times.
        grid: its spacing, as of `generative.sample`; by default uniform if the map's end is 0, else
            the schedule's.
        metric: `"squared"`, or `"huber"` for sqrt(|e|^2 + c^2) - c, c = 0.00054 sqrt(dimension)
            (Song and Dhariwal 2024, sec. 3.3), which in few dimensions goes to the median.
        weighted: by 1 / (s - r).
        often: `LogNormal(mean, std)`: how often each noise level is drawn; by default all alike.

    Raises:
        InputError: no teacher; unknown options.
    """

    teacher: Denoiser | None = None

    def __check_init__(self) -> None:
        check_teacher(self.teacher, "ConsistencyDistillation")

    def neighbour(
        self,
        schedule: Schedule,
        x: Array,
        data: Array,
        noise: Array,
        s: Array,
        r: Array,
        condition: PyTree,
    ) -> Array:
        assert self.teacher is not None
        return teacher_step(self.teacher, schedule, x, s, r, condition)


class ConsistencyTraining(_Consistency):
    """x_r has the data and the noise of x_s (Song et al. 2023, algorithm 3): no teacher.

    `improved()` has the options of Song and Dhariwal (2024). Its bias falls with the distance of
    neighbouring times: train with few `steps` first and then with more, see `improved_stages`.

    Args: those of `ConsistencyDistillation`, without the teacher.
    """

    def neighbour(
        self,
        schedule: Schedule,
        x: Array,
        data: Array,
        noise: Array,
        s: Array,
        r: Array,
        condition: PyTree,
    ) -> Array:
        return noisy(schedule, data, noise, r).x

    @classmethod
    def improved(cls, steps: int, **options: Any) -> "ConsistencyTraining":
        """iCT: pseudo-Huber metric, weight 1 / (s - r), log-normal noise levels (-1.1, 2)."""
        given = {"metric": "huber", "weighted": True, "often": LogNormal(-1.1, 2.0)}
        return cls(steps, **{**given, **options})


def improved_stages(total: int, first: int = 10, last: int = 1280) -> list[tuple[int, int]]:
    """How many grid steps to train with, and for how long: [(steps, training steps), ...].

    Twice as many from stage to stage, stages of equal length (Song and Dhariwal 2024, eq. 11).

    Args:
        total: training steps.
        first: grid steps of the first stage.
        last: the most grid steps.

    Raises:
        InputError: numbers that are not positive integers, last below first, too few steps.
    """
    for name, value in (("total", total), ("first", first), ("last", last)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise InputError(f"{name}={value!r} must be a positive integer.")
    if last < first:
        raise InputError(f"last={last} must not be below first={first}.")
    stages = math.floor(math.log2(last / first) + 1e-9) + 1
    if total < stages:
        raise InputError(f"total={total} steps are too few for {stages} stages.")
    counts = [total // stages] * stages
    counts[-1] += total - sum(counts)
    return [(first * 2**k, count) for k, count in enumerate(counts)]
