"""Manufactured problems, generated networks, refinement and references against known facts."""

from itertools import pairwise
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rootflow.errors import InputError
from rootflow.pde import Box, Disk, Polygon
from rootflow.pde import operators as op
from rootflow.pde.operators.hypino import particular
from rootflow.pde.operators.hypino.encoders import attended
from rootflow.pde.operators.hypino.model import amplitude
from rootflow.pde.operators.hypino.target import FEATURES, fourier, sizes
from rootflow.pde.operators.hypino.training import Draw, OperatorLoss, misfit

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def net():
    return op.HyPINO(KEY, grid=16, width=6, depth=1, size="tiny")


@pytest.fixture(scope="module")
def batch():
    return op.manufactured(jax.random.key(1), count=3)


def test_manufactured_problems_satisfy_their_equation_by_second_derivatives_of_jax(batch):
    x = jax.random.uniform(jax.random.key(2), (4, 2), minval=-1.0, maxval=1.0)
    for i in range(len(batch)):
        u, c = batch.solution(i), batch.coefficients[i]
        g, h = jax.vmap(jax.grad(u))(x), jax.vmap(jax.hessian(u))(x)
        parts = jnp.stack([jax.vmap(u)(x), g[:, 0], g[:, 1], h[:, 0, 0], h[:, 1, 1]], 1)
        np.testing.assert_allclose(op.jet(batch.many(i), x), parts, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(jax.vmap(batch.source(i))(x), parts @ c, rtol=1e-9)
        normal = jnp.array([0.6, 0.8])
        np.testing.assert_allclose(batch.neumann(i)(x[0], normal), g[0] @ normal, rtol=1e-9)


def test_mixed_operators_are_of_all_types_and_their_solutions_within_bounds():
    found = op.manufactured(
        KEY, count=24, family=op.Family("mixed"), geometry=op.square("hyperbolic")
    )
    c = np.asarray(found.coefficients)
    kinds = {op.kind_of(row) for row in c}
    assert kinds == {"elliptic", "parabolic", "hyperbolic"}
    assert np.all(np.abs(c) <= 2) and np.all(np.sum(c != 0, 1) <= 3) and np.all(c[:, 3] != 0)
    line = jnp.linspace(-1.0, 1.0, 12)
    x = jnp.stack(jnp.meshgrid(line, line), -1).reshape(-1, 2)
    u = jax.vmap(lambda expression: expression(x))(found.expressions)
    assert np.all(np.abs(u) <= 10) and np.all(np.std(u, axis=1) >= 0.1)


def test_images_have_values_where_their_masks_are_and_the_top_first():
    disk = Disk((0.3, -0.2), 0.3)
    geometry = op.with_holes([disk], conditions=[(False, True)])
    problem = op.LinearProblem(
        [0, 0, 0, 1.0, 1.0], source=lambda x: x[1], dirichlet=lambda x: x[0],
        neumann=lambda x, n: n[0], geometry=geometry,
    )  # fmt: skip
    images = problem.images(64)
    source, dirichlet, neumann = np.asarray(images.masks)
    f, g, h = np.asarray(images.values)
    assert f[0, 5] == 1.0 and f[-1, 5] == -1.0 and g[5, 0] == -1.0 and g[5, -1] == 1.0
    line = np.linspace(-1, 1, 64)
    x, y = np.meshgrid(line, line[::-1])
    distance = np.hypot(x - 0.3, y + 0.2)
    np.testing.assert_array_equal(source > 0, distance > 0.3)
    assert np.all(np.abs(distance - 0.3)[neumann > 0] < 0.0223 + 1e-3)
    assert 60 < np.sum(neumann) < 200 and np.sum(dirichlet) == 4 * 63
    # The normal of the domain points into the hole.
    outward = -(x - 0.3) / np.maximum(distance, 1e-9)
    np.testing.assert_allclose(h[neumann > 0], outward[neumann > 0], atol=0.1)
    assert np.all(h[neumann == 0] == 0)


def test_geometries_at_random_keep_their_holes_inside_and_time_has_a_beginning_alone():
    for seed in range(6):
        geometry = op.random_holes(np.random.default_rng(seed))
        for piece in geometry.pieces:
            np.testing.assert_allclose(np.linalg.norm(piece.normals, axis=1), 1.0, rtol=1e-12)
            within = geometry.domain.contains(piece.points + 1e-6 * piece.normals)
            assert within.mean() < 0.02
    wave = op.square("hyperbolic")
    assert max(piece.points[:, 1].max() for piece in wave.pieces[1:]) == -1.0
    np.testing.assert_array_equal(wave.pieces[1].normals[0], [0.0, 1.0])
    l_shape = op.Geometry(Polygon(((0, 0), (1, 0), (1, 1))), op.square().pieces)
    assert l_shape.raster(8).inside.sum() < 32


def test_the_generated_network_is_the_published_one():
    x = jnp.array([[0.3, -0.7]])
    waves = 2 * jnp.pi * 0.1 * 2.0 ** jnp.arange(5)
    wanted = jnp.concatenate([f(waves * v) for v in x[0] for f in (jnp.sin, jnp.cos)])
    np.testing.assert_allclose(
        jnp.sort(fourier(x)[0]), jnp.sort(jnp.concatenate([wanted, x[0]])), rtol=1e-10
    )
    assert FEATURES == 22
    count = lambda width, depth: sum(a * b + b for a, b in sizes(width, depth))
    assert (count(32, 3), count(16, 2)) == (5409, 1665)
    target = op.Target.random(KEY, width=8, depth=2)
    e = fourier(x)[0]
    w, b = target.matrices, target.biases
    u, v, h = (jnp.tanh(e @ w[k] + b[k]) for k in range(3))
    for k in (3, 4):
        h = jnp.tanh((u * h + v * (1 - h)) @ w[k] + b[k])
    np.testing.assert_allclose(target(x[0]), (h @ w[5] + b[5])[0], rtol=1e-12)
    step = 1e-5
    slope = [(target(x[0] + d) - target(x[0] - d)) / (2 * step) for d in step * jnp.eye(2)]
    np.testing.assert_allclose(op.jet(target.many, x)[0, 1:3], jnp.array(slope), rtol=1e-7)


def test_the_answer_scales_with_the_data_and_is_zero_without(net, batch):
    images, c, x = net.images(batch, 0), batch.coefficients[0], jnp.array([0.1, 0.4])
    solve = eqx.filter_jit(lambda images: net.solution(c, images)(x))
    value = solve(images)
    assert np.isfinite(value) and value != 0
    np.testing.assert_allclose(
        solve(images.scaled(-3.0)), 3 * solve(images.scaled(-1.0)), rtol=1e-9
    )
    np.testing.assert_allclose(solve(images.scaled(1e-4)), 1e-4 * value, rtol=1e-9)
    assert solve(images.scaled(0.0)) == 0
    np.testing.assert_allclose(amplitude(images.scaled(2.0)), 2 * amplitude(images), rtol=1e-12)
    # Heads that do not look at the problem write one plain network.
    blind = eqx.tree_at(lambda n: [h.last.weight for h in n.heads], net, replace_fn=jnp.zeros_like)
    one, two = (
        eqx.filter_jit(lambda n, i: n.solution(batch.coefficients[i], n.images(batch, i)))(blind, i)
        for i in (0, 1)
    )
    np.testing.assert_allclose(one(x) / one.scale, two(x) / two.scale, rtol=1e-12)


def test_the_loss_of_the_exact_solution_is_zero():
    family = op.Family()
    draw = Draw(family, family.rasters(16), 1, 8, 8, jnp.dtype(float))
    sample = eqx.filter_jit(draw.one)(KEY)
    exact = family.draw(jax.random.split(KEY, 6)[0])[1]

    class Exact(eqx.Module):
        u: op.Expression

        def many(self, x):
            return self.u(x)

    np.testing.assert_allclose(misfit(Exact(exact), sample, op.Weights(), None), 0.0, atol=1e-24)
    # ... and so is that of zero with everything known.
    known = op.jet(exact, sample.x), op.jet(exact, sample.edge)
    nothing = Exact(eqx.tree_at(lambda e: e.numbers, exact, jnp.zeros_like(exact.numbers)))
    np.testing.assert_allclose(misfit(nothing, sample, op.Weights(), known), 0.0, atol=1e-24)


def test_residual_aware_training_lowers_both_losses_and_refinement_never_raises_the_residual(
    net, batch
):
    found = op.train_hypino(
        net, key=KEY, steps=60, batch=4, interior=24, edge=24, residual_aware=True, every=20,
        optimizer=op.schedule(60, learning_rate=3e-3),
    )  # fmt: skip
    loss, correction = found.history["loss"], found.history["correction"]
    assert loss[-1] < 0.7 * loss[0] and correction[-1] < correction[0]
    assert isinstance(found.model, op.HyPINO)
    rounds = op.refine(found.model, batch, 0, rounds=3, weights="least-squares")
    residuals = [float(r.residual) for r in rounds]
    assert all(b <= a * (1 + 1e-9) for a, b in pairwise(residuals))
    assert residuals[-1] < residuals[0] <= 1 + 1e-9
    # The residual of the combination, from its definition.
    raster = batch.geometry.raster(16)
    images, c, u = net.images(batch, 0), batch.coefficients[0], rounds[2].solution
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 16), np.linspace(1, -1, 16)), -1)
    inner = op.jet(u.many, jnp.asarray(grid).reshape(-1, 2)) @ c - images.values[0].ravel()
    edge = u.many(raster.at[0].reshape(-1, 2)) - images.values[1].ravel()
    on = np.asarray(images.masks[1]).ravel() > 0
    mean = lambda v: np.mean(np.square(v))
    size = mean(images.values[0]) + 900 * mean(np.asarray(images.values[1]).ravel()[on])
    np.testing.assert_allclose(
        residuals[2], np.sqrt((mean(inner) + 900 * mean(edge[on])) / size), rtol=1e-8
    )
    sums = op.refine(found.model, batch, 0, rounds=1)
    np.testing.assert_array_equal(sums[1].solution.weights, [1.0, 1.0])
    calibration = op.calibrate(found.model, KEY, count=8, quantile=0.9)
    own = calibration.assess(batch, 0)
    np.testing.assert_allclose(own.residual, sums[0].residual, rtol=1e-9)
    assert bool(own.out_of_range) == bool(own.residual > calibration.limit)
    still = op.solve_semilinear(found.model, batch, lambda u: 0.0 * u, 0, newton=1, rounds=4)
    np.testing.assert_allclose(still.residuals[1], residuals[3], rtol=1e-6)
    cubic = op.solve_semilinear(found.model, batch, lambda u: 0.5 * u**3, 0, newton=2, rounds=4)
    assert cubic.residuals[-1] < cubic.residuals[0] and np.all(np.diff(cubic.residuals) < 0)


