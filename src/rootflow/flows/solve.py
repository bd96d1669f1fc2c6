"""A solve as the user asks for it: the arguments of all equations, checked and put together."""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.custom_derivatives import SymbolicZero
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from .._typing import PyTree
from ..errors import InputError, SolveError
from ..ground.derivative import custom_jvp, jvp_of_active
from ..ground.modes import own_modes
from ..ground.programs import Behaviour, compiled_for, compiled_once
from ..ground.reads import of_call
from ..ground.tracing import is_compiling, is_traced, raise_if
from ..ground.varying import vary_like
from . import checks, loop
from .adjoints import (
    Adjoint,
    CheckpointAdjoint,
    DiscreteAdjoint,
    ForwardAdjoint,
    ReversibleAdjoint,
)
from .control import PIDController
from .events import Event, Watch
from .heuristics import StepPenalty, reduced, require_estimates, split
from .methods import AutoSwitch, Method
from .methods.remembered import Remembered, repeatable
from .problem import Inputs, Outcome, Setup
from .saving import accepted, dense_output, happened, saved_at, step_numbers
from .solution import MESSAGES, Happened, Heuristics, Result, Solution, Stats
from .system import Pattern, System, Tolerances, build

#: The adjoints that differentiate the steps that were taken.
_OF_THE_STEPS = (DiscreteAdjoint, CheckpointAdjoint, ForwardAdjoint, ReversibleAdjoint)

#: The most numbers for which the state of every step is kept (8 MB in float64).
_NUMBERS = 1 << 20


