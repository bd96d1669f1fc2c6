"""Noise: random paths that can be queried again, refined and run backwards."""

from .base import Increment, Noise
from .brownian import BrownianMotion
from .fractional import FractionalBrownianMotion
from .law import MarkovLaw
from .markov import MarkovFractional
from .moving import MovingLaw

__all__ = [
    "BrownianMotion",
    "FractionalBrownianMotion",
    "Increment",
    "MarkovFractional",
    "MarkovLaw",
    "MovingLaw",
    "Noise",
]
