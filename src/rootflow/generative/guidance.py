"""Guidance: two predictions combined, or one moved along a gradient (a classifier's, or a loss's).

A weight of 1 is the conditional model everywhere. (Ho and Salimans 2022 count from 0: their w is
this scale minus 1.) The combinations are the same for every kind of prediction.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from .._typing import PyTree
from ..errors import InputError
from ..ground.tracing import is_traced
from .numerics import expand
from .predictions import data_and_noise
from .schedules import Level

if TYPE_CHECKING:
    from .denoiser import Denoiser


class Guidance(eqx.Module):
    """How a condition steers the samples: the base of every guidance, and of one of your own.

    A subclass is an Equinox module (its annotated attributes are its arguments) with one method,
    `apply`, that answers in the place of the model. It works in every sampler, under `jit` and
    `grad`, if it is written in JAX.

    Attributes:
        needs_condition: of the class: whether `sample` refuses to go on without a condition.
    """

    needs_condition: ClassVar[bool] = True

    @abstractmethod
    def apply(self, denoiser: "Denoiser", x: Array, level: Level, condition: PyTree) -> Array:
        """The guided prediction at x, of the kind `denoiser.predicts`.

        Args:
            denoiser: asked by `denoiser.evaluate(x, level, condition, conditioned)` for what the
                model itself says; `conditioned=False` calls the model without a condition.
            x: the samples, shape (batch, ...).
            level: the time and the noise level: `level.t`, `level.alpha`, `level.sigma`, each one
                number, or one a sample.
            condition: as handed to `sample`.
        """


def predicted(
    inner: Guidance | None, denoiser: "Denoiser", x: Array, level: Level, condition: PyTree
) -> Array:
    """The prediction that a guidance works on: the model's, or that of the guidance inside it."""
    if inner is None:
        return denoiser.evaluate(x, level, condition, condition is not None)
    if inner.needs_condition and condition is None:
        raise InputError(
            f"{type(inner).__name__} guides towards a condition, and there is none: pass "
            "condition=..."
        )
    return inner.apply(denoiser, x, level, condition)


def moved(kind: str, value: Array, change: Array, level: Level) -> Array:
    """A prediction after this change of the noise in it, at the same sample.

    Where there is no signal, as at the start of a straight path, nothing points to any data, and
    the prediction stays as it is.
    """
    _, alpha, sigma, alpha_rate, sigma_rate = (expand(part, value) for part in level)
    some = alpha > 0
    change = jnp.where(some, change, 0.0)
    if kind == "noise":
        return value + change
    if kind == "score":
        return value - change / sigma
    data = -sigma / jnp.where(some, alpha, 1.0) * change
    if kind == "data":
        return value + data
    if kind == "velocity":
        return value + alpha * change - sigma * data
    return value + alpha_rate * data + sigma_rate * change


def _scale(scale: Any) -> Any:
    """The scale as an array, so that scales of all values share one compiled program."""
    if is_traced(scale) or callable(scale):
        return scale
    if not eqx.is_array_like(scale):
        raise InputError(
            "The scale of the guidance must be a number, or one for each sample, or a function of "
            f"the time that returns them; got {scale!r:.60}."
        )
    if not np.isfinite(np.asarray(scale)).all():
        raise InputError(f"The scale of the guidance must be finite; got {scale!r}.")
    # A Python number keeps giving way to the precision of the samples.
    return jnp.asarray(scale) if isinstance(scale, int | float) else scale


def scale_at(scale: Any, level: Level) -> Any:
    """The scale at this level: itself, or its value there if it is a function of the time."""
    if not callable(scale):
        return scale
    value = scale(level.t)
    if not eqx.is_array_like(value):
        raise InputError(
            "The scale of the guidance is a function of the time, and must return a number, or one "
            f"for each sample; got {value!r:.60}."
        )
    return jnp.asarray(value)


def per_sample(scale: Any, x: Array) -> Any:
    """The scale, made to multiply x: one number, or one for each sample.

    Raises:
        InputError: another number of them.
    """
    spread = expand(scale, x)
    try:
        fits = np.broadcast_shapes(np.shape(spread), x.shape) == x.shape
    except ValueError:
        fits = False
    if not fits:
        raise InputError(
            f"The scale of the guidance has shape {np.shape(scale)}, and there are {x.shape[0]} "
            f"samples: give one number, or one for each sample, shape ({x.shape[0]},)."
        )
    return spread


def _check_interval(interval: Any) -> None:
    if interval is not None:
        low, high = interval
        if not 0 <= low < high:
            raise InputError(
                f"interval={interval} must be two noise levels sigma / alpha, the lower first."
            )


