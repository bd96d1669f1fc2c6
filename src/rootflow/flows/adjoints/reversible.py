"""The exact derivative of the steps at constant memory, for methods that can be run backwards."""

import equinox as eqx
from jaxtyping import Array

from ...errors import InputError
from .. import loop
from ..problem import Inputs, Outcome, Setup
from .base import Adjoint

#: Steps in a block.
_BLOCK = 8


class ReversibleAdjoint(Adjoint):
    """The derivative of `DiscreteAdjoint`, with the states recovered by stepping backwards.

    Of the steps only times and sizes are kept (two numbers each), whatever the size of the state.
    Needs a method whose steps can be undone exactly: `ReversibleHeun`, `AsynchronousLeapfrog`, the
    symplectic ones, or any explicit one wrapped in `rf.Reversible`. Undoing amplifies rounding
    errors where the equation contracts; the initial state that is recovered is compared with the
    real one, and a derivative that cannot be trusted is refused. Reverse mode is of first order,
    forward mode of any.

    Source: Kidger, Foster, Li & Lyons, "Efficient and accurate gradients for neural SDEs", NeurIPS
    2021, Algorithm 2; McCallum & Foster, "Efficient, accurate and stable gradients for neural ODEs"
    (2024).

    Attributes:
        tolerance: the largest error of the recovered initial state, relative to the size of the
            states, with which a derivative is returned.
    """

    tolerance: float = eqx.field(default=1e-3, static=True)

    def __check_init__(self) -> None:
        if not self.tolerance > 0:
            raise InputError(f"tolerance must be positive; got {self.tolerance!r}.")

    def check(self, setup: Setup, x: Inputs) -> None:
        if setup.rows:
            raise InputError(
                "rf.ReversibleAdjoint() does not keep the states, which saveat='steps', "
                "saveat='dense', max_events and reduce=None need: use rf.DiscreteAdjoint(), or "
                "save at given times."
            )
        for method in setup.methods:
            if not method.exact_inverse:
                name = type(method).__name__
                raise InputError(
                    f"{name} cannot be run backwards exactly: use method=rf.Reversible"
                    f"(rf.{name}()) for an explicit method, rf.ReversibleHeun(), or "
                    "adjoint=rf.CheckpointAdjoint()."
                )
        if setup.watch is not None or x.stops is not None:
            raise InputError(
                "rf.ReversibleAdjoint() does not handle events and stops: use "
                "rf.CheckpointAdjoint()."
            )

    def solve(self, setup: Setup, x: Inputs, ts: Array | None) -> tuple[Outcome, Array | None]:
        # Idle rows at the end of the last block are gone through too.
        setup = setup._replace(recover=self.tolerance, block=_BLOCK)
        return loop.solve_lean(setup, x, ts)
