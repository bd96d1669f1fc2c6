"""References by the method of particular solutions: an error bound on the boundary alone.

u = u_p + Σ w_k φ_k, where u_p satisfies the equation and each φ_k the homogeneous one; the weights
are fitted to the values on the boundary. By the maximum principle (no zeroth-order term, or one
that damps) the error anywhere is at most the largest misfit there (Fox, Henrici and Moler 1967;
Betcke and Trefethen 2005; poles that crowd at corners: Gopal and Trefethen 2019). In NumPy.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import exp1, k0, k1

Points = Float[np.ndarray, "n 2"]
Basis = Callable[[Points], Float[np.ndarray, "n m"]]


class Fitted(NamedTuple):
    """A solution; calling it evaluates at points (n, 2).

    Attributes:
        particular: u_p.
        basis: φ, a column each.
        weights: w.
        misfit: the largest error on boundary points that were not fitted.
    """

    particular: Callable[[Points], np.ndarray]
    basis: Basis
    weights: np.ndarray
    misfit: float

    def __call__(self, x: Points) -> np.ndarray:
        return self.particular(x) + self.basis(x) @ self.weights


def fit(
    particular: Callable[[Points], np.ndarray],
    basis: Basis,
    at: Points,
    values: Any,
    check: Points,
    check_values: Any,
) -> Fitted:
    """Least squares over the boundary points `at`; `check` are others, for the bound."""
    matrix = basis(at)
    sizes = np.maximum(np.abs(matrix).max(0), 1e-300)
    weights = np.linalg.lstsq(matrix / sizes, values - particular(at), rcond=1e-14)[0] / sizes
    made = Fitted(particular, basis, weights, 0.0)
    return made._replace(misfit=float(np.abs(made(check) - check_values).max()))


def edges(vertices: Any, n: int) -> Points:
    """n points on each side of a polygon, crowding at its corners."""
    v = np.asarray(vertices, float)
    share = 0.5 * (1 - np.cos(np.pi * (np.arange(n) + 0.5) / n))[:, None]
    return np.concatenate([a + share * (b - a) for a, b in zip(v, np.roll(v, -1, 0))])


def circle(centre: Any, radius: float, n: int) -> Points:
    """n points of a circle."""
    angle = 2 * np.pi * (np.arange(n) + 0.5) / n
    return np.asarray(centre) + radius * np.stack([np.cos(angle), np.sin(angle)], 1)


def _complex(x):
    return x[:, 0] + 1j * x[:, 1]


def harmonic_polynomials(x: Points, degree: int) -> np.ndarray:
    """Re and Im of ((x + iy) / √2)^k."""
    powers = (_complex(x)[:, None] / np.sqrt(2)) ** np.arange(degree + 1)
    return np.concatenate([powers.real, powers.imag[:, 1:]], 1)


def harmonic_holes(x: Points, disks: Any, degree: int) -> np.ndarray:
    """log r and Re, Im of (R / (z - c))^k about each disk (x, y, R)."""
    columns = []
    for a, b, radius in disks:
        z = (_complex(x) - complex(a, b)) / radius
        powers = (1 / z)[:, None] ** np.arange(1, degree + 1)
        columns += [np.log(np.abs(z))[:, None], powers.real, powers.imag]
    return np.concatenate(columns, 1)


def corner_logarithms(x: Points, corners: Any, centre: Any, orders: Any) -> np.ndarray:
    """Re and Im of w^k log w at right-angled corners; the cut points away from `centre`."""
    columns = []
    for corner in np.asarray(corners, float):
        inward = np.sign(np.asarray(centre) - corner) @ np.array([1, 1j])
        w = (_complex(x) - corner @ np.array([1, 1j])) / inward
        safe = np.where(w == 0, 1, w)
        for order in orders:
            value = np.where(w == 0, 0, safe**order * np.log(safe))
            columns += [np.real(value), np.imag(value)]
    return np.stack(columns, 1)


def reentrant(x: Points, degree: int) -> np.ndarray:
    """r^(2k/3) sin(2kθ/3) at 0, for a corner of 3π/2 whose sides are θ = π/2 and θ = 2π."""
    angle = np.mod(np.arctan2(x[:, 1], x[:, 0]) - np.pi / 2, 2 * np.pi)
    # Points of the second side may round to a whole turn less.
    angle = np.where(angle > 1.75 * np.pi, 0.0, angle)
    power = 2 / 3 * np.arange(1, degree + 1)
    radius = np.hypot(x[:, 0], x[:, 1])[:, None] / np.sqrt(2)
    return radius**power * np.sin(angle[:, None] * power)


def screened(x: Points, rate: float, disks: Any, degree: int, poles: int) -> np.ndarray:
    """Solutions of Δφ = rate² φ: exponentials, sources around the square, holes, corner poles."""
    angle = 2 * np.pi * np.arange(72) / 72
    along = x @ np.stack([np.cos(angle), np.sin(angle)])
    reach = np.abs(np.cos(angle)) + np.abs(np.sin(angle))
    columns = [np.exp(rate * (along - reach))]
    for a, b, radius in disks:
        z = x - np.array([a, b])
        r, turn = np.hypot(*z.T)[:, None], np.arctan2(z[:, 1], z[:, 0])[:, None]
        k = np.arange(degree + 1)
        inside = _bessel(rate * r, degree) / _bessel(np.array([[rate * radius]]), degree)
        columns += [inside * np.cos(k * turn), inside[:, 1:] * np.sin(k[1:] * turn)]
    around = edges(1.2 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]), 30)
    columns.append(k0(rate * np.hypot(*(x[:, None] - around).transpose(2, 0, 1))))
    distance = 2.0 * np.exp(-3 * (np.sqrt(poles) - np.sqrt(np.arange(1, poles + 1))))
    for sx in (-1.0, 1.0):
        for sy in (-1.0, 1.0):
            corner = np.array([sx, sy])
            apart = x[:, None] - (corner + distance[:, None] * corner / np.sqrt(2))
            r = np.hypot(apart[..., 0], apart[..., 1])
            slope = k1(rate * r) / r
            columns += [k0(rate * r), slope * apart[..., 0], slope * apart[..., 1]]
    return np.concatenate(columns, 1)


def _bessel(s: np.ndarray, degree: int) -> np.ndarray:
    """K_0 ... K_degree of a column, by the recurrence upwards, which is stable."""
    rows = [k0(s), k1(s)]
    for n in range(1, degree):
        rows.append(rows[-2] + 2 * n / s * rows[-1])
    return np.concatenate(rows, 1)


def gaussian_potential(x: Points, centre: Any, sigma: float, amplitude: float) -> np.ndarray:
    """u with -Δu = A exp(-r² / 2σ²): -(A σ² / 2) (log r² + E₁(r² / 2σ²))."""
    s = np.sum((x - np.asarray(centre)) ** 2, 1) / (2 * sigma**2)
    safe = np.maximum(s, 1e-12)
    # log s + E₁(s) = -γ + s - ... for small s.
    bulk = np.where(s > 1e-12, np.log(safe) + exp1(safe), -np.euler_gamma + s)
    return -0.5 * amplitude * sigma**2 * (bulk + np.log(2 * sigma**2))
