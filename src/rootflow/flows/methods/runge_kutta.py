"""Explicit Runge-Kutta methods with an embedded error estimate."""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .base import Method, Step


def _combine(weights: np.ndarray, stages: list[Array]) -> Array:
    """The weighted sum of the stages, without the terms whose weight is zero."""
    total = None
    for weight, stage in zip(weights, stages, strict=True):
        if weight != 0.0:
            term = stage if weight == 1.0 else float(weight) * stage
            total = term if total is None else total + term
    return jnp.zeros_like(stages[0]) if total is None else total


class ExplicitRungeKutta(Method):
    """An explicit Runge-Kutta pair, given by its tableau.

    The stages are unrolled and the tableau is data known at compile time, so that the compiler
    sees one straight piece of arithmetic. The last stage is evaluated at the new state and reused
    as the first of the next step ("first same as last").
    """

    nodes: ClassVar[np.ndarray]
    matrix: ClassVar[list[np.ndarray]]
    error_weights: ClassVar[np.ndarray]
    #: Row i: coefficients of s, s**2, ... in the interpolation weight of stage i.
    interpolation: ClassVar[np.ndarray]

    def init(self, f, t, y, args):
        return f(t, y, args)

    def step(self, f, t, y, h, args, state):
        stages = [state]
        arguments = [y]
        for node, row in zip(self.nodes[1:], self.matrix, strict=True):
            arguments.append(y + h * _combine(row, stages))
            stages.append(f(t + float(node) * h, arguments[-1], args))
        error = h * _combine(self.error_weights, stages)
        # Shampine's estimate: the last two stages share their time, so that their difference is
        # the Jacobian applied to the difference of their arguments.
        rise, run = stages[-1] - stages[-2], arguments[-1] - arguments[-2]
        rise, run = jnp.sum(jnp.abs(rise) ** 2), jnp.sum(jnp.abs(run) ** 2)
        moved = run > 0
        ratio = jnp.where(moved, rise, 0.0) / jnp.where(moved, run, 1.0)
        positive = ratio > 0
        stiffness = jnp.where(positive, jnp.sqrt(jnp.where(positive, ratio, 1.0)), 0.0)
        return Step(arguments[-1], error, stages[-1], stages, stiffness)

    def coefficients(self, h, y, step) -> Float[Array, "degree n"]:
        return jnp.stack([h * _combine(column, step.stages) for column in self.interpolation.T])


def _polynomial(factor: float, *factors: tuple[float, ...]) -> np.ndarray:
    """Coefficients of s, ..., s**4 of `factor` times a product of polynomials (low order first)."""
    product = np.array([factor])
    for coefficients in factors:
        product = np.convolve(product, coefficients)
    return np.pad(product, (0, 5 - len(product)))[1:]


class Tsit5(ExplicitRungeKutta):
    """Tsitouras' 5(4) pair with its free fourth-order interpolant.

    Source: Ch. Tsitouras, "Runge-Kutta pairs of order 5(4) satisfying only the first column
    simplifying assumption", Computers & Mathematics with Applications 62 (2011), Table 1 and
    Section 4.
    """

    order: ClassVar[int] = 5
    error_order: ClassVar[int] = 5
    evaluations: ClassVar[int] = 6
    nodes: ClassVar[np.ndarray] = np.array([0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0])
    matrix: ClassVar[list[np.ndarray]] = [
        np.array([0.161]),
        np.array([-0.008480655492356989, 0.335480655492357]),
        np.array([2.8971530571054935, -6.359448489975075, 4.3622954328695815]),
        np.array(
            [5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525]
        ),
        np.array(
            [
                5.86145544294642, -12.92096931784711, 8.159367898576159,
                -0.071584973281401, -0.028269050394068383,
            ]
        ),
        np.array(
            [
                0.09646076681806523, 0.01, 0.4798896504144996,
                1.379008574103742, -3.290069515436081, 2.324710524099774,
            ]
        ),
    ]  # fmt: skip
    error_weights: ClassVar[np.ndarray] = np.array(
        [
            -0.00178001105222577714, -0.0008164344596567469, 0.007880878010261995,
            -0.1447110071732629, 0.5823571654525552, -0.45808210592918697, 1 / 66,
        ]
    )  # fmt: skip
    interpolation: ClassVar[np.ndarray] = np.stack(
        [
            _polynomial(
                -1.0530884977290216, (0.0, 1.0), (-1.3299890189751412, 1.0),
                (0.7139816917074209, -1.4364028541716351, 1.0),
            ),
            _polynomial(0.1017, (0.0, 0.0, 1.0), (1.2949852507374631, -2.1966568338249754, 1.0)),
            _polynomial(
                2.490627285651252793, (0.0, 0.0, 1.0),
                (1.57803468208092486, -2.38535645472061657, 1.0),
            ),
            _polynomial(
                -16.54810288924490272, (0.0, 0.0, 1.0), (-1.21712927295533244, 1.0),
                (-0.61620406037800089, 1.0),
            ),
            _polynomial(
                47.37952196281928122, (0.0, 0.0, 1.0), (-1.203071208372362603, 1.0),
                (-0.658047292653547382, 1.0),
            ),
            _polynomial(
                -34.87065786149660974, (0.0, 0.0, 1.0), (-1.2, 1.0), (-0.666666666666666667, 1.0)
            ),
            _polynomial(2.5, (0.0, 0.0, 1.0), (-1.0, 1.0), (-0.6, 1.0)),
        ]
    )  # fmt: skip
