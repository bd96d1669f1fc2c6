"""The verb `argmin`: minimise, with or without constraints, and differentiate the minimiser."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix as optx

from .._typing import PyTree
from ..errors import InputError
from ..ground.hoist import hoist, vary_alike
from ..ground.modes import own_modes
from . import conditions
from .calls import called, numbers_as_arrays
from .checks import concrete
from .composite import composite_minimum
from .implicit import given, held
from .iterate import check_steps, confirm, tolerance
from .outside import compiled_outside
from .programme import programme_minimum
from .prox import none
from .root import checked_options, from_optimistix
from .sets import Set
from .solvers.lbfgs import LBFGS
from .solvers.newton import Newton
from .solvers.optax_descent import OptaxDescent
from .solvers.proximal_gradient import Composite
from .solvers.quasi_newton import UPDATES, QuasiNewton
from .task import NEWTON_LIMIT, Task
from .trees import coarsest_dtype, from_vector, in_types_of, real_dtype, size

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
@numbers_as_arrays
@compiled_outside("argmin")
def argmin(
    f: Callable[..., Any],
    x0: PyTree,
    *theta: Any,
    kwargs: dict[str, Any] | None = None,
    has_aux: bool = False,
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

    Called outside `jit`, the search is compiled, once for all functions that compute the same.

    Args:
        f: the objective, a real number; convex, or convex near the minimum sought.
        x0: initial guess, a pytree of arrays; has no influence on the derivative. A previous
            `Solution` is a warm start: its value, and with `equality` and `inequality` also its
            multipliers and active set. In half precision it is taken to single precision, and the
            result back.
        *theta: parameters, passed to every function.
        kwargs: parameters by name; f is called as `f(x, *theta, **kwargs)`, every other function
            with those of them that it takes.
        has_aux: f returns a pair (value, aux). What it is at the solution, an ordinary function of
            x and theta with its derivatives, is returned too.
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
        The minimiser, or (minimiser, aux) with `has_aux`, or a `Solution` if `full`.

    Raises:
        InputError: f is not a real number, restrictions are combined, an option does not exist.
        SolveError: no convergence. DerivativeError: no derivative at the solution. (Inside `jit`
            both are JAX's runtime errors.)
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
    call = called(f, x0, theta, kwargs, has_aux, "the objective")
    f, x0, theta = call.function, call.x0, call.theta
    if not isinstance(constraint, Set):
        constraint = call.also(constraint, "the constraint")
    prox = call.also(prox, "prox", last=1)
    equality, inequality = call.also(equality, "equality"), call.also(inequality, "inequality")
    method_name = _choose_method(method, kinds, size(x0))
    if max_steps is None:
        max_steps = _DEFAULT_STEPS.get(method_name, 10_000)
    check_steps(max_steps)
    _check_step(step, method_name)
    tol = tolerance(coarsest_dtype(x0), rtol, atol)
    residuals = isinstance(method, optx.AbstractLeastSquaresSolver)
    objective = _objective(f, x0, theta, residuals)
    dual = None if call.previous is None else call.previous.dual
    x0, theta, constraint, dual = vary_alike(
        (x0, theta, constraint, dual), (x0, theta, constraint, dual, objective, step)
    )
    task = Task(call, x0, dual, theta, objective, tol, max_steps, method, method_name, step)
    if kinds[2]:
        return programme_minimum(task, equality, inequality, full, throw, implicit_options)
    if any(kinds):
        return composite_minimum(task, constraint, prox, full, throw, implicit_options)
    return _smooth(task, f, full, throw, implicit_options)


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
        return "newton" if n <= NEWTON_LIMIT else "lbfgs"
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
        pair = isinstance(out, tuple) and len(out) == 2
        raise InputError(
            f"the objective must return one number, but it returned shape {shape}"
            + ("; if the second is not part of it, set has_aux=True" if pair else "")
        )
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
    return task.call.finish(x, solution, full)


def _descend(task, solver, of_vector, x0, **options):
    """A method without restrictions, proven by Newton steps unless no tolerance is asked for."""
    if task.tolerance.out_of_reach(coarsest_dtype(x0)):
        return task.run(solver, of_vector, x0)
    smooth = Composite(of_vector, none)
    size_of = lambda x, _: conditions.inverse_curvature(of_vector, x)
    return task.prove(solver, of_vector, smooth, x0, size_of=size_of, feasible=True, **options)
