"""Fractional Brownian motion: exact law, and the Markov approximation against quadrature."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special

from rootflow.errors import InputError
from rootflow.flows.methods.runge_kutta import Heun
from rootflow.flows.methods.sde import EulerMaruyama, Milstein
from rootflow.flows.noise import (
    BrownianMotion,
    FractionalBrownianMotion,
    MarkovFractional,
    MarkovLaw,
    MovingLaw,
)
from rootflow.flows.noise.law import _normal_equations
from rootflow.flows.sde import solve_sde

KEYS = jax.random.split(jax.random.key(5), 20_000)


def exact_covariance(ts, hurst):
    s, t = ts[:, None], ts
    return 0.5 * (s ** (2 * hurst) + t ** (2 * hurst) - np.abs(t - s) ** (2 * hurst))


@pytest.mark.parametrize("steps", [None, 12])
def test_covariance(steps):
    ts = np.array([0.25, 0.5, 0.75, 1.5])

    @jax.jit
    def draw(hurst):
        path = lambda k: FractionalBrownianMotion(k, hurst, 0.0, 3.0, steps=steps)(ts)
        return jax.vmap(path)(KEYS)

    for hurst in (0.15, 0.5, 0.8):
        exact = exact_covariance(ts, hurst)
        samples = np.asarray(draw(hurst))
        z = np.linalg.solve(np.linalg.cholesky(exact), samples.T)
        np.testing.assert_allclose(z @ z.T / len(KEYS), np.eye(4), atol=0.04)


def test_the_eigenvalues_of_the_embedding_are_positive_for_every_index():
    n = 64
    k = np.arange(n + 1)
    for hurst in np.linspace(0.01, 0.99, 25):
        gamma = 0.5 * (
            np.abs(k + 1) ** (2 * hurst) - 2 * k ** (2 * hurst) + np.abs(k - 1) ** (2 * hurst)
        )
        assert np.fft.fft(np.concatenate([gamma, gamma[-2:0:-1]])).real.min() > 0


def test_a_grid_path_is_one_path_and_differentiable_in_the_index():
    path = FractionalBrownianMotion(jax.random.key(0), 0.7, shape=(2,), steps=16)
    assert path(np.array([0.1, 0.2])).shape == (2, 2)
    np.testing.assert_allclose(
        path.increment(0.1, 0.7), path.increment(0.1, 0.4) + path.increment(0.4, 0.7), atol=1e-14
    )

    for steps in (None, 16):
        final = lambda h, steps=steps: FractionalBrownianMotion(jax.random.key(0), h, steps=steps)(
            jnp.array([0.5, 1.0])
        )
        slope = (final(0.3 + 1e-6) - final(0.3 - 1e-6)) / 2e-6
        np.testing.assert_allclose(jax.jacfwd(final)(0.3), slope, rtol=1e-5, atol=1e-8)


def test_a_solve_driven_by_a_smooth_enough_path():
    """dy = y dB has y = exp(B) for hurst > 1/2 (Young integral)."""
    path = FractionalBrownianMotion(jax.random.key(3), 0.8, steps=2048)
    sol = solve_sde(
        lambda t, y, a: 0.0 * y, lambda t, y, a: y, jnp.array(1.0), (0.0, 1.0), path,
        method=Heun(), dt=1 / 2048,
    )  # fmt: skip
    np.testing.assert_allclose(sol.ys[-1], jnp.exp(path(1.0)), rtol=1e-4)


@pytest.mark.parametrize("hurst", [0.3, 0.7])
def test_optimal_weights_against_quadrature(hurst):
    kernel = lambda s: s ** (hurst - 0.5) / special.gamma(hurst + 0.5)
    rates = np.array([0.2, 1.0, 7.0])
    T = 1.5
    for kind in (1, 2):
        _, b, _ = _normal_equations(kind, jnp.asarray(hurst), jnp.asarray(rates), jnp.asarray(T))
        for g, value in zip(rates, np.asarray(b)):
            # E[B(t) Y(t)], integrated over t; the kernel is s**(H - 1/2) / Gamma(H + 1/2).
            second = (
                integrate.quad(
                    lambda s, g=g: (T - s) * np.exp(-g * s), 0, T, weight="alg",
                    wvar=(hurst - 0.5, 0),
                )[0]
                / special.gamma(hurst + 0.5)
            )  # fmt: skip
            if kind == 2:
                np.testing.assert_allclose(value, second, rtol=1e-8)
                continue

            def past(t, g=g):
                inner = lambda r: (kernel(t + r) - kernel(r)) * np.exp(-g * r) * np.expm1(-g * t)
                return (
                    integrate.quad(inner, 0, 1, limit=200)[0]
                    + integrate.quad(inner, 1, np.inf, limit=200)[0]
                )

            first = second + integrate.quad(past, 0, T, epsabs=1e-7)[0]
            np.testing.assert_allclose(value, first, rtol=1e-5)


def test_published_errors_of_the_approximation():
    """Relative errors for 5 terms up to 20, on (0, 1)."""
    published = {
        1: {0.1: 0.554, 0.3: 0.129, 0.5: 0.113, 0.7: 0.313, 0.9: 0.714},
        2: {0.1: 0.479, 0.3: 0.088, 0.5: 0.0, 0.7: 0.012, 0.9: 0.008},
    }
    for kind, rows in published.items():
        for hurst, error in rows.items():
            path = MarkovFractional(jax.random.key(0), hurst, kind=kind)
            np.testing.assert_allclose(path.error, error, atol=1e-3)


def test_covariance_of_the_approximation():
    """Type II against the Riemann-Liouville process; both against the closed form, by samples."""
    s, t, hurst = 0.4, 1.0, 0.7
    path = MarkovFractional(jax.random.key(0), hurst, standard=False)
    a = hurst - 0.5
    exact = t**a * s ** (a + 1) / ((a + 1) * special.gamma(hurst + 0.5) ** 2)
    exact *= special.hyp2f1(-a, 1, a + 2, s / t)
    np.testing.assert_allclose(path.covariance(s, t), exact, rtol=0.02)

    @jax.jit
    @jax.vmap
    def draw(key):
        out = []
        for kind in (1, 2):
            path = MarkovFractional(key, 0.4, kind=kind)
            sol = solve_sde(
                lambda t, y, a: 0.0 * y, lambda t, y, a: jnp.ones_like(y), jnp.array(0.0),
                (0.0, 1.0), path, method=Heun(), dt=1 / 64, saveat=jnp.array([0.5, 1.0]),
            )  # fmt: skip
            out.append(sol.ys)
        return jnp.stack(out)

    samples = np.asarray(draw(KEYS[:4000]))
    for i, kind in enumerate((1, 2)):
        path = MarkovFractional(jax.random.key(0), 0.4, kind=kind)
        ts = np.array([0.5, 1.0])
        exact = path.covariance(ts[:, None], ts)
        np.testing.assert_allclose(np.cov(samples[:, i].T), exact, rtol=0.08)


def test_an_index_of_one_half_is_brownian_motion():
    path = MarkovFractional(jax.random.key(2), 0.5)
    assert path.error < 1e-4
    sol = solve_sde(
        lambda t, y, a: 0.0 * y, lambda t, y, a: y, jnp.array(1.0), (0.0, 1.0), path,
        method=Milstein("stratonovich"), dt=1 / 512,
    )  # fmt: skip
    np.testing.assert_allclose(sol.ys[-1], jnp.exp(path.motion(1.0)), rtol=0.02)


def test_learning_the_index_has_a_derivative():
    """Finite also where exp of rate times horizon overflows, and equal to finite differences."""

    @jax.jit
    def final(hurst):
        path = MarkovFractional(jax.random.key(1), hurst, t1=2.0, kind=1, largest=400.0)
        return jnp.sum(path.weights * path.rates)

    slope = (final(0.4 + 1e-5) - final(0.4 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(final)(0.4), slope, rtol=1e-4)

    @jax.jit
    def solved(hurst):
        path = MarkovFractional(jax.random.key(1), hurst)
        return solve_sde(
            lambda t, y, a: -y, lambda t, y, a: 0.5 * jnp.ones_like(y), jnp.ones(2) * 1.0,
            (0.0, 1.0), path, method=EulerMaruyama(), dt=1 / 32,
        ).ys[-1, 0]  # fmt: skip

    slope = (solved(0.7 + 1e-5) - solved(0.7 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(solved)(0.7), slope, rtol=1e-4)


def _rising(t):
    return 0.45 + 0.4 * t


def test_an_index_that_changes_has_the_covariance_of_multifractional_motion():
    """int_0^s (s-u)^(H(s)-1/2) (t-u)^(H(t)-1/2) du, standardised; variance t^(2 H(t))."""
    law = MovingLaw(_rising, 1.0)
    t, s = np.array([0.3, 0.6, 1.0]), np.array([0.2, 0.3, 0.5])
    np.testing.assert_allclose(law.covariance(t, t), t ** (2 * _rising(t)), rtol=0.02)
    a, b = _rising(s) - 0.5, _rising(t) - 0.5
    exact = t**b * s ** (a + 1) / (a + 1) * special.hyp2f1(-b, 1, a + 2, s / t)
    exact *= np.sqrt(2 * _rising(s) * 2 * _rising(t))
    np.testing.assert_allclose(law.covariance(s, t), exact, rtol=0.03)
    np.testing.assert_allclose(law.covariance(t, s), law.covariance(s, t), rtol=1e-14)
    assert 0.005 < law.error < 0.02
    # The table against the weights themselves, between its knots.
    np.testing.assert_allclose(law.at(0.3217)[0], MarkovLaw(_rising(0.3217)).weights, atol=1e-4)


def test_a_solve_with_an_index_that_changes():
    """dX = dB gives B itself, the weights of the time on the memory; an index that does not
    change gives what a number gives."""

    @partial(jax.jit, static_argnums=(1, 2))
    def solved(key, kind, steps):
        path = MarkovFractional(key, _rising, (), 1.0, 2.0, kind=kind, steps=steps)
        y0 = (jnp.zeros(()), path.initial())
        f, g, z0, motion = path.augmented(lambda t, y, a: 0.0 * y, lambda t, y, a: 1.0, y0[0])
        sol = solve_sde(f, g, z0, (1.0, 2.0), motion, method=EulerMaruyama(), dt=1 / steps)
        x, memory = sol.ys[0][-1], sol.ys[1][-1]
        return x, path.law.at(1.0)[0] @ (memory - path.initial())

    for kind in (1, 2):
        gaps = [abs(np.subtract(*solved(KEYS[0], kind, n))) for n in (250, 1000)]
        assert gaps[1] < 0.4 * gaps[0] < 0.02

    def end(index):
        path = MarkovFractional(KEYS[1], index, steps=64)
        return solve_sde(
            lambda t, y, a: -y, lambda t, y, a: y, jnp.ones(()), (0.0, 1.0), path, method=Heun(),
            dt=1 / 64,
        ).ys[-1]  # fmt: skip

    steady = jax.jit(lambda h: end(lambda t: h))
    np.testing.assert_allclose(steady(0.7), jax.jit(end)(0.7), rtol=1e-12)
    slope = (steady(0.7 + 1e-5) - steady(0.7 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.jit(jax.grad(steady))(0.7), slope, rtol=1e-6)


def test_an_index_that_changes_is_refused_where_it_is_wrong():
    with pytest.raises(
        InputError, match=r"between 0 and 1 at all times; hurst\(t\) is 1 at t = 0.5"
    ):
        MovingLaw(lambda t: 2 * t + 1e-9, 1.0, knots=2)
    with pytest.raises(InputError, match="must be one number"):
        MarkovFractional(KEYS[0], lambda t: jnp.stack([t, t]))
    with pytest.raises(InputError, match="depends on the Hurst index"):
        MarkovFractional(KEYS[0], _rising, rates="spread")
    with pytest.raises(InputError, match="knots must be a positive integer; got 0"):
        MovingLaw(_rising, knots=0)


def test_diagonal_noise_in_the_extended_state():
    path = MarkovFractional(jax.random.key(1), 0.7, (3,))
    y0 = jnp.arange(1.0, 4.0)
    sol = solve_sde(
        lambda t, y, a: -y, lambda t, y, a: 0.1 * y, y0, (0.0, 1.0), path, method=Heun(), dt=1 / 32
    )
    assert sol.ys.shape == (1, 3) and len(np.unique(np.asarray(sol.ys[0]) / y0)) == 3
    assert isinstance(path.motion, BrownianMotion)


def test_refused():
    key = jax.random.key(0)
    for hurst in (0.0, 1.0, -0.2, np.nan):
        with pytest.raises(InputError, match="between 0 and 1"):
            FractionalBrownianMotion(key, hurst)
        with pytest.raises(InputError, match="between 0 and 1"):
            MarkovFractional(key, hurst)
    with pytest.raises(InputError, match="steps must be a positive integer; got 0"):
        FractionalBrownianMotion(key, 0.3, steps=0)
    with pytest.raises(InputError, match="outside its span"):
        FractionalBrownianMotion(key, 0.3)(1.5)
    with pytest.raises(InputError, match="kind must be 1"):
        MarkovFractional(key, 0.3, kind=3)  # pyright: ignore
    with pytest.raises(InputError, match="terms must be a positive integer; got 0"):
        MarkovFractional(key, 0.3, terms=0)
    with pytest.raises(InputError, match="largest must be above 1"):
        MarkovFractional(key, 0.3, largest=0.5)
    one = jnp.array(1.0)
    shake = lambda t, y, a: y
    with pytest.raises(InputError, match="make the FractionalBrownianMotion with steps="):
        solve_sde(shake, shake, one, (0.0, 1.0), FractionalBrownianMotion(key, 0.7), dt=0.1)
    with pytest.raises(InputError, match="Stratonovich sense"):
        solve_sde(shake, shake, one, (0.0, 1.0), MarkovFractional(key, 0.7), dt=0.1)
