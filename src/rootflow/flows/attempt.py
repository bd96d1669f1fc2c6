"""One step tried: proposed, taken, judged, watched for events, and committed if it is kept.

What is decided here has no derivative; what is done with the decisions has.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from ..ground import varying
from . import control, events
from .heuristics import Gathered, gather, heuristics, none_yet
from .methods import Method, Step
from .problem import Inputs, Setup
from .progress import report
from .system import Given

#: Relative length by which a step may be stretched to end at t1 rather than just before it. A fixed
#: step may be stretched by as much as the rounding of its size makes all of them too short.
_STRETCH = 1e-6
#: A step is stiff where |h| times the stiffness estimate exceeds this part of the stability limit.
_STIFF = 0.9
#: So many stiff steps in a row switch to the stiff method, so many others back.
_TO_STIFF = 8
_FROM_STIFF = 4
#: A tight tolerance can hold an explicit method well below its stability limit, by errors in fast
#: components that have long decayed. The stiff method is tried after so many steps in a row above
#: this part of the limit, and after twice as many every time that this was in vain.
_MILD = 0.1
_PATIENCE = 32

#: Values of `Carry.mode` besides the index of a method.
ENDED = -1


class Carry(NamedTuple):
    """The state of the loop; what a solve does not need is `None`.

    Attributes:
        t: the time.
        y: the lifted state.
        h: the size of the next step; zero: too small to go on; not a number: so was the error.
        previous: logarithms of the errors of the last steps.
        attempts: steps tried, by each method.
        accepted: steps accepted.
        error: the integral of the error estimate.
        stiffness: the integral of the stiffness estimate.
        penalty: the penalties that were asked for.
        iterations: evaluations of the vector field that iterative methods made.
        mode: what comes next: a step of method i (i), the location of an event within a step of
            method i (i + the number of methods), nothing (`ENDED`).
        streak: steps in a row that call for the other method.
        mild: explicit steps in a row after which the stiff method is worth a try: how many there
            have been, and how many it takes.
        signs: of the conditions of the events.
        which: the event at which the solve ended (-1: none).
        pending: events that happen at this very time and are still to be handled: 1, or 2 after a
            jump of another of them.
        rest: of fixed steps, what rounding has cut off the sum that is t.
        saved: what is saved at given times, as far as the steps have passed over them.
    """

    t: Array
    y: Array
    h: Array
    previous: tuple[Array, ...]
    attempts: Array
    accepted: Array
    error: Array
    stiffness: Array
    penalty: Gathered | None = None
    iterations: Array | None = None
    mode: Array | None = None
    streak: Array | None = None
    mild: tuple[Array, Array] | None = None
    signs: Array | None = None
    which: Array | None = None
    pending: Array | None = None
    rest: Array | None = None
    saved: Array | None = None


class Tried(NamedTuple):
    """A step that was tried: from (t, y) by h."""

    t: Array
    h: Array
    y: Array
    step: Step
    keep: Array
    mark: Array | None


Consts = tuple[Inputs, Array]  # the inputs, and the direction of time


def direction_of(x: Inputs) -> Array:
    """The direction of time, 1 or -1."""
    return jnp.where(x.t1 < x.t0, -1.0, 1.0).astype(x.t0.dtype)


def lifted(setup: Setup, x: Inputs) -> Array:
    """The lifted state at the start."""
    return setup.methods[0].lift(setup.f, x.t0, x.y0, onwards(x, x.t0, direction_of(x)))


def onwards(x: Inputs, t: Array, direction: Array) -> Given:
    """What the equation reads from t on: its far side if there is a stop, where it may jump."""
    if x.stops is None:
        return x.args
    nowhere = jnp.asarray(False)
    return x.args._replace(window=window(x.stops, t, t, nowhere, direction, x.args))


def start(setup: Setup, x: Inputs) -> tuple[Carry, Array]:
    """The carry at the start, and the direction of time."""
    direction = direction_of(x)
    if setup.given:
        h = x.h
    else:
        # A decision: without a derivative, not even one that is traced and then dropped.
        still = lax.stop_gradient(x)
        still = still._replace(args=onwards(still, still.t0, direction))
        slope = setup.f(still.t0, still.y0, still.args)
        h = control.first_step(
            setup.f, still.t0, still.y0, slope, jnp.abs(still.t1 - still.t0), direction,
            still.args, still.args.tolerances, setup.methods[0].error_order,
        )  # fmt: skip
    zero = jnp.zeros_like(x.t0)
    count = jnp.zeros((), jnp.int32)
    carry = Carry(
        x.t0, lifted(setup, x), h, setup.controller.start(zero),
        jnp.zeros(len(setup.methods), jnp.int32), count, zero, zero, none_yet(setup, zero),
    )  # fmt: skip
    if any(method.iterative for method in setup.methods):
        carry = carry._replace(iterations=count)
    if len(setup.kinds) > 1:
        carry = carry._replace(mode=count)
    if len(setup.methods) > 1:
        carry = carry._replace(streak=count, mild=(count, count + _PATIENCE))
    if setup.watch is not None:
        signs = events.signs(setup.f, x.t0, x.y0, x.args, direction)
        carry = carry._replace(signs=lax.stop_gradient(signs), which=count - 1)
        if len(setup.watch.terminal) > 1:
            carry = carry._replace(pending=jnp.zeros(len(setup.watch.terminal), jnp.int32))
    if setup.fixed:
        carry = carry._replace(rest=zero)
    return carry, direction


def running(setup: Setup, c: Carry, consts: Consts) -> Bool[Array, ""]:
    """Whether there is anything left to do."""
    x, direction = consts
    ahead = direction * (x.t1 - c.t) > 0
    if c.pending is not None:
        ahead = ahead | jnp.any(c.pending > 0)
    more = ahead & (c.h > 0) & (jnp.sum(c.attempts) < setup.max_steps)
    return more if c.mode is None else more & (c.mode != ENDED)


def _target(c: Carry, x: Inputs, direction: Array) -> tuple[Array, Array | None]:
    """The next time at which a step must end, and its index among the stops and t1."""
    if x.stops is None:
        return x.t1, None
    times = jnp.append(x.stops, x.t1)
    ahead = direction * times > direction * lax.stop_gradient(c.t)
    # Where a stop is at the end, the step ends there because it is the end, and moves with that.
    ahead = ahead & ((times != x.t1) | (jnp.arange(times.size) == times.size - 1))
    index = jnp.argmin(jnp.where(ahead, direction * times, jnp.inf))
    index = jnp.where(jnp.any(ahead), index, times.size - 1)
    return times[index], index


def _limited(setup: Setup, method: Method, c: Carry, x: Inputs) -> Array:
    """The size of the next step, within what the method allows."""
    most = method.limit(setup.f, c.t, c.y, x.args)
    return c.h if most is None else jnp.minimum(c.h, lax.stop_gradient(most))


def _left(c: Carry, x: Inputs, direction: Array, target: Array, h: Array):
    """How far it is to the target, and whether a step of this size is to end there."""
    left = direction * (target - c.t)
    if c.rest is None:
        return left, h * (1 + _STRETCH) >= left
    rounding = jnp.finfo(h.dtype).eps * jnp.abs(x.t1 - x.t0)
    return left, h * (1 + _STRETCH) + rounding >= left - direction * c.rest


def window(
    stops: Array, t: Array, target: Array, lands: Array, direction: Array, args: Given
) -> tuple[Array, Array]:
    """The times at which a step from `t` evaluates the equation, which may jump at a stop.

    A step that begins at a stop is on its far side, one that ends there on its near side.
    """
    t, target, stops = map(lax.stop_gradient, (t, target, stops))
    size = jnp.maximum(jnp.abs(t), jnp.abs(target))
    if args.origin is not None:
        size = jnp.maximum(size, jnp.abs(lax.stop_gradient(args.origin)))
    hair = 4 * jnp.finfo(t.dtype).eps * direction * size
    far = direction * jnp.inf
    begin = jnp.where(jnp.any(stops == t), t + hair, -far)
    end = jnp.where(lands & jnp.any(stops == target), target - hair, far)
    return jnp.minimum(begin, end), jnp.maximum(begin, end)


def anew(
    setup: Setup, method: Method, stops: Array, t: Array, z: Array, direction: Array, args: Given
) -> tuple[Array, Given]:
    """The lifted state with which to go on from a stop at t, on its far side.

    What is remembered is evaluated again, and algebraic variables are found again.
    """
    args = args._replace(window=window(stops, t, t, jnp.asarray(False), direction, args))
    y = method.project(z)
    if setup.consistent is not None:
        y = _consistent(setup, t, y, args)
    elif not method.remembers:
        return z, args
    return method.restart(setup.f, t, z, y, args), args


def _consistent(setup: Setup, t: Array, y: Array, args: Given) -> Array:
    """The state with the same differential part; not a number where there is none."""
    assert setup.consistent is not None
    found, there = setup.consistent(setup.f, t, y, args, False)
    return jnp.where(there, found, jnp.nan)


class Proposal(NamedTuple):
    """A step to try.

    Attributes:
        size: its length.
        h: the step, with the direction of time.
        last: whether it ends at the target.
        target: the next time at which a step must end.
        index: which of the stops and t1 that is; `None` without stops.
        args: what the equation reads during the step.
    """

    size: Array
    h: Array
    last: Array
    target: Array
    index: Array | None
    args: Given


def propose(setup: Setup, method: Method, c: Carry, x: Inputs, direction: Array) -> Proposal:
    """The step to try from here."""
    target, index = _target(c, x, direction)
    h = _limited(setup, method, c, x)
    left, last = _left(c, x, direction, target, h)
    size = jnp.where(last, left, h)
    args = x.args
    if x.stops is not None:
        args = args._replace(window=window(x.stops, c.t, target, last, direction, args))
    return Proposal(size, direction * size, last, target, index, args)


def _judge(setup: Setup, method: Method, c: Carry, step: Step, size: Array, args):
    """Whether to keep a step, the size of the next, and the errors to remember."""
    if setup.fixed:
        # A state that is not finite ends the march: nothing after it could be.
        h = jnp.where(jnp.all(jnp.isfinite(step.y)), c.h, jnp.nan)
        return jnp.asarray(True), h, c.previous
    controller = setup.controller
    if step.proposal is not None:
        error, change = map(lax.stop_gradient, step.proposal)
        error = jnp.where(jnp.isfinite(error), error, control.HOPELESS)
        change = jnp.where(jnp.isfinite(change), change, controller.factor_min)
        keep = error <= 0
    else:
        assert step.error is not None
        project = method.project
        local, y0, y1 = map(lax.stop_gradient, (step.error, project(c.y), project(step.y)))
        tolerances = lax.stop_gradient(args.tolerances)
        if setup.norm is not None:
            local, y0, y1 = (v[: setup.norm] for v in (local, y0, y1))
            tolerances = jax.tree.map(lambda v: v[: setup.norm] if jnp.ndim(v) else v, tolerances)
        keep, error = control.judged(local, y0, y1, tolerances)
        change = controller.change(error, c.previous, keep, method.error_order)
    h = controller.limit(lax.stop_gradient(size) * change)
    t = lax.stop_gradient(c.t)
    stuck = ~keep & (t + 0.25 * h == t)
    if controller.dt_min is not None:
        small = h < controller.dt_min
        stuck = stuck | (~keep & (size <= controller.dt_min))
        h = jnp.where(small, controller.dt_min, h)
    h = jnp.where(stuck, jnp.where(error >= control.LOST, jnp.nan, 0.0), h)
    return keep, h, (error, *c.previous[:-1])


def _turn(kind: int, part: Array, keep: Array, streak: Array, mild: tuple[Array, Array]):
    """Whether the other method goes on from here, after a step at this part of the limit.

    Only at the end of a step that is kept: the other method begins afresh.
    """
    stiff = part > _STIFF
    if kind == 1:
        streak = jnp.where(stiff, 0, streak + 1)
        turn = keep & (streak >= _FROM_STIFF)
        # Where it could take long steps, the trial was worth it.
        patience = jnp.where(part > 10, _PATIENCE, mild[1])
        return turn, jnp.where(turn, 0, streak), (mild[0], patience)
    streak = jnp.where(stiff, streak + 1, 0)
    count, patience = mild
    count = jnp.where(part > _MILD, count + 1, 0)
    trial = count >= patience
    turn = keep & ((streak >= _TO_STIFF) | trial)
    patience = jnp.where(turn & trial, jnp.minimum(2 * patience, 1 << 20), patience)
    return turn, jnp.where(turn, 0, streak), (jnp.where(turn, 0, count), patience)


def attempt(
    setup: Setup, kind: int, c: Carry, state: Any, consts: Consts, live: Array | bool
) -> tuple[Carry, Any, Tried]:
    """Tries one step; keeps it if its error is within the tolerance, and if it is `live` at all."""
    x, direction = consts
    method = setup.methods[kind]
    try_ = propose(setup, method, c, x, direction)
    h, last, index = try_.h, try_.last, try_.index
    step = method.step(setup.f, c.t, c.y, h, try_.args, state)
    keep, h_next, previous = _judge(setup, method, c, step, try_.size, x.args)
    if index is not None and not setup.fixed:
        # A step cut short by a stop says nothing against a longer one after it.
        h_next = jnp.where(last & keep, jnp.maximum(h_next, c.h), h_next)
    t, rest = c.t + h, None
    if c.rest is not None:
        # Compensated summation (Kahan 1965): the times of many steps stay multiples of the step.
        t = c.t + (h + c.rest)
        rest = jnp.where(last, 0.0, lax.stop_gradient((h + c.rest) - (t - c.t)))
    t = jnp.where(last, try_.target, t)
    mode, signs = c.mode, c.signs
    if setup.watch is not None:
        keep, h_next, mode, signs = _watched(
            setup, kind, c, x, method.project(step.y), t, last & (t == x.t1), keep, h_next
        )
    streak, mild = c.streak, c.mild
    if c.streak is not None and c.mild is not None and step.stiffness is not None:
        assert mode is not None
        part = lax.stop_gradient(jnp.abs(h) * step.stiffness) / setup.methods[0].stability
        turn, streak, mild = _turn(kind, part, keep, c.streak, c.mild)
        mode = jnp.where(turn, 1 - kind, mode)
    tried = jnp.ones_like(c.accepted)
    if live is not True:
        keep, tried = keep & live, jnp.where(live, tried, 0)
        h_next = jnp.where(live, h_next, c.h)
        mode, streak, mild = jax.tree.map(
            partial(jnp.where, live), (mode, streak, mild), (c.mode, c.streak, c.mild)
        )
    state_next = step.state
    if index is not None and x.stops is not None:
        step, state_next = _across(setup, method, x, t, last, step, direction)
    new = _commit(setup, kind, c, method, step, h, x.args, keep, tried, live)
    new = new._replace(
        t=jnp.where(keep, t, c.t),
        h=h_next,
        previous=jax.tree.map(partial(jnp.where, keep), previous, c.previous),
        mode=mode,
        streak=streak,
        mild=mild,
        signs=None if signs is None or c.signs is None else jnp.where(keep, signs, c.signs),
        rest=None if rest is None or c.rest is None else jnp.where(keep, rest, c.rest),
    )
    if setup.progress is not None:
        told = [lax.stop_gradient((t - x.t0) / (x.t1 - x.t0)) for t in (c.t, new.t)]
        new = new._replace(t=new.t + report(setup.progress, *told))
    mark = None
    if index is not None or setup.watch is not None:
        # Index of the stop at which the step ends; the last is t1.
        ends = jnp.asarray(0) if index is None else index
        mark = jnp.where(last, ends, -1).astype(jnp.int32)
    state = jax.tree.map(partial(jnp.where, keep), state_next, state)
    return new, state, Tried(c.t, h, c.y, step, keep, mark)


def _watched(setup: Setup, kind: int, c: Carry, x: Inputs, y, t, final, keep, h_next):
    """Whether an event happens within a step to (t, y), which is then not kept as it is."""
    assert setup.watch is not None and c.signs is not None and c.mode is not None
    now = events.signs_at(setup.f, t, y, x.args, c.signs, final)
    hit = keep & jnp.any(events.crossed(setup.watch, c.signs, now))
    signs = jnp.where(now == 0, c.signs, now)
    mode = jnp.where(hit, kind + len(setup.methods), c.mode)
    # A condition that is not a number would be an event that is never seen.
    lost = keep & jnp.any(jnp.isnan(now))
    h_next = jnp.where(lost, jnp.nan, jnp.where(hit, c.h, h_next))
    return keep & ~hit & ~lost, h_next, mode, signs


def _across(setup: Setup, method: Method, x: Inputs, t, last, step: Step, direction):
    """A step that may end at a stop: what was evaluated before it is of no use after it."""
    stops = x.stops
    assert stops is not None
    if setup.consistent is not None:
        z, args = varying.cond(
            last & (t != x.t1),
            lambda: anew(setup, method, stops, t, step.y, direction, x.args),
            lambda: (step.y, x.args._replace(window=(-jnp.inf * t, jnp.inf * t))),
        )
    else:
        z, args = anew(setup, method, stops, t, step.y, direction, x.args)
    fresh = method.init(setup.f, t, step.y, args)
    state = jax.tree.map(partial(jnp.where, last), fresh, step.state)
    return step._replace(y=jnp.where(last & (t != x.t1), z, step.y)), state


def _commit(setup: Setup, kind: int, c: Carry, method, step: Step, h, args, keep, tried, live):
    """The carry with what every step that is kept adds."""
    error_sum, stiffness_sum, numbers = heuristics(setup, method, c.y, step, h, args)
    pick = partial(jnp.where, keep)
    iterations = c.iterations
    if iterations is not None and step.iterations is not None:
        more = step.iterations.astype(iterations.dtype)
        iterations = iterations + (more if live is True else jnp.where(live, more, 0))
    several = len(setup.methods) > 1
    return c._replace(
        y=pick(step.y, c.y),
        attempts=c.attempts.at[kind].add(tried) if several else c.attempts + tried,
        accepted=c.accepted + keep.astype(c.accepted.dtype),
        error=c.error + pick(error_sum, 0.0),
        stiffness=c.stiffness + pick(stiffness_sum, 0.0),
        penalty=gather(setup, c.penalty, numbers, keep, c.t),
        iterations=iterations,
    )


def handle(
    setup: Setup, kind: int, c: Carry, consts: Consts, live: Array | bool
) -> tuple[Carry, Tried]:
    """Takes the step from (t, y) that ends at the first event, and what the event does.

    Events at the same time are handled one after another, in their order: after the first each
    takes a step whose length is nothing beside that of the others.
    """
    x, direction = consts
    watch = setup.watch
    assert watch is not None and c.signs is not None
    assert c.mode is not None and c.which is not None
    method, count = setup.methods[kind], len(watch.terminal)
    try_ = propose(setup, method, c, x, direction)
    found = events.locate(setup.f, method, watch, *lax.stop_gradient(
        (c.t, c.y, try_.h, try_.args, x.args, c.signs, try_.target, try_.last, x.t1)
    ))  # fmt: skip
    h, which, mark, pending, jumped = found.h, found.which, found.which, None, False
    if c.pending is not None:
        waiting = jnp.any(c.pending > 0)
        which = jnp.where(waiting, jnp.argmax(c.pending > 0), which)
        jumped = c.pending[which] > 1
        mark = jnp.where(waiting, count, 0) + which
        nothing = jnp.finfo(h.dtype).eps ** 2 * direction * c.h
        h = jnp.where(waiting, nothing, h)
        pending = jnp.where(waiting, c.pending, found.also.astype(c.pending.dtype))
        after = jnp.where(jnp.asarray(watch.jumps)[which], 2, pending)
        pending = jnp.where((pending > 0) & (jnp.arange(count) != which), after, 0)
    t, z, step, h = at_event(setup, method, c.t, c.y, h, mark, try_.args)
    before = method.project(step.y)
    signs = _signs_after(
        setup, which, jumped, c.signs, pending,
        *lax.stop_gradient((before, t, method.project(z), x.args)), direction,
    )  # fmt: skip
    # An event at t1 is at t1, though it was located a few roundings before.
    hair = 64 * jnp.finfo(t.dtype).eps * jnp.maximum(jnp.abs(t), jnp.abs(x.t1 - x.t0))
    t = t + lax.stop_gradient(jnp.where(direction * (x.t1 - t) <= hair, x.t1 - t, 0.0))
    ends = jnp.where((c.which < 0) & jnp.asarray(watch.terminal)[which], which, c.which)
    mode = jnp.where(ends >= 0, ENDED, kind)
    if pending is not None:
        mode = jnp.where(jnp.any(pending > 0), kind + len(setup.methods), mode)
    keep = jnp.asarray(live)
    pick = partial(jnp.where, keep)
    none = jnp.zeros_like(c.accepted)
    bare = step._replace(iterations=None)
    new = _commit(setup, kind, c, method, bare, h, x.args, keep, none, live)
    new = new._replace(
        t=pick(t, c.t),
        y=pick(z, c.y),
        mode=pick(mode, c.mode).astype(c.mode.dtype),
        signs=pick(signs, c.signs),
        which=pick(ends, c.which).astype(c.which.dtype),
        pending=c.pending if pending is None or c.pending is None else pick(pending, c.pending),
        rest=None if c.rest is None else pick(0.0, c.rest),
    )
    return new, Tried(c.t, h, c.y, step, keep, mark.astype(jnp.int32))


def _signs_after(setup: Setup, which, jumped, old, pending, before, t, y, args, direction):
    """The signs of the conditions as the solve goes on from (t, y), from `before` the jump.

    Of what just happened it is the other one, unless a jump (its own, or that of another event
    before it at this time: `jumped`) made it something else; near zero its derivative decides. What
    is still to happen keeps its sign, and so does what has happened at this time already: it was
    located a few roundings before its zero, so that its condition may have the sign from before.
    """
    watch = setup.watch
    assert watch is not None
    slope = setup.f(t, y, args)
    now, moving = jax.jvp(
        lambda t, y: events.values(setup.f, t, y, args), (t, y), (jnp.ones_like(t), slope)
    )
    ahead = jnp.sign(direction * moving)
    new = jnp.where(now == 0, ahead, jnp.sign(now))
    size = jnp.sqrt(jnp.finfo(t.dtype).eps)
    near = (jnp.abs(now) <= size * jnp.maximum(jnp.abs(moving), size)) & (moving != 0)
    crossing = jnp.arange(old.size) == which
    if not any(watch.jumps):
        new = jnp.where(near & (old == ahead), old, new)
    else:
        same = now == events.values(setup.f, t, before, args)
        new = jnp.where(same & near & (old == ahead), old, new)
        there = jnp.where(near, ahead, jnp.where(same & ~jnp.asarray(jumped), -old, new))
        jumps = jnp.asarray(watch.jumps)[which] | jumped
        new = jnp.where(crossing & jumps, there, new)
        crossing = crossing & ~jumps
    new = jnp.where(crossing, -old, new)
    return new if pending is None else jnp.where(pending > 0, old, new)


def at_event(
    setup: Setup, method: Method, t: Array, z: Float[Array, " m"], h: Array, mark: Any, args: Given
) -> tuple[Array, Array, Step, Array]:
    """The step by `h` that ends at an event, and what the event does; differentiable.

    `mark` is the index of the event; with the number of events added, it happens at the time of
    another one before it.

    Returns the time, the lifted state from which the solve goes on, the step and its size.
    """
    watch = setup.watch
    assert watch is not None
    count = len(watch.terminal)
    which = mark % count
    moves = (h != 0) & (mark < count)
    h = events.with_derivative(setup.f, method, t, z, h, args, which, moves)
    step = method.step(setup.f, t, z, h, args, method.init(setup.f, t, z, args))
    z_next = step.y
    if any(watch.jumps):
        y = method.project(step.y)
        jumped = events.after(setup.f, watch, which, t + h, y, args)
        if setup.consistent is not None:
            jumped = _consistent(setup, t + h, jumped, args)
        z_jumped = method.restart(setup.f, t + h, step.y, jumped, args)
        did = jnp.asarray(watch.jumps)[which] & (h != 0)
        z_next = jnp.where(did, z_jumped, z_next)
    return t + h, z_next, step, h
