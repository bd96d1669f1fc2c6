"""Errors that work both eagerly and inside `jit`, and the few checks all of `roots` shares."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, PyTree

from ..errors import InputError, RootflowError


def raise_if(
    tree: PyTree, bad: Bool[ArrayLike, "..."], message: str, error: type[RootflowError]
) -> PyTree:
    """Returns `tree`, unless `bad`: then raises.

    Outside transformations the error is of the class `error`; inside `jit` or `vmap`, where Python
    cannot see the value, it is Equinox's runtime error with the same message.
    """
    if isinstance(bad, Tracer):
        arrays, rest = eqx.partition(tree, eqx.is_array)
        if not jax.tree.leaves(arrays):
            return tree
        return eqx.combine(eqx.error_if(arrays, bad, message), rest)
    if np.any(np.asarray(bad)):
        raise error(message)
    return tree


def nonfinite(tree: PyTree) -> Bool[Array, ""]:
    """Whether any number in the tree is NaN or infinite."""
    flags = [jnp.any(~jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]
    return jnp.any(jnp.stack(flags)) if flags else jnp.asarray(False)


def as_unknown(x: PyTree, what: str) -> PyTree:
    """The unknown of an equation as a tree of floating-point arrays.

    Python numbers become arrays; integers become floats, because an integer cannot be solved for.
    """
    if not jax.tree.leaves(x):
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


def concrete(value: Any) -> np.ndarray | None:
    """The value as a NumPy array, or None where it is traced and not known yet."""
    return None if isinstance(value, Tracer) else np.asarray(value)
