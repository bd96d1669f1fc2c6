"""From (t0, y0) to t1: the adaptive march, and its derivative over the steps it accepted."""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from ..ground import varying
from ..ground.derivative import custom_jvp, jvp_of_active
from ..ground.march import Phase, Record, Rows, march, record, run_phases
from ..ground.replay import SMALL, Replayed, pad_rows, replay, replay_nested
from .attempt import (
    ENDED,
    Carry,
    Consts,
    anew,
    at_event,
    attempt,
    handle,
    lifted,
    running,
    start,
    window,
)
from .heuristics import heuristics, share, values_of
from .interpolation import polynomial
from .methods.base import Method, Step
from .problem import Inputs, Outcome, Setup
from .saving import observe, saved_at
from .solution import MESSAGES, Result
from .system import Given

#: So many saved times are filled in during the march; more are found afterwards, from the steps.
_FEW = 256
#: So many more blocks there are than the steps fill: an event or a change of method ends two.
_SPARE = 256


def _phases(setup: Setup, body) -> tuple[Phase, ...]:
    """The phases of a solve: `body(kind, s, consts, live)` for each kind of step."""

    def active(kind, c, consts):
        on = running(setup, c, _plain(consts))
        return on if c.mode is None else on & (c.mode == kind)

    def enter(kind, c, consts):
        method, event = setup.kinds[kind]
        if event:
            return ()
        return method.init(setup.f, c.t, c.y, _plain(consts)[0].args)

    return tuple(
        Phase(partial(active, kind), partial(enter, kind), partial(body, kind))
        for kind in range(len(setup.kinds))
    )


def _plain(consts: Any) -> Consts:
    """The inputs and the direction of time, without the times at which to save."""
    return consts if isinstance(consts[0], Inputs) else consts[0]


def _tried(setup: Setup, kind: int, c: Carry, state: Any, consts: Any, live):
    """Tries a step, or handles an event, and saves what it passes over."""
    method, event = setup.kinds[kind]
    x, direction = _plain(consts)
    if event:
        new, tried = handle(setup, setup.methods.index(method), c, (x, direction), live)
    else:
        new, state, tried = attempt(setup, kind, c, state, (x, direction), live)
    if c.saved is None:
        return new, state, tried
    ts = consts[1]
    coefficients = method.coefficients(tried.h, tried.y, tried.step)
    passed = (direction * ts > direction * tried.t) & (direction * ts <= direction * new.t)
    size = jnp.where(tried.h == 0, 1.0, tried.h)
    y = method.project(tried.y)

    def at(t):
        return observe(setup.f, t, polynomial(y, coefficients, (t - tried.t) / size), x.args)

    value = jax.vmap(at)(ts)
    saved = jnp.where((passed & tried.keep)[:, None], value, c.saved)
    return new._replace(saved=saved), state, tried


def _flat(rows: Array) -> Array:
    return rows.reshape(-1, *rows.shape[2:])


def _result(c: Carry, consts: Consts) -> Array:
    x, direction = consts
    finite = jnp.all(jnp.isfinite(c.y))
    reached = ~(direction * (x.t1 - c.t) > 0) & finite
    failure = jnp.where(
        jnp.isnan(c.h) | ~finite,
        Result.non_finite,
        jnp.where(c.h <= 0, Result.step_underflow, Result.max_steps),
    )
    result = jnp.where(reached, Result.success, failure)
    if c.which is None:
        return result
    return jnp.where((c.mode == ENDED) & finite, Result.event_occurred, result)


def refuse(setup: Setup, result: Array, values: Any) -> Any:
    """`values`, which whoever uses them in a compiled program cannot do after a failed solve."""
    if not setup.throw:
        return values
    if varying.varying_axes((result, values)):
        # Where each device runs by itself, none can raise for all: what failed is not a number.
        bad = Result.failed(result)
        return jax.tree.map(
            lambda v: jnp.where(bad, jnp.nan, v) if jnp.issubdtype(v.dtype, jnp.inexact) else v,
            values,
        )
    return eqx.internal.branched_error_if(
        values, Result.failed(result), jnp.clip(result - 1, 0, len(MESSAGES) - 1), MESSAGES
    )


