"""The exact derivative of the steps at constant memory, for methods that can be run backwards."""

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array

from ...errors import DerivativeError, InputError
from ...ground import varying
from ...ground.derivative import Active, custom_jvp
from ...ground.linear import linear
from ...ground.march import row_at
from ...ground.tracing import raise_if
from .. import loop
from ..attempt import lifted
from ..heuristics import Gathered, heuristics, share, values_of
from ..problem import Inputs, Outcome, Setup
from ..solution import Result
from .base import Adjoint


class ReversibleAdjoint(Adjoint):
    """The derivative of `DiscreteAdjoint`, with the states recovered by stepping backwards.

    Of the steps only times and sizes are kept (two numbers each), whatever the size of the state.
    Needs a method whose steps can be undone exactly: `ReversibleHeun`, `AsynchronousLeapfrog`, the
    symplectic ones, or any explicit one wrapped in `rf.Reversible`. Undoing amplifies rounding
    errors where the equation contracts; the initial state that is recovered is compared with the
    real one, and a derivative that cannot be trusted is refused. Reverse mode is of first order;
    forward mode carries the derivative along instead.

    Source: Kidger, Foster, Li & Lyons, "Efficient and accurate gradients for neural SDEs", NeurIPS
    2021, Algorithm 2; McCallum & Foster, "Efficient, accurate and stable gradients for neural ODEs"
    (2024).

    Attributes:
        tolerance: the largest error of the recovered initial state, relative to the size of the
            states, with which a derivative is returned.
    """

    tolerance: float = eqx.field(default=1e-3, static=True)

    def __check_init__(self) -> None:
        if not self.tolerance > 0:
            raise InputError(f"tolerance must be positive; got {self.tolerance!r}.")

    def check(self, setup: Setup, x: Inputs) -> None:
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

    def solve(self, setup: Setup, x: Inputs, ts: Array | None) -> tuple[Outcome, Array | None]:
        return _solve(setup, self.tolerance, x, ts)


class _Read(NamedTuple):
    """What a step reads besides the state.

    Attributes:
        x: the inputs of the solve.
        ts: the times at which something is saved.
        reached: whether the solve came to its end.
        penalty: the penalties of the steps.
    """

    x: Inputs
    ts: Array | None
    reached: Array
    penalty: Gathered | None


class _Track(NamedTuple):
    """The steps that were taken.

    Attributes:
        t: where each began.
        h: its size; zero where there was none.
        last: the index of the last.
        y: the lifted state after it.
    """

    t: Array
    h: Array
    last: Array
    y: Array


@partial(custom_jvp, nondiff_argnums=(0, 1))
def _solve(setup: Setup, tolerance: float, x: Inputs, ts: Array | None):
    del tolerance
    return loop.solve(setup, x, ts)


@partial(_solve.defjvp, symbolic_zeros=True)
def _solve_jvp(setup: Setup, tolerance: float, primals, tangents):
    x, ts = jax.tree.map(lax.stop_gradient, primals)
    out, recorded, saved = loop.record_steps(setup, x, False, None, ts)
    t, h = recorded.rows.t.reshape(-1), recorded.rows.h.reshape(-1)
    # The derivative reads the steps, not the final state: it must refuse on its own.
    last = loop.refuse(setup, out.result, recorded.last)
    reached = out.result == Result.success
    of = Active((x, ts), tangents)
    residuals, given = jax.tree.flatten(
        (_Read(x, ts, reached, out.penalty), _Track(t, h, last, out.y))
    )
    unwinding = _Unwinding(setup, tolerance, of, given)
    values, tree = jax.tree.flatten(_valued(out, saved))
    shapes = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in values]
    dots = linear(
        unwinding.forward, unwinding.transpose, residuals, of.pick(tangents), shapes,
        unwinding.members,
    )  # fmt: skip

    def whole(t, *values):
        y, error, stiffness, penalty, saved = jax.tree.unflatten(tree, values)
        done = out._replace(t=t, y=y, error=error, stiffness=stiffness)
        if out.penalty is not None:
            done = done._replace(penalty=out.penalty._replace(values=penalty))
        return done, saved

    # The final time is t1, or moves with t0.
    t0_dot, t1_dot = (
        jnp.zeros_like(t) if isinstance(dot, SymbolicZero) else dot
        for t, dot in ((x.t0, tangents[0].t0), (x.t1, tangents[0].t1))
    )
    return jax.jvp(whole, (out.t, *values), (jnp.where(reached, t1_dot, t0_dot), *dots))


def _valued(out, saved):
    """What of a solve has a derivative, but for the time at its end."""
    return out.y, out.error, out.stiffness, values_of(out.penalty), saved


