"""Layers of line compounds: integrated coefficients, growth, and tracer ratios from markers.

A phase too narrow for a gradient has no coefficient, but the integral of one over its width,
D_int = int D dN_B in m²/s. It follows from the thicknesses of all layers, and they from it.
"""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.constants import R

from ..errors import InputError
from ..ground.checks import one_of
from ..ground.tracing import is_traced
from ..roots.root import root
from . import checks
from .volumes import MolarVolumeError

#: How far a volume may be from the ideal one in the concentration route.
_IDEAL = 1e-3


class Layers(eqx.Module):
    """A stack of layers of line compounds between two alloys, the mole fraction of B rising.

    Args:
        ends: (mole fraction of B, molar volume in m³/mol) of the left and of the right alloy.
        compositions: mole fractions of B of the layers, from left to right.
        molar_volumes: theirs, m³ per mole of atoms.
        thicknesses: m; may be left out where they are asked for (`growth`).
        time: annealing time, s.
        terminal: what the end alloys have taken up, where they are not flat: the integrals of
            (N - N-) / V on the left and (N+ - N) / V on the right, mol/m².

    Raises:
        InputError: compositions that do not rise from end to end, shapes, thicknesses, volumes or a
            time that are not positive.
    """

    ends: Float[Array, "2 2"]
    compositions: Float[Array, " layers"]
    molar_volumes: Float[Array, " layers"]
    thicknesses: Float[Array, " layers"] | None
    time: Float[Array, ""]
    terminal: Float[Array, " 2"]

    def __init__(
        self,
        *,
        ends: Any,
        compositions: Any,
        molar_volumes: Any,
        time: Any,
        thicknesses: Any = None,
        terminal: Any = (0.0, 0.0),
    ) -> None:
        self.ends = checks.real("ends", ends)
        if self.ends.shape != (2, 2):
            raise InputError(
                "ends must be ((N-, molar volume), (N+, molar volume)); got shape "
                f"{self.ends.shape}."
            )
        self.compositions = jnp.atleast_1d(checks.fractions("compositions", compositions))
        checks.fractions("the mole fractions of the ends", self.ends[:, 0])
        checks.real("the molar volumes of the ends", self.ends[:, 1], positive=True)
        shape = self.compositions.shape
        given = [("molar_volumes", molar_volumes)]
        if thicknesses is not None:
            given.append(("thicknesses", thicknesses))
        columns = {}
        for name, value in given:
            columns[name] = jnp.atleast_1d(checks.real(name, value, positive=True))
            if columns[name].shape != shape:
                raise InputError(
                    f"{name} must have a number for each of the {shape[0]} layers; got shape "
                    f"{columns[name].shape}."
                )
        self.molar_volumes = columns["molar_volumes"]
        self.thicknesses = columns.get("thicknesses")
        self.time = checks.one("the annealing time", time, positive=True)
        self.terminal = checks.real("terminal", terminal)
        everything = jnp.concatenate([self.ends[:1, 0], self.compositions, self.ends[1:, 0]])
        if not is_traced(everything) and np.any(np.diff(np.asarray(everything)) <= 0):
            raise InputError(
                "the mole fractions of B must rise from the left alloy over the layers to the "
                f"right one; got {', '.join(f'{float(n):.4g}' for n in everything)}. Swap A and B, "
                "or the order."
            )

    def with_ideal_volumes(self) -> "Layers":
        """The same layers with the volumes on the straight line between those of the ends."""
        return eqx.tree_at(lambda s: s.molar_volumes, self, self._ideal())

    def _ideal(self) -> Array:
        (low, V_low), (high, V_high) = self.ends
        return V_low + (V_high - V_low) * (self.compositions - low) / (high - low)


def integrated(
    layers: Layers,
    *,
    method: Literal["wagner", "concentration"] = "wagner",
    measured_volumes: Literal["refuse", "allow"] = "refuse",
) -> Float[Array, " layers"]:
    """Integrated coefficients of the layers, int D dN_B over each, m²/s.

    Args:
        layers: with thicknesses.
        method: `"wagner"` (mole fractions, any molar volumes) or `"concentration"`. The latter
            needs V_A inside a line compound, which nobody can measure, and so ideal volumes
            throughout (`Layers.with_ideal_volumes`).
        measured_volumes: `"allow"` computes the second with other volumes all the same, to see
            what that costs.

    Raises:
        InputError: an unknown method, no thicknesses.
        MolarVolumeError: the concentration route with volumes that are not ideal.

    Source: Wagner (1969), Acta Metall. 17, 99, eq. 38; the route in concentrations and its
        restriction: Baheti and Paul (2018), arXiv 1809.09687.
    """
    one_of("method", method, ("wagner", "concentration"))
    one_of("measured_volumes", measured_volumes, ("refuse", "allow"))
    if layers.thicknesses is None:
        raise InputError("integrated coefficients need the thicknesses of the layers.")
    if method == "wagner":
        return _wagner(layers, layers.thicknesses, layers.time)
    if measured_volumes == "refuse":
        _require_ideal(layers)
    return _by_concentration(layers)


