"""Progressive distillation: a student that takes one step where its teacher takes two."""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..._typing import PyTree
from ...errors import InputError
from .. import grids
from ..denoiser import Denoiser
from ..grids import Grid
from ..numerics import expand
from .drawing import check_teacher, draw_point, frozen, split, squared


class ProgressiveDistillation(eqx.Module):
    """The data that one DDIM step must see to end where two of the teacher do.

    (Salimans and Ho 2022, algorithm 2.) The model is a `Denoiser` on the teacher's schedule, best
    begun as a copy of the teacher. Trained, it is sampled with
    `sample(model, sampler=DDIM(), grid=loss.times())`, and is the teacher of the next round, with
    half as many steps.

    Args:
        teacher: the `Denoiser` to distil.
        steps: steps of the student.
        weight: of the squared error of the data: `"truncated"` for max(SNR, 1), or `"snr+1"`.
        grid: spacing of the 2 n steps of the teacher, as of `generative.sample`.
        end: the cleanest time; by default the schedule's.

    Raises:
        InputError: no teacher; options out of range; later, a student on another schedule.
    """

    teacher: Denoiser | None = None
    steps: int = eqx.field(static=True, default=1)
    weight: Literal["truncated", "snr+1"] = eqx.field(static=True, default="truncated")
    grid: str | Grid = "time"
    end: float | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        check_teacher(self.teacher, "ProgressiveDistillation")
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise InputError(f"steps={self.steps!r} must be a positive integer.")
        if self.weight not in ("truncated", "snr+1"):
            raise InputError(f"weight={self.weight!r} is not known; use 'truncated' or 'snr+1'.")

    def times(self) -> Any:
        """The times of the student's steps, shape (steps + 1,)."""
        return self._fine()[::2]

    def _fine(self) -> Any:
        assert self.teacher is not None
        return grids.times(self.teacher.schedule, 2 * self.steps, grid=self.grid, end=self.end)

    def __call__(self, model: Denoiser, batch: Any, key: PRNGKeyArray) -> Float[Array, ""]:
        assert self.teacher is not None
        schedule = self.teacher.schedule
        if not isinstance(model, Denoiser):
            raise InputError(f"The student must be a Denoiser; got {type(model).__name__}.")
        if model.schedule != schedule:
            raise InputError(
                f"Student and teacher must be on one schedule; got {model.schedule!r} and "
                f"{schedule!r}."
            )
        data, condition = split(batch)
        times = jnp.asarray(self._fine(), data.dtype)
        key_index, key_noise = jax.random.split(key)
        index = 2 * jax.random.randint(key_index, data.shape[:1], 0, self.steps)
        s, middle, t = times[index], times[index + 1], times[index + 2]
        x = draw_point(schedule, data, s, key_noise).x
        teacher = frozen(self.teacher)
        there = _ddim(teacher, _ddim(teacher, x, s, middle, condition), middle, t, condition)
        now, then = schedule.level(s), schedule.level(t)
        ratio = then.sigma / now.sigma
        target = (there - expand(ratio, x) * x) / expand(then.alpha - ratio * now.alpha, x)
        snr = (now.alpha / now.sigma) ** 2
        weight = jnp.maximum(snr, 1.0) if self.weight == "truncated" else 1 + snr
        found = model.predict("data", x, now, condition)
        error = found - jax.lax.stop_gradient(target)
        return jnp.mean(weight * squared(error))


def _ddim(denoiser: Denoiser, x: Array, s: Array, t: Array, condition: PyTree) -> Array:
    """One step of DDIM, with times of shape (batch,)."""
    before, after = denoiser.schedule.level(s), denoiser.schedule.level(t)
    data = denoiser.predict("data", x, before, condition)
    noise = (x - expand(before.alpha, x) * data) / expand(before.sigma, x)
    return expand(after.alpha, x) * data + expand(after.sigma, x) * noise
