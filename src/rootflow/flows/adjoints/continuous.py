"""Adjoint equations: the derivative of the solution as another differential equation.

With a(t) = dL/dy(t), da/dt = -a df/dy backwards in time, and dL/dargs is the integral of a df/dargs
(optimise, then discretise). The gradient is as accurate as the solves, not exact for the steps.
"""

import abc
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from ...errors import DerivativeError, InputError
from ...ground import varying
from ...ground.tracing import raise_if
from .. import loop
from ..attempt import direction_of, onwards, window
from ..events import values
from ..interpolation import polynomial
from ..methods import AutoSwitch, Method
from ..methods.forms import backward_form
from ..methods.sde import reads_state, times
from ..problem import Inputs, Outcome, Setup
from ..saving import interpolants, observe, steps_of
from ..solution import Result
from ..system import Given, Parts, System, the, within
from .base import Adjoint

_HEURISTICS = (
    "the error and stiffness estimates exist only in the discretisation, so that an adjoint "
    "equation has no derivative for them: use adjoint=rf.DiscreteAdjoint() or "
    "rf.CheckpointAdjoint()"
)


class ContinuousAdjoint(Adjoint):
    """What `BacksolveAdjoint` and `InterpolatingAdjoint` share.

    Attributes:
        method: the method of the backward solve; default: that of the forward solve.
        seminorm: leave dL/dargs, which is a mere integral, out of the step control of the backward
            solve (Kidger, Chen & Lyons, "Hey, that's not an ODE", ICML 2021).
        max_steps: the most steps of each backward solve between saved times; default: as forward.
    """

    method: Method | AutoSwitch | None = None
    seminorm: bool = eqx.field(default=True, static=True)
    max_steps: int | None = eqx.field(default=None, static=True)

    def check(self, setup: Setup, x: Inputs) -> None:
        name = type(self).__name__
        if setup.penalties:
            raise InputError(
                f"rf.{name}() cannot differentiate penalty=, which exists only in the "
                "discretisation: use rf.DiscreteAdjoint() or rf.CheckpointAdjoint(), or penalise "
                "one step with rf.local_penalty, which goes with every adjoint."
            )
        if setup.rows:
            raise InputError(
                f"rf.{name}() does not differentiate the steps, which saveat='steps', "
                "saveat='dense', max_events and reduce=None need: use rf.DiscreteAdjoint(), or "
                "save at given times."
            )
        if any(map(jnp.iscomplexobj, (x.y0, *jax.tree.leaves(_parts(x.args))))):
            raise InputError(
                f"rf.{name}() is for real states and parameters: use rf.DiscreteAdjoint()."
            )
        if setup.f.massive:
            raise InputError(
                f"rf.{name}() does not handle mass matrices: use rf.DiscreteAdjoint()."
            )
        if setup.watch is not None and (any(setup.watch.jumps) or not all(setup.watch.terminal)):
            raise InputError(
                f"rf.{name}() handles events that end the solve, not those within it: use "
                "rf.DiscreteAdjoint() or rf.CheckpointAdjoint()."
            )
        if setup.f.parts.diffusion is not None:
            self.check_noise(setup, x)

    def check_noise(self, setup: Setup, x: Inputs) -> None:
        """Raises `InputError` where the equation is stochastic and this is not for it."""
        raise InputError(
            f"rf.{type(self).__name__}() is for equations without noise: use "
            "rf.DiscreteAdjoint(), rf.CheckpointAdjoint() or rf.BacksolveAdjoint()."
        )

    def diffusion(self, f: System, n: int, restore: Any) -> Any:
        """The diffusion of the adjoint equation; equations that have one pass `check_noise`."""
        raise TypeError(f"{type(self).__name__} is for equations without noise")

    def solve(self, setup: Setup, x: Inputs, ts: Array | None) -> tuple[Outcome, Array | None]:
        arrays, static = eqx.partition((x, ts), eqx.is_array)

        @jax.custom_vjp
        def run(arrays):
            x, ts = eqx.combine(arrays, static)
            return loop.solve(setup, x, ts)

        def forward(arrays):
            moving = arrays[0].stops is not None and arrays[0].stops.perturbed
            arrays = jax.tree.map(lambda a: a.value, arrays)
            x, ts = eqx.combine(arrays, static)
            out, saved, memory = self.remember(setup, x, ts)
            states = saved
            if ts is not None and setup.f.parts.save is not None:
                bare = setup._replace(f=_unobserved(setup.f))
                states = loop.solve(bare, x, ts)[1]
            at_stops = None
            if moving:
                bare = setup._replace(f=_unobserved(setup.f))
                at_stops = loop.solve(bare, x, _inside(x, out.t)[0])[1]
            out = loop.refuse(setup, out.result, out)
            return (out, saved), (arrays, out, states, at_stops, memory)

        def backward(residuals, bars):
            arrays, out, states, at_stops, memory = residuals
            x, ts = eqx.combine(arrays, static)
            out_bar, saved_bar = bars
            bad = jnp.asarray(False)
            for bar in (out_bar.error, out_bar.stiffness):
                if not isinstance(bar, SymbolicZero):
                    bad = bad | jnp.any(bar != 0)
            t_bar, y_bar = _zeros(out_bar.t, out.t), _zeros(out_bar.y, out.y)
            t_bar, y_bar = raise_if((t_bar, y_bar), bad, _HEURISTICS, DerivativeError)
            saved_bar = None if ts is None else _zeros(saved_bar, None)
            x_bar, ts_bar = self._pull(
                setup, x, ts, out, states, at_stops, memory, t_bar, y_bar, saved_bar
            )
            return (_match(arrays, (x_bar, ts_bar)),)

        run.defvjp(forward, backward, symbolic_zeros=True)
        return run(arrays)

    def remember(
        self, setup: Setup, x: Inputs, ts: Array | None
    ) -> tuple[Outcome, Array | None, Any]:
        """The forward solve, and what the backward solve needs of it."""
        return *loop.solve(setup, x, ts), None

    @abc.abstractmethod
    def field(self, f: System, n: int, restore: Any) -> Any:
        """The right-hand side of the adjoint equation, for the state (y, a, g) or (a, g)."""

    @abc.abstractmethod
    def begin(self, y: Array) -> Array:
        """What of y is part of the adjoint state."""

    def _pull(
        self, setup: Setup, x: Inputs, ts, out: Outcome, states, at_stops, memory,
        t_bar, y_bar, s_bar,
    ):  # fmt: skip
        """Cotangents of (x, ts) from those of the final time and state and of what was saved."""
        f = setup.f
        flat, restore = _differentiable(x.args)
        project = setup.methods[0].project
        y1, y_bar = project(out.y), project(y_bar)
        slope = f(out.t, y1, x.args)
        g = jnp.zeros_like(flat)
        t1_bar = t_bar + jnp.dot(y_bar, slope)
        a = y_bar
        if setup.watch is not None:
            ended = out.result == Result.event_occurred
            a, more = _through_event(setup, x, out, y1, slope, a, t1_bar, flat, restore, ended)
            g, t1_bar = g + more, jnp.where(ended, 0.0, t1_bar)
        times, bars = jnp.reshape(out.t, (1,)), a[None]
        rows = y1[None]
        ts_bar = None
        if ts is not None:
            # What was saved at each time, as a function of the state there.
            def saved(t, y, flat):
                return observe(f, t, y, restore(x.args, flat))

            def pull(t, y, bar):
                live = jnp.all(jnp.isfinite(y))
                y = jnp.where(live, y, x.y0)
                bar = jnp.where(live, bar, 0.0)
                t_bar, y_bar, more = jax.vjp(saved, t, y, flat)[1](bar)
                return t_bar + jnp.dot(y_bar, f(t, y, x.args)), y_bar, more

            ts_bar, saved_bars, more = jax.vmap(pull)(ts, states, s_bar)
            g = g + more.sum(0)
            direction = direction_of(x)
            # Times that a solve which ended at an event did not reach add nothing.
            reached = direction * ts <= direction * out.t
            times = jnp.concatenate([times, jnp.where(reached, ts, out.t)])
            bars = jnp.concatenate([bars, jnp.where(reached[:, None], saved_bars, 0.0)])
            rows = jnp.concatenate([rows, jnp.where(reached[:, None], states, y1)])
        stops_bar = None if x.stops is None else jnp.zeros_like(x.stops)
        if at_stops is not None:
            at, inside = _inside(x, out.t)
            at_stops = jnp.where(inside[:, None], at_stops, y1)
            times, rows = jnp.append(times, at), jnp.concatenate([rows, at_stops])
            bars = jnp.concatenate([bars, jnp.zeros_like(at_stops)])
        order = jnp.argsort(-direction_of(x) * times, stable=True)
        times, bars, rows = times[order], bars[order], rows[order]
        ends = jnp.append(times[1:], x.t0)
        a, g, along = self._sweep(setup, x, memory, restore, flat, times, ends, rows, bars, g)
        if at_stops is not None:
            along = along[jnp.argsort(order)][-at_stops.shape[0] :]
            stops_bar = _pushed_by_stops(setup, x, out.t, at_stops, along)
        t0_bar = -jnp.dot(a, f(x.t0, x.y0, onwards(x, x.t0, direction_of(x))))
        args_bar = _as_tree(x.args, g)
        x_bar = x._replace(
            y0=a, t0=t0_bar, t1=t1_bar, args=args_bar,
            stops=stops_bar, h=jnp.zeros_like(x.h),
        )  # fmt: skip
        return x_bar, ts_bar

    def _sweep(self, setup, x: Inputs, memory, restore, flat, times, ends, rows, bars, g):
        """Backwards from time to time, adding the cotangent of each; and what it then is there."""
        n = x.y0.size
        names = self.method
        methods = setup.methods if names is None else names.methods
        parts = Parts()
        if setup.f.parts.diffusion is not None:
            parts = Parts(diffusion=self.diffusion(setup.f, n, restore))
            backwards = backward_form(methods[0])
            assert backwards is not None  # `check_noise` saw to it
            methods = (backwards,)
        aug = System(self.field(setup.f, n, restore), 0, parts)
        given = Given({}, (x.args, flat, memory), x.args.tolerances, noise=x.args.noise)
        # Components of y and a have the tolerances of y; the integral that of its own size.
        rtol, atol = x.args.tolerances
        copies = self.begin(rows[0]).size // n + 1
        if jnp.ndim(atol) or jnp.ndim(rtol):
            widest = jnp.min(jnp.broadcast_to(atol, (n,)))
            atol = jnp.concatenate(
                [jnp.tile(jnp.broadcast_to(atol, (n,)), copies), jnp.full(g.shape, widest)]
            )
            rtol = jnp.max(jnp.broadcast_to(rtol, (n,)))
        given = given._replace(tolerances=x.args.tolerances._replace(rtol=rtol, atol=atol))
        backward = setup._replace(
            f=aug, methods=methods, watch=None, rows=False, levels=None,
            norm=copies * n if self.seminorm else None,
            max_steps=setup.max_steps if self.max_steps is None else self.max_steps,
        )  # fmt: skip

        def segment(carry, row):
            a, g = carry
            start, end, y, bar = row
            here = a + bar
            state = jnp.concatenate([self.begin(y), here, g])
            out, _ = loop.solve(backward, Inputs(state, start, end, given, x.stops, x.h), None)
            z = methods[0].project(out.y)
            offset = self.begin(y).size
            return (z[offset : offset + n], z[offset + n :]), here

        rows = (times, ends, rows, bars)
        (a, g), along = varying.scan(segment, (jnp.zeros_like(x.y0), g), rows)
        return a, g, along


