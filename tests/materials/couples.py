"""Couples with known answers, made without the package under test."""

import numpy as np

HOUR = 3600.0
TIME = 100 * HOUR
A = 10e-6
CU, SN = 7.12e-6, 16.24e-6


def logistic(points=2001, reach=15):
    x = np.linspace(-reach * A, reach * A, points)
    return x, 1 / (1 + np.exp(-x / A))


def logistic_coefficient(Y):
    return -(A**2) / (2 * TIME) * (Y * np.log(Y) + (1 - Y) * np.log1p(-Y)) / (Y * (1 - Y))


def ideal(N):
    return (1 - N) * CU + N * SN


def asymmetric(points=2001):
    """Logistic in the concentration of an ideal mixture, from N = 0.05 to 0.95."""
    x, Y = logistic(points)
    low, high = 0.05 / ideal(0.05), 0.95 / ideal(0.95)
    C = low + (high - low) * Y
    return x, C * CU / (1 - C * (SN - CU))
