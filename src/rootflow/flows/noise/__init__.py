"""Noise: random paths that can be queried again, refined and run backwards."""

from .base import Increment, Noise
from .brownian import BrownianMotion
from .fractional import FractionalBrownianMotion
from .markov import MarkovFractional, MarkovLaw

__all__ = [
    "BrownianMotion",
    "FractionalBrownianMotion",
    "Increment",
    "MarkovFractional",
    "MarkovLaw",
    "Noise",
]
