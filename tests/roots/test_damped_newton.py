"""Damped Newton steps within bounds: the step itself, beside a bounded quadratic programme."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import lsq_linear

from rootflow.roots.solvers import damped_newton as dn


def searched(objective, x, lower, upper, steps, **options):
    aux, free = (), np.ones((1, len(x)), bool)
    states = dn.init(np.array([x], float), aux)
    advance = jax.jit(
        lambda states, n: dn.advance(
            objective, states, np.asarray(lower, float), np.asarray(upper, float), free, steps=n,
            tolerance=1e-14, max_iterations=100, **options,
        )
    )  # fmt: skip
    return advance(states, jnp.int32(steps + 1))


@pytest.mark.parametrize("seed", range(5))
def test_one_step_on_a_quadratic_ends_at_its_minimum_in_the_box(seed):
    """Cut at the bounds only at its end, the step would leave the others where they do not belong.

    Undamped to 1e-3 of the diagonal, so to three digits.
    """
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(6, 4)) + rng.normal(size=(6, 1))  # columns that are alike
    b = 3 * rng.normal(size=6)
    lower, upper = np.full(4, -0.3), np.full(4, 0.4)
    exact = lsq_linear(a, b, (lower, upper), tol=1e-14).x
    assert np.any((exact <= lower + 1e-9) | (exact >= upper - 1e-9))

    def objective(x):
        r = a @ x - b
        return dn.Local(0.5 * r @ r, a.T @ r, jnp.asarray(a.T @ a))

    value = lambda x: 0.5 * np.sum((a @ x - b) ** 2)
    free = np.linalg.lstsq(a, b, rcond=None)[0]
    found = searched(objective, np.zeros(4), lower, upper, 1)
    inside = np.asarray(found.x[0])
    assert np.all(inside >= lower) and np.all(inside <= upper)
    cut = value(np.clip(free, lower, upper))
    assert value(inside) <= cut + 1e-3 * abs(cut)
    assert value(inside) - value(exact) <= 0.1 * (value(np.zeros(4)) - value(exact))
    end = searched(objective, np.zeros(4), lower, upper, 50)
    np.testing.assert_allclose(end.x[0], exact, atol=1e-6)
    assert end.status[0] == dn.CONVERGED


def test_no_variable_moves_further_than_its_reach():
    """The second hardly matters: an unbounded step would throw it onto its bound."""

    def objective(x):
        r = jnp.stack([x[0] - 3.0, 1e-4 * (x[1] - 1e6)])
        slope = jnp.diag(jnp.array([1.0, 1e-4]))
        return dn.Local(0.5 * r @ r, slope.T @ r, slope.T @ slope)

    start, low, high = [0.0, 0.0], [-10.0, -50.0], [10.0, 50.0]
    assert searched(objective, start, low, high, 1).x[0, 1] == 50.0
    moved = searched(objective, start, low, high, 1, reach=np.array([np.inf, 2.0]))
    np.testing.assert_allclose(moved.x[0], [3.0, 2.0], rtol=2e-3)
    moved = searched(objective, start, low, high, 4, reach=2.0)
    np.testing.assert_allclose(moved.x[0], [3.0, 8.0], rtol=2e-3)
