"""Trained networks against closed forms; what is refused."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import pde
from rootflow.pde.informed.contradictions import check_conditions

L = 2 * np.pi
KEY = jax.random.key(0)


def source(x):
    return jnp.pi**2 * jnp.sin(jnp.pi * x)


def poisson(**changes):
    options = dict(
        residual=lambda u, x, p: -jax.grad(jax.grad(u))(x) - source(x),
        domain=pde.Interval(0.0, 1.0),
    )
    return pde.Informed(**(options | changes))


SMALL = dict(width=8, depth=2, steps=0, points=32, then="ssbroyden", then_steps=150, key=KEY)


def test_an_unknown_parameter_from_three_data():
    at = np.array([0.2, 0.5, 0.8])
    problem = pde.Informed(
        residual=lambda u, x, p: -p["k"] * jax.grad(jax.grad(u))(x) - source(x),
        domain=pde.Interval(0.0, 1.0), hard=lambda x, v: x * (1.0 - x) * v,
        data=(at, 0.5 * np.sin(np.pi * at)), parameters={"k": 1.0},
    )  # fmt: skip
    found = pde.solve_informed(problem, **(SMALL | {"steps": 100, "then_steps": 300}))
    np.testing.assert_allclose(found.parameters["k"], 2.0, rtol=1e-3)
    x = jnp.linspace(0.0, 1.0, 11)
    np.testing.assert_allclose(found(x), 0.5 * jnp.sin(jnp.pi * x), atol=2e-3)
    assert found.history.shape == found.record["step"].shape and found.history[-1] < 1e-6
    assert found.residual(x)[0].shape == (11,) and found.parameters_count == 8 * 2 + 72 + 9 + 1


def test_a_system_with_soft_conditions_on_a_disk_with_a_hole():
    """u = x² - y², v = 2 x y: the equations of Cauchy and Riemann."""
    ring = pde.Disk() - pde.Disk(radius=0.5)

    def residual(w, z, p):
        J = jax.jacfwd(w)(z)
        return J[0, 0] - J[1, 1], J[0, 1] + J[1, 0]

    outer = lambda z: z @ z > 0.8
    problem = pde.Informed(
        residual=residual, domain=ring, outputs=2,
        conditions=(
            pde.Soft(lambda w, z, p: w(z)[0] - (z[0] ** 2 - z[1] ** 2), on=outer, name="real"),
            pde.Soft(lambda w, z, p: w(z)[1] - 2 * z[0] * z[1], on=[[1.0, 0.0]], weight=3.0),
        ),
    )  # fmt: skip
    found = pde.solve_informed(problem, **(SMALL | {"points": 100, "width": 12}))
    z = jnp.asarray(ring.sample(50))
    exact = jnp.stack([z[:, 0] ** 2 - z[:, 1] ** 2, 2 * z[:, 0] * z[:, 1]], 1)
    np.testing.assert_allclose(found(z), exact, atol=0.02)


def test_conditions_as_those_of_volumes_and_a_periodic_axis():
    """-Δu = 0 on a strip, periodic in x: u = cos(2πx) sinh(2πy) / sinh(2π)."""
    exact = lambda z: jnp.cos(2 * jnp.pi * z[0]) * jnp.sinh(2 * jnp.pi * z[1]) / np.sinh(2 * np.pi)
    problem = pde.Informed(
        residual=lambda u, z, p: jnp.trace(jax.hessian(u)(z)) / 40,
        domain=pde.Box([(0, 1), (0, 1)]), periodic=(0,),
        conditions=(
            pde.Soft(pde.Dirichlet(exact), on=lambda z: z[1] > 0.999),
            pde.Soft(
                pde.Neumann(lambda z: -jax.grad(exact)(z)[1]), on=lambda z: z[1] < 0.001,
                weight=0.1,
            ),
        ),
    )  # fmt: skip
    found = pde.solve_informed(problem, **(SMALL | {"points": 128, "width": 12}))
    z = jnp.asarray(problem.domain.sample(50))
    np.testing.assert_allclose(found(z), jax.vmap(exact)(z), atol=0.02)
    ends = found(jnp.array([[0.0, 0.7], [1.0, 0.7]]))
    np.testing.assert_allclose(*ends, atol=1e-12)


FAST = pde.Transport(speed=30.0, viscosity=0.05, initial=jnp.sin, length=L, end=1.0)
TINY = dict(width=12, depth=2, steps=300, points=128, dtype=jnp.float32, key=KEY)


@pytest.fixture(scope="module")
def moving():
    return pde.solve_informed(FAST, **TINY)


def test_a_moving_frame_solves_fast_convection(moving):
    x, t = jnp.meshgrid(jnp.linspace(0.0, L, 33), jnp.linspace(0.0, 1.0, 5), indexing="ij")
    exact = jnp.exp(-0.05 * t) * jnp.sin(x - 30 * t)
    np.testing.assert_allclose(moving(x, t), exact, atol=0.02)
    np.testing.assert_allclose(moving(x + L, t), moving(x, t), atol=1e-9)
    assert 0.9 < float(moving.min_jacobian) <= 1.01 and len(moving.history) > 1
    X = jnp.linspace(0.0, L, 9)
    np.testing.assert_allclose(moving(moving.path(X, 0.7), 0.7), moving.state(X, 0.7), atol=1e-9)
    slope = jax.grad(moving)(1.0, 0.5)
    gap = (moving(1.0 + 1e-5, 0.5) - moving(1.0 - 1e-5, 0.5)) / 2e-5
    np.testing.assert_allclose(slope, gap, rtol=1e-6)


def test_the_galilean_map_does_not_know_the_speed(moving):
    slow = pde.Transport(speed=1.0, viscosity=0.05, initial=jnp.sin, length=L, end=1.0)
    found = pde.solve_informed(slow, **TINY)
    x = jnp.linspace(0.0, L, 17)
    np.testing.assert_allclose(found(x, 0.6), moving(x + 29.0 * 0.6, 0.6), atol=1e-4)


def test_paths_in_two_dimensions():
    problem = pde.Transport(
        speed=lambda u, x, t: jnp.stack([jnp.sin(x[1]), 0.0 * x[0]]), viscosity=0.0,
        initial=lambda x: jnp.sin(x[0]), length=(L, L), end=1.0,
    )  # fmt: skip
    found = pde.solve_informed(problem, **(TINY | {"then": "ssbroyden", "then_steps": 150}))
    x = jnp.asarray(np.random.default_rng(1).uniform(0, L, (40, 2)))
    exact = jnp.sin(x[:, 0] - jnp.sin(x[:, 1]))
    np.testing.assert_allclose(found(x, jnp.ones(40)), exact, atol=0.03)


@pytest.mark.parametrize(
    "options",
    [
        dict(weighting="gradient_norm", initial="soft", every=20),
        dict(sampling="adaptive", every=20),
        dict(sampling="uniform", causal=1.0),
        dict(sampling="fixed", measure="norm"),
    ],
    ids=str,
)
def test_options_of_training_on_a_standing_frame(options):
    """u = e^-t sin(x), which is easy."""
    still = pde.Transport(speed=0.0, viscosity=1.0, initial=jnp.sin, length=L, end=1.0)
    settings = TINY | {"frame": pde.Eulerian(), "steps": 400, "learning_rate": 1e-2}
    found = pde.solve_informed(still, **(settings | options))
    x = jnp.linspace(0.0, L, 17)
    np.testing.assert_allclose(found(x, 0.8), np.exp(-0.8) * jnp.sin(x), atol=0.03)
    if "weighting" in options:
        weights = [float(w) for w in found.trainee.weights.values()]
        assert min(weights) > 0 and max(abs(w - 1) for w in weights) > 0.05


def test_windows_curriculum_and_slabs():
    problem = pde.Transport(speed=2.0, viscosity=0.1, initial=jnp.sin, length=L, end=1.0)
    x = jnp.linspace(0.0, L, 17)
    exact = lambda t: np.exp(-0.1 * t) * np.sin(x - 2 * t)
    marched = pde.solve_windows(problem, windows=2, **(TINY | {"steps": 200}))
    for t in (0.3, 1.0):
        np.testing.assert_allclose(marched(x, t), exact(t), atol=0.02)
    assert float(marched.min_jacobian) > 0.9
    stages = [
        pde.Transport(speed=c, viscosity=0.1, initial=jnp.sin, length=L, end=1.0)
        for c in (1.0, 2.0)
    ]
    learnt = pde.solve_curriculum(stages, **(TINY | {"steps": 400, "learning_rate": 1e-2}))
    np.testing.assert_allclose(learnt(x, 1.0), exact(1.0), atol=0.05)
    hard = poisson(hard=lambda x, v: x * (1 - x) * v)
    joined = pde.solve_xpinn(
        hard, axis=0, cuts=[0.5], width=8, depth=2, steps=800, points=32, key=KEY,
        learning_rate=1e-2,
    )  # fmt: skip
    y = jnp.linspace(0.0, 1.0, 11)
    np.testing.assert_allclose(joined(y), jnp.sin(jnp.pi * y), atol=0.05)
    with pytest.raises(rf.InputError, match="cuts must be increasing numbers between 0 and 1"):
        pde.solve_xpinn(hard, axis=0, cuts=[2.0], key=KEY)


def test_advice_before_training():
    fast, slow = (
        pde.Transport(speed=c, viscosity=0.0, initial=jnp.sin, length=L, end=1.0)
        for c in (30.0, 0.1)
    )
    advice = pde.advise_frame(fast, key=KEY)
    assert isinstance(advice.frame, pde.Lagrangian) and "4.77 lengths of the box" in advice.reason
    assert advice.width_fixed == 2 and advice.width_moving == (1, 2)  # a sine has rank two
    assert isinstance(pde.advise_frame(slow, key=KEY, pilot=False).frame, pde.Eulerian)
    e = [
        pde.gauss_newton_eigenvalue(p, pde.Lagrangian(), key=KEY, width=8, points=64)
        for p in (fast, slow)
    ]
    np.testing.assert_allclose(*e, rtol=1e-9)  # the speed is only a constant in the residual


def test_a_shock_is_warned_of():
    late = pde.Transport(speed=lambda u: u, viscosity=0.0, initial=jnp.sin, length=L, end=1.5)
    with pytest.warns(pde.ShockWarning, match="paths cross at t = 1, before the end at 1.5"):
        pde.solve_informed(late, **(TINY | {"steps": 1}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pde.solve_informed(late, frame=pde.Eulerian(), **(TINY | {"steps": 1}))
    advice = pde.advise_frame(late, key=KEY)
    assert isinstance(advice.frame, pde.Eulerian) and "paths cross at t = 1" in advice.reason


def first(u, x, p):
    return u(x) - 1.0


def test_whole_numbers_say_where_a_condition_holds():
    square = pde.Box([(0, 1), (0, 1)])
    x, normals = pde.Soft(first, on=lambda x: jnp.where(x[0] > 0.999, 1, 0)).where(square, 0)
    np.testing.assert_allclose(x[:, 0], 1.0)
    np.testing.assert_allclose(normals, [[1.0, 0.0]] * len(x))
    # In the search for contradictions, too: there is none, for the two hold on opposite sides.
    conditions = (
        pde.Soft(pde.Dirichlet(1.0), on=lambda x: x > 0.5),
        pde.Soft(pde.Dirichlet(2.0), on=lambda x: jnp.where(x < 0.5, 1, 0)),
    )
    problem = poisson(conditions=conditions)
    check_conditions(problem, [c.where(problem.domain, 0) for c in conditions])


def test_conditions_that_contradict_each_other():
    hard = lambda x, v: x * (1 - x) * v
    ends = pde.Soft(first, name="ends")
    with pytest.raises(rf.InputError, match=r"ends contradicts the hard conditions: at 0\.0"):
        pde.solve_informed(poisson(hard=hard, conditions=ends), **SMALL)
    both = (ends, pde.Soft(pde.Dirichlet(2.0), on=lambda x: x > 0.5))
    with pytest.raises(rf.InputError, match=r"ends and condition 2 contradict: at 1.0.* off by 1"):
        pde.solve_informed(poisson(conditions=both), **SMALL)
    with pytest.raises(rf.InputError, match="the data contradict the hard conditions"):
        pde.solve_informed(poisson(hard=hard, data=([0.0, 0.5], [1.0, 1.0])), **SMALL)
    pde.solve_informed(  # what a parameter can mend is none
        poisson(
            hard=hard, conditions=pde.Soft(lambda u, x, p: u(x) - p["a"]), parameters={"a": 1.0}
        ),
        **(SMALL | {"then_steps": 1}),
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"residual": lambda u, x, p: u(x) * jnp.ones(3)}, r"must return one real .*\(3,\)"),
        ({"residual": lambda u, x, p: ()}, "empty tuple"),
        ({"residual": 1.0}, "residual must be a function"),
        ({"domain": (0, 1)}, "domain must be one such as"),
        ({"hard": lambda x, v: jnp.ones(2) * v}, r"hard must return u .* got \(2,\)"),
        ({"conditions": (jnp.sin,)}, "conditions are pde.Soft"),
        ({"data": ([0.1], [1.0, 2.0])}, r"data must be points of shape"),
        ({"data": ([0.1], [np.nan])}, "not finite"),
        ({"parameters": {"k": np.inf}}, "parameters begin with a number that is not finite"),
        ({"periodic": (1,)}, "names axes; there are 1"),
        ({"weights": (1.0, 2.0)}, "there are 1 equations and 2 weights"),
    ],
)  # fmt: skip
def test_problems_that_are_none(changes, message):
    with pytest.raises(rf.InputError, match=message):
        poisson(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"then": "ssbroiden"}, "Did you mean 'ssbroyden'"),
        ({"sampling": "sobol"}, "sampling must be one of"),
        ({"weighting": "gradient"}, "Did you mean 'gradient_norm'"),
        ({"then": None}, "nothing would be trained"),
        ({"frame": pde.Eulerian()}, "frame is for a Transport"),
        ({"causal": 1.0}, "causal weights need a domain with times"),
    ],
)
def test_options_that_are_none(changes, message):
    with pytest.raises(rf.InputError, match=message):
        pde.solve_informed(poisson(), **(SMALL | changes))
    with pytest.raises(rf.InputError, match="frame must be"):
        pde.solve_informed(FAST, frame="lagrangian", **TINY)  # pyright: ignore[reportArgumentType]
    with pytest.raises(rf.InputError, match="on='begin' must be"):
        pde.Soft(first, on="begin")
    with pytest.raises(rf.InputError, match="on='initial' needs a domain with times"):
        pde.solve_informed(poisson(conditions=pde.Soft(first, on="initial")), **SMALL)
    with pytest.raises(rf.InputError, match="True or False at each point"):
        pde.Soft(first, on=lambda x: x - 0.5).where(pde.Interval(0, 1), 0)
    with pytest.raises(rf.InputError, match="false at all 128 points"):
        pde.solve_informed(poisson(conditions=pde.Soft(first, on=lambda x: x > 2)), **SMALL)
