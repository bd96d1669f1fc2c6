"""The encoder of the paper: stems with masks as gates, Swin stages told the operator, pools.

After Liu et al. (2021), Swin transformers: attention in windows of pixels, shifted in every second
block. Grids need not be 224: a stage whose tokens are fewer than a window has one window of them.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ....errors import InputError
from ....networks import attend, each
from .encoders import Film, Pool, positions, signed_log
from .problems import Images
from .target import fourier

_WINDOW = 7


class Stem(eqx.Module):
    """Two convolutions of stride two: a quarter of the pixels along each side."""

    layers: list[eqx.nn.Conv2d]
    end: Any = eqx.field(static=True)

    def __init__(
        self, channels: int, width: int, key: PRNGKeyArray, end: Any = jax.nn.gelu
    ) -> None:
        one, two = jax.random.split(key)
        conv = lambda n, key: eqx.nn.Conv2d(n, width, 3, stride=2, padding=1, key=key)
        self.layers, self.end = [conv(channels, one), conv(width, two)], end

    def __call__(self, x: Float[Array, "channels n n"]) -> Float[Array, "width m m"]:
        return self.end(self.layers[1](jax.nn.gelu(self.layers[0](x))))


class WindowBlock(eqx.Module):
    """Attention within windows, with a bias for each relative place, then two layers."""

    norms: list[eqx.nn.LayerNorm]
    mix: eqx.nn.Linear
    out: eqx.nn.Linear
    up: eqx.nn.Linear
    down: eqx.nn.Linear
    bias: Float[Array, "heads places"]
    side: int = eqx.field(static=True)
    window: int = eqx.field(static=True)
    shift: int = eqx.field(static=True)

    def __init__(self, side: int, width: int, heads: int, shifted: bool, key: PRNGKeyArray) -> None:
        keys = jax.random.split(key, 4)
        self.window = min(_WINDOW, side)
        self.side = side
        self.shift = self.window // 2 if shifted and side > self.window else 0
        self.norms = [eqx.nn.LayerNorm(width), eqx.nn.LayerNorm(width)]
        self.mix = eqx.nn.Linear(width, 3 * width, key=keys[0])
        self.out = eqx.nn.Linear(width, width, key=keys[1])
        self.up = eqx.nn.Linear(width, 2 * width, key=keys[2])
        self.down = eqx.nn.Linear(2 * width, width, key=keys[3])
        self.bias = jnp.zeros((heads, (2 * self.window - 1) ** 2))

    def __call__(self, z: Float[Array, "side side width"]) -> Array:
        z = z + self._attend(each(self.norms[0], z))
        return z + each(self.down, jax.nn.gelu(each(self.up, each(self.norms[1], z))))

    def _attend(self, z):
        w, heads, width = self.window, self.bias.shape[0], z.shape[-1]
        cut = lambda x: _windows(jnp.roll(x, (-self.shift, -self.shift), (0, 1)), w)
        mixed = cut(each(self.mix, z))
        q, k, v = jnp.moveaxis(mixed.reshape(*mixed.shape[:2], 3, heads, -1), 2, 0)
        # After the shift a window at the end holds pixels of both ends, which are no neighbours.
        group = cut(jnp.asarray(_regions(self.side, w, self.shift)))[..., 0]
        near = group[:, :, None] == group[:, None]
        seen = attend(q, k, v, seen=near, bias=self.bias[:, _relative(w)])
        joined = _joined(each(self.out, seen.reshape(*mixed.shape[:2], width)), self.side, w)
        return jnp.roll(joined, (self.shift, self.shift), (0, 1))


def _windows(x, w):
    n = x.shape[0] // w
    return x.reshape(n, w, n, w, -1).swapaxes(1, 2).reshape(n * n, w * w, -1)


def _joined(x, side, w):
    n = side // w
    return x.reshape(n, n, w, w, -1).swapaxes(1, 2).reshape(side, side, -1)


def _relative(w):
    at = np.stack(np.meshgrid(np.arange(w), np.arange(w), indexing="ij"), -1).reshape(-1, 2)
    apart = at[:, None] - at[None] + w - 1
    return apart[..., 0] * (2 * w - 1) + apart[..., 1]


def _regions(side, w, shift):
    """A number for each pixel, before the shift: which end it comes from."""
    line = (np.arange(side) < shift).astype(int)
    return (2 * line[:, None] + line[None])[..., None]


class Stage(eqx.Module):
    """Window blocks, then FiLM; all but the first begin by joining 2 x 2 tokens."""

    join: eqx.nn.Linear | None
    blocks: list[WindowBlock]
    film: Film

    def __init__(
        self,
        side: int,
        inputs: int,
        width: int,
        depth: int,
        heads: int,
        told: int,
        key: PRNGKeyArray,
    ) -> None:
        keys = jax.random.split(key, depth + 2)
        joins = inputs != width
        self.join = eqx.nn.Linear(4 * inputs, width, key=keys[0]) if joins else None
        self.blocks = [
            WindowBlock(side, width, heads, bool(i % 2), k) for i, k in enumerate(keys[2:])
        ]
        self.film = Film(told, width, keys[1])

    def __call__(self, z: Float[Array, "n n inputs"], e: Array) -> Array:
        if self.join is not None:
            n = z.shape[0] // 2
            z = z.reshape(n, 2, n, 2, -1).swapaxes(1, 2).reshape(n, n, -1)
            z = each(self.join, z)
        for block in self.blocks:
            z = block(z)
        side, width = z.shape[0], z.shape[2]
        return self.film(z.reshape(-1, width), e).reshape(side, side, width)


class Swin(eqx.Module):
    """Stems, four stages, and a pool for each, whose queries are put end to end.

    Args:
        grid: pixels along a side, a multiple of 32; every stage must divide into windows of 7, or
            be one window.
        queries: how many.
        channels: of the stems; widths are 2, 4, 8 and 16 times that.
        depths: blocks of the stages.
        heads: of the stages.

    Raises:
        InputError: a grid that cannot be divided.
    """

    stems: tuple[Stem, Stem, Stem, Stem]
    blend: eqx.nn.Conv2d
    norm: eqx.nn.GroupNorm
    operator: eqx.nn.Linear
    statistics: eqx.nn.Linear
    stages: tuple[Stage, ...]
    pools: tuple[Pool, ...]
    outputs: int = eqx.field(static=True)

    def __init__(
        self,
        grid: int,
        queries: int,
        *,
        key: PRNGKeyArray,
        channels: int = 64,
        depths: tuple[int, ...] = (2, 2, 10, 2),
        heads: tuple[int, ...] = (4, 8, 8, 16),
    ) -> None:
        sides = [grid // 4 // 2**i for i in range(len(depths))]
        fits = all(side % _WINDOW == 0 or side <= _WINDOW for side in sides)
        if grid % (4 * 2 ** (len(depths) - 1)) or not fits:
            raise InputError(
                f"grid={grid}: the stages would have {sides} tokens along a side, which do not "
                f"divide into windows of {_WINDOW}. Use 224, or 32 or 56 with fewer stages."
            )
        keys = jax.random.split(key, 8)
        stem = lambda n, key, end=jax.nn.gelu: Stem(n, channels, key, end)
        self.stems = (
            stem(2, keys[0]), stem(2, keys[1], jnp.tanh), stem(22, keys[2]), stem(11, keys[3])
        )  # fmt: skip
        width = 2 * channels
        self.blend = eqx.nn.Conv2d(width, width, 1, key=keys[4])
        self.norm = eqx.nn.GroupNorm(8, width)
        self.operator = eqx.nn.Linear(55, 96, key=keys[5])
        self.statistics = eqx.nn.Linear(12 * 10, 32, key=keys[6])
        widths = [width * 2**i for i in range(len(depths))]
        more = jax.random.split(keys[7], 2 * len(depths))
        self.stages = tuple(
            Stage(side, widths[max(0, i - 1)], w, depth, head, 128, more[i])
            for i, (side, w, depth, head) in enumerate(zip(sides, widths, depths, heads))
        )
        self.pools = tuple(
            Pool(queries, w, head, k) for w, head, k in zip(widths, heads, more[len(depths) :])
        )
        self.outputs = sum(widths)

    def __call__(self, c: Float[Array, " 5"], images: Images) -> Float[Array, "queries outputs"]:
        f, g, h = images.values
        values = jnp.stack([g, h, signed_log(f)])
        masks = images.masks[1:]
        waves = lambda v: jnp.moveaxis(fourier(jnp.moveaxis(v, 0, -1)), -1, 0)
        plain, gate, bounds, source = self.stems
        boundary = plain(masks) + gate(masks) * bounds(waves(values[:2]))
        z = jnp.concatenate([boundary, source(waves(values[2:]))])
        side = z.shape[-1]
        at = positions(side, z.shape[0]).astype(z.dtype).T.reshape(z.shape)
        z = jnp.moveaxis(self.norm(self.blend(z + at)), 0, -1)
        e = self._told(c.astype(z.dtype), values)
        pooled = []
        for stage, pool in zip(self.stages, self.pools):
            z = stage(z, e)
            pooled.append(pool(z.reshape(-1, z.shape[-1])))
        return jnp.concatenate(pooled, -1)

    def _told(self, c, values):
        flat = values.reshape(3, -1)
        moments = jnp.stack([flat.mean(1), flat.max(1), flat.min(1), _deviation(flat)]).ravel()
        # Waves of the statistics alone, without the numbers themselves.
        seen = fourier(moments)[moments.size :]
        return jnp.concatenate(
            [jax.nn.gelu(self.operator(fourier(c))), jax.nn.gelu(self.statistics(seen))]
        )


def _deviation(flat):
    variance = jnp.var(flat, 1)
    return jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1)), 0)
