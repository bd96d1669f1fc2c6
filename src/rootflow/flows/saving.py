"""What is kept of a solve: saved times, accepted steps, dense output."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .interpolation import Dense, Steps, polynomial
from .problem import Inputs, Outcome, Setup


def steps_of(setup: Setup, x: Inputs, out: Outcome) -> Steps:
    """The accepted steps."""
    assert out.rows is not None and out.last is not None
    direction = jnp.where(x.t1 < x.t0, -1.0, 1.0).astype(x.t0.dtype)
    rows = out.rows
    start = setup.method.lift(setup.f, x.t0, x.y0, x.args)
    return Steps(rows.t, rows.h, rows.y, out.last, direction, x.t0, out.t, start)


def accepted(setup: Setup, out: Outcome) -> tuple[Array, Array]:
    """The end of every accepted step, in order, padded with NaN."""
    rows = out.rows
    assert rows is not None and rows.y is not None
    # Under vmap a member has idle rows between its steps: bring its own steps to the front.
    order = jnp.argsort(rows.h == 0, stable=True)
    index = jnp.arange(rows.t.shape[0])
    live, last = index < out.accepted, index == out.accepted - 1
    ts = jnp.where(last, out.t, jnp.roll(rows.t[order], -1))
    ys = jnp.where(
        last[:, None],
        out.y,
        jnp.roll(jax.vmap(setup.method.project)(rows.y[order]), -1, axis=0),
    )
    return jnp.where(live, ts, jnp.nan), jnp.where(live[:, None], ys, jnp.nan)


def _interpolant(setup: Setup, args, t, h, y) -> Float[Array, "degree n"]:
    method = setup.method
    state = method.init(setup.f, t, y, args)
    return method.coefficients(h, y, method.step(setup.f, t, y, h, args, state))


def dense_output(setup: Setup, x: Inputs, out: Outcome, unravel: Callable) -> Dense:
    """The interpolant of every step."""
    steps = steps_of(setup, x, out)
    # Beyond the last step there is nothing to evaluate the vector field at: repeat the last one.
    row = jnp.minimum(jnp.arange(steps.starts.shape[0]), jnp.maximum(steps.last, 0))

    def piece(row):
        t, y = steps.start(row)
        return _interpolant(setup, x.args, t, steps.sizes[row], y)

    coefficients = jax.vmap(jax.vmap(unravel))(jax.vmap(piece)(row))
    project = setup.method.project
    states = (jax.vmap(lambda z: unravel(project(z)))(steps.states), unravel(x.y0))
    return Dense(eqx.tree_at(lambda s: (s.states, s.y0), steps, states), coefficients)


def saved_at(setup: Setup, x: Inputs, out: Outcome, ts: Array) -> Array:
    """The solution at the times `ts`: the stages of the steps that cover them, once more."""
    steps = steps_of(setup, x, out)

    def at(t):
        row, s = steps.locate(t)
        start, y = steps.start(row)
        value = polynomial(
            setup.method.project(y), _interpolant(setup, x.args, start, steps.sizes[row], y), s
        )
        return jnp.where(steps.covers(t), value, jnp.nan)

    return jax.vmap(at)(ts)
