import numpy as np
import pytest

from rootflow import materials as mat

from .couples import CU, SN, TIME, A, asymmetric, ideal, logistic, logistic_coefficient


def imposed(ratio, points=12001):
    """A couple whose D_B / D_A is the ratio everywhere, and its D_A."""
    x, N = asymmetric(points)
    couple = mat.Profile(
        x, N, time=TIME, molar_volume=mat.IdealVolume(CU, SN), ends=(0.05, 0.95)
    )  # fmt: skip
    Y = logistic(points)[1]
    share = N / ideal(N) * SN
    return couple, logistic_coefficient(Y) / ((1 - share) * ratio + share)


@pytest.mark.parametrize("ratio, shift", [(3.0, 0.682), (0.3, -0.671)])
def test_markers_give_back_what_was_imposed(ratio, shift):
    couple, D_A = imposed(ratio)
    D_A = np.nan_to_num(D_A)
    (plane,) = mat.kirkendall_planes(couple, D_A, ratio * D_A)
    # For one ratio everywhere the plane is where the velocity is extreme.
    v = SN * (ratio - 1) * D_A * np.gradient(couple.N / ideal(couple.N), couple.x)
    rise = np.interp(plane.position, couple.x, np.gradient(v, couple.x))
    np.testing.assert_allclose([plane.gradient, 2 * TIME * rise], 0, atol=2e-3)
    moved = plane.position - float(mat.matano_plane(couple))
    np.testing.assert_allclose(moved / A, shift, atol=1e-3)
    exact = np.interp(plane.position, couple.x, D_A)
    for method in ("van-loo", "concentration"):
        found = mat.intrinsic(couple, marker=plane.position, method=method)
        np.testing.assert_allclose([found.A, found.B], [exact, ratio * exact], rtol=1e-5)
        np.testing.assert_allclose(found.shift, moved, rtol=1e-4)
        np.testing.assert_allclose(found.velocity * 2 * TIME, found.shift, rtol=1e-9)
        wagner = mat.interdiffusion(couple)
        direct = np.interp(float(found.composition), wagner.composition, wagner.coefficient)
        np.testing.assert_allclose(found.interdiffusion, direct, rtol=1e-5)


def test_a_turned_couple_has_the_same_coefficients():
    couple, D_A = imposed(3.0, 3001)
    turned = mat.Profile(
        -couple.x[::-1], couple.N[::-1], time=TIME, molar_volume=couple.molar_volume,
        ends=(0.95, 0.05),
    )  # fmt: skip
    here, there = (
        mat.intrinsic(c, marker=m) for c, m in ((couple, 6.8e-6), (turned, -6.8e-6))
    )  # fmt: skip
    np.testing.assert_allclose([there.A, there.B], [here.A, here.B], rtol=1e-9)
    np.testing.assert_allclose([there.shift, there.velocity], [-here.shift, -here.velocity])
    D_A = np.nan_to_num(D_A)
    (plane,) = mat.kirkendall_planes(turned, D_A[::-1], 3 * D_A[::-1])
    np.testing.assert_allclose(plane.position, -0.682 * A, atol=0.01 * A)
    assert plane.velocity < 0


def test_markers_gather_where_the_velocity_falls():
    # D_A = D_B on one side: the velocity is a hump, which the line 2 t v = x meets beyond its top.
    x, Y = logistic()
    couple = mat.Profile(x, Y, time=TIME)
    planes = mat.kirkendall_planes(couple, 0 * Y + 1e-16, 2e-14 * np.exp(-((x / A + 1) ** 2)))
    assert len(planes) == 1 and planes[0].stable and planes[0].gradient < -0.5


def test_functions_do_as_values_for_kirkendall_planes():
    couple, _ = imposed(1.0, 3001)
    (plane,) = mat.kirkendall_planes(couple, lambda N: 1e-15 + 0 * N, lambda N: 3e-15 + 0 * N)
    assert plane.position > float(mat.matano_plane(couple))


def test_heumanns_ratio_is_van_loos_at_constant_volume():
    x, Y = logistic()
    couple = mat.Profile(x, 0.1 + 0.7 * Y, time=TIME)
    found = mat.intrinsic(couple, marker=0.3 * A)
    np.testing.assert_allclose(mat.heumann_ratio(couple, marker=0.3 * A), found.ratio, rtol=1e-5)


def test_darken_mannings_equations_are_consistent():
    # Darken's mean of intrinsic coefficients with wind is the Darken-Manning equation.
    tracer = {"A": 2e-15, "B": 7e-15, "N": 0.3}
    for structure in ("fcc", "bcc", 10.0, None):
        D = mat.intrinsic_from_tracer(**tracer, factor=1.8, structure=structure)
        mixed = mat.darken(D.A, D.B, 0.3)
        whole = mat.interdiffusion_from_tracer(**tracer, factor=1.8, structure=structure)
        np.testing.assert_allclose(mixed, whole, rtol=1e-12)


def test_tracer_coefficients_come_back_from_intrinsic_ones():
    volume = mat.IdealVolume(CU, SN)
    for A_, B_ in ((2e-15, 7e-14), (5e-13, 1e-15)):
        D = mat.intrinsic_from_tracer(A_, B_, 0.4, factor=2.5, molar_volume=volume)
        back = mat.tracer_from_intrinsic(D.A, D.B, 0.4, factor=2.5, molar_volume=volume)
        np.testing.assert_allclose([back.A, back.B], [A_, B_], rtol=1e-7)


def test_the_wind_is_bounded_as_manning_says():
    # At the ends of the composition the wind is that of the host: 1 - W_B -> 1 / f as D_B* -> 0.
    wind = mat.vacancy_wind(1.0, 0.0, 0.5, structure="fcc")
    np.testing.assert_allclose(wind.A, 2 / 7.15)
    assert float(mat.vacancy_wind(1.0, 1.0, 0.5).AB) == 0


@pytest.mark.parametrize(
    "options, message",
    [
        ({"marker": 1.0}, "outside of the profile"),
        ({"marker": 0.0, "method": "darken"}, "method must be one of"),
        ({"marker": [0.0, 1e-6]}, "one number"),
        ({"marker": 14.9 * A}, "no slope at the marker"),
    ],
)
def test_bad_markers_are_refused(options, message):
    x, Y = logistic()
    Y = np.where(Y > 0.999, 1.0, Y)
    with pytest.raises(ValueError, match=message):
        mat.intrinsic(mat.Profile(x, Y, time=TIME, ends=(0.0, 1.0)), **options)


def test_bad_structures_and_coefficients_are_refused():
    with pytest.raises(ValueError, match="structure='hcp'"):
        mat.vacancy_wind(1.0, 2.0, 0.5, structure="hcp")
    with pytest.raises(ValueError, match="positive; got -1"):
        mat.tracer_from_intrinsic(-1.0, 2.0, 0.5)
    with pytest.raises(ValueError, match="value for each of the 2001 points"):
        mat.kirkendall_planes(mat.Profile(*logistic(), time=TIME), [1.0, 2.0], [1.0, 2.0])
