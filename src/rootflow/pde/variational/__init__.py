"""Nonlinear elliptic variational problems."""
from .checks import EllipticityWarning, QuadratureWarning
from .ellipticity import Constants, Ellipticity, constants, estimate, steps_needed
from .energy import Energy
from .grid import SineGrid
from .minimise import Certificate, Minimised, certify, minimise, minimiser, preconditioned_step
from .frequencies import Frequencies, Pruned
from .networks import CosineNetwork, SineProduct, compress, sample_network, sampling_error, width_needed
from .reaction import Reaction, solve_reaction
from .greedy import Atoms, Greedy, solve_greedy
from .ritz import Ritz, solve_ritz
from .two_layer import TwoLayer