def _zeros(bar: Any, like: Any) -> Array:
    if isinstance(bar, SymbolicZero):
        return jnp.zeros(bar.shape, bar.dtype) if like is None else jnp.zeros_like(like)  # pyright: ignore
    return bar


def _inside(x: Inputs, end: Array) -> tuple[Array, Array]:
    """The stops, those that are not within the solve put at its end; and which are."""
    assert x.stops is not None
    direction = direction_of(x)
    inside = (direction * x.stops > direction * x.t0) & (direction * x.stops < direction * end)
    return jnp.where(inside, x.stops, end), inside


def _pushed_by_stops(setup: Setup, x: Inputs, end: Array, states: Array, along: Array) -> Array:
    """Cotangents of the stops: where f jumps, a later stop is more of what is before it."""
    at, inside = _inside(x, end)
    stops, direction = at, direction_of(x)

    def push(t, y, a):
        near = window(stops, x.t0, t, jnp.asarray(True), direction, x.args)
        before = setup.f(t, y, x.args._replace(window=near))
        after = setup.f(t, y, onwards(x, t, direction))
        # (Of equal ones each has its part.)
        return jnp.dot(a, before - after) / jnp.sum(at == t)

    return jnp.where(inside, jax.vmap(push)(at, states, along), 0.0)


