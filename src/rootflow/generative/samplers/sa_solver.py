"""SA-Solver: stochastic Adams steps, predicted and corrected."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import numpy as np

from ..grids import Knots
from ..numerics import namespace
from ..schedules import Schedule
from .base import require
from .corrected import Corrected, order_weights
from .exponential import Exponential
from .multistep import steps_between


class SASolver(Corrected):
    """Stochastic Adams steps with a corrector, in the data form (Xue et al. 2023, algorithm 1).

    Of the reverse equations with the noise tau(t), all of which have the same marginals: tau = 0 is
    the differential equation, tau = 1 the usual stochastic one. With w = (1 + tau^2) h a step is

        x_t = (sigma_t / sigma_s) e^(-tau^2 h) x_s + sum_j b_j m_j + v z,
        v = sigma_t sqrt(1 - e^(-2 tau^2 h)),

    the b_j exact for polynomials through the last values (eq. 14 there), and the corrector the same
    with the value at the predicted sample (eq. 17), on the same noise. One evaluation a step. Of
    order 2 the slope's weight is half of w, as in the published code: it changes no order.

    Attributes:
        order: of the predictor, 1, 2 or 3: how many values it uses.
        corrector: how many values the corrector uses, the newest included, 1 to 3; 0 for none.
        tau: a number, or a function of the schedule's time, which is asked at the beginning of a
            step. The paper takes a constant within a range of times and 0 outside.
        lower_order_final: lower the order of the last steps.
    """

    order: int = eqx.field(static=True, default=2)
    corrector: int = eqx.field(static=True, default=2)
    tau: float | Callable[[Any], Any] = eqx.field(static=True, default=1.0)
    lower_order_final: bool = eqx.field(static=True, default=True)

    def __check_init__(self) -> None:
        require(self.order in (1, 2, 3), f"order={self.order!r} must be 1, 2 or 3.")
        require(
            self.corrector in (0, 1, 2, 3), f"corrector={self.corrector!r} must be 0, 1, 2 or 3."
        )
        require(
            callable(self.tau) or self.tau >= 0,
            f"tau={self.tau!r} must not be negative, or be a function of the time.",
        )

    @property
    def noisy(self) -> bool:
        return callable(self.tau) or self.tau > 0

    @property
    def nodes(self) -> tuple[int, int]:
        return self.order, self.corrector

    @property
    def fewest(self) -> int:
        return 1

    def _eta(self, times: Any) -> Any:
        """tau^2 of each step, from the times of their beginnings."""
        xp = namespace(times)
        if not callable(self.tau):
            return xp.full(times.shape, float(self.tau) ** 2)
        if xp is not np:
            return xp.stack([xp.asarray(self.tau(t)) for t in times]).astype(float) ** 2
        tau = np.asarray([float(self.tau(t)) for t in times])
        bad = ~(np.isfinite(tau) & (tau >= 0))
        if bad.any():
            i = int(np.argmax(bad))
            require(False, f"tau returned {tau[i]} at t={times[i]:.6g}: it must not be negative.")
        return tau**2

    def coefficients(
        self, schedule: Schedule, knots: Knots
    ) -> tuple[Any, list[Any], list[Any], Any]:
        source, target, h, size, before, before_that = steps_between(knots)
        xp = namespace(h)
        steps, number = knots.steps, np.arange(knots.steps)
        eta = self._eta(source.t)
        step = Exponential("data", source, target, h, eta)
        left = steps - number if self.lower_order_final else steps
        ahead = np.minimum(np.minimum(self.order, number + 1), left)
        behind = np.minimum(np.minimum(self.corrector, number + 2), left + 1)
        # Of an infinite step the value at one end counts, and the one without signal for no other.
        begins, finite = xp.isinf(knots.log_snr[0]), xp.isfinite(h)
        ahead = xp.where(begins, np.minimum(ahead, np.maximum(number, 1)), ahead)
        behind = xp.where(begins, np.minimum(behind, number + 1), behind)
        ahead, behind = xp.where(finite, ahead, 1), xp.where(finite, behind, 1)
        earlier = [0.0 * size, -before / size, -(before + before_that) / size]
        half = 0.5 * target.alpha * (1 + eta) * size
        predictor = _adams(step, earlier[: self.order], ahead, half)
        corrector = []
        if self.corrector:
            nodes = [xp.ones_like(size), *earlier][: self.corrector]
            corrector = _adams(step, nodes, behind, half)
        if not self.noisy:
            return step.scale(), predictor, corrector, None
        some = eta > 0  # a root at zero has no derivative
        drawn = step._replace(eta=xp.where(some, eta, 1.0)).spread()
        return step.scale(), predictor, corrector, xp.where(some, drawn, 0.0)


def _adams(step: Exponential, nodes: list[Any], orders: Any, half: Any) -> list[Any]:
    """Weights of the values at these nodes, of each step the first `orders` of them.

    sum_j w_j nodes_j^(k-1) = (k - 1)! weight(k) for k = 1 ... order.
    """
    xp = namespace(step.h)
    sides = [math.factorial(k) * step.weight(k + 1) for k in range(len(nodes))]
    found = [xp.where(orders == 1, sides[0], 0.0)] + [xp.zeros_like(step.h)] * (len(nodes) - 1)
    for order in range(2, len(nodes) + 1):
        now = orders == order
        # Any other numbers keep the equations solvable where this order is not used.
        at = [xp.where(now, node, 1.0 * j) for j, node in enumerate(nodes[:order])]
        right = [xp.where(now, side, 0.0) for side in sides[:order]]
        if order == 2:
            right[1] = xp.where(now, half, 0.0)
        for j, weight in enumerate(order_weights(at, right)):
            found[j] = xp.where(now, weight, found[j])
    return found
