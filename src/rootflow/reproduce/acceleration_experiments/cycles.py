"""Where the heavy ball cycles and others converge, and the worst cases of all."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ... import optimize as opt

MU, L = 1.0, 25.0
CYCLE = np.array([-2208.0, 792.0, 2592.0]) / 1225


def slope(x: Array) -> Array:
    """The gradient of a function whose curvature is 25, 1, 25."""
    return jnp.where(x < 1, 25 * x, jnp.where(x < 2, x + 24, 25 * x - 24))


def methods() -> dict[str, opt.Momentum]:
    """The four that are compared."""
    return {
        "GD": opt.gradient_descent(mu=MU, L=L),
        "HB": opt.heavy_ball(mu=MU, L=L),
        "NAG": opt.nesterov(mu=MU, L=L),
        "TMM": opt.triple_momentum(mu=MU, L=L),
    }


def runs(steps: int) -> dict[str, np.ndarray]:
    """The outputs from 3.3, a row a method."""
    found = {
        name: np.asarray(opt.descend(method, slope, jnp.array(3.3), steps=steps).output)
        for name, method in methods().items()
    }
    return found


def first_below(values: np.ndarray, level: float) -> int:
    """The first step at which |value| is below the level, -1 if there is none."""
    below = np.abs(values) < level
    return int(np.argmax(below)) if below.any() else -1


def basins(spacing: float, steps: int) -> list[tuple[float, float]]:
    """The intervals of starts in [-6, 6] from which the heavy ball does not converge."""
    starts = np.round(np.arange(-6, 6 + spacing / 2, spacing), 10)
    run = opt.descend(methods()["HB"], slope, jnp.asarray(starts), steps=steps)
    bad = np.abs(np.asarray(run.final)) > 1e-3
    edges = np.flatnonzero(np.diff(np.concatenate([[0], bad.astype(int), [0]])))
    return [(float(starts[i]), float(starts[j - 1])) for i, j in zip(edges[::2], edges[1::2])]


def worst(counts: tuple[int, ...]) -> dict[str, list[float]]:
    """The worst |output - x*|^2 after so many steps, a row a method."""
    return {
        name: [opt.worst_case(method, count).value for count in counts]
        for name, method in methods().items()
    }


def thresholds() -> dict[str, Any]:
    """On both sides of the condition number to which the heavy ball is certified."""
    below, above = (opt.heavy_ball(mu=1.0, L=kappa) for kappa in (17.94, 17.95))
    return {
        "below": below.iqc_rate(),
        "above": above.iqc_rate(),
        "cycle": getattr(opt.counterexample(above), "period", 0),
        "none": getattr(opt.counterexample(below), "period", 0),
    }
