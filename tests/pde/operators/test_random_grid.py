"""Densities, encoders, families and references against closed forms and SciPy; what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_bvp
from scipy.stats import multivariate_normal

from rootflow.errors import InputError
from rootflow.pde import Box, Interval
from rootflow.pde import operators as op
from rootflow.pde.operators.random_grid import cavity
from rootflow.pde.operators.random_grid.density import smooth_log_density
from rootflow.pde.operators.random_grid.problems import (
    burgers_residual,
    navier_stokes_residual,
    poisson_residual,
)
from rootflow.pde.operators.random_grid.train import observed

KEY = jax.random.key(0)
FAMILY = op.nonlinear_poisson_family(terms=2)
RNG = np.random.default_rng(0)


def test_low_rank_densities_are_those_of_scipy():
    n, k = 12, 3
    mean, sigma, C, y = (RNG.normal(size=s) for s in (n, n, (n, k), n))
    sigma = 0.1 + np.abs(sigma)
    for factor in (None, C):
        law = op.LowRankNormal(mean, sigma, factor)
        dense = np.diag(sigma**2) + (0 if factor is None else C @ C.T)
        np.testing.assert_allclose(law.covariance, dense, rtol=1e-12)
        np.testing.assert_allclose(law.std, np.sqrt(np.diag(dense)), rtol=1e-12)
        expected = multivariate_normal(mean, dense).logpdf(y)
        np.testing.assert_allclose(law.log_density(y), expected, rtol=1e-10)
    drawn = np.asarray(law.sample(KEY, 40_000))
    # Five standard errors of a covariance.
    scale = np.sqrt(np.outer(np.diag(dense), np.diag(dense)))
    assert np.abs(np.cov(drawn.T) - dense).max() < 5 * np.sqrt(2 / 40_000) * scale.max()
    assert law.sample(KEY).shape == (n,)


def test_the_smooth_density_is_the_limit_of_a_small_white_part():
    """Up to a constant that does not know the columns."""
    xi = RNG.normal(size=2)
    gaps = []
    for seed in (1, 2):
        C = np.random.default_rng(seed).normal(size=(8, 2))
        law = op.LowRankNormal(np.zeros(8), np.full(8, 1e-4), C)
        gaps.append(float(law.log_density(C @ xi) - smooth_log_density(C, xi)))
    np.testing.assert_allclose(gaps[0], gaps[1], atol=1e-6)


def test_densities_of_columns_close_to_dependent():
    """Smooth columns at clustered points in single precision, against double."""
    x = np.sort(RNG.uniform(-0.05, 0.05, 10))[:, None]
    C = np.cos(np.arange(4) * np.pi * (x + 0.3))
    assert np.linalg.cond(C) > 1e4
    xi, sigma = np.array([0.5, -1.0, 0.2, 1.5]), np.full(10, 1e-3)
    single = lambda v: jnp.asarray(v, jnp.float32)
    exact = -0.5 * (xi @ xi + 4 * np.log(2 * np.pi) + 2 * np.log(np.linalg.svd(C)[1]).sum())
    assert abs(float(smooth_log_density(single(C), single(xi))) - exact) < 0.02 * abs(exact)
    slope = jax.grad(lambda C: smooth_log_density(C, single(xi)))(single(C))
    assert bool(jnp.all(jnp.isfinite(slope)))

    y = C @ xi + sigma * RNG.normal(size=10)
    wanted = multivariate_normal(np.zeros(10), np.diag(sigma**2) + C @ C.T).logpdf(y)
    law = op.LowRankNormal(np.zeros(10, np.float32), single(sigma), single(C))
    assert abs(float(law.log_density(single(y))) - wanted) < 0.02 * abs(wanted)


def test_gicnet_averages_and_does_not_know_the_order():
    net = op.GICNet(KEY, dims=2, outputs=3, channels=4, grid=5, convolutions=2, kernel=2, known=1)
    x, u, w = RNG.uniform(-1, 1, (40, 2)), RNG.normal(size=(40, 1)), np.array([0.3])
    x, u, w = jnp.asarray(x), jnp.asarray(u), jnp.asarray(w)
    order = RNG.permutation(40)
    np.testing.assert_allclose(net(x, u, w), net(x[order], u[order], w), rtol=1e-9)
    # A point of weight zero is not there.
    seen = jnp.arange(40.0) < 30
    np.testing.assert_allclose(net(x, u, w, weights=seen * 1.0), net(x[:30], u[:30], w), rtol=1e-9)
    # A constant field has a constant interpolant where there are points within the length.
    flat = net.interpolated(x, jnp.ones((40, 1)))[-1]
    np.testing.assert_allclose(flat, net.lift(jnp.ones(1))[-1], rtol=1e-5)


def test_manufactured_solutions_have_no_residual():
    z, w = jnp.array([0.4, -0.7, 0.2]), jnp.array([1.5])
    star = lambda x: jnp.cos(jnp.pi * x / 2) * (1 + jnp.sin(jnp.pi * x) / 2)
    q = lambda x: z[0] + z[1] * x + z[2] * (2 * x * x - 1)
    flux = lambda x: (jnp.log1p(jnp.exp(star(x) * q(x))) + 0.1) * jax.grad(star)(x)
    for x in (-0.6, 0.0, 0.9):
        source = -jax.grad(flux)(x)
        r = poisson_residual(lambda y: star(y), jnp.array([x]), z, jnp.array([source]))
        np.testing.assert_allclose(r, 0.0, atol=1e-12)
    # A rarefaction x / (c + z₁ t) solves Burgers' equation with any viscosity.
    fan = lambda y: y[:1] / (1.3 + 0.8 * y[1])
    r = burgers_residual(fan, jnp.array([0.4, 0.7]), jnp.array([0.05, 0.8]), w)
    np.testing.assert_allclose(r, 0.0, atol=1e-14)

    rho, mu = 0.9, 0.3

    def vortices(y):
        """Taylor and Green's."""
        fade = jnp.exp(-2 * mu / rho * y[2])
        u, v = -jnp.cos(y[0]) * jnp.sin(y[1]) * fade, jnp.sin(y[0]) * jnp.cos(y[1]) * fade
        p = -rho / 4 * (jnp.cos(2 * y[0]) + jnp.cos(2 * y[1])) * fade**2
        return jnp.stack([u, v, p])

    r = navier_stokes_residual(vortices, jnp.array([0.3, 1.1, 0.4]), jnp.array([rho, mu]), w)
    np.testing.assert_allclose(r, 0.0, atol=1e-13)


