"""Proximal operators: prox(v) = argmin_x |x - v|^2 / 2 + g(x).

Each function is named after g and takes the weight of g already multiplied by the step size, so the
proximal-gradient map with step size `step` calls, say, `soft_threshold(w, lam * step)`. Scalars g
act on every number of a pytree. Derivatives exist everywhere: at a kink, one element of the
generalised Jacobian is returned, never NaN. Sources: Parikh and Boyd, "Proximal algorithms" (2014),
chapter 6, unless stated.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._typing import PyTree
from ..errors import InputError
from ..ground.derivative import custom_jvp
from ..ground.varying import while_loop
from .blocks import run_means, runs
from .checks import concrete, require_fit, require_number
from .spectral import of_singular
from .trees import widened

__all__ = [
    "elastic_net",
    "from_set",
    "group_lasso",
    "log",
    "non_negative",
    "non_negative_lasso",
    "non_negative_ridge",
    "none",
    "nuclear_norm",
    "ridge",
    "soft_threshold",
    "total_variation_1d",
]


def _weight(value: Any, name: str) -> None:
    """Raises unless a weight, or every leaf of a tree of weights, is known to be non-negative."""
    for leaf in jax.tree.leaves(value):
        known = concrete(leaf)
        if known is not None and not np.all(known >= 0):
            raise InputError(f"{name}={known} must be zero or positive: it weighs a penalty")


def _map(function: Callable[..., Array], w: PyTree, **parameters: Any) -> PyTree:
    """Applies an elementwise function; a parameter is one value for all, or a tree like w."""
    return _map_groups(function, w, None, **parameters)


def _map_groups(function, w, group_shape, **parameters):
    """The same where a parameter has the shape `group_shape(leaf)`, not that of the leaf."""
    structure = jax.tree.structure(w)
    leaves = [_inexact(leaf) for leaf in jax.tree.leaves(w)]
    columns = []
    for name, parameter in parameters.items():
        if jax.tree.structure(parameter) == structure:
            column = jax.tree.leaves(parameter)
        elif jax.tree_util.treedef_is_leaf(jax.tree.structure(parameter)):
            column = [parameter] * structure.num_leaves
        else:
            raise InputError(
                f"{name} with structure {jax.tree.structure(parameter)} does not fit a point with "
                f"structure {structure}; give one value for all leaves, or a tree like the point"
            )
        for value, leaf in zip(column, leaves, strict=True):
            shape = leaf.shape if group_shape is None else group_shape(leaf)
            require_fit(value, shape, name, "the point" if group_shape is None else "the groups")
        columns.append(column)
    done = [_in_its_type(function, leaf, *row) for leaf, *row in zip(leaves, *columns, strict=True)]
    return jax.tree.unflatten(structure, done)


def _in_its_type(function, leaf, *parameters):
    """The value in the type of the leaf, computed in single precision at least."""
    return function(widened(leaf), *parameters).astype(leaf.dtype)


def _inexact(w: Any) -> Array:
    """The array, with whole numbers in floating point."""
    w = jnp.asarray(w)
    return w if jnp.issubdtype(w.dtype, jnp.inexact) else w.astype(jnp.result_type(float))


def _ordered(w: PyTree, name: str) -> PyTree:
    """`w`, unless it holds complex numbers, which are neither positive nor negative."""
    for leaf in jax.tree.leaves(w):
        if jnp.iscomplexobj(leaf):
            raise InputError(
                f"prox.{name} is about the sign or order of numbers, but the point is of type "
                f"{jnp.result_type(leaf)}; pass its real and imaginary parts as a tree"
            )
    return w


def none(w: PyTree, *_: Any) -> PyTree:
    """g = 0: returns its first argument."""
    return w


def soft_threshold(w: PyTree, threshold: Any) -> PyTree:
    """The lasso, g = threshold * |x|_1: shrinks every number towards zero.

    Args:
        w: pytree of arrays.
        threshold: one number or array for all leaves, or a pytree like `w`; not negative.

    Raises:
        InputError: a threshold known at trace time is negative.
    """
    _weight(threshold, "threshold")

    def shrink(x, t):
        if jnp.iscomplexobj(x):
            return _shrink_group(x, t, axis=())
        return jnp.where((jnp.abs(x) <= t) & (t > 0), 0, x - jnp.sign(x) * t)

    return _map(shrink, w, threshold=threshold)


def non_negative(w: PyTree, *_: Any) -> PyTree:
    """g = 0 for x >= 0, infinite elsewhere: the projection on the non-negative orthant."""
    return _map(lambda x: jnp.where(x <= 0, 0, x), _ordered(w, "non_negative"))


def non_negative_lasso(w: PyTree, threshold: Any) -> PyTree:
    """g = threshold * sum(x) for x >= 0, infinite elsewhere."""
    _weight(threshold, "threshold")
    w = _ordered(w, "non_negative_lasso")
    return _map(lambda x, t: jnp.where(x <= t, 0, x - t), w, threshold=threshold)


def ridge(w: PyTree, weight: Any) -> PyTree:
    """g = weight / 2 * |x|^2 (with the half; a penalty without it needs twice the weight)."""
    _weight(weight, "weight")
    return _map(lambda x, t: x / (1 + t), w, weight=weight)


def non_negative_ridge(w: PyTree, weight: Any) -> PyTree:
    """g = weight / 2 * |x|^2 for x >= 0, infinite elsewhere."""
    _weight(weight, "weight")
    w = _ordered(w, "non_negative_ridge")
    return _map(lambda x, t: jnp.where(x <= 0, 0, x) / (1 + t), w, weight=weight)


def elastic_net(w: PyTree, threshold: Any, weight: Any) -> PyTree:
    """g = threshold * |x|_1 + weight / 2 * |x|^2."""
    return ridge(soft_threshold(w, threshold), weight)


def group_lasso(w: PyTree, threshold: Any, axis: int | tuple[int, ...] | None = None) -> PyTree:
    """g = threshold * sum of the Euclidean norms of groups.

    Args:
        w: pytree of arrays.
        threshold: one number for all groups, or an array with one for each: its shape broadcasts
            to that of a leaf with the axes of the groups of length one.
        axis: the axes within which numbers form one group; None: every leaf is a group.

    Raises:
        InputError: a threshold known at trace time is negative, or does not fit the groups; a leaf
            does not have the axes.
    """
    _weight(threshold, "threshold")

    def group_shape(leaf):
        try:
            return jax.eval_shape(lambda v: jnp.sum(v, axis=axis, keepdims=True), leaf).shape
        except (ValueError, TypeError) as error:
            raise InputError(
                f"axis={axis!r} does not fit an array of shape {leaf.shape}"
            ) from error

    shrink = lambda x, t: _shrink_group(x, t, axis)
    return _map_groups(shrink, w, group_shape, threshold=threshold)


def _shrink_group(x, t, axis):
    """Shortens vectors along `axis` by t, at most to zero; without axes, every number alone."""
    # In units of the largest entry, whose square may be out of the range of numbers.
    top = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=axis, keepdims=True, initial=0.0))
    unit = jnp.where((top > 0) & jnp.isfinite(top), top, 1)
    scaled = x / unit
    squared = jnp.sum((jnp.conj(scaled) * scaled).real, axis=axis, keepdims=True)
    # The norm has no derivative at zero, where the operator is constant.
    length = unit * jnp.where(squared == 0, 0, jnp.sqrt(jnp.where(squared == 0, 1, squared)))
    short = (length <= t) & (t > 0)
    return jnp.where(short, 0, (1 - t / jnp.where(short | (length == 0), 1, length)) * x)


def _soft(values, t):
    off = values <= t
    return (
        jnp.where(off, 0, values - t),
        # Without a threshold the operator is the identity, at zero too.
        jnp.where(off & (t > 0), 0.0, 1.0).astype(values.dtype),
        jnp.where(off, 0.0, -1.0).astype(values.dtype),
    )


def nuclear_norm(w: Float[Array, "*b n m"], threshold: Any) -> Float[Array, "*b n m"]:
    """g = threshold * sum of the singular values: soft-thresholds them.

    The derivative exists also where singular values repeat (Cai, Candes and Shen 2010 for the
    operator); second derivatives are NaN where two of them agree to some digits.
    """
    _weight(threshold, "threshold")
    w = _inexact(w)
    if w.ndim < 2:
        raise InputError(f"the nuclear norm needs a matrix, but the shape is {w.shape}")
    require_number(threshold, "threshold")
    wide = widened(w)
    shrunk = of_singular(_soft, wide, jnp.asarray(threshold, jnp.finfo(wide.dtype).dtype))
    return shrunk.astype(w.dtype)


def log(w: PyTree, weight: Any) -> PyTree:
    """g = -weight * sum(log x), the logarithmic barrier: the positive x with x - w = weight / x."""
    _weight(weight, "weight")

    def barrier(x, t):
        # In units that keep the square within the range of numbers.
        top = jax.lax.stop_gradient(jnp.maximum(jnp.abs(x), jnp.sqrt(t)))
        unit = jnp.where((top > 0) & jnp.isfinite(top), top, 1)
        squared = (x / unit) ** 2 + 4 * (t / unit) / unit
        root = unit * jnp.where(squared == 0, 0, jnp.sqrt(jnp.where(squared == 0, 1, squared)))
        # Written for each sign so that nothing cancels.
        below = 2 * t / jnp.where(x < 0, root - x, 1)
        return jnp.where(x < 0, below, 0.5 * (x + root))

    return _map(barrier, _ordered(w, "log"), weight=weight)


def from_set(constraint: Any) -> Callable[..., PyTree]:
    """The proximal operator of the indicator function of a set: its projection.

    Args:
        constraint: an object of `rootflow.sets`.

    Returns:
        `prox(w, *theta, step)`, which does not depend on anything but `w`.

    Raises:
        InputError: `constraint` is not a set.
    """
    if not callable(getattr(constraint, "project", None)):
        raise InputError(f"from_set needs an object of rootflow.sets, not {constraint!r}")

    def prox(w: PyTree, *_: Any) -> PyTree:
        return constraint.project(w)

    return prox


def total_variation_1d(w: Float[Array, "*b n"], weight: Any) -> Float[Array, "*b n"]:
    """g = weight * sum |x[i+1] - x[i]| along the last axis.

    Computed exactly by the direct algorithm of Condat (2013, IEEE Signal Process. Lett. 20).
    """
    _weight(weight, "weight")
    w = _inexact(w)
    if w.ndim < 1:
        raise InputError("total variation needs at least one axis, but the input is a number")
    _ordered(w, "total_variation_1d")
    if w.shape[-1] <= 1:
        return w
    require_fit(weight, w.shape[:-1], "weight", "the leading axes")
    wide = widened(w)
    weight = jnp.broadcast_to(jnp.asarray(weight, wide.dtype), w.shape[:-1])
    flat = jax.vmap(_total_variation)(wide.reshape(-1, w.shape[-1]), weight.reshape(-1))
    return flat.reshape(w.shape).astype(w.dtype)


class _Signal(NamedTuple):
    """What is smoothed, with which weight, and twice the weight."""

    y: Array
    weight: Array
    twice: Array


class _Scan(NamedTuple):
    """Where Condat's algorithm is, in the symbols of the paper.

    The open segment starts at k0 and reaches to k; its value lies between low and high, which were
    last attained at k_low and k_high; u_low and u_high are the dual variables that go with them.
    The values of closed segments are written at their starts only.
    """

    done: Array
    high: Array
    k: Array
    k0: Array
    k_high: Array
    k_low: Array
    low: Array
    starts: Array
    u_high: Array
    u_low: Array
    values: Array


@custom_jvp
def _total_variation(y, weight):
    n = y.shape[0]
    # A weight above this, infinity among them, leaves the mean alone.
    weight = jnp.minimum(weight, 2 * jnp.sum(jnp.abs(y - y[0])))
    signal = _Signal(y, weight, 2 * weight)

    def proceed(s):
        return ~s.done

    def step(s):
        return _choose(s.k >= n - 1, _at_the_end(s, signal), _at_a_point(s, signal))

    zero = jnp.asarray(0)
    start = _Scan(
        values=jnp.zeros_like(y),
        starts=jnp.zeros(n, bool),
        k=zero,
        k0=zero,
        k_low=zero,
        k_high=zero,
        low=y[0] - weight,
        high=y[0] + weight,
        u_low=weight,
        u_high=-weight,
        done=jnp.asarray(False),
    )
    end = while_loop(proceed, step, start)
    owner = jax.lax.cummax(jnp.where(end.starts, jnp.arange(n), 0))
    # The comparisons of the algorithm lose what is not a number.
    return jnp.where(jnp.isnan(jnp.sum(y) + weight), jnp.nan, end.values[owner])


def _at_a_point(s: _Scan, signal: _Signal) -> _Scan:
    """The next point of the signal: a jump down or up before it, or it joins the segment."""
    y, weight, twice = signal
    ahead = y[jnp.minimum(s.k + 1, y.shape[0] - 1)]
    down = ahead + s.u_low < s.low - weight
    up = ~down & (ahead + s.u_high > s.high + weight)
    after_down, first = _closed(s, s.low, s.k_low, y)
    after_down = after_down._replace(
        low=first, high=first + twice, u_low=weight, u_high=-weight,
        k_low=after_down.k, k_high=after_down.k,
    )  # fmt: skip
    after_up, first = _closed(s, s.high, s.k_high, y)
    after_up = after_up._replace(
        low=first - twice, high=first, u_low=weight, u_high=-weight,
        k_low=after_up.k, k_high=after_up.k,
    )  # fmt: skip
    return _choose(down, after_down, _choose(up, after_up, _joined(s, ahead, weight)))


def _joined(s: _Scan, value: Array, weight: Array) -> _Scan:
    """The segment with one more point; its bounds move in where a dual variable would leave."""
    k = s.k + 1
    u_low, u_high = s.u_low + value - s.low, s.u_high + value - s.high
    length = (k - s.k0 + 1).astype(value.dtype)
    raise_low, drop_high = u_low >= weight, u_high <= -weight
    return s._replace(
        k=k,
        low=jnp.where(raise_low, s.low + (u_low - weight) / length, s.low),
        high=jnp.where(drop_high, s.high + (u_high + weight) / length, s.high),
        u_low=jnp.where(raise_low, weight, u_low),
        u_high=jnp.where(drop_high, -weight, u_high),
        k_low=jnp.where(raise_low, k, s.k_low),
        k_high=jnp.where(drop_high, k, s.k_high),
    )


def _at_the_end(s: _Scan, signal: _Signal) -> _Scan:
    """The last point of the signal: one more jump before it, or the last segment closes."""
    y, weight, _ = signal
    down = s.u_low < 0
    up = ~down & (s.u_high > 0)
    after_down, first = _closed(s, s.low, s.k_low, y)
    after_down = after_down._replace(
        low=first, high=s.high, u_low=weight, u_high=first + weight - s.high, k_low=after_down.k
    )
    after_up, first = _closed(s, s.high, s.k_high, y)
    after_up = after_up._replace(
        low=s.low, high=first, u_low=first - weight - s.low, u_high=-weight, k_high=after_up.k
    )
    length = (s.k - s.k0 + 1).astype(y.dtype)
    last = s.low + s.u_low / length
    ended = s._replace(
        values=s.values.at[s.k0].set(last),
        starts=s.starts.at[s.k0].set(True),
        done=jnp.asarray(True),
    )
    return _choose(down, after_down, _choose(up, after_up, ended))


def _closed(s: _Scan, value: Array, last: Array, y: Array) -> tuple[_Scan, Array]:
    """The segment closed at `last` with its value; the next one opens at the point returned."""
    k = last + 1
    first = y[jnp.minimum(k, y.shape[0] - 1)]
    values, starts = s.values.at[s.k0].set(value), s.starts.at[s.k0].set(True)
    return s._replace(values=values, starts=starts, k=k, k0=k), first


def _choose(flag: Array, a: _Scan, b: _Scan) -> _Scan:
    return _Scan(*(jnp.where(flag, x, y) for x, y in zip(a, b, strict=True)))


@_total_variation.defjvp
def _total_variation_jvp(primals, tangents):
    y, weight = primals
    y_dot, weight_dot = tangents
    x = _total_variation(y, weight)
    ids = runs(x)
    jump = jnp.concatenate([jnp.zeros(1, x.dtype), jnp.sign(x[1:] - x[:-1]), jnp.zeros(1, x.dtype)])
    # Within a run every inner jump is zero, so the sum over the run is its end less its start.
    pull = run_means(jump[1:] - jump[:-1], ids)
    # Without a weight the operator is the identity, however equal neighbours are.
    return x, jnp.where(weight == 0, y_dot, run_means(y_dot, ids)) + pull * weight_dot
