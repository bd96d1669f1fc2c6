"""rootflow: solve equations and differentiate through their solutions.

The names below are imported when they are first used, so that `import rootflow` costs nothing by
itself and the command line answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__

if TYPE_CHECKING:
    from .errors import (
        CertificateWarning,
        ConvergenceWarning,
        DerivativeError,
        InputError,
        RootflowError,
        SolveError,
    )
    from .fitting.fit import fit
    from .fitting.model import Dose, Model, Noise, Parameter
    from .fitting.result import Estimate, FitResult
    from .flows.adjoints import DiscreteAdjoint, ForwardAdjoint
    from .flows.methods import Tsit5
    from .flows.ode import solve_ode
    from .flows.solution import Result, Solution
    from .flows.steady_state import steady_state
    from .roots import conditions, prox, sets
    from .roots.argmin import argmin
    from .roots.certificate import certificate
    from .roots.implicit import implicit
    from .roots.root import fixed_point, root

__all__ = [
    "CertificateWarning",
    "ConvergenceWarning",
    "DerivativeError",
    "DiscreteAdjoint",
    "Dose",
    "Estimate",
    "FitResult",
    "ForwardAdjoint",
    "InputError",
    "Model",
    "Noise",
    "Parameter",
    "Result",
    "RootflowError",
    "Solution",
    "SolveError",
    "Tsit5",
    "argmin",
    "certificate",
    "conditions",
    "fit",
    "fixed_point",
    "implicit",
    "prox",
    "root",
    "sets",
    "solve_ode",
    "steady_state",
]

_ROOMS = {
    "errors": (
        "CertificateWarning",
        "ConvergenceWarning",
        "DerivativeError",
        "InputError",
        "RootflowError",
        "SolveError",
    ),
    "fitting.fit": ("fit",),
    "fitting.model": ("Dose", "Model", "Noise", "Parameter"),
    "fitting.result": ("Estimate", "FitResult"),
    "flows.adjoints": ("DiscreteAdjoint", "ForwardAdjoint"),
    "flows.methods": ("Tsit5",),
    "flows.ode": ("solve_ode",),
    "flows.solution": ("Result", "Solution"),
    "flows.steady_state": ("steady_state",),
    "roots": ("conditions", "prox", "sets"),
    "roots.argmin": ("argmin",),
    "roots.certificate": ("certificate",),
    "roots.implicit": ("implicit",),
    "roots.root": ("fixed_point", "root"),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rootflow' has no attribute {name!r}")
    room = import_module(f".{_HOME[name]}", __name__)
    # A catalogue (sets, prox, conditions) is a module of its room.
    value = getattr(room, name, None) or import_module(f"{room.__name__}.{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
