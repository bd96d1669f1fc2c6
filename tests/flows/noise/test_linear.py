"""Linear equations with fractional noise against conditioning of Gaussians written out."""

import jax
import numpy as np
import pytest
from scipy import stats

from rootflow.errors import InputError
from rootflow.flows.noise import FractionalBrownianMotion, MarkovLaw
from rootflow.flows.noise.hurst import estimate_hurst
from rootflow.flows.noise.linear import LinearFractional

TS = np.array([0.5, 1.0, 1.7, 2.0])
YS = np.array([0.3, np.nan, -0.2, 0.1])


@pytest.fixture(scope="module", params=[1, 2])
def law(request):
    return MarkovLaw(0.7, 2.0, kind=request.param)


def test_likelihood_and_smoothing_are_those_of_the_covariance_matrix(law):
    model = LinearFractional(law, 0.0, 1.3, offset=0.4, start=0.2, spread=0.3, error=0.2)
    mean = lambda t: 0.2 + 0.4 * t
    cov = lambda s, t: 0.09 + 1.3**2 * np.asarray(law.covariance(s[:, None], t))
    there = ~np.isnan(YS)
    ts, ys = TS[there], YS[there]
    seen = cov(ts, ts) + 0.04 * np.eye(3)
    exact = stats.multivariate_normal(mean(ts), seen).logpdf(ys)
    likelihood = lambda y: model.log_likelihood(TS, y)
    np.testing.assert_allclose(likelihood(YS), exact, rtol=1e-10)
    both = likelihood(np.stack([YS, TS]))
    np.testing.assert_allclose(both[0], exact, rtol=1e-10)
    assert both.shape == (2,) and abs(both[1] - exact) > 0.1

    at = np.array([0.0, 0.25, 1.0, 1.7, 2.5])  # also where there is an observation, and after all
    found = model.smooth(TS, YS, at)
    gain = np.linalg.solve(seen, cov(ts, at)).T
    np.testing.assert_allclose(found.mean[:, 0], mean(at) + gain @ (ys - mean(ts)), atol=1e-10)
    spread = np.diag(cov(at, at) - gain @ cov(ts, at))
    np.testing.assert_allclose(found.covariance[:, 0, 0], spread, atol=1e-10)


def test_the_fractional_ornstein_uhlenbeck_process_has_its_stationary_variance():
    """H Gamma(2 H) / theta**(2 H), Cheridito, Kawaguchi & Maejima (2003), for white noise too."""
    white = LinearFractional(MarkovLaw(None), -2.0, 0.7)
    none = np.zeros((0, 1))
    at = np.array([0.3, 9.0])
    found = white.smooth(np.zeros(0), none, at).covariance[:, 0, 0]
    np.testing.assert_allclose(found, 0.49 / 4 * -np.expm1(-4 * at), rtol=1e-12)
    law = MarkovLaw(0.4, 5.0, kind=1, terms=12, rates="spread")
    found = LinearFractional(law, -2.0).smooth(np.zeros(0), none, np.array([5.0]))
    exact = 0.4 * np.exp(jax.scipy.special.gammaln(0.8)) * 2.0**-0.8
    np.testing.assert_allclose(found.covariance[0, 0, 0], exact, rtol=0.02)


def test_several_components_and_observations_of_a_part():
    """Two independent equations, of which the sum is seen, against one with twice the variance."""
    law = MarkovLaw(0.6)
    two = LinearFractional(
        law, -1.0 * np.eye(2), np.eye(2), start=np.zeros(2), observe=[[1.0, 1.0]], error=0.1
    )
    one = LinearFractional(law, -1.0, np.sqrt(2.0), error=0.1)
    ts, ys = np.array([0.2, 0.9]), np.array([0.4, -0.3])
    np.testing.assert_allclose(two.log_likelihood(ts, ys), one.log_likelihood(ts, ys), rtol=1e-12)
    half = two.smooth(ts, ys, ts).mean
    np.testing.assert_allclose(half.sum(1), one.smooth(ts, ys, ts).mean[:, 0], rtol=1e-10)


def test_the_control_of_a_bridge_has_its_closed_form():
    """u = c (o - m) / (v + s**2) for dX = dB."""
    law = MarkovLaw(0.7, 2.0, standard=False)
    w, g = np.asarray(law.weights), np.asarray(law.rates)
    model = LinearFractional(law, error=0.1)
    later = model.backward(np.array([2.0]), np.array([0.5]))
    t, x, y = 1.3, 0.2, np.array([0.1, -0.4, 0.3, 0.2, -0.1])
    tau = 2.0 - t
    m = x + w @ (np.expm1(-g * tau) * y)
    c = w @ np.exp(-g * tau)
    total = g[:, None] + g
    v = w @ (-np.expm1(-total * tau) / total) @ w
    u = model.control(later, t, x, y)
    np.testing.assert_allclose(u, [c * (0.5 - m) / (v + 0.01)], rtol=1e-8)
    assert model.control(later, 2.0, x, y) == 0  # nothing is still to come


