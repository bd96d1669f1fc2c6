"""From (t0, y0) to t1: the adaptive march, and its derivative over the steps it accepted."""

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Bool

from . import control
from .interpolation import polynomial
from .march import BLOCK, Record, Rows, march, record
from .methods import Step
from .problem import Inputs, Outcome, Setup
from .replay import Replayed, replay
from .saving import saved_at
from .solution import MESSAGES, Result

#: So many saved times are filled in during the march; more are found afterwards, from the steps.
_FEW = 256
#: Relative length by which a step may be stretched to end at t1 rather than just before it.
_STRETCH = 1e-6


class _Carry(NamedTuple):
    t: Array
    y: Array
    state: Any
    h: Array  # the size of the next step; zero: too small to go on; not a number: so was the error
    previous: Array
    attempts: Array
    accepted: Array
    error: Array
    stiffness: Array


def _norm(x: Array) -> Array:
    """Euclidean norm whose derivative at zero is zero."""
    square = jnp.sum(jnp.real(x * jnp.conj(x)) if jnp.iscomplexobj(x) else x * x)
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)


def _heuristics(step: Step, h: Array) -> tuple[Array, Array]:
    size = jnp.abs(h)
    error = jnp.zeros_like(size) if step.error is None else _norm(step.error) * size
    stiffness = jnp.zeros_like(size) if step.stiffness is None else step.stiffness * size
    return error, stiffness


def _lifted(setup: Setup, x: Inputs) -> Array:
    return setup.method.lift(setup.f, x.t0, x.y0, x.args)


def _start(setup: Setup, x: Inputs) -> tuple[_Carry, Array]:
    direction = jnp.where(x.t1 < x.t0, -1.0, 1.0).astype(x.t0.dtype)
    z = _lifted(setup, x)
    state = setup.method.init(setup.f, x.t0, z, x.args)
    if setup.given:
        h = x.h
    else:
        slope = setup.f(x.t0, x.y0, x.args)
        span = jnp.abs(x.t1 - x.t0)
        h = control.first_step(
            setup.f,
            x.t0,
            x.y0,
            slope,
            span,
            direction,
            x.args,
            x.args.tolerances,
            setup.method.error_order,
        )
    zero = jnp.zeros_like(x.t0)
    count = jnp.zeros((), jnp.int32)
    return _Carry(x.t0, z, state, h, zero, count, count, zero, zero), direction


def _running(setup: Setup, c: _Carry, consts: tuple[Inputs, Array]) -> Bool[Array, ""]:
    x, direction = consts
    return (direction * (x.t1 - c.t) > 0) & (c.h > 0) & (c.attempts < setup.max_steps)


class _Tried(NamedTuple):
    """A step that was tried: from (t, y) by h."""

    t: Array
    h: Array
    y: Array
    step: Step
    keep: Array


def _attempt(
    setup: Setup, c: _Carry, consts: tuple[Inputs, Array], live: Array | bool
) -> tuple[_Carry, _Tried]:
    """Tries one step; keeps it if its error is within the tolerance, and if it is `live` at all.

    What is decided here has no derivative; what is done with the decisions has.
    """
    x, direction = consts
    left = direction * (x.t1 - c.t)
    last = c.h * (1 + _STRETCH) >= left
    size = jnp.where(last, left, c.h)
    h = direction * size
    step = setup.method.step(setup.f, c.t, c.y, h, x.args, c.state)
    if setup.fixed:
        keep, previous = jnp.asarray(True), c.previous
        # A state that is not finite ends the march: nothing after it could be.
        h_next = jnp.where(jnp.all(jnp.isfinite(step.y)), c.h, jnp.nan)
    else:
        assert step.error is not None
        project = setup.method.project
        local, y0, y1 = map(lax.stop_gradient, (step.error, project(c.y), project(step.y)))
        error = control.log_error(local, y0, y1, x.args.tolerances)
        keep = error <= 0
        change = control.factor(error, c.previous, keep, setup.method.error_order)
        h_next = lax.stop_gradient(size) * change
        t = lax.stop_gradient(c.t)
        stuck = ~keep & (t + 0.25 * h_next == t)
        h_next = jnp.where(stuck, jnp.where(error >= control._HOPELESS, jnp.nan, 0.0), h_next)
        previous = error
    tried = 1
    if live is not True:
        keep, tried = keep & live, jnp.where(live, 1, 0)
        h_next = jnp.where(live, h_next, c.h)
    t = jnp.where(last, x.t1, c.t + h)
    error_sum, stiffness_sum = _heuristics(step, h)
    pick = partial(jnp.where, keep)
    new = _Carry(
        t=pick(t, c.t),
        y=pick(step.y, c.y),
        state=jax.tree.map(pick, step.state, c.state),
        h=h_next,
        previous=pick(previous, c.previous),
        attempts=c.attempts + tried,
        accepted=c.accepted + keep,
        error=c.error + pick(error_sum, 0.0),
        stiffness=c.stiffness + pick(stiffness_sum, 0.0),
    )
    return new, _Tried(c.t, h, c.y, step, keep)


