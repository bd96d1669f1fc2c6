"""What is known of values while a program is traced, and errors that it raises once they are."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import Literal, get_opaque_trace_state, jaxpr_as_fun
from jaxtyping import Array, ArrayLike, Bool

from .._typing import PyTree
from ..errors import RootflowError
from .varying import is_sharded


def is_traced(*values: Any) -> bool:
    """Whether any of the values, or of those in lists and tuples of them, is not known yet."""
    return any(
        isinstance(value, Tracer) or (isinstance(value, list | tuple) and is_traced(*value))
        for value in values
    )


def reads_argument(jaxpr: Any, argument: Any) -> bool:
    """Whether the results of a traced function depend on an argument, as far as it shows."""
    live = {v for v in jaxpr.outvars if not isinstance(v, Literal)}
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or not live.isdisjoint(eqn.outvars):
            live.update(v for v in eqn.invars if not isinstance(v, Literal))
    return argument in live


def primitives(jaxpr: Any) -> Iterator[str]:
    """The names of all operations of a traced function, also inside the functions it calls."""
    for eqn in jaxpr.eqns:
        yield eqn.primitive.name
        for leaf in jax.tree.leaves(list(eqn.params.values())):
            inner = getattr(leaf, "jaxpr", leaf)
            if hasattr(inner, "eqns"):
                yield from primitives(inner)


def traced_once(function: Callable[..., Any], *like: Any) -> tuple[Callable[..., Any], Any]:
    """A function of pytrees of arrays, traced; and the shapes of what it returns.

    Whoever needs the shapes before it calls the function would else trace it twice. It must not
    close over traced arrays. (Where devices run by themselves, what it is called with may vary over
    more of them than `like`: there it is traced again.)
    """
    if is_sharded():
        return function, jax.eval_shape(function, *like)
    jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*like)
    call, structure = jaxpr_as_fun(jaxpr), jax.tree.structure(shapes)
    return lambda *args: jax.tree.unflatten(structure, call(*jax.tree.leaves(args))), shapes


#: Where JAX last was when nothing was being compiled; usually it is there at the next call too.
_outside: Any = None


def is_compiling() -> bool:
    """Whether the code that runs is being traced, so that not even a constant is known."""
    global _outside
    state = get_opaque_trace_state()
    if state == _outside:
        return False
    compiling = isinstance(jnp.zeros(()) + 0, Tracer)
    if not compiling:
        _outside = state
    return compiling


def is_at_top() -> bool:
    """Whether no transformation of JAX's is under way, not even a batch with a name."""
    global _top
    if _top is None:
        with jax.ensure_compile_time_eval():
            _top = get_opaque_trace_state()
    return get_opaque_trace_state() == _top


_top: Any = None


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
        if all(jnp.issubdtype(leaf.dtype, jnp.number) for leaf in jax.tree.leaves(arrays)):
            # A factor of one that cannot be had without the check compiles faster than a check
            # through which every array passes.
            one = jnp.ones((), jnp.float32)
            if is_sharded():
                one = _one_unless(bad, which, messages, error)
            else:
                one = eqx.branched_error_if(one, bad, which, messages)
            return eqx.combine(jax.tree.map(lambda v: _times(v, one), arrays), rest)
        return eqx.combine(eqx.branched_error_if(arrays, bad, which, messages), rest)
    if np.any(np.asarray(bad)):
        raise error(messages[int(np.max(np.asarray(which)))])
    return tree


def _times(v: Array, one: Array) -> Array:
    """v times a real number that is one, which leaves also infinite complex numbers as they are."""
    if jnp.iscomplexobj(v):
        return jax.lax.complex(_times(v.real, one), _times(v.imag, one))
    return v * one.astype(v.dtype)


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
