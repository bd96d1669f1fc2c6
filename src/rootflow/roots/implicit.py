"""Implicit differentiation of whatever a solver returns.

If F(x, theta) = 0 defines x(theta), then A J = B with A = -dF/dx, B = dF/dtheta and J = dx/dtheta
(the implicit function theorem; Blondel et al., "Efficient and Modular Implicit Differentiation",
NeurIPS 2022, arXiv 2105.15183, section 2). The solver is run, never differentiated.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._typing import PyTree
from ..errors import InputError, SolveError
from ..ground.derivative import custom_jvp
from ..ground.hoist import hoist, vary_alike
from ..ground.linear import linear
from ..ground.modes import own_modes
from ..ground.tracing import nonfinite, raise_if
from .certificate import warn_if_uncertain
from .checks import concrete, keywords_of, require_number, same_structure
from .linear import LinearOptions, solve_jacobian
from .trees import in_types_of, subtract, widened


def implicit(
    condition: Callable[..., PyTree],
    *,
    linear_solver: Any = "auto",
    has_aux: bool = False,
    symmetric: bool | None = None,
    singular: Literal["error", "minimum_norm", "nan"] = "error",
    ridge: Any = None,
    rcond: float | None = None,
    preconditioner: Callable[..., PyTree] | None = None,
    refine: int = 0,
    certify: float | None = None,
    throw: bool = True,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Gives any solver the derivative of the equation that it solves.

    The decorated solver is called as `solver(init, *theta, **kwargs)` and returns `x` with
    `condition(x, *theta, **kwargs) = 0`. How it finds `x` does not matter: JAX loops, a closed
    form, a callback to SciPy. Its result has derivatives with respect to every array in `theta` and
    in `kwargs`, and to every traced value that `condition` closes over, in forward and reverse mode
    and to any order; the derivative with respect to `init` is zero. `jit` and `vmap` apply. A
    result in half precision stays what it is; its condition and derivative are evaluated in single.

    Args:
        condition: `F(x, *theta, **kwargs)`, with the structure and shapes of `x`. Parameters that
            are not arrays (strings, None, functions) reach solver and condition untouched. Keyword
            arguments go to the condition under their names; those that it does not take must not
            be arrays (they are options of the solver).
        linear_solver: `"auto"` (up to 256 unknowns the Jacobian is formed and factorised, by
            Cholesky's method if symmetric, else by elimination; above, conjugate gradients if
            symmetric, else GMRES), or `"lu"`, `"qr"`, `"svd"`, `"cholesky"`, `"cg"`,
            `"normal_cg"`, `"gmres"`, `"bicgstab"`, `"lsmr"`, or a solver object of lineax.
        has_aux: the solver returns `(x, aux)`; `aux` is passed on without a derivative.
        symmetric: whether dF/dx is symmetric and definite, as for the gradient of a function at
            its minimum. The default asks the condition (an attribute `symmetric`), else False.
        singular: where dF/dx is singular, raise (`"error"`), take the derivative of least norm
            (`"minimum_norm"`), or return NaN (`"nan"`).
        ridge: a number added to the diagonal of dF/dx.
        rcond: relative size below which singular values count as zero in `"minimum_norm"`.
        preconditioner: `(v, x, *theta, **kwargs) -> P v`, an approximate inverse of dF/dx applied
            to `v`, for the iterative methods. It must be symmetric, as its transpose is not taken.
        refine: Newton steps taken on the solver's result before it is returned and differentiated.
        certify: warn (`CertificateWarning`) where the error bound of the derivative exceeds this.
        throw: raise where the solver returns a number that is not finite.

    Returns:
        A decorator; the decorated function has the solver's signature.

    Raises:
        InputError: the condition's value is not shaped like the solution, the solution contains
            integers, or an array keyword is unknown to the condition.
        SolveError: the solution is not finite.
        DerivativeError: the derivative does not exist at the solution.
        (Inside `jit` the last two are JAX's runtime errors with the same messages.)
    """
    if symmetric is None:
        symmetric = bool(getattr(condition, "symmetric", False))
    options = LinearOptions(linear_solver, symmetric, singular, None, rcond)
    if isinstance(refine, bool) or not isinstance(refine, (int, np.integer)) or refine < 0:
        raise InputError(f"refine={refine!r} must be a number of Newton steps, 0 or more")
    if certify is not None and not certify > 0:
        raise InputError(f"certify={certify} must be a positive bound on the error, or None")
    if ridge is not None:
        require_number(ridge, "ridge")
        known = concrete(ridge)
        if known is not None and not np.isfinite(known):
            raise InputError(f"ridge={ridge} must be finite")

    def decorate(solver: Callable[..., Any]) -> Callable[..., Any]:
        accepted = keywords_of(condition)

        @functools.wraps(solver)
        @own_modes
        def wrapped(init, *theta, **kwargs):
            frozen = held((init, theta, kwargs))
            out = solver(frozen[0], *frozen[1], **frozen[2])
            aux = None
            if has_aux:
                if not (isinstance(out, tuple) and len(out) == 2):
                    raise InputError(
                        "with has_aux=True the solver must return a pair (x, aux), "
                        f"but it returned {type(out).__name__}"
                    )
                out, aux = out
                aux = held(aux)
            x = jax.tree.map(_solution_leaf, out)
            if throw:
                x = raise_if(x, nonfinite(x), _NONFINITE, SolveError)
            known = _match(kwargs, accepted, condition)
            types = [leaf.dtype for leaf in jax.tree.leaves(x)]
            problem = _Problem(condition, widened(x), theta, known, preconditioner, ridge, options)
            x = problem.x
            for _ in range(refine):
                x = problem.newton_step(x)
            leaves, structure = jax.tree.flatten(problem.attach(x, certify))
            rounded = [leaf.astype(kind) for leaf, kind in zip(leaves, types, strict=True)]
            x = jax.tree.unflatten(structure, rounded)
            return (x, aux) if has_aux else x

        return wrapped

    return decorate


