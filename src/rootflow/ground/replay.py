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
from jax import lax
from jax.custom_batching import custom_vmap
from jax.custom_derivatives import SymbolicZero
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Int

from . import varying
from .derivative import Active, custom_jvp
from .linear import linear
from .march import (
    all_batched,
    batch_axes,
    empty_rows,
    every_member,
    row_at,
    where_member,
    write_row,
)

#: The largest number of inputs (state, row and parameters) for which Jacobians are formed.
SMALL = 24


def _choose(kind: Any, branches: list[Callable[..., Any]], *operands: Any) -> Any:
    """The branch of this kind; without kinds the only one."""
    return branches[0](*operands) if kind is None else varying.switch(kind, branches, *operands)


def _scan(step: Callable[..., Any], carry: Any, rows: Any, reverse: bool) -> tuple[Any, Any]:
    if jax.tree.leaves(rows)[0].shape[0] == 1:
        carry, out = step(carry, jax.tree.map(lambda r: jnp.squeeze(r, 0), rows))
        return carry, jax.tree.map(lambda o: jnp.expand_dims(o, 0), out)
    return varying.scan(step, carry, rows, reverse=reverse)


class _Way(NamedTuple):
    """How to go through the rows; see the arguments of `replay`."""

    reverse: bool
    single: bool
    jacobians: bool


class Replayed(NamedTuple):
    """What `replay` returns.

    Attributes:
        carry: the final carry.
        totals: the sums over all iterations of what each adds.
        outs: the outputs of the iterations, stacked; zero beyond the last block used.
        starts: the carry before each block.
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
    known: Replayed | None = None,
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
        known: what this call would return, where the caller has it already (from `record`); then
            only derivatives are computed.
    """
    if known is not None:
        blocks = jax.tree.leaves(rows)[0].shape[0]
        assert all(start.shape[0] >= blocks for start in jax.tree.leaves(known.starts))
    way = _Way(reverse, single, jacobians)
    return _replay(steps, way, count, kinds, carry, rows, consts, known)


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
def _replay(steps, way, count, kinds, carry, rows, consts, known):
    if known is not None:
        return known
    return Replayed(*_run(steps, way, count, kinds, carry, rows, consts))