def _outcome(
    setup: Setup, c: Carry, consts: Any, done: Record | None = None, states: bool = False
) -> Outcome:
    rows = last = kinds = None
    if done is not None and states:
        rows, last = jax.tree.map(_flat, done.rows), done.last
        kinds = None if done.kinds is None else jnp.repeat(done.kinds, setup.block)
    result = _result(c, _plain(consts))
    if done is not None and (len(setup.kinds) > 1 or setup.blocks is not None):
        full = (done.count >= blocks_of(setup)) & (jnp.sum(c.attempts) < setup.max_steps)
        result = jnp.where(full & (result == Result.max_steps), Result.record_full, result)
    # Of the rows only the index: they are large, and whoever reads them reads it.
    t, y, last = refuse(setup, result, (c.t, c.y, last))
    return Outcome(
        t, y, c.error, c.stiffness, c.penalty, c.attempts, c.accepted, c.iterations, result,
        c.which, rows, last, kinds,
    )  # fmt: skip


def blocks_of(setup: Setup) -> int:
    """The most blocks of steps that a solve keeps."""
    if setup.blocks is not None:
        return setup.blocks
    blocks = -(-setup.max_steps // setup.block)
    return blocks + _SPARE + 2 * setup.most_events if len(setup.kinds) > 1 else blocks


def room_of(setup: Setup) -> int:
    """How many blocks the record has: with several phases a few are for what makes no step."""
    blocks = blocks_of(setup)
    return blocks + len(setup.kinds) if len(setup.kinds) > 1 else blocks


def record_steps(
    setup: Setup,
    x: Inputs,
    states: bool,
    stride: int | None = 1,
    ts: Array | None = None,
) -> tuple[Outcome, Record, Array | None]:
    """Marches and keeps the steps; fills in what is saved at the times `ts`."""
    carry, consts = _started(setup, x, ts)

    def body(kind, s, consts, live):
        c, state, tried = _tried(setup, kind, s[0], s[1], consts, live)
        return (c, state), Rows(tried.t, tried.h, tried.y, tried.mark), tried.keep

    done = record(
        _phases(setup, body), carry, consts,
        block=setup.block, blocks=blocks_of(setup), states=states, stride=stride,
    )  # fmt: skip
    out = _outcome(setup, done.carry, consts, done, states)
    saved = done.carry.saved
    return out, done, None if saved is None else refuse(setup, out.result, saved)


def _run_alone(phases, carry, consts):
    """As `march`, but differentiable in forward mode by JAX itself."""
    alone = tuple(
        phase._replace(body=partial(lambda body, s, consts: body(s, consts, True), phase.body))
        for phase in phases
    )
    return run_phases(alone, carry, consts)


def _started(setup: Setup, x: Inputs, ts: Array | None) -> tuple[Carry, Any]:
    """The carry and the constants of a march that fills in what is saved at the times `ts`."""
    carry, direction = start(setup, x)
    carry = carry._replace(h=lax.stop_gradient(carry.h))
    if ts is None:
        return carry, (x, direction)
    return carry._replace(saved=at_start(setup, x, ts, jnp.nan)), ((x, direction), ts)


def _marched(setup: Setup, x: Inputs, ts: Array | None, run) -> tuple[Outcome, Array | None]:
    """Goes from t0 to t1 and fills in the saved times as the steps pass over them.

    The cost of a step grows with the number of saved times.
    """
    carry, consts = _started(setup, x, ts)

    def body(kind, s, consts, live):
        return _tried(setup, kind, s[0], s[1], consts, live)[:2]

    carry = run(_phases(setup, body), carry, consts)
    out = _outcome(setup, carry, consts)
    return out, None if ts is None else refuse(setup, out.result, carry.saved)


def solve_forward(setup: Setup, x: Inputs, ts: Array | None) -> tuple[Outcome, Array | None]:
    """As `solve`, with the derivative carried along: forward mode only, no step is stored."""
    return _marched(setup, x, ts, _run_alone)


@partial(custom_jvp, nondiff_argnums=(0,))
def solve(setup: Setup, x: Inputs, ts: Array | None) -> tuple[Outcome, Array | None]:
    """Integrates from `x.t0` to `x.t1`, and saves the state at the times `ts`.

    The derivative is that of the steps that were accepted: their sizes are held fixed, but for
    those that end at a given time (`t1`, a stop) or at an event. Which steps to take is not
    differentiated.
    """
    if setup.rows:
        return record_steps(setup, x, True)[0], None
    if ts is None or ts.size <= _FEW:
        return _marched(setup, x, ts, march)
    out = record_steps(setup, x, True)[0]
    return out._replace(rows=None, last=None, kinds=None), saved_at(setup, x, out, ts)


@partial(custom_jvp, nondiff_argnums=(0,))
def solve_observed(setup: Setup, x: Inputs) -> Outcome:
    """As `solve` with the steps kept, but of each start only what `save` makes of it.

    What is saved is often much smaller than the state, of which nothing else is then kept.
    """
    carry, consts = _started(setup, x, None)
    project = setup.methods[0].project

    def body(kind, s, consts, live):
        c, state, tried = _tried(setup, kind, s[0], s[1], consts, live)
        seen = observe(setup.f, tried.t, project(tried.y), _plain(consts)[0].args)
        return (c, state), Rows(tried.t, tried.h, seen, tried.mark), tried.keep

    done = record(
        _phases(setup, body), carry, consts,
        block=setup.block, blocks=blocks_of(setup), states=True, stride=None,
    )  # fmt: skip
    return _outcome(setup, done.carry, consts, done, True)


@partial(solve_observed.defjvp, symbolic_zeros=True)
def _solve_observed_jvp(setup: Setup, primals, tangents):
    project = setup.methods[0].project

    def observed(x):
        out = solve(setup, x, None)[0]
        assert out.rows is not None and out.rows.y is not None
        seen = jax.vmap(lambda t, z: observe(setup.f, t, project(z), x.args))
        return out._replace(rows=out.rows._replace(y=seen(out.rows.t, out.rows.y)))

    return jvp_of_active(observed, primals, tangents)


def _moved(x: Any) -> Any:
    """Zero in value, with the derivative of `x`."""
    return x - lax.stop_gradient(x)


def _replayed(
    setup: Setup, x: Inputs, done: Outcome, recorded: Record, ts: Array | None = None, saved=None
) -> tuple[Outcome, Array | None]:
    """`done` and what was `saved` at `ts`, as differentiable functions of `x` and `ts`."""
    if recorded.rows.mark is not None:
        return _replayed_timed(setup, x, done, recorded, ts, saved)
    rows = recorded.rows
    t0_moved, t1_moved = _moved(x.t0), _moved(x.t1)
    reached = done.result == Result.success
    last = jnp.where(reached, recorded.last, -1)
    index = jnp.arange(rows.t.size).reshape(rows.t.shape)

    def step(method, consts, z, row):
        args, t0_moved, t1_moved, last, ts, penalty = consts
        began, h, index = row
        t = began + t0_moved
        h = h + jnp.where(index == last, t1_moved - t0_moved, 0.0)
        step = method.step(setup.f, t, z, h, args, method.init(setup.f, t, z, args))
        *add, numbers = heuristics(setup, method, z, step, h, args)
        add = (*add, share(setup, penalty, numbers, began, h))
        if ts is not None:
            add = (*add, passed_over(setup, method, t, h, z, step, args, ts, index == last))
        return step.y, add, z if rows.y is not None else None

    totals = (done.error, done.stiffness, values_of(done.penalty))
    if ts is not None:
        assert saved is not None
        totals = (*totals, saved - at_start(setup, lax.stop_gradient(x), ts, 0.0))
    known = Replayed(recorded.carry.y, totals, rows.y, recorded.starts)
    replayed = _replay(
        setup, tuple(partial(step, method) for method in setup.methods), recorded,
        lifted(setup, x), (rows.t, rows.h, index),
        (x.args, t0_moved, t1_moved, last, ts, done.penalty), known,
    )  # fmt: skip
    moved = None
    if rows.y is not None:
        stretch = jnp.where(index == last, t1_moved - t0_moved, 0.0)
        moved = jax.tree.map(_flat, Rows(rows.t + t0_moved, rows.h + stretch, replayed.outs))
    t = done.t + jnp.where(reached, t1_moved, t0_moved)
    return _with_derivative(setup, x, done, t, replayed.carry, replayed.totals, moved, ts)


def small(setup: Setup, x: Inputs) -> bool:
    """Whether the Jacobians of steps are formed when they are differentiated (see `replay`)."""
    numbers = [a for a in jax.tree.leaves((x.y0, x.args)) if jnp.issubdtype(a.dtype, jnp.inexact)]
    return sum(a.size for a in numbers) <= SMALL


def _replay(setup: Setup, steps, recorded: Record, carry, rows, consts, known) -> Replayed:
    if setup.levels is None:
        return replay(
            steps, recorded.count, carry, rows, consts, kinds=recorded.kinds,
            jacobians=not setup.f.reverse_only, known=known,
        )  # fmt: skip
    rows, kinds = pad_rows(setup.levels, rows, recorded.kinds)
    return replay_nested(
        steps, recorded.count, carry, rows, consts, kinds=kinds, levels=setup.levels,
        jacobians=not setup.f.reverse_only, known=known._replace(outs=None),
    )  # fmt: skip


def passed_over(
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

    if y.size > SMALL and "save" not in setup.f.parts:
        # One product of matrices instead of a polynomial for each time.
        part = jnp.where(passed, (ts - t) / size, 0.0)[:, None]
        powers = jnp.cumprod(jnp.broadcast_to(part, (ts.size, len(coefficients))), axis=1)
        weights = jnp.concatenate([passed[:, None].astype(part.dtype), powers], axis=1)
        terms = jnp.concatenate([y[None], coefficients])
        return jnp.matmul(weights, terms, precision=lax.Precision.HIGHEST)

    def at(t1):
        return observe(setup.f, t1, polynomial(y, coefficients, (t1 - t) / size), args)

    return jnp.where(passed[:, None], jax.vmap(at)(ts), 0.0)


def at_start(setup: Setup, x: Inputs, ts: Array, other: Any) -> Array:
    """What is saved at t0, in the rows of `ts` that ask for it; `other` in the others."""
    slope = setup.f(x.t0, x.y0, x.args)
    if setup.f.massive:
        slope = jnp.zeros_like(slope)  # it is not the derivative of the state

    def begin(t):
        # The derivative with respect to the time: the value is the same.
        y = x.y0 + (_moved(t) - _moved(x.t0)) * slope
        return observe(setup.f, t, y, x.args)

    return jnp.where((ts == x.t0)[:, None], jax.vmap(begin)(ts), other)


def _with_derivative(setup, x, done: Outcome, t, z, totals, rows, ts):
    error, stiffness, penalty, *saved = totals
    out = done._replace(t=t, y=z, error=error, stiffness=stiffness, rows=rows)
    if done.penalty is not None:
        out = out._replace(penalty=done.penalty._replace(values=penalty))
    return out, saved[0] + at_start(setup, x, ts, 0.0) if saved else None


def _replayed_timed(setup: Setup, x: Inputs, done: Outcome, recorded: Record, ts, saved):
    """`_replayed` where times within the solve have derivatives too: those of stops and events.

    The carry has the derivative of the time as a second part, a number that is zero in value.
    """
    setup = setup._replace(f=setup.f.careful())
    rows = recorded.rows
    ends = x.t1[None] if x.stops is None else jnp.append(x.stops, x.t1)
    index = jnp.arange(rows.t.size).reshape(rows.t.shape)
    stops = ends.size - 1
    direction = jnp.where(x.t1 < x.t0, -1.0, 1.0).astype(x.t0.dtype)

    def step(kind, consts, carry, row):
        (z, shift), (args, ends_at, ends_moved, last, direction, ts, penalty) = carry, consts
        began, h, mark, index = row
        method, event = setup.kinds[kind]
        h0, t = h, began + shift
        if event:
            read = args
            if stops:  # an event and a stop do not share a step: it ends nowhere else
                nowhere = jnp.asarray(False)
                read = args._replace(
                    window=window(ends_at[:-1], began, began, nowhere, direction, args)
                )
            end, z_next, step, h = at_event(setup, method, t, z, h, jnp.maximum(mark, 0), read)
            shift_next = jnp.where(h0 == 0, shift, _moved(end))
        else:
            lands = (mark >= 0) & (h0 != 0)
            shift_next = jnp.where(lands, ends_moved[jnp.maximum(mark, 0)], shift)
            h = h + (shift_next - shift)
            read, target = args, ends_at[jnp.maximum(mark, 0)]
            if stops:
                read = args._replace(
                    window=window(ends_at[:-1], began, target, lands, direction, args)
                )
            step = method.step(setup.f, t, z, h, read, method.init(setup.f, t, z, read))
            z_next = step.y
            if stops and (method.remembers or setup.consistent is not None):
                fresh, _ = anew(
                    setup, method, ends_at[:-1], target + shift_next, z_next, direction, args
                )
                z_next = jnp.where(lands & (target != ends_at[-1]), fresh, z_next)
        *add, numbers = heuristics(setup, method, z, step, h, args)
        add = (*add, share(setup, penalty, numbers, began, h0))
        if ts is not None:
            add = (*add, passed_over(setup, method, t, h, z, step, args, ts, index == last))
        out = (shift, h - h0, z) if rows.y is not None else None
        return (z_next, shift_next), add, out

    zeros = jnp.zeros_like(rows.t)
    totals = (done.error, done.stiffness, values_of(done.penalty))
    if ts is not None:
        assert saved is not None
        totals = (*totals, saved - at_start(setup, lax.stop_gradient(x), ts, 0.0))
    outs = None if rows.y is None else (zeros, zeros, rows.y)
    starts = (recorded.starts, jnp.zeros_like(recorded.starts[..., 0]).real)
    known = Replayed((recorded.carry.y, jnp.zeros_like(done.t)), totals, outs, starts)
    replayed = _replay(
        setup, tuple(partial(step, kind) for kind in range(len(setup.kinds))), recorded,
        (lifted(setup, x), _moved(x.t0)), (rows.t, rows.h, rows.mark, index),
        (
            x.args, lax.stop_gradient(ends), _moved(ends), recorded.last,
            lax.stop_gradient(direction), ts, done.penalty,
        ),
        known,
    )  # fmt: skip
    moved = None
    if rows.y is not None:
        shift, stretch, states = replayed.outs
        moved = Rows(rows.t + shift, rows.h + stretch, states, rows.mark)
        moved = jax.tree.map(_flat, moved)
    z, shift = replayed.carry
    return _with_derivative(setup, x, done, done.t + shift, z, replayed.totals, moved, ts)


def _moving(setup: Setup, tangents) -> Setup:
    """The solve, for derivatives in its span if there are any."""
    dots = (tangents[0].t0, tangents[0].t1)
    if all(isinstance(dot, SymbolicZero) for dot in dots):
        return setup
    return setup._replace(f=setup.f.careful())


@partial(solve.defjvp, symbolic_zeros=True)
def _solve_jvp(setup: Setup, primals, tangents):
    x, ts = primals
    moving = _moving(setup, tangents)
    frozen = jax.tree.map(lax.stop_gradient, x)
    # Where a step is costly, what it saves is read off when it is gone through again.
    at_once = ts is not None and not setup.rows and ts.size <= _FEW and not small(setup, x)
    states = setup.rows or (ts is not None and not at_once)
    kept = lax.stop_gradient(ts) if at_once else None
    done, recorded, known = record_steps(setup, frozen, states, ts=kept)
    # The derivative reads the steps, not the final state: it must refuse on its own.
    recorded = recorded._replace(count=refuse(setup, done.result, recorded.count))

    def replayed(x, ts):
        if at_once:
            return _replayed(moving, x, done, recorded, ts, known)
        out, _ = _replayed(moving, x, done, recorded)
        if setup.rows:
            return out, None
        saved = None if ts is None else saved_at(setup, x, out, ts)
        return out._replace(rows=None, last=None, kinds=None), saved

    return jvp_of_active(replayed, primals, tangents)


@partial(custom_jvp, nondiff_argnums=(0,))
def solve_checkpointed(setup: Setup, x: Inputs, ts: Array | None) -> tuple[Outcome, Array | None]:
    """As `solve`, with the memory of its derivative bounded by `setup.levels`."""
    return _marched(setup, x, ts, march)


@partial(solve_checkpointed.defjvp, symbolic_zeros=True)
def _solve_checkpointed_jvp(setup: Setup, primals, tangents):
    x, ts = jax.tree.map(lax.stop_gradient, primals)
    assert setup.levels is not None
    blocks = setup.levels[0][0]
    total = 1
    for level in setup.levels:
        total *= level[0] * level[1]
    stride = max(total // blocks // setup.block, 1)
    done, recorded, saved = record_steps(setup, x, False, stride, ts)
    recorded = recorded._replace(count=refuse(setup, done.result, recorded.count))

    def replayed(x, ts):
        out, values = _replayed(_moving(setup, tangents), x, done, recorded, ts, saved)
        return out._replace(rows=None, last=None, kinds=None), values

    return jvp_of_active(replayed, primals, tangents)
