"""Algebra and norms of frequencies, reactions in many dimensions, sampled and trained networks."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootflow import pde
from rootflow.errors import InputError, SolveError
from rootflow.pde.variational import quadrature
from rootflow.pde.variational.natural import applied_direction, dense_direction, expand, states

jax.config.update("jax_enable_x64", True)


@st.composite
def functions(draw):
    """Two functions of three variables, phases and constants included."""
    made = []
    for _ in range(2):
        rows = draw(st.lists(st.tuples(*[st.integers(-3, 3)] * 3), min_size=1, max_size=5))
        parts = st.floats(-2, 2, allow_subnormal=False)
        made.append({k: complex(draw(parts), draw(parts)) for k in rows})
    return tuple(pde.Frequencies(c, period=2.0) for c in made)


@given(functions())
def test_algebra_is_that_of_functions(pair):
    u, v = pair
    x = np.random.default_rng(0).random((5, 3)) * 4
    ux, vx = np.asarray(u(x)), np.asarray(v(x))
    np.testing.assert_allclose((u * v)(x), ux * vx, atol=1e-11)
    np.testing.assert_allclose((u + 2 * v - 1)(x), ux + 2 * vx - 1, atol=1e-11)
    np.testing.assert_allclose((1 - u / 2)(x), 1 - ux / 2, atol=1e-11)
    # Barron's inequalities for sums, products and derivatives (Marwah et al. 2022).
    slack = 1 + 1e-12
    assert (u + v).barron_norm() <= slack * (u.barron_norm() + v.barron_norm()) + 1e-12
    assert (u * v).barron_norm() <= slack * u.barron_norm() * v.barron_norm() + 1e-12
    widest = np.abs(u.omega).max()
    assert u.derivative(1).barron_norm() <= slack * widest * u.barron_norm() + 1e-12
    assert u.derivative(0).resolvent().barron_norm() <= slack * 0.5 * u.barron_norm() + 1e-12
    # Mean squares by an exact rule of trapezia, eight points to a period of frequencies up to 3.
    line = np.arange(8) / 4
    mesh = np.stack(np.meshgrid(line, line, line, indexing="ij"), -1).reshape(-1, 3)
    mean = np.mean(np.asarray(u(mesh)) ** 2)
    np.testing.assert_allclose(u.l2_norm() ** 2, mean, atol=1e-11)
    mean = (u.resolvent() * u).coefficients.get((0, 0, 0), 0.0)
    np.testing.assert_allclose(u.dual_norm() ** 2, np.real(mean), atol=1e-11)
    bent = u - u.laplacian()
    np.testing.assert_allclose(bent.dual_norm(), u.h1_norm(), atol=1e-10)
    np.testing.assert_allclose(bent.resolvent()(x), ux, atol=1e-10)


def test_derivatives_are_those_of_the_function():
    u = pde.Frequencies({(1, -2): 0.3 + 0.4j, (0, 1): 1.0, (0, 0): 2.0}, period=1.5)
    x = jnp.array([0.3, 0.7])
    slope = jax.grad(u)(x)
    np.testing.assert_allclose([u.derivative(i)(x) for i in range(2)], slope, rtol=1e-12)
    np.testing.assert_allclose(u.laplacian()(x), jnp.trace(jax.hessian(u)(x)), rtol=1e-12)
    w = 2 * np.pi / 1.5
    exact = 0.5 * (1 + w * np.sqrt(5)) + (1 + w) + 2.0
    np.testing.assert_allclose(u.barron_norm(), exact, rtol=1e-12)
    assert pde.Frequencies({(1, 2): 1.0, (-1, -2): 2.0}).coefficients == {(1, 2): 3.0}
    assert (u - u).barron_norm() == 0


def test_pruning_says_what_it_cost():
    u = pde.Frequencies({(1, 0): 1.0, (2, 3): 1e-3, (0, 5): 2e-4j})
    pruned = u.prune(1e-2)
    lost = u - pruned.kept
    np.testing.assert_allclose(pruned.error, lost.h1_norm(), rtol=1e-12)
    np.testing.assert_allclose(pruned.bound, lost.barron_norm(), rtol=1e-12)
    assert pruned.error <= pruned.bound and pruned.modes == 2 and pruned.kept.modes == 1
    x = np.random.default_rng(1).random((50, 2))
    short = u.product(u, 1e-4)
    assert 0 < short.dropped < 1e-5
    assert np.max(np.abs(np.asarray(short.kept(x) - u(x) ** 2))) <= short.dropped
    assert u.prune(5.0).kept.l2_norm() == 0


@pytest.mark.parametrize("d", [5, 40])
def test_reactions_are_solved_alike_in_any_dimension(d):
    rows = np.zeros((2, d), int)
    rows[0, :2], rows[1, [1, 3]] = 1, (1, -1)
    star = pde.Frequencies.of(rows, np.array([0.5, 0.5]))
    f = star + star * star * star - star.laplacian()
    run = pde.solve_reaction(f, steps=10, prune=1e-11)
    errors = (run.u - star).h1_norm()
    assert errors <= run.error_bounds[-1] * (1 + 1e-9) < 1e-6
    np.testing.assert_allclose(
        run.barron_norms[-1], 2 * 0.5 * (1 + 2 * np.pi * np.sqrt(2)), rtol=1e-6
    )
    assert np.all(run.barron_norms <= run.barron_bounds * (1 + 1e-9))
    assert run.barron_bounds[-1] > 1e20
    # Pruned hard, it is still as near as it says.
    coarse = pde.solve_reaction(f, steps=10, prune=1e-3)
    assert (coarse.u - star).h1_norm() <= coarse.error_bounds[-1] and coarse.pruned > 0
    assert pde.solve_reaction(f, steps=30, tolerance=1e-2).steps < 10


def test_an_odd_reflection_is_zero_data_on_the_cube():
    """-Δu + u + u³ = f with u = sin πx sin πy, against the certified solution on a grid."""
    u = pde.SineProduct(2).frequencies()
    x = jax.random.uniform(jax.random.key(0), (6, 2))
    np.testing.assert_allclose(u(x), jnp.prod(jnp.sin(jnp.pi * x), -1), atol=1e-12)
    run = pde.solve_reaction(u * 30.0, steps=40, prune=1e-9)
    grid = pde.SineGrid(2, 24)
    problem = pde.Energy(
        lambda x, u, p: 0.5 * (p @ p + u * u) + 0.25 * u**4,
        lambda x: 30 * jnp.prod(jnp.sin(jnp.pi * x)), ellipticity=(1, 14),
    )  # fmt: skip
    field = pde.minimise(problem, grid, relative_error=1e-4).u
    assert float(jnp.max(jnp.abs(field - run(grid.points)))) < 0.01 * float(jnp.max(field))


def test_reactions_that_cannot_be_solved_say_so():
    f = pde.Frequencies({(0, 0): 500.0})
    with pytest.raises(SolveError, match=r"grows without end.*Halve it"):
        pde.solve_reaction(f, cubic=100.0, step=1.0)
    wide = pde.Frequencies({(1, 0): 300.0, (0, 1): 300.0})
    with pytest.raises(SolveError, match="more than most_modes=5"):
        pde.solve_reaction(wide, most_modes=5)


def test_the_published_recursion():
    found = pde.barron_growth(
        norm=2.0, band=1.0, dim=3, growth=0.5, power=2.0, widening=2.0, step=0.1, steps=3
    )
    norm, band = 2.0, 1.0
    for row in range(1, 4):
        norm, band = (1 + 0.1 * 3 * (2 * band) ** 2 * 0.5) * norm**2, 2 * band
        np.testing.assert_allclose(found.norms[row], norm, rtol=1e-12)
    np.testing.assert_allclose(np.exp(found.bands[-1]), 8.0, rtol=1e-12)


@pytest.mark.parametrize("norm", ["l2", "h1"])
def test_sampled_networks_err_as_predicted(norm):
    u = pde.Frequencies({(1, 0, 2): 1.0, (0, 1, 0): 0.5j, (3, 1, 0): 0.25, (0, 0, 0): 0.3})
    width, squares = 16, []
    for key in jax.random.split(jax.random.key(0), 300):
        rest = pde.sample_network(u, width=width, key=key, norm=norm).frequencies() - u
        squares.append((rest.l2_norm() if norm == "l2" else rest.h1_norm()) ** 2)
    expected = pde.sampling_error(u, width=width, norm=norm) ** 2
    spread = np.std(squares) / np.sqrt(len(squares))
    assert abs(np.mean(squares) - expected) < 4 * spread
    total = np.abs(u.c).sum() if norm == "l2" else u.barron_norm()
    assert expected <= total**2 / width


def test_networks_of_a_product_of_sines():
    net = pde.sample_network(pde.SineProduct(5), width=64, key=jax.random.key(0))
    x = jax.random.uniform(jax.random.key(1), (9, 5))
    np.testing.assert_allclose(net(x), net.frequencies()(x), atol=1e-12)
    np.testing.assert_allclose(net.path_norm(), 1 + np.pi * np.sqrt(5), rtol=1e-12)
    np.testing.assert_allclose(pde.SineProduct(3).frequencies().l2_norm(), 2**-1.5, rtol=1e-12)
    np.testing.assert_allclose(
        pde.SineProduct(3).frequencies().h1_norm(), pde.SineProduct(3).h1_norm(), rtol=1e-12
    )
    np.testing.assert_allclose(
        pde.SineProduct(3).frequencies().barron_norm(), pde.SineProduct(3).barron_norm(), rtol=1e-12
    )
    assert pde.width_needed(10.0, error=0.1) == 10_000
    assert pde.width_needed(10.0, error=0.1, rule="published") == 40_000


def test_compression_keeps_its_promise():
    u = pde.Frequencies({(1, 0): 1.0, (0, 2): 0.5, (1, 1): 0.1})
    net, reached = pde.compress(u, error=0.3, key=jax.random.key(0), norm="l2")
    x = (np.stack(np.meshgrid(*[np.arange(16) / 16] * 2), -1)).reshape(-1, 2)
    mean = np.sqrt(np.mean(np.asarray(net(x) - u(x)) ** 2))
    np.testing.assert_allclose(mean, reached, rtol=1e-10)
    assert reached <= 0.3


def smooth(x):
    s = jnp.sin(jnp.pi * x[0])
    return jnp.pi**2 * s + s**3


QUARTIC = pde.Energy(lambda x, u, p: 0.5 * p @ p + 0.25 * u**4, smooth, ellipticity=(1, 4))
LINE = jnp.linspace(0, 1, 101)[:, None]


def relative(net):
    exact = jnp.sin(jnp.pi * LINE[:, 0])
    return float(jnp.linalg.norm(net(LINE) - exact) / jnp.linalg.norm(exact))


@pytest.mark.parametrize("metric", ["energy", "sobolev"])
def test_natural_gradients_reach_the_solution(metric):
    net = pde.solve_ritz(
        QUARTIC, dim=1, width=16, steps=14, points=64, metric=metric, key=jax.random.key(0)
    )
    assert relative(net) < 1e-5  # (Adam: 2e-3 after 1,000 steps)
    assert np.all(np.diff(net.energies) <= 1e-12) and net.path_norms[-1] > 0
    # ∫ |u'|²/2 + u⁴/4 - f u at sin πx is -π²/4 - 9/32.
    np.testing.assert_allclose(net.energies[-1], -(np.pi**2) / 4 - 9 / 32, rtol=1e-9)
    np.testing.assert_allclose(net.check_energy, net.energies[-1], rtol=1e-7)
    grid = pde.SineGrid(1, 64)
    bound = pde.certify(QUARTIC, grid, net.network).error
    found = pde.minimise(QUARTIC, grid, relative_error=1e-8).u
    assert float(grid.h1_norm(net(grid.points) - found)) <= float(bound) < 0.01


def test_deep_ritz_with_a_penalty_and_new_points_each_step():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net = pde.solve_ritz(
            QUARTIC, dim=1, width=12, steps=400, points=64, metric="adam", boundary="penalty",
            rule="uniform", optimizer=optax.adam(1e-2), key=jax.random.key(0),
        )  # fmt: skip
    assert relative(net) < 0.2 and len(net.steps_used) == 0
    # -u'' = 1 with ∂u/∂n + 2 u = 0, which is what the penalty makes of zero values.
    one = pde.Energy(lambda x, u, p: 0.5 * p @ p, lambda x: 1.0 + 0 * x[0], ellipticity=(1, 1))
    net = pde.solve_ritz(
        one, dim=1, width=8, steps=10, points=32, boundary="penalty", penalty=2.0,
        activation="relu3", key=jax.random.key(1),
    )  # fmt: skip
    exact = LINE[:, 0] * (1 - LINE[:, 0]) / 2 + 0.25
    np.testing.assert_allclose(net(LINE), exact, atol=5e-4)


def test_the_applied_gram_matrix_is_the_formed_one():
    points = quadrature.gauss(1, 40)
    design = jnp.stack([jnp.sin(k * jnp.pi * points.x[:, 0]) for k in (1, 2, 3)], 1)
    slope = jnp.stack([k * jnp.pi * jnp.cos(k * jnp.pi * points.x[:, 0]) for k in (1, 2, 3)], 1)
    jacobian = jnp.stack([design, slope], axis=1)
    theta = jnp.array([0.3, -0.2, 0.1])
    edge = jnp.zeros((2, 3))
    for metric in ("energy", "sobolev"):
        local = expand(QUARTIC, jacobian @ theta, edge @ theta, points, 0.0, metric)
        dense, g = dense_direction(local, jacobian, edge)
        applied, h = applied_direction(local, lambda t: (jacobian @ t, edge @ t), theta, 1e-12)
        np.testing.assert_allclose(applied, dense, rtol=1e-6)
        np.testing.assert_allclose(g, h, rtol=1e-10)
    # In the metric of H the direction is the residual's Riesz representative: 1 / (1 + k² π²).
    lin = pde.Energy(lambda x, u, p: 0.5 * p @ p)
    local = expand(lin, jacobian @ theta, edge @ theta, points, 0.0, "sobolev")
    k = np.arange(1, 4) * np.pi
    np.testing.assert_allclose(
        dense_direction(local, jacobian, edge)[0], theta * k**2 / (1 + k**2), rtol=1e-10
    )
    assert states(lambda x: x[0] ** 2, points.x).shape == (40, 2)


def test_matrix_free_steps_reach_the_solution_too():
    net = pde.solve_ritz(
        QUARTIC, dim=1, width=10, steps=30, points=40, dense_parameters=1, key=jax.random.key(0)
    )
    assert relative(net) < 1e-2


def test_minimising_the_quadrature_is_noticed():
    with pytest.warns(pde.QuadratureWarning, match="error of the quadrature"):
        pde.solve_ritz(
            QUARTIC, dim=1, width=20, steps=30, points=8, activation="cos", rule="sobol",
            key=jax.random.key(0),
        )  # fmt: skip


@pytest.fixture(scope="module")
def greedy():
    problem = pde.Energy(
        lambda x, u, p: 0.5 * (p @ p + u * u),
        lambda x: (jnp.pi**2 + 1) * jnp.cos(jnp.pi * x[0]),
        ellipticity=(1, 1),
    )
    return pde.solve_greedy(
        problem, dim=1, atoms=24, points=1024, key=jax.random.key(0), boundary="natural",
        candidates=100,
    )  # fmt: skip


def test_greedy_approximation_converges_at_its_rate(greedy):
    """ReLU² in one dimension: n^-2 in H¹, twice that for the energy."""
    least = -(np.pi**2 + 1) / 4
    gaps = greedy.energies - least
    assert np.all(np.diff(greedy.energies) < 1e-12) and np.all(gaps > -1e-12)
    slope = np.polyfit(np.log(np.arange(6, 25)), np.log(gaps[5:]), 1)[0]
    assert -6.0 < slope < -3.4, slope
    few = greedy.partial(6)
    x, w = map(jnp.asarray, quadrature.line(2048))
    s = states(few, x[:, None])
    energy = w @ (0.5 * jnp.sum(s**2, 1) - (np.pi**2 + 1) * jnp.cos(jnp.pi * x) * s[:, 0])
    np.testing.assert_allclose(energy, greedy.energies[5], rtol=1e-10)
    np.testing.assert_allclose(greedy.network.path_norm(), greedy.path_norms[-1], rtol=1e-10)
    assert float(jnp.max(jnp.abs(greedy(x[:, None]) - jnp.cos(jnp.pi * x)))) < 2e-3


def test_greedy_with_a_nonlinear_energy_and_zero_values():
    net = pde.solve_greedy(
        QUARTIC, dim=1, atoms=8, points=256, key=jax.random.key(0), candidates=50, polish=False
    )
    assert relative(net) < 0.02 and abs(float(net(jnp.array([[1.0]]))[0])) < 1e-12


def test_rules_of_quadrature_are_exact_for_polynomials():
    for points in (quadrature.gauss(2, 16), quadrature.gauss(1, 72)):
        d = points.x.shape[1]
        value = points.weights @ jnp.prod(points.x**3, axis=1)
        np.testing.assert_allclose(value, 0.25**d, rtol=1e-12)
        np.testing.assert_allclose(points.face_weights.sum(), 2 * d, rtol=1e-12)
    drawn = quadrature.uniform(jax.random.key(0), 3, 100)
    edges = (drawn.faces == 0) | (drawn.faces == 1)
    assert np.all(edges.sum(axis=1) == 1) and np.isclose(drawn.face_weights.sum(), 6)


one = pde.Frequencies({(1, 0): 1.0})
key = jax.random.key(0)
ritz = dict(dim=1, width=4, steps=1, points=8, key=key)
BAD = [
    (lambda: pde.Frequencies({}), "at least one frequency"),
    (lambda: pde.Frequencies({(0.5, 1): 1.0}), "whole numbers; got 0.5"),
    (lambda: pde.Frequencies({(1, 0): 1.0, (1,): 1.0}), "one length"),
    (lambda: pde.Frequencies({(): 1.0}), "one length, at least one"),
    (lambda: pde.Frequencies({1: 1.0}), "tuples"),
    (lambda: pde.Frequencies({(1, 0): np.nan}), "coefficients must be finite"),
    (lambda: pde.Frequencies({(1, 0): "a"}), "coefficients must be numbers"),
    (lambda: pde.Frequencies({("a", 0): 1.0}), "whole numbers"),
    (lambda: pde.Frequencies({(1, 0): 1.0}, period=0.0), "period must be a positive"),
    (lambda: pde.Frequencies.of(np.zeros((2, 3)), np.ones(3)), r"\(2, 3\) and \(3,\)"),
    (lambda: pde.Frequencies.of(np.full((1, 3), 0.5), np.ones(1)), "whole numbers"),
    (lambda: one(jnp.zeros(3)), r"x must have shape \(..., 2\)"),
    (lambda: one + pde.Frequencies({(1,): 1.0}), "same dimension and period"),
    (lambda: one * "a", "real numbers"),
    (lambda: one * 1j, "real numbers"),
    (lambda: one / 0.0, "divided by zero"),
    (lambda: one**0, "exponent"),
    (lambda: one.derivative(2), "axis=2"),
    (lambda: one.prune(-1.0), "threshold must be a finite number of at least zero"),
    (lambda: pde.solve_reaction(1.0), "source must be a Frequencies"),
    (lambda: pde.solve_reaction(one, step=1.5), "step must be a positive number of at most 1"),
    (lambda: pde.solve_reaction(one, steps=0), "steps must be a whole number"),
    (lambda: pde.solve_reaction(one, cubic=-1.0), "cubic must be"),
    (lambda: pde.sample_network(one, width=0, key=key), "width must be a whole number"),
    (lambda: pde.sample_network(one * 0.0, width=1, key=key), "the target is zero"),
    (lambda: pde.sample_network(jnp.sin, width=1, key=key), "target must be"),
    (lambda: pde.SineProduct(0), "dim must be"),
    (lambda: pde.SineProduct(17).frequencies(), "sample instead"),
    (lambda: pde.width_needed(-1.0, error=0.1), "barron_norm must be a positive"),
    (lambda: pde.width_needed(1.0, error=0.0), "error must be a positive"),
    (lambda: pde.solve_ritz(QUARTIC, **{**ritz, "width": 0}), "width must be a whole"),
    (lambda: pde.solve_ritz(QUARTIC, **{**ritz, "steps": -1}), "steps must be a whole"),
    (lambda: pde.solve_ritz(QUARTIC, **{**ritz, "dim": 2}), "no square of a whole.*take 9 or 16"),
    (lambda: pde.solve_ritz(QUARTIC, **{**ritz, "points": 100}), "multiple of 8"),
    (
        lambda: pde.solve_ritz(QUARTIC, **{**ritz, "points": 9}, rule="sobol"),
        "power of two.*take 8",
    ),
    (lambda: pde.solve_ritz(QUARTIC, **{**ritz, "dim": 5}, rule="gauss"), "at most three"),
    (lambda: pde.solve_ritz(QUARTIC, **ritz, metric="newton"), "metric must be one of"),
    (lambda: pde.solve_ritz(QUARTIC, **ritz, boundary="penalty", penalty=-1.0), "penalty must be"),
    (lambda: pde.solve_ritz(smooth, **ritz), "problem must be an Energy"),
    (lambda: pde.solve_ritz(QUARTIC, **ritz, start=jnp.sin), "start must be a TwoLayer"),
    (
        lambda: pde.solve_ritz(pde.Energy(QUARTIC.L, jnp.zeros(7)), **ritz),
        "source is a field on a grid",
    ),
    (lambda: pde.solve_ritz(pde.Energy(QUARTIC.L, lambda x: x), **ritz), "source must return"),
    (lambda: pde.solve_greedy(QUARTIC, dim=1, atoms=0, points=8, key=key), "atoms must be"),
    (lambda: pde.solve_greedy(QUARTIC, dim=1, atoms=1, points=8, key=key, power=0), "power must"),
    (
        lambda: pde.barron_growth(
            norm=0, band=1, dim=1, growth=1, power=1, widening=1, step=1, steps=1
        ),
        "norm must be a positive",
    ),
]


@pytest.mark.parametrize("case", range(len(BAD)))
def test_bad_input_is_named(case):
    call, message = BAD[case]
    with pytest.raises(InputError, match=message):
        call()
