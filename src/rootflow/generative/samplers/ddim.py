"""DDIM and the ancestral sampler of DDPM."""

from typing import Any, Literal

import equinox as eqx
import numpy as np

from ..grids import Knots
from ..numerics import namespace
from ..schedules import Schedule
from .base import require
from .exponential import Exponential
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
        step = Exponential("data", source, target, h)
        if not self.eta:
            return step.scale(), [step.weight(1)], None
        fresh = step.shrink(2.0)  # the share of the variance at t that can be drawn anew
        # With eta = 1 the root is e^-h itself, whose derivative is finite where all is drawn anew.
        kept = step.decay() if self.eta == 1 else xp.sqrt(1 - self.eta**2 * fresh)
        scale = kept * target.sigma / source.sigma
        weight = target.alpha * (1 - kept * step.decay())
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
        step = Exponential("data", source, target, h)
        fresh = step.shrink(2.0)
        scale = step.decay() * step.scale()
        weight = target.alpha * fresh
        if self.variance == "posterior":
            spread = target.sigma * xp.sqrt(fresh)
        else:
            last = np.arange(knots.steps) == knots.steps - 1
            spread = xp.where(last & knots.lands, 0.0, source.sigma * xp.sqrt(fresh))
        return scale, [weight], spread
