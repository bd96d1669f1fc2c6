"""Initial weights of networks, all from one draw, so that nothing is compiled for them."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from ....ground.tracing import is_traced


def glorot(build: Callable[[PRNGKeyArray], Any], key: PRNGKeyArray) -> Any:
    """What `build(key)` makes, with Glorot's normal weights and without biases.

    A network of a dozen layers costs a dozen compilations of random numbers otherwise.
    """
    skeleton = eqx.filter_eval_shape(build, key)
    total = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(skeleton) if _is_array(leaf))
    noise = jax.random.normal(key, (total,))
    noise = noise if is_traced(noise) else np.asarray(noise)
    used = 0

    def filled(path, leaf):
        nonlocal used
        if not _is_array(leaf):
            return leaf
        if getattr(path[-1], "name", "") == "bias":
            return jnp.zeros(leaf.shape, leaf.dtype)
        size = math.prod(leaf.shape)
        taken, used = noise[used : used + size].reshape(leaf.shape), used + size
        spread = math.sqrt(2 / (sum(leaf.shape[:2]) * math.prod(leaf.shape[2:])))
        return jnp.asarray(spread * taken, leaf.dtype)

    return jax.tree_util.tree_map_with_path(filled, skeleton)


def swish(inputs: int, outputs: int, width: int, depth: int, key: PRNGKeyArray) -> eqx.nn.MLP:
    """Swish layers, `depth` of them before the last one."""
    return glorot(lambda key: eqx.nn.MLP(inputs, outputs, width, depth, jax.nn.silu, key=key), key)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)
