"""From (t0, y0) to t1: the adaptive march, and its derivative over the steps it accepted."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array

from ..errors import SolveError
from ..ground import varying
from ..ground.derivative import custom_jvp, jvp_of_active
from ..ground.march import Phase, Record, Rows, march, record, run_phases
from ..ground.replay import SMALL, Replayed, Undo, pad_rows, replay, replay_nested
from ..ground.tracing import raise_if
from .again import Ends, Read, Row, again, at_start, moved
from .attempt import (
    ENDED,
    Carry,
    Consts,
    attempt,
    handle,
    lifted,
    onwards,
    running,
    start,
)
from .heuristics import values_of
from .interpolation import polynomial
from .problem import Inputs, Outcome, Setup
from .saving import observe, saved_at
from .solution import MESSAGES, Result

#: So many saved times are filled in during the march; more are found afterwards, from the steps.
_FEW = 256
#: So many more blocks there are than the steps fill: an event or a change of method ends two.
_SPARE = 256

_UNRECOVERED = (
    "stepping backwards did not recover the initial state (relative error above {}): "
    "the equation contracts too strongly to be reversed; use adjoint=rf.CheckpointAdjoint(), "
    "or smaller steps"
)


def _phases(setup: Setup, body) -> tuple[Phase, ...]:
    """The phases of a solve: `body(kind, s, consts, live)` for each kind of step."""

    def active(kind, c, consts):
        on = running(setup, c, _plain(consts))
        return on if c.mode is None else on & (c.mode == kind)

    def enter(kind, c, consts):
        method, event = setup.kinds[kind]
        if event:
            return ()
        x, direction = _plain(consts)
        return method.init(setup.f, c.t, c.y, onwards(x, c.t, direction))

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
    which = jnp.clip(result - 1, 0, len(MESSAGES) - 1)
    return raise_if(values, Result.failed(result), MESSAGES, SolveError, which)


def _outcome(
    setup: Setup, c: Carry, consts: Any, more: Any, done: Record | None = None, states: bool = False
) -> tuple[Outcome, Any]:
    """Where a solve got to; with `more`, which it refuses as well if the solve has failed."""
    rows = last = kinds = None
    if done is not None and states:
        rows, last = jax.tree.map(_flat, done.rows), done.last
        kinds = None if done.kinds is None else jnp.repeat(done.kinds, setup.block)
    result = _result(c, _plain(consts))
    if done is not None and (len(setup.kinds) > 1 or setup.blocks is not None):
        full = (done.count >= blocks_of(setup)) & (jnp.sum(c.attempts) < setup.max_steps)
        result = jnp.where(full & (result == Result.max_steps), Result.record_full, result)
    # Of the rows only the index: they are large, and whoever reads them reads it.
    t, y, last, more = refuse(setup, result, (c.t, c.y, last, more))
    out = Outcome(
        t, y, c.error, c.stiffness, c.penalty, c.attempts, c.accepted, c.iterations, result,
        c.which, rows, last, kinds,
    )  # fmt: skip
    return out, more


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
    passed: bool = False,
) -> tuple[Outcome, Record, Array | None]:
    """Marches and keeps the steps; fills in what is saved at the times `ts`.

    A derivative reads the steps, not the final state: their count refuses a failed solve as well.
    """
    carry, consts = _started(setup, x, ts)

    def body(kind, s, consts, live):
        c, state, tried = _tried(setup, kind, s[0], s[1], consts, live)
        return (c, state), Rows(tried.t, tried.h, tried.y, tried.mark), tried.keep

    done = record(
        _phases(setup, body), carry, consts,
        block=setup.block, blocks=blocks_of(setup), states=states, stride=stride, passed=passed,
    )  # fmt: skip
    more = (done.count, done.carry.saved)
    out, (count, saved) = _outcome(setup, done.carry, consts, more, done, states)
    return out, done._replace(count=count), saved


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
    return _outcome(setup, carry, consts, carry.saved)


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
    return _outcome(setup, done.carry, consts, None, done, True)[0]


@partial(solve_observed.defjvp, symbolic_zeros=True)
def _solve_observed_jvp(setup: Setup, primals, tangents):
    project = setup.methods[0].project

    def observed(x):
        out = solve(setup, x, None)[0]
        assert out.rows is not None and out.rows.y is not None
        seen = jax.vmap(lambda t, z: observe(setup.f, t, project(z), x.args))
        return out._replace(rows=out.rows._replace(y=seen(out.rows.t, out.rows.y)))

    return jvp_of_active(observed, primals, tangents)


def _replayed(
    setup: Setup, x: Inputs, done: Outcome, recorded: Record, ts: Array | None = None, saved=None
) -> tuple[Outcome, Array | None]:
    """`done` and what was `saved` at `ts`, as differentiable functions of `x` and `ts`.

    Where times within the solve have derivatives too, those of stops and events, the carry has the
    derivative of the time as a second part, a number that is zero in value.
    """
    timed = recorded.rows.mark is not None
    if timed:
        setup = setup._replace(f=setup.f.careful())
    rows, z0 = recorded.rows, lifted(setup, x)
    shift = None if setup.still and not timed else moved(x.t0)
    reached: Any = None if timed else done.result == Result.success
    read = _read(x, done, recorded, ts, shift, reached)

    def step(kind, read, carry, row):
        z, shift = carry if timed else (carry, None if read.span is None else read.span[0])
        taken, add = again(setup, kind, read, z, shift, row)
        if not timed:
            return taken.z, add, None if rows.y is None else z
        out = None if rows.y is None else (shift, taken.h - row.h, z)
        return (taken.z, taken.shift), add, out

    totals = (done.error, done.stiffness, values_of(done.penalty))
    if ts is not None:
        assert saved is not None
        totals = (*totals, saved - at_start(setup, lax.stop_gradient(x), ts, 0.0))
    passed = recorded.passed if rows.y is None else rows.y
    carry, known = z0, Replayed(recorded.carry.y, totals, rows.y, recorded.starts)
    if timed:
        zeros = jnp.zeros_like(rows.t)
        outs = None if rows.y is None else (zeros, zeros, rows.y)
        starts = (recorded.starts, jnp.zeros_like(recorded.starts[..., 0]).real)
        carry = (z0, shift)
        known = Replayed((recorded.carry.y, jnp.zeros_like(done.t)), totals, outs, starts)
        passed = None if passed is None else (passed, zeros)
    index = jnp.arange(rows.t.size).reshape(rows.t.shape)
    steps = tuple(partial(step, kind) for kind in range(len(setup.kinds)))
    replayed = _replay(
        setup, steps, recorded, carry, Row(rows.t, rows.h, rows.mark, index), read, known,
        passed, rows.y is not None,
    )  # fmt: skip
    z, end = replayed.carry if timed else (replayed.carry, None)
    if read.span is not None:
        end = jnp.where(reached, read.span[1], read.span[0])
    t = done.t if end is None else done.t + end
    out = done._replace(t=t, y=z, rows=_moved_rows(recorded, read, replayed.outs, index))
    return _with_totals(setup, x, out, replayed.totals, ts)


def _read(
    x: Inputs, done: Outcome, recorded: Record, ts: Array | None, shift: Array | None, reached: Any
) -> Read:
    """What the steps read; the time at the start moves like `shift`, if it does at all."""
    if reached is not None:
        # The last step moves with t1 if it got there.
        last = jnp.where(reached, recorded.last, -1)
        span = None if shift is None else (shift, moved(x.t1))
        return Read(x.args, last, ts, done.penalty, span)
    times = x.t1[None] if x.stops is None else jnp.append(x.stops, x.t1)
    direction = jnp.where(x.t1 < x.t0, -1.0, 1.0).astype(x.t0.dtype)
    ends = Ends(lax.stop_gradient(times), moved(times), lax.stop_gradient(direction))
    return Read(x.args, recorded.last, ts, done.penalty, None, ends)


def _moved_rows(recorded: Record, read: Read, outs: Any, index: Array) -> Rows | None:
    """The rows, where they are kept, as they move."""
    rows = recorded.rows
    if rows.y is None:
        return None
    if read.ends is not None:
        shift, stretch, states = outs
    elif read.span is not None:
        (shift, end), states = read.span, outs
        stretch = jnp.where(index == read.last, end - shift, 0.0)
    else:
        return jax.tree.map(_flat, rows._replace(y=outs))
    return jax.tree.map(_flat, Rows(rows.t + shift, rows.h + stretch, states, rows.mark))


def _with_totals(setup: Setup, x: Inputs, out: Outcome, totals, ts: Array | None):
    """`out` with the sums over the steps, and what was saved at `ts`."""
    error, stiffness, penalty, *saved = totals
    out = out._replace(error=error, stiffness=stiffness)
    if out.penalty is not None:
        out = out._replace(penalty=out.penalty._replace(values=penalty))
    return out, None if ts is None else saved[0] + at_start(setup, x, ts, 0.0)


def _undone(setup: Setup, read: Read, z: Array, row: Row) -> Array:
    """The lifted state before a step; the same if there was none."""
    before = setup.methods[0].inverse(setup.f, row.t + row.h, z, row.h, read.args)
    return jnp.where(row.h == 0, z, before)


def small(setup: Setup, x: Inputs) -> bool:
    """Whether the Jacobians of steps are formed when they are differentiated (see `replay`)."""
    numbers = [a for a in jax.tree.leaves((x.y0, x.args)) if jnp.issubdtype(a.dtype, jnp.inexact)]
    return sum(a.size for a in numbers) <= SMALL


def _replay(
    setup: Setup, steps, recorded: Record, carry, rows, consts, known, passed, by_all: bool
) -> Replayed:
    if setup.levels is None:
        undo = None
        if setup.recover is not None:
            message = _UNRECOVERED.format(setup.recover)
            undo = Undo((partial(_undone, setup),), setup.recover, message)
            known = known._replace(starts=None)
        return replay(
            steps, recorded.count, carry, rows, consts, kinds=recorded.kinds,
            jacobians=not setup.f.reverse_only, undo=undo, known=known,
            passed=passed, passed_by_all=by_all,
        )  # fmt: skip
    rows, kinds = pad_rows(setup.levels, rows, recorded.kinds)
    return replay_nested(
        steps, recorded.count, carry, rows, consts, kinds=kinds, levels=setup.levels,
        jacobians=not setup.f.reverse_only, known=known._replace(outs=None),
    )  # fmt: skip


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
    passed = not states and small(setup, x)
    done, recorded, known = record_steps(setup, frozen, states, ts=kept, passed=passed)

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
def solve_lean(setup: Setup, x: Inputs, ts: Array | None) -> tuple[Outcome, Array | None]:
    """As `solve`, with a derivative that keeps few states (`setup.levels`) or recovers them."""
    return solve(setup, x, ts) if setup.levels is None else _marched(setup, x, ts, march)


@partial(solve_lean.defjvp, symbolic_zeros=True)
def _solve_lean_jvp(setup: Setup, primals, tangents):
    x, ts = jax.tree.map(lax.stop_gradient, primals)
    stride = None
    if setup.levels is not None:
        total = math.prod(size for level in setup.levels for size in level)
        stride = max(total // setup.levels[0][0] // setup.block, 1)
    done, recorded, saved = record_steps(setup, x, False, stride, ts)

    def replayed(x, ts):
        out, values = _replayed(_moving(setup, tangents), x, done, recorded, ts, saved)
        return out._replace(rows=None, last=None, kinds=None), values

    return jvp_of_active(replayed, primals, tangents)