def integrated_error(
    layers: Layers, *, thickness_error: Any = 0.0, scale_error: Any = 0.0, time_error: Any = 0.0
) -> Float[Array, " layers"]:
    """Standard deviations of Wagner's integrated coefficients, to first order, m²/s.

    Args:
        layers: with thicknesses.
        thickness_error: standard deviation of the thicknesses, m, one or one for each; independent
            of each other. Interfaces are wavy: it is most of the error.
        scale_error: of the length scale, relative, common to all layers; it counts twice.
        time_error: of the annealing time, relative.

    Raises:
        InputError: no thicknesses, errors that are negative.
    """
    D = integrated(layers)
    sigma = checks.real("thickness_error", thickness_error, low=0.0)
    if sigma.shape not in ((), D.shape):
        raise InputError(
            f"thickness_error must be one number or one for each of the {D.shape[0]} layers; got "
            f"shape {sigma.shape}."
        )
    scale, time = (
        checks.one(name, value, low=0.0)
        for name, value in (("scale_error", scale_error), ("time_error", time_error))
    )
    slope = jax.jacfwd(lambda dx: _wagner(layers, dx, layers.time))(layers.thicknesses)
    own = jnp.sum((slope * sigma) ** 2, axis=1)
    return jnp.sqrt(own + D**2 * (4 * scale**2 + time**2))


def _require_ideal(layers: Layers) -> None:
    ideal = layers._ideal()
    if is_traced(layers.molar_volumes, ideal):
        return
    away = np.asarray(layers.molar_volumes / ideal) - 1
    worst = int(np.argmax(np.abs(away)))
    if abs(away[worst]) > _IDEAL:
        raise MolarVolumeError(
            f"the layer at N = {float(layers.compositions[worst]):.4g} has a molar volume "
            f"{100 * away[worst]:+.2g} % off the ideal one, "
            f"{float(ideal[worst]) * 1e6:.4g} cm³/mol. The concentration route needs partial molar "
            "volumes, which inside a line compound are those of the ideal (Vegard) mixture or "
            "unknown: use method='wagner', or Layers.with_ideal_volumes()."
        )


def _sides(layers: Layers, dx: Array) -> tuple[Array, Array]:
    """S- and S+ of each layer, m: what Wagner's form has of the other layers."""
    (low, _), (high, _) = layers.ends
    amount = dx / layers.molar_volumes
    left = jnp.cumsum((layers.compositions - low) * amount)
    right = jnp.cumsum(((high - layers.compositions) * amount)[::-1])[::-1]
    V = layers.molar_volumes
    before = left - (layers.compositions - low) * amount + layers.terminal[0]
    after = right - (high - layers.compositions) * amount + layers.terminal[1]
    return V * before, V * after


def _wagner(layers: Layers, dx: Array, time: Array) -> Array:
    (low, _), (high, _) = layers.ends
    N = layers.compositions
    before, after = _sides(layers, dx)
    own = (N - low) * (high - N) * dx**2
    others = dx * ((high - N) * before + (N - low) * after)
    return (own + others) / (2 * time * (high - low))


def _by_concentration(layers: Layers) -> Array:
    (low, V_low), (high, V_high) = layers.ends
    V, N, dx = layers.molar_volumes, layers.compositions, layers.thicknesses
    C_low, C_high = low / V_low, high / V_high
    Y = (N / V - C_low) / (C_high - C_low)
    # C_B - C_B- is mol/m³ where the terminal integrals have N: exact for ideal volumes alone.
    V_A = V_low + (V_high - V_low) * (0 - low) / (high - low)
    Y_of_amount = V_A / ((C_high - C_low) * jnp.stack([V_low, V_high]))
    before = jnp.cumsum(Y * dx) - Y * dx + layers.terminal[0] * Y_of_amount[0]
    after = (
        jnp.cumsum(((1 - Y) * dx)[::-1])[::-1] - (1 - Y) * dx
        + layers.terminal[1] * Y_of_amount[1]
    )  # fmt: skip
    inner = Y * (1 - Y) * dx + (1 - Y) * before + Y * after
    over_C = (C_high - C_low) * dx / (2 * layers.time) * inner
    return V**2 / V_A * over_C


