"""Find x with F(x, theta) = 0, and differentiate x(theta) whatever solver found it."""

from . import conditions, prox, sets
from .argmin import argmin
from .certificate import Certificate, certificate
from .implicit import implicit
from .iterate import Solution
from .root import fixed_point, root

__all__ = [
    "Certificate",
    "Solution",
    "argmin",
    "certificate",
    "conditions",
    "fixed_point",
    "implicit",
    "prox",
    "root",
    "sets",
]
