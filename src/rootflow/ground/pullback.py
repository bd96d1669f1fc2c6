"""Pulling cotangents back through the iterations of a replay."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from . import varying
from .derivative import Active, custom_jvp, jvp_of_active
from .march import all_batched, batch_axes, scan_rows

#: Stands for a cotangent known to be zero.
Zero = object()


def parts(tree: Any) -> Any:
    """A pytree with its complex arrays replaced by pairs of real ones."""
    return jax.tree.map(lambda x: (x.real, x.imag) if jnp.iscomplexobj(x) else x, tree)


def _whole(like: Any, parts: Any) -> Any:
    """What `parts` took apart; `like` says which arrays are complex."""
    return jax.tree.map(lambda x, p: lax.complex(*p) if jnp.iscomplexobj(x) else p, like, parts)


def _ravel_cotangents(bars: Any) -> tuple[Array, Callable[[Array], Any]]:
    """Cotangents as one real array, to be multiplied with the real Jacobian, and the way back.

    The cotangent c of a complex x stands for the real number Re(c dx), which is c.real dx.real -
    c.imag dx.imag.
    """
    flat, restore = ravel_pytree(parts(jax.tree.map(jnp.conj, bars)))
    return flat, lambda flat: jax.tree.map(jnp.conj, _whole(bars, restore(flat)))


def filled(bars: Any, zero: Callable[[Any], Array], like: Any) -> list[Array]:
    """The leaves of cotangents, with zeros for those that are known to be zero."""
    pairs = zip(jax.tree.leaves(bars), jax.tree.leaves(like), strict=True)
    return [zero(x) if b is Zero else b for b, x in pairs]


class Cotangents:
    """Those of a list of cotangents that are not known to be zero."""

    def __init__(self, bars: Any) -> None:
        bars = jax.tree.leaves(bars)
        self.present = [b is not Zero for b in bars]
        self.given = [b for b in bars if b is not Zero]

    def pick(self, values: list[Any]) -> list[Any]:
        return [v for v, present in zip(values, self.present, strict=True) if present]

    def add(self, values: list[Any], given: list[Any]) -> list[Any]:
        bars = iter(given)
        return [
            v + next(bars) if present else v
            for v, present in zip(values, self.present, strict=True)
        ]


def _without_passed(given: Any) -> tuple[Any, ...]:
    """The arguments of `Pull.of_block` without the carries that a block passed."""
    consts, start, _, *others = given
    return (consts, start, None, *others)


class Pull:
    """The pullback of iterations, which return what they lead to, add and put out as flat lists.

    Where an iteration has few inputs, the Jacobians of all iterations of a block are formed
    together (once their states are known they do not depend on one another), vectorised, and only
    a product with a small matrix is left for each. On a CPU that is several times faster, and
    several times quicker to compile, than a vector-Jacobian product for each iteration in turn.
    Under `vmap` there is enough to vectorise already, and the products are less work. A step need
    not be holomorphic: complex numbers count as two real ones, and the Jacobians are real.
    """

    def __init__(self, of_rows: Active, of_consts: Active, totals: Any, outs: Any) -> None:
        self.of_rows, self.of_consts = of_rows, of_consts
        self.totals, self.outs = Cotangents(totals), Cotangents(outs)

    def _given(self, step_out):
        new, add, out = step_out
        return new, self.totals.pick(add), self.outs.pick(out)

    def once(self, iteration, consts, carry, row, carry_bar, totals_bar, out_bar):
        """The cotangents of the carry, the row and the constants of one iteration."""
        _, vjp = jax.vjp(
            lambda *active: self._given(iteration(consts, row)(*active)),
            carry, self.of_rows.pick(row), self.of_consts.pick(consts),
        )  # fmt: skip
        return vjp((carry_bar, totals_bar, out_bar))

    def of_block(
        self, iteration, reverse, consts, start, passed, rows, carry_bar, totals_bar, outs_bar,
        together=False,
    ):  # fmt: skip
        """Those of a block from its start; the carries it `passed` are computed if not known."""

        def again(carry, row):
            new, _, _ = iteration(consts, row)(
                carry, self.of_rows.pick(row), self.of_consts.pick(consts)
            )
            return new, carry

        if passed is None:
            _, passed = scan_rows(again, start, rows, reverse)
        pull = self.together if together else self.in_turn
        return pull(iteration, consts, passed, rows, carry_bar, totals_bar, outs_bar, reverse)

    def by_size(self, iteration, reverse, small, passed_by_all):
        """As `of_block`, with Jacobians if `small`, but for a batch.

        And with a derivative of its own, in which the carries that the block passed move with what
        they are computed from.
        """
        alone = partial(self.of_block, iteration, reverse, together=small)
        each = partial(self.of_block, iteration, reverse)

        @custom_jvp
        def pulled(*given):
            @custom_vmap
            def run(*given):
                return alone(*given)

            @run.def_vmap
            def _(size, batched, *given):
                if not passed_by_all:
                    given, batched = _without_passed(given), _without_passed(batched)
                out = jax.vmap(each, batch_axes(tuple(batched)), axis_size=size)(*given)
                return out, all_batched(out)

            return run(*given)

        def derivative(primals, tangents):
            return jvp_of_active(alone, _without_passed(primals), _without_passed(tangents))

        pulled.defjvp(derivative, symbolic_zeros=True)
        return pulled

    def in_turn(self, iteration, consts, carries, rows, carry_bar, totals_bar, outs_bar, reverse):
        """Those of the iterations of a block, one after another, from the carry before each."""

        def pull(bars, row):
            carry_bar, consts_bar = bars
            carry, row, out_bar = row
            carry_bar, row_bar, more = self.once(
                iteration, consts, carry, row, carry_bar, totals_bar, out_bar
            )
            return (carry_bar, jax.tree.map(jnp.add, consts_bar, more)), row_bar

        zeros = [jnp.zeros_like(k) for k in self.of_consts.pick(consts)]
        (carry_bar, consts_bar), rows_bar = scan_rows(
            pull, (carry_bar, zeros), (carries, rows, outs_bar), not reverse
        )
        return carry_bar, consts_bar, rows_bar

    def together(self, iteration, consts, carries, rows, carry_bar, totals_bar, outs_bar, reverse):
        """The same by the Jacobians of all of them at once."""

        def jacobian(carry, row):
            active = (carry, self.of_rows.pick(row), self.of_consts.pick(consts))
            flat, restore = ravel_pytree(parts(active))

            def of_flat(flat):
                given = self._given(iteration(consts, row)(*_whole(active, restore(flat))))
                return ravel_pytree(parts(given))[0]

            # (Numbers that the compiler knows, rather than a loop that makes them.)
            basis = varying.vary_like(np.eye(flat.size, dtype=flat.dtype), flat)
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

        flat_bar, pulled = scan_rows(pull, flat_bar, (jacobians[:, :, :n], others), not reverse)
        row, restore_row = _ravel_cotangents(self.of_rows.pick(jax.tree.map(lambda x: x[0], rows)))
        _, restore_consts = _ravel_cotangents(self.of_consts.pick(consts))
        rows_bar = jax.vmap(restore_row)(pulled[:, : row.size])
        consts_bar = restore_consts(jnp.sum(pulled[:, row.size :], axis=0))
        return restore_carry(flat_bar), consts_bar, rows_bar