def _run(steps, way, count, kinds, carry, rows, consts):
    reverse, single, _ = way
    axes = 1 if single else 2  # of the rows, before those of one of them

    @custom_vmap
    def run(count, kinds, carry, rows, consts):
        shape = jax.tree.leaves(rows)[0].shape[:axes]

        def advance(step):
            def one(carry, row):
                carry, totals = carry
                carry, add, out = step(consts, carry, row)
                return (carry, jax.tree.map(jnp.add, totals, add)), out

            return one if single else lambda carry, rows: _scan(one, carry, rows, reverse)

        first = jax.tree.map(lambda r: r[(0,) * axes], rows)
        _, add, out = jax.eval_shape(steps[0], consts, carry, first)
        branches = [advance(step) for step in steps]
        totals = empty_rows(add)
        buffers = (empty_rows(out, *shape), empty_rows(carry, shape[0]))

        def block(state):
            i, carry, buffers = state
            j = count - 1 - i if reverse else i
            kind = None if kinds is None else kinds[j]
            new, outs = _choose(kind, branches, carry, row_at(rows, j))
            return i + 1, new, write_row(buffers, (outs, carry[0]), j)

        _, (carry, totals), (outs, starts) = varying.while_loop(
            lambda s: s[0] < count, block, (jnp.zeros_like(count), (carry, totals), buffers)
        )
        return carry, totals, outs, starts

    @run.def_vmap
    def _(size, batched, count, kinds, carry, rows, consts):
        count_batched, kinds_batched, carry_batched, rows_batched, consts_batched = batched
        carry = every_member(carry, carry_batched, size)
        rows = jax.tree.map(lambda r, b: jnp.moveaxis(r, 0, axes) if b else r, rows, rows_batched)
        shape = jax.tree.leaves(rows)[0].shape[:axes]
        members, row_axes = steps, batch_axes(rows_batched)
        const_axes = batch_axes(consts_batched)
        if kinds_batched:
            # Members of different kinds: every row chooses for itself.
            def chosen(consts, carry, row):
                kind, row = row
                return varying.switch(kind, steps, consts, carry, row)

            kinds = jnp.moveaxis(kinds, 0, 1)
            if not single:
                kinds = jnp.broadcast_to(kinds[:, None], (*shape, size))
            members, rows, row_axes, kinds = (chosen,), (kinds, rows), (0, row_axes), None
        if count_batched:
            # Members of different length: idle beyond their own end.
            members = tuple(map(_bounded, members))
            index = jnp.arange(shape[0])
            if not single:
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

    return run(count, kinds, carry, rows, consts)


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
    reverse, single, jacobians = way
    count, kinds, carry, rows, consts, known = primals
    _, _, carry_dot, rows_dot, consts_dot, _ = tangents
    out = _replay(steps, way, count, kinds, carry, rows, consts, known)
    axes = 1 if single else 2
    of_rows, of_consts = Active(rows, rows_dot), Active(consts, consts_dot)
    carry_tree = jax.tree.structure(carry)
    carry_dot = [
        jnp.zeros_like(c) if isinstance(d, SymbolicZero) else d
        for c, d in zip(jax.tree.leaves(carry), carry_tree.flatten_up_to(carry_dot), strict=True)
    ]
    inputs = (carry_dot, of_rows.pick(rows_dot), of_consts.pick(consts_dot))
    inputs, inputs_tree = jax.tree.flatten(inputs)
    residuals, residuals_tree = jax.tree.flatten((count, kinds, out.starts, rows, consts))
    out_leaves, out_tree = jax.tree.flatten(out)

    def iteration(step, consts, row):
        """The iteration as a function of what has a derivative, as flat lists."""

        def of_active(carry, row_active, consts_active):
            new, add, out = step(
                of_consts.merge(consts, consts_active),
                jax.tree.unflatten(carry_tree, carry),
                of_rows.merge(row, row_active),
            )
            return jax.tree.leaves(new), jax.tree.leaves(add), jax.tree.leaves(out)

        return of_active

    def forward(residuals, inputs):
        count, kinds, starts, rows, consts = jax.tree.unflatten(residuals_tree, residuals)
        carry_dot, rows_dot, consts_dot = jax.tree.unflatten(inputs_tree, inputs)

        def tangent(step):
            def one(consts, carry, row):
                (consts, consts_dot), (carry, carry_dot), (row, row_dot) = consts, carry, row
                primal = (carry, of_rows.pick(row), of_consts.pick(consts))
                (new, _, _), (new_dot, add_dot, out_dot) = jax.jvp(
                    iteration(step, consts, row), primal, (carry_dot, row_dot, consts_dot)
                )
                return (new, new_dot), add_dot, out_dot

            return one

        # The first block begins where the whole replay does, in either direction.
        first = jnp.maximum(count - 1, 0) if reverse else 0
        carry = jax.tree.leaves(row_at(starts, first))
        done = replay(
            tuple(map(tangent, steps)), count, (carry, carry_dot), (rows, rows_dot),
            (consts, consts_dot), kinds=kinds, reverse=reverse, single=single, jacobians=jacobians,
        )  # fmt: skip
        return [*done.carry[1], *done.totals, *done.outs, *done.starts[1]]

    def transpose(residuals, bars, batched):
        count, kinds, starts, rows, consts = jax.tree.unflatten(residuals_tree, residuals)
        bars = out_tree.unflatten([_Zero if b is None else b for b in bars])
        iterations = [partial(iteration, step) for step in steps]
        backward = _Backward(iterations, of_rows, of_consts, bars, batched, way)
        starts = jax.tree.leaves(starts)
        carry_bar = [
            jnp.zeros_like(s[0]) if b is _Zero else b
            for s, b in zip(starts, jax.tree.leaves(bars.carry), strict=True)
        ]
        return jax.tree.leaves(backward.run(count, kinds, starts, rows, consts, carry_bar, reverse))

    def members(size, residual_axes, input_axes):
        """The transpose for a batch, in which the members share what is not batched."""
        count_axis, kinds_axis, starts_axes, rows_axes, consts_axes = jax.tree.unflatten(
            residuals_tree, [axis is not None for axis in residual_axes]
        )
        batched_inputs = jax.tree.unflatten(inputs_tree, [a is not None for a in input_axes])
        carry_in, rows_in, consts_in = batched_inputs
        alike = jax.tree.map(bool, rows_in) == of_rows.pick(rows_axes)
        if count_axis or kinds_axis or not alike or not all(carry_in):
            return None
        # Constants whose derivative differs by member are given to each.
        each = of_consts.merge(
            consts_axes, [a or b for a, b in zip(of_consts.pick(consts_axes), consts_in)]
        )
        batch = [jax.vmap(step, (batch_axes(each), 0, batch_axes(rows_axes))) for step in steps]

        def of_batch(residuals, bars, batched):
            del batched
            count, kinds, starts, rows, consts = jax.tree.unflatten(residuals_tree, residuals)
            starts = every_member(starts, starts_axes, size)
            starts = [jnp.moveaxis(s, 0, 1) for s in jax.tree.leaves(starts)]
            rows = jax.tree.map(lambda r, b: jnp.moveaxis(r, 0, axes) if b else r, rows, rows_axes)
            consts = jax.tree.map(
                lambda c, have, want: jnp.broadcast_to(c, (size, *c.shape))
                if want and not have
                else c,
                consts, consts_axes, each,
            )  # fmt: skip
            bars = out_tree.unflatten([_Zero if b is None else b for b in bars])
            moved = lambda tree, to: jax.tree.map(
                lambda b: b if b is _Zero else jnp.moveaxis(b, 0, to), tree
            )
            bars = bars._replace(outs=moved(bars.outs, axes), starts=moved(bars.starts, 1))
            backward = _Backward(
                [partial(iteration, s) for s in batch], of_rows, of_consts, bars, True, way
            )
            carry_bar = [
                jnp.zeros_like(s[0]) if b is _Zero else b
                for s, b in zip(starts, jax.tree.leaves(bars.carry), strict=True)
            ]
            carry_bar, rows_bar, consts_bar = backward.run(
                count, kinds, starts, rows, consts, carry_bar, reverse
            )
            rows_bar = [jnp.moveaxis(b, axes, 0) if a else b for b, a in zip(rows_bar, rows_in)]
            consts_bar = [
                jnp.sum(b, axis=0) if a and not wanted else b
                for b, a, wanted in zip(consts_bar, of_consts.pick(each), consts_in, strict=True)
            ]
            return [*carry_bar, *rows_bar, *consts_bar]

        return of_batch

    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in out_leaves]
    dots = linear(forward, transpose, residuals, inputs, shapes, members)
    return out, jax.tree.unflatten(out_tree, dots)