class _Unwinding:
    """The derivative of a solve, from its last step to its first.

    A step is a function of what it reads, of the state, time and size, and of `active`: the part of
    what it reads that has a derivative.
    """

    def __init__(self, setup: Setup, tolerance: float, of: Active, given: Any) -> None:
        self.setup, self.tolerance, self.of, self.given = setup, tolerance, of, given

    def step(self, read: _Read, z, t, h, is_last, active):
        setup, method = self.setup, self.setup.methods[0]
        x, ts = self.of.merge((read.x, read.ts), active)
        t0_moved, t1_moved = x.t0 - lax.stop_gradient(x.t0), x.t1 - lax.stop_gradient(x.t1)
        is_last = is_last & read.reached
        began, t = t, t + t0_moved
        h = h + jnp.where(is_last, t1_moved - t0_moved, 0.0)
        step = method.step(setup.f, t, z, h, x.args, method.init(setup.f, t, z, x.args))
        error, stiffness, numbers = heuristics(setup, method, z, step, h, x.args)
        saved = None
        if ts is not None:
            # The time of a step's end is known exactly for the last only.
            saved = loop.passed_over(setup, method, t, h, z, step, x.args, ts, is_last)
        penalty = share(setup, read.penalty, numbers, began, h)
        return step.y, (error, stiffness, penalty, saved)

    def undo(self, read: _Read, z, t, h):
        """The state before a step; the same if there was none."""
        method = self.setup.methods[0]
        return jnp.where(h == 0, z, method.inverse(self.setup.f, t + h, z, h, read.x.args))

    def begin(self, read: _Read, active):
        """The lifted state at the start, and what is saved there."""
        x, ts = self.of.merge((read.x, read.ts), active)
        return lifted(self.setup, x), None if ts is None else loop.at_start(self.setup, x, ts, 0.0)

    def forward(self, residuals, inputs):
        read, _ = jax.tree.unflatten(self.given, residuals)

        def of_active(*active):
            x, ts = self.of.merge((read.x, read.ts), active)
            return jax.tree.leaves(_valued(*loop.solve_forward(self.setup, x, ts)))

        return jax.jvp(of_active, tuple(self.of.pick((read.x, read.ts))), tuple(inputs))[1]

    def transpose(self, residuals, bars, batched):
        del batched
        read, track = jax.tree.unflatten(self.given, residuals)
        active = self.of.pick((read.x, read.ts))
        return self._unwound(self.step, self.undo, self.begin, read, track, active, bars)

    def members(self, size, residual_axes, input_axes):
        """For a batch: one loop for all members, and sums over them of what they share."""
        read_axes, track_axes = jax.tree.unflatten(self.given, residual_axes)
        if None in track_axes:
            return None
        have = self.of.pick((read_axes.x, read_axes.ts))
        each = [None if a is None and b is None else 0 for a, b in zip(have, input_axes)]
        step = jax.vmap(self.step, (read_axes, 0, 0, 0, 0, each))
        undo = jax.vmap(self.undo, (read_axes, 0, 0, 0))
        begin = jax.vmap(self.begin, (read_axes, each), axis_size=size)

        def transpose(residuals, bars, batched):
            del batched
            read, track = jax.tree.unflatten(self.given, residuals)
            # The members took their steps in the same iterations.
            track = track._replace(t=track.t.T, h=track.h.T)
            active = [
                jnp.broadcast_to(leaf, (size, *leaf.shape)) if b == 0 and a is None else leaf
                for leaf, a, b in zip(self.of.pick((read.x, read.ts)), have, each, strict=True)
            ]
            found = self._unwound(step, undo, begin, read, track, active, bars)
            return [
                jnp.sum(bar, axis=0) if b == 0 and wanted is None else bar
                for bar, b, wanted in zip(found, each, input_axes, strict=True)
            ]

        return transpose

    def _unwound(self, step, undo, begin, read, track: _Track, active, bars):
        """The cotangents of `active`, of one solve or of a batch; there t and h are (steps, n)."""
        (start, saved), pull_start = jax.vjp(lambda active: begin(read, active), active)
        first = row_at((track.t, track.h), 0)
        added = jax.eval_shape(lambda z: step(read, z, *first, track.last == 0, active)[1], track.y)
        y_bar, *bars = bars
        leaves, tree = jax.tree.flatten(added)
        add_bar = jax.tree.unflatten(
            tree,
            [
                varying.vary_like(jnp.zeros(a.shape, a.dtype) if b is None else b, track.y)
                for a, b in zip(leaves, bars)
            ],
        )
        y_bar = jnp.zeros_like(track.y) if y_bar is None else y_bar

        def back(state):
            i, z, z_bar, active_bar, size = state
            t, h = row_at((track.t, track.h), i)
            before = undo(read, z, t, h)
            _, pull = jax.vjp(
                lambda z, active: step(read, z, t, h, i == track.last, active), before, active
            )
            z_bar, more = pull((z_bar, add_bar))
            size = jnp.maximum(size, jnp.max(jnp.abs(before), axis=-1))
            return i - 1, before, z_bar, jax.tree.map(jnp.add, active_bar, more), size

        zeros = jax.tree.map(jnp.zeros_like, active)
        size = jnp.max(jnp.abs(track.y), axis=-1)
        _, z0, z_bar, active_bar, size = varying.while_loop(
            lambda state: state[0] >= 0, back, (jnp.max(track.last), track.y, y_bar, zeros, size)
        )
        bad = ~(jnp.max(jnp.abs(z0 - start), axis=-1) <= self.tolerance * size)
        z_bar, active_bar = raise_if(
            (z_bar, active_bar), jnp.any(bad), _message(self.tolerance), DerivativeError
        )
        (more,) = pull_start((z_bar, None if saved is None else add_bar[-1]))
        return [a + b for a, b in zip(active_bar, more, strict=True)]


def _message(tolerance: float) -> str:
    return (
        f"stepping backwards did not recover the initial state (relative error above {tolerance}): "
        "the equation contracts too strongly to be reversed; use adjoint=rf.CheckpointAdjoint(), "
        "or smaller steps"
    )
