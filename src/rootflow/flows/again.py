"""A step of a solve gone through again: the derivative of a solve is that of these steps.

What was decided (how long a step is, at what it ends) is held fixed; the times at which a solve
must begin, stop and end, and those of its events, move with what they depend on.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ..ground.replay import SMALL
from .attempt import anew, at_event, window
from .heuristics import Gathered, heuristics, share
from .interpolation import polynomial
from .methods.base import Method, Step
from .problem import Inputs, Setup
from .saving import observe
from .system import Given


class Row(NamedTuple):
    """A step that was taken.

    Attributes:
        t: the time at which it began.
        h: its size; zero if there was none.
        mark: what it ended at; `None` where steps end at nothing but t1.
        index: its number.
    """

    t: Array
    h: Array
    mark: Array | None
    index: Array


class Ends(NamedTuple):
    """The times at which a step may have to end: the stops and, last, t1.

    Attributes:
        at: the times, without a derivative.
        moved: their derivatives, zero in value.
        direction: of time.
    """

    at: Float[Array, " stops+1"]
    moved: Float[Array, " stops+1"]
    direction: Array


class Read(NamedTuple):
    """What a step reads besides its row.

    Attributes:
        args: what the equation reads.
        last: the index of the last step, with which what is saved ends; -1: of none.
        ts: the times at which something is saved.
        penalty: the penalties of the steps.
        span: the derivatives of t0 and t1, zero in value, where no other time has one; `None`:
            nor do they.
        ends: the times that have derivatives, where those of stops and events do.
    """

    args: Given
    last: Array
    ts: Float[Array, " n"] | None
    penalty: Gathered | None
    span: tuple[Array, Array] | None
    ends: Ends | None = None


class _Taken(NamedTuple):
    """The step, its size, the state from which the solve goes on, and how the time there moves."""

    step: Step
    h: Array
    z: Array
    shift: Array | None


def moved(x: Array) -> Array:
    """Zero in value, with the derivative of `x`."""
    return x - lax.stop_gradient(x)


def again(setup: Setup, kind: int, read: Read, z: Array, shift: Array | None, row: Row):
    """Takes a step of this kind again from the state `z`, at a time that moves like `shift`.

    `None`: at a time that does not move.

    Returns:
        The step, what it adds (to the error, the stiffness, the penalties, and to what is saved).
    """
    method, event = setup.kinds[kind]
    t = row.t if shift is None else row.t + shift
    if shift is None:
        taken = _free(setup, method, read.args, t, z, row.h)
    elif read.ends is None:
        assert read.span is not None
        h = row.h + jnp.where(row.index == read.last, read.span[1] - shift, 0.0)
        taken = _free(setup, method, read.args, t, z, h)
    elif event:
        taken = _to_event(setup, method, read, read.ends, t, z, shift, row)
    else:
        taken = _to_end(setup, method, read, read.ends, t, z, shift, row)
    *add, numbers = heuristics(setup, method, z, taken.step, taken.h, read.args)
    add = (*add, share(setup, read.penalty, numbers, row.t, row.h))
    if read.ts is not None:
        last = row.index == read.last
        saved = _passed_over(
            setup, method, t, taken.h, z, taken.step, read.args, read.ts, last
        )  # fmt: skip
        add = (*add, saved)
    return taken, add


def _free(setup: Setup, method: Method, args: Given, t: Array, z: Array, h: Array) -> _Taken:
    """A step that ends at nothing, or at t1."""
    step = method.step(setup.f, t, z, h, args, method.init(setup.f, t, z, args))
    return _Taken(step, h, step.y, None)


def _to_event(setup: Setup, method: Method, read: Read, ends: Ends, t, z, shift, row: Row):
    """A step that ends at an event."""
    assert row.mark is not None
    args = read.args
    if ends.at.size > 1:  # an event and a stop do not share a step: it ends nowhere else
        nowhere = jnp.asarray(False)
        inside = window(ends.at[:-1], row.t, row.t, nowhere, ends.direction, args)
        args = args._replace(window=inside)
    end, z_next, step, h = at_event(setup, method, t, z, row.h, jnp.maximum(row.mark, 0), args)
    return _Taken(step, h, z_next, jnp.where(row.h == 0, shift, moved(end)))


def _to_end(setup: Setup, method: Method, read: Read, ends: Ends, t, z, shift, row: Row):
    """A step that may end at a stop or at t1."""
    assert row.mark is not None
    args, direction, stops = read.args, ends.direction, ends.at[:-1]
    mark = jnp.maximum(row.mark, 0)
    lands = (row.mark >= 0) & (row.h != 0)
    shift_next = jnp.where(lands, ends.moved[mark], shift)
    target = ends.at[mark]
    during = args
    if stops.size:
        inside = window(stops, row.t, target, lands, direction, args)
        during = args._replace(window=inside)
    taken = _free(setup, method, during, t, z, row.h + (shift_next - shift))
    z_next = taken.z
    if stops.size and (method.remembers or setup.consistent is not None):
        fresh, _ = anew(setup, method, stops, target + shift_next, z_next, direction, args)
        z_next = jnp.where(lands & (target != ends.at[-1]), fresh, z_next)
    return taken._replace(z=z_next, shift=shift_next)


def _passed_over(
    setup: Setup,
    method: Method,
    t: Array,
    h: Array,
    z: Float[Array, " m"],
    step: Step,
    args: Given,
    ts: Array,
    last: Array,
) -> Array:
    """What is saved at those of the times `ts` that a step passes over; zero at the others."""
    direction = jnp.sign(h)
    size = jnp.where(h == 0, 1.0, h)
    coefficients = method.coefficients(h, z, step)
    y = method.project(z)
    end = jnp.where(last, jnp.inf, direction * (t + h))
    passed = (h != 0) & (direction * ts > direction * t) & (direction * ts <= end)
    passed = lax.stop_gradient(passed)

    if y.size > SMALL and setup.f.parts.save is None:
        # One product of matrices instead of a polynomial for each time.
        part = jnp.where(passed, (ts - t) / size, 0.0)[:, None]
        powers = jnp.cumprod(jnp.broadcast_to(part, (ts.size, len(coefficients))), axis=1)
        weights = jnp.concatenate([passed[:, None].astype(part.dtype), powers], axis=1)
        terms = jnp.concatenate([y[None], coefficients])
        return jnp.matmul(weights, terms, precision=lax.Precision.HIGHEST)

    def at(t1):
        return observe(setup.f, t1, polynomial(y, coefficients, (t1 - t) / size), args)

    return jnp.where(passed[:, None], jax.vmap(at)(ts), 0.0)


def at_start(setup: Setup, x: Inputs, ts: Array, other: Array | float) -> Array:
    """What is saved at t0, in the rows of `ts` that ask for it; `other` in the others."""
    slope = None if setup.still else setup.f(x.t0, x.y0, x.args)
    if slope is not None and setup.f.massive:
        slope = jnp.zeros_like(slope)  # it is not the derivative of the state

    def begin(t):
        # The derivative with respect to the time: the value is the same.
        y = x.y0 if slope is None else x.y0 + (moved(t) - moved(x.t0)) * slope
        return observe(setup.f, t, y, x.args)

    return jnp.where((ts == x.t0)[:, None], jax.vmap(begin)(ts), other)
