"""A `Transport` as residuals: what a frame makes of it."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

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
    if isinstance(frame, Eulerian):
        parts = _Standing(problem, frame).parts(initial)
    else:
        if frame.regularise is None:
            frame = Lagrangian(map=frame.map, diffusion=frame.diffusion, regularise=regularise)
        mean, scale = speeds(problem, frame)
        parts = _Moving(problem, frame, initial, jnp.asarray(mean), scale).parts()
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
    first = _first(problem)
    return lambda X, t: u(joined(X, t))[first], lambda X, t: u(joined(X, t))[problem.dim]


def _first(problem: Transport) -> int | slice:
    """Where the path stands among the outputs."""
    return 0 if problem.place_shape == () else slice(0, problem.dim)


class _Standing(eqx.Module):
    """Points stand still; a module, so that a second solve finds the programs of the first."""

    problem: Transport
    frame: Eulerian

    def residual(self, u, z, p):
        x, t = split(self.problem, z)
        return self.frame.residual(self.problem, lambda x, t: u(joined(x, t)), x, t)

    def hard(self, z, v):
        x, t = split(self.problem, z)
        return self.problem.initial(x) + t * v

    def begins(self, u, z, p):
        return u(z) - self.problem.initial(split(self.problem, z)[0])

    def parts(self, initial: str) -> dict[str, Any]:
        if initial == "hard":
            return {"residual": self.residual, "weights": (PATHS,), "hard": self.hard}
        start = (_beginning(self.begins),)
        return {"residual": self.residual, "weights": (PATHS,), "conditions": start}


def _beginning(residual):
    return Soft(residual, on="initial", weight=INITIAL, points=256, name="initial")


class _Moving(eqx.Module):
    """Points move with their paths."""

    problem: Transport
    frame: Lagrangian
    initial: str = eqx.field(static=True)
    mean: Array
    scale: Any

    def residual(self, u, z, p):
        problem = self.problem
        paths = path_and_state(problem, u)
        paths, state = self.frame.residual(problem, *paths, *split(problem, z))
        return (*jnp.reshape(paths / self.scale, (-1,)), state)

    def hard(self, z, v):
        problem, d = self.problem, self.problem.dim
        X, t = split(problem, z)
        moved = v[_first(problem)]
        if self.frame.map == "raw":
            x = moved
        elif self.frame.map == "disp":
            x = X + t * self.scale * moved
        else:
            x = X + t * (self.mean + moved)
        state = problem.initial(X) + t * v[d] if self.initial == "hard" else v[d]
        return jnp.concatenate([jnp.reshape(x, (-1,)), jnp.reshape(state, (1,))])

    def begins(self, u, z, p):
        problem = self.problem
        value, (X, _) = u(z), split(problem, z)
        off = (value[problem.dim] - problem.initial(X),) if self.initial == "soft" else ()
        if self.frame.map == "raw":
            off = (*off, *jnp.reshape(value[_first(problem)] - X, (-1,)))
        return off

    def parts(self) -> dict[str, Any]:
        d = self.problem.dim
        parts = {
            "residual": self.residual, "hard": self.hard, "outputs": d + 1,
            "weights": (PATHS,) * d + (STATE,),
        }  # fmt: skip
        if self.initial == "soft" or self.frame.map == "raw":
            parts["conditions"] = (_beginning(self.begins),)
        return parts


def speeds(problem: Transport, frame: Lagrangian) -> tuple[Any, Any]:
    """ā, and s: the largest initial speed (less ā, for `"galilean"`), at least one."""
    mean = problem.mean_speed() if frame.map == "galilean" else jnp.zeros(problem.place_shape)
    values = jax.vmap(problem.initial_speed)(problem.fine_labels()) - mean
    scale = jnp.maximum(1.0, jnp.max(jnp.abs(values)))
    known = not isinstance(scale, Tracer)
    return (np.asarray(mean), float(scale)) if known else (mean, scale)
