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
    flat = jax.vmap(layer)(x.reshape(-1, x.shape[-1]))
    return flat.reshape(*x.shape[:-1], flat.shape[-1])


def attend(
    q: Float[Array, "... n h c"],
    k: Float[Array, "... m h c"],
    v: Float[Array, "... m h c"],
    *,
    seen: Bool[Array, "... m"] | Bool[Array, "... n m"] | None = None,
    bias: Float[Array, "h n m"] | None = None,
) -> Float[Array, "... n h c"]:
    """softmax(q kᵀ / √c + bias) v of several heads (Vaswani et al., 2017).

    The sums are divided after the products with v, so that two passes over the scores are left, one
    for the largest and one for the exponentials.

    Args:
        q: queries.
        k: keys.
        v: values.
        seen: which of the m may be looked at, by all or by each of the n.
        bias: of the scores.
    """
    scores = jnp.einsum("...nhc,...mhc->...hnm", q * q.shape[-1] ** -0.5, k)
    if bias is not None:
        scores = scores + bias
    if seen is not None:
        hidden = jnp.where(seen, 0.0, float(jnp.finfo(scores.dtype).min) / 2).astype(scores.dtype)
        together = seen.ndim == q.ndim - 2
        scores = scores + (hidden[..., None, None, :] if together else hidden[..., None, :, :])
    raised = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, -1, keepdims=True)))
    total = jnp.swapaxes(jnp.sum(raised, -1), -1, -2)[..., None]
    return jnp.einsum("...hnm,...mhc->...nhc", raised, v) / total