def average_coefficient(integrated: Any, width: Any) -> Float[Array, " layers"]:
    """The mean coefficient in a phase of known width in mole fraction, D_int / width, m²/s."""
    width = checks.real("the width of the phase", width, positive=True)
    return checks.real("the integrated coefficient", integrated) / width


def growth_constant(layers: Layers) -> Float[Array, " layers"]:
    """The parabolic growth constants dx² / (2 t), m²/s."""
    if layers.thicknesses is None:
        raise InputError("growth constants need the thicknesses of the layers.")
    return layers.thicknesses**2 / (2 * layers.time)


def growth(layers: Layers, D: Any, *, time: Any = None) -> Float[Array, " layers"]:
    """The thicknesses that integrated coefficients lead to, m.

    Solves Wagner's coupled quadratics by Newton's method in the logarithm of the thicknesses
    (`rf.root`), so that they stay positive; differentiable in everything.

    Args:
        layers: the stack; its thicknesses, if any, are where the search begins.
        D: integrated coefficients, m²/s, one for each layer.
        time: s; that of the layers by default.

    Raises:
        InputError: coefficients or a time that are not positive, shapes.
        SolveError: no such thicknesses were found.
    """
    D = jnp.atleast_1d(checks.real("the integrated coefficients", D, positive=True))
    if D.shape != layers.compositions.shape:
        raise InputError(
            f"D must have a number for each of the {layers.compositions.shape[0]} layers; got "
            f"shape {D.shape}."
        )
    t = layers.time if time is None else checks.one("time", time, positive=True)
    (low, _), (high, _) = layers.ends
    N = layers.compositions
    alone = jnp.sqrt(2 * t * D * (high - low) / ((N - low) * (high - N)))
    start = jnp.log(alone if layers.thicknesses is None else layers.thicknesses)

    def missing(log: Array, layers: Layers, D: Array, t: Array) -> Array:
        return jnp.log(_wagner(layers, jnp.exp(log), t) / D)

    loose = jnp.finfo(start.dtype).eps ** 0.75
    return jnp.exp(root(missing, start, layers, D, t, rtol=float(loose), atol=float(loose)))


def tracer_ratio(layers: Layers, *, layer: int, fraction: Any) -> Float[Array, ""]:
    """D_B* (1 - W_B) / (D_A* (1 + W_A)) in a line compound that holds the Kirkendall plane.

    Partial molar volumes cancel, so that no gradient is needed. `tracer_ratio_with_wind` takes the
    vacancy wind out.

    Args:
        layers: with thicknesses.
        layer: which layer holds the markers, counted from 0.
        fraction: where in it, from 0 at its left interface to 1 at its right one.

    Returns:
        The ratio; negative where no positive coefficients can have put the markers there.

    Raises:
        InputError: no thicknesses, no such layer, a fraction outside of [0, 1].

    Source: van Loo (1970), Acta Metall. 18, 1107; Paul, Ghosh and Boettinger (2011), Metall. Mater.
        Trans. A 42, 952.
    """
    if layers.thicknesses is None:
        raise InputError("a tracer ratio needs the thicknesses of the layers.")
    count = layers.compositions.shape[0]
    if isinstance(layer, bool) or not isinstance(layer, int | np.integer) or not 0 <= layer < count:
        raise InputError(f"layer must be a whole number from 0 to {count - 1}; got {layer!r}.")
    share = checks.fractions("fraction", fraction)
    (low, _), (high, _) = layers.ends
    before, after = (side[layer] for side in _sides(layers, layers.thicknesses))
    N, dx = layers.compositions[layer], layers.thicknesses[layer]
    left = before + (N - low) * share * dx
    right = after + (high - N) * (1 - share) * dx
    return (high * left - low * right) / (-(1 - high) * left + (1 - low) * right)


def tracer_mean(integrated: Any, *, potential: Any, temperature: Any, N: Any) -> Array:
    """N_A D_B* + N_B D_A* in a line compound, from the difference of a chemical potential over it.

    D_int = (N_A D_B* + N_B D_A*) N_B |Delta mu_B| / (R T), without a vacancy wind.

    Args:
        integrated: D_int, m²/s.
        potential: what B's chemical potential changes across the layer, J/mol.
        temperature: K.
        N: the mole fraction of B.

    Source: Wagner (1969); van Loo (1990), Prog. Solid State Chem. 20, 47.
    """
    T = checks.real("temperature", temperature, positive=True)
    N = checks.fractions("N", N)
    drop = jnp.abs(checks.real("potential", potential))
    return checks.real("integrated", integrated) * R * T / (N * drop)
