"""LMS: a linear multistep method in the noise level."""

from typing import Any

import equinox as eqx
import numpy as np

from ..grids import Knots
from ..numerics import namespace
from ..schedules import Schedule
from .base import require
from .multistep import Multistep

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(4)  # exact for polynomials of degree 7


class LMS(Multistep):
    """Adams-Bashforth steps of order 1 to 4 in the noise level (k-diffusion, `sample_lms`).

    In y = x / alpha and rho = sigma / alpha the probability-flow equation is dy/drho = eps:

    x_t / alpha_t = x_s / alpha_s + sum_j C_j eps_j, C_j the exact integral over rho of the j-th
    Lagrange polynomial through the noise levels of the last evaluations.

    A step to clean data is of full order too, as there. `DEIS(order, basis="noise_level")` has the
    same steps, but for the last ones, which it takes with lower order.

    Attributes:
        order: how many evaluations a step uses, as soon as there are as many.
    """

    form = "noise"

    order: int = eqx.field(static=True, default=4)

    def __check_init__(self) -> None:
        require(self.order in (1, 2, 3, 4), f"order={self.order!r} must be 1, 2, 3 or 4.")

    @property
    def depth(self) -> int:
        return self.order

    @property
    def fewest(self) -> int:
        return 1

    def coefficients(self, schedule: Schedule, knots: Knots) -> tuple[Any, list[Any], Any]:
        alpha = knots.level.alpha
        rho = knots.level.sigma / alpha
        xp = namespace(rho)
        steps = knots.steps
        orders = np.minimum(np.arange(1, steps + 1), self.order)
        begin, size = rho[:-1], rho[1:] - rho[:-1]
        points = begin[:, None] + 0.5 * size[:, None] * (1 + _NODES)
        measure = 0.5 * (alpha[1:] * size)[:, None] * _WEIGHTS
        past = [rho[np.maximum(np.arange(steps) - j, 0)] for j in range(self.order)]
        weights = []
        for j in range(self.order):
            lagrange = xp.ones_like(points)
            for i in range(self.order):
                if i != j:
                    used = np.maximum(i, j) < orders
                    # Nodes that do not exist coincide: another number keeps the division finite.
                    apart = xp.where(used, past[j] - past[i], 1.0)
                    factor = (points - past[i][:, None]) / apart[:, None]
                    lagrange = lagrange * xp.where((i < orders)[:, None], factor, 1.0)
            weights.append(xp.where(j < orders, xp.sum(measure * lagrange, axis=1), 0.0))
        return alpha[1:] / alpha[:-1], weights, None
