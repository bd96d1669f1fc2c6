"""What a solve knows of an adjoint."""

import abc

import equinox as eqx
from jaxtyping import Array

from ..problem import Inputs, Outcome, Setup


class Adjoint(eqx.Module):
    """How a solution is differentiated."""

    def check(self, setup: Setup, x: Inputs) -> None:
        """Raises `InputError` where this adjoint cannot differentiate such a solve."""
        del setup, x

    @abc.abstractmethod
    def solve(self, setup: Setup, x: Inputs, ts: Array | None) -> tuple[Outcome, Array | None]:
        """Integrates, and saves what is observed at the times `ts` (if any), differentiably."""
