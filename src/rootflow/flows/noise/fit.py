"""Whether a solve and the path that drives it fit together, as far as values are known or not.

What is known when the program is made is refused. What is traced is a runtime error, or, where the
solve is not to raise, a state that is not finite, which the loop reports.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..._typing import PyTree
from ...errors import InputError
from ...ground.tracing import is_traced, raise_if
from .base import Increment, Noise

#: By so much, relatively, a span may leave that of the path, and a step its grid.
_SLACK = 1e-6
#: By so much of a step the ends of a solve may be off the grid of a path with `steps=`.
_ALIGNED = 1e-3
#: A step may be shorter than the resolution by so much: of so many few pairs share a cell.
_ROUNDING = 1e-3


def fitted(
    noise: Noise,
    y0: PyTree[Array],
    span: tuple[Any, Any],
    dt: Any,
    stops: Any,
    events: bool,
    throw: bool,
) -> PyTree[Array]:
    """The initial state of a solve that its path can drive.

    Args:
        noise: the path.
        y0: the initial state.
        span: of the solve.
        dt: the size of all steps; `None`: they adapt.
        stops: times at which steps end.
        events: whether steps may end anywhere.
        throw: whether what is found out at run time is an error; else `y0` becomes NaN.

    Raises:
        InputError: a span outside that of the path, steps that are not those of a path with
            `steps=`, steps below the resolution of the path.
    """
    return enforced(y0, _misfits(noise, span, dt, stops, events), throw)


def enforced(y0: PyTree[Array], misfits: Iterable[tuple[Any, str]], throw: bool) -> PyTree[Array]:
    """The initial state, refused or not a number where one of these conditions holds."""
    for bad, message in misfits:
        if not is_traced(bad):
            if bool(bad):
                raise InputError(message)
        elif throw:
            y0 = raise_if(y0, bad, message, InputError)
        else:
            y0 = jax.tree.map(lambda y, bad=bad: jnp.where(bad, jnp.nan, y), y0)
    return y0


def _misfits(noise, span, dt, stops, events) -> Iterator[tuple[Any, str]]:
    """Conditions under which they do not fit, each with what to say."""
    a, b = getattr(noise, "t0", None), getattr(noise, "t1", None)
    if a is None or b is None:
        return
    yield outside(span, (a, b), "the noise")
    a, t0, t1 = map(_number, (a, *span))
    xp = _module(t0, t1)
    low, high = xp.minimum(t0, t1), xp.maximum(t0, t1)
    dt = None if dt is None else _number(dt)
    stops = None if stops is None or not np.size(stops) else _number(stops)
    if noise.grid is not None:
        yield _off_grid(noise, low, high, a, dt, stops, events)
    if noise.resolution is None:
        return
    if dt is not None:
        yield too_fine(noise, dt, "dt")
    if stops is not None and stops.size > 1:
        xp = _module(stops)
        gaps = xp.diff(xp.sort(stops))
        yield too_fine(noise, xp.min(xp.where(gaps > 0, gaps, np.inf)), "the gap between two stops")


def outside(span: tuple[Any, Any], path: tuple[Any, Any], name: str) -> tuple[Any, str]:
    """Whether a span leaves that of a path, and what to say."""
    (t0, t1), (a, b) = map(_number, span), map(_number, path)
    xp = _module(t0, t1)
    low, high, slack = xp.minimum(t0, t1), xp.maximum(t0, t1), _SLACK * (b - a)
    # Written so that a bound that is not a number is outside.
    bad = ~((low >= a - slack) & (high <= b + slack))
    return bad, (
        f"The span{_shown(t0, t1)} leaves that of {name}{_shown(a, b, ',')}: make it with a wider "
        "span."
    )


def _number(value: Any) -> Any:
    """In NumPy where it is known: inside `jit` an array made of it would be traced."""
    return jnp.asarray(value) if is_traced(value) else np.asarray(value, float)[()]


def _module(*values: Any) -> Any:
    return jnp if is_traced(*values) else np


def _shown(t0: Any, t1: Any, before: str = "") -> str:
    """A span as a message shows it; nothing where it is not known."""
    return "" if is_traced(t0, t1) else f"{before} ({float(t0):g}, {float(t1):g})"


def _off_grid(noise, low, high, a, dt, stops, events) -> tuple[Any, str]:
    """For a path that knows its increments over the steps of a grid, and over no others."""
    size = _number(noise.grid)
    # The path has its span in a precision of its own.
    own = 4 * float(jnp.finfo(jnp.result_type(noise.t0)).eps)
    given = not is_traced(size, a)
    steps = f"steps of {size:g} from {a:g} on" if given else "the steps of its own grid"
    way_out = "dt=(t1 - t0) / steps of the path" if is_traced(size) else f"dt={size:g}"
    got, bad = "others", np.True_
    if dt is None:
        got = "dt=None"
    elif events:
        got = "events, at which steps end anywhere"
    else:
        bad = ~(abs(dt / size - 1) < _SLACK + _rounding(dt, size) + own)
        ends = [low, high] if stops is None else [low, high, stops]
        for end in ends:
            place = (end - a) / size
            xp = _module(place)
            slack = _ALIGNED + (_rounding(place) + own) * abs(place)
            bad = bad | ~xp.all(abs(place - xp.round(place)) < slack)
        if not is_traced(dt, low, high):
            got = f"dt={dt:g} on ({low:g}, {high:g})"
            got += "" if stops is None else f" with stops={np.ravel(stops)}"
    return bad, (
        f"A path with steps={noise.steps} knows its increments over {steps}, and no others; got "
        f"{got}. Pass {way_out} (and stops between steps, no events), or make the path without "
        "steps."
    )


def _rounding(*values: Any) -> float:
    """What the least precise of these numbers is uncertain by, relatively; 0 for known ones."""
    return max(
        16 * float(jnp.finfo(jnp.result_type(v)).eps) if is_traced(v) else 0.0 for v in values
    )


def too_fine(noise: Noise, step: Any, name: str) -> tuple[Any, str]:
    """For a path on which times closer than its resolution do not have their joint law."""
    least = _number(noise.resolution)
    bad = ~(step >= (1 - _ROUNDING) * least)
    what, way_out = f"below the resolution of the path ({name})", "more depth"
    if not is_traced(step, least):
        what = f"{name} = {step:g} is below {least:g}, the resolution of the path"
        more = int(np.ceil(np.log2(max(least / max(step, 1e-300), 1.0))))
        way_out = f"depth={noise.depth + more}"  # pyright: ignore
    return bad, (
        f"The steps are too short: {what}, where it is not Brownian. Make the path with {way_out} "
        "or with a shorter span, or take longer steps."
    )


def smallest_step(noise: Noise, controller: Any) -> Any:
    """A controller of adaptive steps that does not go below the resolution of a path, if known.

    Raises:
        InputError: the controller allows no step that is long enough.
    """
    least = noise.resolution
    if least is None or is_traced(least):
        return controller
    least = float((1 - _ROUNDING) * np.asarray(least))
    if controller.dt_max is not None and controller.dt_max < least:
        raise InputError(too_fine(noise, np.float64(controller.dt_max), "dt_max")[1])
    return dataclasses.replace(controller, dt_min=max(controller.dt_min or 0.0, least))


class Resolved(Noise):
    """A path that has no increments over adaptive steps that stay below its resolution.

    One short step does no harm, as the first, the last and those to a stop or an event may be. One
    that follows a short step must be longer.

    Attributes:
        noise: the path.
        least: the shortest step.
    """

    noise: Noise
    least: Array

    @property
    def size(self) -> int:
        return self.noise.size

    @property
    def areas(self) -> bool:
        return self.noise.areas

    def start(self, t: Array) -> Any:
        return self.noise.start(t), jnp.full_like(t, jnp.inf)

    def advance(self, t: Array, h: Array, state: Any) -> tuple[Increment, Any]:
        inner, before = state
        increment, inner = self.noise.advance(t, h, inner)
        size = jax.lax.stop_gradient(jnp.abs(h))
        bad = (size <= before) & (jnp.maximum(size, before) < self.least) & (size > 0)
        increment = jax.tree.map(lambda x: jnp.where(bad, jnp.nan, x), increment)
        return increment, (inner, size)

    def rest(self, t: Array, h: Array, count: int) -> Array:
        return self.noise.rest(t, h, count)


def resolved(noise: Noise) -> Noise:
    """The path for steps that adapt, where its resolution is known at run time only."""
    least = noise.resolution
    if least is None or not is_traced(least):
        return noise
    return Resolved(noise, jax.lax.stop_gradient((1 - _ROUNDING) * least))
