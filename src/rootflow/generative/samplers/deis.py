"""DEIS: exponential Adams-Bashforth steps with polynomials in a variable of choice."""

from typing import Any, Literal

import equinox as eqx
import numpy as np

from ..grids import Knots
from ..numerics import namespace
from ..schedules import Schedule
from .base import require
from .exponential import Exponential
from .multistep import Multistep, orders_of_steps, steps_between

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)


class DEIS(Multistep):
    """DEIS of order 1 to 4 (Zhang and Chen 2023, eq. 15; their order counts one less).

    x_t / alpha_t = x_s / alpha_s + sum_j C_j eps_j, C_j the integral over the noise level
    rho = sigma / alpha of the j-th Lagrange polynomial through the last evaluations.

    Attributes:
        order: how many evaluations a step uses.
        basis: the variable of the polynomials: `"time"` (tAB-DEIS), `"noise_level"` (rho-AB) or
            `"log_snr"`.
        lower_order_final: lower the order of the last steps; by default below 10 steps.
    """

    form = "noise"

    order: int = eqx.field(static=True, default=3)
    basis: Literal["time", "noise_level", "log_snr"] = eqx.field(static=True, default="time")
    lower_order_final: bool | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        require(self.order in (1, 2, 3, 4), f"order={self.order!r} must be 1, 2, 3 or 4.")
        require(
            self.basis in ("time", "noise_level", "log_snr"),
            f"basis={self.basis!r} is not known; use 'time', 'noise_level' or 'log_snr'.",
        )

    @property
    def depth(self) -> int:
        return self.order

    def _variable(self, schedule: Schedule, log_snr: Any) -> Any:
        if self.basis == "time":
            return schedule.log_snr_inverse(log_snr)
        return namespace(log_snr).exp(-log_snr) if self.basis == "noise_level" else log_snr

    def coefficients(self, schedule: Schedule, knots: Knots) -> tuple[Any, list[Any], Any]:
        source, target, h, size, *_ = steps_between(knots)
        xp = namespace(h)
        step = Exponential("noise", source, target, h)
        reach = target.alpha * source.sigma / source.alpha  # alpha_t rho_s
        first = step.weight(1)
        orders = orders_of_steps(self.order, knots, self.lower_order_final)
        weights = [first] + [xp.zeros_like(first) for _ in range(self.order - 1)]
        # Gauss points in log_snr, in which d rho = -rho d log_snr; exact for what is smooth there.
        points = knots.log_snr[:-1, None] + 0.5 * size[:, None] * (1 + _NODES)
        measure = -0.5 * size[:, None] * _WEIGHTS * xp.exp(knots.log_snr[:-1, None] - points)
        at = self._variable(schedule, points)
        nodes = self._variable(schedule, knots.log_snr[:-1])
        for order in range(2, self.order + 1):
            past = [
                xp.concatenate([nodes[:1]] * j + [nodes[: nodes.shape[0] - j]])
                for j in range(order)
            ]
            for j in range(order):
                lagrange = 1.0
                for i in range(order):
                    if i != j:
                        # Where this order is not used yet, nodes coincide: a division by zero
                        # there would spoil the derivative although its value is not used.
                        apart = xp.where(orders == order, past[j] - past[i], 1.0)
                        lagrange = lagrange * ((at - past[i][:, None]) / apart[:, None])
                value = reach * xp.sum(measure * lagrange, axis=1)
                weights[j] = xp.where(orders == order, value, weights[j])
        return step.scale(), weights, None