def given(
    condition: Callable[..., PyTree], x: PyTree, arguments: tuple[Any, ...], options: dict[str, Any]
) -> PyTree:
    """`x`, already computed, with the derivative of `condition(x, *arguments) = 0`."""

    @implicit(condition, throw=False, **options)
    def computed(x, *_):
        return x

    return computed(x, *arguments)


def held(tree: PyTree) -> PyTree:
    """The tree, for a solver: its floating-point arrays are constants to every derivative."""

    def freeze(leaf):
        # Eager transformations turn constants into Python numbers here; keep them arrays.
        return jnp.asarray(jax.lax.stop_gradient(leaf)) if eqx.is_inexact_array(leaf) else leaf

    return jax.tree.map(freeze, tree)


_NONFINITE = (
    "the solver returned a solution with numbers that are not finite; check its convergence "
    "(throw=False passes the solution on as it is)"
)


def _solution_leaf(leaf):
    if not eqx.is_array_like(leaf):
        raise InputError(
            f"the solver returned {leaf!r} of type {type(leaf).__name__} in its solution; return "
            "arrays only, and other things as aux with has_aux=True"
        )
    leaf = jnp.asarray(leaf)
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        raise InputError(
            f"the solution contains an array of type {leaf.dtype}, which has no derivative; return "
            "it as aux with has_aux=True"
        )
    return jnp.asarray(jax.lax.stop_gradient(leaf))


def _match(kwargs, accepted, condition):
    if accepted is None:
        return kwargs
    for name, value in kwargs.items():
        arrays = [v for v in jax.tree.leaves(value) if eqx.is_inexact_array(v)]
        if name not in accepted and arrays:
            raise InputError(
                f"the solver was given the array {name!r}, but the condition "
                f"{getattr(condition, '__name__', condition)} takes no argument of that name, so "
                "the derivative with respect to it is not defined; add it to the condition"
            )
    return {name: value for name, value in kwargs.items() if name in accepted}


