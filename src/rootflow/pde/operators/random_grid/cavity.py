"""Flow in a cavity whose lid starts to move, on a staggered grid, by `rf.solve_ode`."""

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ....errors import InputError
from ....flows.ode import solve_ode
from ....ground.checks import whole
from ....ground.tracing import is_traced
from ...variational.checks import positive

_TIMES = 41
_LAST = 1.0


class Flow(NamedTuple):
    """Velocities and pressure at the (n + 1)² corners of cells, for each time."""

    u: Float[Array, "times n+1 n+1"]
    v: Float[Array, "times n+1 n+1"]
    p: Float[Array, "times n+1 n+1"]


def lid_speed(x: Array, t: Array, w: Array) -> Array:
    """w (1 - (2x - 1)⁶) t: at rest at first, and at the corners."""
    return w * (1 - (2 * x - 1) ** 6) * t


def lid_driven(
    z: Float[ArrayLike, " 2"], w: ArrayLike, *, points: Float[ArrayLike, "n 3"], cells: int = 24
) -> Float[Array, "n 3"]:
    """ρ (u_t + u·∇u) + ∇p = μ Δu, ∇·u = 0 on the unit square for 0 <= t <= 1; u, v, p.

    The lid y = 1 moves with w (1 - (2x - 1)⁶) t. Second order in space: a staggered grid
    (Harlow and Welch 1965), whose pressure makes the divergence zero to round-off at all times, so
    that what is left is an ordinary differential equation. p = 0 in the corner (0, 0). Between
    corners of cells and 41 times the values are linear.

    Args:
        z: (ρ, μ), both positive.
        w: the speed of the lid at t = 1.
        points: (x, y, t).
        cells: along each side.

    Raises:
        InputError: a density or viscosity that is not positive; points outside of [0, 1]³.
        SolveError: too many steps.
    """
    z, w, points = jnp.asarray(z), jnp.asarray(w), jnp.asarray(points)
    kind = jnp.result_type(float, z, w, points)
    z, w, points = (v.astype(kind) for v in (z, w, points))
    if z.shape != (2,) or w.shape != () or points.ndim != 2 or points.shape[1] != 3:
        raise InputError(
            f"z, w and points must have shapes (2,), () and (n, 3); got {z.shape}, {w.shape} and "
            f"{points.shape}."
        )
    if not is_traced(z):
        positive("the density z[0]", z[0])
        positive("the viscosity z[1]", z[1])
    if not is_traced(points) and points.size and not np.all((points >= 0) & (points <= 1)):
        raise InputError("points must lie in the unit cube of (x, y, t); some do not.")
    return _at(flow(z, w, whole("cells", cells, 4)), points)


def _at(found: Flow, points: Array) -> Array:
    cells = found.u.shape[1] - 1
    where = [points[:, 2] * (_TIMES - 1), points[:, 0] * cells, points[:, 1] * cells]
    fields = [jax.scipy.ndimage.map_coordinates(part, where, 1) for part in found]
    return jnp.stack(fields, -1)


@eqx.filter_jit
def flow(z: Array, w: Array, cells: int) -> Flow:
    """The whole solution at even times from 0 to 1."""
    zero = (jnp.zeros((cells - 1, cells), z.dtype), jnp.zeros((cells, cells - 1), z.dtype))
    times = jnp.linspace(0.0, _LAST, _TIMES, dtype=z.dtype)
    field = lambda t, y, args: rates(t, y, *args)[0]
    sol = solve_ode(
        field, zero, (0.0, _LAST), (z, w), saveat=times, max_steps=20 * cells**2 + 1000,
        rtol=1e-4, atol=1e-6,
    )  # fmt: skip
    return jax.vmap(lambda t, y: _corners(t, y, z, w))(times, sol.ys)


