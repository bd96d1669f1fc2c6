"""Associative memories: dense Hebbian networks, their theory and their planning, in one unit.

A memory of P-body couplings made from noisy examples of archetypes, after Agliari, Albanese,
Alemanno, Alessandrelli, Barra, Giannotti, Lotito and Pedreschi (2023), Physica A 626, 129076
(supervised) and 627, 129143 (unsupervised). Here are networks without their tensor of couplings
(`DenseHebbian`), exact Glauber and mean-field dynamics, the replica symmetric theory with its
critical loads and temperatures, ultra-detection, and a planner.

Loads are Gardner's, gamma = (P! / 2) K / N^(P-1), which for P = 2 is K / N; temperatures are in the
units of the energy of `DenseHebbian`. Papers differ in both: keep K, N and P.
"""

from .critical import (
    at_temperature,
    critical_load,
    critical_temperature,
    spin_glass_temperature,
)
from .data import (
    Assessment,
    DataWarning,
    Examples,
    RunningMean,
    assess,
    estimate_quality,
    examples,
    mean_examples,
)
from .detection import Detection, detection_one_step, simulate_detection
from .diagram import PhaseDiagram, draw_phases, phase_diagram
from .glauber import Run, glauber, one_parallel_step
from .law import archetypes_at, entropy, load, tuple_entropy
from .network import DenseHebbian
from .planner import NoPlan, Plan, plan
from .plefka import MeanField, plefka
from .simulate import Simulation, simulate
from .theory import RetrievalState, one_step, plain_power_noise, pressure, replica_symmetric

__all__ = [
    "Assessment",
    "DataWarning",
    "DenseHebbian",
    "Detection",
    "Examples",
    "MeanField",
    "NoPlan",
    "PhaseDiagram",
    "Plan",
    "RetrievalState",
    "Run",
    "RunningMean",
    "Simulation",
    "archetypes_at",
    "assess",
    "at_temperature",
    "critical_load",
    "critical_temperature",
    "detection_one_step",
    "draw_phases",
    "entropy",
    "estimate_quality",
    "examples",
    "glauber",
    "load",
    "mean_examples",
    "one_parallel_step",
    "one_step",
    "phase_diagram",
    "plain_power_noise",
    "plan",
    "plefka",
    "pressure",
    "replica_symmetric",
    "simulate",
    "simulate_detection",
    "spin_glass_temperature",
    "tuple_entropy",
]
