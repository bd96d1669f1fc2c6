"""Switching between an explicit and a stiff method."""

import equinox as eqx

from ...errors import InputError
from .base import Method


class AutoSwitch(eqx.Module):
    """Starts with an explicit method and goes over to a stiff one where the equation is stiff.

    The explicit method estimates the largest eigenvalue of the Jacobian as it goes. Several steps
    in a row whose size is at the limit of its stability call for the stiff method, several that are
    well within it call it back. The two take turns in loops of their own: a batch of which no
    member is stiff does not pay for the stiff method.

    Source: Petzold, "Automatic selection of methods for solving stiff and nonstiff systems of
    ordinary differential equations", SIAM J. Sci. Stat. Comput. 4 (1983); the estimate is
    Shampine's (1977).

    Attributes:
        explicit: a method with a stiffness estimate, such as `rf.Tsit5()`.
        stiff: a method for stiff equations, such as `rf.Rodas5P()`.
    """

    explicit: Method
    stiff: Method

    @property
    def methods(self) -> tuple[Method, Method]:
        """The methods that take turns, the first first."""
        return self.explicit, self.stiff

    def __check_init__(self) -> None:
        for name in ("explicit", "stiff"):
            method = getattr(self, name)
            if not isinstance(method, Method):
                raise InputError(f"{name} must be a method such as rf.Tsit5(); got {method!r}.")
            if type(method).project is not Method.project:
                raise InputError(
                    f"{type(method).__name__} carries more than the state from step to step and "
                    "cannot take turns with another method; use it by itself."
                )
            if not method.adaptive:
                raise InputError(
                    f"{type(method).__name__} has no error estimate; both methods must adapt."
                )
