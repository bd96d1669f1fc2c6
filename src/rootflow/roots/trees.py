"""Pytrees of numbers as one real vector, and a few operations on them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._typing import PyTree


def to_vector(tree: PyTree) -> Float[Array, " n"]:
    """All numbers of a tree in one real vector; a complex leaf gives its real, then imaginary part.

    Real coordinates make every smooth function of complex numbers, holomorphic or not, an ordinary
    function with an ordinary Jacobian.
    """
    parts = []
    for leaf in jax.tree.leaves(tree):
        if jnp.iscomplexobj(leaf):
            parts += [jnp.ravel(leaf.real), jnp.ravel(leaf.imag)]
        else:
            parts.append(jnp.ravel(leaf))
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def from_vector(like: PyTree) -> Callable[[Float[Array, " n"]], PyTree]:
    """The inverse of `to_vector` for trees shaped like `like` (arrays or their shapes)."""
    leaves, structure = jax.tree.flatten(like)
    layout = [
        (leaf.shape, leaf.dtype, int(np.prod(leaf.shape)), jnp.iscomplexobj(leaf))
        for leaf in leaves
    ]

    def unravel(vector: Float[Array, " n"]) -> PyTree:
        out, at = [], 0
        for shape, dtype, size, is_complex in layout:
            part = vector[at : at + size].reshape(shape)
            at += size
            if is_complex:
                part = jax.lax.complex(part, vector[at : at + size].reshape(shape))
                at += size
            out.append(part.astype(dtype))
        return jax.tree.unflatten(structure, out)

    return unravel


def size(tree: PyTree) -> int:
    """The length of `to_vector(tree)`."""
    return sum(
        int(np.prod(leaf.shape)) * (2 if jnp.iscomplexobj(leaf) else 1)
        for leaf in jax.tree.leaves(tree)
    )


def real_dtype(tree: PyTree) -> np.dtype:
    """The real floating-point type in which computations with the tree are done."""
    return np.dtype(jnp.finfo(jnp.result_type(*jax.tree.leaves(tree))).dtype)


def coarsest_dtype(tree: PyTree) -> np.dtype:
    """The real floating-point type of the least precise leaf, which limits what can be reached."""
    kinds = [jnp.finfo(leaf.dtype) for leaf in jax.tree.leaves(tree)]
    return np.dtype(min(kinds, key=lambda kind: kind.bits).dtype)


def widened(tree: PyTree) -> PyTree:
    """The tree with every floating-point leaf in single precision at least."""

    def widen(leaf: Any) -> Any:
        kind = jnp.result_type(leaf)
        narrow = jnp.issubdtype(kind, jnp.floating) and jnp.finfo(kind).bits < 32
        return jnp.asarray(leaf).astype(jnp.float32) if narrow else leaf

    return jax.tree.map(widen, tree)


def in_types_of(like: PyTree, function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """The function, its real or complex values rounded to the types in `like`, leaf by leaf.

    Data in double precision may meet an unknown in single precision. Values of another structure
    are left alone, and so are complex ones of real unknowns.
    """
    types = [leaf.dtype for leaf in jax.tree.leaves(like)]

    def rounded(*args: Any, **kwargs: Any) -> PyTree:
        leaves, structure = jax.tree.flatten(function(*args, **kwargs))
        if structure != jax.tree.structure(like):
            return jax.tree.unflatten(structure, leaves)
        return jax.tree.unflatten(structure, map(_rounded, leaves, types))

    return rounded


def _rounded(value, dtype):
    kind = jnp.result_type(value)
    fits = jnp.issubdtype(kind, jnp.inexact) and jnp.can_cast(kind, dtype, "same_kind")
    return jnp.asarray(value, dtype) if fits and kind != dtype else value


def max_norm(tree: PyTree) -> Float[Array, ""]:
    """The largest absolute value in a tree."""
    return jax.tree.reduce(jnp.maximum, jax.tree.map(lambda v: jnp.max(jnp.abs(v)), tree))


def dot(a: PyTree, b: PyTree) -> Float[Array, ""]:
    """The real inner product of two trees of the same structure."""
    terms = (
        jnp.sum((jnp.conj(u) * v).real)
        for u, v in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )
    return sum(terms, start=jnp.zeros(()))


def squared_norm(a: PyTree) -> Float[Array, ""]:
    """The sum of the squared absolute values of a tree."""
    return dot(a, a)


def add_scaled(a: PyTree, scale: Float[Array, ""] | float, b: PyTree) -> PyTree:
    """`a + scale * b`, leaf by leaf."""
    return jax.tree.map(lambda u, v: (u + scale * v).astype(u.dtype), a, b)


def subtract(a: PyTree, b: PyTree) -> PyTree:
    """`a - b`, leaf by leaf."""
    return jax.tree.map(jnp.subtract, a, b)


def select(flag: Array, a: PyTree, b: PyTree) -> PyTree:
    """`a` where the scalar `flag` holds, else `b`."""
    return jax.tree.map(lambda u, v: jnp.where(flag, u, v), a, b)
