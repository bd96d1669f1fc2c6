"""What a profile with interfaces says of each phase, without any slope."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ..errors import InputError
from .curves import cumulative
from .interdiffusion import areas_of
from .layers import Layers
from .profile import Profile, oriented

#: A phase over less than this in mole fraction counts as a line compound.
NARROW = 0.02


class Phase(NamedTuple):
    """One phase between its interfaces.

    Attributes:
        left, right: positions of its ends, m.
        composition: the mean mole fraction of B.
        width: what the mole fraction changes over it, by a straight line.
        integrated: int D dN_B over it, m²/s.
        average: `integrated` over `width`, m²/s; NaN for a line compound.
        growth_constant: thickness² / (2 t), m²/s; NaN for the alloys at the ends.
    """

    left: float
    right: float
    composition: float
    width: float
    integrated: float
    average: float
    growth_constant: float

    @property
    def thickness(self) -> float:
        """m."""
        return self.right - self.left

    @property
    def narrow(self) -> bool:
        """Whether the phase is a line compound, as far as one can see."""
        return self.width < NARROW


def phases_of(profile: Profile) -> list[Phase]:
    """Integrated coefficients and growth constants of all phases, in the order of the positions.

    Wagner's formula is D dN/dx without a slope: its integral over a phase is what `integrated`
    finds for layers of line compounds, and needs no composition to be constant.

    Args:
        profile: the couple; scatter is averaged out.

    Source: Wagner (1969), Acta Metall. 17, 99.
    """
    couple = oriented(profile)
    areas = areas_of(couple, profile.molar_volume)
    step = couple.high - couple.low
    V = profile.molar_volume(couple.N)
    bracket = (1 - areas.Y_N) * areas.N_left + areas.Y_N * areas.N_right
    density = V * step * bracket / (2 * profile.time)
    found = []
    count = len(couple.phases)
    x, N = np.asarray(couple.x), np.asarray(couple.N)
    for number, (first, last) in enumerate(couple.phases):
        take = slice(first, last)
        total = float(cumulative(couple.x[take], density[take])[-1])
        mean = float(np.mean(N[take]))
        width = 0.0
        if last - first > 2:
            width = abs(float(np.polyfit(x[take] - x[first], N[take], 1)[0])) * (
                x[last - 1] - x[first]
            )
        ends = sorted(couple.sign * np.array([x[first], x[last - 1]]))
        inner = 0 < number < count - 1
        constant = (ends[1] - ends[0]) ** 2 / (2 * float(profile.time)) if inner else np.nan
        average = total / width if width >= NARROW else np.nan
        found.append(
            Phase(float(ends[0]), float(ends[1]), mean, float(width), total, average, constant)
        )
    return found[:: couple.sign]


def layers_of(profile: Profile) -> Layers:
    """The line compounds of a profile as `Layers`, B's mole fraction rising from left to right.

    What the alloys at the ends have taken up is kept as `terminal`.

    Raises:
        InputError: no interfaces, or an inner phase that is no line compound.
    """
    couple = oriented(profile)
    if len(couple.phases) < 3:
        raise InputError(
            "the profile has no layers: interfaces are two points at one position, and a layer "
            "needs one on each side."
        )
    x, V = couple.x, profile.molar_volume
    inner = phases_of(profile)[:: couple.sign][1:-1]
    for phase in inner:
        if not phase.narrow:
            raise InputError(
                f"the phase from {phase.left * 1e6:.4g} to {phase.right * 1e6:.4g} µm extends over "
                f"{phase.width:.3g} in mole fraction: it is no line compound. Use interdiffusion "
                "in it, and phases_of for its integrated coefficient."
            )
    (_, left), (right, _) = couple.phases[0], couple.phases[-1]
    low = cumulative(x[:left], (couple.N[:left] - couple.low) / V(couple.N[:left]))[-1]
    high = cumulative(x[right:], (couple.high - couple.N[right:]) / V(couple.N[right:]))[-1]
    N = jnp.asarray([phase.composition for phase in inner])
    return Layers(
        ends=((couple.low, V(couple.low)), (couple.high, V(couple.high))), compositions=N,
        molar_volumes=V(N), thicknesses=[phase.thickness for phase in inner], time=profile.time,
        terminal=jnp.stack([low, high]),
    )  # fmt: skip
