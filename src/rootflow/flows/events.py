"""Events: where a function of the solution crosses zero.

A step across which it changes sign is taken again, shorter, so that it ends where the function is
zero. The derivative of that time is the one of the implicit function theorem, for the step as it
was taken: exact for the discrete solution.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from .._typing import PyTree
from ..errors import DerivativeError, InputError
from ..ground import varying
from ..ground.derivative import custom_jvp, jvp_of_active
from ..ground.linear import product
from ..ground.tracing import is_traced, reads_argument
from .interpolation import polynomial
from .methods import Method
from .system import Given, System, the

#: Halvings of the interval in which the interpolant crosses zero.
_HALVINGS = 54
#: Newton steps on the step itself, from the time that the interpolant gives.
_NEWTON = 4
#: How often a step to an event is shortened, each time by four times as many roundings.
_ROUNDINGS = 8


class Event(eqx.Module):
    """Something that happens when `condition(t, y, args)` crosses zero.

    A change of sign is looked for between the ends of steps: an event that comes and goes within
    one step is missed, so limit the steps (`rf.PIDController(dt_max=...)`) where that may be.

    Attributes:
        condition: `condition(t, y, args)`, one real number, continuous.
        direction: +1: only where it rises through zero (as the solve goes), -1: only where it
            falls, 0: both.
        terminal: whether the solve ends there.
        jump: `jump(t, y, args)`, the state from which the solve goes on; `None`: as it is.
            (With `terminal=True`, the final state.)
    """

    condition: Callable[[Any, Any, Any], Any]
    direction: int = eqx.field(default=0, static=True)
    terminal: bool = eqx.field(default=True, static=True)
    jump: Callable[[Any, Any, Any], PyTree] | None = None

    def __check_init__(self) -> None:
        if not callable(self.condition):
            raise InputError(
                f"condition must be a function condition(t, y, args); got {self.condition!r}."
            )
        if self.direction not in (-1, 0, 1):
            raise InputError(f"direction must be -1, 0 or 1; got {self.direction!r}.")
        if self.jump is not None and not callable(self.jump):
            raise InputError(f"jump must be a function jump(t, y, args); got {self.jump!r}.")


class Watch(NamedTuple):
    """What is watched for in a solve: the events, without their functions (see `System.parts`)."""

    directions: tuple[int, ...]
    terminal: tuple[bool, ...]
    jumps: tuple[bool, ...]


def values(f: System, t: Array, y: Array, args: Given) -> Float[Array, " events"]:
    """The conditions at (t, y)."""
    return jnp.stack([condition(t, y, args) for condition in f.parts.conditions])


def signs(
    f: System, t: Array, y: Float[Array, " n"], args: Given, direction: Array
) -> Float[Array, " events"]:
    """The sign of each condition as the solve leaves (t, y): at zero, that of its derivative."""
    slope = f(t, y, args)
    now, moving = jax.jvp(lambda t, y: values(f, t, y, args), (t, y), (jnp.ones_like(t), slope))
    return jnp.where(now == 0, jnp.sign(direction * moving), jnp.sign(now))


def signs_at(
    f: System,
    t: Array,
    y: Float[Array, " n"],
    args: Given,
    before: Array,
    final: Array,
) -> Float[Array, " events"]:
    """The sign of each condition at the end of a step; zero at the `final` time is the other one.

    (Zero before that is on neither side yet: the next step sees it.)
    """
    now = jnp.sign(lax.stop_gradient(values(f, t, y, args)))
    return jnp.where(final & (now == 0), -before, now)


def crossed(watch: Watch, before: Array, after: Array) -> Array:
    """Which events happened between two signs."""
    rising = jnp.asarray(watch.directions)
    return (before * after < 0) & ((rising == 0) | (after == rising))


class Crossing(NamedTuple):
    """An event, located.

    Attributes:
        h: the step that ends at it, on the side of its condition from which it comes.
        which: its index.
        also: which others happen at the same time.
    """

    h: Array
    which: Int[Array, ""]
    also: Bool[Array, " events"]


def locate(
    f: System, method: Method, watch: Watch, t: Array, z: Float[Array, " m"], h: Array,
    args: Given, plain: Given, before: Array, target: Array, last: Array, t1: Array,
) -> Crossing:  # fmt: skip
    """The first event within the step by `h` from (t, z); it has no derivative.

    Args:
        f: the equation.
        method: the method.
        watch: what is watched for.
        t: the time at which the step begins.
        z: the lifted state there.
        h: the step within which something happens.
        args: what the equation reads during the step.
        plain: what the conditions read at its end.
        before: the signs of the conditions at its start.
        target: where it ends, if it is the `last` before a time that is given.
        last: see `target`.
        t1: the end of the solve.
    """
    state = method.init(f, t, z, args)

    def ends(size):
        return method.project(method.step(f, t, z, size, args, state).y)

    def signs_by(size):
        return jnp.sign(values(f, t + size, ends(size), plain))

    end = jnp.where(last, target, t + h)
    now = signs_at(f, end, ends(h), plain, before, last & (end == t1))
    found = crossed(watch, before, now)
    if f.parts.diffusion is not None:
        size, which = _bisected(watch, signs_by, before, found, h)
    else:
        size, which = _refined(f, method, t, z, h, args, plain, state, before, found)
    size = _held_back(signs_by, before, which, t, size, h, args)
    eps = 64 * jnp.finfo(t.dtype).eps
    a_little = eps * jnp.sign(h) * jnp.maximum(jnp.abs(t + size), jnp.abs(size))
    also = found & crossed(watch, before, signs_by(size + a_little))
    also = also | (found & (now != before) & (jnp.abs(size + a_little) >= jnp.abs(h)))
    return Crossing(size, which, also & (jnp.arange(before.size) != which))


def _refined(f, method, t, z, h, args, plain, state, before, found):
    """By the interpolant first, and from there by Newton's method on the step itself."""
    whole = method.step(f, t, z, h, args, state)
    coefficients = method.coefficients(h, z, whole)
    y = method.project(z)

    def at(s):
        return values(f, t + s * h, polynomial(y, coefficients, s), plain)

    def halve(_, bracket):
        low, high = bracket
        middle = 0.5 * (low + high)
        same = jnp.diagonal(jax.vmap(at)(middle)) * before > 0
        return jnp.where(same, middle, low), jnp.where(same, high, middle)

    zeros = jnp.zeros_like(before)
    _, high = varying.fori_loop(0, _HALVINGS, halve, (zeros, zeros + 1.0))
    place = jnp.where(found, high, jnp.inf)
    which = jnp.argmin(place)
    guess = jnp.where(jnp.isfinite(place[which]), place[which], 1.0) * h

    def refine(_, size):
        value, slope = jax.jvp(
            lambda size: _at_end(f, method, t, z, size, args, plain, which),
            (size,), (jnp.ones_like(size),),
        )  # fmt: skip
        better = size - value / jnp.where(slope == 0, 1.0, slope)
        inside = (better / h > 0) & (better / h <= 1)
        return jnp.where(inside & (slope != 0), better, size)

    return varying.fori_loop(0, _NEWTON, refine, guess), which