class _Problem:
    """F with everything it depends on laid open: `residual(x, operands)` has no closed-over array.

    A condition may close over values that are being differentiated or batched. Tracing it once and
    hoisting them makes them ordinary operands, so their derivatives are right too.
    """

    def __init__(self, condition, x, theta, kwargs, preconditioner, ridge, options) -> None:
        theta, kwargs = jax.tree.map(
            lambda v: jnp.asarray(v) if isinstance(v, (np.ndarray, np.generic)) else v,
            (theta, kwargs),
        )
        # Data may be in another precision than the unknown.
        pure = hoist(in_types_of(x, condition), x, *theta, **kwargs)
        x, theta, kwargs = vary_alike((x, theta, kwargs), (x, theta, kwargs, pure))
        self.x = x
        value = jax.eval_shape(lambda: pure(x, *theta, **kwargs))
        same_structure(value, x, "the value of the condition", "the solution")
        inverse = None
        if preconditioner is not None:
            inverse = hoist(in_types_of(x, preconditioner), x, x, *theta, **kwargs)
            value = jax.eval_shape(lambda: inverse(x, x, *theta, **kwargs))
            same_structure(value, x, "the value of the preconditioner", "the solution")
        arrays, static = eqx.partition((pure, theta, kwargs, inverse, ridge), eqx.is_array)
        self.operands, structure = jax.tree.flatten(arrays)

        def parts(operands):
            return eqx.combine(jax.tree.unflatten(structure, operands), static)

        def residual(x, operands):
            pure, theta, kwargs, _, _ = parts(operands)
            return pure(x, *theta, **kwargs)

        def linear_options(x, operands):
            _, theta, kwargs, inverse, ridge = parts(operands)
            changed = options
            if inverse is not None:
                # Applied inside the solve only, where nothing is differentiated.
                apply = functools.partial(_apply, inverse, x, theta, kwargs)
                changed = dataclasses.replace(changed, preconditioner=apply)
            return changed if ridge is None else dataclasses.replace(changed, ridge=ridge)

        self.residual = residual
        self.linear_options = linear_options

    def newton_step(self, x):
        operands = held(self.operands)
        value = self.residual(x, operands)
        options = self.linear_options(x, operands)
        step = solve_jacobian(lambda u: self.residual(u, operands), x, value, options)
        return subtract(x, step)

    def attach(self, x, certify):
        """`x` with the derivative of the implicit function theorem."""
        residual, linear_options = self.residual, self.linear_options

        @custom_jvp
        def solution(x, operands):
            del operands
            return x

        def rule(primals, tangents):
            x, operands = _as_arrays(primals)
            _, dots = tangents
            # Through the rule again: a higher derivative must see that x depends on theta.
            x = solution(x, operands)
            active = [i for i, dot in enumerate(dots) if _is_active(dot)]
            if not active:
                return x, jax.tree.map(jnp.zeros_like, x)

            if certify is not None:
                warn_if_uncertain(residual, x, operands, active, certify)
            directions = [jnp.asarray(dots[i], operands[i].dtype) for i in active]
            slope = _derivative(residual, linear_options, x, operands, active, directions)
            return x, slope

        solution.defjvp(rule, symbolic_zeros=True)
        return solution(x, [_as_traced(v) for v in self.operands])


def _derivative(residual, linear_options, x, operands, active, directions):
    """The derivative of the solution of `residual(x, operands) = 0` along active operands."""
    leaves, structure = jax.tree.flatten(x)
    # What is kept for the reverse pass must hold no arrays but the residuals of `linear`.
    count = len(leaves)
    shapes = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in leaves]

    def forward(residuals, directions):
        x = jax.tree.unflatten(structure, residuals[:count])
        operands = residuals[count:]

        def of_active(values):
            full = list(operands)
            for i, value in zip(active, values, strict=True):
                full[i] = value
            return residual(x, full)

        values = [operands[i] for i in active]
        _, forcing = jax.jvp(of_active, (values,), (list(directions),))
        forcing = jax.tree.map(jnp.negative, forcing)
        options = linear_options(x, operands)
        slope = solve_jacobian(lambda u: residual(u, operands), x, forcing, options)
        return jax.tree.leaves(slope)

    def transpose(residuals, bars, batched):
        del batched
        primals = residuals[:count]
        bars = [jnp.zeros_like(v) if b is None else b for v, b in zip(primals, bars, strict=True)]
        examples = [residuals[count:][i] for i in active]
        given = jax.linear_transpose(lambda *d: forward(residuals, d), *examples)(bars)
        # Where a solve has failed, zero times its NaN would be NaN: the cotangent of a member of a
        # batch that is masked afterwards. A derivative that exists is left alone, zero or not, as
        # it may be differentiated again.
        unused = functools.reduce(jnp.logical_and, [jnp.all(bar == 0) for bar in bars])
        failed = unused & nonfinite(given)
        return [jnp.where(failed, jnp.zeros_like(bar), bar) for bar in given]

    slope = linear(forward, transpose, [*leaves, *operands], directions, shapes)
    return jax.tree.unflatten(structure, slope)


def _as_arrays(tree):
    # Eager transformations hand constants on as Python numbers, which would no longer be operands.
    return jax.tree.map(lambda v: v if isinstance(v, jax.Array) else jnp.asarray(v), tree)


def _as_traced(v):
    # What `vmap` batches inside `jit` may still be a NumPy array inside its tracer, which a custom
    # rule cannot take; any operation makes it one of JAX's own.
    if isinstance(v, Tracer) and jnp.issubdtype(v.dtype, jnp.number):
        return jnp.copy(v)
    return v


def _apply(inverse, x, theta, kwargs, v):
    return inverse(v, x, *theta, **kwargs)


def _is_active(dot):
    if isinstance(dot, jax.custom_derivatives.SymbolicZero):
        return False
    return getattr(dot, "dtype", None) != jax.dtypes.float0
