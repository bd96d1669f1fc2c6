"""A previous solution as a guess: fewer steps to the same solution and the same derivatives."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf

N, DT = 8, 0.3
MOVE, PUSH = jnp.array([[1.0, DT], [0.0, 1.0]]), jnp.array([DT**2 / 2, DT])


def drive(u, state):
    def move(state, force):
        state = MOVE @ state + PUSH * force
        return state, state

    return jax.lax.scan(move, state, u)[1]


def cost(u, state):
    place, speed = drive(u, state).T
    return 5 * jnp.sum(place**2) + jnp.sum(speed**2) + 0.1 * jnp.sum(u**2)


def limits(u, state):
    speed = drive(u, state)[:, 1]
    return {"force": (u - 1, -u - 1), "speed": (speed - 0.8, -speed - 0.8)}


def bent(u, state):
    """As `limits`, but curved: the effort of the first half is limited, and the speed squared."""
    half = jnp.sum(u[: N // 2] ** 2)
    return half - 2.0, drive(u, state)[:, 1] ** 2 - 0.64


def plan(start, state, inequality=limits):
    return rf.argmin(cost, start, state, inequality=inequality, full=True)


COLD = jnp.zeros(N)
WAYS = (limits, bent)


@pytest.mark.parametrize("inequality", WAYS, ids=["quadratic", "nonlinear"])
def test_a_sequence_of_programmes(inequality):
    """Model predictive control of a cart, in less steps than from scratch."""

    @jax.jit
    def control(state):
        def each(carry, _):
            state, previous = carry
            now = plan(previous, state, inequality)
            state = MOVE @ state + PUSH * now.value[0]
            return (state, now), (carry[0], now)

        return jax.lax.scan(each, (state, plan(COLD, state, inequality)), length=12)[1]

    states, warm = control(jnp.array([2.0, 0.0]))
    cold = jax.jit(jax.vmap(lambda state: plan(COLD, state, inequality)))(states)
    assert warm.converged.all() and cold.converged.all()
    np.testing.assert_allclose(warm.value, cold.value, atol=1e-6)
    for have, want in zip(*map(jax.tree.leaves, (warm.dual, cold.dual)), strict=True):
        np.testing.assert_allclose(have, want, atol=1e-5)
    share = 0.5 if inequality is limits else 0.8
    assert float(jnp.mean(warm.steps)) < share * float(jnp.mean(cold.steps))


def test_derivatives_are_those_of_the_solution():
    first = jax.jit(lambda s: plan(COLD, s))(jnp.array([2.0, 0.0]))
    now = jnp.array([1.9, -0.3])
    both = lambda start: jax.jit(jax.jacrev(lambda s: plan(start, s).value))(now)
    warm, cold = both(first), both(COLD)
    np.testing.assert_allclose(warm, cold, atol=1e-6)
    assert np.abs(cold).max() > 0.1
    # None comes from the start.
    through = jax.jit(jax.jacrev(lambda s: plan(plan(COLD, s), now).value))
    np.testing.assert_array_equal(through(jnp.array([2.0, 0.0])), np.zeros((N, 2)))


def test_far_from_the_previous_programme_and_in_batches():
    """Where the active-set method gives up the interior-point method answers, member by member."""

    def programme(start, c, h):
        return rf.argmin(
            lambda z, c: 0.5 * z @ z + c @ z, start, c, full=True,
            equality=lambda z, c: jnp.sum(z) - 1, inequality=lambda z, c: (z - h, -z),
        )  # fmt: skip

    rng = np.random.default_rng(0)
    cs = jnp.asarray(10 * rng.normal(size=(6, 40)))
    one = jax.jit(lambda c, h: programme(jnp.zeros(40), c, h))(cs[0], 0.05)
    warm = jax.jit(jax.vmap(programme, (None, 0, 0)))(one, cs, jnp.linspace(0.03, 1.0, 6))
    assert warm.converged.all()
    # Closed form: a box cut by one equation.
    for value, c, h in zip(warm.value, cs, np.linspace(0.03, 1.0, 6), strict=True):
        expected = rf.sets.BoxSection(0.0, h, 1.0, 1.0).project(-c)
        np.testing.assert_allclose(value, expected, atol=1e-6)


def test_a_linear_programme_and_one_that_moved_to_another_minimum():
    corner = lambda start, c: rf.argmin(
        lambda x, c: c @ x, start, c, inequality=lambda x, c: (x - 1, -x), full=True
    )
    first = corner(jnp.full(3, 0.5), jnp.array([1.0, -1.0, 2.0]))
    found = corner(first, jnp.array([1.5, 1.0, 2.0]))
    assert bool(found.converged)
    np.testing.assert_allclose(found.value, np.zeros(3), atol=1e-8)

    # What was a minimum has become a maximum, at which the conditions of first order still hold.
    valley = lambda start, a: rf.argmin(
        lambda x, a: a * x**2 + x**4, start, a, inequality=lambda x, a: x - 2.0, full=True
    )
    top = valley(jnp.asarray(0.1), 1.0)
    found = valley(top, -1.0)
    assert not (bool(found.converged) and abs(float(found.value)) < 0.5)


def test_other_methods_take_the_value():
    previous = rf.argmin(
        lambda w, t: jnp.sum((w - t) ** 2), jnp.zeros(3), 1.0, full=True,
        prox=lambda w, t, step: rf.prox.soft_threshold(w, 0.1 * step),
    )  # fmt: skip
    again = rf.argmin(
        lambda w, t: jnp.sum((w - t) ** 2), previous, 1.1, full=True,
        prox=lambda w, t, step: rf.prox.soft_threshold(w, 0.1 * step),
    )  # fmt: skip
    np.testing.assert_allclose(again.value, np.full(3, 1.05), atol=1e-8)
    assert int(again.steps) <= int(previous.steps)


def test_multipliers_of_another_problem_are_refused():
    first: Any = rf.argmin(lambda x: x @ x, jnp.ones(2), inequality=lambda x: 1 - x, full=True)
    with pytest.raises(rf.InputError, match=r"multipliers of inequality have the shapes \(2,\)"):
        rf.argmin(lambda x: x @ x, first, inequality=lambda x: 1 - jnp.sum(x))
    with pytest.raises(rf.InputError, match="multipliers of equality"):
        rf.argmin(
            lambda x: x @ x, first, inequality=lambda x: 1 - x, equality=lambda x: x[0] - x[1]
        )
    found = rf.argmin(lambda x: x @ x, first.value, inequality=lambda x: 1 - jnp.sum(x))
    np.testing.assert_allclose(found, [0.5, 0.5], atol=1e-7)