def test_the_reference_of_poisson_is_that_of_scipy():
    z, w = np.array([0.7, -0.8, 0.5]), 1.8
    x = np.linspace(-1, 1, 41)
    q = lambda x: z[0] + z[1] * x + z[2] * (2 * x * x - 1)
    kappa = lambda u, x: np.log1p(np.exp(u * q(x))) + 0.1
    start = np.linspace(-1, 1, 101)
    expected = solve_bvp(
        lambda x, y: np.stack([-y[1] / kappa(y[0], x), np.full_like(x, w)]),
        lambda a, b: np.array([a[0], b[0]]),
        start, np.stack([w * (1 - start**2) / 1.6, np.zeros(101)]), tol=1e-8, max_nodes=20_000,
    )  # fmt: skip
    found = op.nonlinear_poisson(jnp.asarray(z), w, points=x)
    np.testing.assert_allclose(found, expected.sol(x)[0], atol=1e-8)
    # With z = 0 the problem is linear in w.
    slope = jax.grad(lambda w: op.nonlinear_poisson(jnp.zeros(3), w, points=0.5))(1.8)
    np.testing.assert_allclose(slope, 0.75 / (2 * (np.log(2) + 0.1)), rtol=1e-8)


def test_the_reference_of_burgers_solves_it():
    family = op.burgers_family()
    z, w = jnp.array([0.03, 0.8]), jnp.array([1.3])
    u = lambda x, t: np.asarray(family.reference(z, w, jnp.stack([x, t], -1)))[:, 0]
    x = jnp.linspace(0.05, 0.95, 19)
    for when in (0.1, 0.6):
        t, h = jnp.full(19, when), 1e-3
        rate = (u(x, t + h) - u(x, t - h)) / (2 * h)
        first = (u(x + h, t) - u(x - h, t)) / (2 * h)
        second = (u(x + h, t) - 2 * u(x, t) + u(x - h, t)) / h**2
        np.testing.assert_allclose(rate + 0.8 * u(x, t) * first, 0.03 * second, atol=2e-4)
    zero = jnp.zeros(2)
    np.testing.assert_allclose(u(jnp.array([0.0, 1.0]), zero + 0.5), 0.0, atol=1e-10)
    start = np.sin(2 * np.pi * 1.3 * np.asarray(x)) * np.sin(np.pi * np.asarray(x))
    np.testing.assert_allclose(u(x, jnp.full(19, 1e-7)), start, atol=1e-4)


