"""Predictor-corrector sampling: ancestral steps, each followed by steps of Langevin dynamics."""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ...ground.tracing import is_traced
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

    with both norms at what is expected of them, so that e is 2 (snr sigma)^2. (The released code
    takes their means over the batch, so that samples depend on one another; with the norms of the
    sample itself the step would depend on the state, which moves the law: in two dimensions a
    standard deviation of 0.3 becomes 0.41.)

    Attributes:
        corrections: corrector steps after each predictor step, one evaluation each.
        snr: r, about 0.16.
    """

    form = "noise"

    corrections: int = eqx.field(static=True, default=1)
    snr: float = eqx.field(static=True, default=0.16)

    def __check_init__(self) -> None:
        require(self.corrections >= 0, f"corrections={self.corrections} must not be negative.")
        require(self.snr > 0, f"snr={self.snr} must be positive.")

    @property
    def noisy(self) -> bool:
        return True

    @property
    def forgetful(self) -> bool:
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
        if knots.clean:  # clean data need no correction
            count = len(corrects) - self.corrections
            rows = _Row(Level(*(p[:count] for p in level)), *(p[:count] for p in rows[1:]))
            ends[-1] = count - 1
        elif is_traced(knots.lands):
            rows = _uncorrected(rows, len(corrects) - turns, knots.lands)
        return Plan(rows, ends, len(rows.corrects))

    def init(self, x: Array) -> Array:
        return x

    def step(self, evaluate: Evaluate, state: Array, row: _Row, draw: Array | None) -> Array:
        assert draw is not None
        noise = evaluate(state, row.level)
        predicted = row.scale * state + row.weight * noise + row.spread * draw
        # |z| / |score| is sigma |z| / |noise|, in expectation sigma; e score is -e / sigma noise.
        size = 2 * (self.snr * row.level.sigma) ** 2
        corrected = state - size / row.level.sigma * noise + jnp.sqrt(2 * size) * draw
        return jnp.where(row.corrects, corrected, predicted)

    def sample(self, state: Array) -> Array:
        return state

    def put(self, state: Array, x: Array) -> Array:
        return x


def _uncorrected(rows: _Row, last: int, lands: Any) -> _Row:
    """The turns, where `lands` without the corrections after turn `last`, which ends on clean data.

    The sample then stays as it is, and the model is asked once more at the last noisy level.
    """
    idle = lands & (np.arange(len(rows.corrects)) > last)

    def select(yes: Any, no: Any) -> Any:
        return jnp.where(idle, yes, no)

    return _Row(
        Level(*(select(part[last], part) for part in rows.level)),
        select(1.0, rows.scale),
        select(0.0, rows.weight),
        select(0.0, rows.spread),
        rows.corrects & ~idle,
    )
