"""Flow matching and stochastic interpolants: paths, their losses, and transport along them."""

from .bounds import best_epsilon, kl_bound, measured_bound
from .bridge import SchrodingerBridge, gaussian_bridge, kinetic_energy
from .epsilon import Epsilon, Proportional
from .fields import Fields
from .gammas import Brownian, FromSquare, Gamma, Quadratic, SigmoidBump, SineSquared, Zero
from .likelihood import Estimate, cross_entropy, log_likelihood, sde_log_likelihood
from .losses import Excess, L_b, L_eta, L_s, L_v, Pairs, Regression, excess
from .matching import (
    flow_matching,
    optimal_transport_matching,
    reflow,
    schrodinger_matching,
    straightness,
)
from .paths import (
    Bent,
    Coefficients,
    Custom,
    EncodingDecoding,
    Linear,
    Mirror,
    OneSidedCustom,
    OneSidedLinear,
    OneSidedTrigonometric,
    OneSidedVP,
    Path,
    Point,
    Trigonometric,
)
from .sampling import transport

__all__ = [
    "Bent",
    "Brownian",
    "Coefficients",
    "Custom",
    "EncodingDecoding",
    "Epsilon",
    "Estimate",
    "Excess",
    "Fields",
    "FromSquare",
    "Gamma",
    "L_b",
    "L_eta",
    "L_s",
    "L_v",
    "Linear",
    "Mirror",
    "OneSidedCustom",
    "OneSidedLinear",
    "OneSidedTrigonometric",
    "OneSidedVP",
    "Pairs",
    "Path",
    "Point",
    "Proportional",
    "Quadratic",
    "Regression",
    "SchrodingerBridge",
    "SigmoidBump",
    "SineSquared",
    "Trigonometric",
    "Zero",
    "best_epsilon",
    "cross_entropy",
    "excess",
    "flow_matching",
    "gaussian_bridge",
    "kinetic_energy",
    "kl_bound",
    "log_likelihood",
    "measured_bound",
    "optimal_transport_matching",
    "reflow",
    "schrodinger_matching",
    "sde_log_likelihood",
    "straightness",
    "transport",
]