def rates(t: Array, y: tuple[Array, Array], z: Array, w: Array) -> tuple[tuple[Any, ...], Array]:
    """The accelerations of both velocities, free of divergence, and p / ρ.

    u lives on inner faces across x, shape (n - 1, n), v across y, shape (n, n - 1).
    """
    u, n = y[0], len(y[0]) + 1
    h, viscosity = 1.0 / n, z[1] / z[0]
    wide_u, wide_v = _with_walls(t, y, w)
    # Convection in divergence form: products at centres of cells and at corners.
    uu = ((wide_u[1:, 1:-1] + wide_u[:-1, 1:-1]) / 2) ** 2
    vv = ((wide_v[1:-1, 1:] + wide_v[1:-1, :-1]) / 2) ** 2
    uv = (wide_u[:, 1:] + wide_u[:, :-1]) / 2 * (wide_v[1:] + wide_v[:-1]) / 2
    fu = -(jnp.diff(uu, axis=0) + jnp.diff(uv[1:-1], axis=1)) / h
    fv = -(jnp.diff(vv, axis=1) + jnp.diff(uv[:, 1:-1], axis=0)) / h
    fu = fu + viscosity * _laplacian(wide_u) / h**2
    fv = fv + viscosity * _laplacian(wide_v) / h**2
    divergence = jnp.diff(jnp.pad(fu, ((1, 1), (0, 0))), axis=0)
    divergence = (divergence + jnp.diff(jnp.pad(fv, ((0, 0), (1, 1))), axis=1)) / h
    vectors, values = (jnp.asarray(part, u.dtype) for part in _neumann(n))
    sums = values[:, None] + values
    scale = jnp.where(sums > 0, 1 / jnp.where(sums > 0, sums, 1.0), 0.0)
    # -Δ in the basis of cosines; the mean of the pressure is free.
    p = -vectors @ (scale * (vectors.T @ divergence @ vectors)) @ vectors.T * h**2
    return (fu - jnp.diff(p, axis=0) / h, fv - jnp.diff(p, axis=1) / h), p


def _with_walls(t, y, w):
    """Velocities with those on walls, and beyond walls those that make the mean the wall's."""
    u, v = y
    n = len(u) + 1
    top = lid_speed(jnp.arange(n + 1, dtype=u.dtype) / n, t, w)[:, None]
    u, v = jnp.pad(u, ((1, 1), (0, 0))), jnp.pad(v, ((0, 0), (1, 1)))
    wide_u = jnp.concatenate([-u[:, :1], u, 2 * top - u[:, -1:]], 1)
    return wide_u, jnp.concatenate([-v[:1], v, -v[-1:]], 0)


def _laplacian(wide):
    here = wide[1:-1, 1:-1]
    return wide[2:, 1:-1] + wide[:-2, 1:-1] + wide[1:-1, 2:] + wide[1:-1, :-2] - 4 * here


@functools.lru_cache
def _neumann(n: int) -> tuple[Any, Any]:
    """Eigenvectors and eigenvalues of minus the second differences of n cells with closed ends."""
    k = np.arange(n)
    vectors = np.cos(np.pi * np.outer(k + 0.5, k) / n)
    return vectors / np.linalg.norm(vectors, axis=0), 4 * np.sin(np.pi * k / (2 * n)) ** 2


def _corners(t, y, z, w) -> Flow:
    wide_u, wide_v = _with_walls(t, y, w)
    u, v = (wide_u[:, 1:] + wide_u[:, :-1]) / 2, (wide_v[1:] + wide_v[:-1]) / 2
    p = z[0] * rates(t, y, z, w)[1]
    for axis in (0, 1):
        p = jnp.moveaxis(p, axis, 0)
        first, last = 2 * p[:1] - p[1:2], 2 * p[-1:] - p[-2:-1]
        p = jnp.concatenate([first, p, last])
        p = jnp.moveaxis((p[1:] + p[:-1]) / 2, 0, axis)
    return Flow(u, v, p - p[0, 0])
