import numpy as np
import pytest
from scipy.special import erf, ndtri

from rootflow import materials as mat

from .couples import TIME

AT = np.array([0.2, 0.5, 0.8])
X = np.arange(-120e-6, 180e-6, 2e-6)
Z = ndtri(0.975)


def law(N):
    return 1e-15 * 10 ** (N - 0.5)


@pytest.fixture(scope="module")
def made():
    return mat.simulate(law, ends=(0.0, 1.0), time=TIME)


def scan(made, seed=0, sigma=0.002, shift=0.0, stretch=1.0, **options):
    """A noisy scan; `stretch` is what the couple's length is multiplied by."""
    x = stretch * X
    N = np.interp((x - shift) / stretch, made.x, made.N)
    N = N + sigma * np.random.default_rng(seed).normal(size=len(x))
    return mat.Profile(x, N, time=options.pop("time", TIME), sigma=sigma, **options)


def log_error(fit):
    upper, centre = (
        np.interp(AT, fit.composition, np.log(v)) for v in (fit.upper, fit.coefficient)
    )
    return (upper - centre) / Z


@pytest.fixture(scope="module")
def fitted(made):
    return mat.fit_profile(scan(made), knots=4)


def test_the_coefficient_comes_back_with_a_band_that_covers_it(fitted):
    assert fitted.converged and fitted.sigma_known
    found, low, high = (
        np.interp(AT, fitted.composition, v)
        for v in (fitted.coefficient, fitted.lower, fitted.upper)
    )
    np.testing.assert_allclose(found, law(AT), rtol=0.02)
    assert np.all(np.abs(np.log(found / law(AT))) < 3 * log_error(fitted))
    assert np.all((low < found) & (found < high) & (high / low < 1.1))
    # The misfit is what the scatter says: chi-square within three standard deviations.
    assert abs(fitted.chi_square - fitted.freedom) < 3 * np.sqrt(2 * fitted.freedom)
    plane, error = (float(v[0]) for v in fitted.estimates["matano"])
    assert abs(plane) < 4 * error < 1e-6


def test_bands_are_as_wide_as_the_scatter_of_many_fits(made, fitted):
    fits = [mat.fit_profile(scan(made, seed), knots=4) for seed in range(1, 25)]
    found = np.stack([np.interp(AT, f.composition, np.log(f.coefficient)) for f in fits])
    spread = found.std(axis=0, ddof=1)
    np.testing.assert_allclose(spread, log_error(fitted), rtol=0.5)
    errors = np.stack([log_error(f) for f in fits])
    covered = np.mean(np.abs(found - np.log(law(AT))) < Z * errors)
    assert 0.86 < covered < 1.0  # of 95 %, 72 times
    assert np.all(np.abs(found.mean(axis=0) - np.log(law(AT))) < 4 * spread / np.sqrt(24))


def test_errors_of_length_and_time_add_as_they_must(made, fitted):
    # D goes as length² / time: ln D has twice the one and once the other.
    wide = mat.fit_profile(scan(made), knots=4, scale_error=0.01, time_error=0.03)
    expected = np.sqrt(log_error(fitted) ** 2 + 0.02**2 + 0.03**2)
    np.testing.assert_allclose(log_error(wide), expected, rtol=1e-3)
    assert {"scale", "time"} <= set(wide.estimates)
    np.testing.assert_allclose(wide.estimates["time"][0], TIME, rtol=1e-6)


def test_a_turned_couple_has_the_same_fit(made, fitted):
    couple = scan(made)
    # Turned round, and moved by 50 µm with all that is counted in positions.
    turned = mat.Profile(50e-6 - couple.x[::-1], couple.N[::-1], time=TIME, sigma=0.002)
    other = mat.fit_profile(turned, knots=4)
    plane, error = (float(v[0]) for v in other.estimates["matano"])
    np.testing.assert_allclose(plane, 50e-6 - float(fitted.estimates["matano"][0][0]), atol=1e-9)
    assert abs(plane - 50e-6) < 4 * error
    for one, also in zip(other.estimates["ends"], fitted.estimates["ends"]):
        np.testing.assert_allclose(one[0], also[0][::-1], rtol=1e-3, atol=1e-6)
    assert other.estimates["ends"][0][0, 0] > 0.9
    np.testing.assert_allclose(other.coefficient, fitted.coefficient, rtol=1e-5)
    np.testing.assert_allclose(other.fitted[0][::-1], fitted.fitted[0], atol=1e-6)


def test_the_plane_is_that_of_the_concentration_where_the_volume_varies(made):
    couple = mat.simulate(
        law, ends=(0.0, 1.0), time=TIME, molar_volume=mat.IdealVolume(7e-6, 12e-6), points=150
    )
    exact = mat.Profile(
        couple.x, couple.N, time=TIME, molar_volume=couple.molar_volume, sigma=1e-3,
        ends=(0.0, 1.0),
    )  # fmt: skip
    plane, error = mat.fit_profile(exact, knots=4).estimates["matano"]
    # Positions of `simulate` are counted from it.
    assert abs(plane[0]) < error[0] < 5e-7


