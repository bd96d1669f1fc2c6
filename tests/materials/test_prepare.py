import itertools
import warnings

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import erf

from rootflow import materials as mat

from .couples import TIME, A, logistic


def test_weight_and_mole_fractions():
    # Brass: 30 wt.% zinc in copper is 29.4 at.%.
    N = mat.mole_fraction(0.30, A=63.546, B=65.38)
    np.testing.assert_allclose(N, (0.3 / 65.38) / (0.7 / 63.546 + 0.3 / 65.38), rtol=1e-12)
    np.testing.assert_allclose(mat.weight_fraction(N, A=63.546, B=65.38), 0.30, rtol=1e-12)


def test_totals_are_taken_out_and_odd_ones_named():
    first, second = np.array([0.5, 0.6, 0.2]), np.array([0.5, 0.41, 0.76])
    with pytest.warns(mat.DataWarning, match=r"1 of 3 totals .*point 2, 96 %"):
        N, total = mat.normalise(first, second)
    np.testing.assert_allclose(total, [1.0, 1.01, 0.96])
    np.testing.assert_allclose(N, second / total)
    with pytest.raises(ValueError, match="line 7: the total is 70 %, far from 100 %"):
        mat.normalise([0.5, 0.5], [0.5, 0.2], place=lambda i: f"line {6 + i}")


def test_an_oblique_scan():
    np.testing.assert_allclose(mat.oblique([0, 2e-6], 60.0), [0, 1e-6])
    with pytest.raises(ValueError, match="less than 90"):
        mat.oblique([0.0], 90.0)


def test_effective_times():
    Q, T0 = 2e5, 1200.0
    hold = mat.effective_time([0, 100.0], [T0, T0], activation_energy=Q, reference=T0)
    np.testing.assert_allclose(hold, 100, rtol=1e-12)
    time, T = [0, 300.0, 4000.0, 4500.0], [300.0, 1180.0, 1220.0, 400.0]
    found = mat.effective_time(time, T, activation_energy=Q, reference=T0)

    def rate(s):
        return np.exp(-Q / 8.31446261815324 * (1 / np.interp(s, time, T) - 1 / T0))

    expected = sum(quad(rate, a, b, epsabs=0)[0] for a, b in itertools.pairwise(time))
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    with pytest.raises(ValueError, match="positive; got -20"):
        mat.effective_time([0, 1], [-20.0, 900.0], activation_energy=Q, reference=T0)
    with pytest.raises(ValueError, match="must increase"):
        mat.effective_time([1, 0], [900.0, 900.0], activation_energy=Q, reference=T0)


def test_plateaus_are_means_of_the_flat_ends():
    rng = np.random.default_rng(1)
    x = np.linspace(-100e-6, 100e-6, 201)
    N = 0.1 + 0.4 * (1 + erf(x / 25e-6)) + 0.003 * rng.normal(size=201)
    couple = mat.Profile(x, N, time=TIME, sigma=0.003)
    np.testing.assert_allclose(couple.ends, [0.1, 0.9], atol=0.0025)
    # Nobody said what the scatter is: it shows.
    np.testing.assert_allclose(mat.Profile(x, N, time=TIME).noise, 0.003, rtol=0.15)


def test_weights_count_in_the_plateaus():
    x = np.linspace(-10 * A, 10 * A, 41)
    N = 0.2 + 0.6 / (1 + np.exp(-x / A))
    N[:5] += [0.0, 0.1, 0.0, -0.1, 0.0]
    sigma = np.full(41, 1e-4)
    sigma[[1, 3]] = 1.0
    assert abs(float(mat.Profile(x, N, time=TIME, sigma=sigma).ends[0]) - 0.2) < 2e-4


def test_smoothing_reduces_the_scatter_and_leaves_a_smooth_profile():
    x, Y = logistic(301, reach=8)
    rng = np.random.default_rng(0)
    noisy = mat.Profile(x, Y + 0.002 * rng.normal(size=301), time=TIME, sigma=0.002)
    after = np.asarray(mat.smooth(noisy).N)
    assert np.std(after - Y) < 0.6 * 0.002
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = mat.interdiffusion(mat.smooth(noisy, points=601))
    middle = np.interp(0.5, found.composition, found.coefficient)
    np.testing.assert_allclose(middle, 2 * np.log(2) * A**2 / TIME, rtol=0.06)
    with pytest.raises(ValueError, match="from 1 to 5"):
        mat.smooth(noisy, degree=7)


