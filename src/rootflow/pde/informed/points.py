"""Points in the unit cube that fill it evenly, and points where a residual is large."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from scipy.stats import qmc


def low_discrepancy(dim: int, n: int, seed: int) -> Float[np.ndarray, "n dim"]:
    """The first n of scrambled Sobol points, any number of them."""
    if dim == 0:
        return np.zeros((n, 0))
    sequence = qmc.Sobol(dim, seed=seed)  # pyright: ignore[reportCallIssue]
    return sequence.random_base2(max(int(n - 1).bit_length(), 0))[:n]


def shifted(points: Float[Array, "n dim"], key: PRNGKeyArray) -> Float[Array, "n dim"]:
    """The same points moved by one random vector, modulo one; traced (Cranley and Patterson)."""
    shift = jax.random.uniform(key, points.shape[1:], points.dtype)
    return jnp.mod(points + shift, 1.0)


def adaptive(
    key: PRNGKeyArray,
    candidates: Float[Array, "m ..."],
    residual: Float[Array, " m"],
    n: int,
    *,
    power: float = 1.0,
    floor: float = 1.0,
) -> Any:
    """n of the candidates, drawn without replacement where the residual is large.

    Their density is proportional to |r|^power / mean |r|^power + floor: the residual-based adaptive
    distribution (Wu, Zhu, Tan, Kartha and Lu 2023, equation 2), traced.
    """
    size = jnp.abs(residual) ** power
    mean = jnp.mean(size)
    density = jnp.where(mean > 0, size / jnp.where(mean > 0, mean, 1.0), 1.0) + floor
    chosen = jax.random.choice(
        key, len(candidates), (n,), replace=False, p=density / jnp.sum(density)
    )
    return candidates[chosen]