def test_tuning_solves_a_problem_and_many_at_once_as_each_alone(batch):
    exact = lambda x: jnp.sin(x[0]) * jnp.cos(x[1])
    problem = op.LinearProblem(
        [1.0, 0, 0, 1.0, 1.0], source=lambda x: -exact(x), dirichlet=exact, exact=exact
    )
    keys = jax.random.split(KEY, 2)
    starts = [op.Target.random(key, width=6, depth=1) for key in keys]
    options = dict(key=KEY, steps=40, interior=32, edge=32)
    both = op.fine_tune([problem, batch.problem(0)], starts, **options)
    alone = op.fine_tune(problem, starts[0], **options, then="ssbroyden", then_steps=60)
    x = jnp.array([[0.2, -0.4], [0.7, 0.1], [-0.8, 0.3]])
    first = op.fine_tune(problem, starts[0], **options)
    np.testing.assert_allclose(both.solutions[0].many(x), first.solutions[0].many(x), rtol=1e-6)
    np.testing.assert_allclose(alone.solutions[0].many(x), jax.vmap(exact)(x), atol=0.03)
    assert alone.loss[0] < 0.1 * first.loss[0]
    begin = op.reptile(KEY, rounds=3, inner=2, width=6, depth=1)
    assert begin.matrices[0].shape == (22, 6) and np.all(np.isfinite(begin.many(x)))


