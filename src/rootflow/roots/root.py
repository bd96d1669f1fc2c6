"""The verbs `root` and `fixed_point`: solve equations, with the implicit derivative."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optimistix as optx

from .._typing import PyTree
from ..errors import InputError
from ..ground.hoist import hoist, vary_alike
from ..ground.modes import own_modes
from ..ground.programs import compiled_once
from .calls import called, numbers_as_arrays
from .checks import same_structure
from .implicit import given, held
from .iterate import Solution, Tolerance, check_steps, confirm, iterate, tolerance
from .outside import compiled_outside
from .solvers.dogleg import Dogleg
from .solvers.fixed_point import Anderson, PlainIteration
from .trees import coarsest_dtype, from_vector, in_types_of, to_vector


@own_modes
@numbers_as_arrays
@compiled_outside("root")
def root(
    condition: Callable[..., Any],
    x0: PyTree,
    *theta: Any,
    kwargs: dict[str, Any] | None = None,
    has_aux: bool = False,
    method: Any = "auto",
    rtol: Any = None,
    atol: Any = None,
    max_steps: int = 100,
    throw: bool = True,
    full: bool = False,
    options: dict[str, Any] | None = None,
    **implicit_options: Any,
) -> Any:
    """Finds x with `condition(x, *theta) = 0`, differentiable in `theta`.

    Called outside `jit`, the search is compiled, once for all functions that compute the same.

    Args:
        condition: F, with a value of the structure and shapes of `x`.
        x0: initial guess, a pytree of arrays, or a previous `Solution`; has no influence on the
            derivative. In half precision it is taken to single precision, and the result back.
        *theta: parameters; the result has derivatives with respect to their arrays, and to traced
            values that `condition` closes over.
        kwargs: parameters by name, likewise: F is called as `condition(x, *theta, **kwargs)`.
        has_aux: F returns a pair (value, aux). What it is at the solution, an ordinary function of
            x and theta with its derivatives, is returned too.
        method: `"auto"` (Newton's method in a trust region), or a root finder or least-squares
            solver of optimistix (which brings its own tolerances).
        rtol: relative tolerance of x; by default 1e-8 in double, 1e-4 in single precision.
        atol: absolute tolerance of x; by default 1e-10 in double, 1e-6 in single precision.
        max_steps: steps allowed.
        throw: raise if the method did not converge. If false, a derivative that does not exist is
            NaN and no error, unless `singular` says otherwise.
        full: return a `Solution` and not just its value.
        options: passed to an optimistix method (such as `lower` and `upper` for bisection).
        **implicit_options: `linear_solver`, `symmetric`, `singular`, `ridge`, `rcond`,
            `preconditioner`, `refine`, `certify`, as in `implicit`.

    Returns:
        x, or (x, aux) with `has_aux`, or a `Solution` if `full`.

    Raises:
        InputError: F is not shaped like `x`, or an option is out of its range.
        SolveError: no convergence. DerivativeError: no derivative at the solution. (Inside `jit`
            both are JAX's runtime errors.)
    """
    call = called(condition, x0, theta, kwargs, has_aux, "the condition")
    x0, theta = call.x0, call.theta
    pure = hoist(in_types_of(x0, call.function), x0, *theta)
    x0, theta = vary_alike((x0, theta), (x0, theta, pure))
    same_structure(jax.eval_shape(lambda: pure(x0, *theta)), x0, "the value of the condition", "x0")
    check_steps(max_steps)
    tol = tolerance(coarsest_dtype(x0), rtol, atol)
    implicit_options = checked_options(implicit_options, throw)

    if isinstance(method, str) and method not in ("auto", "newton", "dogleg"):
        raise InputError(f"method={method!r} is not known; use 'auto' or a solver of optimistix")
    start, frozen_pure, frozen_theta = held((x0, pure, theta))
    multiple = None
    if isinstance(method, str):
        unravel = from_vector(start)

        def vector_equations(v):
            return to_vector(frozen_pure(unravel(v), *frozen_theta))

        x, state, solution = compiled_once(
            lambda: iterate(Dogleg(tol), vector_equations, to_vector(start), max_steps=max_steps)
        )
        x, multiple = unravel(x), state.multiple
    else:
        x, solution = _optimistix_root(method, frozen_pure, start, frozen_theta, max_steps, options)
    x = confirm(x, solution, throw, "root")
    x = _attached(
        lambda x, pure, *theta: pure(x, *theta), x, multiple, (pure, *theta), implicit_options
    )
    return call.finish(x, solution, full)


def _attached(equations, x, multiple, arguments, options):
    """`x` with its implicit derivative, which is said not to exist at a multiple root."""

    def condition(x, poison, *arguments):
        value = equations(x, *arguments)
        if poison is None:
            return value
        # At the root itself dF/dx is singular, and close to it nearly so, which no test of the
        # numbers there can tell from a scale: make it the former.
        return jax.tree.map(lambda f, v: f + poison.astype(f.real.dtype) * v, value, x)

    poison = None if multiple is None else jnp.where(multiple, jnp.nan, 0.0)
    return given(condition, x, (poison, *arguments), options)


@own_modes
@numbers_as_arrays
@compiled_outside("fixed_point")
def fixed_point(
    mapping: Callable[..., Any],
    x0: PyTree,
    *theta: Any,
    kwargs: dict[str, Any] | None = None,
    has_aux: bool = False,
    method: Literal["anderson", "plain", "newton"] | Any = "anderson",
    depth: int = 5,
    damping: float = 0.0,
    rtol: Any = None,
    atol: Any = None,
    max_steps: int = 1000,
    throw: bool = True,
    full: bool = False,
    **implicit_options: Any,
) -> Any:
    """Finds x with `mapping(x, *theta) = x`, differentiable in `theta`.

    Called outside `jit`, the search is compiled as that of `root`.

    Args:
        mapping: T, with a value of the structure and shapes of `x`.
        x0: initial guess, a pytree of arrays, or a previous `Solution`; as in `root`.
        *theta: parameters; the result has derivatives with respect to their arrays, and to traced
            values that `mapping` closes over.
        kwargs: parameters by name, as in `root`.
        has_aux: T returns a pair (value, aux), as in `root`.
        method: `"anderson"` (acceleration of the iteration x <- T(x) by its last `depth` steps),
            `"plain"` (that iteration, with damping), or `"newton"` (on x - T(x) = 0).
        depth: history length of `"anderson"`.
        damping: weight of the old iterate in `"plain"`, at least 0 and less than 1.
        rtol: relative tolerance on |T(x) - x|; default 1e-8 in double, 1e-4 in single precision.
        atol: absolute tolerance on |T(x) - x|; default 1e-10 in double, 1e-6 in single precision.
        max_steps: steps allowed.
        throw: raise if the method did not converge. If false, a derivative that does not exist is
            NaN and no error, unless `singular` says otherwise.
        full: return a `Solution` and not just its value.
        **implicit_options: as in `implicit`.

    Returns:
        x, or (x, aux) with `has_aux`, or a `Solution` if `full`.

    Raises:
        InputError, SolveError, DerivativeError: as in `root`.
    """
    call = called(mapping, x0, theta, kwargs, has_aux, "the map")
    x0, theta = call.x0, call.theta
    pure = hoist(in_types_of(x0, call.function), x0, *theta)
    x0, theta = vary_alike((x0, theta), (x0, theta, pure))
    same_structure(jax.eval_shape(lambda: pure(x0, *theta)), x0, "the value of the map", "x0")
    check_steps(max_steps)
    tol = tolerance(coarsest_dtype(x0), rtol, atol)
    solver = _fixed_point_method(method, tol, depth, damping)
    implicit_options = checked_options(implicit_options, throw)

    def equations(x, pure, *theta):
        return jax.tree.map(lambda u, v: u - v, x, pure(x, *theta))

    start, frozen_pure, frozen_theta = held((x0, pure, theta))
    unravel = from_vector(start)

    def vector_map(v):
        return to_vector(frozen_pure(unravel(v), *frozen_theta))

    def vector_equations(v):
        return v - vector_map(v)

    newton = isinstance(solver, Dogleg)
    problem = vector_equations if newton else vector_map
    x, state, solution = compiled_once(
        lambda: iterate(solver, problem, to_vector(start), max_steps=max_steps)
    )
    multiple = state.multiple if newton else None
    x = confirm(unravel(x), solution, throw, "fixed_point")
    x = _attached(equations, x, multiple, (pure, *theta), implicit_options)
    return call.finish(x, solution, full)


def _fixed_point_method(method, tol: Tolerance, depth, damping):
    if method == "plain":
        if not 0 <= damping < 1:
            raise InputError(f"damping={damping} must be at least 0 and less than 1")
        return PlainIteration(tol, damping)
    if method == "anderson":
        if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
            raise InputError(f"depth={depth!r} must be an integer of at least 1")
        return Anderson(tol, depth)
    if method == "newton":
        return Dogleg(tol)
    raise InputError(f"method={method!r} is not known; use 'anderson', 'plain' or 'newton'")


_IMPLICIT_OPTIONS = (
    "linear_solver",
    "symmetric",
    "singular",
    "ridge",
    "rcond",
    "preconditioner",
    "refine",
    "certify",
)


_STEPS = "the number of steps allowed is max_steps"
_DERIVATIVE = "the derivative needs no switch, it is always that of the implicit function theorem"
# What it is called here that SciPy and JAXopt call by these names.
_ELSEWHERE = {
    "tol": "the tolerances are rtol and atol",
    "xtol": "the tolerances are rtol and atol",
    "ftol": "the tolerances are rtol and atol",
    "gtol": "the tolerances are rtol and atol",
    "maxiter": _STEPS,
    "max_iter": _STEPS,
    "maxiters": _STEPS,
    "bounds": "write argmin(..., constraint=rf.sets.Box(lower, upper))",
    "constraints": "argmin takes one set as constraint, or functions as equality and inequality",
    "projection": "write argmin(..., constraint=projection)",
    "hyperparams_prox": "the arguments of prox are parameters by position: prox(w, *theta, step)",
    "hyperparams_proj": "the arguments of the constraint are parameters by position",
    "stepsize": "a fixed step size of argmin is step",
    "args": "parameters are passed by position: root(f, x0, *args)",
    "init": "a guess, or a previous Solution, is the second argument x0",
    "init_params": "a guess, or a previous Solution, is the second argument x0",
    "jac": "derivatives are taken by JAX; leave it out",
    "hess": "derivatives are taken by JAX; leave it out",
    "implicit_diff": _DERIVATIVE,
    "implicit_diff_solve": "the linear solver of the derivative is linear_solver",
    "unroll": _DERIVATIVE,
}


def checked_options(implicit_options: dict[str, Any], throw: bool) -> dict[str, Any]:
    """The options of `implicit`; raises `InputError` if there are others.

    Who does not want to hear of a solve without an answer does not want to hear that it has no
    derivative either: it is NaN then, and those of the other members of a batch are usable.
    """
    for name in implicit_options:
        if name not in _IMPLICIT_OPTIONS:
            if name in _ELSEWHERE:
                raise InputError(f"there is no option {name!r}: {_ELSEWHERE[name]}")
            raise InputError(
                f"there is no option {name!r}; parameters of the problem are passed by position or "
                f"in a dictionary, kwargs={{{name!r}: ...}}, and options of the derivative are "
                + ", ".join(_IMPLICIT_OPTIONS)
            )
    return implicit_options if throw else {"singular": "nan", **implicit_options}


def _optimistix_root(method, pure, x0, theta, max_steps, options):
    def equations(x, args):
        del args
        return pure(x, *theta)

    settings: dict[str, Any] = dict(max_steps=max_steps, throw=False, options=options)
    if isinstance(method, optx.AbstractLeastSquaresSolver):
        found = optx.least_squares(equations, method, x0, None, **settings)
    elif isinstance(method, optx.AbstractRootFinder):
        try:
            found = optx.root_find(equations, method, x0, None, **settings)
        except KeyError as missing:
            name = missing.args[0]
            if not isinstance(name, str) or name in (options or {}):
                raise
            raise InputError(
                f"the method {type(method).__name__} needs the option {name!r}: pass "
                f"options={{{name!r}: ..., ...}}, as its documentation describes"
            ) from missing
    else:
        raise InputError(
            f"method must be a name, or a root finder or least-squares solver of optimistix, not "
            f"{method!r}"
        )
    return found.value, from_optimistix(found)


def from_optimistix(found: optx.Solution[Any, Any]) -> Solution:
    """The account of an optimistix solve, in this package's terms."""
    converged = found.result == optx.RESULTS.successful
    error = jnp.where(converged, 1.0, jnp.inf)
    return Solution(found.value, converged, jnp.asarray(found.stats["num_steps"]), error)
