"""`method="auto"`: stiff where it must be, explicit where it can be; derivatives; batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf

# Hairer & Wanner's test set, at t = 40.
RATES = jnp.array([0.04, 3e7, 1e4])
ROBERTSON_40 = [0.7158270688, 9.185534764e-6, 0.2841637457]


def robertson(t, y, k):
    slow, pair, fast = k[0] * y[0], k[2] * y[1] * y[2], k[1] * y[1] ** 2
    return jnp.stack([pair - slow, slow - pair - fast, fast])


def relaxation(t, y, rate):
    return -rate * (y - jnp.cos(t)) - jnp.sin(t)


ONE = jnp.array([1.0, 0.0, 0.0])


@pytest.mark.parametrize(("rtol", "atol"), [(1e-6, 1e-9), (1e-8, 1e-12)])
def test_robertson(rtol, atol):
    sol = rf.solve_ode(robertson, ONE, (0.0, 40.0), RATES, method="auto", rtol=rtol, atol=atol)
    np.testing.assert_allclose(sol.ys[-1], ROBERTSON_40, rtol=30 * rtol)
    # An explicit method alone would need tens of thousands of steps.
    assert int(sol.stats.steps) < 300 and 0 < int(sol.stats.jacobians) < int(sol.stats.steps)


def test_what_is_not_stiff_stays_explicit():
    oscillator = lambda t, y, a: jnp.stack([y[1], -y[0]])
    options = dict(rtol=1e-6, atol=1e-6)
    auto = rf.solve_ode(oscillator, ONE[:2], (0.0, 20.0), method="auto", **options)
    plain = rf.solve_ode(oscillator, ONE[:2], (0.0, 20.0), **options)
    assert int(auto.stats.jacobians) <= 8
    np.testing.assert_allclose(auto.ys, plain.ys, atol=1e-5)


def test_members_of_a_batch_switch_by_themselves():
    def solve(rate):
        return rf.solve_ode(relaxation, 2.0, (0.0, 3.0), rate, method="auto", max_steps=1024)

    rates = jnp.array([1.0, 1e4])
    batch = jax.vmap(solve)(rates)
    np.testing.assert_allclose(batch.ys[:, -1], np.cos(3.0) + np.exp(-3 * rates), atol=1e-5)
    assert int(batch.stats.jacobians[0]) == 0 and int(batch.stats.jacobians[1]) > 0


def test_derivatives_through_both_phases():
    def final(rate, t1, ts=None):
        sol = rf.solve_ode(
            relaxation, 2.0, (0.0, t1), rate, method="auto", rtol=1e-9, atol=1e-9, saveat=ts,
            max_steps=2048,
        )  # fmt: skip
        return sol.ys.sum()

    rate = 400.0
    gradient = jax.grad(final, (0, 1))(rate, 1.0)
    forward = jax.jacfwd(final, (0, 1))(rate, 1.0)
    np.testing.assert_allclose(gradient[1], -np.sin(1.0), rtol=1e-6)
    np.testing.assert_allclose(gradient, forward, rtol=1e-8, atol=1e-13)
    # Early, y = cos t + exp(-rate t): the derivative is -t exp(-rate t).
    ts = jnp.array([0.004, 0.01, 0.9])
    exact = float(jnp.sum(-ts * jnp.exp(-rate * ts)))
    np.testing.assert_allclose(jax.grad(final)(rate, 1.0, ts), exact, rtol=1e-5)


def test_dense_output_across_the_switch():
    ts = jnp.linspace(0.0, 2.0, 401)
    sol = rf.solve_ode(
        relaxation, 2.0, (0.0, 2.0), 300.0, method="auto", saveat="dense", rtol=1e-8, atol=1e-8
    )
    np.testing.assert_allclose(sol(ts), jnp.cos(ts) + jnp.exp(-300 * ts), atol=2e-6)
    assert int(sol.stats.jacobians) > 0


def test_an_explicit_solve_that_fails_for_stiffness_says_so():
    with pytest.raises(rf.SolveError, match=r"eigenvalues of about .*e\+0.*rf.Rodas5P\(\)"):
        rf.solve_ode(robertson, ONE, (0.0, 1e3), RATES)


def test_pairs_of_other_methods():
    pair = rf.AutoSwitch(rf.Dopri5(), rf.Rosenbrock23())
    sol = rf.solve_ode(relaxation, 2.0, (0.0, 3.0), 1e4, method=pair)
    np.testing.assert_allclose(sol.ys[-1], np.cos(3.0), atol=1e-5)
