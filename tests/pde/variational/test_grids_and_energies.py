"""Sine grids against dense matrices, energies against their derivatives, certified minimisation."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import pde
from rootflow.errors import ConvergenceWarning, InputError, SolveError

jax.config.update("jax_enable_x64", True)


def surface(x, u, p):
    return 0.5 * p @ p + jnp.sqrt(1.0 + p @ p) - 1.0


def half_square(x, u, p):
    return 0.5 * p @ p


def quartic(x, u, p):
    return 0.5 * p @ p + 0.25 * u**4


def laplacian(n):
    """-Δ in one dimension, dense."""
    return n**2 * (2 * np.eye(n - 1) - np.eye(n - 1, k=1) - np.eye(n - 1, k=-1))


@pytest.mark.parametrize("dim, n", [(1, 9), (2, 6), (3, 4)])
def test_the_sine_grid_is_that_of_dense_matrices(dim, n):
    grid = pde.SineGrid(dim, n)
    size = (n - 1) ** dim
    dense = np.zeros((size, size))
    for axis in range(dim):
        parts = [laplacian(n) if a == axis else np.eye(n - 1) for a in range(dim)]
        block = parts[0]
        for part in parts[1:]:
            block = np.kron(block, part)
        dense += block
    values = np.linalg.eigvalsh(dense)
    np.testing.assert_allclose(np.sort(grid.eigenvalues.ravel()), values, rtol=1e-12)
    np.testing.assert_allclose(grid.poincare, 1 / values[0], rtol=1e-12)
    u = np.asarray(jax.random.normal(jax.random.key(0), grid.shape))
    flat = u.ravel()
    riesz = np.linalg.solve(np.eye(size) + dense, flat)
    np.testing.assert_allclose(grid.riesz(jnp.asarray(u)).ravel(), riesz, atol=1e-12)
    np.testing.assert_allclose(grid.inverse(grid.transform(jnp.asarray(u))), u, atol=1e-12)
    h = grid.h**dim
    norm = np.sqrt(h * flat @ (flat + dense @ flat))
    np.testing.assert_allclose(grid.h1_norm(u), norm, rtol=1e-12)
    np.testing.assert_allclose(grid.dual_norm(u), np.sqrt(h * flat @ riesz), rtol=1e-12)
    # The discrete Dirichlet energy, whichever way the differences go.
    energy = pde.Energy(half_square, ellipticity=(1, 1)).energy(u, grid)
    np.testing.assert_allclose(energy, 0.5 * h * flat @ dense @ flat, rtol=1e-12)


def test_a_gradient_is_the_derivative_of_its_energy():
    grid = pde.SineGrid(2, 5)

    def L(x, u, p):
        return (1 + x[0] * x[1]) * surface(x, u, p) + 0.25 * u**4 + 0.1 * u * p[0]

    problem = pde.Energy(L, lambda x: jnp.exp(x[0]) * x[1], ellipticity=(1, 9))
    u, v = jax.random.normal(jax.random.key(1), (2, *grid.shape))
    h = 1e-5
    slope = (problem.energy(u + h * v, grid) - problem.energy(u - h * v, grid)) / (2 * h)
    np.testing.assert_allclose(grid.inner(problem.gradient(u, grid), v), slope, rtol=1e-8)
    known = problem.with_solution(u, grid)
    assert float(jnp.max(jnp.abs(known.gradient(u, grid)))) < 1e-11


def test_a_linear_step_damps_each_mode_by_its_eigenvalue():
    grid = pde.SineGrid(1, 16)
    lin = pde.Energy(half_square, ellipticity=(1, 1))
    mode = jnp.sin(3 * jnp.pi * grid.points[..., 0])
    after = pde.preconditioned_step(lin, grid, mode, step=1.0)
    value = 4 * 16**2 * np.sin(3 * np.pi / 32) ** 2
    np.testing.assert_allclose(after, mode / (1 + value), atol=1e-12)


@pytest.mark.parametrize("constants_of", ["sharp", "published"])
def test_rate_and_certificate_hold_at_every_step(constants_of):
    grid = pde.SineGrid(2, 8)
    star = jnp.prod(jnp.sin(jnp.pi * grid.points), axis=-1)
    problem = pde.Energy(surface, ellipticity=(1.0, 2.0)).with_solution(star, grid)
    run = pde.minimise(problem, grid, relative_error=1e-5, constants_of=constants_of)
    least = float(problem.energy(star, grid))
    gaps = run.energies - least
    keep = gaps[1:] > 1e-13
    assert np.all((gaps[1:] / gaps[:-1])[keep] <= run.rate_bound + 1e-9)
    assert np.all(np.diff(run.energies) <= 1e-15)
    errors = np.array([float(grid.h1_norm(u - star)) for u in run.iterates])
    assert np.all(run.error_bounds >= errors - 1e-12)
    assert np.all(run.gap_bounds >= gaps - 1e-13)
    assert errors[-1] < 1e-5 * float(grid.h1_norm(star)) and run.converged
    # λ/2 ‖u - u*‖² in H^1_0 <= E - E*, and both constants are those of the sheet.
    cp = grid.poincare
    strong = 1 / (1 + cp)
    assert np.all(gaps >= 0.5 * strong * errors**2 - 1e-13)
    step, rate = {
        "sharp": (0.5, 1 - 1 / ((1 + cp) * 2)),
        "published": (1 / ((1 + cp) * 8), 1 - 1 / ((1 + cp) * 16)),
    }[constants_of]
    np.testing.assert_allclose([run.constants.step, run.constants.rate], [step, rate], rtol=1e-12)
    needed = pde.steps_needed(gaps[0], rate, strong, errors[-1])
    assert len(run.steps_used) <= needed
    if constants_of == "published":
        assert len(run.steps_used) > 50


def test_one_dimension_against_a_first_integral():
    """-(φ'(u'))' = f: φ'(u') = c - ∫ f, and u(1) = 0 fixes c; second order in 1 / n."""
    x = np.linspace(0, 1, 20001)
    F = np.cumsum(np.r_[0, (np.exp(x[1:]) + np.exp(x[:-1])) / 2 * np.diff(x)]) * 4

    def slope(s):  # the inverse of φ'(p) = p + p / sqrt(1 + p²)
        p = s / 2
        for _ in range(60):
            p = p - (p + p / np.sqrt(1 + p * p) - s) / (1 + (1 + p * p) ** -1.5)
        return p

    def end(c):
        p = slope(c - F)
        return np.sum((p[1:] + p[:-1]) / 2 * np.diff(x))

    low, high = 0.0, 10.0
    for _ in range(60):
        mid = (low + high) / 2
        low, high = (mid, high) if end(mid) < 0 else (low, mid)
    p = slope(low - F)
    exact = np.cumsum(np.r_[0, (p[1:] + p[:-1]) / 2 * np.diff(x)])
    problem = pde.Energy(surface, lambda x: 4 * jnp.exp(x[0]), ellipticity=(1, 2))
    errors = []
    for n in (10, 20):
        u = pde.minimise(problem, pde.SineGrid(1, n), relative_error=1e-9).u
        errors.append(np.max(np.abs(np.asarray(u) - exact[:: 20000 // n][1:-1])))
    assert errors[1] < 1e-3 and 3.5 < errors[0] / errors[1] < 4.5, errors


def test_symmetric_differences_are_of_second_order_where_forward_ones_are_not():
    """L = (1 + x) |p|² / 2 in one dimension, with u* = sin πx."""

    def L(x, u, p):
        return 0.5 * (1 + x[0]) * p @ p

    def f(x):
        t = jnp.pi * x[0]
        return (1 + x[0]) * jnp.pi**2 * jnp.sin(t) - jnp.pi * jnp.cos(t)

    errors = {"symmetric": [], "forward": []}
    for differences, found in errors.items():
        for n in (10, 20):
            grid = pde.SineGrid(1, n, differences=differences)
            u = pde.minimise(pde.Energy(L, f, ellipticity=(1, 2)), grid, relative_error=1e-8).u
            found.append(float(jnp.max(jnp.abs(u - jnp.sin(jnp.pi * grid.points[:, 0])))))
    assert 3.5 < errors["symmetric"][0] / errors["symmetric"][1] < 4.5
    assert 1.7 < errors["forward"][0] / errors["forward"][1] < 2.5


def test_constants_are_found_from_the_function_and_checked():
    found = pde.Energy(surface).bounds(2)
    # λ = 1 is approached for large slopes only, Λ = 2 is taken at p = 0.
    assert 1.0 <= found.lower < 1.001 and 1.999 < found.upper <= 2.0 + 1e-12
    assert found.deficit == 0 and found.growth <= 1.001
    # Schur's complement: (u² + 2 c u p + p²) / 2 has λ = 1 - c², Λ = 1 + c.
    mixed = pde.Energy(lambda x, u, p: 0.5 * (u * u + p @ p) + 0.5 * u * p[0]).bounds(1)
    np.testing.assert_allclose([mixed.lower, mixed.upper], [0.75, 1.5], rtol=1e-12)
    with pytest.warns(pde.EllipticityWarning, match="grows with the state"):
        found = pde.Energy(quartic).bounds(1)
    np.testing.assert_allclose([found.lower, found.upper], [1.0, 3.0], rtol=1e-6)
    with pytest.warns(pde.EllipticityWarning, match="not convex in u"):
        found = pde.Energy(lambda x, u, p: 0.5 * p @ p - 0.5 * u * u).bounds(1)
    np.testing.assert_allclose([found.lower, found.deficit], [1.0, 1.0], rtol=1e-12)


def test_a_deficit_of_convexity_is_made_up_by_poincare():
    """-u'' - u = f is elliptic on (0, 1), for π² > 1; the bound still holds."""
    grid = pde.SineGrid(1, 16)
    star = jnp.sin(jnp.pi * grid.points[:, 0])
    problem = pde.Energy(lambda x, u, p: 0.5 * p @ p - 0.5 * u * u).with_solution(star, grid)
    with pytest.warns(pde.EllipticityWarning):
        run = pde.minimise(problem, grid)
    errors = np.array([float(grid.h1_norm(u - star)) for u in run.iterates])
    assert np.all(run.error_bounds >= errors - 1e-12) and errors[-1] < 1e-5
    with pytest.warns(pde.EllipticityWarning), pytest.raises(InputError, match="strongly convex"):
        pde.minimise(pde.Energy(lambda x, u, p: 0.5 * p @ p - 20 * u * u), grid)


def test_a_step_that_is_too_long_is_shortened_and_said_so():
    grid = pde.SineGrid(1, 16)
    star = 3 * jnp.sin(jnp.pi * grid.points[:, 0])
    steep = pde.Energy(lambda x, u, p: 0.5 * p @ p + 10 * u**4, ellipticity=(1.0, 1.0))
    with pytest.warns(pde.EllipticityWarning, match="the rate does not hold"):
        run = pde.minimise(steep.with_solution(star, grid), grid)
    assert run.steps_used.min() < 1 and np.all(np.diff(run.energies) <= 1e-10)
    assert float(grid.h1_norm(run.u - star)) <= run.error_bounds[-1] + 1e-12
    with pytest.warns(pde.EllipticityWarning, match="error bounds do not hold"):
        pde.minimise(pde.Energy(half_square, lambda x: 1.0 * x[0], ellipticity=(2.0, 2.0)), grid)


def test_estimates_that_do_not_hold_at_the_solution_are_widened():
    grid = pde.SineGrid(1, 16)
    star = 3 * jnp.sin(jnp.pi * grid.points[:, 0])
    problem = pde.Energy(lambda x, u, p: 0.5 * p @ p + u**4).with_solution(star, grid)
    with pytest.warns(pde.EllipticityWarning, match="grows with the state"):
        run = pde.minimise(problem, grid)
    assert run.ellipticity.upper > 12 * 8  # 12 u² at the top of the solution, 12 where sampled
    errors = np.array([float(grid.h1_norm(u - star)) for u in run.iterates])
    assert len(errors) == len(run.energies) == len(run.steps_used) + 1
    assert np.all(run.error_bounds >= errors - 1e-12) and run.converged
    gaps = run.energies - float(problem.energy(star, grid))
    keep = gaps[1:] > 1e-10
    assert np.all((gaps[1:] / gaps[:-1])[keep] <= run.rate_bound + 1e-9)


def test_any_field_is_certified():
    grid = pde.SineGrid(1, 16)
    star = jnp.sin(jnp.pi * grid.points[:, 0])
    problem = pde.Energy(surface, ellipticity=(1, 2)).with_solution(star, grid)
    for u in (star * 0, 1.1 * star, star + 0.01 * jnp.sin(5 * jnp.pi * grid.points[:, 0])):
        found = pde.certify(problem, grid, u)
        true = float(grid.h1_norm(u - star))
        assert true <= float(found.error) <= 2.0 * (1 + grid.poincare) * true + 1e-12
    assert float(pde.certify(problem, grid, lambda x: jnp.sin(jnp.pi * x[..., 0])).error) < 1e-12


def test_a_minimiser_has_derivatives_and_runs_under_transformations():
    grid = pde.SineGrid(1, 8)

    def size(a):
        problem = pde.Energy(
            lambda x, u, p: 0.5 * a * p @ p + 0.25 * u**4, lambda x: 20 * x[0], ellipticity=(1, 5)
        )
        return jnp.sum(pde.minimiser(problem, grid, rtol=1e-12, atol=1e-13) ** 2)

    a, h = 2.0, 1e-5
    slope = jax.jit(jax.grad(size))(a)
    np.testing.assert_allclose(slope, (size(a + h) - size(a - h)) / (2 * h), rtol=1e-6)

    def half(a):
        return pde.Energy(half_square, lambda x: a * x[0], ellipticity=(1, 1))

    with pytest.raises(InputError, match="use minimiser"):
        jax.jit(lambda a: pde.minimise(half(a), grid).u)(1.0)


def test_single_precision():
    with jax.enable_x64(False):
        grid = pde.SineGrid(1, 8)
        problem = pde.Energy(surface, lambda x: 4 * x[0], ellipticity=(1, 2))
        run = pde.minimise(problem, grid, relative_error=1e-3)
        assert run.u.dtype == jnp.float32 and run.converged


BAD = [
    (lambda g: pde.SineGrid(4, 8), "at most three dimensions"),
    (lambda g: pde.SineGrid(2, 1), "n must be a whole number of at least 2"),
    (lambda g: pde.SineGrid(2, 8, differences="central"), "differences must be one of"),
    (lambda g: pde.Energy(3.0), "L must be a function"),
    (lambda g: pde.Energy(half_square, "one"), "source must be a function"),
    (lambda g: pde.Energy(half_square, ellipticity=(2.0, 1.0)), "0 < λ <= Λ.*λ=2, Λ=1"),
    (lambda g: pde.Energy(half_square, ellipticity=(0.0, 1.0)), "0 < λ <= Λ"),
    (lambda g: pde.Energy(half_square, ellipticity=1.0), "two numbers"),
    (lambda g: pde.Energy(lambda x, u, p: p).energy(jnp.zeros(7), g), "L must return one real"),
    (lambda g: pde.Energy(lambda x, u: u).energy(jnp.zeros(7), g), "L cannot be called"),
    (lambda g: pde.Energy(half_square, lambda x: x).energy(jnp.zeros(7), g), "source must return"),
    (lambda g: pde.Energy(half_square).energy(jnp.zeros(8), g), r"u must have shape \(7,\)"),
    (lambda g: pde.Energy(half_square, jnp.zeros(5)).energy(jnp.zeros(7), g), "source must have"),
    (lambda g: pde.Energy(half_square).with_solution(jnp.zeros((7, 7)), g), "u must have shape"),
    (lambda g: pde.Energy(half_square).energy(jnp.full(7, jnp.nan), g), "not finite"),
    (
        lambda g: pde.Energy(lambda x, u, p: -0.5 * p @ p).bounds(1),
        "not convex in p.*eigenvalue -1",
    ),
    (lambda g: pde.Energy(lambda x, u, p: jnp.sqrt(p @ p)).bounds(1), "not finite at"),
    (lambda g: pde.Energy(half_square).bounds(1, slope=-1.0), "slope must be a positive"),
    (
        lambda g: pde.preconditioned_step(pde.Energy(half_square), g, jnp.zeros(7), step=0.0),
        "step must be a positive number; got 0",
    ),
    (
        lambda g: pde.minimise(pde.Energy(half_square), g, step=3.0),
        "step must be a positive.*most 2",
    ),
    (lambda g: pde.minimise(pde.Energy(half_square), g, relative_error=0.0), "both zero"),
    (lambda g: pde.minimise(pde.Energy(half_square), g, relative_error=-1.0), "at least zero"),
    (lambda g: pde.minimise(pde.Energy(half_square), g, constants_of="icml"), "constants_of"),
    (lambda g: pde.minimise(pde.Energy(half_square), g, max_steps=0), "max_steps"),
    (lambda g: pde.minimise(pde.Energy(half_square), g, jnp.zeros(3)), "u0 must have shape"),
    (lambda g: pde.certify(pde.Energy(half_square), g, jnp.zeros(3)), "u must have shape"),
    (lambda g: pde.elliptic_constants(1.0, 2.0, -1.0), "poincare must be a positive"),
    (lambda g: pde.steps_needed(1.0, 1.0, 1.0, 0.1), "rate=1 must be below one"),
]


@pytest.mark.parametrize("case", range(len(BAD)))
def test_bad_input_is_named(case):
    call, message = BAD[case]
    with pytest.raises(InputError, match=message):
        call(pde.SineGrid(1, 8))


def test_a_run_that_does_not_converge_says_what_is_certain():
    grid = pde.SineGrid(1, 8)
    problem = pde.Energy(surface, lambda x: 4 * x[0], ellipticity=(1, 2))
    with pytest.raises(SolveError, match="certain to be below"):
        pde.minimise(problem, grid, max_steps=2)
    with pytest.warns(ConvergenceWarning, match="in 2 steps"):
        run = pde.minimise(problem, grid, max_steps=2, throw=False, keep=False)
    assert not run.converged and run.iterates is None and len(run.energies) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rf.pde.minimise(problem, grid, run.u, relative_error=0.5).converged
