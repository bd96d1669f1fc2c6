"""Curves through points: derivatives, integrals and interpolation on uneven grids."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

Phases = tuple[tuple[int, int], ...]
"""First and last but one index of each phase."""


def slopes(
    x: Float[Array, " n"], y: Float[Array, " n"], phases: Phases | None = None
) -> Float[Array, " n"]:
    """dy/dx by the parabola through three neighbours, of second order on uneven grids.

    Args:
        x: increasing within each phase.
        y: values.
        phases: no derivative is taken across their ends.
    """
    parts = []
    for first, last in phases or ((0, len(x)),):
        parts.append(_slopes(x[first:last], y[first:last]))
    return jnp.concatenate(parts)


def _slopes(x: Array, y: Array) -> Array:
    h = jnp.diff(x)
    d = jnp.diff(y) / h
    if len(x) == 2:
        return jnp.stack([d[0], d[0]])
    inner = (h[1:] * d[:-1] + h[:-1] * d[1:]) / (h[1:] + h[:-1])
    first = d[0] + h[0] * (d[0] - d[1]) / (h[0] + h[1])
    last = d[-1] + h[-1] * (d[-1] - d[-2]) / (h[-1] + h[-2])
    return jnp.concatenate([first[None], inner, last[None]])


def cumulative(x: Float[Array, " n"], y: Float[Array, " n"]) -> Float[Array, " n"]:
    """The integral of y from the first point to each, by the trapezoidal rule."""
    steps = 0.5 * (y[1:] + y[:-1]) * jnp.diff(x)
    return jnp.concatenate([jnp.zeros_like(steps[:1]), jnp.cumsum(steps)])


def monotone_slopes(x: Float[Array, " n"], y: Float[Array, " n"]) -> Float[Array, " n"]:
    """Slopes at the points with which a cubic neither overshoots nor oscillates.

    Inside, the weighted harmonic mean of the neighbouring differences, zero where they differ in
    sign (Fritsch and Butland, 1984, SIAM J. Sci. Stat. Comput. 5, 300); at the ends, the difference
    itself.
    """
    h = jnp.diff(x)
    d = jnp.diff(y) / h
    before, after = 2 * h[1:] + h[:-1], h[1:] + 2 * h[:-1]
    same = d[:-1] * d[1:] > 0
    safe_before, safe_after = jnp.where(same, d[:-1], 1.0), jnp.where(same, d[1:], 1.0)
    mean = (before + after) / (before / safe_before + after / safe_after)
    inner = jnp.where(same, mean, 0.0)
    return jnp.concatenate([d[:1], inner, d[-1:]])


def hermite(at: Any, x: Array, y: Array, slope: Array) -> Array:
    """The cubic through points with given slopes; straight lines beyond the ends."""
    i = jnp.clip(jnp.searchsorted(x, at, side="right") - 1, 0, len(x) - 2)
    h = x[i + 1] - x[i]
    u = (at - x[i]) / h
    v = jnp.clip(u, 0.0, 1.0)
    value = (
        y[i] * (1 + 2 * v) * (1 - v) ** 2
        + y[i + 1] * v**2 * (3 - 2 * v)
        + h * (slope[i] * v * (1 - v) ** 2 - slope[i + 1] * v**2 * (1 - v))
    )
    end = jnp.where(u > 1, slope[i + 1], slope[i])
    return value + h * (u - v) * end
