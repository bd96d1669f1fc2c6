"""The verb `argmin`: minimise, with or without constraints, and differentiate the minimiser."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix as optx
from jaxtyping import Array, PyTree

from ..errors import InputError
from ..ground.modes import own_modes
from . import conditions
from .checks import as_unknown, concrete, same_structure
from .hoist import hoist, vary_alike
from .implicit import given, held
from .iterate import Method, Tolerance, check_steps, iterate, tolerance
from .prox import none
from .root import checked_options, confirm, finish, from_optimistix
from .sets import Set, Simplex
from .solvers.block_descent import BlockDescent, Blocks
from .solvers.interior_point import NO_LIMIT, Constrained, InteriorPoint, polish
from .solvers.lbfgs import LBFGS
from .solvers.mirror_descent import MirrorDescent, Mirrored, safe_log
from .solvers.newton import Newton
from .solvers.no_solution import why_not
from .solvers.optax_descent import OptaxDescent
from .solvers.proven import iterate_proven
from .solvers.proximal_gradient import Composite, ProximalGradient
from .solvers.quasi_newton import UPDATES, QuasiNewton
from .trees import coarsest_dtype, from_vector, in_types_of, real_dtype, size, to_vector

# Up to this many unknowns an exact Hessian costs less than the iterations it saves.
_NEWTON_LIMIT = 128
# The same for the Jacobian of a proximal step, which is factorised without symmetry.
_PROXIMAL_NEWTON_LIMIT = 64

_SMOOTH = ("newton", "lbfgs", *UPDATES)
_COMPOSITE = ("proximal_newton", "accelerated", "proximal_gradient", "mirror_descent", "block")
_DEFAULT_STEPS = {
    "newton": 200,
    "lbfgs": 10_000,
    **dict.fromkeys(UPDATES, 10_000),
    "interior_point": 100,
    "proximal_newton": 20_000,
    "accelerated": 20_000,
    "proximal_gradient": 100_000,
    "mirror_descent": 100_000,
    "block": 10_000,
}


@own_modes
def argmin(
    f: Callable[..., Array],
    x0: PyTree,
    *theta: Any,
    constraint: Set | Callable[..., PyTree] | None = None,
    prox: Callable[..., PyTree] | None = None,
    equality: Callable[..., PyTree] | None = None,
    inequality: Callable[..., PyTree] | None = None,
    method: Any = "auto",
    step: Any = None,
    rtol: Any = None,
    atol: Any = None,
    max_steps: int | None = None,
    throw: bool = True,
    full: bool = False,
    **implicit_options: Any,
) -> Any:
    """Minimises `f(x, *theta)`, differentiable in `theta`.

    At most one kind of restriction may be given: a `constraint` set, a `prox`, or equations and
    inequalities. The condition that is differentiated follows from it: a vanishing gradient, the
    projected- or proximal-gradient fixed point, or the KKT conditions. The result has derivatives
    with respect to the arrays in `theta`, the numbers in `constraint`, and traced values that the
    functions close over.

    Args:
        f: the objective, a real number; convex, or convex near the minimum sought.
        x0: initial guess, a pytree of arrays; has no influence on the derivative.
        *theta: parameters, passed to every function.
        constraint: a set of `rootflow.sets`, or a function `(x, *theta) -> projection of x`.
        prox: `prox(w, *theta, step)`, the proximal operator of step * g; f + g is minimised.
        equality: H with H(x, *theta) = 0; any pytree of arrays.
        inequality: G with G(x, *theta) <= 0; any pytree of arrays. What is below -1e20, or -inf,
            is no restriction.
        method: `"auto"`, or
            without restriction: `"newton"` (damped, exact Hessian; the choice up to 128 unknowns),
            `"lbfgs"`, `"bfgs"`, `"ssbfgs"` and `"ssbroyden"` (dense quasi-Newton methods, the last
            two self-scaled; best in double precision, up to some thousand unknowns), a minimiser
            of optimistix, a least-squares solver of optimistix (then f
            returns residuals, and half the sum of their squares is minimised), or an optimiser of
            Optax;
            with `constraint` or `prox`: `"proximal_newton"` (accelerated steps and semismooth
            Newton steps; the choice up to 64 unknowns), `"accelerated"` (FISTA),
            `"proximal_gradient"`, `"mirror_descent"` (simplex only, entropy), `"block"` (block
            coordinate descent over the rows of x, which is one matrix; the constraint or prox must
            apply to one row as well as to all);
            with `equality` or `inequality`: `"interior_point"` (dense).
        step: a fixed step size for the methods with `constraint` or `prox`, a positive number; by
            default found by backtracking, and free to grow again.
        rtol: relative tolerance; by default 1e-8 in double, 1e-4 in single precision. What is
            compared with atol + rtol max|x| is the size of a Newton step, which first-order methods
            take at their end, because the length of their own says little of the distance left.
        atol: absolute tolerance; by default 1e-10 in double, 1e-6 in single precision. With rtol=0
            and the smallest positive number the methods without restriction take all of their
            steps and prove nothing (`throw=False`).
        max_steps: steps allowed; the default depends on the method.
        throw: raise if the method did not converge. If false, a derivative that does not exist is
            NaN and no error, unless `singular` says otherwise.
        full: return a `Solution` and not just its value; its `dual` has the multipliers (nu, lam)
            of `equality` and `inequality`, with derivatives too.
        **implicit_options: `linear_solver`, `singular`, `ridge`, `rcond`, `preconditioner`,
            `refine`, `certify`, as in `implicit`. With constraints that depend on each other, use
            `singular="minimum_norm"`.

    Returns:
        The minimiser, or a `Solution` if `full`.

    Raises:
        InputError: f is not a real number, restrictions are combined, an option does not exist.
        SolveError: no convergence. DerivativeError: no derivative at the solution. (Inside `jit`
            both are Equinox's runtime errors.)
    """
    kinds = [
        constraint is not None,
        prox is not None,
        not (equality is None and inequality is None),
    ]
    if sum(kinds) > 1:
        raise InputError(
            "give only one of constraint, prox, and equality/inequality; write a set as "
            "inequalities, or add its indicator to prox, to combine them"
        )
    if isinstance(constraint, type) and issubclass(constraint, Set):
        raise InputError(
            f"constraint={constraint.__name__} is a class: pass a set, "
            f"constraint=rf.sets.{constraint.__name__}(...)"
        )
    if not (constraint is None or isinstance(constraint, Set) or callable(constraint)):
        raise InputError(
            f"constraint={constraint!r} is neither a set of rootflow.sets nor a function"
        )
    for name, function in (("prox", prox), ("equality", equality), ("inequality", inequality)):
        if not (function is None or callable(function)):
            raise InputError(f"{name}={function!r} is not a function")
    implicit_options = checked_options(implicit_options, throw)
    x0 = as_unknown(x0, "the initial guess x0")
    method_name = _choose_method(method, kinds, size(x0))
    if max_steps is None:
        max_steps = _DEFAULT_STEPS.get(method_name, 10_000)
    check_steps(max_steps)
    _check_step(step, method_name)
    tol = tolerance(coarsest_dtype(x0), rtol, atol)
    residuals = isinstance(method, optx.AbstractLeastSquaresSolver)
    objective = _objective(f, x0, theta, residuals)
    x0, theta, constraint = vary_alike(
        (x0, theta, constraint), (x0, theta, constraint, objective, step)
    )
    task = _Task(x0, theta, objective, tol, max_steps, method, method_name, step)
    if kinds[2]:
        return _constrained(task, equality, inequality, full, throw, implicit_options)
    if any(kinds):
        return _composite(task, constraint, prox, full, throw, implicit_options)
    return _smooth(task, f, full, throw, implicit_options)


@dataclasses.dataclass(frozen=True)
class _Task:
    x0: PyTree
    theta: tuple
    objective: Callable[..., Array]
    tolerance: Tolerance
    max_steps: int
    method: Any
    name: str
    step: Any

    def run(self, solver: Method, problem: Any, x0: PyTree):
        return iterate(solver, problem, to_vector(x0), max_steps=self.max_steps)

    def prove(self, solver: Method, problem: Any, composite: Composite, x0: PyTree, **options: Any):
        """As `run`, for a first-order method, whose own account of its error is not enough."""
        return iterate_proven(
            solver, problem, composite, to_vector(x0), self.tolerance,
            max_steps=self.max_steps, **options,
        )  # fmt: skip


def _choose_method(method, kinds, n):
    restricted = kinds[0] or kinds[1]
    if not isinstance(method, str):
        if any(kinds):
            raise InputError(
                "with a constraint, prox, equality or inequality, method must be a name, not "
                f"{type(method).__name__}"
            )
        return "other"
    if method == "auto":
        if kinds[2]:
            return "interior_point"
        if restricted:
            return "proximal_newton" if n <= _PROXIMAL_NEWTON_LIMIT else "accelerated"
        return "newton" if n <= _NEWTON_LIMIT else "lbfgs"
    allowed = ("interior_point",) if kinds[2] else _COMPOSITE if restricted else _SMOOTH
    if method not in allowed:
        raise InputError(
            f"method={method!r} does not fit this problem; use 'auto' or one of "
            + ", ".join(repr(name) for name in allowed)
        )
    return method


def _check_step(step, name):
    if step is None:
        return
    if name not in _COMPOSITE:
        raise InputError(
            f"step={step} has no meaning for method={name!r}, which chooses its own; it is for the "
            "gradient methods with a constraint or prox"
        )
    known = concrete(step)
    if known is not None and (known.ndim != 0 or not 0 < known < np.inf):
        raise InputError(f"step={step} must be one positive number")


def _objective(f, x0, theta, residuals) -> Any:
    """f with its closed-over arrays laid open, and checked to be a real number."""
    if residuals:

        def half_squares(x, *theta):
            return 0.5 * sum(jnp.sum(jnp.square(r)) for r in jax.tree.leaves(f(x, *theta)))

        pure = hoist(half_squares, x0, *theta)
    else:
        number = jnp.zeros((), real_dtype(x0))
        pure = hoist(in_types_of(number, f), x0, *theta)
    out = jax.eval_shape(lambda: pure(x0, *theta))
    if not (eqx.is_array_like(out) or hasattr(out, "shape")) or out.shape != ():
        shape = jax.tree.map(lambda v: getattr(v, "shape", v), out)
        raise InputError(f"the objective must return one number, but it returned shape {shape}")
    if not jnp.issubdtype(out.dtype, jnp.floating):
        raise InputError(f"the objective must return a real number, but its type is {out.dtype}")
    return pure


def _smooth(task, f, full, throw, options):
    objective, theta, x0 = held((task.objective, task.theta, task.x0))
    unravel = from_vector(x0)

    def of_vector(v):
        return objective(unravel(v), *theta)

    if task.name == "newton":
        x, _, solution = task.run(Newton(task.tolerance), of_vector, x0)
        x = unravel(x)
    elif task.name == "lbfgs":
        x, _, solution = _descend(task, LBFGS(task.tolerance), of_vector, x0)
        x = unravel(x)
    elif task.name in UPDATES:
        solver = QuasiNewton(task.tolerance, update=task.name)
        x, _, solution = _descend(task, solver, of_vector, x0, first_round=task.max_steps)
        x = unravel(x)
    elif isinstance(task.method, optx.AbstractMinimiser):
        found = optx.minimise(
            lambda x, _: objective(x, *theta),
            task.method,
            x0,
            max_steps=task.max_steps,
            throw=False,
        )
        x, solution = found.value, from_optimistix(found)
    elif isinstance(task.method, optx.AbstractLeastSquaresSolver):
        pure = held(hoist(f, x0, *theta))
        found = optx.least_squares(
            lambda x, _: pure(x, *theta), task.method, x0, max_steps=task.max_steps, throw=False
        )
        x, solution = found.value, from_optimistix(found)
    elif isinstance(task.method, optax.GradientTransformation):
        method = OptaxDescent(task.tolerance, task.method)
        x, _, solution = _descend(task, method, of_vector, x0)
        x = unravel(x)
    else:
        raise InputError(
            f"method={task.method!r} is not a name, a solver of optimistix or an optimiser of Optax"
        )

    def condition(x, objective, *theta):
        return conditions.steepest(objective, x, *theta)

    options = {"symmetric": True, **options}
    x = confirm(x, solution, throw, "argmin")
    x = given(condition, x, (task.objective, *task.theta), options)
    return finish(x, solution, full)


def _descend(task, solver, of_vector, x0, **options):
    """A method without restrictions, proven by Newton steps unless no tolerance is asked for."""
    if task.tolerance.out_of_reach(coarsest_dtype(x0)):
        return task.run(solver, of_vector, x0)
    smooth = Composite(of_vector, none)
    size_of = lambda x, _: conditions.inverse_curvature(of_vector, x)
    return task.prove(solver, of_vector, smooth, x0, size_of=size_of, feasible=True, **options)


def _composite(task, constraint, prox, full, throw, options):
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
        x, state, solution = task.run(solver, problem, x0)
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

    if size(x0) > _NEWTON_LIMIT:
        # The identity minus a contraction: Krylov methods need few steps.
        options = {"linear_solver": "bicgstab", **options}
    arguments = (size_used, task.objective, operator, *task.theta)
    x = given(condition, confirm(x, solution, throw, "argmin"), arguments, options)
    return finish(x, solution, full)


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
    _check_arguments(prox, len(task.theta))
    pure = hoist(in_types_of(task.x0, prox), task.x0, *task.theta, step)
    image = jax.eval_shape(lambda: pure(task.x0, *task.theta, step))
    same_structure(image, task.x0, "the value of prox", "x0")
    return pure


def _check_arguments(prox, count):
    """Raises where `prox` cannot be called as `prox(w, *theta, step)`."""
    try:
        signature = inspect.signature(prox)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*[None] * (count + 2))
    except TypeError as error:
        raise InputError(
            f"prox is called as prox(w, *theta, step), here with {count + 2} arguments, but its "
            f"signature is {signature} ({error}): one of the form (w, parameters, scaling), as in "
            "JAXopt, fits if its parameters are the one argument after x0; otherwise wrap it, as "
            "in prox=lambda w, step: other(w, weight, step)"
        ) from error


def _blocks(task, composite, objective, theta, x0, prox, step, feasible):
    if not (isinstance(x0, jax.Array) and x0.ndim == 2):
        raise InputError("method='block' needs x to be one matrix, whose rows are the blocks")
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
        return to_vector(jax.tree.map(frozen.project_kl, unravel(v)))

    problem = Mirrored(composite.f, safe_log, project)
    solver = MirrorDescent(task.tolerance, step)
    # On the edge of the simplex the method cannot move, and log has no value.
    inside = jax.tree.map(lambda v: frozen.project_kl(safe_log(v)), held(task.x0))
    x, state, solution = task.prove(
        solver, problem, composite, inside, feasible=True,
        size_of=lambda x, _: conditions.inverse_curvature(composite.f, x),
    )  # fmt: skip

    def condition(x, used, objective, constraint, *theta):
        def mirror(tree):
            return jax.tree.map(safe_log, tree)

        def project(tree):
            return jax.tree.map(constraint.project_kl, tree)

        return conditions.MirrorDescent(objective, mirror, project, used)(x, *theta)

    arguments = (state.size, task.objective, constraint, *task.theta)
    x = given(condition, confirm(unravel(x), solution, throw, "argmin"), arguments, options)
    return finish(x, solution, full)


def _of_type(dtype, function):
    """The function, its real values rounded to the type of the unknown."""

    def rounded(*args):
        value = function(*args)
        return in_types_of(jax.tree.map(lambda _: jnp.zeros((), dtype), value), lambda: value)()

    return rounded


def _limited(inequality):
    """G, with -1 in the place of entries that are far below zero: their limit is no limit."""

    def limited(x, *theta):
        def keep(value):
            value = jnp.asarray(value)
            if not jnp.issubdtype(value.dtype, jnp.floating):
                return value
            return jnp.where(value <= -0.99 * NO_LIMIT, jnp.asarray(-1, value.dtype), value)

        return jax.tree.map(keep, inequality(x, *theta))

    return limited


def _constrained(task, equality, inequality, full, throw, options):
    if inequality is not None:
        inequality = _limited(inequality)
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

    def as_vector(g):
        def of_vector(v):
            if g is None:
                return jnp.zeros(0, dtype)
            return to_vector(g(unravel(v), *theta))

        return of_vector

    def of_vector(v):
        return objective(unravel(v), *theta)

    problem = Constrained(of_vector, as_vector(frozen[0]), as_vector(frozen[1]))
    x, state, solution = task.run(InteriorPoint(task.tolerance), problem, x0)
    reason = why_not(problem, to_vector(x0), x, ~solution.converged)
    solution = eqx.tree_at(lambda s: s.reason, solution, reason)
    polished, dual, _ = polish(problem, x, state)
    x = jnp.where(solution.converged, polished, x)
    nu, lam = (
        None if shape is None else from_vector(shape)(jnp.where(solution.converged, new, old))
        for shape, new, old in zip(shapes, (dual.nu, dual.lam), (state.nu, state.lam), strict=True)
    )

    def condition(x, objective, pure, *theta):
        return conditions.KKT(objective, *pure)(x, *theta)

    # Indefinite, and formed already by the solver: not a matrix for a Krylov method.
    options = {"linear_solver": "lu", **options}
    unknown = confirm((unravel(x), nu, lam), solution, throw, "argmin")
    x, nu, lam = given(condition, unknown, (task.objective, pure, *task.theta), options)
    solution = eqx.tree_at(lambda s: s.dual, solution, (nu, lam), is_leaf=lambda node: node is None)
    return finish(x, solution, full)
