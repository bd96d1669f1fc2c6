"""BDIA: a two-step sampler that can be run backwards exactly."""

import math
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..grids import Knots, refuse_clean
from ..numerics import namespace
from ..schedules import Level, Schedule
from .base import Evaluate, Plan, Reversible, require
from .exponential import Exponential


class Map(NamedTuple):
    """A one-step map from z: scale z + weight m(z).

    With a stage: + stage_weight m(u), u = inner z + inner_weight m(z), evaluated at `level`.
    """

    scale: Any
    weight: Any
    level: Any = None
    inner: Any = None
    inner_weight: Any = None
    stage_weight: Any = None


class Row(NamedTuple):
    """One step from z_i: maps to the next and to the previous time, and gamma (0 at the start)."""

    level: Level
    gamma: Any
    ahead: Map
    behind: Map


class BDIA(Reversible):
    """Bi-directional integration approximation (Zhang, Lewis and Kleijn 2023).

    z_{i-1} = gamma (z_{i+1} - Phi_{i -> i+1}(z_i)) + Phi_{i -> i-1}(z_i),

    with Phi a step of the base sampler from z_i alone; the first step is Phi. Given z_{i-1} and z_i
    it can be solved for z_{i+1}, with the same evaluations at z_i, so that a run is taken back to
    round-off. Going back multiplies rounding errors by 1 / gamma each step: gamma = 1 loses
    nothing. The order is 2 for gamma = 1 on smooth grids, else 1.

    Attributes:
        gamma: above 0 and at most 1.
        base: `"ddim"`, one evaluation a step; `"edm"`, Heun steps in the noise level, or
            `"dpm_solver++"`, single steps of order 2, three evaluations a step each.
    """

    memory = 1
    knob = "gamma"

    gamma: float = eqx.field(static=True, default=1.0)
    base: Literal["ddim", "edm", "dpm_solver++"] = eqx.field(static=True, default="ddim")

    def __check_init__(self) -> None:
        require(
            0 < self.gamma <= 1,
            f"gamma={self.gamma} must be above 0 and at most 1: without it (DDIM) a step forgets "
            "where it came from and cannot be taken back.",
        )
        require(
            self.base in ("ddim", "edm", "dpm_solver++"),
            f"base={self.base!r} is not known; use 'ddim', 'edm' or 'dpm_solver++'.",
        )

    @property
    def form(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return "noise" if self.base == "edm" else "data"

    @property
    def evaluations(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return 1 if self.base == "ddim" else 3

    def plan(self, schedule: Schedule, knots: Knots, orders: tuple[int, ...] | None) -> Plan:
        knots = refuse_clean(
            knots,
            "BDIA cannot end on clean data, from which there is no way back: leave denoise=False "
            "and end at a small time.",
        )
        here = Level(*(part[:-1] for part in knots.level))
        after = Level(*(part[1:] for part in knots.level))
        # The first step has nothing behind it; any finite numbers will do there.
        before = Level(*(_shifted(part) for part in knots.level))
        log_snr = knots.log_snr
        h = log_snr[1:] - log_snr[:-1]
        back = _shifted(log_snr) - log_snr[:-1]
        with np.errstate(all="ignore"):
            ahead = self._map(schedule, here, after, log_snr[:-1], h)
            behind = self._map(schedule, here, before, log_snr[:-1], back)
            end, step_back = _point(knots.level, -1), _point(knots.level, -2)
            turn = self._map(schedule, end, step_back, log_snr[-1], log_snr[-2] - log_snr[-1])
        gamma = np.where(np.arange(knots.steps) == 0, 0.0, self.gamma)
        return Plan(
            Row(here, gamma, ahead, behind),
            np.arange(knots.steps),
            self.evaluations * knots.steps,
            (end, turn),
        )

    def _map(self, schedule: Schedule, source: Level, target: Level, start: Any, h: Any) -> Map:
        whole = Exponential(self.form, source, target, h)
        if self.base == "ddim":
            return Map(whole.scale(), whole.weight(1))
        if self.base == "dpm_solver++":
            middle = schedule.level(schedule.log_snr_inverse(start + 0.5 * h))
            half = Exponential(self.form, source, middle, 0.5 * h)
            # DPM-Solver++ 2S with r_1 = 1/2: w_1 m_0 + w_1 (m_1 - m_0).
            zero = 0.0 * h
            return Map(whole.scale(), zero, middle, half.scale(), half.weight(1), whole.weight(1))
        # Heun in the noise level: the stage is the Euler step to the end.
        change = 0.5 * target.alpha * (target.sigma / target.alpha - source.sigma / source.alpha)
        return Map(whole.scale(), change, target, whole.scale(), 2 * change, change)

    def init(self, x: Array) -> tuple[Array, Array]:
        return x, x

    def _apply(self, evaluate: Evaluate, z: Array, value: Array, by: Map) -> Array:
        x = by.scale * z + by.weight * value
        if by.level is None:
            return x
        stage = evaluate(by.inner * z + by.inner_weight * value, by.level)
        return x + by.stage_weight * stage

    def _maps(self, evaluate: Evaluate, z: Array, row: Row) -> tuple[Array, Array]:
        value = evaluate(z, row.level)
        return (
            self._apply(evaluate, z, value, row.ahead),
            self._apply(evaluate, z, value, row.behind),
        )

    def step(self, evaluate: Evaluate, state: Any, row: Row, draw: Array | None) -> Any:
        z, previous = state  # z_i, z_{i+1}
        ahead, behind = self._maps(evaluate, z, row)
        return row.gamma * (previous - behind) + ahead, z

    def back(self, evaluate: Evaluate, state: Any, row: Row) -> Any:
        following, z = state  # z_{i-1}, z_i
        ahead, behind = self._maps(evaluate, z, row)
        # The first step had no z_{i+1}: z itself stands in for it, as in `init`.
        gamma = jnp.where(row.gamma > 0, row.gamma, 1.0)
        previous = (following - ahead) / gamma + behind
        return z, jnp.where(row.gamma > 0, previous, z)

    def turn(self, evaluate: Evaluate, x: Array, row: Any) -> Any:
        # A step of the base sampler towards noise, inexact, gives the pair to go on from.
        level, behind = row
        return x, self._apply(evaluate, x, evaluate(x, level), behind)

    def sample(self, state: Any) -> Array:
        return state[0]

    def put(self, state: Any, x: Array) -> Any:
        return (x, *state[1:])

    def latent(self, state: Any) -> Array:
        return state[1]

    def growth(self, steps: int) -> float:
        # In logarithms: a power that overflows is as bad as any.
        return math.exp(min(-steps * math.log(self.gamma), 700.0))


def _point(level: Level, i: int) -> Level:
    return Level(*(part[i] for part in level))


def _shifted(part: Any) -> Any:
    """At knot i the value of knot i - 1; at the first that of the next, to be finite."""
    return namespace(part).concatenate([part[1:2], part[:-2]])
