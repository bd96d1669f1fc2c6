"""The initial layer of slow signals, the kick it gives to the cells, and what a limit costs.

Signals that do not start in equilibrium with the density relax in a time of order ε; the cells, as
good as frozen meanwhile, are left with the displacement that the relaxing signal gave them. All of
it follows from the initial fields, with no solve in time.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ...errors import InputError
from ...ground.checks import one_of
from ..grids import Grid, Volumes
from . import checks
from .density import Drift, fluxes
from .models import Fields, IndirectChemotaxis


def defects(
    model: IndirectChemotaxis, grid: Volumes, start: dict[str, Any]
) -> dict[str, Float[Array, "..."]]:
    """How far the initial signals are from equilibrium: c0 - K n0 and w0 - B^-1 n0, by name."""
    fields = model.prepare(grid, start)
    w = model.secreted(grid, fields["n"])
    return {"c": fields["c"] - model.signalled(grid, w), "w": fields["w"] - w}


def initial_layer(
    model: IndirectChemotaxis, grid: Grid, start: dict[str, Any], t: ArrayLike
) -> dict[str, Float[Array, "..."]]:
    """What is left at time t of the defects of the signals, the density frozen.

    Mode by mode of the cosine transform w = e^(-b s) δw and c = e^(-a s) δc + (e^(-b s) - e^(-a s))
    / (a - b) δw, with s = t / ε and a, b the eigenvalues of 1 - Δ and 1 - τ Δ.

    Args:
        model: with ε > 0.
        grid: a box.
        start: the initial fields, by name.
        t: a time, at least 0.

    Returns:
        "c" and "w", each of the grid's shape.

    Raises:
        InputError: a ball, or ε = 0.
    """
    if not isinstance(grid, Grid):
        raise InputError("the layer is found mode by mode: give a Grid, not a ball.")
    checks.positive("epsilon", model.epsilon)
    delta = defects(model, grid, start)
    s = jnp.asarray(t) / model.epsilon
    a, b = 1 + grid.eigenvalues, 1 + model.tau * grid.eigenvalues
    c, w = grid.transform(delta["c"]), grid.transform(delta["w"])
    # (e^(-bs) - e^(-as)) / (a - b) = s e^(-bs) (1 - e^(-z)) / z with z = (a - b) s.
    z = (a - b) * s
    near = jnp.abs(z) < 1e-6
    safe = jnp.where(near, 1.0, z)
    low = jnp.minimum(a, b) * s
    quotient = jnp.where(near, 1 - jnp.abs(z) / 2, -jnp.expm1(-jnp.abs(safe)) / jnp.abs(safe))
    shared = s * jnp.exp(-low) * quotient
    return {
        "c": grid.inverse_transform(jnp.exp(-a * s) * c + shared * w),
        "w": grid.inverse_transform(jnp.exp(-b * s) * w),
    }


def layer_kick(
    model: IndirectChemotaxis, grid: Volumes, start: dict[str, Any]
) -> Float[Array, "..."]:
    """The displacement n1 of the density by the initial layer, per ε: n0 becomes n0 + ε n1.

    n1 = -χ ∇·(n0 ∇Σ) with Σ = (1 - Δ)^-1 (δc + (1 - τ Δ)^-1 δw), the layer of c integrated over
    t / ε. A reduced model started from n0 + ε n1 is right to second order in ε where the signals
    start out of equilibrium.

    Args:
        model: the full model; ε itself is not used.
        grid: any grid.
        start: the initial fields, by name.

    Returns:
        n1, of the grid's shape; its integral is zero.
    """
    delta = defects(model, grid, start)
    sigma = grid.helmholtz(delta["c"] + grid.helmholtz(delta["w"], 1.0, model.tau), 1.0, 1.0)
    fields = model.prepare(grid, start)
    n = fields["n"]
    c = model.signalled(grid, model.secreted(grid, n))
    return _pushed(grid, n, model.chi * c, model.chi * sigma)


def _pushed(grid: Volumes, n: Array, potential: Array, more: Array) -> Array:
    """The change of -∇·J for a small change of the drift's potential."""

    def moved(potential):
        return -grid.divergence(fluxes(grid, Drift(grid.differences(potential)), n))

    return jax.jvp(moved, (potential,), (more,))[1]


