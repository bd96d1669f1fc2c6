"""Linear systems of the grids, by the core's solvers: tridiagonal ones and symmetric ones."""

from collections.abc import Callable

import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float

from ..ground.elimination import krylov
from ..ground.krylov import conjugate_gradients

Vector = Float[Array, " n"]


def tridiagonal(
    lower: Float[Array, " n-1"],
    diagonal: Vector,
    upper: Float[Array, " n-1"],
    right: Vector,
) -> Vector:
    """The solution of a tridiagonal system, in linear time; differentiable in everything.

    For a matrix whose columns are dominated by the diagonal (that of a conservation law) no pivots
    are exchanged, and with negative entries beside the diagonal and a right side that is not
    negative nothing is ever subtracted: the solution is not negative either, to the last bit.
    """
    dtype = jnp.result_type(diagonal, right)
    lower, diagonal, upper, right = (jnp.asarray(v, dtype) for v in (lower, diagonal, upper, right))
    operator = lx.TridiagonalLinearOperator(diagonal, lower, upper)
    return lx.linear_solve(operator, right, lx.Tridiagonal(), throw=False).value


def positive_definite(
    product: Callable[[Vector], Vector],
    right: Vector,
    precondition: Callable[[Vector], Vector],
    tolerance: float,
) -> Vector:
    """The solution of a symmetric positive definite system that is known by its products.

    By preconditioned conjugate gradients; not a number where these do not converge. Differentiable
    in everything, by the same solve.

    Args:
        product: the matrix times a vector.
        right: the right-hand side.
        precondition: a symmetric approximation of the inverse.
        tolerance: the residual, relative to the right-hand side, at which to stop.
    """
    solve = krylov(product, right.size, tolerance, precondition, precondition, conjugate_gradients)
    return solve(right)
