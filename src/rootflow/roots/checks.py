"""The few checks that all of `roots` shares."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from .._typing import PyTree
from ..errors import InputError


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