def test_a_beam_is_taken_out():
    # A beam turns an error function of variance 2 D t into one of variance 2 D t + w².
    D, w = 2e-16, 4e-6
    N = (1 + erf(X / np.sqrt(2 * (2 * D * TIME + w**2)))) / 2
    couple = mat.Profile(X, N, time=TIME, sigma=1e-4)
    sharp = mat.fit_profile(couple, knots=4, beam=w)
    np.testing.assert_allclose(np.interp(AT, sharp.composition, sharp.coefficient), D, rtol=2e-3)


def test_uncertain_volumes_and_beams_widen_the_band(made):
    couple = scan(made, molar_volume=mat.IdealVolume(7e-6, 14e-6))
    known = mat.fit_profile(couple, knots=4, beam=4e-6)
    unknown = mat.fit_profile(couple, knots=4, beam=4e-6, beam_error=0.3, volume_error=0.05)
    assert np.all(log_error(unknown) > 1.01 * log_error(known))
    assert log_error(unknown)[1] > 2 * log_error(known)[1]
    beam, error = unknown.estimates["beam"]
    assert 0 < error < 0.35 * beam


def test_several_times_are_one_coefficient(made):
    short = mat.simulate(law, ends=(0.0, 1.0), time=TIME / 4)
    pair = [scan(made, 1), scan(short, 2, shift=5e-6, time=TIME / 4)]
    joint = mat.fit_profiles(pair, knots=4)
    alone = mat.fit_profile(pair[0], knots=4)
    np.testing.assert_allclose(
        np.interp(AT, joint.composition, joint.coefficient), law(AT), rtol=0.02
    )
    assert np.all(log_error(joint) < log_error(alone))
    np.testing.assert_allclose(joint.estimates["matano"][0], [0.0, 5e-6], atol=5e-7)


def test_several_temperatures_give_the_activation_energy(made):
    Q, T_ref, R = 2.5e5, 1200.0, 8.31446261815324
    couples = []
    for i, T in enumerate((1150.0, 1250.0)):
        stretch = np.exp(-Q / R * (1 / T - 1 / T_ref) / 2)
        couples.append(scan(made, i, stretch=stretch, temperature=T))
    fit = mat.fit_profiles(couples, knots=4)
    assert abs(fit.energy[50] - Q) < 3 * fit.energy_error[50] < 0.05 * Q
    coefficient, low, high = fit.at(T_ref)
    np.testing.assert_allclose(np.interp(AT, fit.composition, coefficient), law(AT), rtol=0.02)
    assert np.all(low < coefficient) and np.all(coefficient < high)
    here = fit.at(fit.temperature)
    np.testing.assert_allclose(here, [fit.coefficient, fit.lower, fit.upper], rtol=1e-9)


def test_the_bootstrap_agrees_with_the_curvature(made, fitted):
    again = mat.fit_profile(scan(made), knots=4, bands="bootstrap", repeats=40)
    np.testing.assert_allclose(again.coefficient, fitted.coefficient, rtol=1e-6)
    np.testing.assert_allclose(log_error(again), log_error(fitted), rtol=0.4)


def test_scatter_that_nobody_gave_comes_from_the_misfit(made, fitted):
    couple = scan(made)
    unknown = mat.fit_profile(mat.Profile(couple.x, couple.N, time=TIME), knots=4)
    assert not unknown.sigma_known
    np.testing.assert_allclose(log_error(unknown), log_error(fitted), rtol=0.2)


def test_what_cannot_be_fitted_is_refused(made):
    couple = scan(made)
    x = np.r_[np.linspace(-5e-5, 0, 20), np.linspace(0, 5e-5, 20)]
    phases = mat.Profile(x, np.r_[np.zeros(20), np.ones(20)], time=TIME)
    with pytest.raises(ValueError, match="1 interfaces: the fit is for one phase"):
        mat.fit_profile(phases)
    with pytest.raises(ValueError, match="some of the profiles have a temperature"):
        mat.fit_profiles([couple, scan(made, temperature=900.0)])
    with pytest.raises(ValueError, match="beam_error is given, but no beam"):
        mat.fit_profile(couple, beam_error=0.1)
    with pytest.raises(ValueError, match="scale_error must be finite and at least 0; got -1"):
        mat.fit_profile(couple, scale_error=-1.0)
    with pytest.raises(ValueError, match="cannot determine 203 numbers"):
        mat.fit_profile(couple, knots=200)
    with pytest.raises(ValueError, match="no profile"):
        mat.fit_profiles([])
    with pytest.raises(ValueError, match="must be a Profile"):
        mat.fit_profile(couple.N)
    with pytest.raises(ValueError, match="knots must be a whole number"):
        mat.fit_profile(couple, knots=0)


def test_a_fit_that_stops_too_early_says_so(made):
    stopped = mat.fit_profile(scan(made), knots=4, max_steps=1)
    assert not stopped.converged and "max_steps" in stopped.message
    with pytest.raises(ValueError, match="no activation energy"):
        stopped.at(900.0)


def test_a_cut_profile_is_fitted_with_a_warning(made):
    x = np.linspace(-80e-6, 60e-6, len(X))
    N = np.interp(x, made.x, made.N)
    cut = mat.Profile(x, N, time=TIME, sigma=0.002, ends=(0.0, 1.0))  # as the alloys were
    with pytest.warns(mat.DataWarning, match="right end .* not flat"):
        fit = mat.fit_profile(cut, knots=4)
    found = np.interp(0.4, fit.composition, fit.coefficient)
    np.testing.assert_allclose(found, law(0.4), rtol=0.02)
