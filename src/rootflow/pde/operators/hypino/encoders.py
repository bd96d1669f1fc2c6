"""A transformer that reads the images of a problem, told its operator, and pools what it saw."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ....errors import InputError
from ....networks import attend, each
from .problems import Images


def signed_log(f: Array) -> Array:
    """sign(f) log(1 + |f|)."""
    return jnp.sign(f) * jnp.log1p(jnp.abs(f))


def attended(layer: eqx.nn.MultiheadAttention, x: Array, source: Array) -> Array:
    """What the layer makes of x (n, width), which looks at a source (m, width)."""
    cut = lambda y: y.reshape(len(y), layer.num_heads, -1)
    maps = (layer.query_proj, x), (layer.key_proj, source), (layer.value_proj, source)
    mixed = attend(*(cut(each(into, y)) for into, y in maps))
    return each(layer.output_proj, mixed.reshape(len(x), -1))


def positions(count: int, width: int) -> Float[Array, "count*count width"]:
    """Sinusoidal in two dimensions, for count x count places."""
    rates = jnp.exp(-math.log(100.0) * jnp.arange(width // 4) / max(1, width // 4))
    angles = jnp.arange(count)[:, None] * rates
    line = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], 1)
    rows = jnp.broadcast_to(line[:, None], (count, count, width // 2))
    columns = jnp.broadcast_to(line[None], (count, count, width // 2))
    return jnp.concatenate([rows, columns], -1).reshape(count * count, width)


class Film(eqx.Module):
    """γ(e) z + β(e), beginning as z (Perez, Strub, de Vries, Dumoulin and Courville 2018)."""

    layer: eqx.nn.Linear

    def __init__(self, told: int, width: int, key: PRNGKeyArray) -> None:
        self.layer = jax.tree.map(
            lambda w: 0.1 * w, eqx.nn.Linear(told, 2 * width, key=key)
        )  # fmt: skip

    def __call__(self, z: Float[Array, "n width"], e: Float[Array, " told"]) -> Array:
        gain, shift = jnp.split(self.layer(e), 2)
        return (1 + gain) * z + shift


class Pool(eqx.Module):
    """Learned queries that look at the tokens (cross-attention): shape (queries, width)."""

    queries: Float[Array, "queries width"]
    attention: eqx.nn.MultiheadAttention
    norm: eqx.nn.LayerNorm

    def __init__(self, queries: int, width: int, heads: int, key: PRNGKeyArray) -> None:
        one, two = jax.random.split(key)
        self.queries = jax.random.normal(one, (queries, width))
        self.attention = eqx.nn.MultiheadAttention(heads, width, key=two)
        self.norm = eqx.nn.LayerNorm(width)

    def __call__(self, tokens: Float[Array, "n width"]) -> Float[Array, "queries width"]:
        tokens = each(self.norm, tokens)
        return self.queries + attended(self.attention, self.queries, tokens)


class Block(eqx.Module):
    """Attention and two layers, each after a norm and added to what came in."""

    norms: list[eqx.nn.LayerNorm]
    attention: eqx.nn.MultiheadAttention
    up: eqx.nn.Linear
    down: eqx.nn.Linear
    film: Film

    def __init__(self, width: int, heads: int, told: int, key: PRNGKeyArray) -> None:
        keys = jax.random.split(key, 4)
        self.norms = [eqx.nn.LayerNorm(width), eqx.nn.LayerNorm(width)]
        self.attention = eqx.nn.MultiheadAttention(heads, width, key=keys[0])
        self.up = eqx.nn.Linear(width, 2 * width, key=keys[1])
        self.down = eqx.nn.Linear(2 * width, width, key=keys[2])
        self.film = Film(told, width, keys[3])

    def __call__(self, z: Array, e: Array) -> Array:
        seen = each(self.norms[0], z)
        z = z + attended(self.attention, seen, seen)
        z = z + each(self.down, jax.nn.gelu(each(self.up, each(self.norms[1], z))))
        return self.film(z, e)


class Transformer(eqx.Module):
    """Patches of 4 x 4 pixels as tokens, a few blocks, one pool; for small grids.

    Channels: both boundary masks, g, h, f / 5 and the signed logarithm of f. Returns the pooled
    queries, shape (queries, outputs).
    """

    patches: eqx.nn.Linear
    told: eqx.nn.Linear
    blocks: list[Block]
    pool: Pool
    grid: int = eqx.field(static=True)

    def __init__(
        self, grid: int, queries: int, *, width: int, blocks: int, heads: int, key: PRNGKeyArray
    ) -> None:
        if grid % 4:
            raise InputError(f"grid={grid} must be a multiple of 4, the side of a patch.")
        keys = jax.random.split(key, 3 + blocks)
        self.grid = grid
        self.patches = eqx.nn.Linear(6 * 16, width, key=keys[0])
        self.told = eqx.nn.Linear(5, width, key=keys[1])
        self.pool = Pool(queries, width, heads, keys[2])
        self.blocks = [Block(width, heads, width, k) for k in keys[3:]]

    @property
    def outputs(self) -> int:
        """The length of a pooled query."""
        return self.pool.queries.shape[1]

    def __call__(self, c: Float[Array, " 5"], images: Images) -> Float[Array, "queries outputs"]:
        f, g, h = images.values
        channels = jnp.stack([*images.masks[1:], g, h, f / 5, signed_log(f)])
        side = self.grid // 4
        tiles = channels.reshape(6, side, 4, side, 4).transpose(1, 3, 0, 2, 4)
        z = each(self.patches, tiles.reshape(side * side, -1))
        z = z + positions(side, z.shape[1]).astype(z.dtype)
        e = jax.nn.gelu(self.told(c.astype(z.dtype)))
        for block in self.blocks:
            z = block(z, e)
        return self.pool(z)
