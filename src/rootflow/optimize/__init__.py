"""First-order optimisation with proofs: momentum as dynamics, and private training."""

from . import privacy
from .momentum import equations
from .momentum.adaptive import AdaptiveRun, descend_adaptively
from .momentum.catalogue import (
    certified,
    gradient_descent,
    heavy_ball,
    nesterov,
    nesterov_convex,
    nesterov_quadratic,
    robust_momentum,
    triple_momentum,
)
from .momentum.counterexample import Counterexample, counterexample
from .momentum.descent import Run, descend
from .momentum.equations import Equation, from_equation, from_modes, resonant_friction
from .momentum.flow import Flow, Phase
from .momentum.guarantees import Guarantee, NoGuarantee
from .momentum.iqc import Certificate
from .momentum.method import Momentum
from .momentum.passivity import Immersion, Plant, Report, immersion, monitor, slow_velocity
from .momentum.transform import MomentumState, MomentumTransformation, as_optax
from .momentum.worst_case import WorstCase, worst_case
from .privacy import diff2, dp_gradient_descent, dp_sgd

__all__ = [
    "AdaptiveRun",
    "Certificate",
    "Counterexample",
    "Equation",
    "Flow",
    "Guarantee",
    "Immersion",
    "Momentum",
    "MomentumState",
    "MomentumTransformation",
    "NoGuarantee",
    "Phase",
    "Plant",
    "Report",
    "Run",
    "WorstCase",
    "as_optax",
    "certified",
    "counterexample",
    "descend",
    "descend_adaptively",
    "diff2",
    "dp_gradient_descent",
    "dp_sgd",
    "equations",
    "from_equation",
    "from_modes",
    "gradient_descent",
    "heavy_ball",
    "immersion",
    "monitor",
    "nesterov",
    "nesterov_convex",
    "nesterov_quadratic",
    "privacy",
    "resonant_friction",
    "robust_momentum",
    "slow_velocity",
    "triple_momentum",
    "worst_case",
]
