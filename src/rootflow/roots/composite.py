"""The problems of `argmin` with a constraint set, a projection or a proximal operator."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ..errors import InputError
from ..ground.hoist import hoist
from . import conditions
from .checks import same_structure
from .implicit import given, held
from .iterate import confirm
from .prox import none
from .sets import Set, Simplex
from .solvers.block_descent import BlockDescent, Blocks
from .solvers.mirror_descent import MirrorDescent, Mirrored, safe_log
from .solvers.newton import off_rest
from .solvers.proximal_gradient import Composite, ProximalGradient
from .task import NEWTON_LIMIT, Task
from .trees import from_vector, in_types_of, real_dtype, size, to_vector


def composite_minimum(
    task: Task, constraint: Any, prox: Any, full: bool, throw: bool, options: dict[str, Any]
):
    """Minimises with a constraint set, a projection function or a proximal operator."""
    operator = _as_prox(constraint, prox, task)
    objective, theta, x0, frozen_prox = held((task.objective, task.theta, task.x0, operator))
    unravel = from_vector(x0)

    def of_vector(v):
        return objective(unravel(v), *theta)

    def prox_of_vector(v, step):
        return to_vector(frozen_prox(unravel(v), *theta, step))

    problem = Composite(of_vector, prox_of_vector)
    step = None if task.step is None else jnp.asarray(task.step, real_dtype(x0))
    feasible = constraint is not None
    if task.name == "mirror_descent":
        return _mirror(task, constraint, problem, unravel, step, full, throw, options)
    if task.name == "block":
        x, solution = _blocks(task, problem, objective, theta, x0, frozen_prox, step, feasible)
        size_used = step
    elif task.name == "proximal_newton":
        # A Newton step costs about as much as this many accelerated steps.
        block = max(10, size(x0) // 5)
        solver = ProximalGradient(
            task.tolerance, block=block, newton=True, step_size=step, feasible=feasible
        )
        task = dataclasses.replace(task, max_steps=max(task.max_steps // block, 1))
        begin = unravel(off_rest(of_vector, to_vector(x0))[0])
        x, state, solution = task.run(solver, problem, begin)
        solution = eqx.tree_at(lambda s: s.steps, solution, solution.steps * block)
        x, size_used = unravel(x), state.step
    else:
        accelerated = task.name == "accelerated"
        solver = ProximalGradient(task.tolerance, accelerated=accelerated, step_size=step)
        x, state, solution = task.prove(
            solver, problem, problem, x0, size_of=lambda _, state: state.step, feasible=feasible
        )
        x, size_used = unravel(x), state.step

    def condition(x, size_used, objective, operator, *theta):
        return conditions.ProximalGradient(objective, operator, size_used)(x, *theta)

    if size(x0) > NEWTON_LIMIT:
        # The identity minus a contraction: Krylov methods need few steps.
        options = {"linear_solver": "bicgstab", **options}
    arguments = (size_used, task.objective, operator, *task.theta)
    x = given(condition, confirm(x, solution, throw, "argmin"), arguments, options)
    return task.call.finish(x, solution, full)


class _Projection(eqx.Module):
    """A set, or a projection function of the user's, in the place of a proximal operator."""

    constraint: Any

    def __call__(self, x, *theta_and_step):
        if isinstance(self.constraint, Set):
            return self.constraint.project(x)
        return self.constraint(x, *theta_and_step[:-1])


def _as_prox(constraint, prox, task):
    if isinstance(constraint, Set):
        return _Projection(constraint)
    if constraint is not None:
        pure = hoist(in_types_of(task.x0, constraint), task.x0, *task.theta)
        image = jax.eval_shape(lambda: pure(task.x0, *task.theta))
        same_structure(image, task.x0, "the value of the constraint", "x0")
        return _Projection(pure)
    if prox is None:
        return none
    if task.name == "block":
        # Called on rows as well as on the whole, so its shapes cannot be fixed by tracing it here.
        return prox
    step = jnp.ones((), real_dtype(task.x0))
    pure = hoist(in_types_of(task.x0, prox), task.x0, *task.theta, step)
    image = jax.eval_shape(lambda: pure(task.x0, *task.theta, step))
    same_structure(image, task.x0, "the value of prox", "x0")
    return pure


def _blocks(task, composite, objective, theta, x0, prox, step, feasible):
    if not (isinstance(x0, jax.Array) and x0.ndim == 2):
        raise InputError("method='block' needs x to be one matrix, whose rows are the blocks")
    if isinstance(prox, _Projection) and getattr(prox.constraint, "joint", False):
        raise InputError(
            "method='block' goes from row to row, but a set with joint=True binds all rows "
            "together; choose another method"
        )
    problem = Blocks(
        lambda rows: objective(rows, *theta),
        lambda row, step: prox(row, *theta, step),
        (x0.shape[0], x0.shape[1]),
    )
    x, _, solution = task.prove(
        BlockDescent(task.tolerance, step), problem, composite, x0,
        size_of=lambda _, sizes: jnp.min(sizes), feasible=feasible,
    )  # fmt: skip
    return x.reshape(x0.shape), solution


def _mirror(task, constraint, composite, unravel, step, full, throw, options):
    if not isinstance(constraint, Simplex):
        raise InputError(
            "method='mirror_descent' needs constraint=sets.Simplex(); for other geometries, write "
            "the iteration and decorate it with implicit(conditions.MirrorDescent(...))"
        )
    frozen = held(constraint)

    def project(v):
        return to_vector(frozen.project_kl(unravel(v)))

    problem = Mirrored(composite.f, safe_log, project)
    solver = MirrorDescent(task.tolerance, step)
    # On the edge of the simplex the method cannot move, and log has no value.
    inside = frozen.project_kl(jax.tree.map(safe_log, held(task.x0)))
    x, state, solution = task.prove(
        solver, problem, composite, inside, feasible=True,
        size_of=lambda x, _: conditions.inverse_curvature(composite.f, x),
    )  # fmt: skip

    def condition(x, used, objective, constraint, *theta):
        def mirror(tree):
            return jax.tree.map(safe_log, tree)

        return conditions.MirrorDescent(objective, mirror, constraint.project_kl, used)(x, *theta)

    arguments = (state.size, task.objective, constraint, *task.theta)
    x = given(condition, confirm(unravel(x), solution, throw, "argmin"), arguments, options)
    return task.call.finish(x, solution, full)
