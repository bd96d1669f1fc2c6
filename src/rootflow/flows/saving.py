"""What is kept of a solve: saved times, accepted steps, dense output, events."""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..ground import varying
from .attempt import direction_of, lifted, window
from .heuristics import StepPenalty, numbers
from .interpolation import Dense, Steps, polynomial
from .methods import Method
from .problem import Inputs, Outcome, Setup
from .system import Given, System


def steps_of(setup: Setup, x: Inputs, out: Outcome) -> Steps:
    """The accepted steps."""
    assert out.rows is not None and out.last is not None
    rows = out.rows
    return Steps(rows.t, rows.h, rows.y, out.last, direction_of(x), x.t0, out.t, lifted(setup, x))


def accepted(setup: Setup, out: Outcome, args: Given | None = None) -> tuple[Array, Array]:
    """The end of every accepted step, in order, padded with NaN to `max_steps` rows.

    With `args` the rows hold what was observed of the states (see `solve_observed`).
    """
    rows = out.rows
    assert rows is not None and rows.y is not None
    project = setup.methods[0].project
    end = project(out.y)
    if args is not None:
        project, end = (lambda row: row), observe(setup.f, out.t, end, args)
    # A member of a batch has idle rows between its steps: bring its own steps to the front.
    order = jnp.argsort(rows.h == 0, stable=True)
    index = jnp.arange(rows.t.shape[0])
    live, last = index < out.accepted, index == out.accepted - 1
    ts = jnp.where(last, out.t, jnp.roll(rows.t[order], -1))
    ys = jnp.where(last[:, None], end, jnp.roll(jax.vmap(project)(rows.y[order]), -1, 0))
    ts, ys = jnp.where(live, ts, jnp.nan), jnp.where(live[:, None], ys, jnp.nan)
    return ts[: setup.max_steps], ys[: setup.max_steps]


def happened(setup: Setup, x: Inputs, out: Outcome, most: int, hidden: int) -> tuple[Array, ...]:
    """Times, states and indices of the first `most` events, and how many there were.

    The last `hidden` events of those that are watched for are no business of the user's.
    """
    rows, kinds = out.rows, out.kinds
    assert rows is not None and kinds is not None and rows.mark is not None
    assert setup.watch is not None
    states = rows.y
    assert states is not None
    count = len(setup.watch.terminal)
    events = (kinds >= len(setup.methods)) & _live(out)
    events = events & (rows.mark % count < count - hidden)
    order = jnp.argsort(~events, stable=True)[:most]
    live = events[order]

    def end(row):
        row = jnp.where(events[row], row, order[0])
        args = _during(setup, x, out, row)
        return _again(setup, args, kinds[row], rows.t[row], rows.h[row], states[row], _end)

    ys = jax.vmap(end)(order)[:, 0]
    return (
        jnp.where(live, rows.t[order] + rows.h[order], jnp.nan),
        jnp.where(live[:, None], ys, jnp.nan),
        jnp.where(live, rows.mark[order] % count, -1),
        jnp.sum(events),
    )


def step_numbers(
    setup: Setup, x: Inputs, out: Outcome, penalties: tuple[StepPenalty, ...]
) -> Float[Array, "rows k"]:
    """The penalties of each accepted step, in order; zero after the last."""
    rows = out.rows
    assert rows is not None and rows.y is not None
    states = rows.y

    def read(method, h, z, step):
        return numbers(penalties, setup.methods, method, z, step, h, x.args)[None]

    def at(row):
        # Beyond the last step there is nothing to evaluate the vector field at: the start is.
        live, h = rows.h[row] != 0, rows.h[row]
        t, z = jnp.where(live, rows.t[row], x.t0), jnp.where(live, states[row], start)
        return _again(setup, _during(setup, x, out, row), _kind(out, row), t, h, z, read)[0]

    start = lifted(setup, x)
    live = _live(out)
    order = jnp.argsort(~live, stable=True)
    live = live[order]
    return jnp.where(live[:, None], jax.vmap(at)(order), 0.0)[: setup.max_steps]


