"""DDIM and the ancestral sampler of DDPM."""

from typing import Any, Literal

import equinox as eqx
import numpy as np

from ..grids import Knots
from ..numerics import namespace
from ..schedules import Schedule
from .base import require
from .multistep import Multistep, steps_between


class DDIM(Multistep):
    """Denoising diffusion implicit model (Song, Meng and Ermon 2021, eq. 12 and 16).

    x_t = alpha_t x_0 + sqrt(sigma_t^2 - v^2) eps + v z,
    v = eta sigma_t sqrt(1 - e^(-2h)), h the step in log_snr.

    Attributes:
        eta: 0 is deterministic and of order 1, the first-order DPM-Solver; 1 is ancestral sampling.
    """

    eta: float = eqx.field(static=True, default=0.0)

    def __check_init__(self):
        require(0 <= self.eta <= 1, f"eta={self.eta} must be at least 0 and at most 1.")

    @property
    def noisy(self) -> bool:
        return self.eta > 0

    @property
    def depth(self) -> int:
        return 1

    def coefficients(self, schedule: Schedule, knots: Knots) -> tuple[Any, list[Any], Any]:
        source, target, h, *_ = steps_between(knots)
        xp = namespace(h)
        if not self.eta:
            return target.sigma / source.sigma, [-target.alpha * xp.expm1(-h)], None
        fresh = -xp.expm1(-2 * h)  # the share of the variance at t that can be drawn anew
        kept = xp.sqrt(1 - self.eta**2 * fresh)
        scale = kept * target.sigma / source.sigma
        weight = target.alpha * (1 - kept * xp.exp(-h))
        return scale, [weight], self.eta * target.sigma * xp.sqrt(fresh)


class DDPM(Multistep):
    """Ancestral sampling (Ho, Jain and Abbeel 2020, algorithm 2), between any two noise levels.

    x_t is drawn from the normal distribution of x_t given x_s and x_0, with the model's x_0.

    Attributes:
        variance: `"posterior"`, the variance of that distribution, right for data at a point
            (then this is DDIM with eta = 1); or `"large"`, the variance of x_s given x_t, right for
            normal data (sec. 3.2 there).
    """

    variance: Literal["posterior", "large"] = eqx.field(static=True, default="posterior")

    def __check_init__(self):
        require(
            self.variance in ("posterior", "large"),
            f"variance={self.variance!r} is not known; use 'posterior' or 'large'.",
        )

    @property
    def noisy(self) -> bool:
        return True

    @property
    def depth(self) -> int:
        return 1

    def coefficients(self, schedule: Schedule, knots: Knots) -> tuple[Any, list[Any], Any]:
        source, target, h, *_ = steps_between(knots)
        xp = namespace(h)
        fresh = -xp.expm1(-2 * h)
        scale = xp.exp(-h) * target.sigma / source.sigma
        weight = target.alpha * fresh
        if self.variance == "posterior":
            spread = target.sigma * xp.sqrt(fresh)
        else:
            last = np.arange(knots.steps) == knots.steps - 1
            spread = xp.where(last & knots.clean, 0.0, source.sigma * xp.sqrt(fresh))
        return scale, [weight], spread
