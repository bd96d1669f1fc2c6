"""Constraint sets, each with a projection, its derivative, and a membership test."""

from .balls import L2Ball, L2Sphere, LInfBall, PositiveSemidefinite, SecondOrderCone
from .base import Set
from .boxes import Box, NonNegative, Product
from .linear import Affine, HalfSpace, Hyperplane
from .order import BoxSection, Isotonic
from .polytopes import Birkhoff, Polyhedron, TransportPolytope
from .simplices import L1Ball, L1Sphere, Simplex, SparseSimplex

__all__ = [
    "Affine",
    "Birkhoff",
    "Box",
    "BoxSection",
    "HalfSpace",
    "Hyperplane",
    "Isotonic",
    "L1Ball",
    "L1Sphere",
    "L2Ball",
    "L2Sphere",
    "LInfBall",
    "NonNegative",
    "Polyhedron",
    "PositiveSemidefinite",
    "Product",
    "SecondOrderCone",
    "Set",
    "Simplex",
    "SparseSimplex",
    "TransportPolytope",
]