def _unobserved(f: System) -> System:
    return replace(f, parts=replace(f.parts, save=None))


def _parts(args: Given) -> Any:
    return args.consts, args.arrays, args.linear


def _differentiable(args: Given) -> tuple[Array, Any]:
    """The numbers in `args` that have a derivative, flat; and how to put them back."""
    of, _ = eqx.partition(_parts(args), eqx.is_inexact_array)
    flat, unravel = ravel_pytree(of)
    dtype = jnp.result_type(args.tolerances.rtol)
    flat = flat.astype(dtype) if flat.size == 0 else flat

    def restore(args: Given, flat: Array) -> Given:
        rest = eqx.filter(_parts(args), eqx.is_inexact_array, inverse=True)
        consts, arrays, linear = eqx.combine(unravel(flat) if flat.size else of, rest)
        return args._replace(consts=consts, arrays=arrays, linear=linear)

    return flat, restore


def _as_tree(args: Given, g: Array) -> Given:
    """Cotangents in the structure of `args`."""
    of, _ = eqx.partition(_parts(args), eqx.is_inexact_array)
    consts, arrays, linear = ravel_pytree(of)[1](g) if g.size else of
    zeros = jax.tree.map(jnp.zeros_like, args)
    return zeros._replace(consts=consts, arrays=arrays, linear=linear)


