"""How an equation is solved, as one value that whoever solves again and again keeps."""

from dataclasses import dataclass, fields
from typing import Any

from ..errors import InputError
from .adjoints import Adjoint, DiscreteAdjoint
from .control import PIDController
from .methods import AutoSwitch, Method, Tsit5
from .methods.sde import StochasticMethod

_TSIT5, _DISCRETE = Tsit5(), DiscreteAdjoint()


@dataclass(frozen=True)
class Solver:
    """Options of `rf.solve_ode`, `rf.solve_cde` or `rf.solve_sde`, kept with a model.

    They belong to the model: one that was trained with large steps is right with these steps only.

    Attributes:
        method: by default `rf.Tsit5()`; `rf.ReversibleHeun()` and others for stochastic equations.
        dt: a fixed step size; without it steps adapt.
        rtol: relative tolerance of adaptive steps. Default 1e-6 in float64, 1e-4 in float32.
        atol: absolute tolerance. Default 1e-9 or 1e-6.
        adjoint: how to differentiate.
        max_steps: the most steps to try.
        controller: how steps adapt, and their limits.

    Raises:
        InputError: a method that is a class and not an instance; the rest is checked by the solve.
    """

    method: Method | StochasticMethod | AutoSwitch | Any = _TSIT5
    dt: float | None = None
    rtol: float | None = None
    atol: float | None = None
    adjoint: Adjoint = _DISCRETE
    max_steps: int = 4096
    controller: PIDController | None = None

    def __post_init__(self) -> None:
        if isinstance(self.method, type):
            raise InputError(f"method must be an instance: write {self.method.__name__}().")

    def options(self) -> dict[str, Any]:
        """The keyword arguments of the solve."""
        return {field.name: getattr(self, field.name) for field in fields(Solver)}
