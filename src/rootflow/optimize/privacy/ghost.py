"""Clipping without a gradient for each record, for networks of dense layers.

The gradient of a record in a dense layer is the outer product of the layer's input a and of the
back-propagated signal s, so its norm is known from the two, and the clipped sum is one product of
matrices (Goodfellow, 2015; Li, Tramer, Liang and Hashimoto, 2022). The change between two points is

    a' s'^T - a s^T = (a' - a) m(s)^T + m(a) (s' - s)^T,    m the mean of the two,

which keeps its accuracy where the points are close: the difference of the norms and inner products
of the gradients themselves would leave round-off there, and a norm that comes out too small is a
clip that does not hold.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from ...errors import InputError
from . import checks
from .messages import clip_factors

Layer = tuple[Float[Array, "inputs outputs"], Float[Array, " outputs"]]

_ROUND_OFF = 16.0  # spacings, with a margin, by which a squared norm can come out too small


class DenseLoss(eqx.Module):
    """The loss of a network of dense layers, whose records are clipped without their gradients.

    It is a loss `loss(params, record)` like any other. `diff2`, `dp_gradient_descent`, `dp_sgd` and
    `message` recognise it and need the memory of one gradient instead of one for each record.

    Args:
        outer: `outer(output, target)`, a number for one record, from the output of the network, a
            vector.
        activation: between layers.

    The parameters are a sequence of (weight, bias), of shapes (inputs, outputs) and (outputs,), for
    instance from `init`. A record is (input, target), the input a vector.
    """

    outer: Callable[[Any, Any], Any] = eqx.field(static=True)
    activation: Callable[[Any], Any] = eqx.field(static=True, default=jax.nn.softplus)

    def init(self, key: PRNGKeyArray, sizes: Sequence[int]) -> tuple[Layer, ...]:
        """Layers of these sizes: weights with variance 1 / inputs, biases zero.

        Args:
            key: of the weights.
            sizes: of the input, the hidden layers and the output.

        Raises:
            InputError: fewer than two sizes.
        """
        if len(sizes) < 2:
            raise InputError(f"sizes must have those of the input and the output; got {sizes!r}.")
        sizes = [checks.whole("a size", size) for size in sizes]
        keys = jax.random.split(key, len(sizes) - 1)
        return tuple(
            (jax.random.normal(k, (n, m)) / jnp.sqrt(float(n)), jnp.zeros(m))
            for k, n, m in zip(keys, sizes[:-1], sizes[1:])
        )

    def output(self, params: Sequence[Layer], x: Float[Array, "... n"]) -> Float[Array, "... m"]:
        """The output of the network."""
        _check(params)
        for i, (weight, bias) in enumerate(params):
            x = (self.activation(x) if i else x) @ weight + bias
        return x

    def __call__(self, params: Sequence[Layer], record: tuple[Any, Any]) -> Any:
        """The loss of one record."""
        x, target = record
        return self.outer(self.output(params, x), target)

    def clipped_sum(
        self,
        now: Sequence[Layer],
        before: Sequence[Layer] | None,
        records: tuple[Any, Any],
        weights: Float[Array, " n"],
        clip: Any,
    ) -> tuple[tuple[Layer, ...], Float[Array, ""]]:
        """The weighted sum of clipped gradients, or of their changes, and the clipped weight."""
        new = self._signals(now, records)
        old = None if before is None else self._signals(before, records)
        parts = [_product(s) for s in new] if old is None else list(map(_change, new, old))
        squares = sum(part.squares for part in parts)
        keep, factors, clipped = clip_factors(jnp.asarray(squares), clip)
        scaled = (weights * factors)[:, None]
        total = tuple(part.total(scaled, keep[:, None]) for part in parts)
        return total, jnp.sum(weights * clipped)

    def _signals(self, params, records) -> "list[Signals]":
        """The inputs of the layers and the derivatives in what the layers put out."""
        x, targets = records
        probes = [jnp.zeros((x.shape[0], bias.shape[0]), x.dtype) for _, bias in params]

        def total(probes):
            inputs, h = [], x
            for i, ((weight, bias), probe) in enumerate(zip(params, probes)):
                h = self.activation(h) if i else h
                inputs.append(h)
                h = h @ weight + bias + probe
            return jnp.sum(jax.vmap(self.outer)(h, targets)), inputs

        back, inputs = jax.grad(total, has_aux=True)(probes)
        return [Signals(a, s) for a, s in zip(inputs, back)]


class Signals(NamedTuple):
    """Of one layer, for every record: its input and the signal that comes back."""

    inputs: Float[Array, "n inputs"]
    back: Float[Array, "n outputs"]


class Part(NamedTuple):
    """What one layer adds: squared norms by record, and sums of outer products of these pairs."""

    squares: Float[Array, " n"]
    pairs: list[Signals]

    def total(self, scaled: Float[Array, "n 1"], keep: Array) -> Layer:
        """The weighted sum over the records."""
        weight, bias = [], []
        for a, s in self.pairs:
            s = jnp.where(keep, scaled * s, 0)
            a = jnp.where(keep, a, 0)
            weight.append(jnp.matmul(a[:, :-1].T, s, precision=lax.Precision.HIGHEST))
            bias.append(jnp.matmul(a[:, -1], s, precision=lax.Precision.HIGHEST))
        return sum(weight[1:], weight[0]), sum(bias[1:], bias[0])


def _with_one(a: Float[Array, "n inputs"], last: float) -> Float[Array, "n more"]:
    """The bias is the weight of an input that is always one."""
    return jnp.concatenate([a, jnp.full((a.shape[0], 1), last, a.dtype)], axis=1)


def _dot(a, b):
    return jnp.sum(a * b, axis=1)


def _product(signals: Signals) -> Part:
    a, s = _with_one(signals.inputs, 1.0), signals.back
    return Part(_dot(a, a) * _dot(s, s), [Signals(a, s)])


def _change(new: Signals, old: Signals) -> Part:
    step_a = _with_one(new.inputs - old.inputs, 0.0)
    mean_a = _with_one((new.inputs + old.inputs) / 2, 1.0)
    step_s, mean_s = new.back - old.back, (new.back + old.back) / 2
    first = _dot(step_a, step_a) * _dot(mean_s, mean_s)
    second = _dot(mean_a, mean_a) * _dot(step_s, step_s)
    both = 2 * _dot(step_a, mean_a) * _dot(step_s, mean_s)
    # The two may nearly cancel; the norm must not come out smaller than it is.
    size = mean_a.shape[1] + mean_s.shape[1]
    margin = _ROUND_OFF * size**0.5 * jnp.finfo(first.dtype).eps * (first + second)
    squares = jnp.maximum(first + second + both, 0) + margin
    return Part(squares, [Signals(step_a, mean_s), Signals(mean_a, step_s)])


def _check(params: Any) -> None:
    fine = (
        isinstance(params, tuple | list)
        and params
        and all(isinstance(layer, tuple | list) and len(layer) == 2 for layer in params)
    )
    if not fine:
        raise InputError(
            "the parameters of a DenseLoss are a sequence of (weight, bias), as `init` makes them."
        )
