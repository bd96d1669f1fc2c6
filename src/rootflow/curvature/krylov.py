"""Lanczos with full re-orthogonalisation: the plain recurrence, and the one with thick restarts.

Every new vector is made orthogonal to all the earlier ones, twice, so that round-off makes no ghost
copies of eigenvalues. What is left of a vector at the level of round-off is no new direction: there
the plain recurrence ends and the restarted one goes on from a random vector.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from .operators import Product, Vector


class Tridiagonal(NamedTuple):
    """The matrix of an operator in the Krylov basis of a start.

    Attributes:
        alphas: the diagonal, shape (steps,); zeros from `length` on.
        betas: beside the diagonal, shape (steps,): betas[j] couples j and j + 1.
        length: the steps that were made before the Krylov space was exhausted.
    """

    alphas: Float[Array, " m"]
    betas: Float[Array, " m"]
    length: Int[Array, ""]


def _roundoff(dtype) -> float:
    return 50 * float(jnp.finfo(dtype).eps)


def _orthogonal(w: Vector, basis: Float[Array, "m n"]) -> tuple[Vector, Float[Array, " m"]]:
    """The part of w orthogonal to the rows of `basis`, and its coordinates along them."""
    first = basis @ w
    w = w - first @ basis
    second = basis @ w
    return w - second @ basis, first + second


def tridiagonal(product: Product, start: Vector, steps: int) -> Tridiagonal:
    """At most `steps` steps of Lanczos from a unit vector (Lanczos 1950)."""
    n, dtype = start.shape[0], start.dtype

    def proceed(state):
        j, alive = state[0], state[1]
        return (j < steps) & alive

    def step(state):
        j, _, q, basis, alphas, betas, scale = state
        basis = basis.at[j].set(q)
        w = product(q)
        scale = jnp.maximum(scale, jnp.linalg.norm(w))
        w, along = _orthogonal(w, basis)
        beta = jnp.linalg.norm(w)
        alive = beta > _roundoff(dtype) * scale
        q = jnp.where(alive, w / jnp.where(alive, beta, 1), 0)
        alphas, betas = alphas.at[j].set(along[j]), betas.at[j].set(jnp.where(alive, beta, 0))
        return j + 1, alive, q, basis, alphas, betas, scale

    zeros = jnp.zeros(steps, dtype)
    state = (
        jnp.asarray(0), jnp.asarray(True), start, jnp.zeros((steps, n), dtype), zeros, zeros,
        jnp.zeros((), dtype),
    )  # fmt: skip
    length, _, _, _, alphas, betas, _ = jax.lax.while_loop(proceed, step, state)
    return Tridiagonal(alphas, betas, length)


def gauss(t: Tridiagonal) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
    """Nodes and weights of the Gauss quadrature of the start's spectral measure.

    Golub and Welsch (1969). Places past the end of the recurrence have weight zero, and the first
    node's place.
    """
    m = t.alphas.shape[0]
    index = jnp.arange(m)
    used = index < t.length
    betas = jnp.where(index + 1 < t.length, t.betas, 0)
    bound = jnp.max(jnp.abs(t.alphas)) + 2 * jnp.max(betas)
    # The filling has eigenvalues beyond all others: it mixes with none and comes out last.
    beyond = jnp.where(bound > 0, 2 * bound, 1)
    matrix = jnp.diag(jnp.where(used, t.alphas, beyond))
    matrix = matrix + jnp.diag(betas[:-1], 1) + jnp.diag(betas[:-1], -1)
    nodes, vectors = jnp.linalg.eigh(matrix, symmetrize_input=False)
    weights = jnp.where(used, vectors[0] ** 2, 0)
    return jnp.where(used, nodes, nodes[0]), weights / jnp.sum(weights)


class Ritz(NamedTuple):
    """Approximate eigenpairs at the wanted ends.

    Attributes:
        vectors: unit vectors in the order of `values`, shape (k, n).
        values: ascending, the low ones first, shape (k,).
        bounds: of the residuals |Hy - theta y| as the recurrence has them.
        converged: whether each bound is below the tolerance.
        products: with the operator.
    """

    vectors: Float[Array, "k n"]
    values: Float[Array, " k"]
    bounds: Float[Array, " k"]
    converged: Bool[Array, " k"]
    products: Int[Array, ""]


def _kept(low: int, high: int, basis: int) -> tuple[int, int]:
    """How many Ritz vectors a restart keeps at each end: the wanted and a share of the rest."""
    spare = basis - low - high
    keep_low = low + (spare // 3 if low else 0) // (2 if high else 1)
    keep_high = high + (spare // 3 if high else 0) // (2 if low else 1)
    keep_low = min(keep_low, basis - 1)
    return keep_low, min(keep_high, basis - 1 - keep_low)


def _random_direction(key: Key[Array, ""], vectors: Float[Array, "m n"]) -> Vector:
    """A random unit vector orthogonal to the rows of `vectors`."""
    n, dtype = vectors.shape[1], vectors.dtype
    fresh = jax.random.normal(key, (n,), dtype)
    fresh, _ = _orthogonal(fresh / jnp.linalg.norm(fresh), vectors)
    fresh = fresh / jnp.maximum(jnp.linalg.norm(fresh), jnp.finfo(dtype).tiny)
    # Once more: in a nearly full space little is left of a random vector.
    fresh, _ = _orthogonal(fresh, vectors)
    return fresh / jnp.maximum(jnp.linalg.norm(fresh), jnp.finfo(dtype).tiny)


def restarted(
    product: Product,
    start: Vector,
    key: Key[Array, ""],
    *,
    low: int,
    high: int,
    basis: int,
    tolerance: float,
    max_products: int,
) -> Ritz:
    """The `low` smallest and `high` largest eigenpairs: Lanczos with thick restarts.

    Wu and Simon (2000). When the basis is full, the Ritz vectors nearest to the wanted ends are
    kept and the recurrence goes on from them. Where an invariant subspace is found before, a random
    vector continues it, so that eigenvalues of higher multiplicity are found as well.

    Args:
        product: with the operator.
        start: a unit vector.
        key: for these vectors.
        low: how many of the smallest.
        high: how many of the largest.
        basis: vectors in memory; at least low + high + 2, or all n.
        tolerance: a pair has converged where its residual is at most this times the largest
            absolute Ritz value.
        max_products: no restart after so many products.
    """
    n, dtype, m = start.shape[0], start.dtype, basis
    keep_low, keep_high = _kept(low, high, basis)
    kept = keep_low + keep_high
    wanted = np.array([*range(low), *range(m - high, m)])
    stay = np.array([*range(keep_low), *range(m - keep_high, m)], int)

    def extend(j, state):
        vectors, inner, scale, coupling, count = state
        w = product(vectors[j])
        scale = jnp.maximum(scale, jnp.linalg.norm(w))
        w, along = _orthogonal(w, vectors)
        length = jnp.linalg.norm(w)
        ended = ~(length > _roundoff(dtype) * scale)
        fresh = _random_direction(jax.random.fold_in(key, count), vectors)
        # NaN goes on as NaN: it must not look like the end of the space.
        bad = ~jnp.isfinite(length)
        following = jnp.where(ended & ~bad, fresh, w / jnp.where(ended, 1, length))
        column = jnp.where(jnp.arange(m + 1) <= j, along, 0)[:m]
        coupling = jnp.where(ended & ~bad, 0, length)
        vectors = vectors.at[j + 1].set(following)
        return vectors, inner.at[:, j].set(column), scale, coupling, count + 1

    def cycle(state):
        vectors, inner, scale, first, count, *_ = state
        vectors, inner, scale, coupling, count = jax.lax.fori_loop(
            first, m, extend, (vectors, inner, scale, jnp.zeros((), dtype), count)
        )
        upper = jnp.triu(inner)
        values, s = jnp.linalg.eigh(upper + jnp.triu(inner, 1).T, symmetrize_input=False)
        bounds = coupling * jnp.abs(s[-1])
        goal = tolerance * jnp.max(jnp.abs(values))
        ritz = s.T @ vectors[:m]
        fine = bounds[wanted] <= goal
        following = jnp.zeros_like(vectors).at[:kept].set(ritz[stay]).at[kept].set(vectors[m])
        inner = jnp.zeros_like(inner).at[jnp.arange(kept), jnp.arange(kept)].set(values[stay])
        found = (ritz[wanted], values[wanted], bounds[wanted], fine)
        return following, inner, scale, jnp.asarray(kept), count, found

    def proceed(state):
        *_, count, (_, values, _, fine) = state
        unfinished = ~jnp.all(fine) & jnp.all(jnp.isfinite(values))
        return unfinished & (count + (m - kept) <= max_products)

    k = low + high
    zero = jnp.zeros((), dtype)
    found = (
        jnp.zeros((k, n), dtype), jnp.zeros(k, dtype), jnp.full(k, jnp.inf, dtype),
        jnp.zeros(k, bool),
    )  # fmt: skip
    vectors = jnp.zeros((m + 1, n), dtype).at[0].set(start)
    state = (vectors, jnp.zeros((m, m), dtype), zero, jnp.asarray(0), jnp.asarray(0), found)
    # With the whole space in the basis nothing is left to restart for.
    state = cycle(state) if m >= n else jax.lax.while_loop(proceed, cycle, state)
    count, (vectors, values, bounds, fine) = state[-2:]
    return Ritz(vectors, values, bounds, fine, count)