def _live(out: Outcome) -> Bool[Array, " rows"]:
    """Which rows are accepted steps."""
    assert out.rows is not None and out.last is not None
    return (out.rows.h != 0) & (jnp.arange(out.rows.h.size) <= out.last)


def _end(method: Method, h, z, step) -> Float[Array, "1 n"]:
    return method.project(step.y)[None]


def _interpolant(method: Method, h, z, step) -> Float[Array, "degree n"]:
    return method.coefficients(h, z, step)


def _again(setup: Setup, args, kind: Array | None, t, h, z, read) -> Float[Array, "rows n"]:
    """Takes a step again and reads something off it, whichever method made it.

    Where the methods give different numbers of rows, the missing ones are zero.
    """

    def by(method, t, h, z):
        return read(
            method, h, z, method.step(setup.f, t, z, h, args, method.init(setup.f, t, z, args))
        )

    branches = [partial(by, method) for method in setup.methods]
    if kind is None or len(branches) == 1:
        return branches[0](t, h, z)
    count = max(jax.eval_shape(branch, t, h, z).shape[0] for branch in branches)

    def padded(branch, t, h, z):
        value = branch(t, h, z)
        return jnp.pad(value, ((0, count - value.shape[0]), (0, 0)))

    return varying.switch(kind % len(branches), [partial(padded, b) for b in branches], t, h, z)


def _during(setup: Setup, x: Inputs, out: Outcome, row: Array) -> Given:
    """What the equation reads during a step: it may jump at the stops between which that lies."""
    rows = out.rows
    if x.stops is None:
        return x.args
    assert rows is not None and rows.mark is not None
    mark = rows.mark[row]
    lands = (mark >= 0) & (rows.h[row] != 0)
    if out.kinds is not None:  # a step to an event ends nowhere else
        lands &= out.kinds[row] < len(setup.methods)
    target = jnp.append(x.stops, x.t1)[jnp.maximum(mark, 0)]
    inside = window(x.stops, rows.t[row], target, lands, direction_of(x), x.args)
    return x.args._replace(window=inside)


def _kind(out: Outcome, row: Array) -> Array | None:
    return None if out.kinds is None else out.kinds[row]


def interpolants(
    setup: Setup, x: Inputs, out: Outcome, steps: Steps
) -> Float[Array, "rows degree n"]:
    """The interpolant of every step."""
    # Beyond the last step there is nothing to evaluate the vector field at: repeat the last one.
    row = jnp.minimum(jnp.arange(steps.starts.shape[0]), jnp.maximum(steps.last, 0))

    def piece(row):
        t, z = steps.start(row)
        args = _during(setup, x, out, row)
        return _again(setup, args, _kind(out, row), t, steps.sizes[row], z, _interpolant)

    return jax.vmap(piece)(row)


def dense_output(
    setup: Setup, x: Inputs, out: Outcome, unravel: Callable[..., Any], origin: Array | None
) -> Dense:
    """The solution as a function of time, counted from `origin`."""
    steps = steps_of(setup, x, out)
    coefficients = jax.vmap(jax.vmap(unravel))(interpolants(setup, x, out, steps))
    project = setup.methods[0].project
    states = (jax.vmap(lambda z: unravel(project(z)))(steps.states), unravel(x.y0))
    return Dense(eqx.tree_at(lambda s: (s.states, s.y0), steps, states), coefficients, origin)


def saved_at(setup: Setup, x: Inputs, out: Outcome, ts: Array) -> Array:
    """The solution at the times `ts`: the stages of the steps that cover them, once more."""
    steps = steps_of(setup, x, out)
    project = setup.methods[0].project

    def at(t):
        row, s = steps.locate(t)
        start, z = steps.start(row)
        size = steps.sizes[row]
        args = _during(setup, x, out, row)
        coefficients = _again(setup, args, _kind(out, row), start, size, z, _interpolant)
        value = observe(setup.f, t, polynomial(project(z), coefficients, s), x.args)
        return jnp.where(steps.covers(t), value, jnp.nan)

    return jax.vmap(at)(ts)


def observe(f: System, t: Array, y: Array, args: Given) -> Array:
    """What is saved of a state: the state, or a function of it."""
    return y if f.parts.save is None else f.parts.save(t, y, args)
