import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from rootflow import materials as mat

from .couples import CU, SN, TIME, A, asymmetric, ideal, logistic, logistic_coefficient

METHODS = ("wagner", "den-broeder", "matano")


@pytest.mark.parametrize("method", METHODS)
def test_a_logistic_profile_has_its_closed_form(method):
    x, Y = logistic(6001)
    found = mat.interdiffusion(mat.Profile(x, Y, time=TIME), method=method)
    inside = (Y > 0.02) & (Y < 0.98)
    np.testing.assert_allclose(
        np.asarray(found.coefficient)[inside], logistic_coefficient(Y[inside]), rtol=6e-5
    )
    assert float(found.disagreement) < 1e-10


def test_an_error_function_has_a_constant_coefficient():
    D = 3e-15
    width = 2 * np.sqrt(D * TIME)
    x = np.linspace(-5 * width, 5 * width, 4001)
    found = mat.interdiffusion(mat.Profile(x, (1 + erf(x / width)) / 2, time=TIME))
    N = np.asarray(found.composition)
    inside = (N > 0.01) & (N < 0.99)
    np.testing.assert_allclose(np.asarray(found.coefficient)[inside], D, rtol=1e-5)


@pytest.mark.parametrize("m", [0.5, 1.0, 2.0])
def test_a_profile_of_finite_width_has_its_closed_form(m):
    Y = np.linspace(0, 1, 4001)
    x = A * (Y**m - 1 / (m + 1))
    margin = np.linspace(0.05, 2, 40) * A
    x = np.concatenate([x[0] - margin[::-1], x, x[-1] + margin])
    Y = np.concatenate([np.zeros(40), Y, np.ones(40)])
    found = mat.interdiffusion(mat.Profile(x, Y, time=TIME))
    exact = A**2 / (2 * TIME) * m / (m + 1) * Y**m * (1 - Y**m)
    inside = (Y > 0.05) & (Y < 0.95)
    np.testing.assert_allclose(np.asarray(found.coefficient)[inside], exact[inside], rtol=5e-5)


def test_the_second_moment_is_the_mean_of_the_coefficient():
    x, Y = logistic(6001)
    mean = mat.second_moment(mat.Profile(x, Y, time=TIME))
    np.testing.assert_allclose(mean, np.pi**2 / 6 * A**2 / TIME, rtol=1e-4)


def test_the_matano_plane_balances_the_areas():
    x, N = asymmetric()
    couple = mat.Profile(x + 7e-6, N, time=TIME, molar_volume=mat.IdealVolume(CU, SN))
    plane = float(mat.matano_plane(couple))
    np.testing.assert_allclose(plane, 7e-6, atol=1e-3 * A)  # logistic in C: its own symmetry
    turned = mat.Profile(-x[::-1], N[::-1], time=TIME, molar_volume=mat.IdealVolume(CU, SN))
    np.testing.assert_allclose(mat.matano_plane(turned), 0, atol=1e-3 * A)


@pytest.fixture(scope="module")
def wagner():
    x, N = asymmetric()
    return mat.interdiffusion(mat.Profile(x, N, time=TIME, molar_volume=sag(0.05)))


def sag(size):
    return lambda N: ideal(N) * (1 - 4 * size * N * (1 - N))


def at(found, N):
    return np.interp(N, found.composition, found.coefficient)


INNER = np.array([0.1, 0.3, 0.5, 0.7, 0.9])


def test_origin_mirror_and_swap_change_nothing_and_length_counts_twice(wagner):
    x, N = asymmetric()
    moved = mat.Profile(x - 1e-3, N, time=TIME, molar_volume=sag(0.05))
    mirrored = mat.Profile(-x[::-1], N[::-1], time=TIME, molar_volume=sag(0.05))
    swapped = mat.Profile(x, 1 - N, time=TIME, molar_volume=lambda B: sag(0.05)(1 - B))
    longer = mat.Profile(3 * x, N, time=2 * TIME, molar_volume=sag(0.05))
    other_unit = mat.Profile(x, N, time=TIME, molar_volume=lambda N: 1e6 * sag(0.05)(N))
    here = at(wagner, INNER)
    for other in (moved, mirrored, other_unit):
        np.testing.assert_allclose(at(mat.interdiffusion(other), INNER), here, rtol=1e-6)
    np.testing.assert_allclose(at(mat.interdiffusion(swapped), 1 - INNER), here, rtol=1e-6)
    np.testing.assert_allclose(at(mat.interdiffusion(longer), INNER), 4.5 * here, rtol=1e-9)


def test_the_flux_turns_with_the_couple(wagner):
    x, N = asymmetric()
    turned = mat.interdiffusion(
        mat.Profile(-x[::-1], N[::-1], time=TIME, molar_volume=sag(0.05))
    )  # fmt: skip
    middle = len(x) // 2
    assert float(wagner.flux[middle]) < 0  # B flows to where there is less
    np.testing.assert_allclose(turned.flux[middle], -wagner.flux[middle], rtol=1e-6)


