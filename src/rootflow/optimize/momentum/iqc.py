"""The rate that an integral quadratic constraint certifies, and the Lyapunov matrix that proves it.

The gradient of a function in F(mu, L), less its minimiser, satisfies the weighted off-by-one
constraint: with u = grad f(y), zeta+ = -L y + u, r1 = c rho^2 zeta + L y - u, r2 = u - mu y,

    r1 r2 >= q_k - c rho^2 q_{k-1},   0 <= c <= 1,
    q = (L - mu) (f(y) - f* - mu/2 |y|^2) - 1/2 |u - mu y|^2 >= 0.

A method contracts by rho if a matrix P > 0 exists with

    [A B]' P [A B] - rho^2 diag(P, 0) + [C D]' M [C D] <= 0,   M = (0 1; 1 0).

No solver of semidefinite programmes is needed. After u = mu y + v the quadratic term is
2 v ((L - mu) y - v + c rho^2 zeta), and by the Kalman-Yakubovich-Popov lemma P exists if and only
if on the circle |z| = rho

    Re[(1 - c rho e^{-i w}) (1 - (L - mu) G(z))] > 0,

G the transfer function of the loop closed with gain mu. Times the square of its denominator this is
a polynomial of degree three in cos w, whose least value is exact. Closed with the gain mu the
constraint vanishes, so P satisfies a Lyapunov inequality for a loop that contracts faster than rho:
P > 0 comes by itself as long as rho is above the rate on quadratics. (Without that, indefinite
matrices give rates that are false.)

Source: Lessard, Recht and Packard, "Analysis and design of optimization algorithms via integral
quadratic constraints" (2016), lemma 10 and theorem 4.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_discrete_are
from scipy.optimize import minimize_scalar

from ...errors import SolveError
from .rates import quadratic_rate


class Coefficients(NamedTuple):
    """A method and the class of functions, as known numbers."""

    alpha: float
    beta: float
    gamma: float
    mu: float
    L: float


class Certificate(NamedTuple):
    """What proves a rate, so that it can be checked without this code.

    Attributes:
        rate: the certified factor a step, of the distance from the minimiser.
        P: the matrix of the Lyapunov function, (3, 3), for the state (x_k, x_{k-1}, zeta_k) with
            the minimiser at zero.
        weight: c of the constraint.
        residual: the largest eigenvalue of the matrix inequality over its largest entry (at most
            round-off).
    """

    rate: float
    P: NDArray[np.float64]
    weight: float
    residual: float


def least(method: Coefficients, rho: float, weight: float) -> float:
    """The least value on the circle |z| = rho of the frequency condition times |denominator|^2."""
    alpha, beta, gamma, mu, L = method
    scale = np.array([rho**2, rho, 1.0])
    below = np.array([1.0, -(1 + beta - alpha * mu * (1 + gamma)), beta - alpha * mu * gamma])
    above = below - (L - mu) * np.array([0.0, -alpha * (1 + gamma), alpha * gamma])
    product = np.convolve([1.0, -weight * rho], np.convolve(above * scale, (below * scale)[::-1]))
    # The powers of e^{iw} in `product` go from 2 to -3; the real part has cosines.
    cosines = np.zeros(4)
    np.add.at(cosines, [2, 1, 0, 1, 2, 3], product)
    c0, c1, c2, c3 = (
        cosines[0] - cosines[2], cosines[1] - 3 * cosines[3], 2 * cosines[2], 4 * cosines[3],
    )  # fmt: skip
    places = [-1.0, 1.0]
    a, b, c = 3 * c3, 2 * c2, c1
    gap = b * b - 4 * a * c
    if gap >= 0:
        w = -0.5 * (b + np.copysign(np.sqrt(gap), b))
        ratios = [w / a] if a != 0 else []
        ratios += [c / w] if w != 0 else []
        places += [x for x in ratios if -1 < x < 1]
    return float(min(c0 + x * (c1 + x * (c2 + x * c3)) for x in places))


def margin(method: Coefficients, rho: float) -> tuple[float, float]:
    """The largest `least` over the weight in [0, 1], and that weight: `least` is concave in it."""
    inner: Any = minimize_scalar(
        lambda c: -least(method, rho, c), bounds=(0.0, 1.0), method="bounded",
        options={"xatol": 1e-10},
    )  # fmt: skip
    return max((least(method, rho, c), c) for c in (0.0, 1.0, float(inner.x)))


def rate(method: Coefficients, tolerance: float = 1e-10) -> float | None:
    """The smallest certified rate by bisection, from above; None if none below 1 is certified."""
    low, high = max(quadratic_rate(*method), 0.0) + tolerance, 1.0 - tolerance
    if low >= high or margin(method, high)[0] <= 0:
        return None
    if margin(method, low)[0] > 0:
        return low
    while high - low > tolerance:
        middle = 0.5 * (low + high)
        if margin(method, middle)[0] > 0:
            high = middle
        else:
            low = middle
    return high


def certificate(method: Coefficients, rho: float) -> Certificate:
    """The Lyapunov matrix for a rate above the certified one.

    Raises:
        SolveError: there is none at this rate (or round-off hides it).
    """
    found, weight = margin(method, rho)
    if found <= 0 or rho <= quadratic_rate(*method):
        raise SolveError(
            f"No Lyapunov function of this kind contracts by {rho} a step; the smallest rate that "
            f"has one is {rate(method)}."
        )
    a, b, output, aside = _system(method, rho, weight)
    closed = a + method.mu * b @ output
    try:
        # The equality that belongs to the inequality; its stabilising solution is -rho^2 P.
        solution = solve_discrete_are(
            closed / rho, b / rho, -1e-9 * np.eye(3), np.array([[2.0]]), s=-aside.T
        )
    except np.linalg.LinAlgError as error:
        raise SolveError(
            f"The rate {rho} is too near the smallest certified one for the Lyapunov matrix to be "
            "found: ask for a slightly larger one."
        ) from error
    p = -(solution + solution.T) / 2
    inequality = _inequality(method, rho, weight, p)
    largest = float(np.linalg.eigvalsh(inequality)[-1] / np.max(np.abs(inequality)))
    if np.linalg.eigvalsh(p)[0] <= 0 or largest > 1e-9:
        raise SolveError(f"The Lyapunov matrix found for the rate {rho} fails its check.")
    return Certificate(rho, p / rho**2, weight, largest)


def _system(method: Coefficients, rho: float, weight: float):
    """A, B, the output y and r1 + v, for the state (x, x before, zeta)."""
    alpha, beta, gamma, mu, L = method
    output = np.array([[1 + gamma, -gamma, 0.0]])
    a = np.array([[1 + beta, -beta, 0.0], [1.0, 0.0, 0.0], -L * output[0]])
    b = np.array([[-alpha], [0.0], [1.0]])
    aside = (L - mu) * output + np.array([[0.0, 0.0, weight * rho**2]])
    return a, b, output, aside


def _inequality(method: Coefficients, rho: float, weight: float, p) -> NDArray[np.float64]:
    """The left side of the matrix inequality for rho^2 P = p, times rho^2."""
    a, b, output, _ = _system(method, rho, weight)
    ab = np.hstack([a, b])
    first = np.append(method.L * output[0] + [0.0, 0.0, weight * rho**2], -1.0)
    second = np.append(-method.mu * output[0], 1.0)
    before = np.zeros((4, 4))
    before[:3, :3] = p
    constraint = np.outer(first, second) + np.outer(second, first)
    return ab.T @ (p / rho**2) @ ab - before + constraint
