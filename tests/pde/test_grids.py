import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.fft import dctn

import rootflow as rf
from rootflow import pde

BOX = pde.Grid(((0.0, 2.0), (-1.0, 0.5)), (7, 9))
CUBE = pde.Grid(((0.0, 1.0), (0.0, 2.0), (0.0, 3.0)), (4, 3, 5))
LINE = pde.Grid(((0.0, 5.0),), (11,))
BALL = pde.RadialGrid(2.0, 12, dim=4, grading=2.0)


def dense(grid):
    """The Laplacian as a matrix."""
    return jax.jacfwd(lambda v: grid.laplacian(v.reshape(grid.shape)).ravel())(
        jnp.zeros(np.prod(grid.shape))
    )


@pytest.mark.parametrize("grid", [LINE, BOX, CUBE, BALL])
def test_helmholtz_is_the_dense_solve(grid):
    rng = np.random.default_rng(0)
    f = jnp.asarray(rng.normal(size=grid.shape))
    for a0, a1 in ((1.0, 1.0), (3.0, 0.2), (2.0, 0.0)):
        matrix = a0 * jnp.eye(f.size) - a1 * dense(grid)
        exact = np.linalg.solve(matrix, f.ravel()).reshape(grid.shape)
        np.testing.assert_allclose(grid.helmholtz(f, a0, a1), exact, atol=1e-12)
    # Its derivative in the coefficient: du/da1 = M^-1 Δ u.
    u = grid.helmholtz(f, 1.0, 0.5)
    slope = jax.jacfwd(lambda a1: grid.helmholtz(f, 1.0, a1))(0.5)
    np.testing.assert_allclose(slope, grid.helmholtz(grid.laplacian(u), 1.0, 0.5), atol=1e-10)


def test_the_norm_has_a_derivative_at_zero():
    np.testing.assert_array_equal(jax.grad(BALL.norm)(jnp.zeros(12)), 0.0)
    np.testing.assert_allclose(BALL.norm(jnp.ones(12)), np.sqrt(BALL.measure), rtol=1e-14)
    assert np.isnan(BALL.norm(jnp.full(12, np.nan)))


def test_transforms_are_scipys_also_along_long_axes():
    rng = np.random.default_rng(1)
    for grid in (BOX, pde.Grid(((0.0, 1.0), (0.0, 1.0)), (300, 3))):
        f = rng.normal(size=grid.shape)
        modes = grid.transform(jnp.asarray(f))
        np.testing.assert_allclose(modes, dctn(f, norm="ortho"), atol=1e-12)
        np.testing.assert_allclose(grid.inverse_transform(modes), f, atol=1e-12)


@pytest.mark.parametrize("grid", [LINE, BOX, CUBE, BALL])
def test_the_laplacian_is_symmetric_and_conserves(grid):
    rng = np.random.default_rng(2)
    u, v = (jnp.asarray(rng.normal(size=grid.shape)) for _ in range(2))
    assert abs(grid.integrate(grid.laplacian(u))) < 1e-10 * grid.norm(grid.laplacian(u))
    np.testing.assert_allclose(
        grid.integrate(v * grid.laplacian(u)), grid.integrate(u * grid.laplacian(v)), rtol=1e-10
    )
    np.testing.assert_allclose(
        grid.gradient_square(u), -grid.integrate(u * grid.laplacian(u)), rtol=1e-12
    )


def test_the_laplacian_of_a_box_has_the_known_eigenvalues():
    found = np.sort(-np.linalg.eigvalsh(dense(BOX)))
    np.testing.assert_allclose(found, np.sort(BOX.eigenvalues.ravel()), atol=1e-10)


@pytest.mark.parametrize(
    ("dim", "volume"), [(1, 4.0), (2, 4 * np.pi), (3, 32 * np.pi / 3), (4, 8 * np.pi**2)]
)
def test_balls_have_their_volume(dim, volume):
    grid = pde.RadialGrid(2.0, 20, dim=dim, grading=3.0)
    np.testing.assert_allclose(grid.measure, volume, rtol=1e-14)
    # Δ r² = 2 dim, to second order on equal shells.
    even = pde.RadialGrid(2.0, 200, dim=dim)
    inner = even.laplacian(jnp.asarray(even.centres**2))[20:-1]
    np.testing.assert_allclose(inner, 2 * dim, rtol=2e-3)


def test_refinement_and_neighbours():
    assert BOX.refined().shape == (14, 18) and BALL.refined(3).cells == 36
    pattern = CUBE.neighbours().toarray() > 0
    assert (pattern == (np.asarray(dense(CUBE)) != 0)).all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pde.Grid(((0.0, 1.0),), (4, 4)), "one to three axes"),
        (lambda: pde.Grid(((1.0, 1.0),), (4,)), "increase"),
        (lambda: pde.Grid(((0.0, np.inf),), (4,)), "finite"),
        (lambda: pde.Grid(((0.0, 1.0),), (1,)), "at least 2"),
        (lambda: pde.Grid((0.0, 1.0), (4,)), "for each axis"),
        (lambda: pde.RadialGrid(-1.0, 4), "radius must be a positive number"),
        (lambda: pde.RadialGrid(1.0, 4, grading=0.0), "grading"),
        (lambda: pde.RadialGrid(1.0, 4, dim=0), "dim"),
        (lambda: BOX.check("u", np.zeros((9, 7))), r"shape \(9, 7\)"),
        (lambda: BOX.check("u", "none"), "numbers"),
    ],
)
def test_bad_grids_are_refused(make, words):
    with pytest.raises(rf.InputError, match=words):
        make()
