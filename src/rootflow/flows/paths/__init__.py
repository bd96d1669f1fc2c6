"""Controls: paths made from data, which drive controlled differential equations."""

from .base import Control
from .log_signature import LogSignature
from .piecewise import CubicHermite, CubicNatural, Linear, Rectilinear

__all__ = ["Control", "CubicHermite", "CubicNatural", "Linear", "LogSignature", "Rectilinear"]
