"""Implicit Runge-Kutta methods: order, stability, published solutions, derivatives, failures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow.flows.dae import solve_dae
from rootflow.flows.methods import ImplicitEuler, Kvaerno3, Kvaerno5

from .common import flat
from .stiff_cases import (
    RATES,
    ROBERTSON_AT_40,
    ROBERTSON_START,
    VAN_DER_POL_AT_2,
    check_derivatives,
    check_second_derivative,
    observed_orders,
    robertson,
    robertson_dae,
    van_der_pol_scaled,
)

METHODS = [ImplicitEuler(), Kvaerno3(), Kvaerno5()]
IDS = ["ImplicitEuler", "Kvaerno3", "Kvaerno5"]


@pytest.mark.parametrize("method, dense", list(zip(METHODS, (1, 3, 5))), ids=IDS)
def test_order(method, dense):
    counts = (32, 64, 128) if method.order == 1 else (8, 16, 32)
    end, between = observed_orders(method, counts=counts)
    np.testing.assert_allclose(end, method.order, atol=0.35)
    assert (between > dense - 0.3).all(), between


@pytest.mark.parametrize("method", METHODS, ids=IDS)
def test_stability_function_vanishes_at_infinity(method):
    def grown(rate):
        return rf.solve_ode(
            lambda t, y, a: -a * y, 1.0, (0.0, 1.0), rate, method=method, dt=1.0
        ).ys[-1]

    values = np.abs([grown(jnp.array(rate)) for rate in (1e5, 1e7)])
    assert (values < 1e-3).all() and values[1] < 0.05 * values[0] + 1e-9


@pytest.mark.parametrize("method", METHODS, ids=IDS)
def test_backward_euler_and_its_relatives_solve_linear_equations_in_closed_form(method):
    """One step for y' = -3 y is the stability function: the tableau by another route."""
    z = -0.6
    f, given, y = flat(lambda t, y, a: -3.0 * y, np.array(1.0), rtol=1e-13, atol=1e-13)
    step = method.step(f, jnp.array(0.0), y, jnp.array(0.2), given, method.init(f, 0.0, y, given))
    matrix = method.matrix + method.gamma * np.diag([0.0, *np.ones(len(method.nodes) - 1)])
    stages = np.linalg.solve(np.eye(len(matrix)) - z * matrix, np.ones(len(matrix)))
    np.testing.assert_allclose(step.y[0], stages[-1], rtol=1e-12)


@pytest.mark.parametrize("method", METHODS[1:], ids=IDS[1:])
def test_robertson_as_ode_and_as_dae(method):
    span, scale = (0.0, 40.0), 1e-9 + 1e-6 * ROBERTSON_AT_40
    ode = rf.solve_ode(robertson, ROBERTSON_START, span, RATES, method=method)
    dae = solve_dae(
        robertson_dae, ROBERTSON_START, span, RATES, mass=jnp.array([1.0, 1.0, 0.0]), method=method
    )
    for sol in (ode, dae):
        assert (np.abs(sol.ys[-1] - ROBERTSON_AT_40) < 10 * scale).all()
    np.testing.assert_allclose(np.sum(dae.ys[-1]), 1.0, atol=1e-9)


def test_dense_output_of_a_dae():
    def f(t, y, a):
        return jnp.stack([y[0] * jnp.cos(t), y[1] - y[0] ** 2])

    sol = solve_dae(
        f, jnp.array([1.0, 1.0]), (0.0, 1.5), mass=jnp.array([1.0, 0.0]), method=Kvaerno5(),
        saveat="dense",
    )  # fmt: skip
    ts = np.linspace(0.0, 1.5, 101)
    u = np.exp(np.sin(ts))
    np.testing.assert_allclose(sol(ts), np.stack([u, u**2], axis=1), rtol=2e-3)
    np.testing.assert_allclose(sol(1.5), [u[-1], u[-1] ** 2], rtol=1e-5)


def test_very_stiff_van_der_pol():
    sol = rf.solve_ode(
        van_der_pol_scaled, jnp.array([2.0, 0.0]), (0.0, 2.0), 1e-6, method=Kvaerno5(), rtol=1e-7,
        atol=1e-7,
    )  # fmt: skip
    np.testing.assert_allclose(sol.ys[-1], VAN_DER_POL_AT_2, rtol=2e-5)


@pytest.mark.parametrize("method", METHODS, ids=IDS)
def test_derivatives(method):
    value, at = check_derivatives(method, dt=0.03, rtol=1e-10, atol=1e-12)
    if isinstance(method, Kvaerno3):
        check_second_derivative(value, at)


def test_members_of_a_batch_with_different_stiffness():
    def final(epsilon):
        return rf.solve_ode(
            van_der_pol_scaled, jnp.array([2.0, 0.0]), (0.0, 1.0), epsilon, method=Kvaerno3()
        ).ys[-1]

    epsilons = jnp.array([1.0, 1e-2, 1e-5])
    batch = jax.jit(jax.vmap(final))(epsilons)
    for i, epsilon in enumerate(epsilons):
        np.testing.assert_allclose(batch[i], final(epsilon), rtol=1e-6)


def test_a_stage_that_does_not_converge_is_an_error_that_is_not_finite():
    f, given, y = flat(lambda t, y, a: jnp.exp(50 * y), np.array(1.0))
    slope = Kvaerno5().init(f, 0.0, y, given)
    step = Kvaerno5().step(f, jnp.array(0.0), y, jnp.array(10.0), given, slope)
    assert not np.isfinite(step.error).any() and not np.isfinite(step.y).any()
    # A smaller step is tried instead: dy/dt = y**3 from 1 is (1 - 2 t)**-0.5.
    sol = rf.solve_ode(lambda t, y, a: y**3, 1.0, (0.0, 0.49), method=Kvaerno5(), dt0=0.4)
    np.testing.assert_allclose(sol.ys[-1], 0.02**-0.5, rtol=1e-3)
    assert sol.stats.rejected > 0


def _idle(method, f, y, given):
    t = jnp.array(1.0)
    return method.step(f, t, y, jnp.array(0.0), given, method.init(f, t, y, given)).y


def test_a_step_of_size_zero_changes_nothing_and_has_the_derivative_of_that():
    f, given, y = flat(robertson, ROBERTSON_START, RATES)
    for method in METHODS[:2]:
        jacobian = jax.jacrev(lambda y, m=method: _idle(m, f, y, given))(y)
        np.testing.assert_array_equal(jacobian, np.eye(3))


def test_single_precision():
    y0 = ROBERTSON_START.astype(jnp.float32)
    sol = rf.solve_ode(robertson, y0, (0.0, 40.0), RATES.astype(jnp.float32), method=Kvaerno5())
    assert sol.ys.dtype == jnp.float32
    np.testing.assert_allclose(sol.ys[-1], ROBERTSON_AT_40, rtol=2e-3, atol=1e-6)