@pytest.mark.parametrize("hurst", [0.3, 0.8])
def test_the_index_is_found_within_its_standard_errors(hurst):
    ts = np.arange(1, 33) / 32
    keys = jax.random.split(jax.random.key(1), 32)
    paths = 1.7 * np.asarray(
        jax.jit(jax.vmap(lambda key: FractionalBrownianMotion(key, hurst)(ts)))(keys)
    )
    paths += 0.1 * np.asarray(jax.random.normal(keys[0], paths.shape))
    found = estimate_hurst(ts, paths, error="fit")
    truth = np.array([hurst, 1.7, 0.1])
    z = (np.stack([found.hurst, found.scale, found.error]) - truth) / found.standard_errors
    assert np.all(np.abs(z) < 3), z
    assert found.standard_errors[0] < 0.06 and found.p_value < 0.01
    # A path that is seen less often says less.
    paths[:16, ::2] = np.nan
    fewer = estimate_hurst(ts, paths, error="fit")
    assert abs(fewer.hurst - hurst) < 3 * fewer.standard_errors[0]
    assert fewer.standard_errors[0] > found.standard_errors[0]


def test_the_approximation_estimates_as_the_exact_law_does_where_it_is_good():
    ts = np.arange(1, 33) / 32
    keys = jax.random.split(jax.random.key(2), 16)
    paths = jax.vmap(lambda key: FractionalBrownianMotion(key, 0.5)(ts))(keys)
    exact = estimate_hurst(ts, paths)
    found = estimate_hurst(ts, paths, approximation=dict(kind=2, terms=3))
    assert abs(found.hurst - exact.hurst) < exact.standard_errors[0]
    assert exact.p_value > 0.01


def test_a_law_samples_its_own_covariance():
    """With steps much longer than the fastest process decays in."""
    ts = np.array([0.4, 1.0])
    for kind in (1, 2):
        law = MarkovLaw(0.3, kind=kind, largest=500.0)
        draws = jax.jit(jax.vmap(lambda key, law=law: law.sample(key, ts)))(
            jax.random.split(jax.random.key(3), 20_000)
        )
        exact = np.asarray(law.covariance(ts[:, None], ts))
        z = np.linalg.solve(np.linalg.cholesky(exact), np.asarray(draws).T)
        np.testing.assert_allclose(z @ z.T / 20_000, np.eye(2), atol=0.04)


def test_refused():
    law = MarkovLaw(0.7)
    with pytest.raises(InputError, match=r"drift \(2, 2\)"):
        LinearFractional(law, np.eye(3), start=np.zeros(2))
    model = LinearFractional(law, error=0.0)
    with pytest.raises(InputError, match=r"observations \(n, 1\); got \(2,\) and \(3, 1\)"):
        model.log_likelihood(np.array([0.1, 0.2]), np.zeros(3))
    with pytest.raises(InputError, match="must not decrease, from t0=0"):
        model.log_likelihood(np.array([0.2, 0.1]), np.zeros(2))
    with pytest.raises(InputError, match="observation error above zero"):
        model.backward(np.array([0.1, 0.2]), np.zeros(2))
    ts = np.array([0.1, 0.2])
    with pytest.raises(InputError, match=r"paths \(..., n\); got \(2,\) and \(3,\)"):
        estimate_hurst(ts, np.zeros(3))
    with pytest.raises(InputError, match="must increase, from above 0"):
        estimate_hurst(np.array([0.0, 0.2]), np.zeros(2))
    with pytest.raises(InputError, match="At least 4 observations are needed; got 1"):
        estimate_hurst(ts, np.array([np.nan, 1.0]))
    with pytest.raises(InputError, match="a number or \"fit\"; got 'free'"):
        estimate_hurst(ts, np.zeros((3, 2)), error="free")  # pyright: ignore
    with pytest.raises(InputError, match="\"spread\" or None; got 'wide'"):
        MarkovLaw(0.7, rates="wide")  # pyright: ignore
    with pytest.raises(InputError, match="rates must be positive"):
        MarkovLaw(0.7, rates=[1.0, -1.0])
    with pytest.raises(InputError, match="horizon must be a positive number; got 0"):
        MarkovLaw(0.7, 0)
