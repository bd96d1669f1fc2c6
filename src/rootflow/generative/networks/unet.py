"""A small U-Net for images."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ...errors import InputError
from ...networks import Embedding

Images = Float[Array, "batch height width channels"]


class _Convolution(eqx.Module):
    """A 3 x 3 convolution as one matrix product with the nine neighbours of every pixel.

    Training runs in a loop, and inside a loop XLA's own convolution has no fast path on a CPU: this
    one is about ten times as fast there.
    """

    kernel: Float[Array, "inputs outputs"]
    offset: Float[Array, " outputs"]

    def __init__(self, inward: int, outward: int, *, key: PRNGKeyArray, size: float = 1.0) -> None:
        bound = size / math.sqrt(9 * inward)
        shape = (9 * inward, outward)
        self.kernel = jax.random.uniform(key, shape, minval=-bound, maxval=bound)
        self.offset = jnp.zeros(outward)

    def __call__(self, x: Images) -> Images:
        _, h, w, _ = x.shape
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        around = [x[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
        return jnp.concatenate(around, axis=-1) @ self.kernel + self.offset


class _Norm(eqx.Module):
    """Group normalisation (Wu and He 2018), in at most eight groups."""

    scale: Float[Array, " channels"]
    shift: Float[Array, " channels"]

    def __init__(self, channels: int) -> None:
        self.scale, self.shift = jnp.ones(channels), jnp.zeros(channels)

    def __call__(self, x: Images) -> Images:
        n, h, w, c = x.shape
        groups = max(k for k in range(1, min(8, c) + 1) if c % k == 0)
        parts = x.reshape(n, h * w, groups, c // groups)
        parts = parts - parts.mean((1, 3), keepdims=True)
        parts = parts * jax.lax.rsqrt(jnp.mean(parts**2, (1, 3), keepdims=True) + 1e-5)
        return parts.reshape(x.shape) * self.scale + self.shift


class _Block(eqx.Module):
    """Two convolutions with the time and the class between them, beside a straight way through."""

    norms: tuple[_Norm, _Norm]
    convolutions: tuple[_Convolution, _Convolution]
    tell: eqx.nn.Linear
    pass_on: eqx.nn.Linear

    def __init__(self, inward: int, outward: int, width: int, *, key: PRNGKeyArray) -> None:
        keys = jax.random.split(key, 4)
        self.norms = (_Norm(inward), _Norm(outward))
        self.convolutions = (
            _Convolution(inward, outward, key=keys[0]),
            _Convolution(outward, outward, key=keys[1]),
        )
        self.tell = eqx.nn.Linear(width, 2 * outward, key=keys[2])
        self.pass_on = eqx.nn.Linear(inward, outward, use_bias=False, key=keys[3])

    def __call__(self, x: Images, told: Float[Array, "batch width"]) -> Images:
        h = self.convolutions[0](jax.nn.silu(self.norms[0](x)))
        # After the norm, which would take an offset of a channel away again.
        scale, shift = jnp.split(jax.vmap(self.tell)(told)[:, None, None], 2, axis=-1)
        h = self.convolutions[1](jax.nn.silu(self.norms[1](h) * (1 + scale) + shift))
        return x @ self.pass_on.weight.T + h


class UNet(eqx.Module):
    """Convolutions down to a coarser picture and up again, with what was left out brought back.

    Args:
        shape: of one sample, (channels, height, width); or (height, width) for one channel.
        features: channels at each resolution, from fine to coarse; each is half as fine as the one
            before, so that height and width must be divisible by 2^(levels - 1).
        classes: number of classes; 0 for a network without a condition.
        rates: lowest and highest angular frequency in which the time is seen.
        key: for the initial weights.

    Raises:
        InputError: sizes that do not go together; a sample of another shape; a condition of another
            shape, or where there are no classes.
    """

    embedding: Embedding
    first: _Convolution
    down: list[_Block]
    middle: _Block
    up: list[_Block]
    norm: _Norm
    last: _Convolution
    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, ...],
        features: tuple[int, ...] = (24, 48),
        *,
        key: PRNGKeyArray,
        classes: int = 0,
        rates: tuple[float, float] = (0.2, 20.0),
    ) -> None:
        if len(shape) not in (2, 3):
            raise InputError(f"shape={shape} must be (channels, height, width) or (height, width).")
        channels = 1 if len(shape) == 2 else shape[0]
        if not features or min(features) < 1:
            raise InputError(f"features={features} must be one or more positive numbers.")
        coarsest = 2 ** (len(features) - 1)
        if any(n % coarsest for n in shape[-2:]):
            raise InputError(
                f"With {len(features)} resolutions height and width must be divisible by "
                f"{coarsest}; got {shape[-2:]}."
            )
        width = 4 * features[0]
        keys = iter(jax.random.split(key, 4 + 2 * len(features)))
        self.shape = tuple(shape)
        self.embedding = Embedding(width, key=next(keys), classes=classes, rates=rates)
        self.first = _Convolution(channels, features[0], key=next(keys))
        before = (features[0], *features[:-1])
        self.down = [_Block(a, b, width, key=next(keys)) for a, b in zip(before, features)]
        self.middle = _Block(features[-1], features[-1], width, key=next(keys))
        self.up = [
            _Block(2 * b, a, width, key=next(keys)) for a, b in zip(before[::-1], features[::-1])
        ]
        self.norm = _Norm(features[0])
        # The network begins near zero, the mean of what it predicts.
        self.last = _Convolution(features[0], channels, key=next(keys), size=0.1)

    def __call__(
        self, x: Float[Array, "batch ..."], time: ArrayLike, condition: ArrayLike | None = None
    ) -> Float[Array, "batch ..."]:
        """The prediction at x and a time of shape () or (batch,)."""
        if x.shape[1:] != self.shape:
            raise InputError(f"This network takes samples of shape {self.shape}; got {x.shape}.")
        told = self.embedding(x, time, condition)
        pictures = x.reshape(x.shape[0], -1, *x.shape[-2:])
        h = self.first(jnp.moveaxis(pictures, 1, -1))
        left = []
        for i, block in enumerate(self.down):
            h = block(h if i == 0 else _coarser(h), told)
            left.append(h)
        h = self.middle(h, told)
        for i, block in enumerate(self.up):
            h = block(jnp.concatenate([h if i == 0 else _finer(h), left[-1 - i]], axis=-1), told)
        h = self.last(jax.nn.silu(self.norm(h)))
        return jnp.moveaxis(h, -1, 1).reshape(x.shape)


def _coarser(x: Images) -> Images:
    """The means of squares of four pixels."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))


def _finer(x: Images) -> Images:
    """Every pixel four times."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
