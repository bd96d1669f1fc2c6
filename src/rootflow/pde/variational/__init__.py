"""Nonlinear elliptic variational problems."""
from .checks import EllipticityWarning, QuadratureWarning
from .ellipticity import Constants, Ellipticity, constants, estimate, steps_needed
from .energy import Energy
from .grid import SineGrid
from .minimise import Certificate, Minimised, certify, minimise, minimiser, preconditioned_step
