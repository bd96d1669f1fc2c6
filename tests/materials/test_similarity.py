import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.special import erf

from rootflow import materials as mat

from .couples import CU, SN, TIME, ideal


def test_a_constant_coefficient_gives_the_error_function():
    D = 2e-15
    made = mat.simulate(lambda N: D + 0 * N, ends=(0.1, 0.7), time=TIME)
    exact = 0.1 + 0.3 * (1 + erf(np.asarray(made.x) / (2 * np.sqrt(D * TIME))))
    np.testing.assert_allclose(made.N, exact, atol=1e-7)


def by_volumes(law, cells=400, reach=12.0):
    """Profiles at t = 1 by finite volumes and SciPy, for coefficients of order one."""
    edges = np.linspace(-reach, reach, cells + 1)
    centres, h = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]

    def rate(t, N):
        middle = (N[1:] + N[:-1]) / 2
        flux = np.concatenate([[0.0], -law(middle) * np.diff(N) / h, [0.0]])
        return -np.diff(flux) / h

    start = (centres > 0).astype(float)
    band = [1, 1]
    solved = solve_ivp(
        rate, (0.0, 1.0), start, method="LSODA", rtol=1e-8, atol=1e-10, lband=band[0], uband=band[1]
    )
    return centres, solved.y[:, -1]


def test_the_profile_is_that_of_the_partial_differential_equation():
    def law(N):
        return 1.0 + 2.0 * N**2

    centres, N = by_volumes(law)
    made = mat.simulate(law, ends=(0.0, 1.0), time=1.0, x=centres)
    np.testing.assert_allclose(made.N, N, atol=3e-4)


@pytest.mark.parametrize("decades", [1.0, 3.0, -3.0])
def test_a_ratio_of_a_thousand_keeps_a_thousandth(decades):
    def law(N):
        return 1e-15 * 10 ** (decades * (N - 0.5))

    made = mat.simulate(law, ends=(0.0, 1.0), time=TIME, points=4001)
    found = mat.interdiffusion(made)
    N = np.asarray(found.composition)
    inside = (N > 0.03) & (N < 0.97)
    np.testing.assert_allclose(np.asarray(found.coefficient)[inside], law(N[inside]), rtol=1e-3)


def test_any_molar_volume_comes_back_by_wagners_form_and_turned_couples_too():
    def law(N):
        return 1e-15 * (1 + 3 * N)

    def volume(N):
        return ideal(N) * (1 - 0.2 * N * (1 - N))

    for ends in ((0.05, 0.95), (0.9, 0.1)):
        made = mat.simulate(law, ends=ends, time=TIME, molar_volume=volume, points=4001)
        np.testing.assert_allclose(mat.matano_plane(made), 0, atol=2e-9)
        found = mat.interdiffusion(made)
        N = np.linspace(0.15, 0.85, 8)
        np.testing.assert_allclose(
            np.interp(N, found.composition, found.coefficient), law(N), rtol=1e-4
        )
    ideally = mat.simulate(
        law, ends=(0.05, 0.95), time=TIME, molar_volume=mat.IdealVolume(CU, SN), points=4001
    )
    assert float(mat.interdiffusion(ideally).disagreement) < 1e-4


@pytest.fixture(scope="module")
def composition_at():
    """The mole fraction at 10 µm for ln D = a + b N."""
    x = jnp.linspace(-1e-4, 1e-4, 21)

    @jax.jit
    def at(a, b):
        made = mat.simulate(
            lambda N: jnp.exp(a + b * N), ends=(0.0, 1.0), time=TIME, molar_volume=7e-6, x=x
        )
        return made.N[11]

    return at


def test_gradients_are_those_of_differences(composition_at):
    a, b = jnp.log(1e-15), jnp.asarray(2.0)
    slopes = jax.jit(jax.grad(composition_at, argnums=(0, 1)))(a, b)
    forward = jax.jvp(composition_at, (a, b), (jnp.asarray(1.0), jnp.asarray(0.5)))[1]
    h = 1e-4
    by_a = (composition_at(a + h, b) - composition_at(a - h, b)) / (2 * h)
    by_b = (composition_at(a, b + h) - composition_at(a, b - h)) / (2 * h)
    np.testing.assert_allclose(slopes, [by_a, by_b], rtol=1e-5)
    np.testing.assert_allclose(forward, slopes[0] + 0.5 * slopes[1], rtol=1e-9)
    batch = jax.vmap(composition_at, in_axes=(0, None))(jnp.stack([a, a + 1]), b)
    np.testing.assert_allclose(batch, [composition_at(v, b) for v in (a, a + 1)], rtol=1e-7)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"ends": (0.3, 0.3)}, "nothing diffuses"),
        ({"ends": (0.0, 100.0)}, "got 100"),
        ({"ends": (0.0, 0.5, 1.0)}, "two mole fractions"),
        ({"ends": (0.0, 1.0), "time": 0.0}, "positive; got 0"),
        ({"ends": (0.0, 1.0), "points": 3}, "points must be a whole number of at least 10"),
        ({"ends": (0.0, 1.0), "law": lambda N: 1e-15 * (N - 0.5)}, "must be positive between"),
    ],
)
def test_bad_simulations_are_refused(options, message):
    options = {"time": TIME, "law": lambda N: 1e-15 + 0 * N, **options}
    with pytest.raises(ValueError, match=message):
        mat.simulate(options.pop("law"), **options)
