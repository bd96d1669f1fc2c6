"""The same function of many members, so many at once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def each(function: Callable[..., Any], *args: Any) -> Any:
    """`jax.vmap(function)(*args)`; a single member by itself, which is quicker to compile.

    Args:
        function: of one member.
        *args: pytrees, the members along the leading axis of each leaf.
    """
    if len(jax.tree.leaves(args)[0]) != 1:
        return jax.vmap(function)(*args)
    out = function(*jax.tree.map(lambda x: x[0], args))
    return jax.tree.map(lambda x: jnp.asarray(x)[None], out)


def in_batches(function: Callable[[Any], Any], xs: Any, most: int) -> Any:
    """`jax.vmap(function)(xs)` in batches of at most `most` members, one after another.

    The batches are of one size, so that there is one program: `jax.lax.map(batch_size=)` compiles
    the function a second time for what is left over. The last member is repeated where the number
    of members is no multiple of that size.

    Args:
        function: of one member.
        xs: a pytree, the members along the leading axis of each leaf.
        most: members that are computed at once, 1 or more.
    """
    count = len(jax.tree.leaves(xs)[0])
    batches = max(-(-count // most), 1)
    size = -(-count // batches)
    together = jax.vmap(function)
    if batches == 1:
        return together(xs)
    rows = jnp.minimum(jnp.arange(batches * size), count - 1).reshape(batches, size)
    out = jax.lax.map(lambda part: together(jax.tree.map(lambda x: x[part], xs)), rows)
    return jax.tree.map(lambda x: x.reshape(batches * size, *x.shape[2:])[:count], out)
