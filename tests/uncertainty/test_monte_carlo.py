"""Estimates and distances against closed forms; coverage of intervals."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

import rootflow as rf
from rootflow import uncertainty as uq


def test_wasserstein_is_the_mean_distance_of_sorted_numbers():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=500), rng.exponential(size=500)
    np.testing.assert_allclose(
        uq.wasserstein(a, b), np.abs(np.sort(a) - np.sort(b)).mean(), rtol=1e-12
    )
    assert uq.wasserstein(a, a[::-1]) == 0
    # Unequal numbers: each of two weighs half, each of three a third.
    np.testing.assert_allclose(uq.wasserstein([0.0, 1.0], [0.0, 0.5, 1.0]), 1 / 6, rtol=1e-12)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20), st.floats(-50, 50))
def test_a_shift_is_as_far_as_it_shifts(numbers, shift):
    x = np.array(numbers)
    np.testing.assert_allclose(uq.wasserstein(x, x + shift), abs(shift), atol=1e-9)


def test_energy_distance_in_closed_form():
    # Two points: 2 |a - b|; normal laws: the mean of a folded one.
    np.testing.assert_allclose(uq.energy_distance([[0.0, 0.0]], [[3.0, 4.0]]), 10.0)
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=4000), rng.normal(1.0, 1.0, size=4000)

    def mean_abs(m, s):
        return s * np.sqrt(2 / np.pi) * np.exp(-(m**2) / (2 * s**2)) + m * (
            1 - 2 * norm.cdf(-m / s)
        )

    exact = 2 * mean_abs(1.0, np.sqrt(2)) - 2 * mean_abs(0.0, np.sqrt(2))
    np.testing.assert_allclose(uq.energy_distance(a, b), exact, atol=0.08)
    assert uq.energy_distance(a, a) == pytest.approx(0, abs=1e-12)


def test_correlations():
    rng = np.random.default_rng(2)
    z = rng.normal(size=(40000, 2))
    linked = np.stack([z[:, 0], 0.6 * z[:, 0] + 0.8 * z[:, 1]], axis=1)
    np.testing.assert_allclose(uq.correlation_error(linked, z), 0.6, atol=0.02)
    assert uq.correlation_error(linked, linked) == 0


def test_intervals_of_the_mean_cover_as_they_say():
    rng = np.random.default_rng(3)
    hits = [
        low <= np.exp(0.125) <= high
        for low, high in (uq.mean_interval(rng.lognormal(0, 0.5, 400)) for _ in range(1000))
    ]
    assert 0.93 < np.mean(hits) < 0.97


def test_intervals_of_quantiles_cover_at_least_as_they_say():
    rng = np.random.default_rng(4)
    for p in (0.5, 0.95):
        found = [uq.quantile(rng.exponential(size=200), p) for _ in range(1000)]
        hits = np.mean([e.low <= -np.log(1 - p) <= e.high for e in found])
        assert 0.94 < hits < 0.99
    few = uq.quantile(np.arange(20.0), 0.99)
    assert few.high == np.inf and few.low > -np.inf


def test_wilson_has_its_formula_and_covers():
    # 3 of 100: Wilson's interval at 0.95 is 0.01026 to 0.08452 (Agresti and Coull 1998's formula).
    sample = np.array([0.0] * 97 + [1.0] * 3)
    found = uq.exceedance(sample, threshold=0.5)
    np.testing.assert_allclose(found[:3], [0.03, 0.010255, 0.084524], atol=2e-5)
    none = uq.exceedance(np.zeros(100), threshold=0.5)
    z2 = norm.ppf(0.975) ** 2
    np.testing.assert_allclose([none.low, none.high], [0, z2 / (100 + z2)], rtol=1e-12)
    rng = np.random.default_rng(5)
    hits = [
        e.low <= 0.04 <= e.high
        for e in (uq.exceedance(rng.uniform(size=150), threshold=0.96) for _ in range(1000))
    ]
    assert 0.92 < np.mean(hits) < 0.985


def test_two_levels_gain_what_theory_says_and_are_without_bias():
    rng = np.random.default_rng(6)
    values, hits, gains = [], [], []
    for _ in range(500):
        x, y = rng.normal(size=100), rng.normal(size=2000)
        dear = 1.0 + x + 0.3 * rng.normal(size=100)
        found = uq.two_level(dear, 5.0 + 2 * x, 5.0 + 2 * y)  # the cheap one is wrong by far
        values.append(found.estimate.value)
        hits.append(found.estimate.low <= 1.0 <= found.estimate.high)
        gains.append(found.gain)
    assert abs(np.mean(values) - 1.0) < 4 * np.std(values) / np.sqrt(500)
    assert 0.92 < np.mean(hits) < 0.98
    # Var = (1 - rho^2 / (1 + n / m)) Var(dear) / n.
    rho2 = 1 / 1.09
    np.testing.assert_allclose(np.median(gains), 1 / (1 - rho2 / 1.05), rtol=0.1)
    np.testing.assert_allclose(np.std(values), np.sqrt(1.09 / 100 * (1 - rho2 / 1.05)), rtol=0.1)


def test_sobol_indices_of_ishigami():
    def ishigami(x):
        return np.sin(x["a"]) + 7 * np.sin(x["b"]) ** 2 + 0.1 * x["c"] ** 4 * np.sin(x["a"])

    def draw(key, count):
        return np.asarray(jax.random.uniform(key, (count,), minval=-np.pi, maxval=np.pi))

    found = uq.sobol(ishigami, dict.fromkeys("abc", draw), key=jax.random.key(0), count=20000)
    # Ishigami and Homma (1990).
    for name, first, total in (("a", 0.314, 0.558), ("b", 0.442, 0.442), ("c", 0.0, 0.244)):
        np.testing.assert_allclose(found[name].first.value, first, atol=0.03)
        np.testing.assert_allclose(found[name].total.value, total, atol=0.03)
        assert found[name].total.low <= total <= found[name].total.high + 0.01


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: uq.mean_interval([1.0]), "at least 2 samples; got 1"),
        (lambda: uq.mean_interval([1.0, np.nan]), "must be finite; got nan"),
        (lambda: uq.mean_interval([[1.0, 2.0]]), r"shape \(samples,\); got \(1, 2\)"),
        (lambda: uq.mean_interval([1.0, 2.0], level=95), "level must lie between 0 and 1; got 95"),
        (lambda: uq.mean_interval("ab"), "must be real numbers"),
        (lambda: uq.quantile([1.0, 2.0], 1.0), "probability must lie between 0 and 1"),
        (lambda: uq.exceedance([1.0], threshold=np.nan), "threshold must be a finite number"),
        (lambda: uq.two_level([1, 2, 3], [1, 2, 3, 4], [1, 2]), "got 3 and 4 samples"),
        (lambda: uq.sobol(lambda x: x, {}, key=jax.random.key(0), count=8), "at least one input"),
        (lambda: uq.energy_distance([[1.0]], [[1.0, 2.0]]), "differ in shape"),
        (lambda: uq.memorisation([[1.0]], [[1.0]]), "at least two that were seen"),
        (lambda: uq.correlation_error([[1.0]], [[1.0]]), "one k >= 2"),
    ],
)
def test_messages(act, message):
    with pytest.raises(rf.InputError, match=message):
        act()


def test_a_quantity_without_variance_has_no_sensitivities():
    draw = {"a": lambda key, count: np.zeros(count)}
    with pytest.raises(rf.InputError, match="does not vary"):
        uq.sobol(lambda x: x["a"], draw, key=jax.random.key(0), count=8)
    with pytest.raises(rf.InputError, match=r"shape \(8,\); got \(1,\)"):
        uq.sobol(lambda x: x["a"][:1], draw, key=jax.random.key(0), count=8)
