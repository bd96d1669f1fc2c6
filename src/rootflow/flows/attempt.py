"""One step tried: accepted or not, and what follows from it.

What is decided here has no derivative; what is done with the decisions has.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool

from . import control, events
from .heuristics import Gathered, gather, heuristics, none_yet
from .methods import Method, Step
from .problem import Inputs, Setup
from .progress import report

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


def lifted(setup: Setup, x: Inputs) -> Array:
    """The lifted state at the start."""
    return setup.methods[0].lift(setup.f, x.t0, x.y0, x.args)


def start(setup: Setup, x: Inputs) -> tuple[Carry, Array]:
    """The carry at the start, and the direction of time."""
    direction = jnp.where(x.t1 < x.t0, -1.0, 1.0).astype(x.t0.dtype)
    if setup.given:
        h = x.h
    else:
        slope = setup.f(x.t0, x.y0, x.args)
        h = control.first_step(
            setup.f, x.t0, x.y0, slope, jnp.abs(x.t1 - x.t0), direction, x.args,
            x.args.tolerances, setup.methods[0].error_order,
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
        signs = events.signs(setup.f, setup.watch, x.t0, x.y0, x.args, direction)
        carry = carry._replace(signs=lax.stop_gradient(signs), which=count - 1)
    if setup.fixed:
        carry = carry._replace(rest=zero)
    return carry, direction


def running(setup: Setup, c: Carry, consts: Consts) -> Bool[Array, ""]:
    """Whether there is anything left to do."""
    x, direction = consts
    more = (direction * (x.t1 - c.t) > 0) & (c.h > 0) & (jnp.sum(c.attempts) < setup.max_steps)
    return more if c.mode is None else more & (c.mode != ENDED)


def _target(c: Carry, x: Inputs, direction: Array) -> tuple[Array, Array | None]:
    """The next time at which a step must end, and its index among the stops and t1."""
    if x.stops is None:
        return x.t1, None
    times = jnp.append(x.stops, x.t1)
    ahead = direction * times > direction * lax.stop_gradient(c.t)
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


def before(stop: Array, t: Array, direction: Array) -> Array:
    """A time just before `stop`: there the vector field is still the one on this side of it."""
    eps = 4 * jnp.finfo(t.dtype).eps
    return stop - direction * eps * jnp.maximum(jnp.abs(stop), jnp.abs(t))


def anew(setup: Setup, method: Method, t: Array, z: Array, args: Any) -> Array:
    """A lifted state at t, with what is remembered in it evaluated there."""
    return method.restart(setup.f, t, z, method.project(z), args)


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
        error = control.log_error(local, y0, y1, tolerances)
        keep = error <= 0
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
    target, index = _target(c, x, direction)
    h = _limited(setup, method, c, x)
    left, last = _left(c, x, direction, target, h)
    size = jnp.where(last, left, h)
    h = direction * size
    inner = h
    if index is not None:
        inner = jnp.where(last, before(target, c.t, direction) - c.t, h)
    step = method.step(setup.f, c.t, c.y, inner, x.args, state)
    keep, h_next, previous = _judge(setup, method, c, step, size, x.args)
    if index is not None and not setup.fixed:
        # A step cut short by a stop says nothing against a longer one after it.
        h_next = jnp.where(last & keep, jnp.maximum(h_next, c.h), h_next)
    tried = 1
    t, rest = c.t + h, None
    if c.rest is not None:
        # Compensated summation (Kahan 1965): the times of many steps stay multiples of the step.
        t = c.t + (h + c.rest)
        rest = jnp.where(last, 0.0, lax.stop_gradient((h + c.rest) - (t - c.t)))
    t = jnp.where(last, target, t)
    if index is not None:
        # Beyond a stop, so that the next step begins on its other side.
        beyond = before(target, c.t, -direction)
        t = jnp.where(last & (target != x.t1), beyond, t)
    mode, signs = c.mode, c.signs
    hit = None
    if setup.watch is not None:
        assert c.signs is not None
        now = jnp.sign(
            lax.stop_gradient(
                events.values(setup.f, setup.watch, t, method.project(step.y), x.args)
            )
        )
        hit = keep & jnp.any(events.crossed(setup.watch, c.signs, now))
        signs = jnp.where(now == 0, c.signs, now)
        assert c.mode is not None
        mode = jnp.where(hit, kind + len(setup.methods), c.mode)
        # A condition that is not a number would be an event that is never seen.
        lost = keep & jnp.any(jnp.isnan(now))
        keep = keep & ~hit & ~lost
        h_next = jnp.where(lost, jnp.nan, jnp.where(hit, c.h, h_next))
    streak, mild = c.streak, c.mild
    if c.streak is not None and c.mild is not None and step.stiffness is not None:
        assert mode is not None
        part = lax.stop_gradient(jnp.abs(inner) * step.stiffness) / setup.methods[0].stability
        turn, streak, mild = _turn(kind, part, keep, c.streak, c.mild)
        mode = jnp.where(turn, 1 - kind, mode)
    if live is not True:
        keep, tried = keep & live, jnp.where(live, 1, 0)
        h_next = jnp.where(live, h_next, c.h)
        mode, streak, mild = jax.tree.map(
            partial(jnp.where, live), (mode, streak, mild), (c.mode, c.streak, c.mild)
        )
    state_next = step.state
    if index is not None:
        # The vector field may jump at a stop: what was evaluated before it is of no use after it.
        fresh = method.init(setup.f, t, step.y, x.args)
        state_next = jax.tree.map(partial(jnp.where, last), fresh, step.state)
        if method.remembers:
            step = step._replace(y=jnp.where(last, anew(setup, method, t, step.y, x.args), step.y))
    error_sum, stiffness_sum, numbers = heuristics(setup, method, c.y, step, h, x.args)
    pick = partial(jnp.where, keep)
    iterations = c.iterations
    if iterations is not None and step.iterations is not None:
        more = step.iterations.astype(iterations.dtype)
        iterations = iterations + (more if live is True else jnp.where(live, more, 0))
    attempts = c.attempts + tried
    if len(setup.methods) > 1:
        attempts = c.attempts.at[kind].add(tried)
    new = c._replace(
        t=pick(t, c.t),
        y=pick(step.y, c.y),
        h=h_next,
        previous=jax.tree.map(pick, previous, c.previous),
        attempts=attempts,
        accepted=c.accepted + keep,
        error=c.error + pick(error_sum, 0.0),
        stiffness=c.stiffness + pick(stiffness_sum, 0.0),
        penalty=gather(setup, c.penalty, numbers, keep, c.t),
        iterations=iterations,
        mode=mode,
        streak=streak,
        mild=mild,
        signs=None if signs is None or c.signs is None else pick(signs, c.signs),
        rest=None if rest is None or c.rest is None else pick(rest, c.rest),
    )
    if setup.progress is not None:
        told = [lax.stop_gradient((t - x.t0) / (x.t1 - x.t0)) for t in (c.t, new.t)]
        new = new._replace(t=new.t + report(setup.progress, *told))
    mark = None
    if index is not None or setup.watch is not None:
        # Index of the stop at which the step ends; the last is t1.
        ends = jnp.asarray(0) if index is None else index
        mark = jnp.where(last, ends, -1).astype(jnp.int32)
    state = jax.tree.map(pick, state_next, state)
    return new, state, Tried(c.t, inner, c.y, step, keep, mark)


def handle(
    setup: Setup, kind: int, c: Carry, consts: Consts, live: Array | bool
) -> tuple[Carry, Tried]:
    """Takes the step from (t, y) that ends at the first event, and what the event does."""
    x, direction = consts
    watch = setup.watch
    assert watch is not None and c.signs is not None
    assert c.mode is not None and c.which is not None
    method = setup.methods[kind]
    target, _ = _target(c, x, direction)
    h = _limited(setup, method, c, x)
    left, last = _left(c, x, direction, target, h)
    h = direction * jnp.where(last, left, h)
    frozen = jax.tree.map(lax.stop_gradient, (c.t, c.y, h, x.args))
    t, z, h, args = frozen
    found = jax.tree.map(
        lax.stop_gradient, events.locate(setup.f, method, watch, t, z, h, args, c.signs)
    )
    t, z, step, h = at_event(setup, method, c.t, c.y, found.h, found.which, x.args)
    y = method.project(z)
    there = jax.tree.map(lax.stop_gradient, (t, y, args))
    signs = events.signs(setup.f, watch, there[0], there[1], there[2], direction)
    if not any(watch.jumps):
        # The condition is zero up to rounding: what counts is the side to which it crosses.
        crossing = jnp.arange(signs.size) == found.which
        signs = jnp.where(crossing, -c.signs, signs)
    else:
        signs = _signs_after(setup, found.which, c.signs, signs, t, y, args, direction)
    ends = jnp.asarray(watch.terminal)[found.which]
    keep = jnp.asarray(live)
    pick = partial(jnp.where, keep)
    error_sum, stiffness_sum, numbers = heuristics(setup, method, c.y, step, h, x.args)
    new = c._replace(
        t=pick(t, c.t),
        y=pick(z, c.y),
        accepted=c.accepted + keep,
        error=c.error + pick(error_sum, 0.0),
        stiffness=c.stiffness + pick(stiffness_sum, 0.0),
        penalty=gather(setup, c.penalty, numbers, keep, c.t),
        mode=pick(jnp.where(ends, ENDED, kind), c.mode).astype(c.mode.dtype),
        signs=pick(signs, c.signs),
        which=pick(jnp.where(ends, found.which, -1), c.which).astype(c.which.dtype),
        rest=None if c.rest is None else pick(0.0, c.rest),
    )
    return new, Tried(c.t, h, c.y, step, keep, found.which.astype(jnp.int32))


def _signs_after(setup, which, old, new, t, y, args, direction):
    """After a jump the crossed condition may be anything; near zero its derivative decides."""
    watch = setup.watch
    slope = setup.f(t, y, args)
    now, moving = jax.jvp(
        lambda t, y: events.values(setup.f, watch, t, y, args), (t, y), (jnp.ones_like(t), slope)
    )
    size = jnp.sqrt(jnp.finfo(t.dtype).eps)
    near = jnp.abs(now) <= size * jnp.maximum(jnp.abs(moving), size)
    crossing = jnp.arange(old.size) == which
    jumped = jnp.asarray(watch.jumps)[which]
    there = jnp.where(near, jnp.sign(direction * moving), jnp.sign(now))
    return jnp.where(crossing, jnp.where(jumped, there, -old), new)


def at_event(setup: Setup, method: Method, t, z, h, which, args):
    """The step by `h` that ends at event `which`, and what the event does; differentiable.

    Returns the time, the lifted state from which the solve goes on, the step and its size.
    """
    watch = setup.watch
    assert watch is not None
    h = events.with_derivative(setup.f, method, watch, t, z, h, args, which)
    step = method.step(setup.f, t, z, h, args, method.init(setup.f, t, z, args))
    z_next = step.y
    if any(watch.jumps):
        y = method.project(step.y)
        jumped = events.after(setup.f, watch, which, t + h, y, args)
        z_jumped = method.restart(setup.f, t + h, step.y, jumped, args)
        did = jnp.asarray(watch.jumps)[which] & (h != 0)
        z_next = jnp.where(did, z_jumped, z_next)
    return t + h, z_next, step, h
