"""The loop of every sampler: one turn for each row of its table."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from .denoiser import Denoiser
from .samplers.base import Evaluate, Plan, Sampler

Callback = Callable[[Any, Any, Any], None]


class Turn(NamedTuple):
    """What the loop scans over: a row, its number, and the key of its random numbers."""

    row: Any
    number: Any
    key: Any


class Record(NamedTuple):
    """What the loop tells of each turn: whether the sample is finite, and itself if asked for."""

    finite: Bool[Array, " turns"]
    sample: Any


def evaluator(denoiser: Denoiser, form: str, condition: PyTree) -> Evaluate:
    """The denoiser as the samplers call it."""
    return lambda x, level: denoiser.predict(form, x, level, condition)


def turns(plan: Plan, key: Any, dtype: Any) -> Turn:
    """The table in the precision of the samples, with a key for each turn if there is one."""

    def convert(part: Any) -> Any:
        floating = jnp.issubdtype(part.dtype, jnp.floating)
        return jnp.asarray(part, dtype) if floating else jnp.asarray(part)

    rows = jax.tree.map(convert, plan.rows)
    count = jax.tree.leaves(rows)[0].shape[0]
    keys = None if key is None else jax.random.split(key, count)
    return Turn(rows, jnp.arange(count), keys)


def take(sampler: Sampler, evaluate: Evaluate, state: Any, turn: Turn) -> Any:
    """The state after one turn."""
    draw = None
    if turn.key is not None:
        x = sampler.sample(state)
        draw = jax.random.normal(turn.key, x.shape, x.dtype)
    return sampler.step(evaluate, state, turn.row, draw)


def body(
    sampler: Sampler, evaluate: Evaluate, keep: bool, callback: Callback | None
) -> Callable[[Any, Turn], tuple[Any, Record]]:
    """One turn as `lax.scan` wants it."""

    def run(state: Any, turn: Turn) -> tuple[Any, Record]:
        state = take(sampler, evaluate, state, turn)
        x = sampler.sample(state)
        if callback is not None:
            jax.debug.callback(callback, turn.number, turn.row.level.t, x)
        return state, Record(jnp.all(jnp.isfinite(x)), x if keep else None)

    return run


def zeros(tree: Any) -> Any:
    """Zeros of the same shapes."""
    return jax.tree.map(jnp.zeros_like, tree)


def filled(cotangent: Any, like: Any) -> Any:
    """The cotangent, with zeros where there is none."""
    return jax.tree.map(
        lambda c, x: jnp.zeros_like(x) if c is None else c,
        cotangent,
        like,
        is_leaf=lambda x: x is None,
    )
