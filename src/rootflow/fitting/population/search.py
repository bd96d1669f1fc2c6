"""The searches of a population fit, all at once, and what solves the equations in them."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ...errors import InputError
from ...flows.solution import Result
from ...roots.solvers import damped_newton
from ..compiled import compiled
from ..course import Solver
from ..problem import GroupData
from ..search import to_the_end
from ..solving import name_of
from ..starts import drawn
from . import approximations
from .layout import Layout

#: Promised reduction of the negative log-likelihood at which a search has converged.
_TOLERANCE = 1e-8
#: Random starts vary Omega and the noise within this factor (of standard deviations).
_REACH = 2.0

_HINT = "Change the guesses (or their bounds), or check the equations and their units."


@compiled(static_argnums=(0, 1), static_argnames=("max_iterations",))
def _advance(lay, solver, data, constant, states, lower, upper, free, steps, *, max_iterations):
    return damped_newton.advance(
        approximations.objective(lay, solver, data, constant), states, lower, upper, free,
        steps=steps, tolerance=_TOLERANCE, max_iterations=max_iterations, together=True,
    )  # fmt: skip


class Found(NamedTuple):
    """The final states of all searches, what solved them, and why it is not the first choice."""

    states: damped_newton.State
    solver: Solver
    reason: str


def search(
    lay: Layout,
    data: GroupData,
    constant: float,
    solvers: tuple[Solver, ...],
    points: Float[np.ndarray, "starts n"],
    max_iterations: int,
    progress: Callable[[float, float, str], None] | None,
) -> Found:
    """Searches from all points, by the first solver with which the first point has a likelihood.

    Raises:
        InputError: there is none.
    """
    code = 0
    for solver in solvers:
        states = _run(lay, data, constant, solver, points, max_iterations, progress)
        if np.isfinite(states.local.value[0]):
            why = "" if solver == solvers[0] else (
                f"{solvers[0].max_steps} steps of {name_of(solvers[0])} do not reach the last "
                "measurement of every subject at the guess"
            )  # fmt: skip
            return Found(states, solver, why)
        code = int(np.broadcast_to(states.blocked, len(points))[0])
        if code == 0:
            break
    raise InputError(trouble(lay, code, solvers))


def trouble(lay: Layout, code: int, solvers: tuple[Solver, ...]) -> str:
    """Why there is no likelihood at the guess."""
    if code <= 0:
        relative = [c for c, n in lay.model.noise.items() if n.kind == "proportional"]
        logarithmic = [c for c, n in lay.model.noise.items() if n.logarithmic]
        why = ""
        if relative:
            why = (
                f" Proportional noise of {', '.join(relative)} vanishes where the model's value "
                "is zero, as before a dose: leave those measurements out, or add an additive part "
                "(combined)."
            )
        elif logarithmic:
            why = f" Lognormal noise of {', '.join(logarithmic)} needs positive model values."
        return f"The likelihood or its derivative is not finite at the guess.{why} {_HINT}"
    names = " and of ".join(dict.fromkeys(name_of(s) for s in solvers))
    reason = (
        f"{solvers[-1].max_steps} steps of {names} do not reach the last measurement"
        if code == Result.max_steps
        else "the solution blows up or leaves the domain of a function"
    )
    return f"The model cannot be solved for every subject at the guess: {reason}. {_HINT}"


def _run(lay, data, constant, solver, points, max_iterations, progress):
    aux = np.zeros((len(points), len(data.ts), len(lay.effects)))
    free = np.ones(points.shape, bool)

    def advance(states, chunk):
        return _advance(
            lay, solver, data, constant, states, lay.lower, lay.upper, free, chunk,
            max_iterations=max_iterations,
        )  # fmt: skip

    # The first step only evaluates the likelihood.
    states = advance(damped_newton.init(points, aux), np.int32(1))
    if not np.isfinite(states.local.value[0]):
        return states
    return to_the_end(advance, states, max_iterations, progress)


def starts(lay: Layout, count: int, seed: int) -> Float[np.ndarray, "starts n"]:
    """The guess, and a Latin hypercube: typical values as `rf.fit` has them, the rest close by."""
    first, _ = lay.at
    rest = np.arange(lay.size) >= first
    reach = np.where(lay.log, np.log(_REACH), np.abs(lay.start))
    near = replace(
        lay,
        lower=np.where(rest, np.maximum(lay.lower, lay.start - reach), lay.lower),
        upper=np.where(rest, np.minimum(lay.upper, lay.start + reach), lay.upper),
    )
    return np.concatenate([lay.start[None], drawn(near, count - 1, seed)])  # type: ignore[arg-type]
