"""Loops and branches that also work where arrays differ from device to device.

Inside `jax.shard_map` the type of an array names the axes of the device mesh over which its value
varies. A loop must return what it carries with the type that it got, and both branches of a
condition must return the same type; but zeros to start from vary over nothing, and what is computed
from them and from data does. The functions here mark what they carry or return accordingly, and are
else those of `jax.lax`: outside of `shard_map` they add nothing, neither to the traced program nor
to the time it takes to trace it.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jaxtyping import ArrayLike

from .._typing import PyTree


def is_sharded() -> bool:
    """Whether the code that is being traced runs on each device by itself (`jax.shard_map`)."""
    return bool(jax.sharding.get_abstract_mesh().manual_axes)


def varying_axes(tree: PyTree) -> frozenset[str]:
    """The axes of the device mesh over which any array of a tree, or of shapes, varies."""
    return frozenset().union(*(_axes(leaf) for leaf in jax.tree.leaves(tree)))


def vary(tree: PyTree, axes: frozenset[str]) -> PyTree:
    """The same tree, each array of it marked as varying over `axes` beside its own."""

    def mark(leaf: Any) -> Any:
        missing = tuple(sorted(axes - _axes(leaf))) if eqx.is_array_like(leaf) else ()
        return jax.lax.pcast(jnp.asarray(leaf), missing, to="varying") if missing else leaf

    return jax.tree.map(mark, tree)


def vary_like(tree: PyTree, *like: PyTree) -> PyTree:
    """The same tree, its arrays marked as varying over all that any array in `like` varies over."""
    return vary(tree, varying_axes(like)) if is_sharded() else tree


def summed_like(x: Any, like: Any) -> Any:
    """A cotangent summed over the axes of the device mesh over which `like` does not vary."""
    more = tuple(sorted(_axes(x) - _axes(like)))
    x = jax.lax.psum(x, more) if more else x
    return vary(x, _axes(like))


def while_loop(
    proceed: Callable[[Any], ArrayLike], step: Callable[[Any], Any], start: PyTree
) -> PyTree:
    """`jax.lax.while_loop`, its carry marked as varying over what the steps make it vary over."""
    if is_sharded():
        # Where devices take different numbers of steps, everything carried differs.
        start = _settled(step, start, lambda carry: jax.eval_shape(proceed, carry))
    return jax.lax.while_loop(proceed, step, start)


def fori_loop(
    lower: Any, upper: Any, step: Callable[[Any, Any], Any], start: PyTree, **options: Any
) -> PyTree:
    """`jax.lax.fori_loop`, its carry marked as varying over what the steps make it vary over."""
    if is_sharded():
        index = jnp.asarray(lower)
        start = _settled(lambda carry: step(index, carry), start, lambda _: (lower, upper))
    return jax.lax.fori_loop(lower, upper, step, start, **options)


def scan(
    step: Callable[[Any, Any], tuple[Any, Any]], start: PyTree, xs: PyTree = None, **options: Any
) -> tuple[PyTree, PyTree]:
    """`jax.lax.scan`, its carry marked as varying over what the steps make it vary over."""
    if is_sharded():
        first = jax.tree.map(lambda x: x[0], xs)
        start = _settled(lambda carry: step(carry, first)[0], start, lambda _: ())
    return jax.lax.scan(step, start, xs, **options)


def cond(
    flag: ArrayLike, yes: Callable[..., Any], no: Callable[..., Any], *operands: PyTree
) -> PyTree:
    """`jax.lax.cond`, its result marked as varying over what either branch or the flag does."""
    if not is_sharded():
        return jax.lax.cond(flag, yes, no, *operands)
    shapes = [jax.eval_shape(branch, *operands) for branch in (yes, no)]
    axes = jax.tree.map(lambda a, b: varying_axes((a, b, flag)), *shapes)

    def marked(branch):
        return lambda *operands: jax.tree.map(vary, branch(*operands), axes)

    return jax.lax.cond(flag, marked(yes), marked(no), *operands)


def switch(index: Any, branches: Any, *operands: PyTree) -> PyTree:
    """`jax.lax.switch`, its result marked as varying over what any branch or the index does."""
    if not is_sharded():
        return jax.lax.switch(index, branches, *operands)
    shapes = [jax.eval_shape(branch, *operands) for branch in branches]
    axes = jax.tree.map(lambda *kinds: varying_axes((kinds, index)), *shapes)

    def marked(branch):
        return lambda *operands: jax.tree.map(vary, branch(*operands), axes)

    return jax.lax.switch(index, [marked(branch) for branch in branches], *operands)


def _settled(step, start, deciding):
    """`start` with the marks that `step` keeps, and those of what decides on the steps' number."""

    def marked(start):
        axes = varying_axes(deciding(start))
        after = jax.eval_shape(step, start)
        return jax.tree.map(lambda old, new: vary(old, axes | _axes(new)), start, after)

    while True:
        before, start = start, marked(start)
        pairs = zip(jax.tree.leaves(before), jax.tree.leaves(start), strict=True)
        if all(_axes(old) == _axes(new) for old, new in pairs):
            return start


def _axes(leaf: Any) -> frozenset[str]:
    known = isinstance(leaf, jax.ShapeDtypeStruct | ShapedArray)
    if not known and not eqx.is_array_like(leaf):
        return frozenset()  # a function
    kind = leaf if known else jax.typeof(leaf)
    # The name of this part of the type changed between releases of JAX.
    manual = getattr(kind, "manual_axis_type", None)
    return frozenset(getattr(kind, "vma", None) or () if manual is None else manual.varying)