@pytest.mark.parametrize(
    "size, ratios",
    [
        (0.02, [0.977, 0.957, 0.947, 0.953, 0.987]),
        (0.05, [0.941, 0.890, 0.862, 0.869, 0.956]),
        (0.10, [0.880, 0.776, 0.706, 0.680, 0.819]),
    ],
)
def test_the_two_variables_differ_for_volumes_that_are_not_ideal(size, ratios):
    x, N = asymmetric()
    couple = mat.Profile(x, N, time=TIME, molar_volume=sag(size))
    found = mat.interdiffusion(couple)
    here = np.interp(INNER, found.composition, found.variables_ratio)
    np.testing.assert_allclose(here, ratios, atol=2e-3)
    assert abs(float(found.disagreement) - (1 - min(ratios))) < 0.02
    with pytest.warns(mat.DataWarning, match="ideal molar volumes"):
        broeder = mat.interdiffusion(couple, method="den-broeder")
    np.testing.assert_allclose(at(broeder, INNER) / at(found, INNER), ratios, atol=2e-3)


def test_with_ideal_volumes_they_agree_with_the_closed_form():
    x, N = asymmetric(6001)
    couple = mat.Profile(x, N, time=TIME, molar_volume=mat.IdealVolume(CU, SN))
    Y = logistic(6001)[1]
    inside = (Y > 0.02) & (Y < 0.98)
    for method in METHODS:
        found = np.asarray(mat.interdiffusion(couple, method=method).coefficient)
        np.testing.assert_allclose(found[inside], logistic_coefficient(Y[inside]), rtol=8e-5)


def test_hall_agrees_with_the_areas_where_the_probit_is_straight():
    # Two straight pieces in the probit plane: Hall's formula is exact on each.
    u0 = -0.2
    lam = np.concatenate([np.linspace(-6, u0, 30001), np.linspace(u0, 6, 30001)[1:]])
    Y = (1 + erf(np.where(lam < u0, lam + 0.2, 2 * lam + 0.4))) / 2
    couple = mat.Profile(lam, Y, time=1.0, ends=(0.0, 1.0))
    areas = mat.interdiffusion(couple)
    for end, N in (("left", 0.05), ("right", 0.95)):
        hall = mat.hall(couple, end=end, between=(0.01, 0.2))
        np.testing.assert_allclose(at(hall, N), at(areas, N), rtol=1e-7)
    bowed = mat.Profile(lam, Y, time=1.0, ends=(0.0, 1.0), molar_volume=sag(0.05))
    with pytest.warns(mat.DataWarning, match="Hall's form .* -5 % off"):
        mat.hall(bowed)
    both = mat.interdiffusion(couple, method="hall")
    assert np.all(np.diff(both.composition) >= 0)
    inner = (np.asarray(both.composition) > 0.1) & (np.asarray(both.composition) < 0.9)
    assert not inner.any()


def test_nothing_is_differentiated_across_an_interface():
    # Two phases with linear profiles and a jump: slopes are exact up to the interface.
    left, right = np.linspace(-100e-6, 0, 101), np.linspace(0, 100e-6, 101)
    low = np.where(left < -50e-6, 0.0, 0.2 * (left + 50e-6) / 50e-6)
    high = np.where(right > 50e-6, 1.0, 0.6 + 0.4 * right / 50e-6)
    couple = mat.Profile(np.r_[left, right], np.r_[low, high], time=TIME)
    assert couple.phases == ((0, 101), (101, 202))
    found = mat.interdiffusion(couple)
    # Wagner's formula by hand, beside the interface: areas of triangles.
    I_left, I_right = 0.5 * 0.2 * 50e-6, 0.5 * 0.4 * 50e-6
    for i, Y, slope in ((100, 0.2, 0.2 / 50e-6), (101, 0.6, 0.4 / 50e-6)):
        expected = ((1 - Y) * I_left + Y * I_right) / (2 * TIME * slope)
        np.testing.assert_allclose(found.coefficient[i], expected, rtol=1e-9)


def test_compiled_batched_and_differentiated():
    x, Y = logistic(401)
    couple = mat.Profile(x, Y, time=TIME, ends=(0.0, 1.0))

    def middle(N):
        moved = mat.Profile(jnp.asarray(x), N, time=TIME, ends=(0.0, 1.0))
        return mat.interdiffusion(moved).coefficient[200]

    N = jnp.asarray(Y)
    plain = mat.interdiffusion(couple, check_ends=False).coefficient[200]
    batch = jax.jit(jax.vmap(middle))(jnp.stack([N, N]))
    np.testing.assert_allclose(batch, float(plain), rtol=1e-6)
    slope = jax.jit(jax.grad(middle))(N)
    for i in (150, 200, 201):
        step = 1e-6
        up, down = (middle(N.at[i].add(s)) for s in (step, -step))
        np.testing.assert_allclose(slope[i], (up - down) / (2 * step), rtol=1e-5, atol=1e-24)


def test_single_precision():
    x, Y = logistic(401)
    couple = mat.Profile(x.astype(np.float32), Y.astype(np.float32), time=TIME)
    found = mat.interdiffusion(couple)
    assert found.coefficient.dtype == jnp.float32
    inside = (Y > 0.05) & (Y < 0.95)
    np.testing.assert_allclose(
        np.asarray(found.coefficient)[inside], logistic_coefficient(Y[inside]), rtol=2e-3
    )