def test_the_encoder_of_the_paper_looks_at_every_row_of_the_source():
    from rootflow.pde.operators.hypino.swin import Swin

    problem = op.LinearProblem([0, 0, 0, 1.0, 1.0], source=1.0)
    make = lambda key: Swin(56, 3, key=key, channels=4, depths=(2, 2), heads=(2, 2))
    encoder: Any = eqx.filter_jit(make)(KEY)
    images, c = problem.images(56), problem.coefficients
    see = eqx.filter_jit(lambda values: encoder(c, op.Images(images.masks, values)))
    out = see(images.values)
    assert out.shape == (3, 24)
    slope = jax.grad(lambda v: jnp.sum(see(v)))(images.values)
    assert np.all(np.isfinite(slope)) and np.all(np.abs(slope[0]).sum(1) > 0)


def test_references_solve_their_problems_and_bound_their_error():
    limits = {"HT": 1e-6, "HZ": 1e-6, "WV": 1e-6, "PS-L": 1e-6, "PS-C": 1e-5, "HZ-G": 1e-5}
    for name, limit in limits.items():
        bench = op.benchmark(name)
        assert bench.reference_residual(128) < limit and bench.bound < limit, name
    bench = op.benchmark("PS-L")
    np.testing.assert_allclose(bench.reference.max(), 0.1497, rtol=5e-3)
    assert not bench.inside[1, -2] and bench.inside[-2, -2]
    found = bench.errors(lambda x: 0.9 * jnp.asarray(bench.exact(np.asarray(x))))
    np.testing.assert_allclose(found.relative, 0.1, rtol=1e-9)
    # Pixels on the edge, where the solution is zero, have no relative error.
    away = np.abs(bench.reference[bench.inside]) > 1e-6
    np.testing.assert_allclose(found.smape, 200 * 0.1 / 1.9 * away.mean(), rtol=2e-3)
    assert found.largest**2 > found.mse > found.mae**2


