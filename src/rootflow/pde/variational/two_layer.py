"""Networks with one hidden layer that satisfy a boundary condition."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ...errors import InputError

Activation = Literal["tanh", "cos", "relu2", "relu3"]
Boundary = Literal["zero", "penalty", "natural"]

ACTIVATIONS: dict[str, Callable[[Any], Array]] = {
    "tanh": jnp.tanh,
    "cos": jnp.cos,
    "relu2": lambda t: jax.nn.relu(t) ** 2,
    "relu3": lambda t: jax.nn.relu(t) ** 3,
}


class TwoLayer(eqx.Module):
    """x -> g(x) (Σ_j a_j σ(w_j·x + b_j) + c), with g = ∏ x_i (1 - x_i), or one.

    Attributes:
        weights: w, shape (width, d).
        biases: b, shape (width,).
        amplitudes: a, shape (width,).
        offset: c.
        activation: the name of σ.
        zero: whether g vanishes on the boundary of the unit cube.
    """

    weights: Float[Array, "width d"]
    biases: Float[Array, " width"]
    amplitudes: Float[Array, " width"]
    offset: Float[Array, ""]
    activation: str = eqx.field(static=True)
    zero: bool = eqx.field(static=True)

    @classmethod
    def random(
        cls, key: PRNGKeyArray, dim: int, width: int, activation: str, zero: bool
    ) -> "TwoLayer":
        """Normal weights of variance about one, kinks and phases spread over the cube."""
        kw, kb, ka = jax.random.split(key, 3)
        spread = {"tanh": 2.0, "cos": 2 * jnp.pi}.get(activation, 1.0)
        w = spread * jax.random.normal(kw, (width, dim))
        if activation == "cos":
            b = 2 * jnp.pi * jax.random.uniform(kb, (width,))
        else:  # so that w·x + b changes its sign at a point of the cube
            b = -jnp.sum(w * jax.random.uniform(kb, (width, dim)), axis=1)
        a = jax.random.normal(ka, (width,)) / jnp.sqrt(width)
        return cls(w, b, a, jnp.zeros(()), activation, zero)

    def at(self, x: Float[Array, " d"]) -> Array:
        """The value at one point."""
        hidden = ACTIVATIONS[self.activation](self.weights @ x + self.biases)
        value = self.amplitudes @ hidden + self.offset
        return value * jnp.prod(x * (1 - x)) if self.zero else value

    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
        """Values at points, shape (..., d).

        Raises:
            InputError: another last axis.
        """
        x = jnp.asarray(x)
        d = self.weights.shape[1]
        if x.ndim == 0 or x.shape[-1] != d:
            raise InputError(f"x must have shape (..., {d}), a point each; got {x.shape}.")
        return jax.vmap(self.at)(x.reshape(-1, d)).reshape(x.shape[:-1])

    def path_norm(self) -> Array:
        """Σ |a_j| (1 + |w_j|) for cosines, Σ |a_j| (|w_j| + |b_j|)^k otherwise (k of ReLU^k).

        Of the network without its boundary factor. The first bounds the spectral Barron norm; the
        second is that of E, Ma and Wu (2022) and is another one.
        """
        size = jnp.linalg.norm(self.weights, axis=1)
        if self.activation == "cos":
            return jnp.sum(jnp.abs(self.amplitudes) * (1 + size))
        power = {"relu2": 2, "relu3": 3}.get(self.activation, 1)
        return jnp.sum(jnp.abs(self.amplitudes) * (size + jnp.abs(self.biases)) ** power)
