"""The problems of `argmin` with equations and inequalities: programmes, linear or not."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ..errors import InputError
from ..ground.hoist import hoist
from ..ground.programs import compiled_once
from . import conditions
from .implicit import given, held
from .iterate import Solution, confirm, iterate, iterate_to
from .solvers.active_set import resume
from .solvers.interior_point import Constrained, InteriorPoint, polish
from .solvers.newton import off_rest
from .solvers.no_solution import why_not
from .task import Task
from .trees import from_vector, in_types_of, real_dtype, to_vector


def _of_type(dtype, function):
    """The function, its real values rounded to the type of the unknown."""

    def rounded(*args):
        value = function(*args)
        return in_types_of(jax.tree.map(lambda _: jnp.zeros((), dtype), value), lambda: value)()

    return rounded


def programme_minimum(
    task: Task, equality: Any, inequality: Any, full: bool, throw: bool, options: dict[str, Any]
):
    """Minimises under equations and inequalities."""
    kind = real_dtype(task.x0)
    pure = [
        None if g is None else hoist(_of_type(kind, g), task.x0, *task.theta)
        for g in (equality, inequality)
    ]
    objective, theta, x0, frozen = held((task.objective, task.theta, task.x0, pure))
    unravel, dtype = from_vector(x0), real_dtype(x0)
    shapes = [None if g is None else jax.eval_shape(lambda g=g: g(x0, *theta)) for g in frozen]
    for name, shape in zip(("equality", "inequality"), shapes, strict=True):
        for leaf in jax.tree.leaves(shape):
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise InputError(f"{name} must return real numbers, but returned {leaf.dtype}")

    def as_vector(g, change):
        def of_vector(v):
            if g is None:
                return jnp.zeros(0, dtype)
            return to_vector(change(g(unravel(v), *theta)))

        return of_vector

    def of_vector(v):
        return objective(unravel(v), *theta)

    problem = Constrained(
        of_vector, as_vector(frozen[0], lambda v: v), as_vector(frozen[1], conditions.limited)
    )
    x, nu, lam, solution = compiled_once(lambda: _solved(task, problem, to_vector(x0), shapes))

    def condition(x, objective, pure, *theta):
        return conditions.KKT(objective, *pure)(x, *theta)

    # Indefinite, and formed already by the solver: not a matrix for a Krylov method.
    options = {"linear_solver": "lu", **options}
    unknown = confirm((unravel(x), nu, lam), solution, throw, "argmin")
    x, nu, lam = given(condition, unknown, (task.objective, pure, *task.theta), options)
    solution = eqx.tree_at(lambda s: s.dual, solution, (nu, lam), is_leaf=lambda node: node is None)
    return task.call.finish(x, solution, full)


def _solved(task, problem, x0, shapes):
    """The minimum, the multipliers in their shapes, and the account of how they were found."""
    if task.dual is None:
        x, state, solution = iterate(
            InteriorPoint(task.tolerance),
            problem,
            off_rest(problem.f, x0)[0],
            max_steps=task.max_steps,
        )
    else:
        x, state, solution = _resumed(task, problem, x0, shapes)
    reason = why_not(problem, x0, x, ~solution.converged)
    solution = eqx.tree_at(lambda s: s.reason, solution, reason)
    polished, dual, _ = polish(problem, x, state)
    x = jnp.where(solution.converged, polished, x)
    nu, lam = (
        None if shape is None else from_vector(shape)(jnp.where(solution.converged, new, old))
        for shape, new, old in zip(shapes, (dual.nu, dual.lam), (state.nu, state.lam), strict=True)
    )
    return x, nu, lam, solution


def _resumed(task, problem, x0, shapes):
    """Newton's method on the previous active set; where that fails, the interior-point method."""
    nu, lam = (
        _multipliers(dual, shape, name, x0.dtype)
        for dual, shape, name in zip(
            held(task.dual), shapes, ("equality", "inequality"), strict=True
        )
    )
    warm = resume(problem, x0, nu, lam, task.tolerance)
    solver = InteriorPoint(task.tolerance)
    most = jnp.where(warm.done, 0, task.max_steps)
    x, state, error, steps = iterate_to(solver, problem, x0, most, 1.0)
    pick = lambda new, old: jnp.where(warm.done, new, old)
    x, error = pick(warm.x, x), pick(warm.error, error)
    state = jax.tree.map(pick, warm.state, state)
    return x, state, Solution(x, error <= 1, warm.steps + steps, error)


def _multipliers(dual, shape, name, dtype):
    """The multipliers of a previous solution as a vector, if they are those of this problem."""
    have, want = (jax.tree.map(lambda v: jnp.shape(v), tree) for tree in (dual, shape))
    if have != want:
        raise InputError(
            f"x0 is the solution of another problem: its multipliers of {name} have the shapes "
            f"{have}, but {name} returns {want}; start from its value alone, x0=previous.value"
        )
    leaves = jax.tree.leaves(dual)
    return to_vector(dual).astype(dtype) if leaves else jnp.zeros(0, dtype)
