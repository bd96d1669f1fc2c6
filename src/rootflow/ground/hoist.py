"""Functions with everything they close over laid open."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax

from .._typing import PyTree
from .varying import is_sharded, vary, varying_axes


def hoist(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Callable[..., Any]:
    """Traces a function and makes the arrays that it closes over part of a pytree.

    A function may use values that are being differentiated or batched without having them as
    arguments: through a closure, or through the closure of a function among its arguments. In the
    result, itself a pytree to be passed as an argument, they are leaves like any other, so that
    derivatives with respect to them are seen.

    Args:
        function: any function of pytrees; arguments that are not arrays are fixed.
        *args: example arguments; only shapes and types of arrays matter.
        **kwargs: likewise.

    Returns:
        A module that is called like `function`, with arguments of the same shapes.
    """

    # Equinox takes a function without a closure for one that depends on its array arguments only,
    # and overlooks functions among the arguments; this one always has a closure.
    def closed(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    converted = _opened(eqx.filter_closure_convert(closed, *args, **kwargs))
    axes = _axes((args, kwargs, converted)) if is_sharded() else frozenset()
    if not axes:
        return converted
    # The traced program is for arrays that vary over these axes of the device mesh; those it will
    # be called with may vary over more of them than the examples do.
    args, kwargs = _vary((args, kwargs), axes)
    return _Sharded(_opened(eqx.filter_closure_convert(closed, *args, **kwargs)), axes)


def _opened(converted):
    """`converted`, whose program holds no second reference to what the function closes over.

    Since JAX 0.11 a traced program keeps the values of its constants. Here they are leaves beside
    it, and a tracer that stays in the program would outlive its trace.
    """
    program = getattr(converted, "jaxpr", None)
    if program is None or not getattr(program, "consts", None):
        return converted
    opened = program.replace(constvars=program.constvars)  # which drops their values
    return eqx.tree_at(lambda c: c.jaxpr, converted, opened)


class _Sharded(eqx.Module):
    """A function whose arguments vary over some axes of the device mesh."""

    function: Callable[..., Any]
    axes: frozenset[str] = eqx.field(static=True)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = _vary((args, kwargs), self.axes)
        return self.function(*args, **kwargs)


def vary_alike(tree: PyTree, *like: PyTree) -> PyTree:
    """`tree`, marked as varying over the axes that anything in `like` does, hoisted functions too.

    What a hoisted function has closed over stays as it was when the function was traced.
    """
    return _vary(tree, _axes(like)) if is_sharded() else tree


def _axes(tree):
    nodes = jax.tree.leaves(tree, is_leaf=_is_sharded_function)
    own = [node.axes for node in nodes if _is_sharded_function(node)]
    return varying_axes(tree).union(*own)


def _vary(tree, axes):
    def mark(node):
        return node if _is_sharded_function(node) else vary(node, axes)

    return jax.tree.map(mark, tree, is_leaf=_is_sharded_function)


def _is_sharded_function(node):
    return isinstance(node, _Sharded)
