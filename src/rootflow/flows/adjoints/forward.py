"""Forward sensitivities."""

from jaxtyping import Array

from ...errors import InputError
from ...ground.one_way import forward_only
from .. import loop
from ..problem import Inputs, Outcome, Setup
from .base import Adjoint


class ForwardAdjoint(Adjoint):
    """The derivative of the steps in forward mode only, carried along with the solve.

    For few parameters and for second derivatives over another forward mode: nothing is stored, and
    the program is small and quick to compile. Each step fills in the saved times that it passes, at
    a cost that grows with their number; for more than some hundred, use `DiscreteAdjoint`. Reverse
    mode raises `DerivativeError`.
    """

    def check(self, setup: Setup, x: Inputs) -> None:
        if setup.rows:
            raise InputError(
                "rf.ForwardAdjoint() keeps no steps, which saveat='steps', saveat='dense', "
                "max_events and reduce=None need: use rf.DiscreteAdjoint(), or save at given times."
            )

    def solve(self, setup: Setup, x: Inputs, ts: Array | None) -> tuple[Outcome, Array | None]:
        return forward_only(
            loop.solve_forward(setup, x, ts),
            "rf.ForwardAdjoint() has derivatives in forward mode only (jax.jvp, jax.jacfwd): for "
            "jax.grad, jax.jacrev and jax.hessian leave adjoint= out, or see rf.DiscreteAdjoint().",
        )
