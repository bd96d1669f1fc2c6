"""Samplers of distilled models: a few long steps, with fresh noise in between."""

from typing import Any

import equinox as eqx
import numpy as np

from ..grids import Knots
from ..numerics import namespace
from ..schedules import Schedule
from .base import require
from .multistep import Multistep, steps_between


class LCM(Multistep):
    """Multistep sampling of latent consistency models (Luo et al. 2023, algorithm 3).

    f = c_skip x_s + c_out x_0, x_0 the predicted data; x_t = alpha_t f + sigma_t z, with
    c_skip = d^2 / (u^2 + d^2), c_out = u / sqrt(u^2 + d^2) and u = scaling times the step of the
    network's table (`DiscreteBetas.label`).

    Attributes:
        sigma_data: d.
        scaling: of the step of the table; None for f = x_0, on any schedule, as flow-matching
            models are sampled that were distilled without the two coefficients.
    """

    sigma_data: float = eqx.field(static=True, default=0.5)
    scaling: float | None = eqx.field(static=True, default=10.0)

    def __check_init__(self) -> None:
        require(self.sigma_data > 0, f"sigma_data={self.sigma_data} must be positive.")
        require(
            self.scaling is None or self.scaling > 0, f"scaling={self.scaling} must be positive."
        )

    @property
    def noisy(self) -> bool:
        return True

    @property
    def depth(self) -> int:
        return 1

    def coefficients(self, schedule: Schedule, knots: Knots) -> tuple[Any, list[Any], Any]:
        source, target, *_ = steps_between(knots)
        xp = namespace(target.alpha)
        spread = 1.0 * target.sigma
        if self.scaling is None:
            return 0.0 * spread, [1.0 * target.alpha], spread
        label = getattr(schedule, "label", None)
        require(
            label is not None,
            f"The coefficients of LCM() are functions of the step of a table of betas, which "
            f"{type(schedule).__name__} has not: use LCM(scaling=None) if the model was distilled "
            "without them.",
        )
        u = self.scaling * label(source.t)  # pyright: ignore[reportOptionalCall]
        size = u**2 + self.sigma_data**2
        skip, out = self.sigma_data**2 / size, u / xp.sqrt(size)
        return target.alpha * skip, [target.alpha * out], spread


class TCD(Multistep):
    """Strategic stochastic sampling of trajectory consistency distillation (Zheng et al. 2024).

    From x at time s to the next time t: with the predicted data and noise down to the time
    u = (1 - eta) t, and with fresh noise back up to t (algorithm 4 there, with gamma for eta). On
    schedules with a table of betas u is a step of it, the integer part of (1 - eta) times that of
    t, as in the published code.

    Attributes:
        eta: from 0, deterministic (then it is `DDIM()`), to 1.
    """

    eta: float = eqx.field(static=True, default=0.3)

    def __check_init__(self) -> None:
        require(0 <= self.eta <= 1, f"eta={self.eta} must be at least 0 and at most 1.")

    @property
    def noisy(self) -> bool:
        return self.eta > 0

    @property
    def depth(self) -> int:
        return 1

    def coefficients(self, schedule: Schedule, knots: Knots) -> tuple[Any, list[Any], Any]:
        source, target, *_ = steps_between(knots)
        xp = namespace(target.alpha, target.t)
        if not self.eta:
            alpha, sigma = target.alpha, target.sigma
        else:
            label = getattr(schedule, "label", None)
            if label is None:
                u = (1 - self.eta) * target.t
            else:
                # Not below clean data, which stands at label -1.
                number = xp.maximum(xp.floor((1 - self.eta) * label(target.t)), -1.0)
                u = schedule.time(number)  # pyright: ignore[reportAttributeAccessIssue]
            alpha, sigma = schedule.alpha(u), schedule.sigma(u)
            end = np.arange(knots.steps) == knots.steps - 1
            clean = end & knots.lands
            alpha, sigma = xp.where(clean, 1.0, alpha), xp.where(clean, 0.0, sigma)
        down = sigma / source.sigma
        weight = alpha - down * source.alpha
        stretch = target.alpha / alpha
        fresh = target.sigma**2 - (stretch * sigma) ** 2
        some = fresh > 0
        spread = xp.where(some, xp.sqrt(xp.where(some, fresh, 1.0)), 0.0)
        return stretch * down, [stretch * weight], spread