class Prediction(NamedTuple):
    """What replacing a model by its limit is expected to cost, in L² norms; from formulas.

    Attributes:
        n: the largest error of the density.
        c_layer: the error of c at the start, which no ε makes smaller.
        w_layer: that of w.
        c: the error of c after the layer.
        layer: how long the layer lasts: until a thousandth of it is left.
        relative: `n` over the norm of the initial density.
    """

    n: Float[Array, ""]
    c_layer: Float[Array, ""]
    w_layer: Float[Array, ""]
    c: Float[Array, ""]
    layer: Float[Array, ""]
    relative: Float[Array, ""]

    def safe(self, tolerance: float = 0.05) -> bool:
        """Whether the density is expected to be right to this relative tolerance."""
        return bool(self.relative <= tolerance)


def predict_error(
    model: IndirectChemotaxis,
    grid: Volumes,
    start: dict[str, Any],
    *,
    limit: Literal["PES", "IDS"] = "PES",
) -> Prediction:
    """The error of a fast-signal limit, estimated from the initial fields with no solve in time.

    Three causes, each to first order: the kick of the initial layer (`layer_kick`); the lag of the
    signal behind the cells, c = K n - ε (A^-1 + B^-1) K n_t, summed over the way from the initial
    density to its mean; with "IDS" also what τ takes from the signal, for as long as the slowest
    mode lives. The amounts are added, as if none cancelled another. For densities that spread this
    is on the safe side (errors measured in the reproduction are 1.5 to 6 times smaller); where
    cells gather, errors grow with the instability, and only `compare_limit` tells.

    Args:
        model: the full model.
        grid: any grid.
        start: the initial fields, by name.
        limit: "PES" for ε → 0, "IDS" for ε and τ → 0 (Keller-Segel).
    """
    one_of("limit", limit, ("PES", "IDS"))
    fields = model.prepare(grid, start)
    n, epsilon = fields["n"], model.epsilon
    delta = defects(model, grid, start)
    c = model.signalled(grid, model.secreted(grid, n))
    potential = model.chi * c

    def lagging(change: Array) -> Array:
        of_change = grid.helmholtz(grid.helmholtz(change, 1.0, model.tau), 1.0, 1.0)
        slow = grid.helmholtz(of_change, 1.0, 1.0) + grid.helmholtz(of_change, 1.0, model.tau)
        return -epsilon * slow

    rate = -grid.divergence(fluxes(grid, Drift(grid.differences(potential)), n))
    way = grid.mean(n) - n
    kick = grid.norm(epsilon * layer_kick(model, grid, start))
    lag = grid.norm(_pushed(grid, n, potential, model.chi * lagging(way)))
    after = grid.norm(lagging(rate))
    density = kick + lag
    if limit == "IDS":
        missing = c - grid.helmholtz(n, 1.0, 1.0)
        after = after + grid.norm(missing)
        density = density + grid.norm(_pushed(grid, n, potential, model.chi * missing)) * _life(
            grid, n
        )
    scale = grid.norm(n)
    return Prediction(
        density, grid.norm(delta["c"]), grid.norm(delta["w"]), after,
        epsilon * 9.0, density / jnp.where(scale > 0, scale, 1),
    )  # fmt: skip


def _life(grid: Volumes, n: Array) -> Array:
    """The time in which diffusion flattens a density, from its own gradient."""
    flat = n - grid.mean(n)
    steep = grid.gradient_square(flat)
    return grid.integrate(flat * flat) / jnp.where(steep > 0, steep, 1)


__all__ = ["Fields", "Prediction", "defects", "initial_layer", "layer_kick", "predict_error"]
