"""Flow maps: networks that jump along the probability flow, and the losses that train them.

A map Psi_{s -> t}(x) = x - (s - t) u(x, s, t) carries a sample from time s to a cleaner time t in
one evaluation; u is the mean velocity on the way, and u(x, s, s) the velocity of the flow itself.
"""

from .consistency import ConsistencyDistillation, ConsistencyTraining, improved_stages
from .continuous import ContinuousConsistency
from .maps import ConsistencyMap, FlowMap, Map, TrajectoryMap, TrigConsistencyMap
from .network import MapMLP
from .progressive import ProgressiveDistillation
from .sampling import Jumps, sample
from .self_distillation import (
    Eulerian,
    Lagrangian,
    MeanFlow,
    Semigroup,
    Shortcut,
    VelocityMatching,
)
from .trajectory import ConsistencyTrajectory
from .trig import TrigFlow

__all__ = [
    "ConsistencyDistillation",
    "ConsistencyMap",
    "ConsistencyTraining",
    "ConsistencyTrajectory",
    "ContinuousConsistency",
    "Eulerian",
    "FlowMap",
    "Jumps",
    "Lagrangian",
    "Map",
    "MapMLP",
    "MeanFlow",
    "ProgressiveDistillation",
    "Semigroup",
    "Shortcut",
    "TrajectoryMap",
    "TrigConsistencyMap",
    "TrigFlow",
    "VelocityMatching",
    "improved_stages",
    "sample",
]
