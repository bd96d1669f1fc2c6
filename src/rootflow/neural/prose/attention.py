"""Layers of attention whose sums are normalised after each part (post-norm)."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ...errors import InputError
from ...networks import attend, each


class Attention(eqx.Module):
    """Attention of several heads, for one example.

    The maps of queries, keys and values of one source are one matrix.
    """

    into: eqx.nn.Linear
    others: eqx.nn.Linear
    out: eqx.nn.Linear
    heads: int = eqx.field(static=True)

    def __init__(self, width: int, heads: int, *, key: PRNGKeyArray) -> None:
        if width % heads:
            raise InputError(f"width={width} must be a multiple of heads={heads}.")
        a, b, c = jax.random.split(key, 3)
        self.into = eqx.nn.Linear(width, width, key=a)
        self.others = eqx.nn.Linear(width, 2 * width, key=b)
        self.out = eqx.nn.Linear(width, width, key=c)
        self.heads = heads

    def __call__(
        self, x: Float[Array, "n w"], source: Float[Array, "m w"], seen: Bool[Array, "... m"]
    ) -> Float[Array, "n w"]:
        n, m, heads = x.shape[0], source.shape[0], self.heads
        q = each(self.into, x).reshape(n, heads, -1)
        k, v = jnp.moveaxis(each(self.others, source).reshape(m, 2, heads, -1), 1, 0)
        return each(self.out, attend(q, k, v, seen=seen).reshape(n, -1))


class Layer(eqx.Module):
    """x = LN(x + attention), for each source that it attends to, then x = LN(x + FFN(x)).

    Args:
        width: of the features.
        heads: of the attention.
        inner: whether it attends to its own input.
        outer: whether it attends to another source.
        key: for the initial weights.
    """

    inner: Attention | None
    outer: Attention | None
    norms: list[eqx.nn.LayerNorm]
    widen: eqx.nn.Linear
    narrow: eqx.nn.Linear

    def __init__(
        self, width: int, heads: int, *, inner: bool = True, outer: bool = False, key: PRNGKeyArray
    ) -> None:
        a, b, c, d = jax.random.split(key, 4)
        self.inner = Attention(width, heads, key=a) if inner else None
        self.outer = Attention(width, heads, key=b) if outer else None
        self.norms = [eqx.nn.LayerNorm(width) for _ in range(1 + inner + outer)]
        self.widen = eqx.nn.Linear(width, 4 * width, key=c)
        self.narrow = eqx.nn.Linear(4 * width, width, key=d)

    def __call__(
        self,
        x: Float[Array, "n w"],
        seen: Bool[Array, "... n"] | None = None,
        source: Float[Array, "m w"] | None = None,
        source_seen: Bool[Array, " m"] | None = None,
    ) -> Float[Array, "n w"]:
        norms = iter(self.norms)
        if self.inner is not None:
            assert seen is not None
            x = each(next(norms), x + self.inner(x, x, seen))
        if self.outer is not None:
            assert source is not None and source_seen is not None
            x = each(next(norms), x + self.outer(x, source, source_seen))
        wide = jax.nn.gelu(each(self.widen, x))
        return each(next(norms), x + each(self.narrow, wide))


def positions(length: int, width: int) -> Float[Array, "length width"]:
    """Sines and cosines of the place in a sequence (Vaswani et al., 2017)."""
    rates = jnp.exp(-jnp.log(1e4) * 2 * jnp.arange((width + 1) // 2) / width)
    angles = jnp.arange(length)[:, None] * rates
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(length, -1)[:, :width]
