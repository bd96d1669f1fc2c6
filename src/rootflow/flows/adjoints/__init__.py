"""How a solution is differentiated, an adjoint a file."""

from .base import Adjoint
from .checkpoint import CheckpointAdjoint
from .continuous import BacksolveAdjoint, InterpolatingAdjoint
from .discrete import DiscreteAdjoint
from .forward import ForwardAdjoint
from .reversible import ReversibleAdjoint
from .stationary import ImplicitAdjoint

__all__ = [
    "Adjoint",
    "BacksolveAdjoint",
    "CheckpointAdjoint",
    "DiscreteAdjoint",
    "ForwardAdjoint",
    "ImplicitAdjoint",
    "InterpolatingAdjoint",
    "ReversibleAdjoint",
]
