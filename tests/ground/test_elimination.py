"""Elimination: against the linear algebra of NumPy and SciPy, with its derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sparse

from rootflow.ground import banded, elimination, written_out

RANDOM = np.random.default_rng(0)


def same_with_derivatives(ours, plain, matrix, b, direction):
    """Values, gradients, and second derivatives in two mixed modes."""
    np.testing.assert_allclose(ours(matrix, b), plain(matrix, b), rtol=1e-9, atol=1e-11)

    def loss(solve):
        return lambda matrix, b: jnp.sum(jnp.sin(solve(matrix, b)))

    def everything(solve):
        gradient = jax.grad(loss(solve), (0, 1))
        forward = jax.jvp(gradient, (matrix, b), (direction, b))
        backward = jax.grad(lambda m: jnp.vdot(gradient(m, b)[0], direction))(matrix)
        return forward, backward

    for a, e in zip(
        *map(jax.tree.leaves, map(jax.jit(everything, static_argnums=0), (ours, plain)))
    ):
        # Derivatives by entries that are zero by construction are not asked for.
        mask = direction != 0 if a.shape == direction.shape else True
        scale = np.abs(e).max()
        np.testing.assert_allclose(np.where(mask, a, 0), np.where(mask, e, 0), atol=1e-8 * scale)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 40])  # unrolled; inverse by LAPACK; LU
def test_dense_systems(n):
    matrix = RANDOM.normal(size=(n, n))
    matrix[0, 0] = 0.0 if n > 1 else 2.0  # needs pivoting
    direction = jnp.asarray(RANDOM.normal(size=(n, n)))
    b = jnp.asarray(RANDOM.normal(size=n))
    same_with_derivatives(
        lambda m, b: elimination.factorise(m)(b), jnp.linalg.solve, jnp.asarray(matrix), b,
        direction,
    )  # fmt: skip


@pytest.mark.parametrize("n", [1, 2, 3, 5, 40])
def test_singular_and_non_finite_systems_are_not_finite(n):
    for bad in (jnp.zeros((n, n)), jnp.full((n, n), jnp.nan)):
        assert not np.isfinite(elimination.factorise(bad)(jnp.ones(n))).any()


@pytest.mark.parametrize("lower, upper", [(1, 1), (0, 1), (3, 2)])
def test_banded_systems(lower, upper):
    n = 11
    place = np.arange(n)[:, None] + np.arange(-lower, upper + 1)
    inside = (place >= 0) & (place < n)
    columns = np.clip(place, 0, n - 1)

    def dense(rows):
        index = np.broadcast_to(np.arange(n)[:, None], place.shape)
        return jnp.zeros((n, n)).at[index, columns].add(jnp.where(inside, rows, 0))

    rows, direction = np.where(inside, RANDOM.normal(size=(2, *place.shape)), 0)
    if lower:
        rows[1, lower] = 0.0  # needs pivoting
    same_with_derivatives(
        lambda r, b: banded.factorise_band(banded.Band(r, lower, upper))(b),
        lambda r, b: jnp.linalg.solve(dense(r), b), jnp.asarray(rows),
        jnp.asarray(RANDOM.normal(size=n)), jnp.asarray(direction),
    )  # fmt: skip


@pytest.mark.parametrize("lower, upper", [(1, 1), (0, 1), (3, 2)])
def test_long_bands_are_solved_in_chunks(lower, upper):
    n = banded._LONG + 11
    place = np.arange(n)[:, None] + np.arange(-lower, upper + 1)
    inside = (place >= 0) & (place < n)
    rows = np.where(inside, RANDOM.normal(size=place.shape), 0)
    rows[:, lower] += 2 * np.sign(rows[:, lower])
    i, k = np.nonzero(inside)
    matrix = sparse.csc_matrix((rows[i, k], (i, place[i, k])), (n, n))
    b = RANDOM.normal(size=n)
    band = banded.Band(jnp.asarray(rows), lower, upper)
    np.testing.assert_allclose(band.transpose().product(b), matrix.T @ b, rtol=1e-12, atol=1e-12)

    @jax.jit
    def both(rows, b):
        solve = lambda b: banded.factorise_band(band._replace(rows=rows))(b)
        x, pull = jax.vjp(solve, b)
        return x, pull(b)[0]

    x, pulled = both(band.rows, b)
    np.testing.assert_allclose(x, sparse.linalg.spsolve(matrix, b), rtol=1e-8, atol=1e-9)
    expected = sparse.linalg.spsolve(sparse.csc_matrix(matrix.T), b)
    np.testing.assert_allclose(pulled, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_written_out_elimination_is_that_of_lapack(n):
    for seed in range(5):
        a = np.random.default_rng(seed).normal(size=(n, n))
        a[0, 0] = 0.0 if n > 1 else a[0, 0]  # a pivot that must be exchanged
        b = np.arange(1.0, n + 1)
        factor = written_out.lu(jnp.asarray(a))
        np.testing.assert_allclose(factor.solve(jnp.asarray(b)), np.linalg.solve(a, b), rtol=1e-9)
        np.testing.assert_allclose(
            factor.solve_transposed(jnp.asarray(b)), np.linalg.solve(a.T, b), rtol=1e-9
        )
        np.testing.assert_allclose(
            np.abs(np.prod(factor.pivots())), np.abs(np.linalg.det(a)), rtol=1e-9
        )
        definite = a @ a.T + np.eye(n)
        found = written_out.ldl(jnp.asarray(definite)).solve(jnp.asarray(b))
        np.testing.assert_allclose(found, np.linalg.solve(definite, b), rtol=1e-9)
