"""Intervals and bands: closed forms of linear regression, and how often they hold the truth."""

import functools

import numpy as np
import pytest
import scipy.stats

import rootflow as rf
from rootflow.fitting import uncertainty

TIMES = np.array([0.0, 1.0, 2.0, 3.0])
SIGMA = 0.3


def straight_line(t, y, p):
    return {"x": p["slope"] + 0.0 * y["x"]}


def fit_line(y, times=TIMES, noise="normal", **options):
    return rf.fit(
        straight_line, {"time": times, "x": y}, states={"x": rf.Parameter(1.0)},
        parameters={"slope": rf.Parameter(0.1)}, starts=1, noise=noise, **options,
    )  # fmt: skip


@functools.cache
def simulated():
    """Fits to 200 sets of 4 points on the line 2 + t/2 with normal noise: 2 degrees of freedom."""
    rng = np.random.default_rng(7)
    sets = 2.0 + 0.5 * TIMES + SIGMA * rng.normal(size=(200, len(TIMES)))
    return [fit_line(y, profile=True) for y in sets]


def share(hits, count=200):
    """The observed share, and four standard errors of it about 0.95."""
    return np.mean(hits), 4 * np.sqrt(0.95 * 0.05 / count)


def test_intervals_hold_the_truth_as_often_as_they_say():
    """In 2 degrees of freedom profiles by chi-square would hold it in 79 of 100."""
    ends = {"slope": [], "profile": [], "scale": [], "curve": []}
    for result in simulated():
        slope = next(e for e in result.estimates if e.name == "slope")
        scale = next(e for e in result.estimates if e.kind == "scale")
        ends["slope"].append((slope.lower, 0.5, slope.upper))
        ends["profile"].append((slope.profile[0], 0.5, slope.profile[1]))
        ends["scale"].append((scale.lower, SIGMA, scale.upper))
        _, low, high = result.predict([1.0], noise=False)["x"]
        ends["curve"].append((low[0, 0], 2.5, high[0, 0]))
    for name, rows in ends.items():
        low, truth, high = np.array(rows).T
        found, allowed = share((low <= truth) & (truth <= high))
        assert abs(found - 0.95) < allowed, (name, found)


def test_bands_hold_a_new_measurement_as_often_as_they_say():
    """Given the fit, the chance that a new measurement lies in the band is known exactly.

    With root(RSS / n) for the noise it would be 0.92 on average at the first of the two times.
    """
    chances = []
    for result in simulated():
        _, low, high = result.predict([1.0, 5.0])["x"]
        truth = scipy.stats.norm([2.5, 4.5], SIGMA)
        chances.append(truth.cdf(high[0]) - truth.cdf(low[0]))
    np.testing.assert_allclose(np.mean(chances, 0), 0.95, atol=0.02)


def test_every_interval_of_a_straight_line_in_closed_form():
    """One convention: Student's t with n - p, and root(RSS / (n - p)) wherever a scale enters."""
    result = simulated()[0]
    y = np.array([r.observed for r in result.residuals])
    design = np.stack([np.ones(4), TIMES], 1)
    best, (rss,) = np.linalg.lstsq(design, y, rcond=None)[:2]
    variance, quantile = rss / 2, scipy.stats.t.ppf(0.975, 2)
    inverse = np.linalg.inv(design.T @ design)
    slope = next(e for e in result.estimates if e.name == "slope")
    half = quantile * np.sqrt(variance * inverse[1, 1])
    np.testing.assert_allclose([slope.lower, slope.upper], best[1] + np.array([-half, half]))
    np.testing.assert_allclose(slope.profile, [slope.lower, slope.upper], rtol=1e-4)
    row = np.array([1.0, 5.0])
    for noise in (False, True):
        _, low, high = result.predict(5.0, noise=noise)["x"]
        half = quantile * np.sqrt(variance * (row @ inverse @ row + noise))
        np.testing.assert_allclose([low[0, 0], high[0, 0]], best @ row + np.array([-half, half]))
    scale = next(e for e in result.estimates if e.kind == "scale")
    ends = np.sqrt(rss / scipy.stats.chi2.ppf([0.975, 0.025], 2))
    np.testing.assert_allclose([scale.lower, scale.upper], ends, rtol=1e-6)
    np.testing.assert_allclose(result.scales["x"], np.sqrt(rss / 4), rtol=1e-6)


