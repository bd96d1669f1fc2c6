"""Which method takes the place of another for a stochastic equation, or for its adjoint."""

from typing import Any

from .reversible import ReversibleHeun
from .runge_kutta import Heun
from .sde import Milstein, StochasticMethod, StratonovichHeun
from .sde_langevin import LangevinMethod
from .sde_reversible import StochasticReversibleHeun

#: Methods that make use of a structure which the adjoint equation has not.
_STRUCTURED = (StochasticReversibleHeun, LangevinMethod, Heun, ReversibleHeun)


def stochastic_form(method: Any) -> StochasticMethod | None:
    """The method as one for stochastic equations; `None`: it is none."""
    if isinstance(method, StochasticMethod):
        return method
    if isinstance(method, ReversibleHeun):
        return StochasticReversibleHeun()
    return StratonovichHeun() if isinstance(method, Heun) else None


def backward_form(method: Any) -> StochasticMethod | None:
    """The method that solves an adjoint stochastic equation backwards; `None`: this one cannot."""
    if isinstance(method, _STRUCTURED):
        return StratonovichHeun()
    if isinstance(method, Milstein) or not isinstance(method, StochasticMethod):
        return None
    return method
