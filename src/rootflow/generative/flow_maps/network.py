"""A small network of a sample and two times."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ...errors import InputError


class MapMLP(eqx.Module):
    """Fully connected layers that see the sample and the times as plain numbers.

    For few dimensions and times of the order of one.

    Args:
        shape: of one sample.
        width: of the layers.
        depth: hidden layers.
        times: how many times it is called with: 2 for `FlowMap`, 1 for consistency maps.
        dtype: of the parameters.
        key: for the initial weights.
    """

    layers: eqx.nn.MLP
    shape: tuple[int, ...] = eqx.field(static=True)
    times: int = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int = 128,
        depth: int = 3,
        *,
        key: PRNGKeyArray,
        times: int = 2,
        activation: Callable[[Array], Array] = jax.nn.gelu,
        dtype: Any = None,
    ) -> None:
        for name, value in (("width", width), ("depth", depth), ("times", times)):
            if value < 1:
                raise InputError(f"{name}={value} must be at least 1.")
        size = math.prod(shape)
        self.layers = eqx.nn.MLP(
            size + times, size, width, depth, activation=activation, key=key, dtype=dtype
        )
        self.shape, self.times = tuple(shape), times

    def __call__(self, x: Float[Array, "batch ..."], *times: Any) -> Float[Array, "batch ..."]:
        """The value at x and as many times, each of shape () or (batch,)."""
        if x.shape[1:] != self.shape or len(times) != self.times:
            raise InputError(
                f"This network takes samples of shape {self.shape} and {self.times} times; got x "
                f"of shape {x.shape} and {len(times)}."
            )
        told = [jnp.broadcast_to(jnp.asarray(t, x.dtype), x.shape[:1])[:, None] for t in times]
        seen = jnp.concatenate([x.reshape(len(x), -1), *told], axis=1)
        return jax.vmap(self.layers)(seen).reshape(x.shape)
