"""Steady states: closed forms, their derivatives, and the end of a long solve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf


def predation(t, y, p):
    return {
        "hare": y["hare"] * (p[0] - p[1] * y["lynx"]),
        "lynx": y["lynx"] * (p[3] * y["hare"] - p[2]),
    }


P = jnp.array([0.54, 0.027, 0.8, 0.024])
NEAR = {"hare": jnp.array(30.0), "lynx": jnp.array(18.0)}


def test_coexistence_of_hares_and_lynx():
    found = rf.steady_state(predation, NEAR, P)
    np.testing.assert_allclose([found["hare"], found["lynx"]], [0.8 / 0.024, 20.0], rtol=1e-8)
    slope = jax.grad(lambda p: rf.steady_state(predation, NEAR, p)["hare"])(P)
    np.testing.assert_allclose(slope, [0, 0, 1 / 0.024, -0.8 / 0.024**2], rtol=1e-7, atol=1e-9)


def test_a_long_solve_ends_there():
    def growth(t, y, capacity):
        return y * (1 - y / capacity)

    end = rf.solve_ode(growth, jnp.array(0.1), (0.0, 60.0), 3.0, rtol=1e-9, atol=1e-9).ys[-1]
    np.testing.assert_allclose(rf.steady_state(growth, jnp.array(2.0), 3.0), end, rtol=1e-6)
    found = jax.vmap(lambda k: rf.steady_state(growth, k * 0.8, k))(jnp.array([1.0, 3.0]))
    np.testing.assert_allclose(found, [1.0, 3.0], rtol=1e-8)


def test_without_a_steady_state_it_is_said():
    with pytest.raises(rf.SolveError, match="converge"):
        rf.steady_state(lambda t, y, a: 1.0 + y**2, jnp.array(0.5), max_steps=30)


def test_the_heuristics_on_the_way_to_a_steady_state_have_no_derivative():
    def solve(target):
        return rf.solve_ode(
            lambda t, y, target: target - y, 0.0, (0.0, 40.0), target, adjoint=rf.ImplicitAdjoint()
        )

    def both(target):
        sol = solve(target)
        return sol.ys[-1], sol.heuristics.error

    slopes = jax.jvp(both, (2.0,), (1.0,))[1]  # where it is not asked for, it does no harm
    np.testing.assert_allclose(slopes[0], 1.0)
    assert np.isnan(slopes[1])
    np.testing.assert_allclose(jax.vmap(jax.grad(lambda a: both(a)[0]))(jnp.array([1.0, 2.0])), 1.0)
    with pytest.raises(Exception, match="a steady state does not depend on how it was reached"):
        jax.block_until_ready(jax.jit(jax.grad(lambda a: both(a)[1]))(2.0))
