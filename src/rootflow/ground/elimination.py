"""Linear systems with one matrix and many right-hand sides, as the stages of a step need them.

The matrix is factorised once. Derivatives reuse the factors, dx = W^-1 (db - dW x), and never go
through the elimination; they are right in both modes and to any order. A matrix that is singular
or not finite gives a solution that is not finite, which the loop answers with a smaller step.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from . import written_out
from .krylov import gmres

Vector = Float[Array, " n"]
Solve = Callable[[Vector], Vector]

#: A residual that is so many times larger than asked for is no rounding: the iteration gave up.
_GIVEN_UP = 1e3
#: An iteration takes no more steps than this, however large the system: a step of the method that
#: would need more is better made smaller.
_MOST_STEPS = 2000
#: Up to this size the inverse is formed, which leaves a small product for each right-hand side.
INVERTED = 32


def factorise(matrix: Float[Array, "n n"]) -> Solve:
    """The solution of `matrix x = b` as a function of b."""
    if matrix.shape[0] > INVERTED:
        return _factorise_lu(matrix)
    inverted = inverse(matrix)
    return lambda b: _product(inverted, b)


def _product(matrix, b):
    # Small products are faster as plain arithmetic than as calls.
    return jnp.sum(matrix * b, axis=1) if matrix.shape[0] <= written_out.LIMIT else matrix @ b


@jax.custom_jvp
def inverse(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The inverse by elimination with partial pivoting; not finite where there is none."""
    n = matrix.shape[0]
    if n <= written_out.LIMIT:
        return written_out.inverse(matrix)
    lu, _, order = lax.linalg.lu(matrix)
    right = jnp.eye(n, dtype=matrix.dtype)[order]
    return _triangular(lu, _triangular(lu, right, True), False)


@inverse.defjvp
def _inverse_jvp(primals, tangents):
    (matrix,), (dot,) = primals, tangents
    inverted = inverse(matrix)
    return inverted, -inverted @ dot @ inverted


def _triangular(lu, b, lower, transpose=False):
    return lax.linalg.triangular_solve(
        lu, b, left_side=True, lower=lower, transpose_a=transpose, unit_diagonal=lower
    )


def _factorise_lu(matrix):
    lu, _, order = lax.linalg.lu(lax.stop_gradient(matrix))

    def solve(_, b):
        return _triangular(lu, _triangular(lu, b[order, None], True), False)[:, 0]

    def transpose_solve(_, b):
        v = _triangular(lu, _triangular(lu, b[:, None], False, True), True, True)[:, 0]
        return jnp.zeros_like(v).at[order].set(v)

    return lambda b: lax.custom_linear_solve(lambda v: matrix @ v, b, solve, transpose_solve)


def krylov(
    product: Callable[[Vector], Vector],
    n: int,
    tolerance: float,
    precondition: Solve = lambda v: v,
    transposed: Solve = lambda v: v,
    iterate: Callable[..., Vector] = gmres,
) -> Solve:
    """The solution of a system whose matrix is known by its products only.

    Args:
        product: the matrix times a vector; linear.
        n: the number of unknowns.
        tolerance: size of the residual, relative to the right-hand side, at which to stop.
        precondition: the solution of a system with a similar matrix.
        transposed: the same for its transpose.
        iterate: the method, of `ground.krylov`.
    """

    def solve_with(precondition):
        def solve(product, b):
            size = jnp.max(jnp.abs(b))
            unit = jnp.where(size > 0, size, 1)
            x = iterate(
                product, b / unit, tolerance=tolerance, precondition=precondition,
                max_steps=min(max(10 * n, 100), _MOST_STEPS),
            )  # fmt: skip
            # An iteration that gave up is no solution: NaN is answered with a smaller step.
            left = jnp.linalg.norm(product(x) - b / unit)
            good = left <= _GIVEN_UP * tolerance * jnp.linalg.norm(b / unit)
            return jnp.where(good, x * unit, jnp.nan)

        return solve

    forward, backward = solve_with(precondition), solve_with(transposed)
    return lambda b: lax.custom_linear_solve(product, b, forward, backward)
