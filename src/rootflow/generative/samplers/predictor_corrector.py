"""Predictor-corrector sampling: ancestral steps, each followed by steps of Langevin dynamics."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..grids import Knots
from ..numerics import namespace
from ..schedules import Level, Schedule
from .base import Evaluate, Plan, Sampler, require
from .exponential import Exponential
from .multistep import steps_between


class _Row(NamedTuple):
    """A turn: x <- scale x + weight eps + spread z, or where `corrects` a Langevin step."""

    level: Level
    scale: Any
    weight: Any
    spread: Any
    corrects: Any


class PredictorCorrector(Sampler):
    """Reverse-diffusion steps with Langevin corrections (Song et al. 2021, algorithms 2-5).

    A predictor step is the stochastic exponential Euler step of the reverse-time equation. A
    corrector step, at the level that was reached, is

        x <- x + e score + sqrt(2 e) z,   e = 2 (snr |z| / |score|)^2,

    with the mean norms over the batch, as in the released code.

    Attributes:
        corrections: corrector steps after each predictor step, one evaluation each.
        snr: r, about 0.16.
    """

    form = "noise"

    corrections: int = eqx.field(static=True, default=1)
    snr: float = eqx.field(static=True, default=0.16)

    def __check_init__(self):
        require(self.corrections >= 0, f"corrections={self.corrections} must not be negative.")
        require(self.snr > 0, f"snr={self.snr} must be positive.")

    @property
    def noisy(self) -> bool:
        return True

    @property
    def evaluations(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return 1 + self.corrections

    def plan(self, schedule: Schedule, knots: Knots, orders: tuple[int, ...] | None) -> Plan:
        source, target, h, *_ = steps_between(knots)
        with np.errstate(all="ignore"):
            step = Exponential("noise", source, target, h, eta=1.0)
            scale, weight, spread = step.scale(), step.weight(1), step.spread()
        xp = namespace(scale, weight)
        turns = 1 + self.corrections

        def spread_out(first, then):
            """One value for the predictor, then one for each corrector, step by step."""
            return xp.reshape(xp.stack([first] + [then] * self.corrections, axis=1), (-1,))

        level = Level(*(spread_out(a, b) for a, b in zip(source, target)))
        nothing = xp.zeros_like(scale)
        corrects = np.tile(np.arange(turns) > 0, knots.steps)
        rows = _Row(
            level,
            spread_out(scale, nothing + 1),
            spread_out(weight, nothing),
            spread_out(spread, nothing),
            corrects,
        )
        ends = turns * np.arange(1, knots.steps + 1) - 1
        if knots.clean:  # clean data need no correction, and no noise
            count = len(corrects) - self.corrections
            spread = np.asarray(rows.spread) if xp is np else rows.spread
            keep = np.arange(len(corrects)) != count - 1
            rows = rows._replace(spread=xp.where(keep, spread, 0.0))
            rows = _Row(Level(*(p[:count] for p in level)), *(p[:count] for p in rows[1:]))
            ends[-1] = count - 1
        return Plan(rows, ends, len(rows.corrects))

    def init(self, x: Array) -> Array:
        return x

    def step(self, evaluate: Evaluate, state: Array, row: _Row, draw: Array | None) -> Array:
        assert draw is not None
        noise = evaluate(state, row.level)
        predicted = row.scale * state + row.weight * noise + row.spread * draw
        # |z| / |score| is sigma |z| / |noise|, and e score is -e / sigma noise.
        ratio = row.level.sigma * _mean_norm(draw) / _mean_norm(noise)
        size = 2 * (self.snr * ratio) ** 2
        corrected = state - size / row.level.sigma * noise + jnp.sqrt(2 * size) * draw
        return jnp.where(row.corrects, corrected, predicted)

    def sample(self, state: Array) -> Array:
        return state


def _mean_norm(x: Array) -> Array:
    axes = tuple(range(1, x.ndim))
    norm = jnp.mean(jnp.sqrt(jnp.sum(x**2, axis=axes)))
    return jnp.maximum(norm, math.sqrt(float(jnp.finfo(x.dtype).tiny)))
