"""Errors that work both eagerly and inside `jit`, and the few checks all of `roots` shares."""

import functools
import inspect
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool

from .._typing import PyTree
from ..errors import InputError, RootflowError
from ..ground.varying import is_sharded


def raise_if(
    tree: PyTree,
    bad: Bool[ArrayLike, "..."],
    message: str | Sequence[str],
    error: type[RootflowError],
    which: Any = 0,
) -> PyTree:
    """Returns `tree`, unless `bad`: then raises.

    Outside transformations the error is of the class `error`; inside `jit` or `vmap`, where Python
    cannot see the value, it is Equinox's runtime error with the same message. Of several messages
    it is the one at the place `which`.
    """
    messages = [message] if isinstance(message, str) else list(message)
    if isinstance(bad, Tracer):
        arrays, rest = eqx.partition(tree, eqx.is_array)
        if not jax.tree.leaves(arrays):
            return tree
        if all(jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in jax.tree.leaves(arrays)):
            # A factor of one that cannot be had without the check compiles faster than a check
            # through which every array passes.
            one = jnp.ones((), jnp.float32)
            if is_sharded():
                one = _one_unless(bad, which, messages, error)
            else:
                one = eqx.branched_error_if(one, bad, which, messages)
            return eqx.combine(jax.tree.map(lambda v: v * one.astype(v.dtype), arrays), rest)
        return eqx.combine(eqx.branched_error_if(arrays, bad, which, messages), rest)
    if np.any(np.asarray(bad)):
        raise error(messages[int(np.max(np.asarray(which)))])
    return tree


def _one_unless(bad, which, messages, error):
    """One, the same on every device as far as types go, whatever devices `bad` differs on.

    (The branches of Equinox's check would have two types.)
    """

    def check(bad, which):
        if np.any(bad):
            raise error(messages[int(np.max(np.where(bad, which, 0)))])
        return np.ones(np.shape(bad), np.float32)

    shape = jax.ShapeDtypeStruct(jnp.shape(bad), jnp.float32)
    return jax.pure_callback(check, shape, bad, which, vmap_method="broadcast_all")


def nonfinite(tree: PyTree) -> Bool[Array, ""]:
    """Whether any number in the tree is NaN or infinite."""
    # The sum is finite exactly if all numbers are, but for numbers so large that their sum is not:
    # what diverged that far is no solution either. One sum compiles faster than the logic of flags.
    totals = [
        jnp.sum(leaf, dtype=jnp.promote_types(leaf.dtype, jnp.float32))
        for leaf in jax.tree.leaves(tree)
    ]
    return ~jnp.isfinite(functools.reduce(jnp.add, totals)) if totals else jnp.asarray(False)


def as_unknown(x: PyTree, what: str, *, half: bool = False) -> PyTree:
    """The unknown of an equation as a tree of floating-point arrays.

    Python numbers become arrays; integers become floats, because an integer cannot be solved for.
    Half precision is refused, unless the caller knows what to do with it (`half`).
    """
    if not any(np.size(leaf) for leaf in jax.tree.leaves(x)):
        raise InputError(f"{what} has no numbers in it; pass an array or a pytree of arrays")

    def convert(leaf: Any) -> Array:
        try:
            leaf = jnp.asarray(leaf)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{what} contains {leaf!r} of type {type(leaf).__name__}, which is not an array; "
                "pass it as a parameter or close over it"
            ) from error
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            leaf = leaf.astype(jnp.result_type(float))
        if jnp.finfo(leaf.dtype).bits < 32 and not half:
            raise InputError(
                f"{what} is of type {leaf.dtype}, in which no method of this package reaches a "
                "useful tolerance; pass it as float32 or float64 and round the result"
            )
        known = concrete(leaf)
        if known is not None and not np.all(np.isfinite(known)):
            raise InputError(
                f"{what} contains {known[~np.isfinite(known)].flat[0]}; make it finite"
            )
        return leaf

    return jax.tree.map(convert, x)


def same_structure(value: PyTree, x: PyTree, what: str, unknown: str) -> None:
    """Raises `InputError` unless `value` (arrays or their shapes) is shaped like `x`."""
    have, want = jax.tree.structure(value), jax.tree.structure(x)
    if have != want:
        raise InputError(
            f"{what} must have the structure of {unknown}, {want}, but has {have}; "
            "one equation is needed for each unknown"
        )
    pairs = zip(jax.tree_util.tree_leaves_with_path(value), jax.tree.leaves(x), strict=True)
    for (path, v), u in pairs:
        if np.shape(v) != np.shape(u):
            where = jax.tree_util.keystr(path)
            raise InputError(
                f"{what}{where} must have the shape of {unknown}{where}, {np.shape(u)}, "
                f"but has {np.shape(v)}; one equation is needed for each unknown"
            )


def keywords_of(function: Any) -> set[str] | None:
    """The names a function takes as keywords; None if it takes any, or does not say."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def require_fit(value: Any, shape: tuple[int, ...], what: str, target: str) -> None:
    """Raises `InputError` unless `value` broadcasts to `shape`, the shape of `target`."""
    have = np.shape(value)
    try:
        fits = np.broadcast_shapes(have, shape) == tuple(shape)
    except ValueError:
        fits = False
    if not fits:
        raise InputError(
            f"{what} has shape {have}, which does not broadcast to that of {target}, {shape}; "
            "give one number, or an array of that shape"
        )


def require_shape(value: Any, shape: tuple[int, ...], what: str, why: str) -> None:
    """Raises `InputError` unless `value` has exactly this shape; `why` says where it comes from."""
    if np.shape(value) != tuple(shape):
        raise InputError(
            f"{what} must have shape {tuple(shape)} ({why}), but has shape {np.shape(value)}"
        )


def require_number(value: Any, what: str) -> None:
    """Raises `InputError` unless `value` is a single number."""
    if np.shape(value) != ():
        raise InputError(
            f"{what} must be one number, but has shape {np.shape(value)}; for several, use jax.vmap"
        )


def concrete(value: Any) -> np.ndarray | None:
    """The value as a NumPy array, or None where it is traced and not known yet."""
    return None if isinstance(value, Tracer) else np.asarray(value)
