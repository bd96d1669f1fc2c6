"""Phase diagrams: what a memory does at each load and temperature, and where theory is exact."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from ..errors import InputError
from . import checks
from .critical import spin_glass_temperature
from .law import Law, law
from .theory import Point, free_pressure, state, step

NOTHING, GLASS, METASTABLE, RETRIEVAL = 0, 1, 2, 3
NAMES = ("nothing", "spin glass", "retrieval, metastable", "retrieval")

_STEPS = 2000
_GONE = 1e-3


class PhaseDiagram(NamedTuple):
    """A phase diagram over temperatures (rows) and loads (columns).

    Attributes:
        loads, temperatures: the axes.
        m, q: overlaps of the state reached from an archetype, shape (temperatures, loads).
        stability: de Almeida and Thouless' value of that state; above one theory is approximate.
        phase: 3 where an archetype is the equilibrium, 2 where it is retrieved but a state without
            it has the larger pressure, 1 for a spin glass, 0 where neurons are free.
        order, entropy: P and rho.
    """

    loads: Float[np.ndarray, " loads"]
    temperatures: Float[np.ndarray, " temperatures"]
    m: Float[np.ndarray, "temperatures loads"]
    q: Float[np.ndarray, "temperatures loads"]
    stability: Float[np.ndarray, "temperatures loads"]
    phase: Int[np.ndarray, "temperatures loads"]
    order: int
    entropy: float


def phase_diagram(
    *,
    order: int,
    loads: ArrayLike,
    temperatures: ArrayLike,
    entropy: float | None = None,
    quality: float | None = None,
    quantity: int | None = None,
    supervised: bool = True,
) -> PhaseDiagram:
    """Solves the replica symmetric equations over loads and temperatures.

    Args:
        order: P.
        loads: shape (loads,), not negative.
        temperatures: shape (temperatures,), positive.
        entropy: rho of the data set; or give `quality` and `quantity`.
        quality: r.
        quantity: M.
        supervised: as in `replica_symmetric`.

    Raises:
        InputError: axes that are not one-dimensional, or numbers out of their range.
    """
    data = law(order, entropy, quality, quantity, supervised)
    gammas = checks.number("loads", loads, low=0.0)
    Ts = checks.number("temperatures", temperatures, low=0.0)
    for name, axis in (("loads", gammas), ("temperatures", Ts)):
        if axis.ndim != 1 or not axis.size:
            raise InputError(f"{name} must be one-dimensional; got shape {axis.shape}.")
    if not np.all(np.asarray(Ts) > 0):
        raise InputError("temperatures must be positive, for phases are told by their pressure.")
    m, q, stability, gain, glass = (np.asarray(x) for x in _solve(data, gammas, Ts))
    onset = np.asarray(
        jax.vmap(
            lambda g: spin_glass_temperature(
                order=order, load=g, quality=None if supervised else quality,
                quantity=None if supervised else quantity, supervised=supervised,
            )
        )(gammas)
    )  # fmt: skip
    frozen = (np.asarray(Ts)[:, None] < onset) & (glass > _GONE)
    retrieved = m > 10 * _GONE
    phase = np.where(frozen, GLASS, NOTHING)
    phase = np.where(retrieved, np.where(gain > 0, RETRIEVAL, METASTABLE), phase)
    axes = np.asarray(gammas), np.asarray(Ts)
    return PhaseDiagram(*axes, m, q, stability, phase, order, float(data.entropy))


@eqx.filter_jit
def _solve(data: Law, gammas: Array, Ts: Array) -> tuple[Array, ...]:
    def one(T, gamma):
        dtype = jnp.result_type(T, gamma, data.entropy)

        def descend(n):
            start = Point(jnp.asarray(n, dtype), jnp.zeros((), dtype))
            return jax.lax.fori_loop(0, _STEPS, lambda _, x: step(x, data, gamma, T), start)

        found, glass = descend(1.0), descend(0.0)
        here, there = (state(data, x, gamma, T) for x in (found, glass))
        pressures = [free_pressure(data, s.n, s.q, gamma, T) for s in (here, there)]
        return here.m, here.q, here.stability, pressures[0] - pressures[1], there.q

    rows = jax.vmap(lambda gamma, T: one(T, gamma), (0, None))
    return jax.lax.map(lambda T: rows(gammas, T), Ts)


def draw_phases(diagram: PhaseDiagram, axes: Any) -> None:
    """Draws a phase diagram into axes of matplotlib.

    Colours are phases; hatched is where replica symmetry is broken in the state that is reached
    from an archetype, so that its numbers are approximate.

    Args:
        diagram: from `phase_diagram`.
        axes: of matplotlib.
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    colours = ("#f4f4f4", "#c9c3d6", "#9ecae1", "#3182bd")
    x, y = diagram.loads, diagram.temperatures
    axes.pcolormesh(
        x, y, diagram.phase, cmap=ListedColormap(colours), vmin=-0.5, vmax=3.5, shading="nearest",
        rasterized=True,
    )  # fmt: skip
    broken = np.where((diagram.phase >= METASTABLE) & (diagram.stability > 1), 1.0, 0.0)
    if broken.any() and min(broken.shape) > 1:
        axes.contourf(x, y, broken, levels=[0.5, 1.5], colors="none", hatches=["////"])
    shown = [Patch(color=colours[k], label=NAMES[k]) for k in np.unique(diagram.phase)]
    if broken.any():
        shown.append(Patch(facecolor="white", hatch="////", label="replica symmetry broken"))
    load = "$K/N$" if diagram.order == 2 else "$\\gamma = (P!/2)\\,K/N^{P-1}$"
    axes.set(
        xlabel=load, ylabel="temperature", title=f"P = {diagram.order}, ρ = {diagram.entropy:.2g}"
    )
    axes.legend(handles=shown, loc="upper right", fontsize="small")
