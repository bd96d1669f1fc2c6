"""Going through recorded iterations again, differentiably.

`replay` is a scan over blocks of iterations that is differentiable in forward and reverse mode to
any order. Its reverse pass is itself a `replay`, over the blocks in the opposite order, each begun
from its stored start: two-level checkpointing.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Int

from ..errors import DerivativeError
from . import varying
from .derivative import Active, custom_jvp
from .linear import linear
from .march import (
    all_batched,
    batch_axes,
    empty_rows,
    every_member,
    row_at,
    scan_rows,
    where_member,
    write_row,
)
from .pullback import Cotangents, Pull, Zero, filled, parts
from .tracing import raise_if, traced_once

#: The largest number of inputs (state, row and parameters) for which Jacobians are formed.
SMALL = 24


def _choose(kind: Any, branches: list[Callable[..., Any]], *operands: Any) -> Any:
    """The branch of this kind; without kinds the only one."""
    return branches[0](*operands) if kind is None else varying.switch(kind, branches, *operands)


class Undo(NamedTuple):
    """How iterations are taken back: for a derivative that recovers the carries it needs.

    Attributes:
        steps: of each kind, `(consts, carry, row) -> carry`: the carry before the iteration that
            led to this one; the same where the iteration was idle.
        tolerance: the largest error of the recovered start, relative to the size of the carries
            on the way, with which a derivative is returned; `None`: any.
        message: what a larger error raises.
    """

    steps: tuple[Callable[..., Any], ...]
    tolerance: float | None = None
    message: str = ""


#: Of what cannot be taken back once more: the derivative of a derivative by recovered carries.
_ONCE = Undo(())


class _Way(NamedTuple):
    """How to go through the rows; see the arguments of `replay`."""

    reverse: bool
    single: bool
    jacobians: bool
    undo: Undo | None
    passed_by_all: bool = False
    members_at: Any = 0  # in a batch, the axis of the members in a row; may differ by its parts


class Replayed(NamedTuple):
    """What `replay` returns.

    Attributes:
        carry: the final carry.
        totals: the sums over all iterations of what each adds.
        outs: the outputs of the iterations, stacked; zero beyond the last block used.
        starts: the carry before each block that is used; `None` where carries are recovered.
    """

    carry: Any
    totals: Any
    outs: Any
    starts: Any


def replay(
    steps: tuple[Callable[..., Any], ...],
    count: Int[Array, ""],
    carry: Any,
    rows: Any,
    consts: Any,
    *,
    kinds: Int[Array, " blocks"] | None = None,
    reverse: bool = False,
    single: bool = False,
    jacobians: bool = True,
    undo: Undo | None = None,
    known: Replayed | None = None,
    passed: Any = None,
    passed_by_all: bool = False,
) -> Replayed:
    """Scans `carry, add, out = step(consts, carry, row)` over the rows of the first `count` blocks.

    Differentiable with respect to `carry`, `rows` and `consts`, in both modes and to any order.
    `step` must not close over traced arrays: they belong into `consts`.

    Args:
        steps: one iteration, of each kind. The carry is a pytree of floating-point arrays; `add` is
            summed over the iterations, `out` is stacked.
        count: how many blocks to use; may be traced.
        carry: the start.
        rows: pytree with leading axes (blocks, rows of a block), or (blocks,) if `single`.
        consts: pytree of whatever else `step` reads.
        kinds: which of the steps each block is made of; `None` if there is only one.
        reverse: go through the rows from the last used to the first.
        single: a block is one row. (An axis of length one makes XLA copy all rows.)
        jacobians: form the Jacobians of small iterations in reverse mode, which needs forward mode
            of `step`.
        undo: how the iterations are taken back. Reverse mode then stores no carries, and is of
            first order.
        known: what this call would return, where the caller has it already (from `record`); then
            only derivatives are computed.
        passed: the carries before each of the iterations, leading axes as those of `rows`, where
            the caller has them too; they are else computed again, block by block.
        passed_by_all: whether a batch has them as well (see `record`).
    """
    if known is not None and undo is None:
        blocks = jax.tree.leaves(rows)[0].shape[0]
        assert all(start.shape[0] >= blocks for start in jax.tree.leaves(known.starts))
    way = _Way(reverse, single, jacobians, undo, passed_by_all)
    return _replay(steps, way, count, kinds, carry, rows, consts, known, passed)


def replay_nested(
    steps: tuple[Callable[..., Any], ...],
    count: Int[Array, ""],
    carry: Any,
    rows: Any,
    consts: Any,
    *,
    kinds: Int[Array, " blocks"] | None,
    levels: tuple[tuple[int, int], ...],
    jacobians: bool = True,
    known: Replayed | None = None,
) -> Replayed:
    """As `replay`, with the derivative in less memory and more time: no outputs, a few states.

    The iterations are grouped into blocks of blocks: one iteration of the outer replay is a whole
    inner one. Each of them keeps the states at the starts of its blocks while it is unwound, and
    those within one block.

    Args:
        steps: as in `replay`; their outputs are dropped.
        count: how many iterations there are, in units of the rows of a block.
        carry: as in `replay`.
        rows: as in `replay`.
        consts: as in `replay`.
        kinds: as in `replay`.
        levels: for each replay, from the outermost, its blocks and the rows of each block; their
            product is the number of rows.
        jacobians: as in `replay`.
        known: as in `replay`, `starts` being those of the outermost blocks.
    """
    block = jax.tree.leaves(rows)[0].shape[1]
    bare = tuple(partial(_without_output, step) for step in steps)
    blocks, inner = levels[0], levels[1:]
    if not inner:
        # Blocks here may be shorter than those that were recorded.
        split = block // blocks[1]
        rows = jax.tree.map(lambda r: r.reshape(blocks[0], blocks[1], *r.shape[2:]), rows)
        kinds = None if kinds is None else jnp.repeat(kinds, split)
        return replay(
            bare, count * split, carry, rows, consts, kinds=kinds, jacobians=jacobians, known=known
        )
    size = 1  # rows of one iteration of this replay
    for level in inner:
        size *= level[0] * level[1]
    per = size // block
    used = jnp.clip(count - per * jnp.arange(blocks[0] * blocks[1]), 0, per)
    fold = lambda r: r.reshape(blocks[0], blocks[1], per, *r.shape[1:])
    groups = jax.tree.map(fold, (rows, kinds))

    def group(consts, carry, row):
        (rows, kinds), used = row
        done = replay_nested(
            bare, used, carry, rows, consts, kinds=kinds, levels=inner, jacobians=jacobians
        )
        return done.carry, done.totals, None

    outer = -(-count // (per * blocks[1]))
    rows = (groups, used.reshape(blocks))
    return replay((group,), outer, carry, rows, consts, jacobians=jacobians, known=known)


def pad_rows(levels: tuple[tuple[int, int], ...], rows: Any, kinds: Any) -> Any:
    """Rows and kinds with idle blocks added, so that `levels` divide them."""
    total = 1
    for level in levels:
        total *= level[0] * level[1]
    blocks, block = jax.tree.leaves(rows)[0].shape[:2]
    more = -(-total // block) - blocks

    def pad(x):
        return jnp.pad(x, ((0, more), *((0, 0),) * (x.ndim - 1)))

    return jax.tree.map(pad, (rows, kinds))


def _without_output(step, consts, carry, row):
    carry, add, _ = step(consts, carry, row)
    return carry, add, None


@partial(custom_jvp, nondiff_argnums=(0, 1))
def _replay(steps, way, count, kinds, carry, rows, consts, known, passed):
    del passed  # of use to derivatives only
    if known is not None:
        return known
    return Replayed(*_run(steps, way, count, kinds, carry, rows, consts))


def _run(steps, way, count, kinds, carry, rows, consts):
    reverse, single = way.reverse, way.single
    axes = 1 if single else 2  # of the rows, before those of one of them

    @custom_vmap
    def run(count, kinds, carry, rows, consts):
        shape = jax.tree.leaves(rows)[0].shape[:axes]

        def advance(step):
            def one(carry, row):
                carry, totals = carry
                carry, add, out = step(consts, carry, row)
                return (carry, jax.tree.map(jnp.add, totals, add)), out

            return one if single else lambda carry, rows: scan_rows(one, carry, rows, reverse)

        first = jax.tree.map(lambda r: r[(0,) * axes], rows)
        step, (_, add, out) = traced_once(steps[0], consts, carry, first)
        branches = [advance(each) for each in (step, *steps[1:])]
        totals = empty_rows(add)
        starts = empty_rows(carry, shape[0]) if way.undo is None else None
        buffers = (empty_rows(out, *shape), starts)

        def block(state):
            i, carry, buffers = state
            j = count - 1 - i if reverse else i
            kind = None if kinds is None else kinds[j]
            new, outs = _choose(kind, branches, carry, row_at(rows, j))
            start = carry[0] if way.undo is None else None
            return i + 1, new, write_row(buffers, (outs, start), j)

        _, (carry, totals), (outs, starts) = varying.while_loop(
            lambda s: s[0] < count, block, (jnp.zeros_like(count), (carry, totals), buffers)
        )
        return carry, totals, outs, starts

    @run.def_vmap
    def _(size, batched, count, kinds, carry, rows, consts):
        return _run_members(steps, way, size, batched, count, kinds, carry, rows, consts)

    return run(count, kinds, carry, rows, consts)


def _run_members(steps, way, size, batched, count, kinds, carry, rows, consts):
    """`_run` for a batch, with what it returns and the flags of that."""
    axes = 1 if way.single else 2
    count_batched, kinds_batched, carry_batched, rows_batched, consts_batched = batched
    carry = every_member(carry, carry_batched, size)
    row_axes = jax.tree.map(
        lambda at, part: jax.tree.map(lambda b: at if b else None, part),
        way.members_at, rows_batched,
    )  # fmt: skip
    rows = jax.tree.map(
        lambda r, b, at: jnp.moveaxis(r, 0, axes + at) if b else r,
        rows, rows_batched, jax.tree.map(lambda b, at: at or 0, rows_batched, row_axes),
    )  # fmt: skip
    shape = jax.tree.leaves(rows)[0].shape[:axes]
    members = steps
    const_axes = batch_axes(consts_batched)
    if kinds_batched:
        # Members of different kinds: every row chooses for itself.
        def chosen(consts, carry, row):
            kind, row = row
            return varying.switch(kind, steps, consts, carry, row)

        kinds = jnp.moveaxis(kinds, 0, 1)
        if not way.single:
            kinds = jnp.broadcast_to(kinds[:, None], (*shape, size))
        members, rows, row_axes, kinds = (chosen,), (kinds, rows), (0, row_axes), None
    if count_batched:
        # Members of different length: idle beyond their own end.
        members = tuple(map(_bounded, members))
        index = jnp.arange(shape[0])
        if not way.single:
            index = jnp.broadcast_to(index[:, None], shape)
        rows, row_axes = (index, rows), (None, row_axes)
        consts, const_axes = (consts, count), (const_axes, 0)
        count = jnp.max(count)
    batch = tuple(jax.vmap(step, (const_axes, 0, row_axes)) for step in members)
    carry, totals, outs, starts = _run(batch, way, count, kinds, carry, rows, consts)
    outs = jax.tree.map(lambda r: jnp.moveaxis(r, axes, 0), outs)
    starts = jax.tree.map(lambda r: jnp.moveaxis(r, 1, 0), starts)
    out = (carry, totals, outs, starts)
    return out, all_batched(out)


def _bounded(step):
    def bounded(consts, carry, row):
        (inner, last), (index, row) = consts, row
        new, *others = step(inner, carry, row)
        live = index < last
        zeros = jax.tree.map(jnp.zeros_like, others)
        return where_member(live, new, carry), *where_member(live, others, zeros)

    return bounded


@partial(_replay.defjvp, symbolic_zeros=True)
def _replay_jvp(steps, way, primals, tangents):
    count, kinds, carry, rows, consts, known, passed = primals
    _, _, carry_dot, rows_dot, consts_dot, *_ = tangents
    out = _replay(steps, way, count, kinds, carry, rows, consts, known, None)
    of_rows, of_consts = Active(rows, rows_dot), Active(consts, consts_dot)
    carry_tree = jax.tree.structure(carry)
    carry_dot = [
        jnp.zeros_like(c) if isinstance(d, SymbolicZero) else d
        for c, d in zip(jax.tree.leaves(carry), carry_tree.flatten_up_to(carry_dot), strict=True)
    ]
    inputs = (carry_dot, of_rows.pick(rows_dot), of_consts.pick(consts_dot))
    inputs, inputs_tree = jax.tree.flatten(inputs)
    # The carries that the derivative begins with: at the start of every block, or at both ends.
    memory = out.starts if way.undo is None else (carry, out.carry)
    residuals, residuals_tree = jax.tree.flatten((count, kinds, (memory, passed), rows, consts))
    out_leaves, out_tree = jax.tree.flatten(out)
    trees = _Trees(carry_tree, inputs_tree, residuals_tree, out_tree)
    tangent = _Tangent(steps, way, of_rows, of_consts, trees)
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in out_leaves]
    dots = linear(
        tangent.forward, tangent.transpose, residuals, inputs, shapes, tangent.members
    )  # fmt: skip
    return out, jax.tree.unflatten(out_tree, dots)


class _Trees(NamedTuple):
    """How the flat lists of a replay's derivative are put together."""

    carry: Any
    inputs: Any
    residuals: Any
    out: Any


