"""Scans of known length whose derivative keeps few of their carries, or recovers all of them."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .derivative import custom_jvp, jvp_of_active
from .replay import Replayed, Undo, replay


class _Way(NamedTuple):
    """How to scan, and to go through the rows again; see the arguments of `lean_scan`."""

    step: Callable[..., Any]
    again: Callable[..., Any]
    block: int
    undo: Callable[..., Any] | None
    static: Any


def lean_scan(
    step: Callable[..., Any],
    carry: Any,
    rows: Any,
    consts: Any,
    *,
    again: Callable[..., Any] | None = None,
    block: int = 1,
    undo: Callable[..., Any] | None = None,
) -> tuple[Any, Any]:
    """`jax.lax.scan` of `carry, out = step(consts, carry, row)`, with a derivative in less memory.

    Differentiable in both modes with respect to `carry`, `rows` and `consts`. None of the functions
    must close over traced arrays: they belong into `consts`.

    Args:
        step: one iteration; the carry is a pytree of floating-point arrays.
        carry: the start.
        rows: what to scan over, at least one row.
        consts: whatever else the step reads; what is no array in it is fixed.
        again: the step without what must happen only once; by default the same.
        block: reverse mode keeps the carry at the start of so many rows, and those within one
            block at a time, which it computes again.
        undo: `(consts, carry, row) -> carry`, the carry before the step that led to this one.
            Reverse mode then keeps none, and is of first order.
    """
    arrays, static = eqx.partition((carry, rows, consts), eqx.is_array)
    return _scanned(_Way(step, again or step, block, undo, static), arrays)


@partial(custom_jvp, nondiff_argnums=(0,))
def _scanned(way: _Way, arrays: Any) -> tuple[Any, Any]:
    carry, rows, consts = eqx.combine(arrays, way.static)
    return jax.lax.scan(partial(way.step, consts), carry, rows)


@partial(_scanned.defjvp, symbolic_zeros=True)
def _scanned_jvp(way: _Way, primals, tangents):
    carry, rows, consts = eqx.combine(primals[0], way.static)
    known, outs = _known(way, carry, rows, consts)

    def replayed(arrays):
        carry, rows, consts = arrays
        return _replayed(way, carry, rows, consts, known)

    _, (end_dot, moving_dot) = jvp_of_active(replayed, primals, tangents)
    fixed = eqx.filter(outs, eqx.is_inexact_array, inverse=True)
    # Of whole numbers and flags there are no tangents but these.
    fixed_dot = jax.tree.map(lambda x: np.zeros(x.shape, jax.dtypes.float0), fixed)
    return (known[-1].carry, outs), (end_dot, eqx.combine(moving_dot, fixed_dot))


def _parts(way: _Way, rows: Any) -> list[Any]:
    """The rows in blocks, and those that are left over as one more."""
    count = jax.tree.leaves(rows)[0].shape[0]
    whole = count - count % way.block
    cuts = [(0, whole, way.block)] if whole else []
    cuts += [(whole, count, count - whole)] if whole < count else []
    return [
        jax.tree.map(lambda r, c=cut: r[c[0] : c[1]].reshape(-1, c[2], *r.shape[1:]), rows)
        for cut in cuts
    ]


def _joined(parts: list[Any]) -> Any:
    """The rows of blocks, one after another."""
    flat = [jax.tree.map(lambda r: r.reshape(-1, *r.shape[2:]), part) for part in parts]
    return flat[0] if len(flat) == 1 else jax.tree.map(lambda *r: jnp.concatenate(r), *flat)


def _known(way: _Way, carry: Any, rows: Any, consts: Any) -> tuple[list[Replayed], Any]:
    """The scan, with what its replay needs: for each part where it leads, and the carries kept."""
    step = partial(way.step, consts)
    if way.undo is not None:
        carry, outs = jax.lax.scan(step, carry, rows)
        return [Replayed(carry, (), eqx.filter(outs, eqx.is_inexact_array), None)], outs

    def several(carry, rows):
        after, out = jax.lax.scan(step, carry, rows)
        return after, (carry, out)

    known, outs = [], []
    for part in _parts(way, rows):
        carry, (starts, out) = jax.lax.scan(several, carry, part)
        known.append(Replayed(carry, (), eqx.filter(out, eqx.is_inexact_array), starts))
        outs.append(out)
    return known, _joined(outs)


def _replayed(way: _Way, carry: Any, rows: Any, consts: Any, known: list[Replayed]):
    """The end and the outputs as differentiable functions; arrays only."""
    _, static_rows, static_consts = way.static

    def again(consts, carry, row):
        consts, row = eqx.combine(consts, static_consts), eqx.combine(row, static_rows)
        new, out = way.again(consts, carry, row)
        return new, (), eqx.filter(out, eqx.is_inexact_array)

    if (back := way.undo) is not None:

        def before(consts, carry, row):
            return back(eqx.combine(consts, static_consts), carry, eqx.combine(row, static_rows))

        undo = Undo((before,))
        count = jnp.asarray(jax.tree.leaves(rows)[0].shape[0])
        done = replay(
            (again,), count, carry, rows, consts, single=True, undo=undo, known=known[0]
        )  # fmt: skip
        return done.carry, done.outs
    outs = []
    for part, mine in zip(_parts(way, rows), known, strict=True):
        blocks = jnp.asarray(jax.tree.leaves(part)[0].shape[0])
        # Of steps that may have reverse mode alone no Jacobians are formed.
        done = replay((again,), blocks, carry, part, consts, jacobians=False, known=mine)
        carry = done.carry
        outs.append(done.outs)
    return carry, _joined(outs)
