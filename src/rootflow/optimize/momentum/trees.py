"""A few operations on points that are pytrees."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..._typing import PyTree


def plus(x: PyTree, factor: Any, y: PyTree) -> PyTree:
    """x + factor y, in the precision of x."""
    return jax.tree.map(lambda a, b: a + jnp.asarray(factor, a.dtype) * b, x, y)


def minus(x: PyTree, y: PyTree) -> PyTree:
    """x - y."""
    return jax.tree.map(jnp.subtract, x, y)


def times(factor: Any, x: PyTree) -> PyTree:
    """Factor times x, in the precision of x."""
    return jax.tree.map(lambda a: jnp.asarray(factor, a.dtype) * a, x)


def zeros(x: PyTree) -> PyTree:
    """Zeros like x."""
    return jax.tree.map(jnp.zeros_like, x)


def dot(x: PyTree, y: PyTree) -> Array:
    """The inner product over all leaves."""
    # From a plain zero: one in double precision would raise that of the sum.
    products = (jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y)))
    return jnp.asarray(sum(products))


def square(x: PyTree) -> Array:
    """The squared Euclidean norm over all leaves."""
    return dot(x, x)


def choose(which: Array, x: PyTree, y: PyTree) -> PyTree:
    """x where `which`, else y."""
    return jax.tree.map(lambda a, b: jnp.where(which, a, b), x, y)
