"""A residual network of fully connected layers."""

import math

import equinox as eqx
import jax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ..errors import InputError
from .embedding import Embedding


class MLP(eqx.Module):
    """Residual layers h + W silu(V h + time and class), for samples of any shape.

    Args:
        shape: of one sample.
        width: of the layers.
        depth: number of layers.
        classes: number of classes; 0 for a network without a condition.
        rates: lowest and highest angular frequency in which the time is seen.
        key: for the initial weights.

    Raises:
        InputError: sizes that are not positive; a sample of another shape; a condition of another
            shape, or where there are no classes.
    """

    first: eqx.nn.Linear
    tells: list[eqx.nn.Linear]
    hidden: list[eqx.nn.Linear]
    last: eqx.nn.Linear
    embedding: Embedding
    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int = 256,
        depth: int = 3,
        *,
        key: PRNGKeyArray,
        classes: int = 0,
        rates: tuple[float, float] = (0.2, 20.0),
    ) -> None:
        for name, value in (("width", width), ("depth", depth)):
            if value < 1:
                raise InputError(f"{name}={value} must be at least 1.")
        keys = jax.random.split(key, 3 + 2 * depth)
        size = math.prod(shape)
        self.shape = tuple(shape)
        self.embedding = Embedding(width, key=keys[0], classes=classes, rates=rates)
        self.first = eqx.nn.Linear(size, width, key=keys[1])
        self.last = _quiet(eqx.nn.Linear(width, size, key=keys[2]))
        self.tells = [eqx.nn.Linear(width, width, key=k) for k in keys[3 : 3 + depth]]
        self.hidden = [eqx.nn.Linear(width, width, key=k) for k in keys[3 + depth :]]

    def __call__(
        self, x: Float[Array, "batch ..."], time: ArrayLike, condition: ArrayLike | None = None
    ) -> Float[Array, "batch ..."]:
        """The prediction at x and a time of shape () or (batch,)."""
        if x.shape[1:] != self.shape:
            raise InputError(f"This network takes samples of shape {self.shape}; got {x.shape}.")
        told = self.embedding(x, time, condition)
        h = jax.vmap(self.first)(x.reshape(x.shape[0], -1))
        for tell, layer in zip(self.tells, self.hidden):
            h = h + jax.vmap(layer)(jax.nn.silu(h + jax.vmap(tell)(told)))
        return jax.vmap(self.last)(jax.nn.silu(h)).reshape(x.shape)


def _quiet(layer: eqx.nn.Linear) -> eqx.nn.Linear:
    """The layer with small weights: the network begins near zero, the mean of what it predicts."""
    return jax.tree.map(lambda w: 0.1 * w if eqx.is_inexact_array(w) else w, layer)
