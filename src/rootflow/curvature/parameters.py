"""Which numbers of a model are its parameters."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._typing import PyTree
from ..errors import InputError

Mask = PyTree | Callable[[str], bool] | None

# The collections that Flax keeps beside "params": state, not parameters.
_STATE = {"batch_stats", "cache", "intermediates"}


def _call(module: Any, x: Any) -> Any:
    return module(x)


def model_and_params(model: Any, params: PyTree) -> tuple[Callable[..., Any], PyTree]:
    """`model(params, x)` and its parameters; an Equinox module without `params` is both."""
    if not callable(model):
        raise InputError(f"the model must be a function model(params, x), got {model!r:.60}.")
    if params is not None:
        return model, params
    if not isinstance(model, eqx.Module):
        raise InputError(
            "params=None goes with an Equinox module as the model; for a function "
            "model(params, x) give its parameters."
        )
    # Dropout and running averages would make the matrix another one at every product.
    return _call, eqx.nn.inference_mode(model)


def is_parameter(leaf: Any) -> bool:
    """Whether a leaf is an array that can be differentiated in."""
    return isinstance(leaf, jax.Array | np.ndarray) and jnp.issubdtype(leaf.dtype, jnp.inexact)


def named(tree: PyTree) -> dict[str, Any]:
    """The leaves of a tree by name, as "layers.0.weight"."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {_name(place): leaf for place, leaf in leaves}


def _name(place) -> str:
    return jax.tree_util.keystr(place, simple=True, separator=".") or "value"


def partition(params: PyTree, mask: Mask) -> tuple[PyTree, PyTree]:
    """The parameters to be differentiated, as JAX arrays, and the rest."""
    mask = _flax_mask(params) if mask is None else mask
    if mask is None:
        chosen = jax.tree.map(is_parameter, params)
    elif callable(mask) and not isinstance(mask, eqx.Module):
        chosen = jax.tree_util.tree_map_with_path(
            lambda place, leaf: is_parameter(leaf) and bool(mask(_name(place))), params
        )
    else:
        chosen = _spread(mask, params)
    selected, rest = eqx.partition(params, chosen)
    leaves = jax.tree.leaves(selected)
    if not leaves:
        names = ", ".join(name for name, leaf in named(params).items() if is_parameter(leaf))
        raise InputError(
            "there are no parameters to differentiate: the mask leaves out all of the "
            f"floating-point arrays ({names or 'there are none'})."
        )
    selected = jax.tree.map(jnp.asarray, selected)
    for name, leaf in named(selected).items():
        if not isinstance(leaf, Tracer) and not bool(jnp.all(jnp.isfinite(leaf))):
            raise InputError(f"the parameter {name!r} has numbers that are not finite.")
    return selected, rest


def _spread(mask, params):
    """A tree of booleans of the structure of `params` from one that may end earlier."""

    def below(flag, branch):
        if not isinstance(flag, bool | np.bool_):
            raise InputError(f"a mask is a tree of True and False, got {flag!r:.60} in it.")
        return jax.tree.map(lambda leaf: bool(flag) and is_parameter(leaf), branch)

    try:
        return jax.tree.map(below, mask, params)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"the mask does not fit the parameters: {error}. Give a tree of booleans that begins "
            "like the parameters, or a function of the name of a leaf."
        ) from None


def _flax_mask(params: PyTree):
    if isinstance(params, Mapping) and "params" in params:
        others = set(params) - {"params"}
        if others and others <= _STATE:
            return lambda name: name.split(".")[0] == "params"
    return None


def real_dtype(selected: PyTree) -> np.dtype:
    """The real floating-point type for vectors of parameters; at least single precision."""
    # By types alone: as a value, a weakly typed number would count as less than it is.
    kinds = [np.dtype(leaf.dtype) for leaf in jax.tree.leaves(selected)]
    return np.dtype(jnp.finfo(functools.reduce(jnp.promote_types, kinds, jnp.float32)).dtype)
