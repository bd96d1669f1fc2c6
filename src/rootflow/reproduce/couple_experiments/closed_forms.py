"""Profiles whose coefficients are known in closed form, and what the formulas make of them."""

from typing import Any

import numpy as np
from scipy.special import erf, erfinv

from ... import materials as mat

TIME = 100 * mat.HOUR
A = 10 * mat.MICROMETRE
CU, SN = 7.12e-6, 16.24e-6
INNER = np.array([0.1, 0.3, 0.5, 0.7, 0.9])


def logistic(x: np.ndarray) -> np.ndarray:
    """Y = 1 / (1 + exp(-x / a))."""
    return 1 / (1 + np.exp(-x / A))


def logistic_coefficient(Y: np.ndarray) -> np.ndarray:
    """What a logistic profile means, m²/s."""
    entropy = Y * np.log(Y) + (1 - Y) * np.log1p(-Y)
    return -(A**2) / (2 * TIME) * entropy / (Y * (1 - Y))


def logistic_errors(points: int = 6001) -> dict[str, float]:
    """Largest relative errors for 0.02 < Y < 0.98, and of the whole-profile identity."""
    x = np.linspace(-15 * A, 15 * A, points)
    Y = logistic(x)
    couple = mat.Profile(x, Y, time=TIME)
    inside = (Y > 0.02) & (Y < 0.98)
    found = {}
    for method in ("wagner", "den-broeder", "matano"):
        D = np.asarray(mat.interdiffusion(couple, method=method).coefficient)
        found[method] = float(np.max(np.abs(D / logistic_coefficient(Y) - 1)[inside]))
    moment = np.pi**2 / 6 * A**2 / TIME
    found["moment"] = abs(float(mat.second_moment(couple)) / moment - 1)
    return found


def erf_error(points: int = 4001) -> float:
    """The largest relative error of an error function for 0.01 < Y < 0.99, D = 1e-15 m²/s."""
    D = 1e-15
    width = 2 * np.sqrt(D * TIME)
    x = np.linspace(-5 * width, 5 * width, points)
    Y = (1 + erf(x / width)) / 2
    got = np.asarray(mat.interdiffusion(mat.Profile(x, Y, time=TIME)).coefficient)
    inside = (Y > 0.01) & (Y < 0.99)
    return float(np.max(np.abs(got / D - 1)[inside]))


def power_error(m: float = 2.0, points: int = 6001) -> float:
    """The same for x = a (Y^m - 1 / (m + 1)), whose coefficient ends sharply, 0.05 < Y < 0.95."""
    Y = np.linspace(0.0, 1.0, points)
    x = A * (Y**m - 1 / (m + 1))
    margin = np.linspace(0.05, 2, 40) * A
    x = np.concatenate([x[0] - margin[::-1], x, x[-1] + margin])
    Y = np.concatenate([np.zeros(40), Y, np.ones(40)])
    got = np.asarray(mat.interdiffusion(mat.Profile(x, Y, time=TIME)).coefficient)
    exact = A**2 / (2 * TIME) * m / (m + 1) * Y**m * (1 - Y**m)
    inside = (Y > 0.05) & (Y < 0.95)
    return float(np.max(np.abs(got[inside] / exact[inside] - 1)))


def volume(sag: float) -> Any:
    """Copper's and tin's volumes, with a bow of so much."""
    if not sag:
        return mat.IdealVolume(CU, SN)
    return lambda N: ((1 - N) * CU + N * SN) * (1 - 4 * sag * N * (1 - N))


def asymmetric(points: int = 6001) -> tuple[np.ndarray, np.ndarray]:
    """Positions and mole fractions of a profile that is logistic in ideal concentration."""
    x = np.linspace(-15 * A, 15 * A, points)
    low, high = (N / ((1 - N) * CU + N * SN) for N in (0.05, 0.95))
    C = low + (high - low) * logistic(x)
    return x, C * CU / (1 - C * (SN - CU))


