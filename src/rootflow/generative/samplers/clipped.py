"""DDIM as it is often run on images: the predicted data are clipped, and the noise is not."""

from typing import Any

import equinox as eqx
from jaxtyping import Array

from ..grids import Knots
from ..schedules import Schedule
from ..threshold import DynamicThreshold
from .base import Evaluate
from .ddim import DDIM
from .multistep import Row, steps_between


class ClippedDDIM(DDIM):
    """DDIM with x_0 clipped in the one place where it stands by itself.

    x_t = alpha_t clip(x_0) + sqrt(sigma_t^2 - v^2) eps + v z, eps = (x_s - alpha_s x_0) / sigma_s
    as the model has it. A `Denoiser` with a `threshold` has the eps that goes with the clipped
    data instead.

    Attributes:
        threshold: the clipping.
    """

    threshold: DynamicThreshold = eqx.field(default=DynamicThreshold(1.0, 1.0, 1.0), kw_only=True)

    def coefficients(self, schedule: Schedule, knots: Knots) -> tuple[Any, list[Any], Any]:
        scale, weights, spread = super().coefficients(schedule, knots)
        return scale, [*weights, steps_between(knots).target.alpha], spread

    def step(self, evaluate: Evaluate, state: Any, row: Row, draw: Array | None) -> Any:
        x, past = state
        data = evaluate(x, row.level)
        change = self.threshold.apply(data) - data
        x = row.scale * x + row.weights[0] * data + row.weights[1] * change
        x = x if draw is None else x + row.spread * draw
        return x, past
