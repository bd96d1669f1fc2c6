"""How far theory lets the Barron norm grow along the preconditioned iteration."""

import math
from typing import NamedTuple

import numpy as np

from ...ground.checks import whole
from . import checks


class BarronGrowth(NamedTuple):
    """The published recursion, step by step; row 0 is the start.

    Attributes:
        log_norms: log ‖u_t‖ at most, for the norms themselves soon overflow.
        bands: log W_t, u_t being without frequencies of |ω_i| >= W_t.
    """

    log_norms: np.ndarray
    bands: np.ndarray

    @property
    def norms(self) -> np.ndarray:
        """‖u_t‖ at most; infinite where it overflows."""
        with np.errstate(over="ignore"):
            return np.exp(self.log_norms)


def barron_growth(
    *,
    norm: float,
    band: float,
    dim: int,
    growth: float,
    power: float,
    widening: float,
    step: float,
    steps: int,
) -> BarronGrowth:
    """‖u_t+1‖ <= (1 + η d (k W_t)² B_L) ‖u_t‖^p and W_t+1 = k W_t, for ‖u_t‖ >= 1.

    The recursion of Marwah, Lipton, Lu and Risteski (2022, arXiv 2210.12101v1, lemma of one step),
    with the product kept and not bounded by its last factor. Norms below one count as one.

    Args:
        norm: ‖u_0‖.
        band: W_0.
        dim: d.
        growth: B_L in ‖L∘g‖ <= B_L ‖g‖^p.
        power: p, at least one.
        widening: k, of the band in one step.
        step: η.
        steps: how many.

    Raises:
        InputError: a number that is not positive.
    """
    log = math.log(max(checks.positive("norm", norm), 1.0))
    band = math.log(checks.positive("band", band))
    dim, steps = whole("dim", dim), whole("steps", steps)
    growth, step = checks.positive("growth", growth), checks.positive("step", step)
    power, wider = checks.positive("power", power), math.log(checks.positive("widening", widening))
    norms, bands = [log], [band]
    for _ in range(steps):
        band += wider
        log = power * log + np.logaddexp(0.0, math.log(step * dim * growth) + 2 * band)
        norms.append(float(log))
        bands.append(band)
    return BarronGrowth(np.array(norms), np.array(bands))