#: Stands for a cotangent known to be zero.
_Zero = object()


def _parts(tree: Any) -> Any:
    """A pytree with its complex arrays replaced by pairs of real ones."""
    return jax.tree.map(lambda x: (x.real, x.imag) if jnp.iscomplexobj(x) else x, tree)


def _whole(like: Any, parts: Any) -> Any:
    """What `_parts` took apart; `like` says which arrays are complex."""
    return jax.tree.map(lambda x, p: lax.complex(*p) if jnp.iscomplexobj(x) else p, like, parts)


def _ravel_cotangents(bars: Any) -> tuple[Array, Callable[[Array], Any]]:
    """Cotangents as one real array, to be multiplied with the real Jacobian, and the way back.

    The cotangent c of a complex x stands for the real number Re(c dx), which is c.real dx.real -
    c.imag dx.imag.
    """
    flat, restore = ravel_pytree(_parts(jax.tree.map(jnp.conj, bars)))
    return flat, lambda flat: jax.tree.map(jnp.conj, _whole(bars, restore(flat)))


class _Bars:
    """Those of a list of cotangents that are not known to be zero."""

    def __init__(self, bars: Any) -> None:
        bars = jax.tree.leaves(bars)
        self.present = [b is not _Zero for b in bars]
        self.given = [b for b in bars if b is not _Zero]

    def pick(self, values: list[Any]) -> list[Any]:
        return [v for v, present in zip(values, self.present, strict=True) if present]

    def add(self, values: list[Any], given: list[Any]) -> list[Any]:
        bars = iter(given)
        return [
            v + next(bars) if present else v
            for v, present in zip(values, self.present, strict=True)
        ]


