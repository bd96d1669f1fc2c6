"""Rosenbrock methods: order, stability, stiff problems with published solutions, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow.flows.dae import solve_dae
from rootflow.flows.methods import Rodas5P, Rosenbrock23

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

METHODS = [Rosenbrock23(), Rodas5P()]
IDS = ["Rosenbrock23", "Rodas5P"]


@pytest.mark.parametrize("method, order, dense", [(METHODS[0], 2, 2), (METHODS[1], 5, 4)], ids=IDS)
def test_order(method, order, dense):
    end, between = observed_orders(method)
    np.testing.assert_allclose(end, order, atol=0.35)
    assert (between > dense - 0.3).all(), between


@pytest.mark.parametrize("method", METHODS, ids=IDS)
def test_stability_function_vanishes_at_infinity(method):
    def grown(rate):
        return rf.solve_ode(
            lambda t, y, a: -a * y, 1.0, (0.0, 1.0), rate, method=method, dt=1.0
        ).ys[-1]

    big = jnp.array([1e6, 1e8])
    values = np.abs([grown(rate) for rate in big])
    assert (values < 1e-4).all() and values[1] < 0.05 * values[0] + 1e-12


@pytest.mark.parametrize("method, limit", [(METHODS[0], 10), (METHODS[1], 10)], ids=IDS)
def test_robertson_as_ode_and_as_dae(method, limit):
    """Within 10 tolerances of the published solution, with a mass matrix full, diagonal, none."""
    span, scale = (0.0, 40.0), 1e-9 + 1e-6 * ROBERTSON_AT_40
    ode = rf.solve_ode(robertson, ROBERTSON_START, span, RATES, method=method)
    assert (np.abs(ode.ys[-1] - ROBERTSON_AT_40) < limit * scale).all()
    diagonal = jnp.array([1.0, 1.0, 0.0])
    # The first two equations, added and subtracted.
    mixed = jnp.array([[1.0, 1.0, 0.0], [1.0, -1.0, 0.0], [0.0, 0.0, 0.0]])

    def mixed_dae(t, y, rates):
        a, b, c = robertson_dae(t, y, rates)
        return jnp.stack([a + b, a - b, c])

    for f, mass in ((robertson_dae, diagonal), (mixed_dae, mixed)):
        dae = solve_dae(f, ROBERTSON_START, span, RATES, mass=mass, method=method)
        assert (np.abs(dae.ys[-1] - ROBERTSON_AT_40) < limit * scale).all()
        np.testing.assert_allclose(np.sum(dae.ys[-1]), 1.0, atol=1e-9)


def test_order_for_an_index_1_dae_that_depends_on_time():
    def f(t, y, a):  # u = exp(sin t), w = u**2
        u, w = y
        return jnp.stack([jnp.cos(t) * w / u, w - u**2])

    errors = []
    for n in (8, 16, 32):
        sol = solve_dae(
            f, jnp.array([1.0, 1.0]), (0.0, 1.5), mass=jnp.array([1.0, 0.0]), method=Rodas5P(),
            dt=1.5 / n,
        )  # fmt: skip
        exact = np.exp(np.sin(1.5)) ** np.array([1, 2])
        errors.append(np.linalg.norm(sol.ys[-1] - exact))
    assert (np.log2(np.divide(errors[:-1], errors[1:])) > 4.6).all(), errors


def test_very_stiff_van_der_pol():
    sol = rf.solve_ode(
        van_der_pol_scaled, jnp.array([2.0, 0.0]), (0.0, 2.0), 1e-6, method=Rodas5P(), rtol=1e-7,
        atol=1e-7,
    )  # fmt: skip
    np.testing.assert_allclose(sol.ys[-1], VAN_DER_POL_AT_2, rtol=2e-5)


@pytest.mark.parametrize("method", METHODS, ids=IDS)
def test_derivatives(method):
    value, at = check_derivatives(method, dt=0.03)
    if isinstance(method, Rodas5P):
        check_second_derivative(value, at)


def test_adaptive_derivative_of_the_dae_is_that_of_the_ode():
    def final(solve, f, **options):
        return jax.jit(
            jax.grad(
                lambda rates: solve(
                    f, ROBERTSON_START, (0.0, 40.0), rates, method=Rodas5P(), rtol=1e-8,
                    atol=1e-10, **options,
                ).ys[-1, 0]
            )
        )(RATES)  # fmt: skip

    ode = final(rf.solve_ode, robertson)
    dae = final(solve_dae, robertson_dae, mass=jnp.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(dae, ode, rtol=1e-5)


def test_members_of_a_batch_with_different_stiffness():
    def final(epsilon):
        return rf.solve_ode(
            van_der_pol_scaled, jnp.array([2.0, 0.0]), (0.0, 1.0), epsilon, method=Rodas5P()
        ).ys[-1]

    epsilons = jnp.array([1.0, 1e-2, 1e-5])
    batch = jax.jit(jax.vmap(final))(epsilons)
    for i, epsilon in enumerate(epsilons):
        np.testing.assert_allclose(batch[i], final(epsilon), rtol=1e-7)
    slopes = jax.jit(jax.vmap(jax.grad(lambda e: final(e)[0])))(epsilons)
    alone = jax.jit(jax.grad(lambda e: final(e)[0]))(epsilons[1])
    # Round-off changes which steps are taken: equal to the tolerance of the solve.
    np.testing.assert_allclose(slopes[1], alone, rtol=1e-5)


def test_single_precision():
    y0 = ROBERTSON_START.astype(jnp.float32)
    sol = rf.solve_ode(robertson, y0, (0.0, 40.0), RATES.astype(jnp.float32), method=Rodas5P())
    assert sol.ys.dtype == jnp.float32
    np.testing.assert_allclose(sol.ys[-1], ROBERTSON_AT_40, rtol=2e-3, atol=1e-6)


def test_reversed_span_returns():
    there = rf.solve_ode(
        van_der_pol_scaled, jnp.array([2.0, 0.0]), (0.0, 0.5), 1.0, method=Rodas5P()
    )
    back = rf.solve_ode(van_der_pol_scaled, there.ys[-1], (0.5, 0.0), 1.0, method=Rodas5P())
    np.testing.assert_allclose(back.ys[-1], [2.0, 0.0], atol=1e-5)
