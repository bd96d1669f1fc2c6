import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

import rootflow as rf
from rootflow.errors import InputError
from rootflow.neural import LatentSDE, Solver

KEY = jax.random.key(4)
TS = np.array([0.0, 0.25, 0.5, 1.0])
XS = np.array([[0.2], [0.7], [np.nan], [-0.1]])
REVERSIBLE = Solver(rf.ReversibleHeun(), dt=1 / 16, adjoint=rf.ReversibleAdjoint())


def made(solver, latent=1, **options):
    return LatentSDE(1, latent, context=3, hidden=4, solver=solver, key=KEY, **options)


def is_zeroed(model, *wheres):
    """The model with the numbers of some parts set to zero."""
    for where in wheres:
        model = eqx.tree_at(
            where, model, replace_fn=lambda part: jax.tree.map(
                lambda x: 0 * x if eqx.is_inexact_array(x) else x, part
            )
        )  # fmt: skip
    return model


@pytest.fixture(scope="module")
def brownian():
    """Prior: a Brownian motion of scale 1/2 from N(0, 1), observed with error 0.3."""
    model = made(Solver(rf.EulerMaruyama(), dt=1 / 16), noise=0.3)
    model = is_zeroed(model, lambda m: m.prior, lambda m: m.diffusion)
    one = jnp.ones((1, 1))
    return eqx.tree_at(lambda m: (m.readout.weight, m.readout.bias), model, (one, jnp.zeros(1)))


@pytest.fixture(scope="module")
def bound():
    return eqx.filter_jit(lambda model, keys: jax.vmap(lambda key: model.bound(TS, XS, key))(keys))


def test_a_posterior_with_the_drift_of_the_prior_costs_nothing(brownian, bound):
    same = is_zeroed(brownian, lambda m: m.posterior)
    found = bound(same, jax.random.split(KEY, 2000))
    np.testing.assert_array_equal(found.path, 0.0)
    assert np.all(found.start >= 0)


def test_a_constant_difference_of_drifts_costs_half_its_square_over_the_scale(brownian, bound):
    drift = lambda m: m.posterior
    shifted = is_zeroed(brownian, drift)
    shifted = eqx.tree_at(lambda m: m.posterior.layers[-1].bias, shifted, jnp.array([0.8]))
    found = bound(shifted, jax.random.split(KEY, 2000))
    np.testing.assert_allclose(found.path, 0.5 * (0.8 / 0.5) ** 2, rtol=1e-10)


def test_the_bound_lies_below_the_evidence_of_the_linear_model(brownian, bound):
    known = [0, 1, 3]
    times = TS[known]
    covariance = 1 + 0.25 * np.minimum(times[:, None], times) + 0.09 * np.eye(3)
    evidence = multivariate_normal(cov=covariance).logpdf(XS[known, 0])
    found = bound(brownian, jax.random.split(KEY, 2000))
    values = found.fit - found.path - found.start
    error = np.std(values) / np.sqrt(2000)
    assert np.mean(values) + 4 * error < evidence
    # The mean of the weights of importance sampling, of which the bound is the logarithm's mean,
    # needs the martingale as well; the prior's own average does not.
    paths = jax.jit(jax.vmap(lambda key: brownian.sample(TS, key)))(jax.random.split(KEY, 2000))
    spread = np.cov(paths[:, :, 0].T)
    np.testing.assert_allclose(spread, 1 + 0.25 * np.minimum(TS[:, None], TS), atol=0.12)


def test_the_reversible_gradient_is_the_discrete_one():
    def gradient(solver):
        model = made(solver, 2)
        return eqx.filter_jit(eqx.filter_grad(lambda m: m.loss(TS, XS, KEY, 0.5)[0]))(model)

    exact = gradient(Solver(rf.ReversibleHeun(), dt=1 / 16))
    for a, b in zip(jax.tree.leaves(gradient(REVERSIBLE)), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
        assert np.all(np.isfinite(b))


def test_draws_of_the_posterior_follow_the_key_and_what_was_observed():
    model = made(Solver(rf.EulerMaruyama(), dt=1 / 8), 2)
    infer = eqx.filter_jit(lambda xs, key: model.infer(TS, xs, key))
    first = infer(XS, KEY)
    np.testing.assert_array_equal(first, infer(XS, KEY))
    assert first.shape == (4, 1)
    assert np.all(first != infer(XS + 1, KEY)) and np.all(first != infer(XS, jax.random.key(9)))


def test_bad_input():
    model = made(Solver(rf.EulerMaruyama(), dt=1 / 8))
    with pytest.raises(InputError, match="Sort them"):
        model.bound(TS[::-1], XS, KEY)
    with pytest.raises(InputError, match=r"\(4, 1\); got \(4, 2\)"):
        model.bound(TS, np.ones((4, 2)), KEY)
    with pytest.raises(InputError, match="noise must be positive; got 0"):
        made(REVERSIBLE, noise=0)
    with pytest.raises(InputError, match="context"):
        LatentSDE(1, 1, context=0, solver=REVERSIBLE, key=KEY)
    with pytest.raises(InputError, match=r"EulerMaruyama .* give a step size"):
        made(Solver(rf.EulerMaruyama())).sample(TS, KEY)
