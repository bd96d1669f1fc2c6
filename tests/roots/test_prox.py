"""Proximal operators: optimality against a generic minimiser, derivatives, kinks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import rootflow as rf

prox = rf.prox
W = np.array([1.4, -0.2, 0.05, -2.1, 0.7])

#: Operator at W, and its penalty.
CASES = {
    "soft_threshold": (lambda w: prox.soft_threshold(w, 0.5), lambda x: 0.5 * np.abs(x).sum()),
    "ridge": (lambda w: prox.ridge(w, 0.8), lambda x: 0.4 * x @ x),
    "elastic_net": (
        lambda w: prox.elastic_net(w, 0.5, 0.8),
        lambda x: 0.5 * np.abs(x).sum() + 0.4 * x @ x,
    ),
    "group_lasso": (lambda w: prox.group_lasso(w, 0.9), lambda x: 0.9 * np.sqrt(x @ x)),
    "log": (lambda w: prox.log(w, 0.3), lambda x: -0.3 * np.log(np.maximum(x, 1e-300)).sum()),
    "total_variation_1d": (
        lambda w: prox.total_variation_1d(w, 0.4),
        lambda x: 0.4 * np.abs(np.diff(x)).sum(),
    ),
    "non_negative_lasso": (
        lambda w: prox.non_negative_lasso(w, 0.3),
        lambda x: 0.3 * x.sum() if (x >= 0).all() else np.inf,
    ),
    "non_negative_ridge": (
        lambda w: prox.non_negative_ridge(w, 0.3),
        lambda x: 0.15 * x @ x if (x >= 0).all() else np.inf,
    ),
    "non_negative": (prox.non_negative, lambda x: 0.0 if (x >= 0).all() else np.inf),
}


@pytest.mark.parametrize("name", CASES)
def test_operator_minimises_its_definition(name):
    operator, penalty = CASES[name]
    objective = lambda x: 0.5 * np.sum((x - W) ** 2) + penalty(x)
    found = np.asarray(operator(jnp.asarray(W)))
    value = objective(found)
    rng = np.random.default_rng(0)
    for size in (1e-1, 1e-2, 1e-3, 1e-4):  # convex: a local minimum is the minimum
        for _ in range(200):
            assert objective(found + size * rng.normal(size=5)) >= value - 1e-12
    start = np.abs(W) + 0.1
    best = scipy.optimize.minimize(objective, start, method="Powell", options={"maxfev": 20000})
    assert value <= best.fun + 1e-9


@pytest.mark.parametrize("name", CASES)
def test_derivative(name):
    operator = jax.jit(CASES[name][0])
    x = jnp.asarray(W)
    exact, forward = jax.jit(lambda x: (jax.jacrev(operator)(x), jax.jacfwd(operator)(x)))(x)
    columns = [(operator(x + 1e-6 * e) - operator(x - 1e-6 * e)) / 2e-6 for e in np.eye(5)]
    np.testing.assert_allclose(exact, np.stack(columns, 1), atol=1e-6)
    np.testing.assert_allclose(forward, exact, atol=1e-12)


def test_derivative_by_the_strength():
    slope = jax.jacfwd(lambda t: prox.soft_threshold(jnp.asarray(W), t))(0.5)
    np.testing.assert_allclose(slope, np.where(np.abs(W) > 0.5, -np.sign(W), 0))
    tv = jax.jit(lambda t: prox.total_variation_1d(jnp.asarray(W), t))
    np.testing.assert_allclose(
        jax.jit(jax.jacfwd(tv))(0.4), (tv(0.4 + 1e-6) - tv(0.4 - 1e-6)) / 2e-6, atol=1e-6
    )


def test_nuclear_norm_soft_thresholds_singular_values():
    w = np.random.default_rng(2).normal(size=(4, 3))
    u, s, v = np.linalg.svd(w, full_matrices=False)
    expected = (u * np.maximum(s - 0.6, 0)) @ v
    np.testing.assert_allclose(prox.nuclear_norm(jnp.asarray(w), 0.6), expected, atol=1e-10)
    operator = lambda w: prox.nuclear_norm(w, 0.6)
    exact = jax.jvp(operator, (jnp.asarray(w),), (jnp.ones((4, 3)),))[1]
    numeric = (operator(w + 1e-6) - operator(w - 1e-6)) / 2e-6
    np.testing.assert_allclose(exact, numeric, atol=1e-6)


def test_no_nan_at_kinks():
    for name in ("group_lasso", "soft_threshold", "elastic_net", "total_variation_1d"):
        assert np.isfinite(jax.jit(jax.jacrev(CASES[name][0]))(jnp.zeros(5))).all(), name
    nuclear = jax.jit(jax.jacrev(lambda w: prox.nuclear_norm(w, 0.5)))
    assert np.isfinite(nuclear(jnp.eye(3))).all()


def test_total_variation_of_a_long_noisy_step():
    rng = np.random.default_rng(0)
    signal = np.repeat([0.0, 1.0, -0.5], 40) + 0.05 * rng.normal(size=120)
    found = np.asarray(prox.total_variation_1d(jnp.asarray(signal), 0.5))
    # Optimality: the cumulative residual stays within the weight and touches it at every jump.
    dual = np.cumsum(signal - found)
    assert np.abs(dual).max() <= 0.5 + 1e-9 and abs(dual[-1]) < 1e-9
    jumps = np.flatnonzero(np.abs(np.diff(found)) > 1e-9)
    np.testing.assert_allclose(dual[jumps], -0.5 * np.sign(np.diff(found)[jumps]), atol=1e-9)


def test_negative_strength_is_refused():
    for operator in (prox.soft_threshold, prox.ridge, prox.group_lasso, prox.log):
        with pytest.raises(rf.InputError, match="-1"):
            operator(jnp.ones(2), -1.0)


def test_projection_as_a_prox():
    operator = prox.from_set(rf.sets.Box(0.0, 1.0))
    np.testing.assert_allclose(operator(jnp.array([-1.0, 0.5, 2.0]), 0.1), [0.0, 0.5, 1.0])


def test_whole_numbers_are_taken_as_real_ones():
    whole, real = jnp.array([3, 0, -2, 5]), jnp.array([3.0, 0.0, -2.0, 5.0])
    operators = {name: getattr(prox, name) for name in prox.__all__ if name != "from_set"}
    del operators["elastic_net"], operators["none"]
    for name, operator in operators.items():
        shape = (2, 2) if name == "nuclear_norm" else (4,)
        found = operator(whole.reshape(shape), 1)
        exact = operator(real.reshape(shape), 1.0)
        assert found.dtype == exact.dtype, name
        np.testing.assert_allclose(found, exact, rtol=1e-12, err_msg=name)
    # A weight of 1 moves the ends of a step of two pairs towards each other by a half.
    step = prox.total_variation_1d(jnp.array([0, 0, 4, 4]), np.int64(1))
    np.testing.assert_allclose(step, [0.5, 0.5, 3.5, 3.5])
    np.testing.assert_allclose(prox.nuclear_norm(jnp.diag(jnp.array([3, 1])), 2), np.diag([1.0, 0]))
    assert prox.soft_threshold(jnp.array([True, False]), 0.5).tolist() == [0.5, 0.0]


def test_second_derivatives_are_right_or_not_numbers_where_singular_values_agree():
    """Where all eigenvalues are above the threshold the operator takes it off the diagonal."""
    weights, way = jnp.array([[1.0, 2], [3, 4]]), jnp.array([[1.0, 2], [2, -1]])

    def curvature(function, gap):
        near = jnp.eye(2) + gap * jnp.array([[0, 0.3], [0.3, 0.7]])
        along = lambda t: jnp.sum(jnp.sin(function(near + t * way)) * weights)
        return [jax.grad(jax.grad(along))(0.0), jax.jvp(jax.grad(along), (0.0,), (1.0,))[1]]

    for gap in (0.0, 1e-7, 1e-3, 0.1):
        exact = curvature(lambda x: x - 0.3 * jnp.eye(2), gap)
        for function in (
            lambda x: rf.prox.nuclear_norm(x, 0.3),
            lambda x: rf.sets.PositiveSemidefinite().project(x) - 0.3 * jnp.eye(2),
        ):
            found = curvature(function, gap)
            if gap < 1e-5:
                assert np.all(np.isnan(found))
            else:
                np.testing.assert_allclose(found, exact, rtol=1e-7)
