"""The loop of every sampler: one turn for each row of its table."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from .._typing import PyTree
from ..ground.programs import Behaviour
from . import starts
from .denoiser import Denoiser
from .hooks import Arrival, Hooks, Renoise
from .predictions import convert
from .samplers.base import Evaluate, Plan, Sampler


class Turn(NamedTuple):
    """What the loop scans over: a row, its number, and the key of its random numbers.

    With hooks also noise that goes in before the turn, and where the step that it may end arrives.
    """

    row: Any
    number: Any
    key: Any
    before: Renoise | None = None
    arrival: Arrival | None = None


class Record(NamedTuple):
    """What the loop tells of each turn: whether the sample is finite, and itself if asked for."""

    finite: Bool[Array, " turns"]
    sample: Any


def evaluator(denoiser: Denoiser, sampler: Sampler | str, condition: PyTree) -> Any:
    """The denoiser as the sampler calls it, or in this form."""
    if isinstance(sampler, Sampler) and sampler.learns_variance:
        return lambda x, level: denoiser.predict_with_variance(sampler.form, x, level, condition)
    form = sampler if isinstance(sampler, str) else sampler.form
    return lambda x, level: denoiser.predict(form, x, level, condition)


def behaviour(denoiser: Denoiser, condition: PyTree, x: Any, change: Any = None) -> Behaviour:
    """What the denoiser does with x, and what is done to x after every step."""
    time = jnp.zeros((), x.dtype)
    return Behaviour(
        (denoiser.noise, (x, time, condition)), (change, (jnp.zeros((), jnp.int32), time, x, x))
    )


def turns(plan: Plan, key: Any, dtype: Any) -> Turn:
    """The table in the precision of the samples, with a key for each turn if there is one."""
    rows = as_table(plan.rows, dtype)
    count = jax.tree.leaves(rows)[0].shape[0]
    keys = None if key is None else starts.split(key, count)
    return Turn(rows, jnp.arange(count), keys)


def as_table(rows: Any, dtype: Any) -> Any:
    """The numbers of a table in JAX, those with a fraction in this precision."""

    def convert(part: Any) -> Any:
        floating = jnp.issubdtype(part.dtype, jnp.floating)
        return jnp.asarray(part, dtype) if floating else jnp.asarray(part)

    return jax.tree.map(convert, rows)


def take(sampler: Sampler, evaluate: Evaluate, state: Any, turn: Turn) -> Any:
    """The state after one turn."""
    draw = None
    if turn.key is not None:
        x = sampler.sample(state)
        draw = starts.normal(turn.key, x.shape, x.dtype)
    return sampler.step(evaluate, state, turn.row, draw)


def body(
    sampler: Sampler, evaluate: Evaluate, keep: bool, hooks: Hooks | None
) -> Callable[[Any, Turn], tuple[Any, Record]]:
    """One turn as `lax.scan` wants it."""
    if hooks is None:
        hooks = Hooks()

    def run(state: Any, turn: Turn) -> tuple[Any, Record]:
        seen: list[Array] = []

        def watched(x: Array, level: Any) -> Any:
            value = evaluate(x, level)
            if not seen:
                said = value[0] if sampler.learns_variance else value
                seen.append(convert(said, x, level, sampler.form, "data"))
            return value

        if turn.before is not None:
            state = hooks.renoise(sampler, state, turn.before)
        ask = evaluate if hooks.change is None else watched
        state = take(sampler, ask, state, turn)
        if turn.arrival is not None:
            state = hooks.arrive(sampler, state, turn.arrival, seen[0] if seen else None)
        x = sampler.sample(state)
        tell(hooks, turn, x)
        return state, Record(jnp.all(jnp.isfinite(x)), x if keep else None)

    return run


def tell(hooks: Hooks, turn: Turn, x: Array) -> None:
    """Calls back to the user after a turn, if that was asked for."""
    if hooks.progress is not None:
        jax.debug.callback(hooks.progress, turn.number, turn.row.level.t, x)


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