def profile(**changes):
    x, Y = logistic(61, reach=12)
    options = {"x": x, "N": Y, "time": TIME, **changes}
    return mat.Profile(options.pop("x"), options.pop("N"), **options)


X, Y = logistic(61, reach=12)
SWAPPED = np.r_[X[:20], X[21], X[20], X[22:]]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"time": 0.0}, "annealing time must be finite and positive; got 0"),
        ({"time": [1.0, 2.0]}, "one number"),
        ({"x": X[:9], "N": Y[:9]}, "the profile has 9 points; at least 10"),
        ({"x": X[:30]}, "one length"),
        ({"x": SWAPPED}, r"positions decrease from -36 µm to -40 µm \(point 21\): sort"),
        ({"x": X[::-1]}, "turn the columns round"),
        ({"N": 100 * Y}, "outside of .0, 1.: divide percentages by 100"),
        ({"N": np.where(X == 0, 1.3, Y)}, r"at 0 µm \(point 30\) is 1.3"),
        ({"N": np.where(X == 0, np.nan, Y)}, "finite; got nan"),
        ({"N": 0 * Y + 0.5}, "there is no couple"),
        ({"sigma": 0.0}, "sigma must be finite and positive"),
        ({"sigma": [0.1, 0.2]}, "one for each of the 61 points"),
        ({"ends": (0.0, 0.5, 1.0)}, "two mole fractions"),
        ({"ends": (0.0, 100.0)}, "got 100"),
        ({"ends": (1.0, 0.0)}, r"goes from .* to 1: swap them"),
        ({"molar_volume": (1.0, 2.0, 3.0)}, "pair"),
        ({"molar_volume": lambda N: 1e-6 * (0.5 - N)}, "molar volume at N = 0.5"),
        ({"temperature": -5.0}, "temperature must be finite and positive"),
        ({"x": np.r_[X[:30], X[29], X[30:]], "N": np.r_[Y[:30], Y[29], Y[30:]]},
         "interface at -4 µm lies inside a phase"),
        ({"x": np.r_[X[:30], X[29], X[29], X[30:]], "N": np.r_[Y[:30], 0.3, 0.35, Y[30:]]},
         "three points share the position -4 µm"),
    ],
)  # fmt: skip
def test_bad_profiles_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        profile(**changes)


def test_a_profile_that_is_not_monotone_is_refused_with_the_place():
    N = Y.copy()
    N[33] = N[31]  # at 12 µm
    with pytest.raises(ValueError, match=r"not monotone at (8|12) µm \(mole fraction 0\.\d+; 1 "):
        mat.interdiffusion(profile(N=N))
    found = mat.interdiffusion(profile(N=N), throw=False)
    assert np.isnan(np.asarray(found.coefficient)[30:36]).sum() == 1


def test_ends_that_are_not_flat_are_refused():
    x, Y = logistic(201, reach=3)
    cut = mat.Profile(x, Y, time=TIME)
    assert not mat.end_flatness(cut)[0].flat
    with pytest.raises(ValueError, match=r"left end .* not flat: it is \d.* % of the step"):
        mat.interdiffusion(cut)
    mat.interdiffusion(cut, check_ends=False)
    # What the alloys were says the same of a scan that seems to be flat.
    x, Y = logistic(201)
    with pytest.raises(ValueError, match="right end"):
        mat.interdiffusion(mat.Profile(x, 0.9 * Y, time=TIME, ends=(0.0, 1.0)))
    assert all(end.flat for end in mat.end_flatness(mat.Profile(x, Y, time=TIME)))


def test_words_and_ranges_are_checked():
    with pytest.raises(ValueError, match="method must be one of"):
        mat.interdiffusion(profile(), method="boltzmann")
    with pytest.raises(ValueError, match="low < high"):
        mat.hall(profile(), between=(0.5, 0.1))
    with pytest.raises(ValueError, match="only 1 points of the left end"):
        mat.hall(profile(), between=(0.0009, 0.0011))
    with pytest.raises(ValueError, match="real numbers"):
        mat.Profile(["one"] * 10, np.zeros(10), time=1.0)
