"""Initial value problems with published solutions, for the comparisons and for the tests."""

from .base import Problem
from .dae import DAE
from .nonstiff import DETEST
from .stiff import STIFF

__all__ = ["DAE", "DETEST", "STIFF", "Problem"]