class _Backward:
    """The reverse pass of a replay: blocks in the opposite order, each from its stored start.

    Where an iteration has few inputs, the Jacobians of all iterations of a block are formed
    together (once their states are known they do not depend on one another), vectorised, and only
    a product with a small matrix is left for each. On a CPU that is several times faster, and
    several times quicker to compile, than a vector-Jacobian product for each iteration in turn.
    Under `vmap` there is enough to vectorise already, and the products are less work. A step need
    not be holomorphic: complex numbers count as two real ones, and the Jacobians are real.
    """

    def __init__(
        self, iterations, of_rows, of_consts, bars: Replayed, batched: bool, way: _Way
    ) -> None:
        self.iterations = iterations
        self.of_rows = of_rows
        self.of_consts = of_consts
        self.totals = _Bars(bars.totals)
        self.outs = _Bars(bars.outs)
        self.starts = _Bars(bars.starts)
        self.batched = batched
        self.single, self.jacobians = way.single, way.jacobians

    def run(self, count, kinds, starts, rows, consts, carry_bar, reverse):
        first = 0 if self.single else (0, 0)
        inputs = [*(s[0] for s in starts), *(r[first] for r in self.of_rows.pick(rows))]
        inputs += self.of_consts.pick(consts)
        numbers = sum(x.size for x in jax.tree.leaves(_parts(inputs)))
        together = self.jacobians and numbers <= SMALL and not self.batched
        pull = self._pull_together if together else self._pull_in_turn

        def block(iteration):
            def one(consts, carry_bar, row):
                consts, totals_bar = consts
                start, rows, outs_bar, starts_bar = row
                if self.single:
                    rows, outs_bar = jax.tree.map(lambda x: x[None], (rows, outs_bar))

                def again(carry, row):
                    new, _, _ = iteration(consts, row)(
                        carry, self.of_rows.pick(row), self.of_consts.pick(consts)
                    )
                    return new, carry

                _, carries = _scan(again, start, rows, reverse)
                carry_bar, consts_bar, rows_bar = pull(
                    iteration, consts, carries, rows, carry_bar, totals_bar, outs_bar, reverse
                )
                if self.single:
                    rows_bar = [x[0] for x in rows_bar]
                return self.starts.add(carry_bar, starts_bar), consts_bar, rows_bar

            return one

        # What is one iteration here is a whole block there.
        done = replay(
            tuple(map(block, self.iterations)), count, carry_bar,
            (starts, rows, self.outs.given, self.starts.given),
            (consts, self.totals.given), kinds=kinds, reverse=not reverse, single=True,
            jacobians=self.jacobians,
        )  # fmt: skip
        return done.carry, list(done.outs), done.totals

    def _given(self, step_out):
        new, add, out = step_out
        return new, self.totals.pick(add), self.outs.pick(out)

    def _pull_in_turn(
        self, iteration, consts, carries, rows, carry_bar, totals_bar, outs_bar, reverse
    ):
        def pull(bars, row):
            carry_bar, consts_bar = bars
            carry, row, out_bar = row
            _, vjp = jax.vjp(
                lambda *active: self._given(iteration(consts, row)(*active)),
                carry, self.of_rows.pick(row), self.of_consts.pick(consts),
            )  # fmt: skip
            carry_bar, row_bar, more = vjp((carry_bar, totals_bar, out_bar))
            return (carry_bar, jax.tree.map(jnp.add, consts_bar, more)), row_bar

        zeros = [jnp.zeros_like(k) for k in self.of_consts.pick(consts)]
        (carry_bar, consts_bar), rows_bar = _scan(
            pull, (carry_bar, zeros), (carries, rows, outs_bar), not reverse
        )
        return carry_bar, consts_bar, rows_bar

    def _pull_together(
        self, iteration, consts, carries, rows, carry_bar, totals_bar, outs_bar, reverse
    ):
        def jacobian(carry, row):
            active = (carry, self.of_rows.pick(row), self.of_consts.pick(consts))
            flat, restore = ravel_pytree(_parts(active))

            def of_flat(flat):
                given = self._given(iteration(consts, row)(*_whole(active, restore(flat))))
                return ravel_pytree(_parts(given))[0]

            basis = varying.vary_like(jnp.eye(flat.size, dtype=flat.dtype), flat)
            return jax.vmap(lambda v: jax.jvp(of_flat, (flat,), (v,))[1])(basis)

        jacobians = jax.vmap(jacobian)(carries, rows)  # (block, inputs, outputs)
        flat_bar, restore_carry = _ravel_cotangents(carry_bar)
        n = flat_bar.size
        given = jax.vmap(lambda out_bar: _ravel_cotangents((totals_bar, out_bar))[0])
        if self.totals.given or self.outs.given:
            block = jacobians.shape[0]
            bars = given(outs_bar) if self.outs.given else _ravel_cotangents(totals_bar)[0][None]
            others = jnp.sum(jacobians[:, :, n:] * bars[:, None, :], axis=2)
            others = jnp.broadcast_to(others, (block, others.shape[1]))
        else:
            others = jnp.zeros(jacobians.shape[:2], jacobians.dtype)

        def pull(bar, row):
            jacobian, others = row
            full = jnp.sum(jacobian * bar, axis=1) + others
            return full[:n], full[n:]

        flat_bar, pulled = _scan(pull, flat_bar, (jacobians[:, :, :n], others), not reverse)
        row, restore_row = _ravel_cotangents(self.of_rows.pick(jax.tree.map(lambda x: x[0], rows)))
        _, restore_consts = _ravel_cotangents(self.of_consts.pick(consts))
        rows_bar = jax.vmap(restore_row)(pulled[:, : row.size])
        consts_bar = restore_consts(jnp.sum(pulled[:, row.size :], axis=0))
        return restore_carry(flat_bar), consts_bar, rows_bar