def _inside(interval: tuple[float, float], level: Level) -> Any:
    # sigma > low alpha is sigma / alpha > low where alpha may be zero.
    low, high = interval
    return (level.sigma > low * level.alpha) & (level.sigma <= high * level.alpha)


def _guided(
    guide: Callable[[], Array],
    plain: Array,
    interval: tuple[float, float] | None,
    level: Level,
) -> Array:
    """What `guide` returns within the interval, and the plain prediction outside of it.

    Outside nothing of `guide` is evaluated, if the level is one for all samples: as a branch of
    the compiled loop. It is evaluated, and not used, where the levels differ.
    """
    if interval is None:
        return guide()
    inside = _inside(interval, level)
    if np.ndim(inside):
        any_inside = jnp.any(inside)
        found = jax.lax.cond(any_inside, lambda: guide().astype(plain.dtype), lambda: plain)
        return jnp.where(expand(inside, plain), found, plain)
    if not is_traced(inside):
        return guide() if bool(inside) else plain
    return jax.lax.cond(inside, lambda: guide().astype(plain.dtype), lambda: plain)


class ClassifierFree(Guidance):
    """D = D_none + scale (D_condition - D_none) (Ho and Salimans 2022). Two model calls.

    Attributes:
        scale: 1 leaves the conditional model as it is; more exaggerates the condition. A number, or
            one a sample, or a function of the schedule's time that returns them.
        unconditional: what the model is given for no condition, as in its training.
        interval: noise levels (low, high] of sigma / alpha between which to guide; elsewhere the
            scale is 1, and the model is called once (Kynkäänniemi et al. 2024).
        rescale: phi, from 0 to 1: how far the guided prediction is brought back to the standard
            deviation that the conditional one has, sample by sample, in the kind that the model
            predicts (Lin et al. 2024, eq. 15 and 16; they take 0.7).
    """

    scale: ArrayLike | Callable[[Any], Any] = eqx.field(converter=_scale)
    unconditional: PyTree = None
    interval: tuple[float, float] | None = eqx.field(static=True, default=None)
    rescale: float = eqx.field(static=True, default=0.0)

    def __check_init__(self) -> None:
        _check_interval(self.interval)
        if not 0 <= self.rescale <= 1:
            raise InputError(f"rescale={self.rescale} must be at least 0 and at most 1.")

    def apply(self, denoiser: "Denoiser", x: Array, level: Level, condition: PyTree) -> Array:
        with_it = denoiser.evaluate(x, level, condition, True)
        weight = per_sample(scale_at(self.scale, level), x)

        def guide() -> Array:
            without = denoiser.evaluate(x, level, self.unconditional, True)
            guided = without + weight * (with_it - without)
            return _rescaled(guided, with_it, self.rescale) if self.rescale else guided

        return _guided(guide, with_it, self.interval, level)


def _rescaled(guided: Array, plain: Array, share: float) -> Array:
    """The guided prediction, by this share with the standard deviation of the plain one."""
    axes = tuple(range(1, guided.ndim))
    had, wanted = (jnp.var(part, axis=axes, keepdims=True) for part in (guided, plain))
    some = (had > 0) & (wanted > 0)  # without either there is nothing to compare
    factor = jnp.sqrt(jnp.where(some, wanted, 1.0) / jnp.where(some, had, 1.0))
    return (share * factor + (1 - share)) * guided


class AutoGuidance(Guidance):
    """D = D_bad + scale (D - D_bad), away from a worse model of the same task (Karras et al. 2024).

    Attributes:
        bad: the worse model, called like the denoiser's own and predicting the same kind.
        scale: 1 leaves the model as it is; as in `ClassifierFree`.
        interval: as in `ClassifierFree`; outside of it the worse model is not called.
    """

    needs_condition: ClassVar[bool] = False

    bad: Callable[..., Any]
    scale: ArrayLike | Callable[[Any], Any] = eqx.field(converter=_scale)
    interval: tuple[float, float] | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        _check_interval(self.interval)

    def apply(self, denoiser: "Denoiser", x: Array, level: Level, condition: PyTree) -> Array:
        conditioned = condition is not None
        good = denoiser.evaluate(x, level, condition, conditioned)
        weight = per_sample(scale_at(self.scale, level), x)

        def guide() -> Array:
            bad = denoiser.evaluate(x, level, condition, conditioned, model=self.bad)
            return bad + weight * (good - bad)

        return _guided(guide, good, self.interval, level)


