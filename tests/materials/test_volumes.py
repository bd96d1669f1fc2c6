import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator

from rootflow import materials as mat

from .couples import CU, SN, ideal


def test_partial_volumes_of_the_ideal_mixture_are_those_of_the_elements():
    N = np.linspace(0, 1, 5)
    V_A, V_B = mat.partial_volumes(mat.IdealVolume(CU, SN), N)
    np.testing.assert_allclose(V_A, CU, rtol=1e-12)
    np.testing.assert_allclose(V_B, SN, rtol=1e-12)
    assert abs(float(mat.nonideality(mat.IdealVolume(CU, SN), (0.1, 0.8)))) < 1e-12


def test_partial_volumes_of_any_function():
    volume = mat.FunctionVolume(lambda N: ideal(N) * (1 - 0.2 * N * (1 - N)))
    N = np.array([0.2, 0.5, 0.9])
    V_A, V_B = mat.partial_volumes(volume, N)
    np.testing.assert_allclose((1 - N) * V_A + N * V_B, volume(N), rtol=1e-12)
    C_A, C_B = mat.concentrations(volume, N)
    np.testing.assert_allclose(C_A * V_A + C_B * V_B, 1, rtol=1e-12)
    h = 1e-6  # dC_B/dN = V_A / V²
    slope = (mat.concentrations(volume, N + h)[1] - mat.concentrations(volume, N - h)[1]) / (2 * h)
    np.testing.assert_allclose(slope, V_A / volume(N) ** 2, rtol=1e-8)
    np.testing.assert_allclose(mat.nonideality(volume, (0.0, 1.0)), -0.05, rtol=1e-6)


def test_a_table_is_monotone_as_scipys():
    N, V = np.array([0, 0.3, 0.5, 1.0]), np.array([7, 7.5, 9, 9.2]) * 1e-6
    table = mat.TableVolume(N, V)
    np.testing.assert_allclose(table(N), V, rtol=1e-12)
    fine = np.linspace(0, 1, 201)
    assert np.all(np.diff(table(fine)) >= 0)
    inner = fine[(fine > 0.3) & (fine < 0.5)]  # away from the ends, whose slopes differ
    np.testing.assert_allclose(table(inner), PchipInterpolator(N, V)(inner), rtol=1e-9)
    middle = jax.jvp(table, (jnp.asarray(0.4),), (jnp.asarray(1.0),))[1]
    np.testing.assert_allclose(middle, (table(0.4001) - table(0.3999)) / 2e-4, rtol=1e-5)


def test_lattice_volumes():
    np.testing.assert_allclose(mat.lattice_volume(2.887e-10, atoms=2) * 1e6, 7.25, atol=0.01)
    np.testing.assert_allclose(mat.lattice_volume(3.615e-10, atoms=4) * 1e6, 7.11, atol=0.01)
    tin = mat.lattice_volume(5.831e-10, c=3.182e-10, atoms=4)
    np.testing.assert_allclose(tin * 1e6, 16.29, atol=0.01)
    hexagonal = mat.lattice_volume(2.665e-10, c=4.947e-10, atoms=2, gamma=120)  # zinc
    np.testing.assert_allclose(hexagonal * 1e6, 9.16, atol=0.01)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: mat.ConstantVolume(-1.0), "positive; got -1"),
        (lambda: mat.IdealVolume(CU, 0.0), "positive; got 0"),
        (lambda: mat.TableVolume([0.5, 0.2], [CU, SN]), "must increase"),
        (lambda: mat.TableVolume([0.5], [CU]), "at least two rows"),
        (lambda: mat.TableVolume([0.0, 0.5, 1.0], [CU, SN]), "one length"),
        (lambda: mat.TableVolume([0.0, 25.0], [CU, SN]), "got 25"),
        (lambda: mat.lattice_volume(-3e-10, atoms=4), "got -3e-10"),
        (
            lambda: mat.lattice_volume(3e-10, atoms=4, alpha=170.0, beta=100.0, gamma=100.0),
            "make no cell",
        ),
        (
            lambda: mat.partial_volumes(
                mat.FunctionVolume(lambda N: np.interp(N, [0, 1], [CU, SN])), 0.5
            ),
            "jax.numpy",
        ),
    ],
)
def test_bad_volumes_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