class _Tangent:
    """The derivative of a replay: a linear function, its transpose, and that for a batch."""

    def __init__(self, steps, way: _Way, of_rows: Active, of_consts: Active, trees: _Trees) -> None:
        self.steps, self.way, self.trees = steps, way, trees
        self.of_rows, self.of_consts = of_rows, of_consts

    def iteration(self, step, consts, row):
        """The iteration as a function of what has a derivative, as flat lists."""

        def of_active(carry, row_active, consts_active):
            new, add, out = step(
                self.of_consts.merge(consts, consts_active),
                jax.tree.unflatten(self.trees.carry, carry),
                self.of_rows.merge(row, row_active),
            )
            return jax.tree.leaves(new), jax.tree.leaves(add), jax.tree.leaves(out)

        return of_active

    def forward(self, residuals, inputs):
        count, kinds, (memory, _), rows, consts = self.trees.residuals.unflatten(residuals)
        carry_dot, rows_dot, consts_dot = jax.tree.unflatten(self.trees.inputs, inputs)
        of_rows, of_consts, way = self.of_rows, self.of_consts, self.way

        def tangent(step):
            def one(consts, carry, row):
                (consts, consts_dot), (carry, carry_dot), (row, row_dot) = consts, carry, row
                primal = (carry, of_rows.pick(row), of_consts.pick(consts))
                (new, _, _), (new_dot, add_dot, out_dot) = jax.jvp(
                    self.iteration(step, consts, row), primal, (carry_dot, row_dot, consts_dot)
                )
                return (new, new_dot), add_dot, out_dot

            return one

        steps = tuple(map(tangent, self.steps))
        way = way._replace(members_at=0)
        rows, consts = (rows, rows_dot), (consts, consts_dot)
        if way.undo is None:
            # The first block begins where the whole replay does, in either direction.
            start = row_at(memory, jnp.maximum(count - 1, 0) if way.reverse else 0)
        else:
            way, (start, _) = way._replace(undo=_ONCE), memory
        carry, totals, outs, starts = _replay(
            steps, way, count, kinds, (jax.tree.leaves(start), carry_dot), rows, consts, None, None
        )
        return [*carry[1], *totals, *outs, *([] if starts is None else starts[1])]

    def transpose(self, residuals, bars, batched):
        count, kinds, memory, rows, consts = self.trees.residuals.unflatten(residuals)
        bars = self.trees.out.unflatten([Zero if b is None else b for b in bars])
        undo = None if self.way.undo is None else self.way.undo.steps
        backward = self._backward(self.steps, undo, _largest, bars, batched)
        return jax.tree.leaves(backward.run(count, kinds, memory, rows, consts, bars.carry))

    def _backward(self, steps, undo, size, bars, batched):
        iterations = [partial(self.iteration, step) for step in steps]
        pull = Pull(self.of_rows, self.of_consts, bars.totals, bars.outs)
        return _Backward(iterations, undo, size, pull, bars.starts, batched, self.way)

    def members(self, size, residual_axes, input_axes):
        """The transpose for a batch, in which the members share what is not batched."""
        count_axis, kinds_axis, (memory_axes, passed_axes), rows_axes, consts_axes = (
            self.trees.residuals.unflatten([axis is not None for axis in residual_axes])
        )
        carry_in, rows_in, consts_in = jax.tree.unflatten(
            self.trees.inputs, [a is not None for a in input_axes]
        )
        alike = jax.tree.map(bool, rows_in) == self.of_rows.pick(rows_axes)
        if count_axis or kinds_axis or not alike or not all(carry_in):
            return None
        # Constants whose derivative differs by member are given to each.
        mine = self.of_consts.pick(consts_axes)
        each = self.of_consts.merge(consts_axes, [a or b for a, b in zip(mine, consts_in)])
        axes = (batch_axes(each), 0, batch_axes(rows_axes))
        steps = [jax.vmap(step, axes) for step in self.steps]
        undo = None
        if self.way.undo is not None:
            undo = [jax.vmap(step, axes) for step in self.way.undo.steps]
        of_row = 1 if self.way.single else 2
        # Of what is stored of each block, the blocks lead; of the two ends, the members.
        of_memory = 1 if undo is None else 0

        def of_batch(residuals, bars, batched):
            del batched
            count, kinds, (memory, passed), rows, consts = self.trees.residuals.unflatten(residuals)
            memory = every_member(memory, memory_axes, size)
            memory = jax.tree.map(lambda s: jnp.moveaxis(s, 0, of_memory), memory)
            if self.way.passed_by_all:
                passed = every_member(passed, passed_axes, size)
                passed = jax.tree.map(lambda s: jnp.moveaxis(s, 0, of_row), passed)
            rows = jax.tree.map(
                lambda r, b: jnp.moveaxis(r, 0, of_row) if b else r, rows, rows_axes
            )
            consts = jax.tree.map(
                lambda c, have, want: jnp.broadcast_to(c, (size, *c.shape))
                if want and not have
                else c,
                consts, consts_axes, each,
            )  # fmt: skip
            bars = self.trees.out.unflatten([Zero if b is None else b for b in bars])
            moved = lambda tree, to: jax.tree.map(
                lambda b: b if b is Zero else jnp.moveaxis(b, 0, to), tree
            )
            bars = bars._replace(outs=moved(bars.outs, of_row), starts=moved(bars.starts, 1))
            backward = self._backward(steps, undo, jax.vmap(_largest), bars, True)
            carry_bar, rows_bar, consts_bar = backward.run(
                count, kinds, (memory, passed), rows, consts, bars.carry
            )
            rows_bar = [jnp.moveaxis(b, of_row, 0) if a else b for b, a in zip(rows_bar, rows_in)]
            consts_bar = [
                jnp.sum(b, axis=0) if a and not wanted else b
                for b, a, wanted in zip(consts_bar, self.of_consts.pick(each), consts_in)
            ]
            return [*carry_bar, *rows_bar, *consts_bar]

        return of_batch


