"""Integration methods, a family a file. The loop knows a method only through `Method`."""

from .auto import AutoSwitch
from .base import Method, Proposal, Step
from .bdf import BDF
from .dormand_prince import Dopri5, Dopri8
from .esdirk import ImplicitEuler, Kvaerno3, Kvaerno5
from .exponential import ETDRK4, ExponentialEuler
from .imex import KenCarp4
from .reversible import AsynchronousLeapfrog, Reversible, ReversibleHeun
from .rosenbrock import Rodas5P, Rosenbrock23
from .runge_kutta import Bosh3, Euler, Heun, Midpoint, Ralston, Tsit5
from .structural import GeneralizedAlpha, Newmark
from .symplectic import BlanesMoan4, LeapFrog, SemiImplicitEuler
from .verner import Vern7

__all__ = [
    "BDF",
    "ETDRK4",
    "AsynchronousLeapfrog",
    "AutoSwitch",
    "BlanesMoan4",
    "Bosh3",
    "Dopri5",
    "Dopri8",
    "Euler",
    "ExponentialEuler",
    "GeneralizedAlpha",
    "Heun",
    "ImplicitEuler",
    "KenCarp4",
    "Kvaerno3",
    "Kvaerno5",
    "LeapFrog",
    "Method",
    "Midpoint",
    "Newmark",
    "Proposal",
    "Ralston",
    "Reversible",
    "ReversibleHeun",
    "Rodas5P",
    "Rosenbrock23",
    "SemiImplicitEuler",
    "Step",
    "Tsit5",
    "Vern7",
]
