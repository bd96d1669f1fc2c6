"""From a trajectory to its equation: one network that predicts the future and writes the law.

Source: Liu, Zhang & Schaeffer, "PROSE: Predicting operators and symbolic expressions using
multimodal transformers" (2024).
"""

from .corruption import add_noise, blur_numbers, corrupt
from .data import Examples, Trajectories, examples, trajectories
from .decoding import beam, greedy
from .equations import Equations, parse, skeleton_of, tokens_of
from .learning import loss, optimizer, schedule, train
from .metrics import (
    expression_error,
    is_valid,
    r_squared,
    relative_error,
    same_form,
    solved,
)
from .network import Features, Prose
from .refinement import Consistency, Refined, choose, consistency, refine
from .systems import SYSTEMS, THREE_DIMENSIONAL, System, family, system
from .words import Vocabulary

__all__ = [
    "SYSTEMS",
    "THREE_DIMENSIONAL",
    "Consistency",
    "Equations",
    "Examples",
    "Features",
    "Prose",
    "Refined",
    "System",
    "Trajectories",
    "Vocabulary",
    "add_noise",
    "beam",
    "blur_numbers",
    "choose",
    "consistency",
    "corrupt",
    "examples",
    "expression_error",
    "family",
    "greedy",
    "is_valid",
    "loss",
    "optimizer",
    "parse",
    "r_squared",
    "refine",
    "relative_error",
    "same_form",
    "schedule",
    "skeleton_of",
    "solved",
    "system",
    "tokens_of",
    "train",
    "trajectories",
]
