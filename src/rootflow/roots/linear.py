"""The one linear solve behind every implicit derivative: (dF/dx) z = b.

The solve is wrapped in `jax.lax.custom_linear_solve`, so it has both modes of differentiation to
any order whatever method computes it; the transposed system reuses the same factorisation.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Float

from .._typing import PyTree
from ..errors import DerivativeError, InputError
from ..ground import written_out
from ..ground.krylov import bicgstab, bicgstab_or_gmres, conjugate_gradients, gmres
from ..ground.tracing import raise_if
from ..ground.varying import vary_like
from .trees import from_vector, size, to_vector

# Up to this many unknowns the Jacobian is formed and factorised, which is robust, and serves any
# number of right-hand sides.
DENSE_LIMIT = 256
# Up to this many unknowns the arithmetic of an elimination costs less than its bookkeeping.
_AUGMENTED_LIMIT = 128

_DIRECT = {"lu": lx.LU, "qr": lx.QR, "svd": lx.SVD, "cholesky": lx.Cholesky}
_ITERATIVE = ("cg", "normal_cg", "gmres", "bicgstab", "lsmr")


@dataclasses.dataclass(frozen=True)
class LinearOptions:
    """How the linear system of an implicit derivative is solved.

    Attributes:
        solver: `"auto"`, one of `"lu"`, `"qr"`, `"svd"`, `"cholesky"`, `"cg"`, `"normal_cg"`,
            `"gmres"`, `"bicgstab"`, `"lsmr"`, or a solver object of lineax.
        symmetric: whether dF/dx is symmetric and definite (F is the gradient of a function at a
            strict minimum or maximum).
        singular: `"error"`, `"minimum_norm"` or `"nan"`.
        ridge: a number added to the diagonal of dF/dx.
        rcond: singular values below `rcond` times the largest count as zero in `"minimum_norm"`.
        preconditioner: `v -> P v`, an approximate inverse of dF/dx, for iterative methods.
    """

    solver: Any = "auto"
    symmetric: bool = False
    singular: Literal["error", "minimum_norm", "nan"] = "error"
    ridge: Any = None
    rcond: float | None = None
    preconditioner: Callable[[PyTree], PyTree] | None = None

    def __post_init__(self) -> None:
        names = ("auto", *_DIRECT, *_ITERATIVE)
        is_name = isinstance(self.solver, str)
        if is_name and self.solver not in names:
            raise InputError(
                f"linear_solver={self.solver!r} is not known; use one of {', '.join(names)} "
                "or a solver object of lineax"
            )
        if not is_name and not isinstance(self.solver, lx.AbstractLinearSolver):
            raise InputError(
                f"linear_solver must be a name or a solver object of lineax, not {self.solver!r}"
            )
        if self.singular not in ("error", "minimum_norm", "nan"):
            raise InputError(
                f"singular={self.singular!r} is not known; use 'error', 'minimum_norm' or 'nan'"
            )
        if self.rcond is not None and not 0 <= self.rcond < 1:
            raise InputError(f"rcond={self.rcond} must be at least 0 and less than 1")


def jacobian_matrix(
    f: Callable[[PyTree], PyTree], x: PyTree, ridge: Any = None, *, by_rows: bool = False
) -> Float[Array, "n n"]:
    """The Jacobian of `f` at `x` in the real coordinates of `to_vector`, plus a ridge.

    Args:
        f: the equations.
        x: where the Jacobian is taken.
        ridge: a number added to the diagonal.
        by_rows: take the rows by reverse mode and not the columns by forward mode. Where `f` has
            only one of the two modes (a loop that ends by a condition, a custom derivative), that
            one is used.
    """
    unravel = from_vector(x)
    point = to_vector(x)

    def of_vector(v):
        return to_vector(f(unravel(v)))

    first, second = (jax.jacrev, jax.jacfwd) if by_rows else (jax.jacfwd, jax.jacrev)
    try:
        matrix = first(of_vector)(point)
    except (TypeError, ValueError, NotImplementedError):
        matrix = second(of_vector)(point)
    if ridge is not None:
        matrix = matrix + ridge * jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    return matrix


def is_dense(n: int, options: LinearOptions) -> bool:
    """Whether the Jacobian is formed for this size and choice of method."""
    if isinstance(options.solver, str):
        return options.solver in _DIRECT or (options.solver == "auto" and n <= DENSE_LIMIT)
    solver = options.solver
    if isinstance(solver, lx.Normal):
        solver = solver.inner_solver
    return not isinstance(solver, (lx.CG, lx.GMRES, lx.BiCGStab, lx.LSMR))


def solve_jacobian(
    f: Callable[[PyTree], PyTree], x: PyTree, b: PyTree, options: LinearOptions
) -> PyTree:
    """Solves `(df/dx + ridge I) z = b` at `x`; linear in `b`, differentiable in everything.

    Args:
        f: the equations, `x -> f(x)` with the structure of `x`.
        x: where the Jacobian is taken.
        b: right-hand side, with the structure of `x`.
        options: method, and what to do where the Jacobian is singular.

    Returns:
        `z` with the structure of `x`.

    Raises:
        DerivativeError: the Jacobian is singular or the method did not converge (inside `jit`,
            JAX's runtime error with the same message).
    """
    n = size(x)
    rhs, unravel = to_vector(b), from_vector(b)
    if is_dense(n, options):
        # The Hessian of a sum of squares |X w|^2 is X^T X: by rows, both factors are read in the
        # order in which they lie in memory.
        by_rows = options.symmetric and n > _AUGMENTED_LIMIT
        matrix = jacobian_matrix(f, x, options.ridge, by_rows=by_rows)
        return unravel(solve_matrix(matrix, rhs, options))
    if options.singular == "minimum_norm":
        options = dataclasses.replace(options, solver="lsmr")
    return unravel(_solve_iterative(f, x, rhs, options))


def solve_matrix(
    matrix: Float[Array, "n n"], b: Float[Array, " n"], options: LinearOptions
) -> Float[Array, " n"]:
    """Solves a small system given by its matrix."""
    # (JAX marks what its solves close over as varying, after it has traced them.)
    matrix, b = vary_like((matrix, b), (matrix, b))
    if options.singular == "minimum_norm":
        return jnp.linalg.pinv(matrix, rtol=options.rcond) @ b
    if options.solver == "auto" and options.symmetric:
        return _solve_definite(matrix, b, options.singular)
    if options.solver in ("auto", "lu"):
        return _solve_lu(matrix, b, options.singular)
    direct = options.solver
    if isinstance(direct, str):
        direct = _DIRECT[direct]()
    return _solve_lineax_matrix(matrix, b, direct, options.singular)


_SINGULAR = (
    "the implicit derivative does not exist here: dF/dx is singular or not finite at the solution; "
    "check that the solution is isolated and that F is differentiable at it, or choose "
    "singular='minimum_norm' or a ridge"
)
_INDEFINITE = (
    "the implicit derivative does not exist here: dF/dx is said to be symmetric and definite, but "
    "is singular, indefinite or not finite at the solution; check that it is a strict minimum or "
    "maximum, or choose symmetric=False (for a saddle point), singular='minimum_norm' or a ridge"
)


def lu_solver(
    matrix: Float[Array, "n n"], *, margin: float = 1
) -> tuple[Callable[[Array], Array], Callable[[Array], Array], Bool[Array, ""]]:
    """Factorises any matrix, which is taken for a constant.

    Args:
        matrix: the matrix.
        margin: by how much a pivot must be above round-off to count.

    Returns:
        The function that solves with it, the one that solves with its transpose, and whether it is
        singular or not finite, so that solutions mean nothing.
    """
    n = matrix.shape[0]
    frozen = jax.lax.stop_gradient(matrix)
    # Rows of a KKT system differ by many orders of magnitude; with every row scaled to one, a pivot
    # at round-off level means dependence and not just a change of units.
    largest = jnp.max(jnp.abs(frozen), axis=1)
    scale = 1 / jnp.where(largest > 0, largest, 1)
    equilibrated = frozen * scale[:, None]
    column = jnp.max(jnp.abs(equilibrated), axis=0)
    if n <= written_out.LIMIT:
        factor = written_out.lu(equilibrated)
        pivot = jnp.abs(factor.pivots())

        def solve(v):
            return factor.solve(scale * v)

        def transpose_solve(v):
            return scale * factor.solve_transposed(v)

    elif n <= _AUGMENTED_LIMIT:
        # Eliminating in [A, I] leaves [U, L^-1 P]: the order of the rows, whose computation from
        # the pivots is a loop that takes long to compile and longer under `vmap`, is not needed.
        both = jnp.concatenate([equilibrated, jnp.eye(n, dtype=matrix.dtype)], axis=1)
        both, _, _ = jax.lax.linalg.lu(both)
        upper, reduce = both[:, :n], both[:, n:]
        pivot = jnp.abs(_diagonal(upper))

        def solve(v):
            return jax.scipy.linalg.solve_triangular(upper, reduce @ (scale * v))

        def transpose_solve(v):
            return scale * (jax.scipy.linalg.solve_triangular(upper, v, trans=1) @ reduce)

    else:
        lu, _, order = jax.lax.linalg.lu(equilibrated)
        pivot = jnp.abs(_diagonal(lu))

        def triangular(v, lower, transpose):
            return jax.lax.linalg.triangular_solve(
                lu,
                v[:, None],
                left_side=True,
                lower=lower,
                transpose_a=transpose,
                unit_diagonal=lower,
            )[:, 0]

        def solve(v):
            return triangular(triangular((scale * v)[order], True, False), False, False)

        def transpose_solve(v):
            v = triangular(triangular(v, False, True), True, True)
            return scale * jnp.zeros_like(v).at[order].set(v)

    bad = jnp.any(~(pivot > margin * n * jnp.finfo(matrix.dtype).eps * column))
    return solve, transpose_solve, bad


def _solve_lu(matrix, b, singular):
    return _solve_factorised(matrix, b, *lu_solver(matrix), singular, _SINGULAR)


def _solve_definite(matrix, b, singular):
    frozen = jax.lax.stop_gradient(matrix)
    # A stationary point of a maximum has a negative definite Jacobian, whose every diagonal entry
    # is negative.
    sign = jnp.where(frozen[0, 0] < 0, -1.0, 1.0).astype(matrix.dtype)
    # Round-off of the factorisation grows like the root of its length.
    solve, definite = definite_solver(sign * frozen, margin=2 * matrix.shape[0] ** 0.5)
    return _solve_factorised(
        matrix, b, lambda v: solve(sign * v), None, ~definite, singular, _INDEFINITE
    )


def definite_solver(
    matrix: Float[Array, "n n"], *, margin: float = 0
) -> tuple[Callable[[Array], Array], Bool[Array, ""]]:
    """Factorises a symmetric matrix.

    Args:
        matrix: one half of it is read.
        margin: pivots of up to this many units of round-off count as zero.

    Returns:
        The function that solves with it, and whether it is positive definite; if not, solutions
        mean nothing.
    """
    n = matrix.shape[0]
    if n <= written_out.LIMIT:
        factor = written_out.ldl(matrix)
        solve, pivots = factor.solve, jnp.stack(factor.diagonal)
        # A pivot is what remains of a diagonal entry; its scale is that entry, whatever the units.
        least = margin * jnp.finfo(matrix.dtype).eps * jnp.abs(jnp.diagonal(matrix))
        return solve, jnp.all(pivots > least)
    if margin:
        # Lowering the diagonal by the margin, a change no larger than the round-off of the
        # factorisation may be, makes it break down by itself where a pivot is within the margin.
        factor = 1 - margin * float(jnp.finfo(matrix.dtype).eps)
        matrix = jnp.where(jnp.eye(n, dtype=bool), factor * matrix, matrix)
    # LAPACK counts along columns: this transpose, and back, costs nothing, and none would cost two.
    upper = jax.lax.linalg.cholesky(matrix.T, symmetrize_input=False).T
    # A breakdown anywhere leaves NaN everywhere.
    return functools.partial(jax.scipy.linalg.cho_solve, (upper, False)), upper[-1, -1] > 0


def _diagonal(matrix):
    # A strided slice compiles faster than the gather behind `jnp.diagonal`.
    n = matrix.shape[0]
    return jax.lax.slice(matrix.reshape(-1), (0,), (n * n,), (n + 1,))


def _solve_factorised(matrix, b, solve, transpose_solve, bad, singular, message):
    """The solution of a factorised system, linear in `b`."""
    # The check goes into every solution as a factor of one. It is made once, outside of the solves,
    # which are traced several times, and no vector has to pass through it.
    one = vary_like(_checked(jnp.ones((), matrix.dtype), bad, singular, message), b)
    back = None
    if transpose_solve is not None:
        back = lambda _, v: transpose_solve(one * v)
    return jax.lax.custom_linear_solve(
        lambda v: matrix @ v, b, lambda _, v: solve(one * v), back, symmetric=back is None
    )


def _solve_lineax_matrix(matrix, b, solver, singular):
    tags = ()
    if isinstance(solver, lx.Cholesky):
        # A stationary point of a maximum has a negative definite Jacobian.
        sign = jnp.where(jnp.trace(matrix) < 0, -1.0, 1.0).astype(matrix.dtype)
        sign = jax.lax.stop_gradient(sign)
        matrix, b, tags = sign * matrix, sign * b, lx.positive_semidefinite_tag
    frozen = jax.lax.stop_gradient(matrix)

    def with_matrix(m):
        def solve(_, v):
            out = lx.linear_solve(lx.MatrixLinearOperator(m, tags), v, solver, throw=False)
            # Such methods return something for a singular matrix too: a compromise that leaves a
            # residual, or a vector so large that the right-hand side is lost in its round-off.
            eps, right = float(jnp.finfo(v.dtype).eps), jnp.max(jnp.abs(v))
            size = jnp.max(jnp.abs(m)) * jnp.max(jnp.abs(out.value))
            left = jnp.max(jnp.abs(m @ out.value - v))
            bad = ~(left <= eps**0.7 * (size + right)) | (m.shape[0] * eps * size > right)
            bad |= out.result != lx.RESULTS.successful
            return _checked(out.value, bad, singular, _SINGULAR)

        return solve

    return jax.lax.custom_linear_solve(
        lambda v: matrix @ v, b, with_matrix(frozen), with_matrix(frozen.T)
    )


def _checked(value, bad, singular, message):
    """`value`, which raises or turns into NaN where the linear system has no good solution."""
    if singular == "error":
        return raise_if(value, bad, message, DerivativeError)
    return jnp.where(bad, jnp.nan, value)


def _krylov(name, product, transpose, b, tolerance, precondition):
    settings: dict[str, Any] = dict(
        tolerance=tolerance, max_steps=max(10 * b.shape[0], 100), precondition=precondition
    )
    if name == "cg":
        # Conjugate gradients needs a positive definite matrix; a maximum gives a negative one.
        sign = jnp.where(jnp.dot(b, product(b)) < 0, -1.0, 1.0).astype(b.dtype)
        return conjugate_gradients(lambda v: sign * product(v), sign * b, **settings)
    if name == "normal_cg":
        settings["precondition"] = lambda v: v
        return conjugate_gradients(lambda v: transpose(product(v)), transpose(b), **settings)
    methods = {"bicgstab": bicgstab, "gmres": gmres, "bicgstab or gmres": bicgstab_or_gmres}
    return methods[name](product, b, **settings)


def _lineax(solver, product, b, precondition):
    struct = jax.ShapeDtypeStruct(b.shape, b.dtype)
    tags = lx.positive_semidefinite_tag if isinstance(solver, lx.CG) else ()
    operator = lx.FunctionLinearOperator(product, struct, tags)
    extra = {}
    if precondition is not None:
        extra["preconditioner"] = lx.FunctionLinearOperator(precondition, struct, tags)
    return lx.linear_solve(operator, b, solver, options=extra, throw=False)


def _with_needed_modes(product, struct, symmetric, name):
    """The product with dF/dx where F may have only one mode of differentiation."""
    try:
        transpose = jax.linear_transpose(product, struct)
        if not symmetric:
            jax.eval_shape(transpose, struct)
            return product
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InputError(
            f"F has no reverse-mode derivative, which the linear solver {name!r} needs ({error}); "
            "write F without it, or choose linear_solver='lu' if dF/dx fits in memory, or 'cg' if "
            "it is symmetric and definite"
        ) from error
    # Conjugate gradients never ask for the transpose, and may take it for the product. What JAX
    # leaves in the place of a derivative defined for reverse mode alone cannot be run, which its
    # own derivative tells before anything runs.
    try:
        jax.eval_shape(lambda v: jax.jvp(product, (v,), (v,)), struct)
        return product
    except NotImplementedError:
        return lambda v: transpose(v)[0]


def _solve_iterative(f, x, b, options):
    unravel = from_vector(x)
    point, b = vary_like((to_vector(x), b), (x, b))
    n, struct = point.shape[0], jax.eval_shape(lambda: b)
    solver = options.solver
    if isinstance(solver, str) and solver == "auto":
        solver = "cg" if options.symmetric else "bicgstab or gmres"
    eps = float(jnp.finfo(b.dtype).eps)
    tolerance, accepted = eps**0.7, eps**0.4
    if isinstance(solver, str) and solver == "lsmr":
        solver = lx.LSMR(rtol=tolerance, atol=tolerance)
    name = solver if isinstance(solver, str) else type(solver).__name__
    _, tangent = jax.linearize(lambda v: to_vector(f(unravel(v))), point)
    symmetric = name in ("cg", "CG")
    tangent = _with_needed_modes(tangent, struct, symmetric, name)
    inverse = options.preconditioner
    precondition = None if inverse is None else lambda v: to_vector(inverse(unravel(v)))

    def matvec(v):
        out = tangent(v)
        return out if options.ridge is None else out + options.ridge * v

    message = (
        f"the linear solve of the implicit derivative did not converge ({name}, {n} unknowns): "
        "dF/dx is singular, not finite, too badly conditioned, or not of the kind this method "
        "needs; choose another linear_solver ('gmres', 'normal_cg', 'lsmr', or 'lu' if it fits in "
        "memory), singular='minimum_norm', or a ridge"
    )

    def solve(product, v):
        # Cotangents can be so small that their squares underflow inside a Krylov method.
        largest = jnp.max(jnp.abs(v))
        unit = jnp.where(largest > 0, largest, 1)
        v = v / unit
        ended = jnp.asarray(True)
        if isinstance(solver, str):
            transpose = jax.linear_transpose(product, struct)
            keep = precondition or (lambda u: u)
            z = _krylov(solver, product, lambda u: transpose(u)[0], v, tolerance, keep)
        else:
            out = _lineax(solver, product, v, precondition)
            z, ended = out.value, out.result == lx.RESULTS.successful
        if options.singular == "minimum_norm":
            bad = ~ended | jnp.any(~jnp.isfinite(z))
        else:
            # The residual itself, not the method's own account of how it ended.
            bad = ~(jnp.max(jnp.abs(product(z) - v)) <= accepted)
        return _checked(z * unit, bad, options.singular, message)

    return jax.lax.custom_linear_solve(
        matvec, b, solve, None if symmetric else solve, symmetric=symmetric
    )
