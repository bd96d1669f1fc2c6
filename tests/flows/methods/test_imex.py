"""KenCarp4: order with both parts, a stiff reaction with transport, derivatives, what it needs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow.errors import InputError
from rootflow.flows.fields import Split
from rootflow.flows.methods import KenCarp4

from .stiff_cases import observed_orders

DRIVEN = Split(
    lambda t, y, args: jnp.stack([y[0] * jnp.cos(t), 2 * y[0] * jnp.cos(t) - jnp.sin(t)]),
    lambda t, y, args: jnp.stack([jnp.zeros_like(t), -2 * y[0] * y[1]]),
)


def test_order():
    end, between = observed_orders(KenCarp4(), DRIVEN, (10, 20, 40, 80))
    np.testing.assert_allclose(np.mean(end), 4.0, atol=0.4)
    assert np.mean(between) > 2.7


def test_tableau_satisfies_the_row_sums():
    method = KenCarp4()
    implicit = method.implicit + method.gamma * np.diag([0, 1, 1, 1, 1, 1])
    for matrix in (method.explicit, implicit):
        np.testing.assert_allclose(matrix.sum(axis=1), method.nodes, atol=1e-14)
    # The interpolant ends at the solution, and its slope at the start is that of the field.
    np.testing.assert_allclose(method.interpolation.sum(axis=0), method.weights, atol=1e-12)
    np.testing.assert_allclose(method.interpolation.sum(axis=1), [1, 0, 0], atol=1e-12)


def test_stiff_part_does_not_limit_the_step():
    """y' = cos t - rate (y - sin t): the solution is sin t whatever the rate is."""
    f = Split(lambda t, y, rate: jnp.cos(t) + 0 * y, lambda t, y, rate: -rate * (y - jnp.sin(t)))
    sol = rf.solve_ode(f, 0.0, (0.0, 3.0), 1e5, method=KenCarp4(), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(sol.ys[-1], np.sin(3.0), atol=1e-4)
    assert sol.stats.steps < 500  # an explicit method needs 1e5


def test_derivatives_in_both_modes_and_of_second_order():
    def value(rate):
        return rf.solve_ode(
            Split(lambda t, y, k: jnp.sin(t) * y**2 * k, lambda t, y, k: -k * y), 1.0, (0.0, 1.0),
            rate, method=KenCarp4(), dt=0.05, rtol=1e-11, atol=1e-12,
        ).ys[-1]  # fmt: skip

    at, e = jnp.array(5.0), 1e-4
    value = jax.jit(value)
    forward, backward = jax.jit(jax.jacfwd(value))(at), jax.jit(jax.grad(value))(at)
    np.testing.assert_allclose(forward, backward, rtol=1e-10)
    np.testing.assert_allclose(forward, (value(at + e) - value(at - e)) / (2 * e), rtol=1e-6)
    gradient = jax.jit(jax.grad(value))
    second = jax.jit(jax.jacfwd(gradient))(at)
    numeric = (gradient(at + 1e-2) - gradient(at - 1e-2)) / 2e-2
    np.testing.assert_allclose(second, numeric, rtol=1e-4)


def test_other_fields_are_refused():
    with pytest.raises(InputError, match="KenCarp4 needs a field in two parts"):
        rf.solve_ode(lambda t, y, a: -y, 1.0, (0.0, 1.0), method=KenCarp4())
    with pytest.raises(InputError, match="leave it out"):
        rf.solve_ode(
            DRIVEN, jnp.ones(2), (0.0, 1.0), method=KenCarp4(), jac=lambda t, y, a: jnp.eye(2)
        )
    with pytest.raises(InputError, match="linear_solver"):
        KenCarp4(linear_solver="qr")
