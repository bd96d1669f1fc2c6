"""Nonlinear elliptic variational problems: certified minimisation, Barron norms, networks.

Energies ∫ L(x, u, ∇u) - f u over the unit cube, after Marwah, Lipton, Lu and Risteski (2023),
"Neural network approximations of PDEs beyond linearity: a representational perspective", ICML,
arXiv 2210.12101. On grids they are minimised with an error bound at every step
(`minimise`); in up to a hundred dimensions reactions and diffusions are solved on a few frequencies
with exact Barron norms (`solve_reaction`); networks are sampled from such expansions
(`sample_network`), trained (`solve_ritz`) or grown atom by atom (`solve_greedy`).
"""

from .barron import BarronGrowth, barron_growth
from .checks import EllipticityWarning, QuadratureWarning
from .ellipticity import Constants, Ellipticity, elliptic_constants, steps_needed
from .energy import Energy
from .frequencies import Frequencies, Product, Pruned
from .greedy import Atoms, Greedy, solve_greedy
from .grid import SineGrid
from .minimise import ErrorCertificate, Minimised, certify, minimise, minimiser, preconditioned_step
from .networks import (
    CosineNetwork,
    SineProduct,
    compress,
    sample_network,
    sampling_error,
    width_needed,
)
from .reaction import Reaction, solve_reaction
from .ritz import Ritz, solve_ritz
from .two_layer import TwoLayer

__all__ = [
    "Atoms",
    "BarronGrowth",
    "Constants",
    "CosineNetwork",
    "Ellipticity",
    "EllipticityWarning",
    "Energy",
    "ErrorCertificate",
    "Frequencies",
    "Greedy",
    "Minimised",
    "Product",
    "Pruned",
    "QuadratureWarning",
    "Reaction",
    "Ritz",
    "SineGrid",
    "SineProduct",
    "TwoLayer",
    "barron_growth",
    "certify",
    "compress",
    "elliptic_constants",
    "minimise",
    "minimiser",
    "preconditioned_step",
    "sample_network",
    "sampling_error",
    "solve_greedy",
    "solve_reaction",
    "solve_ritz",
    "steps_needed",
    "width_needed",
]
