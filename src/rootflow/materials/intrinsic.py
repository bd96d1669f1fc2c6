"""Intrinsic coefficients at a Kirkendall plane, marked by inert particles, and what follows."""

from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InputError
from ..ground.checks import one_of
from ..ground.tracing import is_traced
from . import checks
from .curves import slopes
from .interdiffusion import Areas, areas_of, interdiffusion, warn_if_not_ideal
from .plateaus import require_flat
from .profile import Oriented, Profile, oriented
from .volumes import MolarVolume, as_volume, concentrations, partial_volumes


class Intrinsic(eqx.Module):
    """Intrinsic coefficients at the marker plane.

    Attributes:
        A, B: D_A and D_B, m²/s.
        composition: the mole fraction of B at the markers.
        position: of the markers, m.
        shift: x_K - x_M along the position's axis, m.
        velocity: of the markers in the volume-fixed frame, V_B (D_B - D_A) dC_B/dx, m/s.
        interdiffusion: what Darken's equation makes of the two, m²/s.
    """

    A: Float[Array, ""]
    B: Float[Array, ""]
    composition: Float[Array, ""]
    position: Float[Array, ""]
    shift: Float[Array, ""]
    velocity: Float[Array, ""]
    interdiffusion: Float[Array, ""]

    @property
    def ratio(self) -> Float[Array, ""]:
        """D_B / D_A."""
        return self.B / self.A


def intrinsic(
    profile: Profile,
    *,
    marker: Any,
    method: Literal["van-loo", "concentration"] = "van-loo",
    check_ends: bool = True,
) -> Intrinsic:
    """D_A and D_B at the plane of inert markers.

    Args:
        profile: the couple; a noisy one smoothed first (`smooth`).
        marker: position of the markers, m, on the profile's axis; differentiable.
        method: `"van-loo"` (in Y_N, any molar volume) or `"concentration"` (in Y_C, for ideal
            ones; a warning says where they are not).
        check_ends: refuse profiles whose ends are not flat.

    Raises:
        InputError: an unknown method, a marker outside of the profile or where it does not rise or
            fall.

    Source: van Loo (1970), Acta Metall. 18, 1107; the form in Y_C follows from it for ideal molar
        volumes (announced by Baheti and Paul, 2018, arXiv 1809.09687).
    """
    one_of("method", method, ("van-loo", "concentration"))
    at = checks.one("marker", marker)
    if check_ends and not is_traced(profile.x, profile.N, profile.ends):
        require_flat(profile)
    couple = oriented(profile)
    _inside(profile, at)
    here = couple.sign * at
    areas = areas_of(couple, profile.molar_volume)
    N, slope, local = _at(couple, areas, here)
    V = profile.molar_volume(N)
    V_A, V_B = partial_volumes(profile.molar_volume, N)
    if method == "van-loo":
        left, right = local.N_left, local.N_right
        low, high = couple.low, couple.high
        A = (1 - high) * left - (1 - low) * right
        B = high * left - low * right
    else:
        left, right = local.C_left, local.C_right
        (A_low, low), (A_high, high) = (
            concentrations(profile.molar_volume, end) for end in (couple.low, couple.high)
        )
        A = A_high * left - A_low * right
        B = high * left - low * right
        found = interdiffusion(profile, check_ends=False, throw=False)
        warn_if_not_ideal(found.disagreement, method)
    dC_B, dC_A = V_A / V**2 * slope, -V_B / V**2 * slope
    D_A, D_B = A / (2 * profile.time * dC_A), B / (2 * profile.time * dC_B)
    mixed = darken(D_A, D_B, N, molar_volume=profile.molar_volume)
    return Intrinsic(
        A=D_A, B=D_B, composition=N, position=at,
        shift=couple.sign * (local.C_left - local.C_right),
        velocity=couple.sign * V_B * (D_B - D_A) * dC_B, interdiffusion=mixed,
    )  # fmt: skip


def _inside(profile: Profile, at: Array) -> None:
    if is_traced(at, profile.x):
        return
    first, last = float(profile.x[0]), float(profile.x[-1])
    if not first < float(at) < last:
        raise InputError(
            f"the marker at {checks.micrometres(at)} lies outside of the profile, which is from "
            f"{checks.micrometres(first)} to {checks.micrometres(last)}."
        )
    x = np.asarray(profile.x)
    for left, right in profile.phases[:-1]:
        del left
        if float(at) == x[right]:
            raise InputError(
                f"the marker at {checks.micrometres(at)} lies on an interface, where the profile "
                "has no slope; for compounds use Layers and tracer_ratio."
            )


