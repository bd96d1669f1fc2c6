"""Samplers that remember what the model said, and correct a sample by what it says there.

One evaluation a step: the value at the predicted sample serves the corrector of that step and the
predictor of the next.
"""

from abc import abstractmethod
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..grids import Knots
from ..numerics import namespace
from ..schedules import Level, Schedule
from .base import Evaluate, Plan, Sampler, require


class Row(NamedTuple):
    """One evaluation: correct the sample at it, then predict the next.

    corrected = keep x + (1 - keep) reached + sum_j corrector[j] m_j, m_0 the newest value;
    reached <- scale corrected + spread z;  x <- reached + sum_j predictor[j] m_j.
    """

    level: Level
    keep: Any
    corrector: Any
    scale: Any
    predictor: Any
    spread: Any = None


class Corrected(Sampler):
    """A sampler with a linear predictor and a linear corrector that shares its evaluations."""

    @property
    @abstractmethod
    def nodes(self) -> tuple[int, int]:
        """How many values the predictor uses, and how many the corrector, which may be none."""

    @abstractmethod
    def coefficients(
        self, schedule: Schedule, knots: Knots
    ) -> tuple[Any, list[Any], list[Any], Any]:
        """scale, the predictor's weights, newest value first, the corrector's, and spread.

        All of shape (steps,), the corrector's for the correction of the step itself, with the value
        at its end first.
        """

    @property
    def fewest(self) -> int:
        return self.nodes[0]

    def plan(self, schedule: Schedule, knots: Knots, orders: tuple[int, ...] | None) -> Plan:
        steps = knots.steps
        require(
            steps >= self.fewest,
            f"{steps} steps are fewer than the order {self.fewest} of {self!r}: take more steps, "
            "or a lower order.",
        )
        with np.errstate(all="ignore"):
            scale, predictor, corrector, spread = self.coefficients(schedule, knots)
        xp = namespace(scale, *predictor)
        # A step is corrected in the next row, with the evaluation at its end; so the first row has
        # nothing to correct, and the last step is not corrected.
        first = np.arange(steps) == 0
        keep = np.where(first | (not corrector), 1.0, 0.0)
        later = [xp.concatenate([xp.zeros_like(part[:1]), part[:-1]]) for part in corrector]
        level = Level(*(part[:-1] for part in knots.level))
        rows = Row(
            level,
            keep,
            xp.stack(later, axis=-1) if later else np.zeros((steps, 0)),
            scale,
            xp.stack(predictor, axis=-1),
            spread if self.noisy else None,
        )
        return Plan(rows, np.arange(steps), steps)

    def init(self, x: Array) -> Any:
        ahead, behind = self.nodes
        return x, x, (jnp.zeros_like(x),) * (max(ahead, behind) - 1)

    def step(self, evaluate: Evaluate, state: Any, row: Row, draw: Array | None) -> Any:
        x, reached, past = state
        ahead, behind = self.nodes
        values = (evaluate(x, row.level), *past)
        if behind:
            x = row.keep * x + (1 - row.keep) * reached
            x = x + sum(row.corrector[j] * values[j] for j in range(behind))
        reached = row.scale * x
        if draw is not None:
            reached = reached + row.spread * draw
        x = reached + sum(row.predictor[j] * values[j] for j in range(ahead))
        return x, reached, values[: len(past)]

    def sample(self, state: Any) -> Array:
        return state[0]

    def put(self, state: Any, x: Array) -> Any:
        # The corrector begins again from what was reached without the model's values.
        return x, state[1] + (x - state[0]), state[2]


def order_weights(nodes: list[Any], sides: list[Any]) -> list[Any]:
    """Solves sum_j w_j nodes_j^(k-1) = sides_k for the w_j, step by step."""
    xp = namespace(*nodes, *sides)
    powers = xp.stack(
        [xp.stack([r**k for r in nodes], axis=-1) for k in range(len(nodes))], axis=-2
    )
    solved = xp.linalg.solve(powers, xp.stack(sides, axis=-1)[..., None])[..., 0]
    return [solved[..., j] for j in range(len(nodes))]
