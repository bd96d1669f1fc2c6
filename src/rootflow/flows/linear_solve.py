"""Linear systems with one matrix and many right-hand sides, as the stages of a step need them.

The matrix is factorised once. Derivatives reuse the factors, dx = W^-1 (db - dW x), and never go
through the elimination; they are right in both modes and to any order. A matrix that is singular
or not finite gives a solution that is not finite, which the loop answers with a smaller step.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ..roots.krylov import gmres

Vector = Float[Array, " n"]
Solve = Callable[[Vector], Vector]

#: Up to this size the elimination is unrolled: it is one piece of arithmetic for the compiler, and
#: vectorised under `vmap`, where LAPACK is called for one member after the other. Beyond it the
#: compile time grows too fast (measured on a CPU: 0.05 s for three unknowns, 0.4 s for four).
UNROLLED = 3
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
    return jnp.sum(matrix * b, axis=1) if matrix.shape[0] <= UNROLLED else matrix @ b


@jax.custom_jvp
def inverse(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The inverse by elimination with partial pivoting; not finite where there is none."""
    n = matrix.shape[0]
    if n <= UNROLLED:
        return _unrolled_inverse(matrix)
    lu, _, order = lax.linalg.lu(matrix)
    right = jnp.eye(n, dtype=matrix.dtype)[order]
    return _triangular(lu, _triangular(lu, right, True), False)


@inverse.defjvp
def _inverse_jvp(primals, tangents):
    (matrix,), (dot,) = primals, tangents
    inverted = inverse(matrix)
    return inverted, -inverted @ dot @ inverted


def _unrolled_inverse(matrix):
    n = matrix.shape[0]
    eye = jnp.eye(n, dtype=matrix.dtype)
    rows = [[*matrix[i], *eye[i]] for i in range(n)]
    # Columns that are done with are dropped from the front of the rows.
    for k in range(n):
        for i in range(k + 1, n):
            larger = jnp.abs(rows[i][0]) > jnp.abs(rows[k][0])
            pairs = list(zip(rows[i], rows[k], strict=True))
            rows[k] = [jnp.where(larger, a, b) for a, b in pairs]
            rows[i] = [jnp.where(larger, b, a) for a, b in pairs]
        scale = 1 / rows[k][0]
        pivot = [x * scale for x in rows[k][1:]]
        rows = [
            pivot if i == k else [x - row[0] * p for x, p in zip(row[1:], pivot, strict=True)]
            for i, row in enumerate(rows)
        ]
    return jnp.stack([jnp.stack(row) for row in rows])


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


class Band(NamedTuple):
    """A banded matrix: row i holds the columns i - lower, ..., i + upper (zero outside).

    Attributes:
        rows: the rows.
        lower: the number of diagonals below the main one.
        upper: the number of diagonals above it; at least 1.
    """

    rows: Float[Array, "n width"]
    lower: int
    upper: int

    def product(self, v: Vector) -> Vector:
        """The matrix times a vector."""
        n, width = self.rows.shape
        padded = jnp.pad(v, (self.lower, self.upper))
        windows = jnp.stack([padded[j : j + n] for j in range(width)], axis=1)
        return jnp.sum(self.rows * windows, axis=1)


def factorise_band(band: Band) -> Solve:
    """The solution of a banded system, by elimination with partial pivoting within the band.

    A scan over the rows, with a window of `lower + 1` of them: the work is linear in n. The pivots
    fill in at most `lower` diagonals above the band, as in LINPACK (Dongarra et al. 1979, chapter
    2).
    """
    lower, width = band.lower, band.lower + band.upper + 1
    # The window begins as the rows 0 to `lower`, from column 0 on.
    padded = jnp.pad(lax.stop_gradient(band.rows), ((0, lower + 1), (0, 0)))
    first = [jnp.pad(padded[i, lower - i :], (0, lower - i)) for i in range(lower + 1)]

    def eliminate(window, new):
        pick = jnp.arange(lower + 1) == jnp.argmax(jnp.abs(window[:, 0]))
        pivot = jnp.sum(jnp.where(pick[:, None], window, 0), axis=0)
        window = jnp.where(pick[:, None], window[0], window)
        factors = window[1:, 0] / pivot[0]
        below = window[1:, 1:] - factors[:, None] * pivot[1:]
        return jnp.concatenate([jnp.pad(below, ((0, 0), (0, 1))), new[None]]), (
            pivot,
            factors,
            pick,
        )

    _, (pivots, factors, picks) = lax.scan(eliminate, jnp.stack(first), padded[lower + 1 :])

    def swap(window, pick):
        """The picked entry, and the window with its first entry in that place."""
        return jnp.sum(jnp.where(pick, window, 0)), jnp.where(pick, window[0], window)

    def solve(_, b):
        def forward(window, row):
            factors, pick, new = row
            top, window = swap(window, pick)
            return jnp.append(window[1:] - factors * top, new), top

        b = jnp.pad(b, (0, lower + 1))
        _, b = lax.scan(forward, b[: lower + 1], (factors, picks, b[lower + 1 :]))

        def backward(known, row):
            pivot, right = row
            x = (right - jnp.sum(pivot[1:] * known)) / pivot[0]
            return jnp.concatenate([x[None], known[:-1]]), x

        return lax.scan(backward, jnp.zeros(width - 1, b.dtype), (pivots, b), reverse=True)[1]

    def transpose_solve(_, b):
        def forward(pending, row):
            pivot, right = row
            x = (right - pending[0]) / pivot[0]
            return jnp.append(pending[1:], 0) + pivot[1:] * x, x

        _, b = lax.scan(forward, jnp.zeros(width - 1, b.dtype), (pivots, b))

        def backward(known, row):
            factors, pick, right = row
            top = right - jnp.sum(factors * known)
            chosen, window = swap(jnp.concatenate([top[None], known]), pick)
            window = window.at[0].set(chosen)
            return window[:-1], window[-1]

        # Row i of what comes out is the unknown i + lower; the first ones are still in the window.
        known, x = lax.scan(backward, jnp.zeros(lower, b.dtype), (factors, picks, b), reverse=True)
        return jnp.concatenate([known, x])[: b.shape[0]]

    return lambda b: lax.custom_linear_solve(band.product, b, solve, transpose_solve)


def krylov(product: Callable[[Vector], Vector], n: int, tolerance: float) -> Solve:
    """The solution of a system whose matrix is known by its products only, by GMRES.

    Args:
        product: the matrix times a vector; linear.
        n: the number of unknowns.
        tolerance: size of the residual, relative to the right-hand side, at which to stop.
    """

    def solve(product, b):
        size = jnp.max(jnp.abs(b))
        unit = jnp.where(size > 0, size, 1)
        steps = max(10 * n, 100)
        x = gmres(product, b / unit, tolerance=tolerance, max_steps=steps, precondition=lambda v: v)
        return x * unit

    return lambda b: lax.custom_linear_solve(product, b, solve, solve)
