"""Loops whose length is known only at run time, and the record they leave.

`march` runs such a loop, without a derivative; `record` does the same and keeps what is needed to
go through the kept iterations again, which is how `replay` differentiates them.

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

#: Iterations in a block. Only the state at the start of each block is stored.
BLOCK = 32


class Rows(NamedTuple):
    """Kept iterations, in blocks: each went from time `t` by `h`; `y`, if kept, is the state there.

    A row may be idle: at the end of the last block, and under `vmap` also where a member rejected
    an attempt or has finished. There `h` is zero, so that doing it again changes nothing.
    """

    t: Float[Array, "blocks block"]
    h: Float[Array, "blocks block"]
    y: Float[Array, "blocks block n"] | None


class Record(NamedTuple):
    """What `record` returns.

    Attributes:
        carry: the final carry.
        count: the number of blocks in use.
        last: index of the last row that is not idle (-1: none), counted through all blocks.
        starts: the state at the start of each block.
        rows: the rows.
    """

    carry: Any
    count: Int[Array, ""]
    last: Int[Array, ""]
    starts: Float[Array, "blocks n"]
    rows: Rows


def row_at(tree: Any, i: ArrayLike) -> Any:
    """Row `i` of every leaf."""
    return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, i, 0, keepdims=False), tree)


def write_row(buffers: Any, rows: Any, i: ArrayLike) -> Any:
    """The buffers with `rows` as their row `i`."""
    return jax.tree.map(lambda b, r: lax.dynamic_update_index_in_dim(b, r, i, 0), buffers, rows)


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


def march(running: Callable, body: Callable, carry: Any, consts: Any) -> Any:
    """Repeats `carry = body(carry, consts, live)` while `running(carry, consts)`.

    `live` is `True`, or under `vmap` whether the member is still running: where it is not, `body`
    must leave its carry alone. (It does so at less cost than a second selection around it.)

    Not differentiable: the caller defines the derivative through `replay`.
    """

    @custom_vmap
    def run(carry, consts):
        return lax.while_loop(lambda c: running(c, consts), lambda c: body(c, consts, True), carry)

    @run.def_vmap
    def _(size, batched, carry, consts):
        carry_batched, consts_batched = batched
        carry = every_member(carry, carry_batched, size)

        def one(carry, consts):
            return body(carry, consts, running(carry, consts))

        axes = (0, batch_axes(consts_batched))
        out = _march_members(jax.vmap(running, axes), jax.vmap(one, axes), carry, consts)
        return out, all_batched(out)

    return run(carry, consts)


def _march_members(running: Callable, body: Callable, carry: Any, consts: Any) -> Any:
    """`march` for a batch, until its last member has finished."""

    @custom_vmap
    def run(carry, consts):
        return lax.while_loop(
            lambda c: jnp.any(running(c, consts)), lambda c: body(c, consts), carry
        )

    @run.def_vmap
    def _(size, batched, carry, consts):
        carry_batched, consts_batched = batched
        carry = every_member(carry, carry_batched, size)
        axes = (0, batch_axes(consts_batched))
        out = _march_members(jax.vmap(running, axes), jax.vmap(body, axes), carry, consts)
        return out, all_batched(out)

    return run(carry, consts)


def record(
    running: Callable, body: Callable, carry: Any, consts: Any, *, blocks: int, states: bool
) -> Record:
    """As `march`, with `body(carry, consts, live) -> (carry, (t, h, y), keep)`; keeps the rows.

    Args:
        running: whether to go on.
        body: one iteration from time `t` and state `y` by `h`; `keep` says whether it counts (an
            accepted step). The carry has the attribute `y`.
        carry: the start.
        consts: whatever else `running` and `body` read.
        blocks: the most blocks that can be kept.
        states: keep the state of every row, not only those at the starts of blocks.
    """

    @custom_vmap
    def run(carry, consts):
        def attempt(s):
            i, last, carry, rows = s
            carry, (t, h, y), keep = body(carry, consts, True)
            row = Rows(t, jnp.where(keep, h, 0), y if states else None)
            # A rejected attempt is overwritten by the next.
            return i + keep, last + keep, carry, write_row(rows, row, i)

        return _blocks(
            lambda carry: running(carry, consts), attempt, carry, jnp.asarray(-1), states, blocks
        )

    @run.def_vmap
    def _(size, batched, carry, consts):
        carry_batched, consts_batched = batched
        carry = every_member(carry, carry_batched, size)
        axes = (0, batch_axes(consts_batched))

        def one(carry, consts):
            new, (t, h, y), keep = body(carry, consts, running(carry, consts))
            return new, (t, jnp.where(keep, h, 0), y), keep

        out = _record_members(
            jax.vmap(running, axes), jax.vmap(one, axes), carry, consts, blocks, states
        )
        return _members_first(out), all_batched(out)._replace(count=False)

    return run(carry, consts)


def _members_first(done: Record) -> Record:
    return done._replace(
        starts=jnp.moveaxis(done.starts, 1, 0),
        rows=jax.tree.map(lambda r: jnp.moveaxis(r, 2, 0), done.rows),
    )


def _record_members(running, body, carry, consts, blocks: int, states: bool) -> Record:
    """`record` for a batch: a shared counter, and idle rows where a member has nothing to keep."""

    @custom_vmap
    def run(carry, consts):
        def attempt(s):
            i, (slot, last), carry, rows = s
            carry, (t, h, y), keep = body(carry, consts)
            row = Rows(t, h, y if states else None)
            return i + 1, (slot + 1, jnp.where(keep, slot, last)), carry, write_row(rows, row, i)

        members = jax.eval_shape(running, carry, consts).shape
        done = _blocks(
            lambda carry: jnp.any(running(carry, consts)), attempt, carry,
            (jnp.asarray(0), jnp.full(members, -1)), states, blocks,
        )  # fmt: skip
        return done._replace(last=done.last[1])

    @run.def_vmap
    def _(size, batched, carry, consts):
        carry_batched, consts_batched = batched
        carry = every_member(carry, carry_batched, size)
        axes = (0, batch_axes(consts_batched))
        out = _record_members(
            jax.vmap(running, axes), jax.vmap(body, axes), carry, consts, blocks, states
        )
        return _members_first(out), all_batched(out)._replace(count=False)

    return run(carry, consts)


def _blocks(running, attempt, carry, last, states, blocks) -> Record:
    """Fills block after block with `attempt` until it is no longer `running`."""
    y = carry.y
    t = carry.t
    row = Rows(t, t, y if states else None)

    def fill(s):
        count, last, carry, starts, rows = s
        _, last, new, block = lax.while_loop(
            lambda s: (s[0] < BLOCK) & running(s[2]),
            attempt,
            (jnp.asarray(0), last, carry, empty_rows(row, BLOCK)),
        )
        return (
            count + 1, last, new, write_row(starts, carry.y, count), write_row(rows, block, count)
        )  # fmt: skip

    count, last, carry, starts, rows = lax.while_loop(
        lambda s: running(s[2]) & (s[0] < blocks),
        fill,
        (jnp.asarray(0), last, carry, empty_rows(y, blocks), empty_rows(row, blocks, BLOCK)),
    )
    return Record(carry, count, last, starts, rows)
