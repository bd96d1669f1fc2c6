"""Networks of coordinates: tanh layers, periodic where the domain is, one branch or several."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ...ground.checks import whole
from ...ground.derivative import custom_jvp


@custom_jvp
def tanh(x: Array) -> Array:
    """tanh, whose derivatives use its value alone: second ones at half the cost of JAX's own."""
    return jnp.tanh(x)


@tanh.defjvp
def _tanh_jvp(primals, tangents):
    y = tanh(primals[0])
    return y, (1 - y * y) * tangents[0]


class Embedding(eqx.Module):
    """Coordinates as a network sees them.

    A periodic one becomes cos and sin of 2π (x - low) / length (the "polar" embedding of Mojgani
    et al. 2022), so that every function of it is periodic with all its derivatives; another one is
    brought to [-1, 1], or, where it is a time, to [0, 1].

    Attributes:
        bounds: (low, high) for each coordinate.
        periodic: the periodic ones, by number.
        times: those that are brought to [0, 1].
    """

    bounds: tuple[tuple[float, float], ...] = eqx.field(static=True)
    periodic: tuple[int, ...] = eqx.field(static=True, default=())
    times: tuple[int, ...] = eqx.field(static=True, default=())

    @property
    def size(self) -> int:
        """How many numbers the network sees."""
        return len(self.bounds) + len(self.periodic)

    def __call__(self, x: Float[Array, " dim"]) -> Float[Array, " size"]:
        parts = []
        for i, (low, high) in enumerate(self.bounds):
            share = (x[i] - low) / (high - low)
            if i in self.periodic:
                parts += [jnp.cos(2 * jnp.pi * share), jnp.sin(2 * jnp.pi * share)]
            else:
                parts.append(share if i in self.times else 2 * share - 1)
        return jnp.stack(parts)


def layers(
    size: int, outputs: int, width: int, depth: int, key: PRNGKeyArray, last: float = 1.0
) -> eqx.nn.MLP:
    """tanh layers with Glorot's initial weights and no biases, the last ones scaled.

    Raises:
        InputError: sizes that are not positive.
    """
    width, depth = whole("width", width), whole("depth", depth)
    made = eqx.nn.MLP(size, outputs, width, depth, tanh, key=key)
    keys = jax.random.split(key, depth + 1)
    weights, biases = [], []
    for i, (layer, one) in enumerate(zip(made.layers, keys)):
        spread = math.sqrt(2 / sum(layer.weight.shape))
        spread *= last if i == depth else 1.0
        weights.append(spread * jax.random.normal(one, layer.weight.shape))
        biases.append(jnp.zeros(layer.out_features))
    made = eqx.tree_at(lambda m: [layer.weight for layer in m.layers], made, weights)
    return eqx.tree_at(lambda m: [layer.bias for layer in m.layers], made, biases)


class Network(eqx.Module):
    """One or several branches of tanh layers, whose outputs are put together.

    Attributes:
        embedding: of the coordinates.
        branches: each of all coordinates.
    """

    embedding: Embedding
    branches: list[eqx.nn.MLP]

    @classmethod
    def random(
        cls,
        key: PRNGKeyArray,
        embedding: Embedding,
        branches: tuple[tuple[int, int, int], ...],
        last: float = 1.0,
    ) -> "Network":
        """Branches given by their outputs, width and depth."""
        keys = jax.random.split(key, len(branches))
        made = [
            layers(embedding.size, outputs, width, depth, one, last)
            for one, (outputs, width, depth) in zip(keys, branches)
        ]
        return cls(embedding, made)

    def __call__(self, x: Float[Array, " dim"]) -> Float[Array, " outputs"]:
        seen = self.embedding(x).astype(self.branches[0].layers[0].weight.dtype)
        outputs: list[Any] = [branch(seen) for branch in self.branches]
        return outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs)
