"""`solve_dde`: delay differential equations."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations_with_replacement
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike

from .._typing import PyTree
from ..errors import DerivativeError, InputError
from ..ground.derivative import custom_jvp
from ..ground.modes import own_modes
from . import checks
from .adjoints import Adjoint, DiscreteAdjoint
from .control import PIDController
from .events import Event, moves, without_derivative
from .heuristics import StepPenalty
from .methods import Method, Tsit5
from .methods.delayed import Delayed
from .solution import Solution
from .solve import Problem, solve
from .system import Builder

#: A jump in the derivative at t0 comes back after every delay, one order smoother each time.
_SMOOTH = 5

Delay = ArrayLike | Callable[[Any, Any, Any], Any]


@own_modes
def solve_dde(
    f: Callable[[Any, Any, tuple[Any, ...], Any], Any],
    history: Callable[[Any], PyTree],
    delays: Sequence[Delay],
    span: tuple[ArrayLike, ArrayLike],
    args: PyTree = None,
    *,
    method: Method = Tsit5(),
    saveat: ArrayLike | Literal["steps", "dense"] | None = None,
    save: Callable[[Any, Any, Any], Any] | None = None,
    rtol: ArrayLike | None = None,
    atol: PyTree[ArrayLike] | None = None,
    dt: ArrayLike | None = None,
    dt0: ArrayLike | None = None,
    controller: PIDController | None = None,
    stops: ArrayLike | None = None,
    event: Event | Sequence[Event] | None = None,
    max_events: int | None = None,
    adjoint: Adjoint = DiscreteAdjoint(),
    penalty: PyTree[StepPenalty] | None = None,
    max_steps: int = 1024,
    progress: Callable[[float], Any] | None = None,
    throw: bool = True,
) -> Solution:
    """Solves dy/dt = f(t, y(t), (y(t - d1), y(t - d2), ...), args) with y(t) = history(t), t <= t0.

    By the method of steps: delayed states come from the interpolants of earlier steps, and no step
    is longer than the shortest delay. Where the history does not join the solution smoothly, the
    jump in the derivative at t0 comes back a delay later, and so on; steps end at all sums of up to
    five constant delays after t0, and where a delay that depends on the state first looks back at
    t0. Differentiable in `args`, the constant delays, the span and in what `f`, `history` and the
    delays close over.

    Args:
        f: the vector field, `f(t, y, delayed, args)`, `delayed` a tuple with the state at t - d for
            each of the delays; returns the structure of y.
        history: `history(t)`, the state at and before t0 (for a reversed span at and after).
        delays: positive numbers, or functions `delay(t, y, args)` with a positive number as value.
        span: `(t0, t1)`.
        args: passed to `f` and to delays that are functions.
        method: a one-step method.
        saveat: as in `solve_ode`, like all that follow.
        save: what to save of a state.
        rtol: relative tolerance.
        atol: absolute tolerance.
        dt: a fixed step size.
        dt0: the size of the first step.
        controller: how steps adapt.
        stops: times at which a step ends.
        event: an event or several; they see the present state.
        max_events: keep so many of the events.
        adjoint: how to differentiate: `DiscreteAdjoint`, `CheckpointAdjoint` or `ForwardAdjoint`.
        penalty: of the steps.
        max_steps: the most steps to try. The past of a solve is kept in an array of this length,
            and every step costs time in proportion.
        progress: told how far the solve has got.
        throw: raise if the solve fails.

    Returns:
        A `Solution`.

    Raises:
        InputError: arguments that do not fit together.
        SolveError: the solve failed.
    """
    method = checks.method(method)  # pyright: ignore
    _check(f, history, delays, method)
    constant = [i for i, d in enumerate(delays) if not callable(d)]
    numbers = tuple(_positive(i, delays[i]) for i in constant)
    t0, _ = checks.span(span, jnp.result_type(float))
    y0 = checks.state(history(t0))
    dtype = checks.real_dtype(y0)
    t0, t1 = checks.span(span, dtype)
    direction = jnp.where(t1 < t0, -1.0, 1.0)
    shifted = [jnp.asarray(d, dtype) for d in numbers]
    breaks = _breaks(t0, direction, shifted)
    if stops is not None:
        breaks += list(jnp.asarray(stops, dtype))
    watched = () if event is None else (event,) if isinstance(event, Event) else tuple(event)
    if any(each.jump is not None for each in watched):
        numbers = tuple(_held(jnp.asarray(d, dtype)) for d in numbers)
    moving = any(each.jump is not None and moves(each, t0, y0, args) for each in watched)
    watched = tuple(_with_args(each) for each in watched)
    varying = [i for i in range(len(delays)) if i not in constant]
    watched += tuple(_first_look_back(delays[i], t0, direction) for i in varying)  # pyright: ignore

    def delay(i, t, y, everything):
        args, numbers = everything
        if i in constant:
            return direction * numbers[constant.index(i)]
        return direction * jnp.asarray(delays[i](t, y, args))  # pyright: ignore

    def parts(builder: Builder) -> dict[str, Any]:
        both = (y0, tuple(y0 for _ in delays))
        delayed = builder.add(
            "delayed", lambda t, both, e: f(t, both[0], both[1], e[0]), both, y0,
            "The vector field f(t, y, delayed, args)",
        )  # fmt: skip
        past = builder.add("history", lambda t, y, e: history(t), y0, y0, "The history")
        back = tuple(
            builder.add(f"delay{i}", partial(delay, i), y0, None, f"Delay {i}")
            for i in range(len(delays))
        )
        return {"delayed": delayed, "history": past, "delays": back}

    def field(t, y, everything):
        """The equation near t0, where all that is looked up is history."""
        past = tuple(history(t - delay(i, t, y, everything)) for i in range(len(delays)))
        return f(t, y, past, everything[0])

    flat, _ = ravel_pytree(y0)
    degree = _degree(method, flat)
    steps = checks.positive_integer("max_steps", max_steps)
    problem = Problem(
        field, y0, (t0, t1), (args, numbers),
        method=Delayed(method, len(delays), steps, flat.size, degree), saveat=saveat,
        save=None if save is None else lambda t, y, e: save(t, y, e[0]), rtol=rtol, atol=atol,
        dt=dt, dt0=dt0, controller=controller, stops=jnp.stack(breaks) if breaks else None,
        event=watched or None, max_events=max_events, hidden=len(varying), adjoint=adjoint,
        penalty=penalty, max_steps=steps, progress=progress, more_parts=parts,
        hold=_still if moving else None,
    )  # fmt: skip
    # (What the functions above close over besides the user's is in the problem, or is here.)
    by = (f, history, tuple(delays), save, event, penalty, *map(_number, (t0, direction)))
    return solve(problem, throw, made_of=by)


def _number(t: Array) -> Array | float:
    return float(t) if checks.concrete(t) else t


def _breaks(t0: Array, direction: Array, delays: list[Array]) -> list[Array]:
    """When what jumps at t0, the history being another function, comes back."""
    return [
        t0 + direction * sum(delays[i] for i in chosen)
        for count in range(1, _SMOOTH + 1)
        for chosen in combinations_with_replacement(range(len(delays)), count)
    ]


def _check(f: Any, history: Any, delays: Sequence[Any], method: Any) -> None:
    """Raises `InputError` for functions, delays or a method that cannot be used."""
    if not callable(history):
        raise InputError(f"history must be a function history(t); got {history!r}.")
    if not callable(f):
        raise InputError(f"f must be a function f(t, y, delayed, args); got {f!r}.")
    if callable(delays) or isinstance(delays, str) or not isinstance(delays, Sequence):
        if not (eqx.is_array_like(delays) and np.ndim(delays) == 1):  # pyright: ignore
            raise InputError(
                f"delays must be a sequence of numbers or functions, such as (1.0,); got {delays!r}"
            )
    if len(delays) == 0:
        raise InputError("delays is empty: without delays use rf.solve_ode.")
    if len(method.methods) > 1:
        raise InputError("Equations with delays need one method: use rf.Tsit5() or rf.Rodas5P().")
    if type(method).project is not Method.project:
        raise InputError(
            f"{type(method).__name__} carries more than the state from step to step and does not "
            "solve equations with delays: use method=rf.Tsit5() or rf.Rodas5P()."
        )


def _positive(i: int, delay: Any) -> Any:
    value = jnp.asarray(delay)
    if value.ndim or not jnp.issubdtype(value.dtype, jnp.number):
        raise InputError(f"Delay {i} must be one positive number or a function; got {delay!r}.")
    if checks.concrete(value) and not float(value) > 0:
        raise InputError(
            f"Delay {i} must be positive, also for a reversed span; got {delay!r}. Without delays "
            "use rf.solve_ode."
        )
    return delay if isinstance(delay, float) else value.astype(jnp.result_type(value, float))


@custom_jvp
def _held(delay):
    """A constant delay in a solve with jumps, in which it has no derivative."""
    return delay


@_held.defjvp
def _refuse(primals, tangents):
    raise DerivativeError(
        "The solution of an equation with delays has no derivative in a constant delay where an "
        "event has a jump: the jump comes back after the delay, at a time that is no end of a "
        "step. Give the delays as numbers that are not differentiated, or leave the jump out."
    )


_still = without_derivative(
    "The solution of an equation with delays has no derivative here: an event has a jump at a time "
    "that depends on the state or on args, and the jump comes back after the delay, at a time that "
    "is no end of a step. Let the condition depend on t alone, leave the jump out, or take "
    "differences."
)


def _with_args(event: Event) -> Event:
    jump = event.jump
    return Event(
        lambda t, y, e: event.condition(t, y, e[0]), event.direction, event.terminal,
        None if jump is None else lambda t, y, e: jump(t, y, e[0]),
    )  # fmt: skip


def _first_look_back(delay, t0, direction) -> Event:
    def condition(t, y, e):
        return direction * (t - t0) - jnp.asarray(delay(t, y, e[0]))

    return Event(condition, terminal=False)


def _degree(method: Method, y) -> int:
    """The degree of a method's interpolant."""
    from .system import Given, System, Tolerances

    one = jnp.ones((), jnp.finfo(y.dtype).dtype)
    given = Given({}, (), Tolerances(one, one))
    system = System(lambda t, y, args: y, y.size)
    method.check(system)

    def coefficients(t, y):
        state = method.init(system, t, y, given)
        return method.coefficients(t, y, method.step(system, t, y, t, given, state))

    return jax.eval_shape(coefficients, one, y).shape[0]