def _flat(rows: Array) -> Array:
    return rows.reshape(-1, *rows.shape[2:])


def _result(c: _Carry, consts: tuple[Inputs, Array]) -> Array:
    x, direction = consts
    finite = jnp.all(jnp.isfinite(c.y))
    reached = ~(direction * (x.t1 - c.t) > 0) & finite
    failure = jnp.where(
        jnp.isnan(c.h) | ~finite,
        Result.non_finite,
        jnp.where(c.h <= 0, Result.step_underflow, Result.max_steps),
    )
    return jnp.where(reached, Result.success, failure)


def _refuse(setup: Setup, result: Array, values: Any) -> Any:
    """`values`, which whoever uses them in a compiled program cannot do after a failed solve."""
    if not setup.throw:
        return values
    failed = result != Result.success
    return eqx.internal.branched_error_if(values, failed, result - 1, MESSAGES)


def _outcome(
    setup: Setup, c: _Carry, consts: tuple[Inputs, Array], done: Record | None = None
) -> Outcome:
    rows = None if done is None else jax.tree.map(_flat, done.rows)
    last = None if done is None else done.last
    result = _result(c, consts)
    t, y, rows = _refuse(setup, result, (c.t, setup.method.project(c.y), rows))
    return Outcome(t, y, c.error, c.stiffness, c.attempts, c.accepted, result, rows, last)


