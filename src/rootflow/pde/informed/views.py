"""A `Transport` as residuals: what a frame makes of it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ...errors import InputError
from .domains import Box, SpaceTime
from .frames import Eulerian, Frame, Lagrangian
from .problem import Informed, Soft
from .transport import Transport

#: Weights of the paper: of the residual of paths (and of a frame that stands still), of the state.
PATHS, STATE, INITIAL = 10.0, 1.0, 100.0


def informed(
    problem: Transport, frame: Frame, initial: str = "hard", regularise: float = 1e-6
) -> Informed:
    """The residuals of a `Transport` in a frame, over (X, t); its hard or soft initial condition.

    u is the state where points stand still; else shape (d + 1,), the path and the state. Weights
    are 10 for paths (their residual divided by the scale of speed) and where points stand still,
    1 for the state, 100 for a soft initial condition.
    """
    if not isinstance(frame, Eulerian | Lagrangian):
        raise InputError(f"frame must be pde.Eulerian() or pde.Lagrangian(...); got {frame!r:.60}.")
    domain = SpaceTime(Box([(0.0, length) for length in problem.lengths]), (0.0, problem.end))
    axes = tuple(range(problem.dim))
    make = _standing if isinstance(frame, Eulerian) else _moving
    parts = make(problem, frame, initial, regularise)
    return Informed(domain=domain, periodic=axes, **parts)


def branches_of(
    problem: Transport, frame: Frame, width: int, depth: int
) -> tuple[tuple[int, int, int], ...]:
    """Outputs, width and depth of each branch: paths have a layer less."""
    if isinstance(frame, Eulerian):
        return ((1, width, depth),)
    return (problem.dim, width, max(depth - 1, 1)), (1, width, depth)


def split(problem: Transport, z: Any) -> tuple[Any, Any]:
    """A place (or label) and a time from a point of space-time."""
    return (z[0] if problem.place_shape == () else z[:-1]), z[-1]


def joined(x: Any, t: Any) -> Any:
    """A point of space-time."""
    return jnp.concatenate([jnp.reshape(x, (-1,)), jnp.reshape(t, (1,))])


def path_and_state(problem: Transport, u: Any) -> tuple[Any, Any]:
    """The map and the state as functions of (X, t), from one that returns both."""
    first = 0 if problem.place_shape == () else slice(0, problem.dim)
    return lambda X, t: u(joined(X, t))[first], lambda X, t: u(joined(X, t))[problem.dim]


def _standing(problem, frame, initial, _):
    def residual(u, z, p):
        x, t = split(problem, z)
        r = frame.residual(problem, lambda x, t: u(joined(x, t)), x, t)
        return r

    def hard(z, v):
        x, t = split(problem, z)
        return problem.initial(x) + t * v

    def begins(u, z, p):
        return u(z) - problem.initial(split(problem, z)[0])

    parts: dict[str, Any] = {"residual": residual, "weights": (PATHS,)}
    if initial == "hard":
        return {**parts, "hard": hard}
    return {**parts, "conditions": (_beginning(begins),)}


def _beginning(residual):
    return Soft(residual, on="initial", weight=INITIAL, points=256, name="initial")


def _moving(problem, frame, initial, regularise):
    if frame.regularise is None:
        frame = Lagrangian(map=frame.map, diffusion=frame.diffusion, regularise=regularise)
    mean, scale = speeds(problem, frame)
    d = problem.dim
    first = 0 if problem.place_shape == () else slice(0, d)

    def hard(z, v):
        X, t = split(problem, z)
        if frame.map == "raw":
            x = v[first]
        elif frame.map == "disp":
            x = X + t * scale * v[first]
        else:
            x = X + t * (mean + v[first])
        state = problem.initial(X) + t * v[d] if initial == "hard" else v[d]
        return jnp.concatenate([jnp.reshape(x, (-1,)), jnp.reshape(state, (1,))])

    def residual(u, z, p):
        paths, state = frame.residual(problem, *path_and_state(problem, u), *split(problem, z))
        return (*jnp.reshape(paths / scale, (-1,)), state)

    def begins(u, z, p):
        value, (X, _) = u(z), split(problem, z)
        off = (value[d] - problem.initial(X),) if initial == "soft" else ()
        if frame.map == "raw":
            off = (*off, *jnp.reshape(value[first] - X, (-1,)))
        return off

    parts = {
        "residual": residual, "hard": hard, "outputs": d + 1, "weights": (PATHS,) * d + (STATE,),
    }  # fmt: skip
    if initial == "soft" or frame.map == "raw":
        parts["conditions"] = (_beginning(begins),)
    return parts


def speeds(problem: Transport, frame: Lagrangian) -> tuple[Any, Any]:
    """ā, and s: the largest initial speed (less ā, for `"galilean"`), at least one."""
    mean = problem.mean_speed() if frame.map == "galilean" else jnp.zeros(problem.place_shape)
    values = jax.vmap(problem.initial_speed)(problem.labels()) - mean
    scale = jnp.maximum(1.0, jnp.max(jnp.abs(values)))
    known = not isinstance(scale, Tracer)
    return (np.asarray(mean), float(scale)) if known else (mean, scale)
