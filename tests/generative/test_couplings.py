"""Couplings of minibatches against brute force, sorting and closed forms."""

from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow.generative import couplings

KEYS = jax.random.split(jax.random.key(3), 4)
X0 = jax.random.normal(KEYS[0], (6, 2))
X1 = jax.random.normal(KEYS[1], (6, 2)) + 1
EXACT = couplings.ExactOT()


def cost(x0, x1):
    return float(jnp.sum((x0 - x1) ** 2))


def test_exact_is_the_best_permutation():
    a, b = EXACT(X0, X1)
    best = min(cost(X0, X1[jnp.array(p)]) for p in permutations(range(6)))
    np.testing.assert_allclose(cost(a, b), best, rtol=1e-12)
    np.testing.assert_array_equal(a, X0)
    np.testing.assert_array_equal(np.sort(b, axis=0), np.sort(X1, axis=0))


def test_exact_on_a_line_sorts_also_under_jit_and_vmap():
    x0, x1 = jax.random.normal(KEYS[2], (3, 64, 1)), jax.random.normal(KEYS[3], (3, 64, 1))
    a, b = jax.jit(jax.vmap(EXACT))(x0, x1)
    order = np.argsort(np.asarray(a)[..., 0], axis=1)[..., None]
    np.testing.assert_array_equal(np.take_along_axis(np.asarray(b), order, 1), np.sort(x1, axis=1))
    plain = EXACT(x0[0], x1[0])[1]
    np.testing.assert_array_equal(plain, b[0])
    with pytest.raises(RuntimeError, match="NaN or infinite"):
        jax.block_until_ready(jax.jit(EXACT)(x0[0].at[3].set(jnp.nan), x1[0]))


def test_exact_under_jit_and_vmap_is_what_it_is_without():
    x0, x1 = jax.random.normal(KEYS[2], (3, 8, 2)), jax.random.normal(KEYS[3], (3, 8, 2))
    _, b = jax.jit(jax.vmap(EXACT))(x0, x1)
    for i in range(3):
        np.testing.assert_array_equal(b[i], EXACT(x0[i], x1[i])[1])


def test_exact_lets_gradients_through_the_samples():
    def loss(x0):
        a, b = EXACT(x0, X1)
        return 0.5 * jnp.sum((a - b) ** 2)

    np.testing.assert_allclose(jax.grad(loss)(X0), X0 - EXACT(X0, X1)[1], rtol=1e-12)


def test_sinkhorn_of_two_points_each():
    # Costs 0 and 1: the odds of staying are e^(1 / regularisation).
    x = jnp.array([[0.0], [1.0]])

    @jax.jit
    @jax.value_and_grad
    def mean_cost(regularisation):
        return couplings.Sinkhorn(regularisation, tolerance=1e-10).plan(x, x).cost

    for r in (0.2, 1.0):
        moved = 1 / (1 + np.exp(1 / r))
        cost, slope = mean_cost(r)
        np.testing.assert_allclose(cost, moved, rtol=1e-8)
        np.testing.assert_allclose(slope, moved * (1 - moved) / r**2, rtol=1e-6)
    plan = np.exp(couplings.Sinkhorn(1.0, tolerance=1e-10).plan(x, x).log_plan)
    expected = 0.5 * np.array([[1 - moved, moved], [moved, 1 - moved]])
    np.testing.assert_allclose(plan, expected, rtol=1e-8)


def test_sinkhorn_between_unequal_sets_has_the_marginals_and_tends_to_the_best():
    plan = couplings.Sinkhorn(0.5, tolerance=1e-9).plan(X0, jnp.concatenate([X1, X0[:2]]))
    weights = np.exp(plan.log_plan)
    np.testing.assert_allclose(weights.sum(1), 1 / 6, rtol=1e-6)
    np.testing.assert_allclose(weights.sum(0), 1 / 8, rtol=1e-6)
    best = cost(*EXACT(X0, X1)) / 6
    near = couplings.Sinkhorn(0.01, tolerance=1e-3, max_steps=10000).plan(X0, X1).cost
    assert abs(float(near) - best) < 1e-2 * best


def test_sinkhorn_draws_from_its_plan():
    coupling = couplings.Sinkhorn(2.0)
    plan = np.exp(coupling.plan(X0, X1).log_plan) * 6
    draws = jax.jit(jax.vmap(lambda key: coupling(X0, X1, key)[1]))(jax.random.split(KEYS[0], 4000))
    mean = plan @ np.asarray(X1)
    error = np.asarray(draws).std(0) / np.sqrt(4000)
    assert (np.abs(draws.mean(0) - mean) < 5 * error).all()


@pytest.mark.parametrize("regularisation", [0.1, 0.02])
def test_small_regularisations_converge_to_the_marginals_and_the_best_cost(regularisation):
    keys = jax.random.split(jax.random.key(3))
    x0, x1 = jax.random.normal(keys[0], (128, 2)), 3 * jax.random.normal(keys[1], (128, 2))
    plan = jax.jit(couplings.Sinkhorn(regularisation).plan)(x0, x1)
    weights = jnp.exp(plan.log_plan)
    for axis in (0, 1):
        np.testing.assert_allclose(weights.sum(axis) * 128, 1.0, atol=3e-3)
    best = float(jnp.mean(jnp.sum((x0 - EXACT(x0, x1)[1]) ** 2, axis=1)))
    # Entropy is worth at most regularisation times log n.
    assert best - 3e-3 * best < float(plan.cost) < best + regularisation * np.log(128)


def test_independent_keeps_the_samples():
    a, b = couplings.Independent()(X0, X1, KEYS[0])
    np.testing.assert_array_equal(a, X0)
    np.testing.assert_array_equal(np.sort(b, axis=0), np.sort(X1, axis=0))
    assert not np.array_equal(b, X1)
    np.testing.assert_array_equal(couplings.Independent()(X0, X1)[1], X1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: EXACT(X0, X1[:4]), "x0 has 6 samples and x1 has 4"),
        (lambda: EXACT(X0, X1[:, :1]), r"shape \(2,\) and those of x1 \(1,\)"),
        (lambda: EXACT(X0, 1.0), "x1 must be an array"),
        (lambda: EXACT(X0.at[0].set(jnp.nan), X1), "NaN or infinite"),
        (lambda: EXACT(X0[:, :1], X1[:, :1].at[0].set(jnp.inf)), "NaN or infinite"),
        (lambda: couplings.Sinkhorn()(X0, X1), "give key="),
        (lambda: couplings.Sinkhorn(-1.0), "regularisation=-1.0"),
        (lambda: couplings.Sinkhorn(tolerance=0.0), "tolerance=0.0"),
    ],
)
def test_refused(call, message):
    with pytest.raises(rf.InputError, match=message):
        call()


def test_sinkhorn_says_when_it_did_not_converge():
    message = r"max_steps=3 steps with regularisation=0.001 and tolerance=0.001.*ExactOT"
    x0, x1 = jax.random.normal(jax.random.key(3), (2, 64, 2))
    with pytest.raises(rf.SolveError, match=message):
        couplings.Sinkhorn(1e-3, max_steps=3).plan(x0, x1)