def _at(couple: Oriented, areas: Areas, here: Array) -> tuple[Array, Array, Areas]:
    """Composition, slope and areas at a position, along the parabola between neighbours."""
    x = couple.x
    slope = slopes(x, couple.N, couple.phases)
    i = jnp.clip(jnp.searchsorted(x, here, side="right") - 1, 0, len(x) - 2)
    u = (here - x[i]) / (x[i + 1] - x[i])

    def between(values: Array) -> Array:
        return values[i] + u * (values[i + 1] - values[i])

    names = ("Y_N", "Y_C", "N_left", "N_right", "C_left", "C_right")
    here_areas = {name: between(getattr(areas, name)) for name in names}
    local = Areas(**here_areas, low=areas.low, high=areas.high)
    N, rise = between(couple.N), between(slope)
    if not is_traced(rise) and not float(rise) > 0:
        raise InputError(
            f"the profile has no slope at the marker ({checks.micrometres(couple.sign * here)}): "
            "smooth it (smooth), or for line compounds use Layers and tracer_ratio."
        )
    return N, rise, local


class KirkendallPlane(NamedTuple):
    """Where markers of the contact plane gather.

    Attributes:
        position: m.
        composition: the mole fraction of B.
        velocity: m/s.
        gradient: 2 t dv/dx there. Below 0 markers gather; between 0 and 1 they spread, but slower
            than the profile does; above 1 the plane repels them.
    """

    position: float
    composition: float
    velocity: float
    gradient: float

    @property
    def stable(self) -> bool:
        """Whether markers gather there: where the velocity falls with the position."""
        return self.gradient < 0


def kirkendall_planes(profile: Profile, A: Any, B: Any) -> list[KirkendallPlane]:
    """The Kirkendall planes of a couple whose intrinsic coefficients are known.

    They are where 2 t v(x) = x - x_M, with v = V_B (D_B - D_A) dC_B/dx; there may be several, or in
    a couple with a turning velocity none that is stable.

    Args:
        profile: the couple.
        A: D_A as a function of the mole fraction of B, or its values at the profile's points, m²/s.
        B: D_B, the same.

    Returns:
        The planes, in the order of their positions.

    Source: van Dal, Gusak, Cserháti, Kodentsov and van Loo (2001), Phys. Rev. Lett. 86, 3352.
    """
    couple = oriented(profile)
    areas = areas_of(couple, profile.molar_volume)
    plane = couple.x[-1] - areas.C_left[-1]

    def values(D: Any) -> Array:
        if callable(D):
            return jnp.asarray(D(couple.N))
        array = checks.real("an intrinsic coefficient", D)
        if array.shape != profile.x.shape:
            raise InputError(
                "an intrinsic coefficient must be a function of the mole fraction, or have a value "
                f"for each of the {len(profile)} points; got shape {array.shape}."
            )
        return array[:: couple.sign]

    V = profile.molar_volume(couple.N)
    V_A, V_B = partial_volumes(profile.molar_volume, couple.N)
    slope = slopes(couple.x, couple.N, couple.phases)
    v = np.asarray(V_B * (values(B) - values(A)) * V_A / V**2 * slope)
    x, N = np.asarray(couple.x), np.asarray(couple.N)
    gap = 2 * float(profile.time) * v - (x - float(plane))
    found = []
    for i in np.flatnonzero((gap[:-1] > 0) != (gap[1:] > 0)):
        if x[i + 1] == x[i]:
            continue
        u = gap[i] / (gap[i] - gap[i + 1])
        at, here, speed = (c[i] + u * (c[i + 1] - c[i]) for c in (x, N, v))
        gradient = 2 * float(profile.time) * (v[i + 1] - v[i]) / (x[i + 1] - x[i])
        found.append(
            KirkendallPlane(
                couple.sign * float(at), float(here), couple.sign * float(speed),
                float(gradient),
            )
        )  # fmt: skip
    return sorted(found)


def heumann_ratio(profile: Profile, *, marker: Any) -> Float[Array, ""]:
    """D_B / D_A from the amounts of B and A that crossed the marker plane, at constant volume.

    Args:
        profile: the couple; its molar volume is not used.
        marker: position of the markers, m.

    Source: Heumann (1952), Z. Phys. Chem. 201, 168.
    """
    at = checks.one("marker", marker)
    _inside(profile, at)
    couple = oriented(profile)
    areas = areas_of(couple, as_volume(1.0))
    left, right = (
        jnp.interp(couple.sign * at, couple.x, side) for side in (areas.N_left, areas.N_right)
    )
    low, high = couple.low, couple.high
    return (high * left - low * right) / ((1 - low) * right - (1 - high) * left)


def darken(A: Any, B: Any, N: Any, *, molar_volume: MolarVolume | Any = None) -> Array:
    """Darken's interdiffusion coefficient, C_A V_A D_B + C_B V_B D_A.

    Args:
        A: D_A, m²/s.
        B: D_B, m²/s.
        N: the mole fraction of B.
        molar_volume: as of `Profile`.

    Source: Darken (1948), Trans. AIME 175, 184; for any volume, van Loo (1990), Prog. Solid State
        Chem. 20, 47.
    """
    volume = as_volume(molar_volume)
    N = jnp.asarray(N, jnp.result_type(float))
    C_A, C_B = concentrations(volume, N)
    V_A, V_B = partial_volumes(volume, N)
    return C_A * V_A * jnp.asarray(B) + C_B * V_B * jnp.asarray(A)