def test_gaussians_have_their_potential_and_a_harmonic_function_is_fitted():
    x = np.random.default_rng(0).uniform(-1, 1, (50, 2))
    u = lambda x: particular.gaussian_potential(x, (0.2, 0.1), 0.3, 5.0)
    h = 1e-3
    around = sum(u(x + h * np.array(d)) for d in ((1, 0), (-1, 0), (0, 1), (0, -1)))
    f = 5 * np.exp(-np.sum((x - [0.2, 0.1]) ** 2, 1) / 0.18)
    np.testing.assert_allclose(-(around - 4 * u(x)) / h**2, f, atol=1e-4)
    square = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    at, check = particular.edges(square, 20), particular.edges(square, 33)
    saddle = lambda x: x[:, 0] ** 2 - x[:, 1] ** 2
    found = particular.fit(
        lambda x: np.zeros(len(x)), lambda x: particular.harmonic_polynomials(x, 4), at,
        saddle(at), check, saddle(check),
    )  # fmt: skip
    assert found.misfit < 1e-12
    np.testing.assert_allclose(found(x), saddle(x), atol=1e-12)


def test_what_is_refused(net, batch):
    images = net.images(batch, 0)
    wrong = batch.problem(0).images(24)
    with pytest.raises(InputError, match=r"16 x 16 pixels; got values of shape \(3, 24, 24\)"):
        net.solution(batch.coefficients[0], wrong)
    with pytest.raises(InputError, match="no term of second order"):
        net.solution([1.0, 1.0, 0.0, 0.0, 0.0], images)
    with pytest.raises(InputError, match="no term of second order"):
        op.LinearProblem([0, 1.0, 1.0, 0, 0])
    with pytest.raises(InputError, match=r"shape \(5,\); got \(4,\)"):
        op.LinearProblem([0, 1.0, 1.0, 0])
    with pytest.raises(InputError, match="must be finite"):
        op.LinearProblem([0, 0, 0, 1.0, np.nan])
    with pytest.raises(InputError, match="multiple of 4"):
        op.HyPINO(KEY, grid=18)
    with pytest.raises(InputError, match="windows of 7"):
        op.HyPINO(KEY, grid=64, size="paper")
    with pytest.raises(InputError, match="size must be one of"):
        op.HyPINO(KEY, size="huge")
    with pytest.raises(InputError, match="Give an index"):
        op.refine(net, batch)
    with pytest.raises(InputError, match="problems 0 to 2; got 3"):
        op.refine(net, batch, 3)
    with pytest.raises(InputError, match="weights must be one of"):
        op.refine(net, batch, 0, weights="best")
    with pytest.raises(InputError, match="relaxation must be finite"):
        op.refine(net, batch, 0, relaxation=np.inf)
    with pytest.raises(InputError, match="give a geometry"):
        op.manufactured(KEY, family=op.Family("mixed"))
    with pytest.raises(InputError, match="is a share"):
        op.Family(unsupervised=2.0)
    with pytest.raises(InputError, match=r"must lie within \[-1, 1\]²"):
        op.Geometry(Box(((-2, 2), (-1, 1))), op.square().pieces)
    with pytest.raises(InputError, match="no piece of the boundary"):
        op.Geometry(Disk(), [])
    with pytest.raises(InputError, match="1 holes and 2 pairs"):
        op.with_holes([Disk((0, 0), 0.2)], conditions=[(True, False)] * 2)
    with pytest.raises(InputError, match="the benchmark has"):
        op.benchmark("PS-X")
    with pytest.raises(InputError, match="1 problems and 2 starts"):
        op.fine_tune(batch.problem(0), [op.Target.random(KEY)] * 2, key=KEY)
    with pytest.raises(InputError, match="nothing would be trained"):
        op.fine_tune(batch.problem(0), op.Target.random(KEY), key=KEY, steps=0)
    with pytest.raises(InputError, match="net must be"):
        op.train_hypino(None, key=KEY, steps=1)
    with pytest.raises(InputError, match="reaction must be"):
        op.solve_semilinear(net, batch, 3.0, 0)
    with pytest.raises(InputError, match="between 0 and 1"):
        op.calibrate(net, KEY, quantile=1.0)
    assert OperatorLoss(op.Weights(), False) == OperatorLoss(op.Weights(), False)


def test_attention_is_that_of_equinox():
    layer = eqx.nn.MultiheadAttention(4, 16, key=jax.random.key(1))
    x, source = (jax.random.normal(jax.random.key(i), (n, 16)) for i, n in ((2, 5), (3, 7)))
    np.testing.assert_allclose(
        attended(layer, x, source), layer(x, source, source), rtol=1e-11, atol=1e-13
    )


def test_holes_at_the_side_have_no_boundary_there():
    hole = Box(((0.0, 1.0), (0.0, 1.0)))
    geometry = op.with_holes([hole])
    for piece in geometry.pieces:
        x = np.asarray(piece.points)
        assert not np.any((x > 1e-9).all(1))  # the sides that hole and square share
        assert len(x) > 50
    inner = np.asarray(geometry.pieces[1].points)
    np.testing.assert_allclose(np.abs(inner).min(1), 0.0, atol=1e-12)