def test_the_flow_in_a_cavity_has_no_divergence():
    z, w, n = jnp.array([0.9, 0.3]), jnp.asarray(1.0), 8
    y = (jnp.asarray(RNG.normal(size=(n - 1, n))), jnp.asarray(RNG.normal(size=(n, n - 1))))
    (a, b), _ = jax.jit(cavity.rates)(0.5, y, z, w)
    divergence = np.diff(np.pad(a, ((1, 1), (0, 0))), axis=0)
    divergence = divergence + np.diff(np.pad(b, ((0, 0), (1, 1))), axis=1)
    assert np.abs(divergence).max() < 1e-10 * np.abs(np.asarray(a)).max()


def test_the_lift_and_back():
    x = jnp.array([[-1.0], [-0.5], [0.3]])
    values, seen = FAMILY.solved(jnp.cos(jnp.pi * x / 2) * (2 + x), x, jnp.array([1.0]))
    np.testing.assert_allclose(values[1:], (2 + x)[1:], rtol=1e-12)
    np.testing.assert_array_equal(seen, [0.0, 1.0, 1.0])
    assert FAMILY.regular(10).shape == (10, 1)
    assert np.all(FAMILY.domain.contains(FAMILY.points(KEY, 50)))


MODEL = op.RandomGridProcess(FAMILY, width=8, inverse_rank=1, key=KEY)


def test_both_directions_of_a_process():
    field = MODEL.forward(jnp.array([0.2, -0.3]), w=1.2)
    x = jnp.linspace(-1, 1, 9)
    law = field.law(x)
    np.testing.assert_allclose(field.mean(x)[jnp.array([0, -1])], 0.0, atol=1e-12)
    np.testing.assert_allclose(law.std[1:-1], field.std(x)[1:-1], rtol=1e-10)
    drawn = jax.vmap(lambda key: field.sample(key, x))(jax.random.split(KEY, 4000))
    np.testing.assert_allclose(np.std(drawn, 0)[1:-1], field.std(x)[1:-1], rtol=0.07)
    # Edges say nothing: with or without them the posterior is the same.
    post = MODEL.inverse(x, field.mean(x), w=1.2)
    inner = MODEL.inverse(x[1:-1], field.mean(x)[1:-1], w=1.2)
    np.testing.assert_allclose(post.mean, inner.mean, rtol=1e-9)
    assert post.covariance.shape == (2, 2)
    # Noisy values have the covariance of the field and of the noise.
    y = jnp.asarray(RNG.normal(size=(5, 1)))
    at = x[2:7, None]
    found = observed(MODEL, field.z, field.w, at, y, 0.3)
    part = field.law(at)
    dense = part.covariance + 0.09 * np.eye(5)
    expected = multivariate_normal(np.asarray(part.mean), dense).logpdf(np.asarray(y)[:, 0])
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_an_encoder_of_a_fixed_grid_reads_the_line_between_sensors():
    grid = np.linspace(-1, 1, 9)[:, None]
    net = op.GridEncoder(KEY, points=grid, outputs=2, channels=3, convolutions=2)
    # A function with a kink at 0.25, a node: these sensors say all about it.
    x = jnp.array([[0.25], [-1.0], [1.0]])
    u = 1 - jnp.abs(x - 0.25)
    np.testing.assert_allclose(net(x, u), net(jnp.asarray(grid), 1 - abs(grid - 0.25)), rtol=1e-9)
    more = jnp.append(x, jnp.array([[0.5]]), 0), jnp.append(u, jnp.array([[7.0]]), 0)
    np.testing.assert_allclose(
        net(*more, weights=jnp.array([1.0, 1.0, 1.0, 0.0])), net(x, u), rtol=1e-9
    )


