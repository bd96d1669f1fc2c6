"""Loops whose length is known only at run time, and the record they leave.

`march` runs such a loop, without a derivative; `record` does the same and keeps what is needed to
go through the kept iterations again, which is how `replay` differentiates them.

A loop may have several phases (an explicit and a stiff method, the handling of events). Each is an
inner loop of its own that runs while any member is in that phase, inside one outer loop; no
iteration chooses between phases, so that nobody pays for a phase that no member is in.

Under `vmap` all members share one iteration counter, so that a row is written with one contiguous
copy (never a scatter) and the loop ends when the last member has finished.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array, ArrayLike, Float, Int

from . import varying
from .tracing import traced_once


class Phase(NamedTuple):
    """One kind of iteration.

    Attributes:
        active: `(carry, consts) -> bool`, whether a member is in this phase and running.
        enter: `(carry, consts) -> local`, what the iterations of this phase hand on to one another
            besides the carry.
        body: `((carry, local), consts, live) -> (carry, local)`, one iteration. `live` is `True`,
            or under `vmap` whether the member is in this phase: where it is not, the body must
            leave its carry alone. (It does so at less cost than a second selection around it.)
            For `record` it returns `(carry, local), row, keep`.
    """

    active: Callable[[Any, Any], Array]
    enter: Callable[[Any, Any], Any]
    body: Callable[[Any, Any, Any], Any]


class Rows(NamedTuple):
    """Kept iterations, in blocks: each went from time `t` by `h`; `y`, if kept, is the state there.

    A row may be idle: at the end of a block, and under `vmap` also where a member rejected an
    attempt or has finished. There `h` is zero, so that doing it again changes nothing. `mark`, if
    there, says what the step ended at (see `timeline`).
    """

    t: Float[Array, "blocks block"]
    h: Float[Array, "blocks block"]
    y: Float[Array, "blocks block n"] | None
    mark: Int[Array, "blocks block"] | None = None


class _Keep(NamedTuple):
    """What `record` is asked to keep; see there."""

    block: int
    blocks: int
    states: bool
    stride: int | None


class Record(NamedTuple):
    """What `record` returns.

    Attributes:
        carry: the final carry.
        count: the number of blocks in use.
        last: index of the last row that is not idle (-1: none), counted through all blocks.
        starts: the state at the start of each block.
        rows: the rows.
        kinds: the phase of each block; `None` if there is only one phase.
        passed: the state of every row, if it was asked for; of a batch zeros.
    """

    carry: Any
    count: Int[Array, ""]
    last: Int[Array, ""]
    starts: Float[Array, "blocks n"]
    rows: Rows
    kinds: Int[Array, " blocks"] | None
    passed: Float[Array, "blocks block n"] | None = None


def row_at(tree: Any, i: ArrayLike) -> Any:
    """Row `i` of every leaf."""
    return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, i, 0, keepdims=False), tree)


def write_row(buffers: Any, rows: Any, i: ArrayLike) -> Any:
    """The buffers with `rows` as their row `i`."""
    return jax.tree.map(lambda b, r: lax.dynamic_update_index_in_dim(b, r, i, 0), buffers, rows)


def scan_rows(step: Callable[..., Any], carry: Any, rows: Any, reverse: bool) -> tuple[Any, Any]:
    """`jax.lax.scan`, without a loop over a single row."""
    if jax.tree.leaves(rows)[0].shape[0] == 1:
        carry, out = step(carry, jax.tree.map(lambda r: jnp.squeeze(r, 0), rows))
        return carry, jax.tree.map(lambda o: jnp.expand_dims(o, 0), out)
    return varying.scan(step, carry, rows, reverse=reverse)


def empty_rows(shapes: Any, *length: int) -> Any:
    """Zeros like `shapes`, with leading axes of the given length."""
    return jax.tree.map(lambda r: jnp.zeros((*length, *r.shape), r.dtype), shapes)


def where_member(condition: Array, new: Any, old: Any) -> Any:
    """`new` where the condition holds, by member: its axes are the leading ones of every leaf."""

    def pick(a, b):
        return jnp.where(
            condition.reshape(condition.shape + (1,) * (a.ndim - condition.ndim)), a, b
        )

    return jax.tree.map(pick, new, old)


def batch_axes(batched: Any) -> Any:
    """`in_axes` of `vmap` from the flags of `custom_vmap`."""
    return jax.tree.map(lambda b: 0 if b else None, batched)


def all_batched(tree: Any) -> Any:
    """The flags of `custom_vmap` for outputs that are all batched."""
    return jax.tree.map(lambda _: True, tree)


def every_member(tree: Any, batched: Any, size: int) -> Any:
    """The tree with a leading axis of members in every leaf."""
    return jax.tree.map(
        lambda x, b: x if b else jnp.broadcast_to(x, (size, *jnp.shape(x))), tree, batched
    )


def _alone(phase: Phase) -> Phase:
    return phase._replace(body=lambda s, consts: phase.body(s, consts, True))


def _gated(phase: Phase) -> Phase:
    """A phase whose iterations know which members are in it; `live` is no longer an argument."""

    def body(s, consts):
        return phase.body(s, consts, phase.active(s[0], consts))

    return phase._replace(body=body)


def _batched(phase: Phase, axes: Any) -> Phase:
    def batch(function: Any) -> Any:
        return jax.vmap(function, (0, axes))

    return Phase(batch(phase.active), batch(phase.enter), batch(phase.body))


def march(phases: tuple[Phase, ...], carry: Any, consts: Any) -> Any:
    """Runs the phases, in turn, until none is active.

    Not differentiable: the caller defines the derivative through `replay`.
    """

    @custom_vmap
    def run(carry, consts):
        return run_phases(tuple(map(_alone, phases)), carry, consts)

    @run.def_vmap
    def _(size, batched, carry, consts):
        return _march_members(tuple(map(_gated, phases)), size, batched, carry, consts)

    return run(carry, consts)


def _march_members(phases, size, batched, carry, consts):
    carry_batched, consts_batched = batched
    carry = every_member(carry, carry_batched, size)
    axes = batch_axes(consts_batched)
    phases = tuple(_batched(phase, axes) for phase in phases)

    @custom_vmap
    def run(carry, consts):
        return run_phases(phases, carry, consts)

    @run.def_vmap
    def _(size, batched, carry, consts):
        return _march_members(phases, size, batched, carry, consts)

    out = run(carry, consts)
    return out, all_batched(out)


def _any_active(phases: tuple[Phase, ...], carry: Any, consts: Any) -> Any:
    active = False
    for phase in phases:
        active = jnp.any(phase.active(carry, consts)) | active
    return active


def run_phases(phases: tuple[Phase, ...], carry: Any, consts: Any) -> Any:
    """The loops themselves; `body(s, consts)` of a phase takes no third argument here."""

    def inner(phase, carry):
        return varying.while_loop(
            lambda s: jnp.any(phase.active(s[0], consts)),
            lambda s: phase.body(s, consts),
            (carry, phase.enter(carry, consts)),
        )[0]

    if len(phases) == 1:
        return inner(phases[0], carry)

    def outer(carry):
        for phase in phases:
            carry = inner(phase, carry)
        return carry

    return varying.while_loop(lambda carry: _any_active(phases, carry, consts), outer, carry)


def record(
    phases: tuple[Phase, ...],
    carry: Any,
    consts: Any,
    *,
    block: int,
    blocks: int,
    states: bool,
    stride: int | None = 1,
    passed: bool = False,
) -> Record:
    """As `march`, and keeps the rows.

    Args:
        phases: their bodies return `(carry, local), row, keep` with `row` a `Rows` of one
            iteration, its `y` the state from which it starts; `keep` says whether it counts (an
            accepted step). The carry has the attribute `y`.
        carry: the start.
        consts: whatever else the phases read.
        block: iterations in a block.
        blocks: the most blocks that can be kept.
        states: keep the state of every row, not only those at the starts of blocks.
        stride: keep the state at the start of every `stride` blocks; `None`: of none.
        passed: keep the state of every row as `Record.passed`, unless there is a batch: what is
            little for one member is much for many, and they have enough to do together to compute
            the states again.
    """
    keep = _Keep(block, blocks, states, stride)

    @custom_vmap
    def run(carry, consts):
        # A rejected attempt is overwritten by the next.
        alone, every = tuple(map(_alone, phases)), keep._replace(states=states or passed)
        done = _recorded(alone, carry, consts, every, shared=False)
        if passed:
            rows = done.rows if states else done.rows._replace(y=None)
            done = done._replace(rows=rows, passed=done.rows.y)
        return done

    @run.def_vmap
    def _(size, batched, carry, consts):
        gated = tuple(map(_gated, phases))
        done, flags = _record_members(gated, size, batched, carry, consts, keep)
        if passed:
            state = jax.tree.map(lambda y, b: y[0] if b else y, carry.y, batched[0].y)
            zeros = empty_rows(state, *done.rows.t.shape[1:])
            done, flags = done._replace(passed=zeros), flags._replace(passed=False)
        return done, flags

    return run(carry, consts)


def _record_members(phases, size, batched, carry, consts, keep):
    """`record` for a batch: a shared counter, and idle rows where a member has nothing to keep."""
    carry_batched, consts_batched = batched
    carry = every_member(carry, carry_batched, size)
    axes = batch_axes(consts_batched)
    phases = tuple(_batched(phase, axes) for phase in phases)

    @custom_vmap
    def run(carry, consts):
        return _recorded(phases, carry, consts, keep, shared=True)

    @run.def_vmap
    def _(size, batched, carry, consts):
        return _record_members(phases, size, batched, carry, consts, keep)

    done = run(carry, consts)
    done = done._replace(
        starts=jnp.moveaxis(done.starts, 1, 0),
        rows=jax.tree.map(lambda r: jnp.moveaxis(r, 2, 0), done.rows),
    )
    flags = all_batched(done)._replace(count=False)
    return done, flags if done.kinds is None else flags._replace(kinds=False)


def _recorded(phases, carry, consts, kept: _Keep, shared: bool) -> Record:
    if len(phases) > 1:
        return _blocks(phases, carry, consts, kept, shared)
    return _in_a_row(phases[0], carry, consts, kept, shared)


def _with_row(phase: Any, inner: Any, consts: Any, states: bool) -> tuple[Any, Rows]:
    """The phase, its body traced, and what one of its rows looks like."""
    body, (_, row, _) = traced_once(phase.body, inner, consts)
    return phase._replace(body=body), row._replace(y=row.y if states else None)


def _attempt(phase: Any, consts: Any, base: ArrayLike, states: bool, shared: bool):
    """One iteration; the first of the rows that it is given has the index `base`."""

    def body(s):
        i, last, inner, rows = s
        inner, row, keep = phase.body(inner, consts)
        row = row._replace(h=jnp.where(keep, row.h, 0), y=row.y if states else None)
        last = jnp.where(keep, base + i, last)
        return i + 1 if shared else i + keep, last, inner, write_row(rows, row, i)

    return body


def _in_a_row(phase: Any, carry: Any, consts: Any, kept: _Keep, shared: bool) -> Record:
    """A record of one phase: one loop, in which what nobody asks for is not computed.

    (What an inner loop carries the compiler cannot drop.)
    """
    length, blocks, states, stride = kept
    inner = (carry, phase.enter(carry, consts))
    phase, row = _with_row(phase, inner, consts, states)
    active = phase.active(carry, consts)
    attempt = _attempt(phase, consts, 0, states, shared)
    groups = 0 if stride is None else -(-blocks // stride)
    every = None if stride is None else length * stride

    def turn(s):
        starts, (i, _, (carry, _), _) = s[0], s[1]
        if every == 1:
            starts = write_row(starts, carry.y, i)
        elif every is not None:
            # (All members are at the same row: the condition is one, and no selection.)
            starts = varying.cond(
                i % every == 0,
                lambda: write_row(starts, carry.y, i // every),
                lambda: starts,
            )
        return starts, attempt(s[1])

    def running(s):
        i, _, (carry, _), _ = s[1]
        return jnp.any(phase.active(carry, consts)) & (i < blocks * length)

    starts = empty_rows(carry.y, groups)
    rows = empty_rows(row, blocks * length)
    begin = (jnp.asarray(0), jnp.full(jnp.shape(active), -1), inner, rows)
    starts, (i, last, (carry, _), rows) = varying.while_loop(running, turn, (starts, begin))
    rows = jax.tree.map(lambda r: r.reshape(blocks, length, *r.shape[1:]), rows)
    count = -(-i // length)
    # The last block in use may have idle rows at its end.
    final = jnp.maximum(count - 1, 0)
    block = _filled(row_at(rows, final), i - final * length)
    rows = write_row(rows, block, final)
    return Record(carry, count, last, starts, rows, None)


def _filled(block: Rows, i: Array) -> Rows:
    """A block whose idle rows, from `i` on, begin as the last one did.

    There the equation can be evaluated, which whoever goes through them again will do.
    """
    idle = jnp.arange(len(block.t)).reshape(-1, *(1,) * (block.t.ndim - 1)) >= i
    last = row_at(block, jnp.maximum(i - 1, 0))
    y = None if block.y is None else where_member(idle, last.y[None], block.y)
    return block._replace(t=jnp.where(idle, last.t, block.t), y=y)


def _blocks(phases, carry, consts, kept: _Keep, shared: bool) -> Record:
    """Fills block after block, each within one phase, until no phase is active."""
    length, blocks, states, stride = kept
    # What a phase writes that made no iteration must not go into the last block.
    room = blocks + len(phases)
    groups = 0 if stride is None else -(-room // stride)
    inner = (carry, phases[0].enter(carry, consts))
    first, row = _with_row(phases[0], inner, consts, states)
    phases = (first, *phases[1:])

    def fill(kind, s):
        """One block of phase `kind`."""
        count, last, carry, starts, rows, kinds = s
        phase = phases[kind]
        i, last, (after, _), block = varying.while_loop(
            lambda s: (s[0] < length) & jnp.any(phase.active(s[2][0], consts)),
            _attempt(phase, consts, count * length, states, shared),
            (jnp.asarray(0), last, (carry, phase.enter(carry, consts)), empty_rows(row, length)),
        )
        block = _filled(block, i)
        if stride == 1:
            starts = write_row(starts, carry.y, count)
        elif stride is not None:
            place = jnp.where(count % stride == 0, count // stride, groups)
            starts = write_row(starts, carry.y, place)
        rows = write_row(rows, block, count)
        kinds = lax.dynamic_update_index_in_dim(kinds, jnp.int32(kind), count, 0)
        return count + (i > 0), last, after, starts, rows, kinds

    def turn(s):
        for kind in range(len(phases)):
            s = fill(kind, s)
        return s

    def running(s):
        return _any_active(phases, s[2], consts) & (s[0] < blocks)

    last = jnp.full(jnp.shape(phases[0].active(carry, consts)), -1)
    # With a stride, one more than are kept: for the starts of the other blocks.
    slots = groups if stride == 1 or stride is None else groups + 1
    count, last, carry, starts, rows, kinds = varying.while_loop(
        running,
        turn,
        (
            jnp.asarray(0),
            last,
            carry,
            empty_rows(carry.y, slots),
            empty_rows(row, room, length),
            jnp.zeros(room, jnp.int32),
        ),
    )
    return Record(carry, count, last, starts[:groups], rows, kinds)
