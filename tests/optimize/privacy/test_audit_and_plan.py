"""Audits find planted faults and acquit what is right; the planner keeps to its lines."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import kstest, norm

from rootflow.errors import InputError
from rootflow.optimize import privacy as p
from rootflow.optimize.privacy import noise

RANDOM = np.random.default_rng(5)
DATA = (jnp.asarray(RANDOM.normal(size=(3, 10, 4))), jnp.asarray(RANDOM.normal(size=(3, 10))))
NOW, BEFORE = jnp.asarray(RANDOM.normal(size=(2, 4)))
KEY = jax.random.key(0)


def loss(w, record):
    return (record[0] @ w - record[1]) ** 2


@pytest.mark.parametrize("adjacency", ["replace", "add-remove"])
def test_the_message_of_this_package_keeps_its_sensitivity(adjacency):
    for before, scale in ((None, 1.0), (BEFORE, float(jnp.linalg.norm(NOW - BEFORE)))):
        found = p.audit_sensitivity(
            loss, DATA, NOW, before, clip=0.5, key=KEY, trials=40, adjacency=adjacency
        )
        factor = 2 if adjacency == "replace" else 1
        np.testing.assert_allclose(found.bound, factor * 0.5 * scale / 30)
        assert found.holds and 0.7 * found.bound < found.largest <= found.bound * (1 + 1e-9)


def test_a_clip_of_the_averaged_gradient_is_found_out():
    def averaged(data):
        g = jnp.mean(jax.vmap(jax.vmap(lambda a, y: jax.grad(loss)(NOW, (a, y))))(*data), (0, 1))
        return g * jnp.minimum(1.0, 0.5 / jnp.linalg.norm(g))

    found = p.audit_sensitivity(loss, DATA, NOW, clip=0.5, key=KEY, trials=40, mechanism=averaged)
    assert not found.holds and found.largest > 10 * found.bound


@pytest.mark.parametrize("epsilon", [1.0, 4.0])
def test_the_audit_of_epsilon_bounds_from_below(epsilon):
    mu = p.gdp_parameter(epsilon=epsilon, delta=1e-5)
    mechanism = lambda data, key: data + jax.random.normal(key, (2,))
    found = p.audit_epsilon(
        mechanism, jnp.zeros(2), jnp.array([mu, 0.0]), key=KEY, runs=8000, batch=1000
    )
    assert found.epsilon <= found.gaussian_epsilon <= epsilon
    assert found.gaussian_epsilon > 0.4 * epsilon and found.epsilon > 0
    # The same with a standard deviation of sqrt(sigma C), as in a fault seen in public code.
    faulty = lambda data, key: data + 0.3 * jax.random.normal(key, (2,))
    found = p.audit_epsilon(
        faulty, jnp.zeros(2), jnp.array([mu, 0.0]), key=KEY, runs=8000, batch=1000
    )
    assert found.gaussian_epsilon > epsilon


def test_the_audit_of_a_whole_run():
    # A record whose gradient is clipped, turned round, in one long run of 2-dimensional DIFF2.
    flat = lambda w, record: record @ w
    data = jnp.zeros((1, 5, 2)).at[0, 0].set(jnp.array([10.0, 0.0]))
    other = data.at[0, 0, 0].set(-10.0)

    def mechanism(records, key):
        return p.diff2(
            flat, jnp.zeros(2), records, rounds=4, period=1, step=1.0, key=key, clip=(1.0, 1.0),
            budget=p.Budget(2.0, 1e-5), grid=False,
        ).params  # fmt: skip

    found = p.audit_epsilon(mechanism, data, other, key=KEY, runs=4000, batch=1000)
    # This is the worst case: the Gaussian bound comes close, and never goes above.
    assert 1.0 < found.gaussian_epsilon <= 2.0


def test_clopper_and_pearson():
    from rootflow.optimize.privacy.audit import _bounds, _high, _low

    # No hit in n: the upper limit is 1 - error^(1/n).
    np.testing.assert_allclose(_high(0, 50, 0.025), 1 - 0.025 ** (1 / 50), rtol=1e-12)
    np.testing.assert_allclose(_low(50, 50, 0.025), 0.025 ** (1 / 50), rtol=1e-12)
    strict, gaussian = _bounds(50, 0, 50, 1e-5, 0.95)
    low, high = 0.025 ** (1 / 50), 1 - 0.025 ** (1 / 50)
    np.testing.assert_allclose(strict, math.log((low - 1e-5) / high), rtol=1e-12)
    expected = p.epsilon(p.gaussian(1 / (2 * float(ndtri(low)))), delta=1e-5)
    np.testing.assert_allclose(gaussian, expected, rtol=1e-9)
    assert _bounds(25, 25, 50, 1e-5, 0.95) == (0.0, 0.0)


def test_noise_on_a_grid():
    sigma, bits = 0.7, 20
    spacing = 2.0 ** (math.floor(math.log2(sigma)) - bits)
    message = jnp.asarray(RANDOM.normal(size=20_000))
    found = np.asarray(noise.released(KEY, message, jnp.asarray(sigma), bits))
    assert np.all(found / spacing == np.round(found / spacing))
    # The noise does not depend on the message: the same multiples are added to any other.
    rounded = np.round(np.asarray(message) / spacing) * spacing
    drawn = found - rounded
    other = np.asarray(noise.released(KEY, message + 3.0, jnp.asarray(sigma), bits))
    moved = np.round((np.asarray(message) + 3) / spacing) * spacing
    np.testing.assert_array_equal(other - moved, drawn)
    assert kstest(drawn / sigma, "norm").pvalue > 0.01
    # Both halves of the tails, as far out as there are samples.
    far = np.asarray(noise.fine_normal(KEY, (400_000,)))
    for t in (2.0, 3.5):
        for share in (np.mean(far > t), np.mean(far < -t)):
            expected = norm.sf(t)
            assert abs(share - expected) < 4 * math.sqrt(expected / 400_000)
    # Neighbouring multiples far out come up one by one: floating-point noise has gaps there.
    steps = np.abs(far[(np.abs(far) > 3.0) & (np.abs(far) < 3.2)])
    assert len(np.unique(np.round(steps * 2.0**40) % 1024)) > 0.4 * min(1024, len(steps))


def test_the_grid_is_fine_enough_or_refused():
    assert noise.grid_bits(0.0, 1.0, jnp.float64, None, "x") is None
    assert noise.grid_bits(1e-3, 1.0, jnp.float64, None, "x") == 28
    bits = noise.grid_bits(1e-9, 1.0, jnp.float64, None, "x")
    # |message| / spacing stays below 2^52, so that sums are exact.
    assert bits is not None and 1.0 / (1e-9 * 2.0**-bits) < 2.0**52
    assert noise.grid_bits(1e-3, 1.0, jnp.float64, False, "x") is None
    with pytest.raises(InputError, match=r"spaces by 2\.22e-16"):
        noise.grid_bits(1e-14, 1.0, jnp.float64, None, "x")
    with pytest.raises(InputError, match="float32"):
        noise.grid_bits(1e-5, 1.0, jnp.float32, None, "x")


def test_plans_keep_to_the_lines_of_stability_and_least_error():
    budget = p.Budget(3.0, 1e-5)
    found = p.plan(
        budget, records=100_000, dimension=100, smoothness=72.5, lipschitz=4.975, gap=24.75
    )
    kappa = 10 / (1e5 * budget.mu)
    best = (3 * 24.75 * 72.5 * 0.25 / (64 * 4.975**2 * kappa**4)) ** (1 / 3)
    assert found.method == "diff2" and found.rounds == round(best)
    assert found.period == int(0.5 / (8 * kappa**2) / found.rounds) and found.growth <= 0.5
    error = lambda r: 3 * 24.75 * 72.5 / r + 128 * 4.975**2 * kappa**4 * r**2
    np.testing.assert_allclose(found.diff2, error(found.rounds), rtol=1e-9)
    assert error(found.rounds) <= min(error(0.9 * best), error(1.1 * best))
    np.testing.assert_allclose(
        found.gradient_descent, 4 * math.sqrt(2 * 24.75 * 72.5) * 4.975 * kappa, rtol=1e-9
    )
    # The published rates: N^(-4/3) for DIFF2 and 1 / N for DP-GD.
    ten = p.plan(
        budget, records=1_000_000, dimension=100, smoothness=72.5, lipschitz=4.975, gap=24.75
    )
    np.testing.assert_allclose(found.diff2 / ten.diff2, 10 ** (4 / 3), rtol=1e-3)
    np.testing.assert_allclose(found.gradient_descent / ten.gradient_descent, 10, rtol=1e-9)
    # Running the plan passes the guard, and adds the growth it speaks of.
    oracle = p.NoiseOracle(jnp.sum, records=100_000, smoothness=72.5, lipschitz=4.975)
    ran = p.diff2(
        oracle, jnp.zeros(100), rounds=found.rounds, period=found.period, step=found.step,
        budget=budget, key=KEY, share=found.share,
    ).privacy  # fmt: skip
    growth = (found.step * ran.noise[1]) ** 2 * 100 * found.period
    np.testing.assert_allclose(growth, found.growth, rtol=0.06)


def test_plans_choose_dp_gradient_descent_where_its_error_is_less():
    found = p.plan(
        p.Budget(1.0, 1e-5), records=300, dimension=1000, smoothness=1.0, lipschitz=1.0, gap=1.0
    )
    assert found.method == "dp_gradient_descent" and found.period == 1 and found.step <= 1.0
    assert found.predicted == found.gradient_descent <= found.diff2
    half = p.plan(
        p.Budget(1.0, 1e-5), records=300, dimension=1000, smoothness=1.0, lipschitz=1.0, gap=1.0,
        adjacency="add-remove",
    )  # fmt: skip
    np.testing.assert_allclose(half.gradient_descent, found.gradient_descent / 2, rtol=1e-9)
    assert p.plan(
        p.Budget(1.0, 1e-5), records=300, dimension=9, smoothness=1.0, lipschitz=1.0, gap=1.0,
        rounds=50,
    ).rounds == 50  # fmt: skip
    for bad in (dict(smoothness=0.0), dict(lipschitz=-1.0), dict(gap=math.inf), dict(records=0)):
        given = dict(records=300, dimension=10, smoothness=1.0, lipschitz=1.0, gap=1.0) | bad
        with pytest.raises(InputError):
            p.plan(p.Budget(1.0, 1e-5), **given)