def _largest(tree: Any) -> Array:
    """The largest absolute value in a tree."""
    return jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in jax.tree.leaves(tree)]))


class _Backward:
    """The reverse pass: blocks in the opposite order, each from its stored or recovered start."""

    def __init__(
        self, iterations, undo, size, pull: Pull, starts: Any, batched: bool, way: _Way
    ) -> None:
        self.iterations, self.undo, self.size = iterations, undo, size
        self.pull, self.starts = pull, Cotangents(starts)
        self.batched, self.way = batched, way

    def run(self, count, kinds, memory, rows, consts, carry_bar):
        memory, passed = memory
        if self.undo is not None:
            return self._recovering(count, kinds, memory, rows, consts, carry_bar)
        starts, way, pull = jax.tree.leaves(memory), self.way, self.pull
        passed = None if passed is None else jax.tree.leaves(passed)
        carry_bar = filled(carry_bar, lambda s: jnp.zeros_like(s[0]), starts)
        first = 0 if way.single else (0, 0)
        inputs = [*(s[0] for s in starts), *(r[first] for r in pull.of_rows.pick(rows))]
        inputs += pull.of_consts.pick(consts)
        numbers = sum(x.size for x in jax.tree.leaves(parts(inputs)))
        small = way.jacobians and numbers <= SMALL and not self.batched
        if self.batched and not way.passed_by_all:
            passed = None

        def block(iteration):
            pulled = partial(pull.of_block, iteration, way.reverse)
            if small or passed is not None:
                pulled = pull.by_size(iteration, way.reverse, small, way.passed_by_all)

            def one(consts, carry_bar, row):
                consts, totals_bar = consts
                start, passed, rows, outs_bar, starts_bar = row
                if way.single:
                    rows, passed, outs_bar = jax.tree.map(
                        lambda x: x[None], (rows, passed, outs_bar)
                    )
                given = (consts, start, passed, rows, carry_bar, totals_bar, outs_bar)
                carry_bar, consts_bar, rows_bar = pulled(*given)
                if way.single:
                    rows_bar = [x[0] for x in rows_bar]
                return self.starts.add(carry_bar, starts_bar), consts_bar, rows_bar

            return one

        # What is one iteration here is a whole block there.
        # (Where it has rows of its own, they lead, as they do where they are stored.)
        lead = 0 if way.single else 1
        backwards = _Way(
            not way.reverse, True, way.jacobians, None, False, (0, lead, lead, lead, 0)
        )
        done = _replay(
            tuple(map(block, self.iterations)), backwards, count, kinds, carry_bar,
            (starts, passed, rows, pull.outs.given, self.starts.given),
            (consts, pull.totals.given), None, None,
        )  # fmt: skip
        return done.carry, list(done.outs), done.totals

    def _recovering(self, count, kinds, memory, rows, consts, carry_bar):
        """From the last iteration to the first, each taken back before it is differentiated."""
        (start, end), way, size, pull = memory, self.way, self.size, self.pull
        assert way.undo is not None
        if way.undo is _ONCE:
            raise DerivativeError(
                "a derivative that recovers the states is of first order in reverse mode: use one "
                "that keeps some, as rf.CheckpointAdjoint() does and in sampling "
                "gradient='checkpoint'"
            )

        def turn(iteration, undo):
            def one(consts, carry, row):
                (consts, totals_bar), (after, carry_bar, most), (row, out_bar) = consts, carry, row
                before = undo(consts, after, row)
                carry_bar, row_bar, more = pull.once(
                    iteration, consts, jax.tree.leaves(before), row, carry_bar, totals_bar, out_bar
                )
                return (before, carry_bar, jnp.maximum(most, size(before))), more, row_bar

            return one

        carry = (end, filled(carry_bar, jnp.zeros_like, end), size(end))
        done = _replay(
            tuple(map(turn, self.iterations, self.undo)),
            _Way(not way.reverse, way.single, way.jacobians, _ONCE), count, kinds, carry,
            (rows, pull.outs.given), (consts, pull.totals.given), None, None,
        )  # fmt: skip
        (found, carry_bar, most), consts_bar, rows_bar = done.carry, done.totals, done.outs
        bars = (carry_bar, rows_bar, consts_bar)
        if way.undo.tolerance is None:
            return bars
        error = size(jax.tree.map(jnp.subtract, found, start))
        bad = jnp.any(~(error <= way.undo.tolerance * most))
        return raise_if(bars, bad, way.undo.message, DerivativeError)