def test_a_given_scale_needs_no_student():
    y = 2.0 + 0.5 * TIMES + np.array([0.3, -0.2, 0.1, 0.0])
    result = fit_line(y, noise=rf.Noise("normal", scale=0.5), profile=True)
    inverse = np.linalg.inv(np.array([[4.0, 6.0], [6.0, 14.0]]))
    slope = next(e for e in result.estimates if e.name == "slope")
    half = scipy.stats.norm.ppf(0.975) * 0.5 * np.sqrt(inverse[1, 1])
    for ends in ((slope.lower, slope.upper), slope.profile):
        np.testing.assert_allclose(ends, slope.value + np.array([-half, half]), rtol=1e-4)


def test_columns_that_share_no_parameter_are_fits_of_their_own():
    """A long and a short column in one fit: each has its own degrees of freedom."""
    rng = np.random.default_rng(1)
    times = np.arange(12.0)
    x = 1.0 + 0.2 * times + 0.1 * rng.normal(size=12)
    z = np.where(times % 4 == 0, 3.0 - 0.4 * times + rng.normal(size=12), np.nan)

    def two_lines(t, y, p):
        return {"x": p["a"] + 0.0 * y["x"], "z": p["b"] + 0.0 * y["z"]}

    result = rf.fit(
        two_lines, {"time": times, "x": x, "z": z}, starts=1, profile=True,
        states={"x": rf.Parameter(1.0), "z": rf.Parameter(1.0)},
        parameters={"a": rf.Parameter(0.1), "b": rf.Parameter(0.1)},
    )  # fmt: skip
    for name, measured, column in (("a", x, "x"), ("b", z, "z")):
        kept = np.isfinite(measured)
        line = scipy.stats.linregress(times[kept], measured[kept])
        found = next(e for e in result.estimates if e.name == name)
        half = scipy.stats.t.ppf(0.975, kept.sum() - 2) * line.stderr
        np.testing.assert_allclose(found.se, line.stderr, rtol=1e-5)
        ends = line.slope + np.array([-half, half])
        np.testing.assert_allclose([found.lower, found.upper], ends, rtol=1e-5)
        np.testing.assert_allclose(found.profile, ends, rtol=2e-3)
        _, low, high = result.predict(14.0)[column]
        residuals = measured[kept] - line.intercept - line.slope * times[kept]
        s2, n = np.sum(residuals**2) / (kept.sum() - 2), kept.sum()
        spread = (
            1
            + 1 / n
            + (14 - times[kept].mean()) ** 2 / np.sum((times[kept] - times[kept].mean()) ** 2)
        )
        half = scipy.stats.t.ppf(0.975, n - 2) * np.sqrt(s2 * spread)
        np.testing.assert_allclose((high - low)[0, 0] / 2, half, rtol=1e-5)
    assert result.dof == 12 + 3 - 4


def test_a_column_that_the_fit_passes_through_is_said():
    result = fit_line(np.array([1.0, 2.0, np.nan, np.nan]))
    assert any("2 measurements for 2 free parameters" in w for w in result.warnings)
    slope = next(e for e in result.estimates if e.name == "slope")
    assert np.isnan(slope.lower) and np.isnan(result.predict(3.0)["x"][1]).all()


@pytest.mark.parametrize("freedom", [1.0, 2.5, 36.0, np.inf])
def test_quantiles_and_their_ends(freedom):
    expected = scipy.stats.t.ppf(0.975, freedom)
    np.testing.assert_allclose(uncertainty.student(np.asarray(freedom)), expected)
    alone = uncertainty.satterthwaite(np.array([3.0]), np.array([freedom]))
    np.testing.assert_allclose(alone, freedom)
    # Two equal parts of equal freedom have twice the freedom of one.
    both = uncertainty.satterthwaite(np.array([3.0, 3.0]), np.array([freedom, freedom]))
    np.testing.assert_allclose(both, 2 * freedom)
    assert np.isnan(uncertainty.student(np.asarray(0.0)))


@pytest.mark.parametrize("size", [1.0, 1e13])
def test_a_product_leaves_both_factors_open_whatever_their_units(size):
    t = np.linspace(0.0, 5.0, 9)
    result = rf.fit(
        lambda t, y, p: {"x": p["a"] * p["b"] + 0.0 * y["x"]},
        {"time": t, "x": size * (0.4 * t + 0.1 * np.cos(5 * t))},
        states={"x": rf.Parameter(0.1 * size)},
        parameters={"a": rf.Parameter(size), "b": rf.Parameter(0.3)}, starts=1,
    )  # fmt: skip
    assert result.outcome == "flat" and "Fix one of" in result.warnings[0]
    errors = {e.name: e.se for e in result.estimates if e.kind != "scale"}
    assert np.isinf([errors["a"], errors["b"]]).all() and np.isfinite(errors["x"])
