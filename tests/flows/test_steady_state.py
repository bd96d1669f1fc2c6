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


def exchange(t, y, k):
    """A <=> B in volumes of ratio k[2], which conserves k[2] A + B."""
    rate = k[0] * y[0] - k[1] * y[1]
    return jnp.stack([-rate, k[2] * rate])


def exchanged(y0, k):
    b = k[0] / k[1]
    return (k[2] * y0[0] + y0[1]) / (k[2] + b) * jnp.stack([jnp.ones(()), b])


def test_what_the_flow_conserves_keeps_its_value():
    y0, k = jnp.array([3.0, 0.0]), jnp.array([1.0, 2.0, 1.0])
    both = lambda y0, k: rf.steady_state(exchange, y0, k)
    np.testing.assert_allclose(both(y0, k), [2.0, 1.0], rtol=1e-8)
    by_start = [[2 / 3, 2 / 3], [1 / 3, 1 / 3]]
    np.testing.assert_allclose(jax.jit(jax.jacfwd(both))(y0, k), by_start, rtol=1e-8)
    k = jnp.array([1.0, 2.0, 3.0])
    for mode in (jax.jacfwd, jax.jacrev):
        found, expected = (jax.jit(mode(f, argnums=(0, 1)))(y0, k) for f in (both, exchanged))
        np.testing.assert_allclose(found[0], expected[0], atol=1e-8)
        np.testing.assert_allclose(found[1], expected[1], atol=1e-8)


def test_the_end_of_a_long_solve_has_the_same_derivative():
    y0, k = jnp.array([3.0, 0.0]), jnp.array([1.0, 2.0, 3.0])
    end = lambda y0, k: rf.solve_ode(
        exchange, y0, (0.0, 20.0), k, adjoint=rf.ImplicitAdjoint(), rtol=1e-9, atol=1e-12
    ).ys[-1]
    found = jax.jit(jax.jacrev(end, argnums=(0, 1)))(y0, k)
    expected = jax.jacrev(exchanged, argnums=(0, 1))(y0, k)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-6)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-6)


def test_an_enzyme_keeps_its_total():
    """E + S <=> C -> E + P: all substrate ends as product."""

    def reaction(t, y, k):
        binding, turnover = k[0] * y[0] * y[1] - k[1] * y[2], k[2] * y[2]
        return jnp.stack([turnover - binding, -binding, binding - turnover, turnover])

    start, k = jnp.array([1.0, 2.0, 0.0, 0.0]), jnp.array([1.0, 0.5, 0.3])
    np.testing.assert_allclose(rf.steady_state(reaction, start, k), [1, 0, 0, 2], atol=1e-8)


def test_laws_that_are_not_linear_are_not_guessed():
    """An epidemic ends without infected, with how many susceptible the flow alone knows."""
    epidemic = lambda t, y, a: jnp.stack([-2 * y[0] * y[1], 2 * y[0] * y[1] - y[1], y[1]])
    start = jnp.array([0.9, 0.1, 0.0])
    found = rf.steady_state(epidemic, start, throw=False, full=True)
    assert not found.converged
    with pytest.raises(rf.SolveError):
        rf.steady_state(epidemic, start)
    # A root of higher order is alone, and found.
    cubic = rf.steady_state(lambda t, y, a: -(y**3), 1.0)
    np.testing.assert_allclose(cubic, 0.0, atol=1e-9)