def _match(arrays: Any, bars: Any) -> Any:
    """`bars` with the leaves that `arrays` has; whole numbers have none."""
    leaves, structure = jax.tree.flatten(arrays)
    with_path, name = jax.tree_util.tree_leaves_with_path, jax.tree_util.keystr
    given = {name(path): leaf for path, leaf in with_path(bars)}
    paths = [name(path) for path, _ in with_path(arrays)]
    out = []
    for path, leaf in zip(paths, leaves, strict=True):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            bar = given.get(path)
            out.append(jnp.zeros_like(leaf) if bar is None else jnp.asarray(bar, leaf.dtype))
        else:
            out.append(None)
    return jax.tree.unflatten(structure, out)


def _through_event(
    setup: Setup, x: Inputs, out: Outcome, y1, slope, a, t_bar, flat, restore, ended
):
    """The time at which a condition is zero moves with the state and the parameters."""
    assert out.which is not None
    index = jnp.maximum(out.which, 0)

    def condition(t, y, flat):
        return values(setup.f, t, y, restore(x.args, flat))[index]

    gradient = jax.grad(condition, (0, 1, 2))(out.t, y1, flat)
    rate = gradient[0] + jnp.dot(gradient[1], slope)
    weight = jnp.where(ended, -t_bar / jnp.where(ended, rate, 1.0), 0.0)
    return a + weight * gradient[1], weight * gradient[2]


