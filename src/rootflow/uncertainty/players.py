"""Networks for generators of traces: layers for coefficients, convolutions for images."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


def leaky(x: Array) -> Array:
    """Leaky rectifier with slope 0.2."""
    return jax.nn.leaky_relu(x, 0.2)


class Layers(eqx.Module):
    """A multilayer perceptron for one sample, told a condition beside it."""

    inner: eqx.nn.MLP

    def __init__(
        self, size: int, out: int, width: int, depth: int, told: int, key: PRNGKeyArray
    ) -> None:
        self.inner = eqx.nn.MLP(size + told, out, width, depth, leaky, key=key, dtype=jnp.float32)

    def __call__(self, x: Float[Array, " size"], told: Array | None) -> Float[Array, " out"]:
        return self.inner(x if told is None else jnp.concatenate([x, told]))


class ImageGenerator(eqx.Module):
    """From noise to an image: a small one, made larger by repetition and convolution.

    Repetition with a convolution rather than a transposed convolution, which leaves a chequered
    pattern.
    """

    first: eqx.nn.Linear
    layers: list[eqx.nn.Conv2d]
    last: eqx.nn.Conv2d
    start: tuple[int, int, int] = eqx.field(static=True)
    shape: tuple[int, int, int] = eqx.field(static=True)

    def __init__(
        self, latent: int, shape: tuple[int, int, int], width: int, told: int, key: PRNGKeyArray
    ) -> None:
        levels = 3
        keys = jax.random.split(key, levels + 2)
        channels = [max(width // 2**i, 8) for i in range(levels + 1)]
        small = math.ceil(shape[1] / 2**levels), math.ceil(shape[2] / 2**levels)
        self.start, self.shape = (channels[0], *small), shape
        self.first = eqx.nn.Linear(
            latent + told, channels[0] * small[0] * small[1], key=keys[0], dtype=jnp.float32
        )
        self.layers = [
            eqx.nn.Conv2d(a, b, 3, padding=1, key=k, dtype=jnp.float32)
            for a, b, k in zip(channels[:-1], channels[1:], keys[1:-1])
        ]
        self.last = eqx.nn.Conv2d(
            channels[-1], shape[0], 3, padding=1, key=keys[-1], dtype=jnp.float32
        )

    def __call__(self, z: Array, told: Array | None) -> Float[Array, "components times nodes"]:
        z = z if told is None else jnp.concatenate([z, told])
        h = leaky(self.first(z)).reshape(self.start)
        for layer in self.layers:
            h = leaky(layer(jnp.repeat(jnp.repeat(h, 2, axis=1), 2, axis=2)))
        out = self.last(h)[:, : self.shape[1], : self.shape[2]]
        return out - out[:, :1]  # at rest at first, as the traces are


class ImageCritic(eqx.Module):
    """From an image to a number: convolutions with strides, without normalisation."""

    layers: list[eqx.nn.Conv2d]
    last: eqx.nn.Linear

    def __init__(
        self, shape: tuple[int, int, int], width: int, told: int, key: PRNGKeyArray
    ) -> None:
        keys = jax.random.split(key, 4)
        channels = [shape[0], max(width // 4, 8), max(width // 2, 8), width]
        self.layers = [
            eqx.nn.Conv2d(a, b, 3, stride=2, padding=1, key=k, dtype=jnp.float32)
            for a, b, k in zip(channels[:-1], channels[1:], keys)
        ]
        times, nodes = shape[1:]
        for _ in self.layers:
            times, nodes = -(-times // 2), -(-nodes // 2)
        self.last = eqx.nn.Linear(width * times * nodes + told, 1, key=keys[3], dtype=jnp.float32)

    def __call__(self, x: Array, told: Array | None) -> Float[Array, " 1"]:
        for layer in self.layers:
            x = leaky(layer(x))
        flat = x.reshape(-1)
        return self.last(flat if told is None else jnp.concatenate([flat, told]))


def generator_for(
    size: tuple[int, ...], latent: int, width: int, depth: int, told: int, key: PRNGKeyArray
) -> Any:
    """A network from noise (latent,) to codes of this shape."""
    if len(size) == 1:
        return Layers(latent, size[0], width, depth, told, key)
    return ImageGenerator(latent, size, width, told, key)  # pyright: ignore


def critic_for(size: tuple[int, ...], width: int, depth: int, told: int, key: PRNGKeyArray) -> Any:
    """A network from codes of this shape to one number."""
    if len(size) == 1:
        return Layers(size[0], 1, width, depth, told, key)
    return ImageCritic(size, width, told, key)  # pyright: ignore
