"""What is known of values while a program is traced, and errors that it raises once they are."""

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

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
        # (The first call may come from within some; a new thread is in none.)
        with ThreadPoolExecutor(1) as pool:
            _top = pool.submit(get_opaque_trace_state).result()
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

    Outside `jit` the error is of the class `error`. Inside, where Python cannot see the value, it
    is JAX's runtime error, whose text ends with the class and the message. Of several messages it
    is the one at the place `which`.
    """
    messages = [message] if isinstance(message, str) else list(message)
    if isinstance(bad, Tracer) and not is_sharded():
        if not jax.tree.leaves(eqx.filter(tree, eqx.is_array)):
            return tree
        # (In a batch one is enough.)
        which = eqx.internal.unvmap_max(jnp.where(bad, which, 0)) if len(messages) > 1 else 0
        bad = eqx.internal.unvmap_any(bad)
    if not isinstance(bad, Tracer):
        if np.any(np.asarray(bad)):
            raise error(messages[int(np.max(np.asarray(which)))])
        return tree
    arrays, rest = eqx.partition(tree, eqx.is_array)
    one = _one_unless(bad, which, _Check(tuple(messages), error))
    return eqx.combine(jax.tree.map(lambda v: _times(v, one), arrays), rest)


def _times(v: Array, one: Array) -> Array:
    """v times a real number that is one.

    A factor that cannot be had without the check compiles faster than a check through which every
    array passes.
    """
    if jnp.iscomplexobj(v):  # infinite ones stay as they are, too
        return jax.lax.complex(_times(v.real, one), _times(v.imag, one))
    if jnp.issubdtype(v.dtype, jnp.number):
        return v * one.astype(v.dtype)
    if jnp.issubdtype(v.dtype, jnp.bool_):
        return v & (one > 0)
    data = _times(jax.random.key_data(v), one)
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(v))


class _Check(NamedTuple):
    """Raises on the host; equal ones are one to JAX, and to what compares programs."""

    messages: tuple[str, ...]
    error: type[RootflowError]

    def __call__(self, bad, which):
        if np.any(bad):
            raise self.error(self.messages[int(np.max(np.where(bad, which, 0)))])
        return np.ones(np.shape(bad), np.float32)


def _one_unless(bad, which, check):
    """One, unless `bad`: raises where the program runs."""
    bad, which = jnp.asarray(bad), jnp.asarray(which)
    shape = jax.ShapeDtypeStruct(bad.shape, jnp.float32)
    if is_sharded():
        # The same on every device as far as types go, whatever devices `bad` differs on. (Two
        # branches would have two types.)
        return jax.pure_callback(check, shape, bad, which, vmap_method="broadcast_all")

    def raises(bad, which):
        return jax.pure_callback(check, shape, bad, which, vmap_method="sequential")

    return jax.lax.cond(bad, raises, lambda bad, which: jnp.ones((), jnp.float32), bad, which)


def nonfinite(tree: PyTree) -> Bool[Array, ""]:
    """Whether any number in the tree is NaN or infinite."""
    # The sum is finite exactly if all numbers are, but for numbers so large that their sum is not:
    # what diverged that far is no solution either. One sum compiles faster than the logic of flags.
    totals = [
        jnp.sum(leaf, dtype=jnp.promote_types(leaf.dtype, jnp.float32))
        for leaf in jax.tree.leaves(tree)
    ]
    return ~jnp.isfinite(functools.reduce(jnp.add, totals)) if totals else jnp.asarray(False)
