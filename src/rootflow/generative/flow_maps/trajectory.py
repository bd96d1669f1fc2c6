"""Consistency trajectory models."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ...errors import InputError
from ..denoiser import Denoiser
from .drawing import MapLoss, check_teacher, frozen, squared, teacher_step
from .maps import Map


class ConsistencyTrajectory(MapLoss):
    """CTM (Kim et al. 2024, arXiv 2310.02279, eq. 11 and 12), without the adversarial part.

    A jump from s to t, and one that first follows the teacher to a time between them, are compared
    as clean data: both are carried on to the end by the model as it stands. To it comes the
    regression of the velocity u(x, s, s) on the data (denoising score matching).

    Args:
        times: how times are drawn: a spacing by name, or a `Grid`.
        teacher: the `Denoiser` to distil, on any schedule.
        solver_steps: Heun steps of the teacher.
        velocity: the weight of the regression.

    Raises:
        InputError: no teacher; a weight or a number of steps out of range.
    """

    teacher: Denoiser | None = None
    solver_steps: int = eqx.field(static=True, default=4)
    velocity: float = eqx.field(static=True, default=1.0)

    def __check_init__(self) -> None:
        check_teacher(self.teacher, "ConsistencyTrajectory")
        if self.solver_steps < 1:
            raise InputError(f"solver_steps={self.solver_steps} must be at least 1.")
        if not self.velocity >= 0:
            raise InputError(f"velocity={self.velocity} must not be negative.")

    def __call__(self, model: Map, batch: Any, key: PRNGKeyArray) -> Any:
        assert self.teacher is not None
        point, t, condition, key = self.drawn(model, batch, key)
        x, v, s = point
        fixed, end = frozen(model), jnp.full_like(s, model.end)
        r = s - jax.random.uniform(key, s.shape, s.dtype) * (s - t)
        there = teacher_step(self.teacher, model.schedule, x, s, r, condition, self.solver_steps)
        target = fixed(fixed(there, r, t, condition), t, end, condition)
        found = fixed(model(x, s, t, condition), t, end, condition)
        jumps = jnp.mean(squared(found - jax.lax.stop_gradient(target)))
        diagonal = jnp.mean(squared(model.velocity(x, s, condition) - v))
        return jumps + self.velocity * diagonal, {"velocity": diagonal, "jumps": jumps}