def _bisected(watch, signs_by, before, found, h):
    """A path that is not smooth: by steps that end earlier and earlier, on the path itself."""

    def halve(_, bracket):
        low, high, there = bracket
        middle = 0.5 * (low + high)
        happened = found & crossed(watch, before, signs_by(middle))
        none = ~jnp.any(happened)
        return (
            jnp.where(none, middle, low),
            jnp.where(none, high, middle),
            jnp.where(none, there, happened),
        )

    low, _, there = varying.fori_loop(0, _HALVINGS, halve, (jnp.zeros_like(h), h, found))
    return jnp.where(low == 0, h * 2.0**-_HALVINGS, low), jnp.argmax(there)


def _held_back(signs_by, before, which, t, size, h, args):
    """The size, shorter by a few roundings where the condition has changed its sign already.

    The vector field may jump where the condition does: the step to it must not sample beyond.
    """
    unit = jnp.maximum(jnp.abs(t), jnp.abs(size))
    if args.origin is not None:
        unit = jnp.maximum(unit, jnp.abs(args.origin))
    unit = jnp.finfo(t.dtype).eps * unit

    def shorten(i, size):
        early = signs_by(size)[which] * before[which] > 0
        less = jnp.abs(size) - unit * 4.0**i
        less = jnp.maximum(less, jnp.abs(h) * 2.0**-_HALVINGS)
        return jnp.where(early, size, jnp.sign(h) * less)

    return varying.fori_loop(0, _ROUNDINGS, shorten, size)


def _at_end(f, method, t, z, h, args, plain, which):
    y = method.project(method.step(f, t, z, h, args, method.init(f, t, z, args)).y)
    return values(f, t + h, y, plain)[which]


def with_derivative(
    f: System,
    method: Method,
    t: Array,
    z: Float[Array, " m"],
    h: Array,
    args: Given,
    which: Array,
    moves: Array,
) -> Array:
    """`h`, the step that ends at an event, as a differentiable function of (t, z, args).

    Where it does not move (there is no event, or its time is that of another one) it has no
    derivative.
    """
    arrays, rest = eqx.partition((t, z, args), eqx.is_array)

    def condition(h, arrays, which):
        t, z, args = eqx.combine(arrays, rest)
        return _at_end(f, method, t, z, h, args, args._replace(window=None), which)

    @custom_jvp
    def size(h, arrays, which, moves):
        del arrays, which, moves
        return h

    @partial(size.defjvp, symbolic_zeros=True)
    def rule(primals, tangents):
        h, arrays, which, moves = primals
        h = size(h, arrays, which, moves)
        _, moved = jvp_of_active(lambda a: condition(h, a, which), (arrays,), (tangents[1],))
        _, slope = jax.jvp(lambda h: condition(h, arrays, which), (h,), (jnp.ones_like(h),))
        # A condition that is a step has no slope; where nothing moves that does no harm.
        shift = product(-1 / jnp.where(moves, slope, 1.0), moved)
        return h, jnp.where(moves, shift, 0.0)

    return size(lax.stop_gradient(h), arrays, which, moves)


def after(f: System, watch: Watch, which: Array, t: Array, y: Array, args: Given) -> Array:
    """The state from which the solve goes on after an event."""
    out = y
    for i, jumps in enumerate(watch.jumps):
        if jumps:
            out = jnp.where(which == i, the(f.parts.jumps[i])(t, y, args), out)
    return out


def moves(event: Event, t0: Any, y0: PyTree, args: PyTree) -> bool:
    """Whether the time of an event depends on more than constants."""
    arrays, rest = eqx.partition(args, eqx.is_array)
    traced = jax.make_jaxpr(lambda t, y, a: event.condition(t, y, eqx.combine(a, rest)))(
        t0, y0, arrays
    )
    jaxpr = traced.jaxpr
    closed = [v for v, x in zip(jaxpr.constvars, traced.consts, strict=True) if is_traced(x)]
    return any(reads_argument(jaxpr, v) for v in [*jaxpr.invars[1:], *closed])


def without_derivative(message: str) -> Callable[[Any], Any]:
    """The identity of a pytree, which raises `DerivativeError` where it is differentiated."""

    @custom_jvp
    def still(values):
        return values

    @still.defjvp
    def _(primals, tangents):
        raise DerivativeError(message)

    return still