class Problem(eqx.Module):
    """The arguments of a solve, checked and in the types that the loop works with."""

    f: Callable[..., Any]
    y0: PyTree[Array]
    t0: Array
    t1: Array
    length: Array  # t1 - t0, rounded once
    args: PyTree
    method: Method | AutoSwitch
    saveat: Any
    tolerances: Tolerances
    h: Array
    controller: PIDController
    adjoint: Adjoint
    stops: Array | None  # on the clock of the loop, as `times`
    times: Array | None  # at which to save
    events: tuple[Event, ...]
    jac: Callable[..., Any] | None
    mass: Any
    diffusion: Callable[..., Any] | None
    noise: Any
    save: Callable[..., Any] | None
    jac_sparsity: Pattern | None = eqx.field(static=True)
    fixed: bool = eqx.field(static=True)
    given: bool = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)
    enough: int = eqx.field(static=True)  # of max_steps, where each is as long as given
    max_events: int | None = eqx.field(static=True)
    hidden: int = eqx.field(static=True)  # so many of the events, the last, are not the user's
    consistent: Callable[..., Any] | None = eqx.field(static=True)  # before the first step
    again: Callable[..., Any] | None = eqx.field(static=True)  # after a jump
    more_parts: Callable[..., Any] | None
    penalty: PyTree[StepPenalty]
    relative: bool = eqx.field(static=True)  # the clock of the loop is counted from t0
    empty: bool = eqx.field(static=True)  # t0 may be t1
    # The span and the times at which to save are numbers, were checked, and have no derivative.
    still: bool = eqx.field(static=True)
    progress: Callable[..., Any] | None = eqx.field(static=True)
    hold: Callable[..., Any] | None = eqx.field(static=True)  # of what has no derivative

    @own_modes
    def __init__(
        self,
        f: Callable[..., Any],
        y0: PyTree,
        span: Any,
        args: PyTree,
        *,
        method: Any,
        saveat: Any = None,
        save: Any = None,
        rtol: Any = None,
        atol: Any = None,
        dt: Any = None,
        dt0: Any = None,
        controller: PIDController | None = None,
        stops: Any = None,
        event: Any = None,
        max_events: int | None = None,
        hidden: int = 0,
        adjoint: Adjoint = DiscreteAdjoint(),
        max_steps: int = 4096,
        jac: Any = None,
        jac_sparsity: Any = None,
        mass: Any = None,
        consistent: Callable[..., Any] | None = None,
        again: Callable[..., Any] | None = None,
        diffusion: Any = None,
        noise: Any = None,
        more_parts: Callable[..., Any] | None = None,
        penalty: Any = None,
        progress: Any = None,
        hold: Callable[..., Any] | None = None,
    ) -> None:
        if not callable(f):
            raise InputError(f"The vector field must be a function f(t, y, args); got {f!r}.")
        checks.hashable((f, args))
        self.f = f
        self.y0 = checks.state(y0)
        dtype = checks.real_dtype(self.y0)
        timed = checks.timed(span, dtype)
        self.t0, self.t1, self.length = timed[:3]
        self.empty = timed.may_be_empty
        self.args = jax.tree.map(checks.as_array, args)
        self.method = method
        self.saveat = checks.saveat(saveat, timed, dtype)
        self.save = checks.function("save", "save(t, y, args)", save)
        if self.save is not None and isinstance(self.saveat, str) and self.saveat == "dense":
            raise InputError(
                'saveat="dense" gives the state at any time: apply the function of save= to it.'
            )
        self.tolerances = checks.tolerances(rtol, atol, self.y0, dtype)
        self.adjoint = checks.adjoint(adjoint)
        ordinary = diffusion is None and more_parts is None
        self.relative = ordinary and isinstance(adjoint, _OF_THE_STEPS)
        clock = span[0] if self.relative else 0.0
        self.stops = checks.stops(stops, clock, dtype)
        self.times = None
        if isinstance(self.saveat, Array):
            self.times = jnp.asarray(checks.difference(saveat, clock), dtype)
        self.still = timed.known is not None and checks.known_times(saveat)
        self.events, self.max_events = checks.events(event, max_events)
        self.hidden = hidden
        self.controller = checks.controller(controller, dt)
        checks.padded(self.saveat, self.max_events)
        self.fixed, self.given, self.h = checks.step_size(dt, dt0, dtype)
        self.max_steps = checks.positive_integer("max_steps", max_steps)
        self.enough = checks.enough(span, dt, dtype, self.max_steps)
        self.jac = checks.function("jac", "jac(t, y, args)", jac)
        self.jac_sparsity = None if jac_sparsity is None else Pattern(jac_sparsity)
        self.again = again
        self.mass = None if mass is None else jax.tree.map(checks.as_array, mass)
        self.consistent = consistent
        self.diffusion = checks.function("The diffusion", "diffusion(t, y, args)", diffusion)
        self.noise = noise
        self.more_parts = more_parts
        split(penalty)
        self.penalty = penalty
        self.progress = checks.function("progress", "progress(fraction)", progress)
        self.hold = hold
        checks.needs_step(self.method, self.fixed)

    def behaviour(self) -> Behaviour:
        """What the user's functions do now."""
        events = [part for e in self.events for part in (e.condition, e.jump)]
        functions = (self.f, self.jac, self.diffusion, self.save, *events)
        arguments = (self.t0, self.y0, self.args)
        return Behaviour(*((function, arguments) for function in functions))

    def build(self, y0: PyTree[Array]) -> tuple[System, Any]:
        """The equation and the arrays that it reads."""
        return build(
            self.f,
            y0,
            self.t0,
            self.args,
            self.tolerances,
            jac=self.jac,
            jac_sparsity=self.jac_sparsity,
            mass=self.mass,
            diffusion=self.diffusion,
            noise=self.noise,
            events=self.events,
            save=self.save,
            more_parts=self.more_parts,
        )

    def solve(self, throw: bool) -> Solution:
        """Runs the solve."""
        self = vary_like(self, self)  # what each device reads differs, if any of it does
        y0, unravel = ravel_pytree(self.y0)
        f, args = self.build(self.y0)
        t0, t1 = self.t0, self.t1
        if self.relative:
            args = args._replace(origin=t0)
            t0, t1 = jnp.zeros_like(t0), self.length
        method = self.method
        methods = method.methods
        for each in methods:
            each.check(f)
            checks.mass_matrix(each, f)
        found = jnp.asarray(True)
        if self.consistent is not None:
            y0, found = self.consistent(f, t0, y0, args, throw)
            y0 = jnp.where(found, y0, jnp.nan)
        watch = self._watch()
        penalties, structure = split(self.penalty)
        of_steps = tuple(p for p in penalties if p.reduce is None)
        keeps = isinstance(self.saveat, str) or self.max_events is not None or bool(of_steps)
        # What reads the steps gets `max_steps` of them; all else needs room for those there are.
        max_steps = self.max_steps
        whole = watch is None and self.stops is None and f.parts.delayed is None
        if whole and not keeps and isinstance(self.adjoint, _OF_THE_STEPS):
            max_steps = self.enough
        setup = Setup(
            f, repeatable(methods), self.controller, watch, self.fixed, self.given, max_steps,
            throw, keeps, penalties=tuple(p for p in penalties if p.reduce is not None),
            progress=self.progress, most_events=self.max_events or 0, still=self.still,
            consistent=self.again if self.stops is not None or self.events else None,
        )  # fmt: skip
        y0, t0, args = (self.hold or _as_it_is)((y0, t0, args))
        x = Inputs(y0, t0, t1, args, self.stops, self.h)
        if not loop.small(setup, x):
            setup = self._expensive(setup, x)
        self.adjoint.check(setup, x)
        require_estimates(penalties, f, methods, x.t0, x.y0, args)
        times, outside = self._times(t0, t1)
        observes = self._observes(bool(of_steps))
        if observes:
            out, saved = loop.solve_observed(setup, x), None
        else:
            out, saved = self.adjoint.solve(setup, x, None if keeps else times)
        if not self.still:
            out, saved = self._refused(setup, out, saved, outside)
        if self.consistent is not None:
            out = out._replace(result=jnp.where(found, out.result, Result.inconsistent))
        ts, ys, dense = self._saved(setup, x, out, saved, times, unravel, observes)
        events = None
        if self.max_events is not None:
            at, states, which, count = happened(setup, x, out, self.max_events, self.hidden)
            events = Happened(self._absolute(at), jax.vmap(unravel)(states), which, count)
        heuristics = Heuristics(out.error, out.stiffness)
        if penalties:
            traces = step_numbers(setup, x, out, of_steps) if of_steps else None
            penalty = jax.tree.unflatten(structure, reduced(penalties, out, traces))
            heuristics = heuristics._replace(penalty=penalty)
        return Solution(
            ts, ys, _stats(setup, out), heuristics, out.result, dense, out.which, events
        )

    def _refused(self, setup: Setup, out: Outcome, saved: Any, outside: Array | None):
        """The outcome and what was saved, but for times that turn out to be wrong."""
        finite = jnp.isfinite(self.t0) & jnp.isfinite(self.t1)
        result = jnp.where(finite, out.result, Result.bad_span)
        if outside is not None:
            result = jnp.where(finite & outside, Result.outside_span, result)
        return loop.refuse(setup, result, (out._replace(result=result), saved))

    def _watch(self) -> Watch | None:
        """The events, without their functions."""
        if not self.events:
            return None
        return Watch(
            tuple(event.direction for event in self.events),
            tuple(event.terminal for event in self.events),
            tuple(event.jump is not None for event in self.events),
        )

    def _expensive(self, setup: Setup, x: Inputs) -> Setup:
        """For a step that costs more than what is kept of it: keep more, and repeat less."""
        numbers = x.y0.size * setup.max_steps
        if type(self.adjoint) is not DiscreteAdjoint or numbers > _NUMBERS:
            # Short blocks: few idle steps are gone through again at the end of the last.
            return setup._replace(block=8)
        method = setup.methods[0]
        alone = len(setup.methods) == 1 and setup.watch is None and x.stops is None
        slopes_too = not setup.rows and 2 * numbers <= _NUMBERS
        if alone and slopes_too and method.slope:
            setup = setup._replace(methods=(Remembered(method),))
        return setup._replace(block=1)

    def _times(self, t0: Array, t1: Array) -> tuple[Array | None, Array | None]:
        """When to save, on the clock of the loop, and whether some of it is outside the span.

        What is beside an end by no more than rounding is at that end.
        """
        if self.times is None:
            return None, None
        times, direction = self.times, jnp.where(t1 < t0, -1.0, 1.0).astype(t0.dtype)
        size = jnp.maximum(jnp.abs(self.t0), jnp.abs(self.t1))
        near = 4 * jnp.finfo(t0.dtype).eps * jnp.maximum(size, jnp.abs(self.length))
        for end in (t0, t1):
            times = times + jax.lax.stop_gradient(
                jnp.where(jnp.abs(times - end) <= near, end - times, 0.0)
            )
        inside = (direction * times >= direction * t0) & (direction * times <= direction * t1)
        return times, ~jnp.all(inside)

    def _absolute(self, t: Array) -> Array:
        """Times of the loop as the user has them."""
        if not self.relative:
            return t
        return jnp.where(t == self.length, self.t1, self.t0 + t)

    def _observes(self, penalised: bool) -> bool:
        """Whether of every step only what `save` makes of it is kept, and not its state."""
        if self.save is None or not isinstance(self.saveat, str) or penalised:
            return False
        if type(self.adjoint) is not DiscreteAdjoint or self.max_events is not None:
            return False
        seen = jax.tree.leaves(jax.eval_shape(self.save, self.t0, self.y0, self.args))
        return bool(seen) and all(leaf.dtype == self.t0.dtype for leaf in seen)

    def _saved(self, setup, x, out: Outcome, saved, times, unravel, observes=False):
        if observes:
            ts, seen = accepted(setup, out, x.args)
            return self._absolute(ts), self._observed(seen, unravel), None
        project = setup.methods[0].project
        if isinstance(self.saveat, Array):
            if saved is None:  # the steps were kept for another reason
                saved = saved_at(setup, x, out, times)
            return self.saveat, self._observed(saved, unravel), None
        if self.saveat == "steps":
            ts, ys = accepted(setup, out)
        else:
            y = project(out.y)
            parts = setup.f.parts
            if self.empty and parts.diffusion is None and isinstance(self.adjoint, _OF_THE_STEPS):
                y = _moved_without_a_step(setup.f, y, x.t0, x.t1, x.y0, x.args)
            ts, ys = out.t[None], y[None]
        ts = self._absolute(ts)
        ys = jax.vmap(unravel)(ys)
        if self.save is not None:
            ys = jax.vmap(lambda t, y: self.save(t, y, self.args))(ts, ys)  # pyright: ignore
        dense = None
        if self.saveat == "dense":
            dense = dense_output(setup, x, out, unravel, self.t0 if self.relative else None)
        return ts, ys, dense

    def _observed(self, saved: Array, unravel: Callable[..., Any]) -> PyTree[Array]:
        """Saved rows as what they were before they were flattened."""
        if self.save is None:
            return jax.vmap(unravel)(saved)
        shapes = jax.eval_shape(self.save, self.t0, self.y0, self.args)
        like = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return jax.vmap(ravel_pytree(like)[1])(saved)


