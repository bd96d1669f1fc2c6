"""BDF: the order of each formula, its control, published solutions, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

import rootflow as rf
from rootflow.errors import InputError
from rootflow.flows.dae import solve_dae
from rootflow.flows.methods import BDF
from rootflow.flows.methods.bdf import _History, _rescale

from .common import flat
from .stiff_cases import (
    RATES,
    ROBERTSON_AT_40,
    ROBERTSON_START,
    VAN_DER_POL_AT_2,
    check_derivatives,
    check_second_derivative,
    driven,
    driven_solution,
    robertson,
    robertson_dae,
    van_der_pol_scaled,
)


def history(t, h, order, solution=driven_solution):
    """The lifted state of an exact past."""
    values = solution(t - h * np.arange(8))
    differences = [values[0]]
    for _ in range(7):
        values = values[:-1] - values[1:]
        differences.append(values[0])
    state = _History(jnp.asarray(np.stack(differences)), *map(jnp.asarray, (float(order), h, 3.0)))
    return state.pack()


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_local_error_of_each_formula(order):
    """One step from an exact past has an error of order k + 1, and the estimate is that error."""
    f, given, _ = flat(driven, np.ones(2), rtol=1e-13, atol=1e-13)
    method, errors, estimates = BDF(), [], []
    step = jax.jit(lambda z, h: method.step(f, jnp.array(0.5), z, h, given, None))
    for h in (0.04, 0.02, 0.01):
        done = step(history(0.5, h, order), jnp.array(h))
        errors.append(method.project(done.y) - driven_solution(0.5 + h))
        estimates.append(done.error)
        # The interpolant goes from one state to the other.
        change = np.sum(method.coefficients(jnp.array(h), done.y, done), axis=0)
        np.testing.assert_allclose(
            driven_solution(0.5) + change, method.project(done.y), rtol=1e-12
        )
    sizes = np.linalg.norm(errors, axis=1)
    np.testing.assert_allclose(np.log2(sizes[:-1] / sizes[1:]), order + 1, atol=0.45)
    assert 0.3 < np.linalg.norm(estimates[-1]) / sizes[-1] < 10


def test_change_of_step_is_exact_for_polynomials():
    """Differences of a cubic for the step h become those for the step 0.7 h."""

    def cubic(t):
        return np.stack([1 + t - 2 * t**2 + t**3, t**3], axis=-1)

    past = history(1.0, 0.1, 3, cubic)
    z = np.asarray(past[:-3]).reshape(8, 2)
    state = _History(jnp.asarray(z), jnp.array(3.0), jnp.array(0.1), jnp.array(0.0))
    within = jnp.arange(6) <= 3
    new = _rescale(state, jnp.array(0.7), within)
    expected = np.asarray(history(1.0, 0.07, 3, cubic)[:-3]).reshape(8, 2)
    np.testing.assert_allclose(new[:4], expected[:4], atol=1e-12)
    np.testing.assert_array_equal(_rescale(state, jnp.array(1.0), within), z)


def test_robertson_takes_about_the_steps_of_scipy():
    span, scale = (0.0, 40.0), 1e-9 + 1e-6 * ROBERTSON_AT_40
    sol = rf.solve_ode(robertson, ROBERTSON_START, span, RATES, method=BDF())
    dae = solve_dae(
        robertson_dae, ROBERTSON_START, span, RATES, mass=jnp.array([1.0, 1.0, 0.0]), method=BDF()
    )
    f = jax.jit(robertson)
    peer = scipy.integrate.solve_ivp(
        lambda t, y: np.asarray(f(t, y, RATES)), span, np.array([1.0, 0, 0]), method="BDF",
        rtol=1e-6, atol=1e-9,
    )  # fmt: skip
    assert 0.8 < sol.stats.steps / (len(peer.t) - 1) < 1.2
    for ours in (sol, dae):
        assert (np.abs(ours.ys[-1] - ROBERTSON_AT_40) < 10 * scale).all()
    np.testing.assert_allclose(np.sum(dae.ys[-1]), 1.0, atol=1e-9)


def test_very_stiff_van_der_pol():
    sol = rf.solve_ode(
        van_der_pol_scaled, jnp.array([2.0, 0.0]), (0.0, 2.0), 1e-6, method=BDF(), rtol=1e-7,
        atol=1e-7,
    )  # fmt: skip
    np.testing.assert_allclose(sol.ys[-1], VAN_DER_POL_AT_2, rtol=2e-4)


def test_saved_times_follow_the_solution():
    ts = np.linspace(0.0, 1.5, 50)
    sol = rf.solve_ode(
        driven, jnp.ones(2), (0.0, 1.5), saveat=ts, method=BDF(), rtol=1e-8, atol=1e-8
    )
    np.testing.assert_allclose(sol.ys, driven_solution(ts), atol=2e-6)


def test_largest_order():
    steps = [
        int(
            rf.solve_ode(
                driven, jnp.ones(2), (0.0, 1.5), method=BDF(max_order=k), rtol=1e-7, atol=1e-7
            ).stats.steps
        )
        for k in (2, 5)
    ]
    assert steps[0] > 1.5 * steps[1]
    with pytest.raises(InputError, match="max_order must be a number from 1 to 5; got 6"):
        BDF(max_order=6)


@pytest.mark.slow
def test_derivatives():
    value, at = check_derivatives(BDF(), dt=0.03, rtol=1e-10, atol=1e-12)
    check_second_derivative(value, at)


def test_adaptive_derivative():
    def value(rates):
        return rf.solve_ode(
            robertson, ROBERTSON_START, (0.0, 40.0), rates, method=BDF(), rtol=1e-8, atol=1e-11
        ).ys[-1, 0]

    forward = jax.jit(jax.jacfwd(value))(RATES)
    backward = jax.jit(jax.grad(value))(RATES)
    np.testing.assert_allclose(forward, backward, rtol=1e-8)
    # Central differences of SciPy's Radau at a tolerance of 1e-13.
    np.testing.assert_allclose(backward[0], -4.247559, rtol=1e-5)


def test_members_of_a_batch_with_their_own_order():
    def final(epsilon):
        return rf.solve_ode(
            van_der_pol_scaled, jnp.array([2.0, 0.0]), (0.0, 1.0), epsilon, method=BDF()
        ).ys[-1]

    epsilons = jnp.array([1.0, 1e-2, 1e-5])
    batch = jax.jit(jax.vmap(final))(epsilons)
    for i, epsilon in enumerate(epsilons):
        np.testing.assert_allclose(batch[i], final(epsilon), rtol=1e-6)


def test_single_precision_and_reversed_span():
    y0 = jnp.ones(2, jnp.float32)
    sol = rf.solve_ode(driven, y0, (0.0, 1.0), method=BDF())
    assert sol.ys.dtype == jnp.float32
    np.testing.assert_allclose(sol.ys[-1], driven_solution(1.0), rtol=2e-3)
    back = rf.solve_ode(driven, driven_solution(0.3), (0.3, 0.0), method=BDF())
    np.testing.assert_allclose(back.ys[-1], [1.0, 1.0], atol=1e-4)
