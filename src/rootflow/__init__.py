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
    from .flows.adjoints import (
        BacksolveAdjoint,
        CheckpointAdjoint,
        DiscreteAdjoint,
        ForwardAdjoint,
        ImplicitAdjoint,
        InterpolatingAdjoint,
        ReversibleAdjoint,
    )
    from .flows.cde import solve_cde
    from .flows.control import PIDController
    from .flows.dae import solve_dae
    from .flows.dde import solve_dde
    from .flows.ensemble import ensemble
    from .flows.events import Event
    from .flows.fields import SecondOrder, SemiLinear, Separable, Split
    from .flows.heuristics import StepPenalty
    from .flows.methods import (
        BDF,
        ETDRK4,
        AsynchronousLeapfrog,
        AutoSwitch,
        BlanesMoan4,
        Bosh3,
        Dopri5,
        Dopri8,
        Euler,
        ExponentialEuler,
        Heun,
        ImplicitEuler,
        KenCarp4,
        Kvaerno3,
        Kvaerno5,
        LeapFrog,
        Midpoint,
        Ralston,
        Reversible,
        ReversibleHeun,
        Rodas5P,
        Rosenbrock23,
        SemiImplicitEuler,
        Tsit5,
        Vern7,
    )
    from .flows.methods.sde import SRA1, EulerHeun, EulerMaruyama, Milstein, ShARK, SPaRK
    from .flows.methods.sde_langevin import ALIGN, BAOAB, Langevin
    from .flows.noise import BrownianMotion, FractionalBrownianMotion, MarkovFractional
    from .flows.ode import solve_ode
    from .flows.paths import CubicHermite, CubicNatural, Linear, LogSignature, Rectilinear
    from .flows.regularize import local_penalty
    from .flows.sde import solve_sde
    from .flows.solution import Result, Solution
    from .flows.steady_state import steady_state
    from .roots import conditions, prox, sets
    from .roots.argmin import argmin
    from .roots.certificate import certificate
    from .roots.implicit import implicit
    from .roots.root import fixed_point, root
    from .training import Trained, load, save, train

__all__ = [
    "ALIGN",
    "BAOAB",
    "BDF",
    "ETDRK4",
    "SRA1",
    "AsynchronousLeapfrog",
    "AutoSwitch",
    "BacksolveAdjoint",
    "BlanesMoan4",
    "Bosh3",
    "BrownianMotion",
    "CertificateWarning",
    "CheckpointAdjoint",
    "ConvergenceWarning",
    "CubicHermite",
    "CubicNatural",
    "DerivativeError",
    "DiscreteAdjoint",
    "Dopri5",
    "Dopri8",
    "Dose",
    "Estimate",
    "Euler",
    "EulerHeun",
    "EulerMaruyama",
    "Event",
    "ExponentialEuler",
    "FitResult",
    "ForwardAdjoint",
    "FractionalBrownianMotion",
    "Heun",
    "ImplicitAdjoint",
    "ImplicitEuler",
    "InputError",
    "InterpolatingAdjoint",
    "KenCarp4",
    "Kvaerno3",
    "Kvaerno5",
    "Langevin",
    "LeapFrog",
    "Linear",
    "LogSignature",
    "MarkovFractional",
    "Midpoint",
    "Milstein",
    "Model",
    "Noise",
    "PIDController",
    "Parameter",
    "Ralston",
    "Rectilinear",
    "Result",
    "Reversible",
    "ReversibleAdjoint",
    "ReversibleHeun",
    "Rodas5P",
    "RootflowError",
    "Rosenbrock23",
    "SPaRK",
    "SecondOrder",
    "SemiImplicitEuler",
    "SemiLinear",
    "Separable",
    "ShARK",
    "Solution",
    "SolveError",
    "Split",
    "StepPenalty",
    "Trained",
    "Tsit5",
    "Vern7",
    "argmin",
    "certificate",
    "conditions",
    "ensemble",
    "fit",
    "fixed_point",
    "implicit",
    "load",
    "local_penalty",
    "prox",
    "root",
    "save",
    "sets",
    "solve_cde",
    "solve_dae",
    "solve_dde",
    "solve_ode",
    "solve_sde",
    "steady_state",
    "train",
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
    "flows.adjoints": (
        "BacksolveAdjoint",
        "CheckpointAdjoint",
        "DiscreteAdjoint",
        "ForwardAdjoint",
        "ImplicitAdjoint",
        "InterpolatingAdjoint",
        "ReversibleAdjoint",
    ),
    "flows.control": ("PIDController",),
    "flows.noise": (
        "BrownianMotion",
        "FractionalBrownianMotion",
        "MarkovFractional",
    ),
    "flows.paths": (
        "CubicHermite",
        "CubicNatural",
        "Linear",
        "LogSignature",
        "Rectilinear",
    ),
    "flows.methods.sde": (
        "EulerHeun",
        "EulerMaruyama",
        "Milstein",
        "SPaRK",
        "SRA1",
        "ShARK",
    ),
    "flows.methods.sde_langevin": ("ALIGN", "BAOAB", "Langevin"),
    "flows.heuristics": ("StepPenalty",),
    "flows.regularize": ("local_penalty",),
    "flows.sde": ("solve_sde",),
    "flows.cde": ("solve_cde",),
    "flows.dae": ("solve_dae",),
    "flows.dde": ("solve_dde",),
    "flows.ensemble": ("ensemble",),
    "flows.events": ("Event",),
    "flows.fields": ("SecondOrder", "SemiLinear", "Separable", "Split"),
    "flows.methods": (
        "AsynchronousLeapfrog",
        "AutoSwitch",
        "BDF",
        "BlanesMoan4",
        "Bosh3",
        "Dopri5",
        "Dopri8",
        "ETDRK4",
        "Euler",
        "ExponentialEuler",
        "Heun",
        "ImplicitEuler",
        "KenCarp4",
        "Kvaerno3",
        "Kvaerno5",
        "LeapFrog",
        "Midpoint",
        "Ralston",
        "Reversible",
        "ReversibleHeun",
        "Rodas5P",
        "Rosenbrock23",
        "SemiImplicitEuler",
        "Tsit5",
        "Vern7",
    ),
    "flows.ode": ("solve_ode",),
    "flows.solution": ("Result", "Solution"),
    "flows.steady_state": ("steady_state",),
    "roots": ("conditions", "prox", "sets"),
    "roots.argmin": ("argmin",),
    "roots.certificate": ("certificate",),
    "roots.implicit": ("implicit",),
    "roots.root": ("fixed_point", "root"),
    "training": ("Trained", "load", "save", "train"),
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
