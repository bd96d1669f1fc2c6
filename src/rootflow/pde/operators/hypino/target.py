"""The network that is generated: a gated network of Fourier features of two coordinates."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ...informed.networks import tanh

_MODES = 5
FEATURES = 2 * (2 * _MODES + 1)


def fourier(x: Float[Array, "... d"]) -> Float[Array, "... 11d"]:
    """sin and cos of 2π 0.1 2^k x, k = 0...4, for each component, and x itself."""
    # Small products and double angles instead of ten transcendental functions.
    s, c = jnp.sin(0.2 * jnp.pi * x), jnp.cos(0.2 * jnp.pi * x)
    parts = [x, s, c]
    for _ in range(_MODES - 1):
        s, c = 2 * s * c, 1 - 2 * s * s
        parts += [s, c]
    return jnp.concatenate(parts, -1)


def sizes(width: int, depth: int) -> tuple[tuple[int, int], ...]:
    """The shapes of the matrices: three from the features, `depth` gated ones, the last."""
    return ((FEATURES, width),) * 3 + ((width, width),) * depth + ((width, 1),)


class Target(eqx.Module):
    """u(x, y) = s (h W_o + b_o), a gated network (Wang, Teng and Perdikaris 2021) of `fourier`.

    U, V and h begin as tanh layers of the features; each further layer takes U h + V (1 - h).
    A scalar function of one point of shape (2,); `many` takes (n, 2).

    Attributes:
        matrices: with the shapes of `sizes`.
        biases: one for each.
        scale: s.
    """

    matrices: tuple[Float[Array, "rows columns"], ...]
    biases: tuple[Float[Array, " columns"], ...]
    scale: Float[Array, ""]

    @classmethod
    def random(cls, key: PRNGKeyArray, *, width: int = 16, depth: int = 2) -> "Target":
        """Glorot's weights and no biases: a plain network, to compare with."""
        shapes = sizes(width, depth)
        keys = jax.random.split(key, len(shapes))
        matrices = tuple(
            math.sqrt(2 / sum(shape)) * jax.random.normal(one, shape)
            for one, shape in zip(keys, shapes)
        )
        return cls(matrices, tuple(jnp.zeros(n) for _, n in shapes), jnp.ones(()))

    def many(self, x: Float[Array, "n 2"]) -> Float[Array, " n"]:
        """At many points."""
        seen = fourier(x)
        (w1, w2, w3, *inner, last), (b1, b2, b3, *shifts, end) = self.matrices, self.biases
        u, v, h = tanh(seen @ w1 + b1), tanh(seen @ w2 + b2), tanh(seen @ w3 + b3)
        for w, b in zip(inner, shifts):
            h = tanh((v + (u - v) * h) @ w + b)
        return self.scale * (h @ last + end)[:, 0]

    def __call__(self, x: Float[Array, " 2"]) -> Float[Array, ""]:
        return self.many(x[None])[0]
