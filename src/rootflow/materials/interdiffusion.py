"""Interdiffusion coefficients over the whole composition from one profile.

With B's mole fraction rising from N- to N+, Y_N = (N - N-) / (N+ - N-) and Y_C the same of B's
concentration. Wagner's form in Y_N holds for any molar volume, den Broeder's in Y_C and Matano's
for ideal ones. All are independent of the choice of the origin.
"""

import warnings
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import erfinv

from ..errors import InputError
from ..ground.checks import one_of
from ..ground.tracing import is_traced
from . import checks
from .curves import cumulative, slopes
from .plateaus import require_flat
from .profile import Oriented, Profile, oriented
from .volumes import concentrations, nonideality, partial_volumes

METHODS = ("wagner", "sauer-freise", "den-broeder", "matano", "hall")
#: Beyond these, slopes and areas vanish together, and a coefficient says little.
INSIDE = (0.02, 0.98)
#: Where the two variables differ by more, the answer in Y_C comes with a warning.
_DISAGREE = 0.01


class DataWarning(UserWarning):
    """Data or a method that give numbers of less worth than they look."""


class Interdiffusion(eqx.Module):
    """Coefficients over the composition, which increases.

    Attributes:
        composition: mole fractions of B, increasing but for scatter.
        coefficient: m²/s; NaN where the profile has no slope, or lies beyond its ends.
        position: m.
        normalised: Y_N, in [0, 1].
        flux: B's flux in the volume-fixed frame along the position's axis, mol/(m² s).
        variables_ratio: what den Broeder's form gives over what Wagner's does, at each point.
        method: how the coefficient was found.
    """

    composition: Float[Array, " points"]
    coefficient: Float[Array, " points"]
    position: Float[Array, " points"]
    normalised: Float[Array, " points"]
    flux: Float[Array, " points"]
    variables_ratio: Float[Array, " points"]
    method: str = eqx.field(static=True)

    @property
    def disagreement(self) -> Float[Array, ""]:
        """How far the two variables disagree for this couple: the largest |ratio - 1| inside.

        Inside is 0.02 < Y < 0.98. Zero, but for the grid, if the molar volume is ideal; otherwise
        the answer in mole fractions (Wagner's) is the one to take.
        """
        inside = (self.normalised > INSIDE[0]) & (self.normalised < INSIDE[1])
        return jnp.nanmax(jnp.where(inside, jnp.abs(self.variables_ratio - 1), jnp.nan))


class Areas(eqx.Module):
    """The two normalised variables, with the areas left and right of each point.

    Attributes:
        Y_N, Y_C: variables.
        N_left, N_right: integrals of Y_N / V and (1 - Y_N) / V, mol/m².
        C_left, C_right: integrals of Y_C and 1 - Y_C, m.
        low, high: C_B at the ends, mol/m³.
    """

    Y_N: Array
    Y_C: Array
    N_left: Array
    N_right: Array
    C_left: Array
    C_right: Array
    low: Array
    high: Array


def areas_of(couple: Oriented, volume: Any) -> Areas:
    """The areas at every point of a profile whose composition rises."""
    x, N = couple.x, couple.N
    V = volume(N)
    low, high = (concentrations(volume, end)[1] for end in (couple.low, couple.high))
    Y_N = (N - couple.low) / (couple.high - couple.low)
    Y_C = (N / V - low) / (high - low)
    N_left, N_right = cumulative(x, Y_N / V), cumulative(x, (1 - Y_N) / V)
    C_left, C_right = cumulative(x, Y_C), cumulative(x, 1 - Y_C)
    return Areas(Y_N, Y_C, N_left, N_right[-1] - N_right, C_left, C_right[-1] - C_right, low, high)


def matano_plane(profile: Profile) -> Float[Array, ""]:
    """The position of the Matano plane, m: B's concentration lost on its left is found right."""
    couple = oriented(profile)
    areas = areas_of(couple, profile.molar_volume)
    return couple.sign * (couple.x[-1] - areas.C_left[-1])


