"""First-order methods whose end is proven: rounds of a method, each followed by Newton steps."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..._typing import PyTree
from ...ground.varying import while_loop
from ..iterate import Method, Solution, Tolerance, Vector, check_steps, iterate_to
from .newton import off_rest
from .newton_krylov import finish
from .proximal_gradient import Composite

# Steps in the first round, if the method does not think before that it has converged.
_FIRST_ROUND = 500
# By how much the method's own tolerance is lowered from round to round.
_TIGHTEN = 1e-3
# Each is twice as long as the one before; this many are enough for 10^7 steps.
_ROUNDS = 15
# How many first steps away a minimum may be.
_FAR = 1e12


def iterate_proven(
    method: Method,
    problem: Any,
    composite: Composite,
    x: Vector,
    tolerance: Tolerance,
    size_of: Callable[[Vector, PyTree], Array],
    *,
    max_steps: int,
    feasible: bool,
    first_round: int = _FIRST_ROUND,
) -> tuple[Vector, PyTree, Solution]:
    """Runs a first-order method until a Newton step proves that it has converged.

    The length of its own steps says little about the distance from the solution, so the method
    works up to a loose goal only, or for a number of steps, and Newton steps take over from there.
    Where they have no answer, the method goes on to a tighter goal, or for longer.

    Args:
        method: the first-order method.
        problem: its problem.
        composite: the same problem as `finish` takes it.
        x: where to start.
        tolerance: of the distance from the solution.
        size_of: from a point and the method's state to the step size of `finish`.
        max_steps: steps of the method in all rounds together.
        feasible: as in `finish`.
        first_round: steps before the first Newton step; each round is twice as long as the last. A
            method that learns the curvature, and has a `resume(problem, x, state)`, is told where
            the Newton steps ended and goes on with what it has learnt.

    Returns:
        As `iterate`; the steps are those of the method.
    """
    check_steps(max_steps)

    def proceed(carry):
        _, _, error, k, rounds = carry
        return (k < max_steps) & (error > 1) & (rounds < _ROUNDS)

    def one_round(carry):
        x, state, _, k, rounds = carry
        goal = first_goal * jnp.asarray(_TIGHTEN, x.dtype) ** rounds
        most = jnp.minimum(first_round * 2**rounds, max_steps - k)
        begun = method.init(problem, x) if resume is None else resume(problem, x, state)
        x, state, error, steps = iterate_to(method, problem, x, most, goal, begun)
        k = k + steps
        # A method that was stopped by `max_steps` returns what it has.
        wanted = (error <= goal) | ((k < max_steps) & (error > goal))
        size = size_of(x, state)
        x, left = finish(
            composite, x, size, tolerance,
            reach=_FAR * (length_at_start + size * slope_at_start), wanted=wanted,
            feasible=feasible,
        )  # fmt: skip
        error = jnp.where(wanted, left, jnp.where(error > 1, error, 2.0) + 0 * error)
        return x, state, error.astype(x.dtype), k, rounds + 1

    resume: Any = getattr(method, "resume", None)
    x, gradient = off_rest(composite.f, x)
    length_at_start, slope_at_start = jnp.linalg.norm(x), jnp.linalg.norm(gradient)
    # Newton steps contract better from further away than the last digits of a method's own.
    first_goal = float(jnp.finfo(x.dtype).eps) ** -0.2
    infinite = jnp.asarray(jnp.inf, x.dtype)
    if resume is None:
        # Every round begins by itself, and only the shapes are needed.
        shapes = jax.eval_shape(lambda: method.init(problem, x))
        begun = jax.tree.map(lambda v: jnp.zeros(v.shape, v.dtype), shapes)
    else:
        begun = method.init(problem, x)
    start = (x, begun, infinite, jnp.asarray(0), jnp.asarray(0))
    x, state, error, steps, _ = while_loop(proceed, one_round, start)
    return x, state, Solution(x, error <= 1, steps, error)
