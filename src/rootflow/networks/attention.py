"""Layers along an axis, and attention, as few products of large matrices."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def each(layer: Callable[[Array], Array], x: Float[Array, "... a"]) -> Float[Array, "... b"]:
    """A layer of single vectors applied to the last axis.

    A linear one as a product with the vectors on the left: mapped by `jax.vmap` it has them on the
    right, and XLA transposes what goes in and what comes out.
    """
    if isinstance(layer, eqx.nn.Linear):
        y = x @ layer.weight.T
        return y if layer.bias is None else y + layer.bias
    if isinstance(layer, eqx.nn.MLP) and x.ndim and not _learns(layer):
        for inner in layer.layers[:-1]:
            x = layer.activation(each(inner, x))
        return layer.final_activation(each(layer.layers[-1], x))
    flat = jax.vmap(layer)(x.reshape(-1, x.shape[-1]))
    return flat.reshape(*x.shape[:-1], flat.shape[-1])


def _learns(mlp: eqx.nn.MLP) -> bool:
    """Whether its activations have parameters of their own, for each unit."""
    activations = mlp.activation, mlp.final_activation
    return any(eqx.is_array(leaf) for leaf in jax.tree.leaves(activations))


def attend(
    q: Float[Array, "... n h c"],
    k: Float[Array, "... m h c"],
    v: Float[Array, "... m h c"],
    *,
    seen: Bool[Array, "... m"] | Bool[Array, "... n m"] | None = None,
    bias: Float[Array, "h n m"] | None = None,
) -> Float[Array, "... n h c"]:
    """softmax(q kᵀ / √c + bias) v of several heads (Vaswani et al., 2017).

    Scores have the keys before the queries: so the largest and the sum are taken over an axis that
    is not the last, which processors do for many queries at once. Sums divide after the product
    with v. (On one core, with its gradient: half the time of the softmax over the last axis.)

    Args:
        q: queries.
        k: keys.
        v: values.
        seen: which of the m may be looked at, by all or by each of the n.
        bias: of the scores.
    """
    q, k, v = (jnp.swapaxes(x, -3, -2) for x in (q * q.shape[-1] ** -0.5, k, v))
    scores = jnp.einsum("...hmc,...hnc->...hmn", k, q)
    if bias is not None:
        scores = scores + jnp.swapaxes(bias, -1, -2)
    if seen is not None:
        hidden = jnp.where(seen, 0.0, float(jnp.finfo(scores.dtype).min) / 2).astype(scores.dtype)
        by_all = seen.ndim == q.ndim - 2
        hidden = hidden[..., None] if by_all else jnp.swapaxes(hidden, -1, -2)
        scores = scores + hidden[..., None, :, :]
    raised = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, -2, keepdims=True)))
    mixed = jnp.einsum("...hmn,...hmc->...hnc", raised, v)
    return jnp.swapaxes(mixed / jnp.sum(raised, -2)[..., None], -3, -2)