def _as_it_is(values: Any) -> Any:
    return values


@partial(custom_jvp, nondiff_argnums=(0,))
def _moved_without_a_step(f: System, y, t0, t1, y0, args):
    """The state y at the end, with the derivatives that no step gives it where t0 = t1.

    They are those of a step of second order from t0 to t1. With a mass matrix they are of first
    order, and not a number for what is algebraic.
    """
    del f, t0, t1, y0, args
    return y


@partial(_moved_without_a_step.defjvp, symbolic_zeros=True)
def _(f, primals, tangents):
    y, *rest = primals
    y_dot, *dots = tangents

    def step(t0, t1, y0, args):
        slope = f(t0, y0, args)
        return y0 + 0.5 * (t1 - t0) * (slope + f(t1, y0 + (t1 - t0) * slope, args))

    y = _moved_without_a_step(f, y, *rest)
    y_dot = jnp.zeros_like(y) if isinstance(y_dot, SymbolicZero) else y_dot
    empty = rest[0] == rest[1]
    if f.massive:
        slope = jnp.where(empty, _divided_by_mass(f(rest[0], rest[2], rest[3]), rest[3]), 0.0)
        for dot, sign in zip(dots[:2], (-1, 1), strict=True):
            if not isinstance(dot, SymbolicZero):
                y_dot = y_dot + sign * slope * dot
        return y, y_dot
    _, moved = jvp_of_active(step, tuple(rest), tuple(dots))
    return y, jnp.where(empty, moved, y_dot)


