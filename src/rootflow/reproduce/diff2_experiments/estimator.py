"""The error of the private estimate of the gradient, DIFF2-GD over DP-GD."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...optimize import privacy as p

BUDGET = p.Budget(epsilon=3.0, delta=1e-5)
RECORDS = 100_000


@functools.cache
def problem() -> p.NoiseOracle:
    """1000 rows of unit norm in 100 dimensions, and a bounded loss with L = 1."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(1000, 100)) / np.sqrt(np.arange(1, 101))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    solution = random.normal(size=100)
    solution *= 3 / np.linalg.norm(solution)
    targets = jnp.asarray(rows @ solution + 0.05 * random.normal(size=1000))
    matrix = jnp.asarray(rows)

    def loss(x):
        square = (matrix @ x - targets) ** 2
        return jnp.mean(0.5 * square / (1 + square))

    return p.NoiseOracle(loss, records=RECORDS, smoothness=1.0, lipschitz=3 * math.sqrt(3) / 16)


def ratio(rounds: int, seeds: int) -> float:
    """Mean squared error of the estimate over the rounds, at equal budget, rounds and steps."""
    period = round(math.sqrt(rounds))
    options: dict[str, Any] = dict(rounds=rounds, step=1.0, budget=BUDGET)
    errors = np.zeros(2)
    for seed in range(seeds):
        key, start = jax.random.key(seed), jnp.zeros(100)
        by_changes = p.diff2(problem(), start, period=period, key=key, **options)
        plain = p.dp_gradient_descent(problem(), start, key=key, **options)
        errors += [float(np.mean(np.asarray(run.errors))) for run in (by_changes, plain)]
    return float(errors[0] / errors[1])
