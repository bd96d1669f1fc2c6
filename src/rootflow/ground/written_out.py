"""Systems of a few unknowns, their elimination written out number by number.

LAPACK works on one small matrix after the other. Written out, the elimination is a handful of
elementwise operations, which a compiler fuses and `vmap` runs over a whole batch at once.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

#: Beyond this many unknowns the program grows faster than the time it saves (an inverse takes a CPU
#: 0.05 s to compile for three unknowns, 0.4 s for four).
LIMIT = 3

Number = Float[Array, ""]


class LU(NamedTuple):
    """P A = L U with partial pivoting; L has a unit diagonal and shares `rows` with U.

    Attributes:
        rows: the numbers of L and U, row by row.
        swaps: conditional exchanges of two rows, in the order in which they were made.
    """

    rows: list[list[Number]]
    swaps: list[tuple[int, int, Bool[Array, ""]]]

    def pivots(self) -> Float[Array, " n"]:
        """The diagonal of U."""
        return jnp.stack([row[i] for i, row in enumerate(self.rows)])

    def solve(self, b: Float[Array, " n"]) -> Float[Array, " n"]:
        """The solution of A x = b."""
        x = [b[i] for i in range(len(self.rows))]
        for i, j, flag in self.swaps:
            x[i], x[j] = jnp.where(flag, x[j], x[i]), jnp.where(flag, x[i], x[j])
        for i, row in enumerate(self.rows):
            for j in range(i):
                x[i] = x[i] - row[j] * x[j]
        for i in reversed(range(len(x))):
            for j in range(i + 1, len(x)):
                x[i] = x[i] - self.rows[i][j] * x[j]
            x[i] = x[i] / self.rows[i][i]
        return jnp.stack(x)

    def solve_transposed(self, b: Float[Array, " n"]) -> Float[Array, " n"]:
        """The solution of A^T x = b."""
        n = len(self.rows)
        x = [b[i] for i in range(n)]
        for i in range(n):
            for j in range(i):
                x[i] = x[i] - self.rows[j][i] * x[j]
            x[i] = x[i] / self.rows[i][i]
        for i in reversed(range(n)):
            for j in range(i + 1, n):
                x[i] = x[i] - self.rows[j][i] * x[j]
        for i, j, flag in reversed(self.swaps):
            x[i], x[j] = jnp.where(flag, x[j], x[i]), jnp.where(flag, x[i], x[j])
        return jnp.stack(x)


def _exchanged(rows: list[list[Number]], k: int, i: int, column: int) -> Bool[Array, ""]:
    """Exchanges rows k and i where the pivot of the second is the larger; returns whether."""
    flag = jnp.abs(rows[i][column]) > jnp.abs(rows[k][column])
    pairs = list(zip(rows[k], rows[i], strict=True))
    rows[k] = [jnp.where(flag, low, top) for top, low in pairs]
    rows[i] = [jnp.where(flag, top, low) for top, low in pairs]
    return flag


def inverse(a: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The inverse by elimination with partial pivoting; not finite where there is none."""
    n = a.shape[0]
    rows = [[*a[i], *(float(i == j) for j in range(n))] for i in range(n)]
    # Columns that are done with are dropped from the front of the rows.
    for k in range(n):
        for i in range(k + 1, n):
            _exchanged(rows, k, i, 0)
        scale = 1 / rows[k][0]
        pivot = [x * scale for x in rows[k][1:]]
        rows = [
            pivot if i == k else [x - row[0] * p for x, p in zip(row[1:], pivot, strict=True)]
            for i, row in enumerate(rows)
        ]
    return jnp.stack([jnp.stack(row) for row in rows])


def lu(a: Float[Array, "n n"]) -> LU:
    """Factorises a small matrix; a pivot that is zero stays zero and spoils the solution."""
    n = a.shape[0]
    rows = [[a[i, j] for j in range(n)] for i in range(n)]
    swaps = []
    for k in range(n):
        for i in range(k + 1, n):
            swaps.append((k, i, _exchanged(rows, k, i, k)))
        for i in range(k + 1, n):
            ratio = rows[i][k] / rows[k][k]
            tail = [rows[i][j] - ratio * rows[k][j] for j in range(k + 1, n)]
            rows[i] = [*rows[i][:k], ratio, *tail]
    return LU(rows, swaps)


class LDL(NamedTuple):
    """A = L D L^T for a symmetric A without pivoting; stable for definite A only."""

    lower: list[list[Number]]
    diagonal: list[Number]

    def solve(self, b: Float[Array, " n"]) -> Float[Array, " n"]:
        """The solution of A x = b."""
        n = len(self.diagonal)
        x = [b[i] for i in range(n)]
        for i in range(n):
            for j in range(i):
                x[i] = x[i] - self.lower[i][j] * x[j]
        x = [v / d for v, d in zip(x, self.diagonal, strict=True)]
        for i in reversed(range(n)):
            for j in range(i + 1, n):
                x[i] = x[i] - self.lower[j][i] * x[j]
        return jnp.stack(x)


def ldl(a: Float[Array, "n n"]) -> LDL:
    """Factorises a small symmetric matrix, of which the lower half is read."""
    n = a.shape[0]
    lower: list[list[Number]] = []
    diagonal: list[Number] = []
    for i in range(n):
        scaled: list[Number] = []
        for j in range(i):
            total = a[i, j]
            for k in range(j):
                total = total - scaled[k] * lower[j][k]
            scaled.append(total)
        lower.append([u / d for u, d in zip(scaled, diagonal, strict=True)])
        pivot = a[i, i]
        for u, v in zip(scaled, lower[i], strict=True):
            pivot = pivot - u * v
        diagonal.append(pivot)
    return LDL(lower, diagonal)
