"""Private optimisation: DIFF2, DP-GD and DP-SGD with an exact account of what they reveal.

The accountant works by itself: `epsilon(compose([gaussian(4.0)] * 10), delta=1e-5)`.
"""

from .account import Account
from .accountant import Budget, delta, epsilon, gdp_parameter, noise_multiplier, rdp
from .audit import EpsilonAudit, SensitivityAudit, audit_epsilon, audit_sensitivity
from .clients import Clients
from .descent import PrivateRun, diff2, dp_gradient_descent, dp_sgd
from .events import Event, compose, gaussian, subsampled
from .ghost import DenseLoss
from .local import BVRLSGD, GradientStep
from .messages import message
from .oracle import NoiseOracle
from .planner import Plan, plan

__all__ = [
    "BVRLSGD",
    "Account",
    "Budget",
    "Clients",
    "DenseLoss",
    "EpsilonAudit",
    "Event",
    "GradientStep",
    "NoiseOracle",
    "Plan",
    "PrivateRun",
    "SensitivityAudit",
    "audit_epsilon",
    "audit_sensitivity",
    "compose",
    "delta",
    "diff2",
    "dp_gradient_descent",
    "dp_sgd",
    "epsilon",
    "gaussian",
    "gdp_parameter",
    "message",
    "noise_multiplier",
    "plan",
    "rdp",
    "subsampled",
]
