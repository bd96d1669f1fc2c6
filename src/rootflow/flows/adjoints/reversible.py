"""The exact derivative of the steps at constant memory, for methods that can be run backwards."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from ...errors import DerivativeError, InputError
from ...roots.checks import raise_if
from .. import loop
from ..attempt import lifted
from ..heuristics import heuristics, share, values_of
from ..march import row_at
from ..solution import Result
from .base import Adjoint


class ReversibleAdjoint(Adjoint):
    """The derivative of `DiscreteAdjoint`, with the states recovered by stepping backwards.

    Of the steps only times and sizes are kept (two numbers each), whatever the size of the state.
    Needs a method whose steps can be undone exactly: `ReversibleHeun`, `AsynchronousLeapfrog`, the
    symplectic ones, or any explicit one wrapped in `rf.Reversible`. Undoing amplifies rounding
    errors where the equation contracts; the initial state that is recovered is compared with the
    real one, and a derivative that cannot be trusted is refused. Reverse mode only, of first order.

    Source: Kidger, Foster, Li & Lyons, "Efficient and accurate gradients for neural SDEs", NeurIPS
    2021, Algorithm 2; McCallum & Foster, "Efficient, accurate and stable gradients for neural ODEs"
    (2024).

    Attributes:
        tolerance: the largest error of the recovered initial state, relative to the size of the
            states, with which a derivative is returned.
    """

    tolerance: float = eqx.field(default=1e-3, static=True)

    def __check_init__(self):
        if not self.tolerance > 0:
            raise InputError(f"tolerance must be positive; got {self.tolerance!r}.")

    def check(self, setup, x):
        if setup.rows:
            raise InputError(
                "rf.ReversibleAdjoint() does not keep the states, which saveat='steps', "
                "saveat='dense', max_events and reduce=None need: use rf.DiscreteAdjoint(), or "
                "save at given times."
            )
        for method in setup.methods:
            if not method.exact_inverse:
                name = type(method).__name__
                raise InputError(
                    f"{name} cannot be run backwards exactly: use method=rf.Reversible"
                    f"(rf.{name}()) for an explicit method, rf.ReversibleHeun(), or "
                    "adjoint=rf.CheckpointAdjoint()."
                )
        if setup.watch is not None or x.stops is not None:
            raise InputError(
                "rf.ReversibleAdjoint() does not handle events and stops: use "
                "rf.CheckpointAdjoint()."
            )

    def solve(self, setup, x, ts):
        arrays, static = eqx.partition((x, ts), eqx.is_array)

        @jax.custom_vjp
        def run(arrays):
            x, ts = eqx.combine(arrays, static)
            return loop.solve(setup, x, ts)

        def forward(arrays):
            arrays = jax.tree.map(lambda a: a.value, arrays)
            x, ts = eqx.combine(arrays, static)
            out, recorded, saved = loop.record_steps(setup, x, False, None, ts)
            last = loop.refuse(setup, out.result, recorded.last)
            return (out, saved), (arrays, out, recorded.rows, last)

        def backward(residuals, bars):
            arrays, out, rows, last = residuals
            out_bar, saved_bar = jax.tree.map(
                _dense,
                bars, is_leaf=lambda b: isinstance(b, SymbolicZero),
            )  # fmt: skip
            x, ts = eqx.combine(arrays, static)
            return (self._unwind(setup, x, ts, out, rows, last, out_bar, saved_bar, static),)

        run.defvjp(forward, backward, symbolic_zeros=True)
        return run(arrays)

    def _unwind(self, setup, x, ts, out, rows, last, out_bar, saved_bar, static):
        method, f = setup.methods[0], setup.f
        ts_flat = jax.tree.map(lambda r: r.reshape(-1), (rows.t, rows.h))
        of, rest = eqx.partition((x.args, x.t0, x.t1, ts), eqx.is_inexact_array)
        reached = out.result == Result.success

        def step(z, began, h, is_last, of):
            """One step, as a function of the state and of what has a derivative."""
            args, t0, t1, ts = eqx.combine(of, rest)
            t0_moved, t1_moved = t0 - lax.stop_gradient(t0), t1 - lax.stop_gradient(t1)
            t = began + t0_moved
            h = h + jnp.where(is_last & reached, t1_moved - t0_moved, 0.0)
            step = method.step(f, t, z, h, args, method.init(f, t, z, args))
            *add, numbers = heuristics(setup, method, z, step, h, args)
            add = (*add, share(setup, out.penalty, numbers, began, h))
            if ts is not None:
                # The time of a step's end is known exactly for the last only.
                ended = is_last & reached
                add = (*add, loop.passed_over(setup, method, t, h, z, step, args, ts, ended))
            return step.y, add

        add_bar = (out_bar.error, out_bar.stiffness, values_of(out_bar.penalty))
        if ts is not None:
            add_bar = (*add_bar, saved_bar)

        def back(state):
            i, z, z_bar, bars, size = state
            t, h = row_at(ts_flat, i)

            def undo(z):
                return method.inverse(f, t + h, z, h, x.args)

            before = jnp.where(h == 0, z, undo(z))
            _, pull = jax.vjp(lambda z, of: step(z, t, h, i == last, of), before, of)
            z_bar, more = pull((z_bar, add_bar))
            size = jnp.maximum(size, jnp.max(jnp.abs(before)))
            return i - 1, before, z_bar, jax.tree.map(jnp.add, bars, more), size

        zeros = jax.tree.map(jnp.zeros_like, of)
        state = (last, out.y, out_bar.y, zeros, jnp.max(jnp.abs(out.y)))
        _, z0, z_bar, bars, size = lax.while_loop(lambda s: s[0] >= 0, back, state)

        def begin(x, ts):
            saved = None if ts is None else loop.at_start(setup, x, ts, 0.0)
            return lifted(setup, x), saved

        (start, _), pull = jax.vjp(lambda of: begin(*eqx.combine(of, static)), _inexact(x, ts))
        error = jnp.max(jnp.abs(z0 - start))
        bad = ~(error <= self.tolerance * size)
        z_bar, bars = raise_if((z_bar, bars), bad, _message(self.tolerance), DerivativeError)
        (start_bar,) = pull((z_bar, saved_bar))
        args_bar, t0_bar, t1_bar, ts_bar = bars
        # The final time is t1, or moves with t0.
        t1_bar = t1_bar + jnp.where(reached, out_bar.t, 0.0)
        t0_bar = t0_bar + jnp.where(reached, 0.0, out_bar.t)
        unwound = (
            x._replace(
                y0=jnp.zeros_like(x.y0), t0=t0_bar, t1=t1_bar, args=args_bar,
                h=jnp.zeros_like(x.h),
            ),
            ts_bar,
        )  # fmt: skip
        arrays, _ = eqx.partition((x, ts), eqx.is_array)
        return jax.tree.map(
            lambda leaf, a, b: _sum(leaf, a, b), arrays, unwound, start_bar,
            is_leaf=lambda v: v is None,
        )  # fmt: skip


def _dense(bar):
    if isinstance(bar, SymbolicZero):
        return jnp.zeros(bar.shape, bar.dtype)  # pyright: ignore
    return bar


def _inexact(x, ts):
    return eqx.filter((x, ts), eqx.is_array)


def _sum(leaf, a, b):
    if leaf is None or not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return None
    total = jnp.zeros_like(leaf)
    for part in (a, b):
        if part is not None and part.dtype != jax.dtypes.float0:
            total = total + part
    return total


def _message(tolerance: float) -> str:
    return (
        f"stepping backwards did not recover the initial state (relative error above {tolerance}): "
        "the equation contracts too strongly to be reversed; use adjoint=rf.CheckpointAdjoint(), "
        "or smaller steps"
    )
