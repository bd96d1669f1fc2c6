"""DDIM and the ancestral sampler of DDPM."""

from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..grids import Knots
from ..numerics import namespace
from ..schedules import Schedule
from .base import Evaluate, require
from .exponential import Exponential
from .multistep import Multistep, Row, steps_between


def transfer(step: Exponential, eta: float) -> tuple[Any, Any, Any]:
    """scale, weight of the data and spread of DDIM from one level to another (`DDIM`)."""
    source, target = step.source, step.target
    xp = namespace(step.h)
    if not eta:
        return step.scale(), step.weight(1), 0.0 * target.sigma
    fresh = step.shrink(2.0)  # the share of the variance at t that can be drawn anew
    # With eta = 1 the root is e^-h itself, whose derivative is finite where all is drawn anew.
    kept = step.decay() if eta == 1 else xp.sqrt(1 - eta**2 * fresh)
    scale = kept * target.sigma / source.sigma
    weight = target.alpha * (1 - kept * step.decay())
    return scale, weight, eta * target.sigma * xp.sqrt(fresh)


class DDIM(Multistep):
    """Denoising diffusion implicit model (Song, Meng and Ermon 2021, eq. 12 and 16).

    x_t = alpha_t x_0 + sqrt(sigma_t^2 - v^2) eps + v z,
    v = eta sigma_t sqrt(1 - e^(-2h)), h the step in log_snr.

    In x / alpha over the noise level this is Euler's method; with eta = 1 it is what is called
    Euler ancestral elsewhere, with its own eta for values between.

    Attributes:
        eta: 0 is deterministic and of order 1, the first-order DPM-Solver; 1 is ancestral sampling.
    """

    eta: float = eqx.field(static=True, default=0.0)

    def __check_init__(self) -> None:
        require(0 <= self.eta <= 1, f"eta={self.eta} must be at least 0 and at most 1.")

    @property
    def noisy(self) -> bool:
        return self.eta > 0

    @property
    def depth(self) -> int:
        return 1

    def coefficients(self, schedule: Schedule, knots: Knots) -> tuple[Any, list[Any], Any]:
        source, target, h, *_ = steps_between(knots)
        scale, weight, spread = transfer(Exponential("data", source, target, h), self.eta)
        return scale, [weight], spread


class DDPM(Multistep):
    """Ancestral sampling (Ho, Jain and Abbeel 2020, algorithm 2), between any two noise levels.

    x_t is drawn from the normal distribution of x_t given x_s and x_0, with the model's x_0.

    Attributes:
        variance: `"posterior"`, the variance of that distribution, right for data at a point
            (then this is DDIM with eta = 1); `"large"`, the variance of x_s given x_t, right for
            normal data (sec. 3.2 there); `"learned_range"`, between the two in the logarithm,
            v log large + (1 - v) log posterior with v = (w + 1) / 2 and w what the model says
            beside its prediction (Nichol and Dhariwal 2021, eq. 15, and their code for w); or
            `"learned"`, e^w. Both need `Denoiser(..., variance_axis=...)`.
    """

    variance: Literal["posterior", "large", "learned", "learned_range"] = eqx.field(
        static=True, default="posterior"
    )

    def __check_init__(self) -> None:
        known = ("posterior", "large", "learned", "learned_range")
        require(
            self.variance in known,
            f"variance={self.variance!r} is not known; use {', '.join(map(repr, known))}.",
        )

    @property
    def noisy(self) -> bool:
        return True

    @property
    def learns_variance(self) -> bool:
        return self.variance in ("learned", "learned_range")

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
        small, large = target.sigma * xp.sqrt(fresh), source.sigma * xp.sqrt(fresh)
        last = np.arange(knots.steps) == knots.steps - 1
        clean = last & knots.lands
        if self.variance == "posterior":
            return scale, [weight], small
        if self.variance == "large":
            return scale, [weight], xp.where(clean, 0.0, large)
        # No noise in clean data, whatever the model says there.
        logs = [xp.log(xp.where(clean, 1.0, part)) for part in (small, large)]
        return scale, [weight], xp.stack([*logs, xp.where(clean, 0.0, 1.0)], axis=-1)

    def step(self, evaluate: Evaluate, state: Any, row: Row, draw: Array | None) -> Any:
        if not self.learns_variance:
            return super().step(evaluate, state, row, draw)
        x, past = state
        data, said = evaluate(x, row.level)
        log_small, log_large, noisy = row.spread
        log_std = 0.5 * said
        if self.variance == "learned_range":
            share = 0.5 * (said + 1)
            log_std = share * log_large + (1 - share) * log_small
        x = row.scale * x + row.weights[0] * data
        return x + noisy * jnp.exp(log_std) * draw, past