def two_variables(sag: float, points: int = 6001) -> dict[str, Any]:
    """den Broeder over Wagner and constant volume over Wagner at N = 0.1 to 0.9."""
    x, N = asymmetric(points)
    couple = mat.Profile(x, N, time=TIME, molar_volume=volume(sag))
    wagner = mat.interdiffusion(couple)
    plain = mat.interdiffusion(mat.Profile(x, N, time=TIME))
    at = {
        "ratio": wagner.variables_ratio,
        "ignored": np.asarray(plain.coefficient) / np.asarray(wagner.coefficient),
    }
    found: dict[str, Any] = {
        name: np.interp(INNER, wagner.composition, value) for name, value in at.items()
    }
    found["disagreement"] = float(wagner.disagreement)
    if not sag:
        Y = logistic(x)
        inside = (Y > 0.02) & (Y < 0.98)
        got = np.asarray(wagner.coefficient)
        found["error"] = float(np.max(np.abs(got / logistic_coefficient(Y) - 1)[inside]))
    return found


def markers(ratio: float, points: int = 24001) -> dict[str, float]:
    """Where the Kirkendall plane is for D_B / D_A, and the errors of what is found there."""
    x, N = asymmetric(points)
    couple = mat.Profile(x, N, time=TIME, molar_volume=volume(0.0), ends=(0.05, 0.95))
    Y = logistic(x)
    with np.errstate(divide="ignore", invalid="ignore"):
        D = np.where((Y > 0) & (Y < 1), logistic_coefficient(Y), 0.0)
    share = np.asarray(N) / ((1 - N) * CU + N * SN) * SN  # C_B V_B
    D_A = D / ((1 - share) * ratio + share)
    planes = mat.kirkendall_planes(couple, D_A, ratio * D_A)
    plane = max(planes, key=lambda p: abs(p.velocity))
    shift = plane.position - float(mat.matano_plane(couple))
    exact = np.interp(plane.position, x, D_A)
    found = {"shift": shift / A, "planes": len(planes)}
    for method in ("van-loo", "concentration"):
        got = mat.intrinsic(couple, marker=plane.position, method=method)
        found[method] = max(
            abs(float(got.A) / exact - 1), abs(float(got.B) / (ratio * exact) - 1)
        )  # fmt: skip
        found[f"velocity, {method}"] = abs(float(got.velocity) * 2 * TIME / float(got.shift) - 1)
    return found


def hall_point() -> dict[str, float]:
    """R6: the two-slope probit profile, at one point of its left branch."""
    h, k = np.array([1.0, 2.0]), np.array([0.2, 0.4])
    u0 = (k[1] - k[0]) / (h[0] - h[1])  # where the branches meet, in the coordinate below
    lam = np.concatenate([np.linspace(-6, u0, 60001), np.linspace(u0, 6, 60001)[1:]])
    u = np.where(lam < u0, h[0] * lam + k[0], h[1] * lam + k[1])
    Y = (1 + erf(u)) / 2
    couple = mat.Profile(lam, Y, time=1.0, ends=(0.0, 1.0))
    plane = float(mat.matano_plane(couple))
    moved = mat.Profile(lam - plane, Y, time=1.0, ends=(0.0, 1.0))
    left = mat.hall(moved, end="left", between=(0.01, 0.2))
    wagner = mat.interdiffusion(moved)
    at = float((1 + erf(-0.8)) / 2)
    by_hall = float(np.interp(at, left.composition, left.coefficient))
    by_areas = float(np.interp(at, wagner.composition, wagner.coefficient))
    shifted = k[0] + h[0] * plane
    wrong = (1 + 2 * shifted / np.sqrt(np.pi) * np.exp(erfinv(2 * at - 1) ** 2) * at) / (
        4 * h[0] ** 2
    )
    return {"hall": by_hall, "areas": by_areas, "other prefactor": float(wrong)}
