"""How the equations of a fit are solved: the options, and the solvers that are tried in turn."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import jax
import numpy as np

from ..errors import InputError
from ..flows.methods import (
    BDF,
    AutoSwitch,
    Bosh3,
    Dopri5,
    Dopri8,
    ImplicitEuler,
    Kvaerno3,
    Kvaerno5,
    Method,
    Rodas5P,
    Rosenbrock23,
    Tsit5,
    Vern7,
)
from ..tables.names import did_you_mean
from . import problem
from .model import Model
from .problem import GroupData, Layout, Solver

_EXPLICIT = (Bosh3, Tsit5, Dopri5, Vern7, Dopri8)
_STIFF = (Rosenbrock23, Rodas5P, ImplicitEuler, Kvaerno3, Kvaerno5, BDF)
#: What a text may name, besides "auto".
METHODS: dict[str, Method] = {
    "explicit": Tsit5(),
    "stiff": Rodas5P(),
    **{kind.__name__: kind() for kind in (*_EXPLICIT, *_STIFF)},
}
#: Steps that a solve may take unless it is said: the many are tried where the few do not do.
FEW_STEPS, MANY_STEPS = 512, 16384
#: What a relative tolerance of the solves may be.
_RTOL = (1e-14, 0.1)
#: The equations are stiff where a step is as long as this share of the stability limit, on average.
_HELD_DOWN = 0.5
#: Where more steps than at the guess are needed, a search may soon get there from this share.
_GETTING_STIFF = 0.15


@dataclass(frozen=True)
class Solving:
    """The options of the solves.

    Args:
        method: `"auto"`, a name in `METHODS`, or a method.
        rtol: relative tolerance.
        atol: absolute tolerance.
        max_steps: the most steps of a solve; `None`: `FEW_STEPS`, and `MANY_STEPS` where those do
            not do.

    Raises:
        InputError: not a method that a fit can use, a tolerance out of range, no steps.
    """

    method: Any = "auto"
    rtol: float = 1e-8
    atol: float = 1e-10
    max_steps: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", _method(self.method))
        for name, low, high in (("rtol", *_RTOL), ("atol", 0.0, np.inf)):
            value = getattr(self, name)
            fine = isinstance(value, int | float | np.number) and not isinstance(value, bool)
            if not fine or not low <= value <= high or value == np.inf:
                wanted = f"from {low:g} to {high:g}" if np.isfinite(high) else "and at least 0"
                raise InputError(
                    f"{name} must be a number {wanted}; got {value!r}. It is the tolerance of the "
                    "solves, and the derivative is as exact as they are."
                )
            object.__setattr__(self, name, float(value))
        steps = self.max_steps
        if steps is not None:
            if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
                raise InputError(
                    f"max_steps must be a positive integer; got {steps!r}. Leave it out to have "
                    f"{FEW_STEPS} steps, and {MANY_STEPS} where those do not do."
                )
            object.__setattr__(self, "max_steps", int(steps))

    def solvers(self, t0: float | None) -> tuple[Solver, ...]:
        """What to try in turn: few steps before many, an explicit method before a stiff one."""
        steps = (FEW_STEPS, MANY_STEPS) if self.max_steps is None else (self.max_steps,)
        auto = self.method == "auto"
        methods = (METHODS["explicit"], METHODS["stiff"]) if auto else (self.method,)
        return tuple(
            Solver(rtol=self.rtol, atol=self.atol, max_steps=n, t0=t0, method=method)
            for method in methods
            for n in steps
        )


OPTIONS = tuple(field.name for field in fields(Solving))


def options(model: Mapping[str, Any], given: Mapping[str, Any]) -> Solving:
    """The options that the model states, and over them those given with the fit (not `None`).

    Raises:
        InputError: as `Solving`, or an option that there is not.
    """
    asked = {**model, **{name: value for name, value in given.items() if value is not None}}
    for name in asked:
        if name not in OPTIONS:
            raise InputError(
                f"solve has no option {name!r}.{did_you_mean(name, OPTIONS)} "
                f"Options: {', '.join(OPTIONS)}."
            )
    return Solving(**asked)


def _method(value: Any) -> Any:
    if isinstance(value, type) and issubclass(value, Method | AutoSwitch):
        raise InputError(f"method must be an instance: write {value.__name__}().")
    if isinstance(value, Method | AutoSwitch):
        if isinstance(value, Method) and not value.adaptive:
            raise InputError(
                f"method {type(value).__name__}() has no error estimate and cannot choose its own "
                f"steps, as a fit needs it to. Methods: {_listed()}."
            )
        try:
            hash(value)
        except TypeError:  # programs are compiled for it
            raise InputError(
                f"method {type(value).__name__}(...) holds an array; make it with plain numbers."
            ) from None
        return value
    names = {name.casefold(): name for name in ("auto", *METHODS)}
    known = isinstance(value, str) and names.get(value.casefold())
    if not known:
        close = did_you_mean(value, names.values()) if isinstance(value, str) else ""
        raise InputError(f"method {value!r} is not known.{close} Methods: {_listed()}.")
    return "auto" if known == "auto" else METHODS[known]


def _listed() -> str:
    return ", ".join(repr(name) for name in ("auto", *METHODS))


def name_of(solver: Solver) -> str:
    """The method as a reader knows it."""
    names = [type(method).__name__ for method in solver.method.methods]
    return " and ".join(names)


def check_method(model: Model, lay: Layout, solver: Solver, data: GroupData) -> None:
    """Looks whether a method takes the equations at all, without solving them.

    Raises:
        InputError: it is for another kind of equation.
    """
    if solver.method in METHODS.values():
        return

    def solved(u):
        return problem.group_values(model, lay, solver, u, data, derivative=True)

    try:
        jax.eval_shape(solved, lay.start)
    except InputError as error:
        raise InputError(
            f"method {name_of(solver)}() cannot solve the equations of a fit, dy/dt = f(t, y, p). "
            f"({error}) Methods: {_listed()}."
        ) from None


def getting_stiff(solver: Solver, ended: problem.Ended) -> bool:
    """Whether a search that goes on from here may soon be held down (`held_down`)."""
    return held_down(solver, ended, _GETTING_STIFF)


def held_down(solver: Solver, ended: problem.Ended, share: float = _HELD_DOWN) -> bool:
    """Whether stability, not accuracy, chose the steps of an explicit method."""
    first = solver.method.methods[0]
    if first.jacobians:
        return False
    reach = np.asarray(ended.stiffness) / np.maximum(np.asarray(ended.steps), 1)
    return bool(np.nanmax(reach) > share * first.stability)
