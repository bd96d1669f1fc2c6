"""Banded systems, by elimination with partial pivoting; derivatives as in `elimination`.

A long narrow band is cut into chunks that are eliminated side by side, since one row after the
other is slow on any machine; what couples them is a small banded system again.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from .elimination import Solve, Vector

#: A band of fewer rows, or of more diagonals besides the main one, is not cut.
_LONG, _NARROW = 2000, 24


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

    def transpose(self) -> "Band":
        """The transposed matrix."""
        n, width = self.rows.shape
        padded = jnp.pad(self.rows, ((self.upper, self.lower), (0, 0)))
        columns = [padded[k : k + n, width - 1 - k] for k in range(width)]
        if not self.lower:
            columns.append(jnp.zeros_like(columns[0]))
        return Band(jnp.stack(columns, axis=1), self.upper, max(self.lower, 1))


def factorise_band(band: Band) -> Solve:
    """The solution of a banded system as a function of its right-hand side.

    A band that is long and narrow is cut; pivots are then chosen within the chunks.
    """
    n, width = band.rows.shape
    if n > _LONG and width <= _NARROW:
        frozen = band._replace(rows=lax.stop_gradient(band.rows))
        forward = _cut(frozen)
        return lambda b: lax.custom_linear_solve(
            band.product, b, lambda _, b: forward(b), lambda _, b: _cut(frozen.transpose())(b)
        )
    factors = _eliminate(lax.stop_gradient(band.rows), band.lower)
    return lambda b: lax.custom_linear_solve(
        band.product, b, lambda _, b: _solve(factors, b), lambda _, b: _solve_transposed(factors, b)
    )


class _Factors(NamedTuple):
    """What elimination leaves, row by row.

    Attributes:
        pivots: the rows of the upper triangular factor.
        factors: by what each was subtracted from the rows below it.
        picks: which row of the window it was.
    """

    pivots: Float[Array, "n width"]
    factors: Float[Array, "n lower"]
    picks: Bool[Array, "n window"]


def _eliminate(rows: Float[Array, "n width"], lower: int) -> _Factors:
    """A scan over the rows, with a window of `lower + 1` of them: the work is linear in n.

    The pivots fill in at most `lower` diagonals above the band, as in LINPACK (Dongarra et al.
    1979, chapter 2).
    """
    # The window begins as the rows 0 to `lower`, from column 0 on.
    padded = jnp.pad(rows, ((0, lower + 1), (0, 0)))
    first = [jnp.pad(padded[i, lower - i :], (0, lower - i)) for i in range(lower + 1)]

    def eliminate(window, new):
        pick = jnp.arange(lower + 1) == jnp.argmax(jnp.abs(window[:, 0]))
        pivot = jnp.sum(jnp.where(pick[:, None], window, 0), axis=0)
        window = jnp.where(pick[:, None], window[0], window)
        factors = window[1:, 0] / pivot[0]
        below = window[1:, 1:] - factors[:, None] * pivot[1:]
        window = jnp.concatenate([jnp.pad(below, ((0, 0), (0, 1))), new[None]])
        return window, _Factors(pivot, factors, pick)

    return lax.scan(eliminate, jnp.stack(first), padded[lower + 1 :])[1]


def _swap(window: Array, pick: Array) -> tuple[Array, Array]:
    """The picked entry, and the window with its first entry in that place."""
    return jnp.sum(jnp.where(pick, window, 0)), jnp.where(pick, window[0], window)


def _solve(done: _Factors, b: Vector) -> Vector:
    lower, width = done.factors.shape[1], done.pivots.shape[1]

    def forward(window, row):
        factors, pick, new = row
        top, window = _swap(window, pick)
        return jnp.append(window[1:] - factors * top, new), top

    b = jnp.pad(b, (0, lower + 1))
    _, b = lax.scan(forward, b[: lower + 1], (done.factors, done.picks, b[lower + 1 :]))

    def backward(known, row):
        pivot, right = row
        x = (right - jnp.sum(pivot[1:] * known)) / pivot[0]
        return jnp.concatenate([x[None], known[:-1]]), x

    return lax.scan(backward, jnp.zeros(width - 1, b.dtype), (done.pivots, b), reverse=True)[1]


def _solve_transposed(done: _Factors, b: Vector) -> Vector:
    lower, width = done.factors.shape[1], done.pivots.shape[1]

    def forward(pending, row):
        pivot, right = row
        x = (right - pending[0]) / pivot[0]
        return jnp.append(pending[1:], 0) + pivot[1:] * x, x

    _, b = lax.scan(forward, jnp.zeros(width - 1, b.dtype), (done.pivots, b))

    def backward(known, row):
        factors, pick, right = row
        top = right - jnp.sum(factors * known)
        chosen, window = _swap(jnp.concatenate([top[None], known]), pick)
        window = window.at[0].set(chosen)
        return window[:-1], window[-1]

    # Row i of what comes out is the unknown i + lower; the first ones are still in the window.
    rows = (done.factors, done.picks, b)
    known, x = lax.scan(backward, jnp.zeros(lower, b.dtype), rows, reverse=True)
    return jnp.concatenate([known, x])[: b.shape[0]]


def _cut(band: Band) -> Solve:
    """The solution by chunks: each alone, then what their ends have to do with one another.

    With y the solution of a chunk alone, and V and W its answers to the last unknowns s of the
    chunk before and the first ones t of the one after, x = y - V s - W t. Written for the first
    and last unknowns of every chunk this is a system for these alone.

    Source: A. Sameh and D. Kuck, "On stable parallel linear system solvers", Journal of the ACM 25
    (1978); E. Polizzi and A. Sameh, "A parallel hybrid banded system solver: the SPIKE algorithm",
    Parallel Computing 32 (2006).
    """
    lower, upper, (n, width) = band.lower, band.upper, band.rows.shape
    ends = lower + upper
    chunks = max(math.isqrt(n // ends), 1)
    length = -(-n // chunks)
    more = chunks * length - n
    identity = jnp.zeros((more, width), band.rows.dtype).at[:, lower].set(1)
    rows = jnp.concatenate([band.rows, identity]).reshape(chunks, length, width)
    column = np.arange(length)[:, None] + np.arange(-lower, upper + 1)
    alone = jnp.where((column >= 0) & (column < length), rows, 0)
    factors = jax.vmap(lambda r: _eliminate(r, lower))(alone)
    solve = jax.vmap(_solve)
    solve_all = jax.vmap(solve, (None, 1), 1)  # many right-hand sides: (chunks, k, length)
    before, after = (
        solve_all(factors, side) for side in _couplings(rows, lower, upper)
    )  # (chunks, lower, length), (chunks, upper, length)

    def tips(x):
        """The first `upper` and the last `lower` of each chunk."""
        return jnp.concatenate([x[..., :upper], x[..., length - lower :]], axis=-1)

    eye = jnp.broadcast_to(jnp.eye(ends, dtype=rows.dtype), (chunks, ends, ends))
    sides = [jnp.swapaxes(tips(before), 1, 2), eye, jnp.swapaxes(tips(after), 1, 2)]
    stairs = _staircase(jnp.concatenate(sides, axis=2))
    small = factorise_band(Band(stairs, ends - 1 + lower, ends - 1 + upper))

    def whole(b):
        y = solve(factors, jnp.pad(b, (0, more)).reshape(chunks, length))
        met = small(tips(y).ravel()).reshape(chunks, ends)
        first, last = met[:, :upper], met[:, upper:]
        none = jnp.zeros_like
        s = jnp.concatenate([none(last[:1]), last[:-1]])
        t = jnp.concatenate([first[1:], none(first[:1])])
        x = y - jnp.einsum("pk,pki->pi", s, before) - jnp.einsum("pk,pki->pi", t, after)
        return x.ravel()[:n]

    return whole


def _couplings(rows: Float[Array, "chunks length width"], lower: int, upper: int):
    """The columns of each chunk that belong to the unknowns before and after it."""
    chunks, length, _ = rows.shape
    before = jnp.zeros((chunks, lower, length), rows.dtype)
    after = jnp.zeros((chunks, upper, length), rows.dtype)
    for i in range(lower):
        # Row i has the columns i - lower, ..., -1 in the chunk before.
        before = before.at[:, i:, i].set(rows[:, i, : lower - i])
    for i in range(1, upper + 1):
        # The row i from the end has the columns 0, ..., upper - i in the one after.
        after = after.at[:, : upper + 1 - i, length - i].set(rows[:, length - i, lower + i :])
    return before, after


def _staircase(blocks: Float[Array, "chunks ends columns"]) -> Float[Array, "rows width"]:
    """Blocks of rows, each beginning `ends` columns after the one before, as the rows of a band.

    It has `ends - 1` more columns on either side than the blocks have beside the diagonal one.
    """
    chunks, ends, columns = blocks.shape
    width = 3 * ends - 1
    place = np.arange(ends)[:, None] + np.arange(width) - (ends - 1)
    inside = (place >= 0) & (place < columns)
    picked = blocks[:, np.arange(ends)[:, None], np.clip(place, 0, columns - 1)]
    return jnp.where(inside, picked, 0).reshape(chunks * ends, width)