class BacksolveAdjoint(ContinuousAdjoint):
    """The adjoint equation, with the state solved again backwards in time.

    The memory does not grow with the number of steps. The state that the backward solve follows is
    not quite the one of the forward solve, and for equations that contract strongly it leaves it:
    prefer `CheckpointAdjoint` or `ReversibleAdjoint`, which are exact. At saved times (`saveat`) it
    starts afresh from the state that was saved. Reverse mode only, of first order.

    Stochastic equations are solved backwards on the same path, in the sense of Stratonovich (the
    noise may be additive, then the sense does not matter); the derivative in the ends of the span
    is that of the drift alone.

    Source: Chen, Rubanova, Bettencourt & Duvenaud, "Neural ordinary differential equations",
    NeurIPS 2018, Algorithm 1.
    """

    def begin(self, y: Array) -> Array:
        return y

    def field(self, f: System, n: int, restore: Any) -> Any:
        def aug(t, state, given):
            args, flat, _ = given.arrays
            args = args._replace(window=given.window)
            y, a = state[:n], state[n : 2 * n]
            slope, pull = jax.vjp(lambda y, flat: f(t, y, restore(args, flat)), y, flat)
            y_bar, g_bar = pull(-a)
            return jnp.concatenate([slope, y_bar, g_bar])

        return aug

    def check_noise(self, setup: Setup, x: Inputs) -> None:
        method = setup.methods[0] if self.method is None else self.method
        g = the(setup.f.parts.diffusion)
        if backward_form(method) is None:
            raise InputError(
                "rf.BacksolveAdjoint() solves a stochastic equation backwards with one of the "
                f"methods EulerHeun, Heun and SPaRK; got {type(method).__name__}: pass "
                "rf.BacksolveAdjoint(method=rf.Heun()), or use rf.DiscreteAdjoint()."
            )
        forward = setup.methods[0]
        ito = "ito" in (getattr(forward, "calculus", None), getattr(method, "calculus", None))
        if ito and reads_state(g, x.y0, x.t0, x.args):
            raise InputError(
                "rf.BacksolveAdjoint() follows the chain rule, which equations of Ito with a "
                "diffusion that depends on the state do not have (method "
                f"{type(forward).__name__}): solve the equation in the sense of Stratonovich, with "
                "rf.EulerHeun(), rf.Heun() or rf.SPaRK(), or use rf.DiscreteAdjoint()."
            )

    def diffusion(self, f: System, n: int, restore: Any) -> Any:
        g = the(f.parts.diffusion)

        def aug(t, state, given):
            args, flat, _ = given.arrays
            args = args._replace(window=given.window)
            y, a = state[:n], state[n : 2 * n]

            def apply(w):
                """The diffusion of (y, a, dL/dargs) times an increment, without a matrix."""
                moved = lambda y, flat: times(g(t, y, restore(args, flat)), w)
                slope, pull = jax.vjp(moved, y, flat)
                y_bar, g_bar = pull(-a)
                return jnp.concatenate([slope, y_bar, g_bar])

            return apply

        return aug


class InterpolatingAdjoint(ContinuousAdjoint):
    """The adjoint equation, with the state taken from the dense output of the forward solve.

    Stable where `BacksolveAdjoint` is not, at the price of keeping every step of the forward solve.
    Reverse mode only, of first order.

    Source: Rackauckas et al., "Universal differential equations for scientific machine learning"
    (2020), Section on adjoints ("interpolating adjoint").
    """

    def begin(self, y: Array) -> Array:
        return y[:0]

    def remember(
        self, setup: Setup, x: Inputs, ts: Array | None
    ) -> tuple[Outcome, Array | None, Any]:
        keeping = setup._replace(rows=True)
        out, _ = loop.solve(keeping, x, None)
        saved = None if ts is None else loop.saved_at(setup, x, out, ts)
        steps = steps_of(setup, x, out)
        # The states alone, without what a method carries along.
        project = setup.methods[0].project
        states = (jax.vmap(project)(steps.states), x.y0)
        bare_steps = eqx.tree_at(lambda s: (s.states, s.y0), steps, states)
        bare = out._replace(rows=None, last=None, kinds=None)
        return bare, saved, (bare_steps, interpolants(setup, x, out, steps))

    def field(self, f: System, n: int, restore: Any) -> Any:
        def aug(t, state, given):
            args, flat, (steps, coefficients) = given.arrays
            args = args._replace(window=given.window)
            row, s = steps.locate(within(t, given))
            _, z = steps.start(row)
            y = polynomial(z, coefficients[row], s)
            _, pull = jax.vjp(lambda y, flat: f(t, y, restore(args, flat)), y, flat)
            y_bar, g_bar = pull(-state[:n])
            return jnp.concatenate([y_bar, g_bar])

        return aug
