"""Consistency models in continuous time: sCM."""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from ...errors import InputError
from ..denoiser import Denoiser
from ..numerics import expand
from .drawing import check_teacher, draw_point, split, squared, teacher_velocity
from .maps import TrigConsistencyMap, check_map


class ContinuousConsistency(eqx.Module):
    """sCD with a teacher, sCT without (Lu and Song 2025, arXiv 2410.11081, algorithm 1).

    The tangent is g = -cos^2 t (d F - dx/dt) - r cos t sin t (x + d dF/dt), dF/dt along the flow by
    one Jacobian-vector product, and the loss |F - sg(F + g)|^2.

    Args:
        teacher: a `Denoiser` whose flow is dx/dt, on any schedule; by default that of each noisy
            sample.
        warmup: r, from 0 (flow matching) to 1: raise it over the first stages of a long training.
        normalise: `"batch"` divides the tangents of a batch by their root mean square (plus
            `offset`); `"sample"` each by its own norm, as in the paper. In few dimensions the
            latter turns the mean of noisy tangents into a median, and is wrong without a teacher.
        offset: c.
        mean: of log(tan(t) d).
        std: of log(tan(t) d).

    Raises:
        InputError: options out of range; later, a model that is not a `TrigConsistencyMap`.
    """

    teacher: Denoiser | None = None
    warmup: float | Array = 1.0
    normalise: Literal["batch", "sample"] = eqx.field(static=True, default="batch")
    offset: float = eqx.field(static=True, default=0.1)
    mean: float = eqx.field(static=True, default=-1.0)
    std: float = eqx.field(static=True, default=1.4)

    def __check_init__(self) -> None:
        if self.teacher is not None:
            check_teacher(self.teacher, "ContinuousConsistency")
        if self.normalise not in ("batch", "sample"):
            raise InputError(f"normalise={self.normalise!r} is not known; use 'batch' or 'sample'.")
        if not self.offset > 0 or not self.std > 0:
            raise InputError(f"offset={self.offset} and std={self.std} must be positive.")

    def __call__(self, model: TrigConsistencyMap, batch: Any, key: PRNGKeyArray) -> Any:
        check_map(model, TrigConsistencyMap)
        data, condition = split(batch)
        key_time, key_noise = jax.random.split(key)
        size = model.sigma_data
        log_tangent = self.mean + self.std * jax.random.normal(key_time, data.shape[:1], data.dtype)
        t = jnp.arctan(jnp.exp(log_tangent) / size)
        point = draw_point(model.schedule, data, t, key_noise)
        x, velocity = point.x, point.velocity
        if self.teacher is not None:
            velocity = teacher_velocity(self.teacher, model.schedule, x, t, condition)
        # F and dF/dt along the flow; only F is differentiated in the parameters.
        inner, rate = jax.jvp(
            lambda x, t: model.inner(x, t, condition), (x, t), (velocity, jnp.ones_like(t))
        )
        cosine, sine = expand(jnp.cos(t), x), expand(jnp.sin(t), x)
        tangent = -(cosine**2) * (size * inner - velocity)
        tangent = tangent - self.warmup * cosine * sine * (x + size * rate)
        tangent = self._normalised(jax.lax.stop_gradient(tangent))
        error = inner - jax.lax.stop_gradient(inner) - tangent
        value = squared(error)
        if model.weighting is None:
            return jnp.mean(value)
        weight = model.weighting(t)
        return jnp.mean(jnp.exp(weight) * value - weight)

    def _normalised(self, tangent: Array) -> Array:
        axes = tuple(range(1, tangent.ndim))
        norms = jnp.sum(tangent**2, axis=axes)
        if self.normalise == "batch":
            return tangent / (jnp.sqrt(jnp.mean(norms)) + self.offset)
        return tangent / expand(jnp.sqrt(norms) + self.offset, tangent)