class Classifier(Guidance):
    """score + scale grad_x log p(condition | x, t) (Dhariwal and Nichol 2021, algorithm 2).

    Attributes:
        log_probability: `(x, t, condition) -> (batch,)`, the classifier's log-probability of the
            condition for every sample. It is differentiated in x.
        scale: 0 leaves the model as it is, 1 follows Bayes' rule; as in `ClassifierFree`.
        conditional: whether the model takes the condition as well.
    """

    log_probability: Callable[..., Any]
    scale: ArrayLike | Callable[[Any], Any] = eqx.field(converter=_scale, default=1.0)
    conditional: bool = eqx.field(static=True, default=False)

    def apply(self, denoiser: "Denoiser", x: Array, level: Level, condition: PyTree) -> Array:
        value = denoiser.evaluate(x, level, condition, self.conditional)
        slope = jax.grad(lambda x: jnp.sum(self.log_probability(x, level.t, condition)))(x)
        weight = per_sample(scale_at(self.scale, level), x)
        change = -weight * expand(level.sigma, x) * slope
        return moved(denoiser.predicts, value, change, level)


class LossGuidance(Guidance):
    """score - scale grad_x loss(x_0), with x_0 solved for from x (Pan et al. 2024b).

    The clean data are reached by `steps` Euler steps of the probability flow in the noise level, at
    times uniform from t to the end of the schedule, the last onto clean data. One step takes the
    model's own prediction (Yu et al. 2023, FreeDoM); the paper takes four. The derivative is that
    of the steps as they are taken, which for Euler steps is the symplectic adjoint, at the memory
    of one evaluation. Each evaluation of the guided model is `steps` of the model and a derivative.

    Pan, Liew, Tan, Feng, Yan (2024b), arXiv 2312.12030.

    Attributes:
        loss: `(data) -> (batch,)`, a loss of each clean sample, differentiable.
        scale: 0 leaves the model as it is; as in `ClassifierFree`.
        steps: of the solve.
        normalized: divide each sample's gradient by its root mean square, so that `scale` is the
            size of what is added to the noise.
        inner: other guidance.
    """

    needs_condition: ClassVar[bool] = False

    loss: Callable[[Array], Array]
    scale: ArrayLike | Callable[[Any], Any] = eqx.field(converter=_scale, default=1.0)
    steps: int = eqx.field(static=True, default=4)
    normalized: bool = eqx.field(static=True, default=False)
    inner: Guidance | None = eqx.field(default=None, kw_only=True)

    def __check_init__(self) -> None:
        if not self.steps >= 1:
            raise InputError(f"steps={self.steps} must be at least 1.")

    def apply(self, denoiser: "Denoiser", x: Array, level: Level, condition: PyTree) -> Array:
        def total(x):
            value = predicted(self.inner, denoiser, x, level, condition)
            losses = self.loss(self._clean(denoiser, x, value, level, condition))
            if jnp.shape(losses) != x.shape[:1]:
                raise InputError(
                    f"loss must return a number for each of the {x.shape[0]} samples; got shape "
                    f"{jnp.shape(losses)}."
                )
            return jnp.sum(losses), value

        slope, value = jax.grad(total, has_aux=True)(x)
        push = expand(level.sigma, x) * slope
        if self.normalized:
            size = jnp.sqrt(jnp.mean(slope**2, axis=tuple(range(1, x.ndim))))
            push = slope / expand(jnp.maximum(size, jnp.finfo(size.dtype).tiny), slope)
        weight = jnp.asarray(scale_at(self.scale, level), x.dtype)
        change = per_sample(weight, x) * push
        return moved(denoiser.predicts, value, change, level)

    def _clean(
        self, denoiser: "Denoiser", x: Array, value: Array, level: Level, condition: PyTree
    ) -> Array:
        """The clean data, from x and the prediction there."""

        def split(value, x, level):
            parts = data_and_noise(denoiser.predicts, value, x, level)
            return tuple(part.astype(x.dtype) for part in parts)

        @jax.checkpoint
        def step(carry, share):
            data, noise = carry
            t = level.t + share * (denoiser.schedule.end - level.t)
            there = denoiser.schedule.level(jnp.asarray(t, x.dtype))
            x_t = expand(there.alpha, x) * data + expand(there.sigma, x) * noise
            found = predicted(self.inner, denoiser, x_t, there, condition)
            return split(found, x_t, there), None

        shares = jnp.arange(1, self.steps, dtype=x.dtype) / self.steps
        (data, _), _ = jax.lax.scan(step, split(value, x, level), shares)
        return data
