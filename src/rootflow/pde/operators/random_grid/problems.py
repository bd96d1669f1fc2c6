"""The three families of the paper: nonlinear Poisson, Burgers, and flow in a cavity."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ....ground.checks import whole
from ...informed.domains import Box, Interval
from .burgers import burgers_between_ends
from .cavity import lid_driven, lid_speed
from .family import Family
from .poisson import chebyshev_sum, conductivity, nonlinear_poisson

# Of the divergence beside the momenta.
_DIVERGENCE = 10.0


def along(f: Callable[[Array], Array], x: Array, axis: int) -> tuple[Array, Array]:
    """f and its derivative along one axis at one point."""
    return jax.jvp(f, (x,), (jnp.zeros_like(x).at[axis].set(1),))


def poisson_residual(u: Callable[..., Any], x: Array, z: Array, w: Array) -> Array:
    """-(κ u')' - w with κ = log(1 + exp(u Σ z_i T_i(x))) + 0.1."""

    def flux(x):
        value, slope = along(u, x, 0)
        return conductivity(value, chebyshev_sum(z, x)) * slope

    return -along(flux, x, 0)[1] - w


def _poisson_lift(x: Array, w: Array) -> tuple[Array, Array]:
    factor = jnp.cos(jnp.pi * x / 2)
    return jnp.zeros_like(factor), factor


def _poisson_reference(z: Array, w: Array, points: Array) -> Array:
    return nonlinear_poisson(z, w[0], points=points[:, 0])[:, None]


def nonlinear_poisson_family(terms: int = 5) -> Family:
    """-(κ u')' = w on [-1, 1] with u(±1) = 0; z ~ U[-1, 1]^terms, w ~ U[1, 2].

    κ = log(1 + exp(u Σ z_i T_i(x))) + 0.1 with Chebyshev polynomials T_i; u = cos(πx/2) ũ.

    Args:
        terms: how many z there are; five in the paper.

    Raises:
        InputError: no terms.
    """
    return Family(
        residual=poisson_residual, lift=_poisson_lift, domain=Interval(-1.0, 1.0),
        z=((-1.0, 1.0),) * whole("terms", terms), w=((1.0, 2.0),), reference=_poisson_reference,
    )  # fmt: skip


def burgers_residual(u: Callable[..., Any], x: Array, z: Array, w: Array) -> Array:
    """u_t + z₁ u u_x - z₀ u_xx at (x, t)."""
    slope = lambda x: along(u, x, 0)[1]
    value, rate = along(u, x, 1)
    first, second = along(slope, x, 0)
    return rate + z[1] * value * first - z[0] * second


def _burgers_lift(x: Array, w: Array) -> tuple[Array, Array]:
    edge = jnp.sin(jnp.pi * x[:1])
    return jnp.sin(2 * jnp.pi * w * x[:1]) * edge, edge * x[1:]


def _burgers_reference(z: Array, w: Array, points: Array) -> Array:
    return jnp.asarray(burgers_between_ends(z, float(w[0]), points), points.dtype)[:, None]


def burgers_family() -> Family:
    """u_t + z₁ u u_x = z₀ u_xx on [0, 1]², u = 0 at both ends, u = sin(2πwx) sin(πx) at t = 0.

    z₀ ~ U[0.01, 0.1], z₁ ~ U[0.5, 1], w ~ U[0.5, 2]; points are (x, t).
    """
    return Family(
        residual=burgers_residual, lift=_burgers_lift, domain=Box(((0.0, 1.0), (0.0, 1.0))),
        z=((0.01, 0.1), (0.5, 1.0)), w=((0.5, 2.0),), reference=_burgers_reference,
    )  # fmt: skip


def navier_stokes_residual(flow: Callable[..., Any], x: Array, z: Array, w: Array) -> Array:
    """ρ (u_t + u·∇u) + ∇p - μ Δu, two rows, and ten times the divergence, at (x, y, t)."""
    density, viscosity = z
    value, over_x = along(flow, x, 0)
    _, over_y = along(flow, x, 1)
    _, over_t = along(flow, x, 2)
    laplacian = jnp.zeros_like(value)
    for axis in (0, 1):
        laplacian = laplacian + along(lambda x, a=axis: along(flow, x, a)[1], x, axis)[1]
    carried = over_t + value[0] * over_x + value[1] * over_y
    pressure = jnp.stack([over_x[2], over_y[2]])
    momentum = density * carried[:2] + pressure - viscosity * laplacian[:2]
    return jnp.append(momentum, _DIVERGENCE * (over_x[0] + over_y[1]))


def _cavity_lift(x: Array, w: Array) -> tuple[Array, Array]:
    inner = jnp.sin(jnp.pi * x[0]) * jnp.sin(jnp.pi * x[1]) * x[2]
    speed = (w[0] if w.size else 1.0) * jnp.ones_like(inner)
    lid = lid_speed(x[0], x[2], speed) * x[1]
    zero = jnp.zeros_like(lid)
    return jnp.stack([lid, zero, zero]), jnp.stack([inner, inner, x[0] + x[1]])


def _cavity_reference(z: Any, w: Any, points: Any) -> Array:
    return lid_driven(z, 1.0, points=points)


def lid_driven_family() -> Family:
    """Flow in the unit square under a lid that starts to move; u, v, p at (x, y, t) in [0, 1]³.

    z = (ρ, μ), ρ ~ U[0.8, 1], μ ~ U[0.1, 1]; the lid moves with (1 - (2x - 1)⁶) t. The divergence
    counts ten times beside the momenta.
    """
    return Family(
        residual=navier_stokes_residual, lift=_cavity_lift, domain=Box(np.tile((0.0, 1.0), (3, 1))),
        z=((0.8, 1.0), (0.1, 1.0)), outputs=3, reference=_cavity_reference,
    )  # fmt: skip