def interdiffusion(
    profile: Profile,
    *,
    method: Literal["wagner", "sauer-freise", "den-broeder", "matano", "hall"] = "wagner",
    check_ends: bool = True,
    throw: bool = True,
) -> Interdiffusion:
    """The interdiffusion coefficient at every point of a profile.

    Slopes are those of the points themselves: smooth a noisy profile first (`smooth`), or fit it
    (`fit_profile`).

    Args:
        profile: the couple.
        method: `"wagner"`, also called `"sauer-freise"` (any molar volume), `"den-broeder"` or
            `"matano"` (ideal molar volumes; a warning says where they are not), `"hall"` (the two
            dilute ends, see `hall`).
        check_ends: refuse profiles whose ends are not flat.
        throw: refuse profiles that are not monotone inside; otherwise the coefficient is NaN there.

    Raises:
        InputError: an unknown method, ends that are not flat, a profile that is not monotone where
            0.02 < Y < 0.98 (the message has the place).

    Source: Sauer and Freise (1962), Z. Elektrochem. 66, 353; Wagner (1969), Acta Metall. 17, 99,
        eq. 28; den Broeder (1969), Scripta Metall. 3, 321; Matano (1933), Jpn. J. Phys. 8, 109.
    """
    one_of("method", method, METHODS)
    visible = not is_traced(profile.x, profile.N, profile.ends)
    if check_ends and visible:
        require_flat(profile)
    if method == "hall":
        return _hall_ends(profile)
    couple = oriented(profile)
    areas = areas_of(couple, profile.molar_volume)
    slope = slopes(couple.x, couple.N, couple.phases)
    if throw and visible:
        if wrong := not_monotone(couple, slope, areas.Y_N):
            raise InputError(
                f"{wrong}. Smooth it (smooth), fit it (fit_profile), or pass throw=False to leave "
                "such points out."
            )
    return _from_areas(profile, couple, areas, slope, method)


def _from_areas(
    profile: Profile, couple: Oriented, areas: Areas, slope: Array, method: str
) -> Interdiffusion:
    t, V, step = profile.time, profile.molar_volume(couple.N), couple.high - couple.low
    V_A, _ = partial_volumes(profile.molar_volume, couple.N)
    fine = slope > 0
    dN = jnp.where(fine, slope, 1.0)
    dC = V_A / V**2 * dN
    Y_N, Y_C = areas.Y_N, areas.Y_C
    bracket = (1 - Y_N) * areas.N_left + Y_N * areas.N_right
    by_N = V * step * bracket / (2 * t * dN)
    by_C = (areas.high - areas.low) / (2 * t * dC) * (
        (1 - Y_C) * areas.C_left + Y_C * areas.C_right
    )  # fmt: skip
    by_N, by_C = (jnp.where(fine, value, jnp.nan) for value in (by_N, by_C))
    ratio = by_C / by_N
    flux = -V_A * step * bracket / (V * 2 * t)
    found = by_N
    if method in ("den-broeder", "matano"):
        found = by_C
        if method == "matano":
            plane = couple.x[-1] - areas.C_left[-1]
            C = areas.low + Y_C * (areas.high - areas.low)
            # From the start of the measurement; what lies before it is flat.
            found = jnp.where(fine, -cumulative(C, couple.x - plane) / (2 * t * dC), jnp.nan)
        flux = -found * dC
    # Beyond the ends' compositions, which scatter reaches, areas have no meaning.
    found = jnp.where(found > 0, found, jnp.nan)
    result = Interdiffusion(
        composition=couple.N, coefficient=found, position=couple.sign * couple.x,
        normalised=Y_N, flux=couple.sign * flux, variables_ratio=ratio, method=method,
    )  # fmt: skip
    if method in ("den-broeder", "matano"):
        warn_if_not_ideal(result.disagreement, method)
    return result


def warn_if_not_ideal(disagreement: Any, method: str) -> None:
    """Says where a method for ideal molar volumes met others."""
    if not is_traced(disagreement) and float(disagreement) > _DISAGREE:
        warnings.warn(
            f"method={method!r} holds for ideal molar volumes; with these it differs from Wagner's "
            f"by up to {100 * float(disagreement):.2g} % in this couple. Use method='wagner'.",
            DataWarning,
            stacklevel=4,
        )


def not_monotone(couple: Oriented, slope: Array, Y: Array) -> str:
    """Where a profile is not monotone inside, or an empty text."""
    inside = (np.asarray(Y) > INSIDE[0]) & (np.asarray(Y) < INSIDE[1])
    wide = np.zeros(len(inside), bool)  # a phase of one composition has no slope to speak of
    for first, last in couple.phases:
        wide[first:last] = abs(float(Y[last - 1] - Y[first])) > 2 * INSIDE[0]
    wrong = np.flatnonzero(inside & wide & ~(np.asarray(slope) > 0))
    if not len(wrong):
        return ""
    place = wrong[0]
    return (
        f"the profile is not monotone at {checks.micrometres(couple.sign * couple.x[place])} "
        f"(mole fraction {float(couple.N[place]):.4g}; {len(wrong)} points in all), where a "
        "coefficient would be negative"
    )


