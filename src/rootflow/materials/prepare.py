"""From what instruments and furnaces write to what the formulas take."""

import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.constants import R
from scipy.interpolate import UnivariateSpline

from ..errors import InputError
from ..ground.checks import whole
from ..ground.tracing import is_traced
from . import checks
from .interdiffusion import DataWarning
from .profile import Profile

MICROMETRE = 1e-6
HOUR = 3600.0

#: Totals of a microprobe that are usual, and those with which a point cannot be used.
USUAL_TOTALS = (0.98, 1.02)
USABLE_TOTALS = (0.9, 1.1)
_SUBSTEPS = 64


def mole_fraction(weight_fraction: Any, *, A: float, B: float) -> Float[Array, "..."]:
    """The mole fraction of B from its weight fraction.

    Args:
        weight_fraction: w_B, in [0, 1].
        A: the atomic mass of A, g/mol (or any unit that B's has).
        B: that of B.
    """
    w = checks.fractions("the weight fraction", weight_fraction)
    A, B = (float(checks.one("an atomic mass", m, positive=True)) for m in (A, B))
    return (w / B) / ((1 - w) / A + w / B)


def weight_fraction(mole_fraction: Any, *, A: float, B: float) -> Float[Array, "..."]:
    """The weight fraction of B from its mole fraction; arguments as of `mole_fraction`."""
    N = checks.fractions("the mole fraction", mole_fraction)
    A, B = (float(checks.one("an atomic mass", m, positive=True)) for m in (A, B))
    return N * B / ((1 - N) * A + N * B)


def normalise(A: Any, B: Any, *, place: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """The share of B in the sum of both, and the sums.

    Args:
        A: measured amounts of A at each point, as fractions.
        B: those of B.
        place: what the messages call a point: a function of its number; "point 3" by default.

    Returns:
        B / (A + B), and A + B.

    Raises:
        InputError: a total below 90 % or above 110 %.

    Warns:
        DataWarning: totals below 98 % or above 102 %, with how many.
    """
    first, second = np.asarray(A, float), np.asarray(B, float)
    if first.shape != second.shape or first.ndim != 1:
        raise InputError(
            f"A and B must be columns of one length; got {np.shape(A)}, {np.shape(B)}."
        )
    total = first + second
    name = place or (lambda i: f"point {i}")
    far = np.flatnonzero(~((total >= USABLE_TOTALS[0]) & (total <= USABLE_TOTALS[1])))
    if len(far):
        raise InputError(
            f"{name(int(far[0]))}: the total is {100 * total[far[0]]:.4g} %, far from 100 % (so at "
            f"{len(far)} points). Remove points on cracks and mounts, or add the elements that are "
            "missing."
        )
    odd = np.flatnonzero((total < USUAL_TOTALS[0]) | (total > USUAL_TOTALS[1]))
    if len(odd):
        warnings.warn(
            f"{len(odd)} of {len(total)} totals lie outside of 98 to 102 % (first: "
            f"{name(int(odd[0]))}, {100 * total[odd[0]]:.4g} %); compositions are of the sum.",
            DataWarning,
            stacklevel=2,
        )
    return second / total, total


def oblique(x: Any, angle: Any) -> Float[Array, "..."]:
    """Positions along the diffusion direction from those along a scan at an angle to it.

    Args:
        x: positions along the scan, m.
        angle: between scan and diffusion direction, degrees, less than 90.
    """
    degrees = checks.one("angle", angle, low=0.0)
    if not is_traced(degrees) and float(degrees) >= 90:
        raise InputError(f"angle must be less than 90 degrees; got {float(degrees):g}.")
    return checks.real("x", x) * jnp.cos(jnp.deg2rad(degrees))


def effective_time(
    time: Any, temperature: Any, *, activation_energy: Any, reference: Any
) -> Float[Array, ""]:
    """The time at a reference temperature that diffuses as far as a thermal history did.

    The integral of exp(-Q / R (1 / T(s) - 1 / T_0)) ds, with T linear between the entries.

    Args:
        time: s, increasing.
        temperature: K at these.
        activation_energy: Q, J/mol.
        reference: T_0, K.

    Raises:
        InputError: shapes, times that do not increase, temperatures that are not positive (degrees
            Celsius are no kelvins).
    """
    s, T = checks.real("time", time), checks.real("temperature", temperature, positive=True)
    Q, T_0 = (
        checks.one("activation_energy", activation_energy, low=0.0),
        checks.one("reference", reference, positive=True),
    )
    if s.ndim != 1 or s.shape != T.shape or len(s) < 2:
        raise InputError(
            f"time and temperature must be two columns of one length, two rows at least; got "
            f"shapes {s.shape} and {T.shape}."
        )
    if not is_traced(s) and np.any(np.diff(np.asarray(s)) <= 0):
        raise InputError("the times of a thermal history must increase.")
    # Gauss-Legendre on each part of each piece: smooth there whatever the ramps.
    nodes, weights = np.polynomial.legendre.leggauss(4)
    u = (np.arange(_SUBSTEPS)[:, None] + (nodes + 1) / 2).ravel() / _SUBSTEPS
    w = np.tile(weights, _SUBSTEPS) / (2 * _SUBSTEPS)
    between = T[:-1, None] + (T[1:] - T[:-1])[:, None] * u
    rate = jnp.exp(-Q / R * (1 / between - 1 / T_0))
    return jnp.sum(jnp.diff(s) * (rate @ w))


def smooth(profile: Profile, *, degree: int = 4, points: int | None = None) -> Profile:
    """The profile by a smoothing spline in each phase, as close as the scatter says.

    The sum of squared misfits, in standard deviations, is the number of points.

    Args:
        profile: a noisy one.
        degree: of the spline, 1 to 5.
        points: how many the result has in each phase; by default those of the profile.

    Raises:
        InputError: a degree or number out of range.

    Warns:
        DataWarning: no spline is as close as the scatter says.

    Source: Reinsch (1967), Numer. Math. 10, 177; the spline is SciPy's (FITPACK).
    """
    degree = whole("degree", degree)
    if degree > 5:
        raise InputError(f"degree must be from 1 to 5; got {degree}.")
    x, N, noise = np.asarray(profile.x), np.asarray(profile.N), profile.noise
    columns = []
    for first, last in profile.phases:
        a, b, s = x[first:last], N[first:last], noise[first:last]
        at = a if points is None else np.linspace(a[0], a[-1], whole("points", points, 10))
        if len(a) <= degree or not np.all(s > 0):
            columns.append((at, np.interp(at, a, b), np.interp(at, a, s)))
            continue
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            spline = UnivariateSpline(a, b, w=1 / s, k=degree, s=len(a))
        if caught:
            warnings.warn(
                f"no smoothing spline is as close to the phase at {checks.micrometres(a[0])} as "
                "its scatter says: sigma may be too small, or points too few.",
                DataWarning,
                stacklevel=2,
            )
        # Of more points each says less: together they are worth what was measured.
        columns.append((at, spline(at), np.interp(at, a, s) * np.sqrt(len(at) / len(a))))
    ends = np.asarray(profile.ends)
    made = np.concatenate([c[1] for c in columns])
    return Profile(
        np.concatenate([c[0] for c in columns]), np.clip(made, 0.0, 1.0), time=profile.time,
        molar_volume=profile.molar_volume, ends=np.clip(ends, 0.0, 1.0),
        temperature=profile.temperature,
        sigma=np.maximum(np.concatenate([c[2] for c in columns]), 1e-12),
    )  # fmt: skip