def _divided_by_mass(slope, args):
    """dy/dt where the mass matrix is a diagonal; what is algebraic is not a number."""
    mass = args.mass
    if mass is None or mass.ndim > 1:
        return jnp.full_like(slope, jnp.nan)
    return jnp.where(mass != 0, slope / jnp.where(mass != 0, mass, 1), jnp.nan)


def _stats(setup: Setup, out: Outcome) -> Stats:
    first = setup.methods[0]
    count = jnp.zeros((), jnp.int32)
    # The first slope serves the first step size as well as the first step.
    evaluations = count + first.start
    if not setup.given:
        evaluations = evaluations + (1 if first.start else 2)
    jacobians = factorisations = count
    for i, method in enumerate(setup.methods):
        tried = out.attempts[i]
        evaluations = evaluations + method.evaluations * tried
        jacobians = jacobians + method.jacobians * tried
        factorisations = factorisations + method.factorisations * tried
    if out.iterations is not None:
        evaluations = evaluations + out.iterations
    steps = jnp.sum(out.attempts)
    rejected = jnp.maximum(steps - out.accepted, 0)
    return Stats(steps, out.accepted, rejected, evaluations, jacobians, factorisations)


@own_modes
def solve(problem: Problem, throw: bool, *, made_of: tuple[Any, ...] | None = None) -> Solution:
    """Solves; outside `jit` the solve is compiled, and errors say more.

    Args:
        problem: the arguments.
        throw: whether a failed solve raises.
        made_of: if the functions of the problem are not the user's but new ones at each call, all
            that they depend on besides their arguments. The compiled program is then known by what
            it does.
    """
    if is_compiling():
        return problem.solve(throw)
    if made_of is not None and not is_traced(*jax.tree.leaves(problem)):
        rest = jax.tree.map(lambda x: None if callable(x) else x, problem)
        reads = of_call((made_of, list(filter(callable, jax.tree.leaves(problem.args)))), rest)
        sol = compiled_once(lambda problem: problem.solve(throw=False), problem, reads=reads)
    else:
        sol = _solve_compiled(problem)
    return _raise(problem, sol) if throw else sol