def second_moment(profile: Profile) -> Float[Array, ""]:
    """The mean of the coefficient over Y_C, from the whole profile and no slope, m²/s.

    It is the integral of (x - x_M)² over dY_C divided by 2 t, and equals the integral of the
    coefficient over dY_C if the molar volume is ideal.
    """
    couple = oriented(profile)
    areas = areas_of(couple, profile.molar_volume)
    plane = couple.x[-1] - areas.C_left[-1]
    return cumulative(areas.Y_C, (couple.x - plane) ** 2)[-1] / (2 * profile.time)


def hall(
    profile: Profile,
    *,
    end: Literal["left", "right"] = "left",
    between: tuple[float, float] = (0.005, 0.1),
) -> Interdiffusion:
    """The coefficient at a dilute end, from a straight line in the probit of the profile.

    Fits erfinv(2 Y - 1) = h lambda + k, with lambda = (x - x_M) / sqrt(t), over the end's points.
    There slopes and areas vanish, and the other methods lose their digits.

    Args:
        profile: the couple.
        end: of the profile with the composition rising: `"left"` is poor in B, `"right"` rich.
        between: the range that Y (on the right, 1 - Y) is fitted in.

    Returns:
        The coefficient at the points of the range; `variables_ratio` is one.

    Raises:
        InputError: fewer than three points in the range, a range that is none, an end that does
            not rise.

    Warns:
        DataWarning: a molar volume that is not ideal.

    Source: Hall (1953), J. Chem. Phys. 21, 87; Crank (1975), section 10.61. The coefficient is
        (1 + 2 k sqrt(pi) exp(u²) Y) / (4 h²), u = h lambda + k; texts with 2 k / sqrt(pi) err.
    """
    one_of("end", end, ("left", "right"))
    low, high = (float(edge) for edge in between)
    if not 0 < low < high < 1:
        raise InputError(f"between must be two shares 0 < low < high < 1; got {between!r}.")
    couple = oriented(profile)
    areas = areas_of(couple, profile.molar_volume)
    sag = float(nonideality(profile.molar_volume, (couple.low, couple.high)))
    if abs(sag) > _DISAGREE:
        warnings.warn(
            f"Hall's form holds for ideal molar volumes; this one is {100 * sag:+.2g} % off. Where "
            "the end is very dilute that hardly matters.",
            DataWarning,
            stacklevel=2,
        )
    Y, x = np.asarray(areas.Y_C), np.asarray(couple.x)
    share = Y if end == "left" else 1 - Y
    take = np.flatnonzero((share >= low) & (share <= high))
    if len(take) < 3:
        raise InputError(
            f"only {len(take)} points of the {end} end lie between {low:g} and {high:g} of the "
            "step; at least 3 are needed. Widen the range."
        )
    t = float(profile.time)
    plane = float(couple.x[-1] - areas.C_left[-1])
    along = (x[take] - plane) / np.sqrt(t)
    h, k = np.polyfit(along, erfinv(2 * Y[take] - 1), 1)
    if not h > 0:
        raise InputError(
            f"the {end} end does not rise between {low:g} and {high:g} of the step: there is no "
            "coefficient there. Smooth the profile (smooth), or take another range."
        )
    u = h * along + k
    sign = 1 if end == "left" else -1
    found = (1 + sign * 2 * k * np.sqrt(np.pi) * np.exp(u**2) * share[take]) / (4 * h**2)
    slope = h / np.sqrt(np.pi * t) * np.exp(-(u**2))
    flux = -found * slope * float(areas.high - areas.low)
    return Interdiffusion(
        composition=couple.N[take], coefficient=jnp.asarray(found),
        position=couple.sign * couple.x[take], normalised=areas.Y_N[take],
        flux=jnp.asarray(couple.sign * flux), variables_ratio=jnp.ones(len(take)), method="hall",
    )  # fmt: skip


def _hall_ends(profile: Profile) -> Interdiffusion:
    ends = [hall(profile, end=end) for end in ("left", "right")]
    names = ("composition", "coefficient", "position", "normalised", "flux", "variables_ratio")
    joined = {n: jnp.concatenate([getattr(end, n) for end in ends]) for n in names}
    return Interdiffusion(**joined, method="hall")