def _record(setup: Setup, x: Inputs, states: bool) -> tuple[Outcome, Record]:
    carry, direction = _start(setup, x)
    consts = (x, direction)

    def body(c, consts, live):
        c, tried = _attempt(setup, c, consts, live)
        return c, (tried.t, tried.h, tried.y), tried.keep

    done = record(
        partial(_running, setup), body, carry, consts,
        blocks=-(-setup.max_steps // BLOCK), states=states,
    )  # fmt: skip
    return _outcome(setup, done.carry, consts, done if states else None), done


def _while(running, body, carry, consts):
    """As `march`, but differentiable in forward mode by JAX itself."""
    return lax.while_loop(lambda c: running(c, consts), lambda c: body(c, consts, True), carry)


def _marched(setup: Setup, x: Inputs, ts: Array | None, loop) -> tuple[Outcome, Array | None]:
    """Goes from t0 to t1 and fills in the saved times as the steps pass over them.

    The cost of a step grows with the number of saved times.
    """
    carry, direction = _start(setup, x)
    carry = carry._replace(h=lax.stop_gradient(carry.h))
    consts = (x, direction)
    if ts is None:
        carry = loop(
            partial(_running, setup),
            lambda c, k, live: _attempt(setup, c, k, live)[0],
            carry,
            consts,
        )
        return _outcome(setup, carry, consts), None

    def running(c, consts):
        return _running(setup, c[0], consts[0])

    def save(c, consts, live):
        (carry, saved), (consts, ts) = c, consts
        direction = consts[1]
        new, tried = _attempt(setup, carry, consts, live)
        coefficients = setup.method.coefficients(tried.h, tried.y, tried.step)
        passed = (direction * ts > direction * tried.t) & (direction * ts <= direction * new.t)
        at = jax.vmap(lambda s: polynomial(setup.method.project(tried.y), coefficients, s))
        value = at((ts - tried.t) / tried.h)
        return new, jnp.where((passed & tried.keep)[:, None], value, saved)

    start = jnp.where((ts == x.t0)[:, None], x.y0, jnp.nan)
    carry, saved = loop(running, save, (carry, start), (consts, ts))
    out = _outcome(setup, carry, consts)
    return out, _refuse(setup, out.result, saved)


def solve_forward(setup: Setup, x: Inputs, ts: Array | None) -> tuple[Outcome, Array | None]:
    """As `solve`, with the derivative carried along: forward mode only, no step is stored."""
    return _marched(setup, x, ts, _while)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def solve(setup: Setup, x: Inputs, ts: Array | None) -> tuple[Outcome, Array | None]:
    """Integrates from `x.t0` to `x.t1`, and saves the state at the times `ts`.

    The derivative is that of the steps that were accepted: their sizes are held fixed, but for the
    last, which ends at `t1`. Which steps to take is not differentiated.
    """
    if setup.rows:
        return _record(setup, x, True)[0], None
    if ts is None or ts.size <= _FEW:
        return _marched(setup, x, ts, march)
    out, _ = _record(setup, x, True)
    return out._replace(rows=None, last=None), saved_at(setup, x, out, ts)


def _replayed(setup: Setup, x: Inputs, done: Outcome, recorded: Record) -> Outcome:
    """`done`, as a differentiable function of `x`."""
    rows = recorded.rows
    # Zero in value; they carry the derivative of the two ends of the span into the steps.
    t0_moved = x.t0 - lax.stop_gradient(x.t0)
    t1_moved = x.t1 - lax.stop_gradient(x.t1)
    reached = done.result == Result.success
    last = jnp.where(reached, recorded.last, -1)
    index = jnp.arange(rows.t.size).reshape(rows.t.shape)

    def step(consts, y, row):
        args, t0_moved, t1_moved, last = consts
        t, h, index = row
        t = t + t0_moved
        h = h + jnp.where(index == last, t1_moved - t0_moved, 0.0)
        state = setup.method.init(setup.f, t, y, args)
        step = setup.method.step(setup.f, t, y, h, args, state)
        return step.y, _heuristics(step, h), y if rows.y is not None else None

    known = Replayed(recorded.carry.y, (done.error, done.stiffness), rows.y, recorded.starts)
    replayed = replay(
        step, recorded.count, _lifted(setup, x), (rows.t, rows.h, index),
        (x.args, t0_moved, t1_moved, last), known=known,
    )  # fmt: skip
    error, stiffness = replayed.totals
    moved = None
    if rows.y is not None:
        stretch = jnp.where(index == last, t1_moved - t0_moved, 0.0)
        moved = jax.tree.map(_flat, Rows(rows.t + t0_moved, rows.h + stretch, replayed.outs))
    return done._replace(
        t=done.t + jnp.where(reached, t1_moved, t0_moved),
        y=setup.method.project(replayed.carry),
        error=error,
        stiffness=stiffness,
        rows=moved,
    )


@partial(solve.defjvp, symbolic_zeros=True)
def _solve_jvp(setup: Setup, primals, tangents):
    x, ts = primals
    frozen = jax.tree.map(lax.stop_gradient, x)
    done, recorded = _record(setup, frozen, setup.rows or ts is not None)
    # The derivative reads the steps, not the final state: it must refuse on its own.
    recorded = _refuse(setup, done.result, recorded)
    leaves, structure = jax.tree.flatten(primals)
    dots = structure.flatten_up_to(tangents)
    active = [i for i, d in enumerate(dots) if not isinstance(d, SymbolicZero)]

    def of_active(*values):
        full = list(leaves)
        for i, value in zip(active, values, strict=True):
            full[i] = value
        x, ts = jax.tree.unflatten(structure, full)
        out = _replayed(setup, x, done, recorded)
        if setup.rows:
            return out, None
        saved = None if ts is None else saved_at(setup, x, out, ts)
        return out._replace(rows=None, last=None), saved

    values = tuple(leaves[i] for i in active)
    return jax.jvp(of_active, values, tuple(dots[i] for i in active))
