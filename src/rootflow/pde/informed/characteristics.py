"""The paths of a `Transport` without viscosity, where they are not straight: the characteristics.

dX/dt = a(u, X, t), du/dt = s(u) from X = X₀ and u = u₀(X₀); neighbours meet where det dX/dX₀ = 0.
"""

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...flows.events import Event
from ...flows.methods import Tsit5
from ...flows.ode import solve_ode

if TYPE_CHECKING:
    from .transport import Transport


def along_characteristics(
    problem: "Transport", labels: Array, times: Float[Array, " m"]
) -> tuple[Array, Float[Array, "m n"]]:
    """The paths of labels and u along them.

    Args:
        problem: whose viscosity is left aside.
        labels: places at t = 0, shape (n,) or (n, d).
        times: increasing, from 0.

    Returns:
        Paths (m, n) or (m, n, d), not taken back into the box, and values (m, n).
    """
    change = jax.vmap(lambda state, t: _change(problem, state, t), (0, None))
    start = labels, jax.vmap(lambda x: jnp.asarray(problem.initial(x)))(labels)
    sol = solve_ode(
        lambda t, state, args: change(state, t), start, (0.0, problem.end), saveat=times,
        **_accuracy(labels),
    )  # fmt: skip
    return sol.ys


def first_crossing(problem: "Transport", labels: Array) -> float:
    """When det dX/dX₀ first vanishes at one of the labels; inf if not before the problem's end."""

    def start(x):
        state = x, jnp.asarray(problem.initial(x))
        tangents = jax.jacfwd(lambda x: (x, jnp.asarray(problem.initial(x))))(x)
        return state, tangents

    def change(pair, t):
        state, tangents = pair
        field = lambda state: _change(problem, state, t)
        push = lambda tangent: jax.jvp(field, (state,), (tangent,))[1]
        if problem.place_shape == ():
            return field(state), push(tangents)
        return field(state), jax.vmap(push, -1, -1)(tangents)

    def smallest(t, pairs, args):
        stretch = pairs[1][0]
        return jnp.min(stretch if stretch.ndim == 1 else jnp.linalg.det(stretch))

    steps = jax.vmap(change, (0, None))
    sol = solve_ode(
        lambda t, pairs, args: steps(pairs, t), jax.vmap(start)(labels), (0.0, problem.end),
        event=Event(smallest, direction=-1), **_accuracy(labels),
    )  # fmt: skip
    return float(sol.ts[-1]) if int(np.asarray(sol.event)) >= 0 else math.inf


def _change(problem, state, t):
    x, u = state
    source = jnp.zeros_like(u) if problem.source is None else jnp.asarray(problem.source(u))
    return problem.speed_at(u, x, t).astype(x.dtype), source.astype(u.dtype)


def _accuracy(labels):
    double = jnp.finfo(labels.dtype).bits >= 64
    rtol, atol = (1e-8, 1e-10) if double else (1e-5, 1e-6)
    return {"method": Tsit5(), "rtol": rtol, "atol": atol, "max_steps": 100_000}
