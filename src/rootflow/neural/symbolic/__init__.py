"""Symbolic regression of learnt dynamics: formulas from data, in NumPy, trainable in JAX."""

from .regress import Formula, FormulaField, Front, discover, regress

__all__ = ["Formula", "FormulaField", "Front", "discover", "regress"]
