"""Explicit Runge-Kutta methods of low and middle order."""

from typing import ClassVar

import numpy as np

from .explicit import ExplicitRungeKutta, nested


class Euler(ExplicitRungeKutta):
    """Euler's method, of order 1. It has no error estimate: give `dt`."""

    order: ClassVar[int] = 1
    error_order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 1
    stability: ClassVar[float] = 2.0
    adaptive: ClassVar[bool] = False
    nodes: ClassVar[np.ndarray] = np.array([0.0, 1.0])
    matrix: ClassVar[list[np.ndarray]] = [np.array([1.0])]
    error_weights: ClassVar[np.ndarray | None] = None
    interpolation: ClassVar[np.ndarray] = nested(matrix[-1])


class _SecondOrder(ExplicitRungeKutta):
    """Two stages, order 2, with Euler's method embedded.

    Source: Hairer, Norsett & Wanner, Solving ODEs I, Section II.1, equation (1.4) and Exercise 1:
    the family with the second stage at any time.
    """

    order: ClassVar[int] = 2
    error_order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 2
    stability: ClassVar[float] = 2.0


class Heun(_SecondOrder):
    """Heun's method, the explicit trapezoidal rule: a 2(1) pair.

    Source: K. Heun, "Neue Methoden zur approximativen Integration der Differentialgleichungen
    einer unabhaengigen Veraenderlichen", Zeitschrift fuer Mathematik und Physik 45 (1900).
    """

    nodes: ClassVar[np.ndarray] = np.array([0.0, 1.0, 1.0])
    matrix: ClassVar[list[np.ndarray]] = [np.array([1.0]), np.array([1 / 2, 1 / 2])]
    error_weights: ClassVar[np.ndarray | None] = np.array([-1 / 2, 1 / 2, 0.0])
    interpolation: ClassVar[np.ndarray] = nested(matrix[-1])


class Midpoint(_SecondOrder):
    """The explicit midpoint rule: a 2(1) pair.

    Source: C. Runge, "Ueber die numerische Aufloesung von Differentialgleichungen",
    Mathematische Annalen 46 (1895).
    """

    nodes: ClassVar[np.ndarray] = np.array([0.0, 1 / 2, 1.0])
    matrix: ClassVar[list[np.ndarray]] = [np.array([1 / 2]), np.array([0.0, 1.0])]
    error_weights: ClassVar[np.ndarray | None] = np.array([-1.0, 1.0, 0.0])
    interpolation: ClassVar[np.ndarray] = nested(matrix[-1])


class Ralston(_SecondOrder):
    """Ralston's method: the 2(1) pair with two stages and the smallest bound on its local error.

    Source: A. Ralston, "Runge-Kutta methods with minimum error bounds", Mathematics of Computation
    16 (1962), Section 3.
    """

    nodes: ClassVar[np.ndarray] = np.array([0.0, 2 / 3, 1.0])
    matrix: ClassVar[list[np.ndarray]] = [np.array([2 / 3]), np.array([1 / 4, 3 / 4])]
    error_weights: ClassVar[np.ndarray | None] = np.array([-3 / 4, 3 / 4, 0.0])
    interpolation: ClassVar[np.ndarray] = nested(matrix[-1])


class Bosh3(ExplicitRungeKutta):
    """Bogacki and Shampine's 3(2) pair, with the cubic Hermite interpolant.

    Source: P. Bogacki & L. F. Shampine, "A 3(2) pair of Runge-Kutta formulas", Applied Mathematics
    Letters 2 (1989).
    """

    order: ClassVar[int] = 3
    error_order: ClassVar[int] = 3
    evaluations: ClassVar[int] = 3
    stability: ClassVar[float] = 2.5127
    nodes: ClassVar[np.ndarray] = np.array([0.0, 1 / 2, 3 / 4, 1.0])
    matrix: ClassVar[list[np.ndarray]] = [
        np.array([1 / 2]), np.array([0.0, 3 / 4]), np.array([2 / 9, 1 / 3, 4 / 9])
    ]  # fmt: skip
    error_weights: ClassVar[np.ndarray | None] = np.array([-5 / 72, 1 / 12, 1 / 9, -1 / 8])
    interpolation: ClassVar[np.ndarray] = nested(matrix[-1])


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
    stability: ClassVar[float] = 3.5068
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
    error_weights: ClassVar[np.ndarray | None] = np.array(
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