@compiled_for(Problem.behaviour)
def _solve_compiled(problem: Problem) -> Solution:
    # Whether to raise is decided outside, where the error can say more.
    return problem.solve(throw=False)


def _raise(problem: Problem, sol: Solution) -> Solution:
    """Raises for a solve that failed, where that can be known now; with its numbers."""
    if isinstance(sol.result, Tracer):  # batched or differentiated, but not compiled
        which = jnp.clip(sol.result - 1, 0, len(MESSAGES) - 1)
        ys = raise_if(sol.ys, Result.failed(sol.result), MESSAGES, SolveError, which)
        return eqx.tree_at(lambda s: s.ys, sol, ys)
    codes = np.asarray(sol.result)
    failed = Result.failed(codes)
    if not failed.any():
        return sol
    worst = Result(int(codes[failed].max()))
    tried = int(np.asarray(sol.stats.steps).max())
    raise SolveError(f"{worst.message} ({tried} steps tried{_stiffness(problem, sol)}.)")


def _stiffness(problem: Problem, sol: Solution) -> str:
    """What a failed explicit solve has to say about the stiffness that it met."""
    methods = problem.method.methods
    known = not isinstance(sol.heuristics.stiffness, Tracer) and not np.ndim(sol.result)
    if any(method.jacobians for method in methods) or not known:
        return ""
    gone = abs(float(sol.ts[-1]) - float(problem.t0)) if sol.ts.shape == (1,) else np.nan
    per_step = gone / max(int(sol.stats.accepted), 1)
    mean = float(sol.heuristics.stiffness) / gone if gone > 0 else np.nan
    if not (np.isfinite(mean) and mean * per_step > 0.5):
        return ""
    return (
        f"; the equation is stiff: the Jacobian has eigenvalues of about {mean:.2g}, which hold "
        'the steps of this method down. Use method=rf.Rodas5P() or method="auto"'
    )
