"""Integration methods, a family a file. The loop knows a method only through `Method`."""

from .base import Method, Step
from .runge_kutta import Tsit5

__all__ = ["Method", "Step", "Tsit5"]
