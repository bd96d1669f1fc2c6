"""Events: where a function of the solution crosses zero.

A step across which it changes sign is taken again, shorter, so that it ends where the function is
zero. The derivative of that time is the one of the implicit function theorem, for the step as it
was taken: exact for the discrete solution.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from ..errors import InputError
from .interpolation import polynomial
from .methods import Method, Step
from .system import Given, System

#: Halvings of the interval in which the interpolant crosses zero.
_HALVINGS = 54
#: Newton steps on the step itself, from the time that the interpolant gives.
_NEWTON = 4


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

    def __check_init__(self):
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


def values(f: System, watch: Watch, t: Array, y: Array, args: Given) -> Float[Array, " events"]:
    """The conditions at (t, y)."""
    return jnp.stack([f.parts[f"event{i}"](t, y, args) for i in range(len(watch.directions))])


def signs(f: System, watch: Watch, t, y, args, direction) -> Float[Array, " events"]:
    """The sign of each condition as the solve leaves (t, y): at zero, that of its derivative."""
    slope = f(t, y, args)
    now, moving = jax.jvp(
        lambda t, y: values(f, watch, t, y, args), (t, y), (jnp.ones_like(t), slope)
    )
    return jnp.where(now == 0, jnp.sign(direction * moving), jnp.sign(now))


def crossed(watch: Watch, before: Array, after: Array) -> Array:
    """Which events happened between two signs."""
    rising = jnp.asarray(watch.directions)
    return (before * after < 0) & ((rising == 0) | (after == rising))


class Crossing(NamedTuple):
    """An event, located.

    Attributes:
        h: the step that ends at it.
        which: its index.
        step: that step.
    """

    h: Array
    which: Int[Array, ""]
    step: Step


def locate(f: System, method: Method, watch: Watch, t, z, h, args: Given, before) -> Crossing:
    """The first event within the step by `h` from (t, z); it has no derivative."""
    state = method.init(f, t, z, args)
    whole = method.step(f, t, z, h, args, state)
    coefficients = method.coefficients(h, z, whole)
    y = method.project(z)

    def at(s):
        return values(f, watch, t + s * h, polynomial(y, coefficients, s), args)

    end = values(f, watch, t + h, method.project(whole.y), args)
    found = crossed(watch, before, jnp.sign(end))

    def halve(_, bracket):
        low, high = bracket
        middle = 0.5 * (low + high)
        same = jnp.diagonal(jax.vmap(at)(middle)) * before > 0
        return jnp.where(same, middle, low), jnp.where(same, high, middle)

    zeros = jnp.zeros_like(before)
    low, high = lax.fori_loop(0, _HALVINGS, halve, (zeros, zeros + 1.0))
    place = jnp.where(found, 0.5 * (low + high), jnp.inf)
    which = jnp.argmin(place)
    guess = jnp.where(jnp.isfinite(place[which]), place[which], 1.0) * h

    def refine(_, size):
        value, slope = jax.jvp(
            lambda size: _at_end(f, method, watch, t, z, size, args, state, which),
            (size,), (jnp.ones_like(size),),
        )  # fmt: skip
        better = size - value / jnp.where(slope == 0, 1.0, slope)
        inside = (better / h > 0) & (better / h <= 1)
        return jnp.where(inside & (slope != 0), better, size)

    size = lax.fori_loop(0, _NEWTON, refine, guess)
    return Crossing(size, which, method.step(f, t, z, size, args, state))


def _at_end(f, method, watch, t, z, h, args, state, which):
    y = method.project(method.step(f, t, z, h, args, state).y)
    return values(f, watch, t + h, y, args)[which]


def with_derivative(f: System, method: Method, watch: Watch, t, z, h, args: Given, which) -> Array:
    """`h`, the step that ends at an event, as a differentiable function of (t, z, args).

    Where `h` is zero there is no event, and no derivative.
    """
    arrays, rest = eqx.partition((t, z, args), eqx.is_array)

    def condition(h, arrays, which):
        t, z, args = eqx.combine(arrays, rest)
        return _at_end(f, method, watch, t, z, h, args, method.init(f, t, z, args), which)

    @jax.custom_jvp
    def size(h, arrays, which):
        del arrays, which
        return h

    @size.defjvp
    def rule(primals, tangents):
        h, arrays, which = primals
        h = size(h, arrays, which)
        live = h != 0
        _, moved = jax.jvp(lambda a: condition(h, a, which), (arrays,), (tangents[1],))
        _, slope = jax.jvp(lambda h: condition(h, arrays, which), (h,), (jnp.ones_like(h),))
        return h, jnp.where(live, -moved / jnp.where(live, slope, 1.0), 0.0)

    return size(lax.stop_gradient(h), arrays, which)


def after(f: System, watch: Watch, which: Array, t: Array, y: Array, args: Given) -> Array:
    """The state from which the solve goes on after an event."""
    out = y
    for i, jumps in enumerate(watch.jumps):
        if jumps:
            out = jnp.where(which == i, f.parts[f"jump{i}"](t, y, args), out)
    return out
