import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm
from scipy.stats import multivariate_normal

import rootflow as rf
from rootflow.errors import InputError
from rootflow.neural import ConcatSquashField, ContinuousFlow, Solver

KEY = jax.random.key(3)
A = np.array([[0.4, 0.9], [-0.5, -0.2]])
TIGHT = Solver(rtol=1e-10, atol=1e-12)
POINTS = np.array([[0.3, -1.0], [1.5, 0.2], [0.0, 0.0]])


def linear(t, y, args):
    return A @ y


@pytest.fixture(scope="module")
def learnt():
    a, b = jax.random.split(KEY)
    fields = [ConcatSquashField(2, width=8, depth=1, key=k) for k in (a, b)]
    scale = lambda x: 3 * x if eqx.is_inexact_array(x) else x
    return ContinuousFlow(
        jax.tree.map(scale, fields), 2, t1=0.5, solver=Solver(rf.Heun(), dt=1 / 64)
    )


def test_a_linear_field_gives_a_normal_law():
    flow = ContinuousFlow(linear, 2, t1=0.7, solver=TIGHT)
    found = jax.jit(jax.vmap(flow.density))(POINTS)
    root = expm(0.7 * A)
    law = multivariate_normal(cov=root @ root.T)
    np.testing.assert_allclose(found.log_prob, law.logpdf(POINTS), rtol=1e-8)
    np.testing.assert_allclose(found.base, POINTS @ np.linalg.inv(root).T, atol=1e-8)
    # |df/dy|^2 is constant.
    np.testing.assert_allclose(found.frobenius, 0.7 * np.sum(A**2) / 2, rtol=1e-8)
    speed = [np.sum((A @ expm(t * A) @ found.base[0]) ** 2) for t in np.linspace(0, 0.7, 201)]
    np.testing.assert_allclose(found.kinetic[0], np.trapezoid(speed, dx=0.0035) / 2, rtol=1e-4)
    samples = flow.sample(KEY, 2000)
    np.testing.assert_allclose(np.cov(samples.T), root @ root.T, atol=0.15)


def test_the_trace_by_random_products_has_the_exact_mean():
    exact = ContinuousFlow(linear, 2, solver=Solver(dt=0.1))
    random = ContinuousFlow(linear, 2, trace="hutchinson", solver=Solver(dt=0.1))
    keys = jax.random.split(KEY, 4000)
    found = jax.jit(jax.vmap(lambda key: random.log_prob(POINTS[0], key)))(keys)
    error = np.std(found) / np.sqrt(4000)
    assert abs(np.mean(found) - exact.log_prob(POINTS[0])) < 4 * error < 0.2
    # The trace of a flow of rotations with one random vector is exact: no noise in it.
    turn = ContinuousFlow(
        lambda t, y, args: jnp.array([-y[1], y[0]]), 2, trace="hutchinson", solver=Solver(dt=0.1)
    )
    np.testing.assert_allclose(
        turn.log_prob(POINTS[0], KEY), multivariate_normal(np.zeros(2)).logpdf(POINTS[0]), rtol=1e-6
    )


def test_a_learnt_density_integrates_to_one(learnt):
    line = np.linspace(-12, 12, 121)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    density = np.exp(jax.jit(jax.vmap(learnt.log_prob))(grid))
    np.testing.assert_allclose(density.sum() * 0.2**2, 1.0, atol=2e-3)


def test_the_way_back_leads_to_the_start(learnt):
    base = jax.vmap(learnt.density)(POINTS).base
    np.testing.assert_allclose(jax.vmap(learnt.transform)(base), POINTS, atol=1e-3)
    assert np.max(np.abs(base - POINTS)) > 0.1


def test_the_loss_adds_its_regularisers_and_has_a_gradient(learnt):
    found = learnt.density(POINTS[0])
    value = learnt.loss(POINTS[0], kinetic=0.1, frobenius=0.01)
    by_hand = -found.log_prob + 0.1 * found.kinetic + 0.01 * found.frobenius
    np.testing.assert_allclose(value, by_hand, rtol=1e-12)

    @eqx.filter_jit
    def loss(h):
        bias = lambda flow: flow.fields[0].layers[0].linear.bias
        moved = eqx.tree_at(bias, learnt, bias(learnt).at[0].add(h))
        return moved.loss(POINTS[0], kinetic=0.1, frobenius=0.01)

    slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(loss)(0.0), slope, rtol=1e-5)


def test_bad_input(learnt):
    with pytest.raises(InputError, match="at least one field"):
        ContinuousFlow([], 2)
    with pytest.raises(InputError, match="trace must be one of 'exact', 'hutchinson'; got 'other'"):
        ContinuousFlow(linear, 2, trace="other")  # pyright: ignore
    with pytest.raises(InputError, match="t1 must be positive; got 0"):
        ContinuousFlow(linear, 2, t1=0)
    with pytest.raises(InputError, match="needs a key"):
        ContinuousFlow(linear, 2, trace="hutchinson").log_prob(POINTS[0])
    with pytest.raises(InputError, match=r"must have shape \(2,\); got \(3, 2\)"):
        learnt.log_prob(POINTS)
    with pytest.raises(InputError, match=r"field of ContinuousFlow must return .* \(2,\)"):
        ContinuousFlow(lambda t, y, args: y[:1], 2).log_prob(POINTS[0])