@pytest.mark.slow
def test_training_on_random_grids():
    short = dict(points=6, batch=4, steps=60, key=KEY, dtype=jnp.float32)
    z, w = FAMILY.draw(KEY, 3)
    x = jnp.linspace(-0.8, 0.8, 5)[:, None]
    u = jax.vmap(lambda z, w: op.nonlinear_poisson(z, w[0], points=x))(z, w)
    data = op.Observations(z, w, jnp.broadcast_to(x, (3, 5, 1)), u, noise=0.05, batch=2)
    found = op.train_random_grid(MODEL, data=data, **short)
    assert np.mean(found.losses[-10:]) < np.mean(found.losses[:10])
    np.testing.assert_allclose(found.record["scale"][-1], 0.02, rtol=1e-5)
    assert found.record["scale"][0] > 0.25
    assert found.model.network.waves.dtype == MODEL.network.waves.dtype
    report = op.random_grid.calibrate(found.model, cases=4, points=20, sensors=10, key=KEY)
    assert report.ranks.shape == (4, 2) and np.all((report.ranks >= 0) & (report.ranks <= 1))
    assert np.all(np.diff(report.z_coverage) >= 0) and "coverage" in str(report)


BAD = {
    "a prior of zero width": (
        lambda: op.random_grid.Family(
            residual=poisson_residual, lift=FAMILY.lift, domain=Interval(-1.0, 1.0),
            z=((0.5, 0.5),), w=((1.0, 2.0),),
        ),
        "low < high",
    ),
    "no parameters": (
        lambda: op.random_grid.Family(
            residual=poisson_residual, lift=FAMILY.lift, domain=Box([(0, 1)]), z=()
        ),
        "at least one",
    ),
    "sensors outside": (
        lambda: MODEL.inverse(jnp.array([0.1, 1.5]), jnp.ones(2), w=1.2), "outside of the domain",
    ),
    "no sensor that says anything": (
        lambda: MODEL.inverse(jnp.array([-1.0, 1.0]), jnp.zeros(2), w=1.2), "says anything",
    ),
    "values that are not finite": (
        lambda: MODEL.inverse(jnp.array([0.1]), jnp.array([jnp.nan]), w=1.2), "not finite",
    ),
    "values of another number": (
        lambda: MODEL.inverse(jnp.array([0.1, 0.2]), jnp.ones(3), w=1.2), "a row for each point",
    ),
    "parameters of another number": (lambda: MODEL.forward(jnp.ones(3), w=1.2), "must hold 2"),
    "sigma": (lambda: op.LowRankNormal(np.zeros(2), np.array([1.0, 0.0])), "must be positive"),
    "shapes": (lambda: op.LowRankNormal(np.zeros(2), np.ones(3)), "shapes"),
    "a small grid": (lambda: op.GICNet(KEY, outputs=2, grid=6), "use up a grid"),
    "lengths": (lambda: op.GICNet(KEY, outputs=2, lengths=(0.0, 1.0)), "lengths must be positive"),
    "smooth": (lambda: op.RandomGridProcess(FAMILY, rank=0, smooth=True, key=KEY), "rank"),
    "floor": (lambda: op.RandomGridProcess(FAMILY, floor=2.0, key=KEY), "floor"),
    "grid": (
        lambda: op.train_random_grid(MODEL, points=4, steps=2, grid="even", key=KEY),
        "grid must be",
    ),
    "scale": (
        lambda: op.train_random_grid(MODEL, points=4, steps=2, residual_scale=0.0, key=KEY),
        "residual_scale",
    ),
    "a regular grid": (lambda: op.burgers_family().regular(10), "Take 9"),
    "noise": (
        lambda: op.Observations(
            np.zeros((1, 2)), np.ones((1, 1)), np.zeros((1, 3, 1)), np.zeros((1, 3, 1)), noise=0.0
        ),
        "noise must be",
    ),
    "places of the reference": (
        lambda: op.nonlinear_poisson(jnp.zeros(2), 1.0, points=1.2), r"in \[-1, 1\]",
    ),
    "viscosity": (
        lambda: op.lid_driven(jnp.array([1.0, 0.0]), 1.0, points=np.zeros((1, 3))), "viscosity",
    ),
    "too many sensors": (
        lambda: op.random_grid.calibrate(MODEL, cases=1, points=5, sensors=6, key=KEY), "sensors=6",
    ),
    "kind": (lambda: op.PlainOperator(FAMILY, kind="fno", key=KEY), "kind must be"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_refused(name):
    call, message = BAD[name]
    with pytest.raises(InputError, match=message):
        call()
