"""Momentum: the three-parameter family, its equations, rates and certificates."""
