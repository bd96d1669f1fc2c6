"""The exact derivative of the steps."""

from jaxtyping import Array

from .. import loop
from ..problem import Inputs, Outcome, Setup
from .base import Adjoint


class DiscreteAdjoint(Adjoint):
    """The exact derivative of the steps that were taken (discretise, then optimise).

    Forward and reverse mode, to any order, agree to round-off. A solve that is differentiated keeps
    time and size of each of up to `max_steps` steps, and every 32nd state; in between, states are
    computed again. All states are kept where they are saved (`saveat`), and of a small system that
    is solved alone, not in a batch.
    """

    def solve(self, setup: Setup, x: Inputs, ts: Array | None) -> tuple[Outcome, Array | None]:
        return loop.solve(setup, x, ts)
