"""Laplace's density, of noise and of priors: minima that lie at a kink."""

import numpy as np
import pytest
from scipy.optimize import linprog

import rootflow as rf

T = np.linspace(0.0, 3.0, 15)


def draws(seed, size=15):
    return np.random.default_rng(seed).laplace(size=size)


def line(t, y, p):
    return {"x": p["slope"] + 0.0 * y["x"]}


def fitted(x, noise, **prior):
    return rf.fit(
        line, {"time": T, "x": x}, states={"x": rf.Parameter(1.0)}, starts=4,
        parameters={"slope": rf.Parameter(0.3, **prior)}, noise=noise,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_a_line_by_least_absolute_deviations(seed):
    """As a linear programme: min sum(s) with -s <= x - a - b t <= s."""
    x = 1.0 + 0.5 * T + 0.2 * draws(seed)
    result = fitted(x, "laplace")
    design, n = np.stack([np.ones_like(T), T], 1), len(T)
    rows = np.block([[design, -np.eye(n)], [-design, -np.eye(n)]])
    cost = np.concatenate([np.zeros(2), np.ones(n)])
    free = [(None, None)] * 2 + [(0, None)] * n
    best = linprog(cost, rows, np.concatenate([x, -x]), bounds=free)
    assert result.converged
    np.testing.assert_allclose([result["x"], result["slope"]], best.x[:2], atol=1e-5)
    np.testing.assert_allclose(result.scales["x"], best.fun / n, rtol=1e-4)
    np.testing.assert_allclose(result.nll, n * (np.log(2 * best.fun / n) + 1), atol=1e-3)


def test_a_scale_that_is_given_or_computed_has_the_same_minimum():
    x = 1.0 + 0.5 * T + 0.2 * draws(5)
    given = fitted(x, {"x": rf.Noise("laplace", scale=0.2)})
    computed = rf.fit(
        lambda t, y, p: {"x": p["slope"] + 0.0 * y["x"]}, {"time": T, "x": x},
        states={"x": rf.Parameter(1.0)}, starts=4,
        parameters={"slope": rf.Parameter(0.3), "b": rf.Parameter(0.3, 0.01, 3.0, scale="log")},
        noise={"x": rf.Noise("laplace", scale=lambda t, y, p: p["b"])},
    )  # fmt: skip
    fitted_scale = fitted(x, "laplace")
    assert given.converged and computed.converged and fitted_scale.converged
    for result in (given, computed):
        for name in ("x", "slope"):
            np.testing.assert_allclose(result[name], fitted_scale[name], atol=2e-5)
    np.testing.assert_allclose(computed["b"], fitted_scale.scales["x"], rtol=1e-4)


@pytest.mark.parametrize("spread", [0.02, 0.2])
def test_a_prior_with_a_kink_is_soft_thresholding(spread):
    """Normal noise, the slope alone: its mode is drawn to the location, and may end there."""
    x = 1.0 + 0.5 * T + 0.1 * np.cos(7 * T)
    prior = rf.Prior("laplace", 0.45, spread)
    result = rf.fit(
        line, {"time": T, "x": x}, states={"x": 1.0}, starts=4,
        parameters={"slope": rf.Parameter(0.3, prior=prior)}, noise={"x": rf.Noise(scale=0.5)},
    )  # fmt: skip
    weight = np.sum(T**2) / 0.5**2
    plain = np.sum(T * (x - 1.0)) / np.sum(T**2)
    away = plain - 0.45
    mode = 0.45 + np.sign(away) * max(abs(away) - 1 / (spread * weight), 0.0)
    assert result.converged
    np.testing.assert_allclose(result["slope"], mode, atol=1e-5)
