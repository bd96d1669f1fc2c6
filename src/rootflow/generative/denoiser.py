"""`Denoiser`: a trained model, its schedule, and what it predicts."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._typing import PyTree
from ..errors import InputError
from .grids import check_inside
from .guidance import Classifier, Guidance
from .numerics import doubled_axis
from .preconditioning import check_preconditioned
from .predictions import KINDS, convert
from .schedules import Level, Schedule
from .threshold import DynamicThreshold


class Denoiser(eqx.Module):
    """A model of the noise in x, asked for any kind of prediction whatever kind it was trained for.

    Args:
        model: any function or module `(x, t) -> prediction` of the shape of x, or
            `(x, t, condition) -> prediction` where a condition is given. It is called with the
            whole batch, shape (batch, ...), and one time, shape () (or a time per sample, shape
            (batch,), if you pass that).
        schedule: the noise schedule that the model was trained with.
        predicts: `"noise"`, `"data"`, `"score"`, `"velocity"` or `"flow"`.
        guidance: `ClassifierFree`, `Classifier`, `AutoGuidance`, `LossGuidance`, or one for
            measurements such as `PiGDM`.
        threshold: `DynamicThreshold`, for images in pixel space.
        time: what the model is told as the time, a function of t; by default t itself. For a
            network trained on a table of betas, `schedule.label`.
        variance_axis: of a model with a learned variance (Nichol and Dhariwal 2021): the axis along
            which it returns its prediction and then as many channels again for the variance; 1 for
            (batch, channels, ...), -1 for (batch, ..., channels). `DDPM("learned_range")` uses the
            second half, all else leaves it out.

    Raises:
        InputError: an unknown kind of prediction; later, a model whose value is not shaped like x,
            times outside the schedule, guidance without a condition.
    """

    model: Callable[..., Any]
    schedule: Schedule
    predicts: str = eqx.field(static=True, default="noise")
    guidance: Guidance | None = None
    threshold: DynamicThreshold | None = None
    time: Callable[[Any], Any] | None = None
    variance_axis: int | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        if not callable(self.model):
            raise InputError(f"model must be a function (x, t) -> prediction; got {self.model!r}.")
        if not isinstance(self.schedule, Schedule):
            raise InputError(f"schedule must be a Schedule, as VPLinear(); got {self.schedule!r}.")
        if self.predicts not in KINDS:
            raise InputError(
                f"predicts={self.predicts!r} is not known; a model predicts one of "
                f"{', '.join(repr(kind) for kind in KINDS)}."
            )
        if self.guidance is not None and not isinstance(self.guidance, Guidance):
            raise InputError(
                f"guidance must be a Guidance, such as ClassifierFree(3.0); got {self.guidance!r}."
            )
        axis = self.variance_axis
        if axis is not None and (isinstance(axis, bool) or not isinstance(axis, int) or axis == 0):
            raise InputError(
                f"variance_axis={axis!r} must be the axis of the channels, as 1 or -1, and not "
                "that of the batch."
            )
        check_preconditioned(self.model, self.schedule, self.predicts, self.time)

    def noise(self, x: Float[Array, "..."], t: ArrayLike, condition: PyTree = None) -> Array:
        """The predicted noise eps, of the shape of x."""
        return self.at("noise", x, t, condition)

    def data(self, x: Float[Array, "..."], t: ArrayLike, condition: PyTree = None) -> Array:
        """The predicted clean data x_0."""
        return self.at("data", x, t, condition)

    def score(self, x: Float[Array, "..."], t: ArrayLike, condition: PyTree = None) -> Array:
        """The predicted gradient of the log-density of x."""
        return self.at("score", x, t, condition)

    def velocity(self, x: Float[Array, "..."], t: ArrayLike, condition: PyTree = None) -> Array:
        """The predicted alpha eps - sigma x_0."""
        return self.at("velocity", x, t, condition)

    def flow(self, x: Float[Array, "..."], t: ArrayLike, condition: PyTree = None) -> Array:
        """The predicted dx/dt of the probability-flow equation."""
        return self.at("flow", x, t, condition)

    def at(self, kind: str, x: Any, t: ArrayLike, condition: PyTree = None) -> Array:
        """The prediction of this kind at (x, t); t is one time or one per sample."""
        x = jnp.asarray(x)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise InputError(f"x must be floating-point numbers; got {x.dtype}.")
        t = jnp.asarray(t)
        if t.shape not in ((), x.shape[:1]):
            raise InputError(
                f"t must be one time, or one for each of the samples, shape {x.shape[:1]}; got "
                f"shape {t.shape}."
            )
        t = check_inside(self.schedule, t, "t")
        # In the precision of the samples, whatever that of the time and of the schedule's table.
        working = jnp.promote_types(x.dtype, jnp.float32)
        level = Level(*(jnp.asarray(part, working) for part in self.schedule.level(t)))
        return self.predict(kind, x, level, condition).astype(x.dtype)

    def predict(self, kind: str, x: Array, level: Level, condition: PyTree = None) -> Array:
        """The prediction of this kind, with the noise level of x worked out beforehand."""
        if self.guidance is None:
            value = self.evaluate(x, level, condition, condition is not None)
        else:
            if condition is None and self.guidance.needs_condition:
                raise InputError(
                    f"{type(self.guidance).__name__} guides towards a condition, and there is "
                    "none: pass condition=..."
                )
            value = self.guidance.apply(self, x, level, condition)
        return self._converted(kind, value, x, level)

    def _converted(self, kind: str, value: Array, x: Array, level: Level) -> Array:
        """A prediction of the model's kind in this kind, thresholded if that is asked for."""
        source = self.predicts
        if self.threshold is not None:
            data = convert(value, x, level, source, "data")
            value, source = self.threshold.apply(data), "data"
        return convert(value, x, level, source, kind)

    def predict_with_variance(
        self, kind: str, x: Array, level: Level, condition: PyTree = None
    ) -> tuple[Array, Array]:
        """The prediction of this kind, and what a model with a learned variance says beside it.

        With guidance the latter is that of the model itself, with the condition.
        """
        if self.variance_axis is None:
            raise InputError(
                "The sampler asks for a learned variance: say with Denoiser(..., variance_axis=...)"
                " along which axis the model returns it, 1 for (batch, channels, ...)."
            )
        conditioned = condition is not None
        if isinstance(self.guidance, Classifier):
            conditioned = self.guidance.conditional
        value, variance = self._answer(x, level, condition, conditioned, None)
        assert variance is not None  # as there is an axis for it
        if self.guidance is not None:
            # Compiled, this call of the model and that inside the guidance are one (measured on a
            # dense network: 12.84 and 12.83 million operations with and without it).
            return self.predict(kind, x, level, condition), variance
        return self._converted(kind, value, x, level), variance

    def evaluate(
        self, x: Array, level: Level, condition: PyTree, conditioned: bool, model: Any = None
    ) -> Array:
        """What the model itself says, without guidance, in the kind it was trained for."""
        return self._answer(x, level, condition, conditioned, model)[0]

    def _answer(
        self, x: Array, level: Level, condition: PyTree, conditioned: bool, model: Any
    ) -> tuple[Array, Array | None]:
        """What the model says, and what it says beside it of the variance."""
        model = self.model if model is None else model
        time = level.t if self.time is None else self.time(level.t)
        value = model(x, time, condition) if conditioned else model(x, time)
        axis, shape = self.variance_axis, list(x.shape)
        if axis is not None:
            if not -x.ndim < axis < x.ndim:
                raise InputError(
                    f"variance_axis={axis} is not an axis of the channels of samples of shape "
                    f"{x.shape}."
                )
            shape[axis] *= 2
        if not eqx.is_array_like(value) or jnp.shape(value) != tuple(shape):
            raise InputError(_wrong_shape(value, x, tuple(shape), axis))
        # The precision is that of the samples, whatever the model works in.
        value = jnp.asarray(value).astype(x.dtype)
        if axis is None:
            return value, None
        said, variance = jnp.split(value, 2, axis=axis)
        return said, variance


def _wrong_shape(value: Any, x: Array, shape: tuple[int, ...], axis: int | None) -> str:
    """What to say of a model's value that has not this shape."""
    found = jax.tree.map(jnp.shape, value)
    if axis is not None:
        return (
            f"With variance_axis={axis} the model must return its prediction and its variance, one "
            f"array of shape {shape}; got {found}."
        )
    advice = ""
    at = doubled_axis(jnp.shape(value), x.shape) if eqx.is_array_like(value) else None
    if at:
        advice = f" A model with a learned variance needs Denoiser(..., variance_axis={at})."
    return (
        f"The model must return what x looks like, one array of shape {shape}; got {found}.{advice}"
    )
