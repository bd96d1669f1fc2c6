"""Small tables and a small network, both methods tuned by the same random search."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ...errors import InputError, SolveError
from ...optimize import privacy as p

ROUNDS = (50, 200)


def squared(output: Array, target: Array) -> Array:
    """The loss of a record."""
    return 0.5 * (output[0] - target) ** 2


NET = p.DenseLoss(squared)  # one hidden layer with softplus, as in the paper


def table(n: int, d: int) -> tuple[Array, Array]:
    """Rows of normal numbers; the target is a smooth function of some of them, of variance 1."""
    random = np.random.default_rng(n + d)
    rows = random.normal(size=(n, d))
    inner = rows @ random.normal(size=(d, 5)) / math.sqrt(d)
    target = np.tanh(inner) @ random.normal(size=5) + 0.2 * random.normal(size=n)
    target = (target - target.mean()) / target.std()
    return jnp.asarray(rows)[None], jnp.asarray(target)[None]


def train_loss(params: Any, data: Any) -> float:
    """The mean loss, which is not private."""
    return float(jnp.mean(jax.vmap(lambda x, y: NET(params, (x, y)))(data[0][0], data[1][0])))


def best(method: str, n: int, d: int, epsilon: float, tries: int, seeds: int = 3) -> float:
    """The train loss of the best of `tries` settings, its mean over fresh seeds."""
    data, budget = table(n, d), p.Budget(epsilon, 1e-5)
    random = np.random.default_rng(1)
    settings = [_draw(random) for _ in range(tries)]
    start = NET.init(jax.random.key(0), (d, 10, 1))

    def loss(setting, seed) -> float:
        rounds, step, period, first, second = setting
        try:
            run = p.diff2(
                NET, start, data, rounds=rounds, period=period if method == "diff2" else 1,
                step=step, clip=(first, second), budget=budget, key=jax.random.key(seed),
                guard=False,
            )  # fmt: skip
        except (InputError, SolveError):
            return math.inf
        return train_loss(run.params, data)

    found = min(settings, key=lambda setting: loss(setting, 0))
    return float(np.mean([loss(found, seed) for seed in range(1, seeds + 1)]))


def _draw(random):
    """Rounds, step, period and the two clips; at most 3 for the second, as smoothness has it."""
    rounds = int(random.choice(ROUNDS))
    step = float(10 ** random.uniform(-1.3, 0.5))
    period = int(random.choice([2, 4, 8, 16, 32]))
    first = float(10 ** random.uniform(-1, 0.7))
    second = float(10 ** random.uniform(-1, math.log10(3)))
    return rounds, step, period, first, second
