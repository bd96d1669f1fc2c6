"""The loss between two solutions, and sharpness that does not depend on how units are scaled."""

from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from .._typing import PyTree
from ..errors import InputError
from . import parameters
from .checks import require_count, require_key
from .estimates import Estimate
from .losses import LossOperator
from .operators import Congruence, compiled
from .spectra import extreme
from .traces import trace


class Path(NamedTuple):
    """The loss on the straight line from one point to another.

    Attributes:
        ts: where, shape (points,): 0 is the first point and 1 the second.
        losses: mean losses there.
        barrier: the largest loss between the points, minus that of the higher of them; zero where
            none is higher.
        barrier_error: the standard error of the barrier for the data as a sample, from the paired
            losses of the examples.
    """

    ts: Float[Array, " points"]
    losses: Float[Array, " points"]
    barrier: Float[Array, ""]
    barrier_error: Float[Array, ""]


def path(
    operator: LossOperator,
    other: PyTree,
    *,
    points: int = 41,
    span: tuple[float, float] = (-0.5, 1.5),
) -> Path:
    """The loss along L((1 - t) w_A + t w_B) and the barrier between the two ends.

    Args:
        operator: any operator of the loss at the first point w_A, for example its Hessian.
        other: w_B, parameters like those of the operator (None in a model given as a module takes
            the module).
        points: of the line, and as many again between 0 and 1, which are among them.
        span: the ends of the line in t.

    Raises:
        InputError: parameters of another structure or shape.
    """
    if not isinstance(operator, LossOperator):
        raise InputError("path takes the operator of a loss, as curvature.hessian makes it.")
    points = require_count(points, "points", 2)
    low, high = (float(t) for t in span)
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise InputError(f"span must be two increasing finite numbers, got {span}.")
    end = _vector_like(operator, other)
    line = np.linspace(low, high, points)
    # Rounded, so that no point comes twice.
    ts = np.unique(np.concatenate([line, np.linspace(0, 1, points)]).round(12))
    losses = _along(operator, end, jnp.asarray(ts, operator.dtype))
    means = losses @ operator.example_weights()
    first, last = int(np.searchsorted(ts, 0.0)), int(np.searchsorted(ts, 1.0))
    inside = means[first : last + 1]
    top = first + jnp.argmax(inside)
    base = jnp.where(means[first] >= means[last], first, last)
    rise = losses[top] - losses[base]
    weights = operator.example_weights()
    barrier = jnp.vdot(weights, rise)
    spread = jnp.sqrt(jnp.sum(weights**2 * (rise - barrier) ** 2))
    return Path(jnp.asarray(ts), means, barrier, spread)


def _vector_like(operator: LossOperator, other: PyTree) -> Array:
    names = parameters.named(operator.selected)
    _, other = parameters.model_and_params(operator.model, other)
    chosen, _ = parameters.partition(other, lambda name: name in names)
    vector = operator.ravel(chosen)
    if vector is None:
        raise InputError(
            "the other point must have parameters of the structure and shapes of the operator's."
        )
    return vector


@compiled
def _along(operator: LossOperator, end: Array, ts: Array) -> Array:
    start = operator.vector

    def at(t):
        moved = operator.unravel((1 - t) * start + t * end)
        return eqx.tree_at(
            lambda o: o.selected, operator, moved, is_leaf=lambda a: a is None
        ).losses()

    return jax.lax.map(at, ts)


class Sharpness(NamedTuple):
    """Curvature relative to the size of the parameters.

    Attributes:
        largest: the largest eigenvalue of D H D, with D the absolute values of the parameters.
        trace: its trace, sum_i w_i^2 H_ii.
        raw: the largest eigenvalue of H, which a rescaling of units makes anything.
        residual: the bound of the error of `largest`.
    """

    largest: Float[Array, ""]
    trace: Estimate
    raw: Float[Array, ""]
    residual: Float[Array, ""]


def sharpness(
    operator: LossOperator,
    *,
    key: Key[Any, ""],
    scale: Literal["element", "leaf"] = "element",
    probes: int = 32,
    max_products: int = 1000,
) -> Sharpness:
    """Sharpness that stays the same where incoming weights of a ReLU unit grow and outgoing shrink.

    Such a rescaling leaves the function as it is and changes H to S^-1 H S^-1; D H D with D = |w|
    changes to itself (the measure of adaptive sharpness, Kwon et al. 2021, to second order).

    Args:
        operator: of a loss, for example its Hessian.
        key: for the first vector and the probes.
        scale: `"element"` for D = |w|, which undoes a rescaling of each unit; `"leaf"` for the root
            mean square of each array of the parameters, which undoes one of whole layers only.
        probes: for the trace.
        max_products: for each eigenvalue.
    """
    if not isinstance(operator, LossOperator):
        raise InputError("sharpness takes the operator of a loss, as curvature.hessian makes it.")
    if scale not in ("element", "leaf"):
        raise InputError(f"scale={scale!r} is not known; use 'element' or 'leaf'.")
    require_key(key, "sharpness")
    key_top, key_trace, key_raw = jax.random.split(key, 3)
    scaled = relative(operator, scale)
    top = extreme(scaled, key=key_top, max_products=max_products)
    raw = extreme(operator, key=key_raw, max_products=max_products)
    sum_of_all = trace(scaled, probes=probes, key=key_trace)
    return Sharpness(top.largest[0], sum_of_all, raw.largest[0], top.residuals[0])


def relative(operator: LossOperator, scale: Literal["element", "leaf"] = "element") -> Congruence:
    """D H D, the operator behind `sharpness`."""

    def of_leaf(w):
        size = jnp.abs(w) if scale == "element" else jnp.sqrt(jnp.mean(jnp.abs(w) ** 2))
        return jnp.broadcast_to(size, w.shape).astype(w.dtype)

    sizes = operator.ravel(jax.tree.map(of_leaf, operator.selected))
    assert sizes is not None
    return Congruence(operator, sizes)
