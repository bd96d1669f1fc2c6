"""A measured composition profile of a diffusion couple, checked, in SI units."""

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InputError
from ..ground.tracing import is_traced
from . import checks
from .curves import Phases
from .plateaus import noise_of, plateau
from .volumes import MolarVolume, as_volume

#: Measured mole fractions may leave [0, 1] by this much, through their scatter.
_BEYOND = 0.02
_FEWEST = 10


class Profile(eqx.Module):
    """The mole fraction of B over the position, after annealing two alloys for a time.

    Two points at one position are an interface between phases: nothing is differentiated across
    it. The composition may rise or fall with the position.

    Args:
        x: positions, m, not decreasing; at least ten.
        N: mole fractions of B. Scatter may take them a little out of [0, 1].
        time: annealing time, s; where the temperature changed, see `effective_time`.
        molar_volume: m³ per mole of atoms: a number (the default; which one does not matter),
            `IdealVolume(V_A, V_B)`, a pair (compositions, volumes) or any function of N.
        sigma: standard deviation of the mole fractions, a number or one for each point; by default
            estimated from the scatter where it is needed.
        ends: mole fractions of the two alloys, in the order of the positions; by default weighted
            means over the flat ends.
        temperature: K; only joint fits over temperatures need it.

    Attributes:
        phases: first and last but one index of each phase.
        rising: whether the composition rises with the position.

    Inside `jit`, where the values cannot be seen, a profile is taken as rising, of one phase, and
    its first and last points as the ends, unless `ends` says otherwise; nothing is checked.

    Raises:
        InputError: fewer than ten points, shapes, numbers that are not finite, decreasing
            positions, compositions outside of [0, 1], a time or sigma that is not positive, equal
            ends, an interface without a jump of the composition or with a phase of one point.
    """

    x: Float[Array, " points"]
    N: Float[Array, " points"]
    time: Float[Array, ""]
    molar_volume: MolarVolume
    sigma: Float[Array, " points"] | None
    ends: Float[Array, " 2"]
    temperature: Float[Array, ""] | None
    phases: Phases = eqx.field(static=True)
    rising: bool = eqx.field(static=True)
    given_ends: bool = eqx.field(static=True)

    def __init__(
        self,
        x: Any,
        N: Any,
        *,
        time: Any,
        molar_volume: Any = None,
        sigma: Any = None,
        ends: Any = None,
        temperature: Any = None,
    ) -> None:
        self.x = checks.real("the positions x", x)
        self.N = checks.real("the mole fractions N", N)
        _check_shapes(self.x, self.N)
        dtype = jnp.result_type(self.x, self.N)
        self.x, self.N = self.x.astype(dtype), self.N.astype(dtype)
        self.time = checks.one("the annealing time", time, positive=True).astype(dtype)
        self.molar_volume = jax.tree.map(
            lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf,
            as_volume(molar_volume),
        )
        self.temperature = (
            None
            if temperature is None
            else checks.one("the temperature", temperature, positive=True)
        )
        self.sigma = None
        if sigma is not None:
            deviations = checks.real("sigma", sigma, positive=True)
            if deviations.shape not in ((), self.x.shape):
                raise InputError(
                    f"sigma must be one number or one for each of the {len(self.x)} points; got "
                    f"shape {deviations.shape}."
                )
            self.sigma = jnp.broadcast_to(deviations, self.x.shape).astype(dtype)
        visible = not is_traced(self.x, self.N)
        if visible:
            _check_compositions(np.asarray(self.x), np.asarray(self.N))
        self.phases = _phases(np.asarray(self.x), np.asarray(self.N)) if visible else (
            (0, len(self.x)),
        )  # fmt: skip
        self.given_ends = ends is not None
        if ends is not None:
            self.ends = checks.fractions("ends", ends).astype(dtype)
            if self.ends.shape != (2,):
                raise InputError(f"ends must be two mole fractions; got {ends!r}.")
        elif visible:
            self.ends = jnp.asarray(self._plateaus(), self.N.dtype)
        else:
            self.ends = jnp.stack([self.N[0], self.N[-1]])
        self.rising = True
        if not is_traced(self.ends):
            left, right = (float(end) for end in self.ends)
            if left == right:
                raise InputError(
                    f"both ends of the profile have the mole fraction {left:g}: there is no couple."
                )
            self.rising = right > left
            if visible and self.given_ends:
                _check_direction(np.asarray(self.N), left, right)
        if not is_traced(self.ends) and not is_traced(*jax.tree.leaves(self.molar_volume)):
            _check_volume(self.molar_volume, self.ends)

    def __len__(self) -> int:
        return len(self.x)

    def _plateaus(self) -> tuple[float, float]:
        noise = self.noise
        sides = (self.phases[0], self.phases[-1])
        N = np.asarray(self.N)
        x = np.asarray(self.x)
        found = []
        for side, (first, last) in enumerate(sides):
            take = slice(first, last)
            part = [values[take] for values in (x, N, noise)]
            found.append(plateau(*(values[:: 1 - 2 * side] for values in part)))
        return found[0], found[1]

    @property
    def noise(self) -> Float[np.ndarray, " points"]:
        """Standard deviations of the mole fractions: `sigma`, or as the scatter has it."""
        if self.sigma is not None:
            return np.asarray(self.sigma)
        scatter = noise_of(np.asarray(self.x), np.asarray(self.N), self.phases)
        return np.full(len(self), scatter)


