"""Networks as vector fields: `field(t, y, args)`, for any solver of the package."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from . import checks


def lipswish(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """0.909 x sigmoid(x): smooth, and nowhere steeper than 1.

    Source: Chen, Behrmann, Duvenaud & Jacobsen, "Residual flows for invertible generative modeling"
    (2019).
    """
    return 0.909 * jax.nn.silu(x)


class MLPField(eqx.Module):
    """A multilayer perceptron of the state, and of the time unless it is left out.

    With `bounded`, `scale * tanh(MLP)` with a learnt scale: steps stay large while it is trained.

    Args:
        size: d, the length of the state.
        width: of the hidden layers.
        depth: hidden layers.
        activation: smooth, so that adaptive steps stay large.
        time: whether the field depends on the time.
        bounded: as above.
        key: for the initial weights.
        dtype: of the weights. Default: JAX's.

    Raises:
        InputError: sizes that are not positive whole numbers.
    """

    mlp: eqx.nn.MLP
    scale: Float[Array, ""] | None
    time: bool = eqx.field(static=True)

    def __init__(
        self,
        size: int,
        *,
        width: int = 64,
        depth: int = 2,
        activation: Callable[..., Any] = jax.nn.softplus,
        time: bool = True,
        bounded: bool = False,
        key: PRNGKeyArray,
        dtype: Any = None,
    ) -> None:
        checks.whole("size", size)
        checks.whole("width", width)
        checks.whole("depth", depth, 0)
        self.mlp = eqx.nn.MLP(size + time, size, width, depth, activation, dtype=dtype, key=key)
        self.scale = jnp.ones((), dtype or jnp.result_type(float)) if bounded else None
        self.time = time

    def __call__(self, t: Any, y: Float[Array, " d"], args: Any = None) -> Float[Array, " d"]:
        out = self.mlp(with_time(t, y) if self.time else y)
        return out if self.scale is None else self.scale * jnp.tanh(out)


class MatrixField(eqx.Module):
    """A network from the state to a matrix, for controls and for general noise.

    `scale * tanh(MLP)`, without the scale unless `scaled`.

    Args:
        size: h, the length of the state.
        channels: c, of the control or the noise.
        width: of the hidden layers.
        depth: hidden layers.
        activation: of the hidden layers.
        time: whether the field depends on the time.
        scaled: a learnt factor for the whole.
        key: for the initial weights.
        dtype: of the weights. Default: JAX's.
    """

    mlp: eqx.nn.MLP
    scale: Float[Array, ""] | None
    shape: tuple[int, int] = eqx.field(static=True)
    time: bool = eqx.field(static=True)

    def __init__(
        self,
        size: int,
        channels: int,
        *,
        width: int = 64,
        depth: int = 1,
        activation: Callable[..., Any] = jax.nn.softplus,
        time: bool = False,
        scaled: bool = False,
        key: PRNGKeyArray,
        dtype: Any = None,
    ) -> None:
        self.shape = (checks.whole("size", size), checks.whole("channels", channels))
        checks.whole("width", width)
        self.mlp = eqx.nn.MLP(
            size + time, size * channels, width, depth, activation, jnp.tanh, dtype=dtype, key=key
        )
        self.scale = jnp.ones((), dtype or jnp.result_type(float)) if scaled else None
        self.time = time

    def __call__(self, t: Any, y: Float[Array, " h"], args: Any = None) -> Float[Array, "h c"]:
        out = self.mlp(with_time(t, y) if self.time else y).reshape(self.shape)
        return out if self.scale is None else self.scale * out


class ConcatSquash(eqx.Module):
    """A linear layer gated and shifted by the time: (W y + b) sigmoid(p t + q) + r t.

    Source: Grathwohl, Chen, Bettencourt, Sutskever & Duvenaud, "FFJORD: free-form continuous
    dynamics for scalable reversible generative models" (2019).
    """

    linear: eqx.nn.Linear
    gate: eqx.nn.Linear
    shift: eqx.nn.Linear

    def __init__(self, size: int, out: int, *, key: PRNGKeyArray, dtype: Any = None) -> None:
        a, b, c = jax.random.split(key, 3)
        self.linear = eqx.nn.Linear(size, out, dtype=dtype, key=a)
        self.gate = eqx.nn.Linear(1, out, dtype=dtype, key=b)
        self.shift = eqx.nn.Linear(1, out, use_bias=False, dtype=dtype, key=c)

    def __call__(self, t: Any, y: Float[Array, " d"]) -> Float[Array, " out"]:
        t = jnp.asarray(t, y.dtype).reshape(1)
        return self.linear(y) * jax.nn.sigmoid(self.gate(t)) + self.shift(t)


class ConcatSquashField(eqx.Module):
    """`ConcatSquash` layers with tanh between them, for continuous normalising flows.

    Args:
        size: d, the length of the state.
        width: of the hidden layers.
        depth: hidden layers.
        key: for the initial weights.
        dtype: of the weights. Default: JAX's.
    """

    layers: list[ConcatSquash]

    def __init__(
        self, size: int, *, width: int = 64, depth: int = 2, key: PRNGKeyArray, dtype: Any = None
    ) -> None:
        checks.whole("size", size)
        checks.whole("width", width)
        sizes = [size] + [width] * checks.whole("depth", depth, 0) + [size]
        keys = jax.random.split(key, depth + 1)
        self.layers = [
            ConcatSquash(a, b, key=k, dtype=dtype) for a, b, k in zip(sizes, sizes[1:], keys)
        ]

    def __call__(self, t: Any, y: Float[Array, " d"], args: Any = None) -> Float[Array, " d"]:
        for layer in self.layers[:-1]:
            y = jnp.tanh(layer(t, y))
        return self.layers[-1](t, y)


def with_time(t: Any, y: Float[Array, " d"]) -> Float[Array, " d1"]:
    """The time before the state, in one vector."""
    return jnp.append(jnp.asarray(t, y.dtype).reshape(1), y)


def follow(t: Any, y: Any, field: Callable[..., Any]) -> Any:
    """A field that is handed to the solver as an argument, so that its weights are traced."""
    return field(t, y, None)
