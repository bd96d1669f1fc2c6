"""PNDM: classical multistep and Runge-Kutta methods with the transfer of DDIM."""

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

# Adams-Bashforth: weights of the newest value and of those before it.
_ADAMS = {
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}


class Row(NamedTuple):
    """One evaluation, m: x <- scale base + weight (now m + use gathered + sum_j past[j] m_j).

    On the first evaluation of a step x becomes its base, m the newest of the m_j, and nothing is
    gathered yet. Then gathered <- gathered + gather m.
    """

    level: Level
    first: Any
    scale: Any
    weight: Any
    now: Any
    past: Any
    use: Any
    gather: Any


class _Turn(NamedTuple):
    """Of one turn: knots of evaluation and arrival (halves between two), and the combination."""

    step: int
    at: float
    to: float
    now: float
    past: tuple[float, ...] = ()
    use: float = 0.0
    gather: float = 0.0
    first: bool = True


class PNDM(Sampler):
    """Pseudo numerical methods for diffusion models (Liu, Ren, Lin and Zhao 2022).

    A step transfers x as DDIM does, with a combination of the last four noise predictions in the
    place of one (F-PNDM, eq. 12 and 13 there). The combinations are those of Adams and Bashforth
    for equal steps in time: use `grid="time"`, or times of equal distance.

    Attributes:
        runge_kutta: take the first three steps by a Runge-Kutta method of four evaluations, as in
            the paper. Without it (PLMS, as Stable Diffusion was first sampled) the first step is
            taken twice, and the next ones with as many values as there are: one evaluation more
            than steps.
    """

    form = "noise"

    runge_kutta: bool = eqx.field(static=True, default=False)

    @property
    def fewest(self) -> int:
        return 4 if self.runge_kutta else 1

    @property
    def _extra(self) -> int:
        return 9 if self.runge_kutta else 1

    def budget(self, evaluations: int, log_snr_grid: bool) -> tuple[int, tuple[int, ...] | None]:
        require(
            evaluations >= self.fewest + self._extra,
            f"evaluations={evaluations}: {self!r} takes {self._extra} more than steps, and at "
            f"least {self.fewest} steps.",
        )
        return evaluations - self._extra, None

    def plan(self, schedule: Schedule, knots: Knots, orders: tuple[int, ...] | None) -> Plan:
        steps = knots.steps
        require(
            steps >= self.fewest,
            f"{steps} steps are fewer than the {self.fewest} of {self!r}: take more steps, or "
            "PNDM() without runge_kutta.",
        )
        turns = _turns(steps, self.runge_kutta)
        xp = namespace(knots.level.alpha, knots.level.t)
        base = np.asarray([turn.step for turn in turns])
        with np.errstate(all="ignore"):
            source = _levels(schedule, knots, base)
            target = _levels(schedule, knots, np.asarray([turn.to for turn in turns]))
            level = _levels(schedule, knots, np.asarray([turn.at for turn in turns]))
            log_snr = [xp.log(part.alpha) - xp.log(part.sigma) for part in (source, target)]
            step = Exponential("noise", source, target, log_snr[1] - log_snr[0])
            scale, weight = step.scale(), step.weight(1)
        past = np.asarray([(*turn.past, *(0.0,) * (3 - len(turn.past))) for turn in turns])
        first, now, use, gather = (
            np.asarray([getattr(turn, name) for turn in turns])
            for name in ("first", "now", "use", "gather")
        )
        rows = Row(level, first, scale, weight, now, past, use, gather)
        ends = np.flatnonzero(np.diff(np.append(base, steps)))
        return Plan(rows, ends, len(turns))

    def init(self, x: Array) -> Any:
        nothing = jnp.zeros_like(x)
        return x, x, nothing, (nothing,) * 3

    def step(self, evaluate: Evaluate, state: Any, row: Row, draw: Array | None) -> Any:
        x, base, gathered, past = state
        base = jnp.where(row.first, x, base)
        value = evaluate(x, row.level)
        mixed = row.now * value + row.use * gathered
        mixed = mixed + sum(row.past[j] * said for j, said in enumerate(past))
        gathered = jnp.where(row.first, 0.0, gathered) + row.gather * value
        newest = (value, *past[:-1])
        past = tuple(jnp.where(row.first, new, old) for new, old in zip(newest, past))
        return row.scale * base + row.weight * mixed, base, gathered, past

    def sample(self, state: Any) -> Array:
        return state[0]

    def put(self, state: Any, x: Array) -> Any:
        return (x, *state[1:])


def _turns(steps: int, runge_kutta: bool) -> list[_Turn]:
    """The evaluations of all steps."""
    found: list[_Turn] = []
    if runge_kutta:
        begun = 3
        for step in range(begun):
            middle, end = step + 0.5, step + 1.0
            found += [
                _Turn(step, step, middle, 1.0, gather=1 / 6),
                _Turn(step, middle, middle, 1.0, gather=1 / 3, first=False),
                _Turn(step, middle, end, 1.0, gather=1 / 3, first=False),
                _Turn(step, end, end, 1 / 6, use=1.0, first=False),
            ]
    else:
        begun = 1
        found += [
            _Turn(0, 0, 1, 1.0, gather=1 / 2),
            _Turn(0, 1, 1, 1 / 2, use=1.0, first=False),
        ]
    for step in range(begun, steps):
        now, *past = _ADAMS[min(step + 1, 4)]
        found.append(_Turn(step, step, step + 1, now, tuple(past)))
    return found


def _levels(schedule: Schedule, knots: Knots, at: np.ndarray) -> Level:
    """The noise levels at these knots; between two of them at half the time."""
    low, high = np.floor(at).astype(int), np.ceil(at).astype(int)
    whole = Level(*(part[low] for part in knots.level))
    if (low == high).all():
        return whole
    t = 0.5 * (knots.level.t[low] + knots.level.t[high])
    between = schedule.level(t)
    xp = namespace(between.alpha, whole.alpha)
    return Level(*(xp.where(low == high, a, b) for a, b in zip(whole, between)))
