"""The forward model of measured profiles: splines of ln D, and everything that is not certain."""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.interpolate import CubicSpline

from . import similarity
from .profile import Profile, oriented
from .volumes import MolarVolume

_BEAM_NODES = 7

Parameters = dict[str, Array]


class Uncertain(NamedTuple):
    """What besides the coefficient is not certain, as standard deviations.

    Attributes:
        scale: of the length scale, relative.
        time: of the annealing times, relative; each profile has its own error.
        beam: the beam's width (standard deviation of a normal distribution), m; 0 for none.
        beam_error: of that width, relative.
        volume: of the molar volume's bow 4 N (1 - N), relative.
    """

    scale: float = 0.0
    time: float = 0.0
    beam: float = 0.0
    beam_error: float = 0.0
    volume: float = 0.0


class Measured(eqx.Module):
    """One profile, turned so that N rises, and what its prediction needs.

    Attributes:
        x, N, sigma: the measurements.
        ends: N- and N+, as first estimated.
        sign: 1, or -1 where the profile was mirrored.
        time: s.
        design: spline weights: ln D at the nodes from ln D at the knots.
        energy_design: the same for the activation energy; empty without one.
        coldness: T_ref / T - 1.
        length: a length to measure shifts in, m.
        origin: the Matano plane of the turned profile as first estimated, m.
        volume: the molar volume.
    """

    x: Array
    N: Array
    sigma: Array
    ends: Array
    sign: int = eqx.field(static=True)
    time: Array
    design: Array
    energy_design: Array
    coldness: Array
    length: Array
    origin: Array
    volume: MolarVolume


def spline_weights(
    knots: Float[np.ndarray, " k"], at: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n k"]:
    """Weights of the natural cubic spline through the knots; one knot is a constant."""
    k = len(knots)
    if k == 1:
        return np.ones((len(at), 1))
    if k == 2:
        share = (at - knots[0]) / (knots[1] - knots[0])
        return np.stack([1 - share, share], axis=1)
    return CubicSpline(knots, np.eye(k), bc_type="natural")(at)


def measured(
    profile: Profile, knots: np.ndarray, energy_knots: np.ndarray, reference: float | None,
    length: float, origin: float,
) -> Measured:  # fmt: skip
    """A profile with its design matrices."""
    couple = oriented(profile)
    low, high = float(couple.low), float(couple.high)
    nodes = low + (high - low) * similarity.grid().Y
    cold = 0.0 if profile.temperature is None or reference is None else (
        reference / float(profile.temperature) - 1
    )  # fmt: skip
    noise = np.maximum(profile.noise, 1e-6)[:: couple.sign]
    return Measured(
        x=couple.x, N=couple.N, sigma=jnp.asarray(noise), ends=jnp.stack([couple.low, couple.high]),
        sign=couple.sign, time=profile.time, design=jnp.asarray(spline_weights(knots, nodes)),
        energy_design=jnp.asarray(
            spline_weights(energy_knots, nodes) if len(energy_knots) else np.zeros((len(nodes), 0))
        ),
        coldness=jnp.asarray(cold), length=jnp.asarray(length), origin=jnp.asarray(origin),
        volume=profile.molar_volume,
    )  # fmt: skip


def start_parameters(
    count: int, log_D: np.ndarray, energy: np.ndarray, uncertain: Uncertain
) -> Parameters:
    """Parameters before the search; what is certain is absent.

    Shifts are in lengths of their profile, ends in tenths of the step, nuisances in their own
    standard deviations.
    """
    found: Parameters = {
        "log_D": jnp.asarray(log_D),
        "shift": jnp.zeros(count),
        "ends": jnp.zeros((count, 2)),
    }
    if len(energy):
        found["energy"] = jnp.asarray(energy)
    if uncertain.scale > 0:
        found["scale"] = jnp.zeros(())
    if uncertain.time > 0:
        found["time"] = jnp.zeros(count)
    if uncertain.beam > 0 and uncertain.beam_error > 0:
        found["beam"] = jnp.zeros(())
    if uncertain.volume > 0:
        found["volume"] = jnp.zeros(())
    return found


NUISANCES = ("scale", "time", "beam", "volume")


def ends_of(p: Parameters, data: Measured, i: int) -> Array:
    """N- and N+ of a profile."""
    return data.ends + 0.1 * (data.ends[1] - data.ends[0]) * p["ends"][i]


def predict(
    p: Parameters, data: Measured, i: int, uncertain: Uncertain, x: Array | None = None
) -> Array:
    """Mole fractions of profile number i at its positions, or at others."""
    low, high = ends_of(p, data, i)
    Y = jnp.asarray(similarity.grid().Y)
    N = low + (high - low) * Y
    V = data.volume(N)
    if "volume" in p:
        V = V * (1 + 4 * uncertain.volume * p["volume"] * N * (1 - N))
    log_D = data.design @ p["log_D"]
    if "energy" in p:
        log_D = log_D - (data.energy_design @ p["energy"]) * data.coldness
    solution = similarity.solve(log_D - 2 * jnp.log(V / V[0]), throw=False)
    time = data.time * jnp.exp(uncertain.time * p["time"][i] if "time" in p else 0.0)
    position, slope = similarity.with_volume(solution, V, time)
    # Of the concentration, as `matano_plane` has it: the moles of B on both sides add up.
    C = N / V
    position = position - similarity.matano(position, slope, (C - C[0]) / (C[-1] - C[0]))
    scale = jnp.exp(uncertain.scale * p["scale"] if "scale" in p else 0.0)
    at = (data.x if x is None else x) / scale - data.origin - data.length * p["shift"][i]
    if uncertain.beam > 0:
        width = uncertain.beam * jnp.exp(uncertain.beam_error * p["beam"] if "beam" in p else 0.0)
        z, weights = np.polynomial.hermite_e.hermegauss(_BEAM_NODES)
        shifted = similarity.profile_at(at[:, None] + width * z, position, slope)
        share = shifted @ jnp.asarray(weights / weights.sum())
    else:
        share = similarity.profile_at(at, position, slope)
    return low + (high - low) * share


def residuals(
    p: Parameters, data: tuple[Measured, ...], centres: Parameters, uncertain: Uncertain
) -> tuple[list[Array], Parameters]:
    """Misfits in standard deviations, and those of the nuisances from their centres."""
    misfits = [(predict(p, one, i, uncertain) - one.N) / one.sigma for i, one in enumerate(data)]
    return misfits, {name: p[name] - centres[name] for name in NUISANCES if name in p}


def centres_of(p: Parameters) -> Any:
    """Where the nuisances are expected: at zero."""
    return {name: jnp.zeros_like(p[name]) for name in NUISANCES if name in p}
