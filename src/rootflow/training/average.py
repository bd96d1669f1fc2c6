"""Averages of parameters over the steps of a training run."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._typing import PyTree
from ..errors import InputError
from .alike import alike

Decay = Callable[[Array], Array]


def exponential(decay: float) -> Decay:
    """A constant decay, less at the start so that the first parameters are soon forgotten.

    At step n the decay is min(decay, (1 + n) / (10 + n)).

    Raises:
        InputError: a decay outside [0, 1).
    """
    if not 0 <= decay < 1:
        raise InputError(f"the decay of the average must lie in [0, 1), got ema={decay}.")
    return lambda step: jnp.minimum(decay, (1 + step) / (10 + step))


def running_mean(start: int = 0) -> Decay:
    """The plain mean of all parameters after step `start`: stochastic weight averaging.

    Give it as `ema=running_mean(start)` (Izmailov et al. 2018).
    """
    return lambda step: jnp.maximum(step - start, 0) / (jnp.maximum(step - start, 0) + 1)


def decay_of(ema: "float | Decay | None") -> Decay | None:
    """The decay as a function of the step, for what a user gives as `ema`."""
    return alike(ema if ema is None or callable(ema) else exponential(ema))


def averages(tree: PyTree) -> PyTree:
    """What an average of these parameters begins with: themselves, in single precision at least.

    In half precision a decay near 1 would round to 1, or each change to nothing.
    """

    def widened(x):
        return x.astype(wide(x.dtype)) if eqx.is_inexact_array(x) else x

    return jax.tree.map(widened, tree)


def wide(dtype: Any) -> jnp.dtype:
    """The type in which sums over many steps are kept: of single precision at least."""
    return jnp.promote_types(dtype, jnp.float32)


def averaged(old: PyTree, new: PyTree, decay: Array) -> PyTree:
    """`decay * old + (1 - decay) * new` for the inexact arrays; the rest is that of `new`.

    In the precision of `old`, see `averages`.
    """

    def mix(a, b):
        if not eqx.is_inexact_array(b):
            return b
        b = b.astype(a.dtype)
        return b + decay.astype(b.real.dtype) * (a - b)

    return jax.tree.map(mix, old, new)
