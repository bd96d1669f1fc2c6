"""Tuned DIFF2-GD and DP-GD on a chain of valleys, with the noise of N records."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ...errors import InputError, SolveError
from ...optimize import privacy as p
from .estimator import BUDGET

SMOOTHNESS, LIPSCHITZ = 72.5, 4.975  # the largest along the way of gradient descent
GRID = {
    "dp-gd": [(1, 0.1), (1, 0.3), (1, 1.0)],
    "diff2": [(128, 0.3), (128, 1.0), (512, 0.3), (512, 1.0)],
}


def chain(x: Array) -> Array:
    """Rosenbrock's function, softened, in as many dimensions as x has."""
    return jnp.sum(4 * (x[1:] - x[:-1] ** 2) ** 2 + 0.25 * (1 - x[:-1]) ** 2)


def scores(records: int, seeds: int, rounds: int = 16384) -> dict[str, float]:
    """The best of each method's grid: |gradient|^2 over the last tenth, median of the seeds."""
    oracle = p.NoiseOracle(chain, records=records, smoothness=SMOOTHNESS, lipschitz=LIPSCHITZ)
    return {
        method: min(_median(oracle, seeds, rounds, period, scale) for period, scale in grid)
        for method, grid in GRID.items()
    }


def _median(oracle, seeds: int, rounds: int, period: int, scale: float) -> float:
    found = []
    for seed in range(seeds):
        try:
            run = p.diff2(
                oracle, jnp.zeros(100), rounds=rounds, period=period, step=scale / SMOOTHNESS,
                budget=BUDGET, key=jax.random.key(seed),
            )  # fmt: skip
        except (InputError, SolveError):
            return math.inf  # the guard of stability refuses it, or it left all bounds
        assert run.squared_gradients is not None
        found.append(float(np.mean(np.asarray(run.squared_gradients)[-rounds // 10 :])))
    return float(np.median(found))
