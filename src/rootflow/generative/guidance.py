"""Guidance: two predictions combined into one, or one moved along the gradient of a classifier.

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
from jaxtyping import Array, ArrayLike, PyTree

from ..errors import InputError
from .numerics import expand, is_traced
from .predictions import convert
from .schedules import Level

if TYPE_CHECKING:
    from .denoiser import Denoiser


class Guidance(eqx.Module):
    """How a condition steers the samples."""

    needs_condition: ClassVar[bool] = True

    @abstractmethod
    def apply(self, denoiser: "Denoiser", x: Array, level: Level, condition: PyTree) -> Array:
        """The guided prediction at x, in the kind that the model predicts."""


def _check_scale(scale: Any, interval: Any = None) -> None:
    if not is_traced(scale) and not np.isfinite(np.asarray(scale)).all():
        raise InputError(f"The scale of the guidance must be finite; got {scale!r}.")
    if interval is not None:
        low, high = interval
        if not 0 <= low < high:
            raise InputError(
                f"interval={interval} must be two noise levels sigma / alpha, the lower first."
            )


def _weight(scale: Any, interval: tuple[float, float] | None, level: Level) -> Any:
    if interval is None:
        return scale
    # sigma > low alpha is sigma / alpha > low where alpha may be zero.
    low, high = interval
    inside = (level.sigma > low * level.alpha) & (level.sigma <= high * level.alpha)
    return jnp.where(inside, scale, 1.0)


class ClassifierFree(Guidance):
    """D = D_none + scale (D_condition - D_none) (Ho and Salimans 2022). Two model calls.

    Attributes:
        scale: 1 leaves the conditional model as it is; more exaggerates the condition.
        unconditional: what the model is given for no condition, as in its training.
        interval: noise levels (low, high] of sigma / alpha between which to guide; elsewhere the
            scale is 1 (Kynkäänniemi et al. 2024).
    """

    scale: ArrayLike
    unconditional: PyTree = None
    interval: tuple[float, float] | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        _check_scale(self.scale, self.interval)

    def apply(self, denoiser: "Denoiser", x: Array, level: Level, condition: PyTree) -> Array:
        with_it = denoiser.evaluate(x, level, condition, True)
        without = denoiser.evaluate(x, level, self.unconditional, True)
        weight = expand(_weight(self.scale, self.interval, level), x)
        return without + weight * (with_it - without)


class AutoGuidance(Guidance):
    """D = D_bad + scale (D - D_bad), away from a worse model of the same task (Karras et al. 2024).

    Attributes:
        bad: the worse model, called like the denoiser's own and predicting the same kind.
        scale: 1 leaves the model as it is.
        interval: as in `ClassifierFree`.
    """

    needs_condition: ClassVar[bool] = False

    bad: Callable[..., Any]
    scale: ArrayLike
    interval: tuple[float, float] | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        _check_scale(self.scale, self.interval)

    def apply(self, denoiser: "Denoiser", x: Array, level: Level, condition: PyTree) -> Array:
        conditioned = condition is not None
        good = denoiser.evaluate(x, level, condition, conditioned)
        bad = denoiser.evaluate(x, level, condition, conditioned, model=self.bad)
        weight = expand(_weight(self.scale, self.interval, level), x)
        return bad + weight * (good - bad)


class Classifier(Guidance):
    """score + scale grad_x log p(condition | x, t) (Dhariwal and Nichol 2021, algorithm 2).

    Attributes:
        log_probability: `(x, t, condition) -> (batch,)`, the classifier's log-probability of the
            condition for every sample. It is differentiated in x.
        scale: 0 leaves the model as it is, 1 follows Bayes' rule.
        conditional: whether the model takes the condition as well.
    """

    log_probability: Callable[..., Any]
    scale: ArrayLike = 1.0
    conditional: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        _check_scale(self.scale)

    def apply(self, denoiser: "Denoiser", x: Array, level: Level, condition: PyTree) -> Array:
        value = denoiser.evaluate(x, level, condition, self.conditional)
        slope = jax.grad(lambda x: jnp.sum(self.log_probability(x, level.t, condition)))(x)
        noise = convert(value, x, level, denoiser.predicts, "noise")
        noise = noise - expand(self.scale, x) * expand(level.sigma, x) * slope
        return convert(noise, x, level, "noise", denoiser.predicts)
