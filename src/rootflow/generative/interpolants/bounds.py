"""How far a model's samples can be from the data, by the error of its fields.

Albergo, Boffi and Vanden-Eijnden (2023), sec. 2.4. For the diffusion with any epsilon > 0

    KL(data | model) <= E int |b_F^ - b_F|^2 / (4 eps) dt <= dL_b / eps + eps dL_s,

b_F = b + eps s, and dL_b, dL_s what the losses are above their minima. For the flow, epsilon = 0,
there is no such bound.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Key

from ...errors import InputError
from ...ground.tracing import is_traced
from .epsilon import Epsilon, as_epsilon
from .fields import Fields
from .losses import Excess, Regression
from .sampling import check_fields, check_score, drift


def kl_bound(drift_excess: ArrayLike, score_excess: ArrayLike, epsilon: ArrayLike) -> Array:
    """dL_b / eps + eps dL_s, for constant epsilon.

    Args:
        drift_excess: what L_b is above its minimum, as `excess` measures it.
        score_excess: what L_s is above its minimum.
        epsilon: positive.
    """
    _not_negative(drift_excess, score_excess)
    if not is_traced(epsilon) and not (np.asarray(epsilon) > 0).all():
        raise InputError(f"epsilon={epsilon} must be positive: without noise there is no bound.")
    return jnp.asarray(drift_excess / epsilon + epsilon * score_excess)  # pyright: ignore[reportOperatorIssue]


def best_epsilon(drift_excess: ArrayLike, score_excess: ArrayLike) -> Array:
    """The epsilon with the least bound, sqrt(dL_b / dL_s); the bound is 2 sqrt(dL_b dL_s) there.

    Args:
        drift_excess: what L_b is above its minimum.
        score_excess: what L_s is above its minimum.
    """
    _not_negative(drift_excess, score_excess)
    return jnp.sqrt(jnp.asarray(drift_excess) / jnp.asarray(score_excess))


def _not_negative(*gaps: Any) -> None:
    for gap in gaps:
        if not is_traced(gap) and not (np.asarray(gap) >= 0).all():
            raise InputError(
                f"What a loss is above its minimum is not negative; got {gap}. Measure it with "
                "excess."
            )


def measured_bound(
    fields: Fields,
    exact: Fields,
    epsilon: ArrayLike | Callable[[Any], Any] | Epsilon,
    batch: Any,
    key: Key[Array, ""],
    *,
    draws: int = 16,
    times: tuple[float, float] = (1e-3, 1 - 1e-3),
) -> Excess:
    """E int |b_F^ - b_F|^2 / (4 eps) dt, where the exact fields are known: the bound on the KL.

    Any epsilon(t) and any pair of fields, because the drifts themselves are compared.

    Args:
        fields: the model.
        exact: the exact fields on the same path.
        epsilon: as in `transport`, positive at the times.
        batch: as in `Regression`.
        key: for the points.
        draws: times for each pair of the batch.
        times: the interval.

    Returns:
        The bound and its standard error.
    """
    check_fields(fields)
    check_fields(exact)
    check_score(fields)
    level = as_epsilon(epsilon)
    if level.off:
        raise InputError("epsilon=0 has no bound: the flow's error is not controlled by its loss.")
    low, high = times
    key_pairs, key_points = jax.random.split(key)
    loss = Regression(fields.path, "b", times=times)
    x0, x1, condition = loss.pairs(batch, key_pairs)

    def bound(key: Array) -> Array:
        key_t, key_z = jax.random.split(key)
        t = jax.random.uniform(key_t, x1.shape[:1], x1.dtype, low, high)
        x = fields.path.at(t, x0, x1, jax.random.normal(key_z, x1.shape, x1.dtype)).x
        gap = drift(fields, level, x, t, condition, 1.0) - drift(exact, level, x, t, None, 1.0)
        size = jax.vmap(lambda t: level.value(t, fields.path.coefficients(t)))(t)
        squares = jnp.sum(gap**2, axis=tuple(range(1, x.ndim)))
        return (high - low) * squares / (4 * size)

    found = jax.lax.map(bound, jax.random.split(key_points, draws))
    return Excess(jnp.mean(found), jnp.std(jnp.mean(found, axis=0)) / np.sqrt(x1.shape[0]))