class Oriented(eqx.Module):
    """A profile turned so that N rises, with what every formula needs.

    Attributes:
        x, N: positions and mole fractions.
        low, high: N- and N+.
        phases: as in `Profile`.
        sign: 1, or -1 where the profile was mirrored: position = sign * x.
    """

    x: Array
    N: Array
    low: Array
    high: Array
    phases: Phases = eqx.field(static=True)
    sign: int = eqx.field(static=True)


def oriented(profile: Profile) -> Oriented:
    """The profile with the composition rising from left to right."""
    if profile.rising:
        return Oriented(profile.x, profile.N, *profile.ends, phases=profile.phases, sign=1)
    n = len(profile)
    phases = tuple((n - last, n - first) for first, last in reversed(profile.phases))
    high, low = profile.ends
    return Oriented(-profile.x[::-1], profile.N[::-1], low, high, phases=phases, sign=-1)


def _check_shapes(x: Array, N: Array) -> None:
    if x.ndim != 1 or x.shape != N.shape:
        raise InputError(
            f"x and N must be two columns of one length; got shapes {x.shape} and {N.shape}."
        )
    if len(x) < _FEWEST:
        raise InputError(
            f"the profile has {len(x)} points; at least {_FEWEST} are needed to find slopes and "
            "ends. Measure in smaller steps."
        )


def _check_compositions(x: np.ndarray, N: np.ndarray) -> None:
    outside = np.flatnonzero((N < -_BEYOND) | (N > 1 + _BEYOND))
    if len(outside):
        place = outside[0]
        hint = "divide percentages by 100" if np.nanmax(N) > 2 else "check the measurement there"
        raise InputError(
            f"the mole fraction at {checks.micrometres(x[place])} (point {place}) is "
            f"{N[place]:g}, outside of [0, 1]: {hint}."
        )
    steps = np.diff(x)
    falling = np.flatnonzero(steps < 0)
    if len(falling):
        place = falling[0]
        hint = (
            "turn the columns round" if np.all(steps <= 0) else "sort the points by their position"
        )
        raise InputError(
            f"the positions decrease from {checks.micrometres(x[place])} to "
            f"{checks.micrometres(x[place + 1])} (point {place + 1}): {hint}."
        )


def _phases(x: np.ndarray, N: np.ndarray) -> Phases:
    twice = np.flatnonzero(np.diff(x) == 0)
    for place in twice:
        where = checks.micrometres(x[place])
        if place + 1 in twice:
            raise InputError(
                f"three points share the position {where}; an interface is two: the compositions "
                "on its sides."
            )
        if N[place] == N[place + 1]:
            raise InputError(
                f"the interface at {where} lies inside a phase: the composition is "
                f"{N[place]:g} on both sides. Remove one of the two points."
            )
    cuts = [0, *(int(place) + 1 for place in twice), len(x)]
    phases = tuple(itertools.pairwise(cuts))
    for first, last in phases:
        if last - first < 2:
            raise InputError(
                f"the phase at {checks.micrometres(x[first])} has one point between its "
                "interfaces; it needs one on each side at least."
            )
    return phases


def _check_direction(N: np.ndarray, left: float, right: float) -> None:
    change = float(np.mean(N[-3:]) - np.mean(N[:3]))
    if change * (right - left) <= 0:
        raise InputError(
            f"ends=({left:g}, {right:g}) are in the order of the positions, but the mole fraction "
            f"goes from {N[0]:.3g} to {N[-1]:.3g}: swap them."
        )


def _check_volume(volume: MolarVolume, ends: Array) -> None:
    grid = ends[0] + (ends[1] - ends[0]) * jnp.linspace(0.0, 1.0, 33)
    values = np.asarray(volume(grid))
    bad = ~(np.isfinite(values) & (values > 0))
    if bad.any():
        place = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"the molar volume at N = {float(grid[place]):.3g} is {values[place]:g}; it must be "
            "positive, in m³/mol (7.1e-6 for copper)."
        )
