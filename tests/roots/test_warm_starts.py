"""A previous solution as a guess: fewer steps to the same solution and the same derivatives."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow.roots.iterate import Solution, Tolerance
from rootflow.roots.solvers.active_set import resume
from rootflow.roots.solvers.interior_point import Constrained

# Model predictive control of a cart: places and speeds are linear in the forces u and the state.
N, DT = 8, 0.3
MOVE, PUSH = np.array([[1.0, DT], [0.0, 1.0]]), np.array([DT**2 / 2, DT])
FREE = np.stack([np.linalg.matrix_power(MOVE, k + 1) for k in range(N)])
FORCED = np.stack(
    [
        [np.linalg.matrix_power(MOVE, k - j) @ PUSH if j <= k else np.zeros(2) for j in range(N)]
        for k in range(N)
    ]
)
STATES = jnp.stack([2.0 - 0.1 * jnp.arange(12), -0.4 * jnp.sin(0.5 * jnp.arange(12))], axis=1)


def drive(u, state):
    return (jnp.einsum("kji,j->ki", FORCED, u) + FREE @ state).T


def cost(u, state):
    place, speed = drive(u, state)
    return 5 * jnp.sum(place**2) + jnp.sum(speed**2) + 0.1 * jnp.sum(u**2)


def limits(u, state):
    speed = drive(u, state)[1]
    return {"force": (u - 1, -u - 1), "speed": (speed - 0.8, -speed - 0.8)}


def bent(u, state):
    """Curved limits: of the effort in the first half, and of the speed squared."""
    return jnp.sum(u[: N // 2] ** 2) - 2.0, drive(u, state)[1] ** 2 - 0.64


def plan_and_slope(inequality, start, state):
    """The solution, and the derivatives of its value in the state and in the start."""

    def plan(state, scale):
        guess = start
        if isinstance(start, Solution):
            guess = eqx.tree_at(lambda s: s.value, start, scale * start.value)
        found = rf.argmin(cost, guess, state, inequality=inequality, full=True)
        return found.value, found

    slopes, found = jax.jacrev(plan, (0, 1), has_aux=True)(state, 1.0)
    return found, slopes


@pytest.mark.parametrize("inequality", [limits, bent], ids=["quadratic", "nonlinear"])
def test_a_sequence_of_programmes(inequality):
    """The same solutions, multipliers and derivatives, in fewer steps."""
    cold_start = lambda state: plan_and_slope(inequality, jnp.zeros(N), state)
    cold, (cold_slope, _) = jax.jit(jax.vmap(cold_start))(STATES)

    @jax.jit
    def follow(first, states):
        def each(previous, state):
            found, slopes = plan_and_slope(inequality, previous, state)
            return found, (found, slopes)

        return jax.lax.scan(each, first, states)[1]

    warm, (slope, by_start) = follow(jax.tree.map(lambda v: v[0], cold), STATES[1:])
    cold = jax.tree.map(lambda v: v[1:], cold)
    assert warm.converged.all() and cold.converged.all()
    np.testing.assert_allclose(warm.value, cold.value, atol=1e-6)
    for have, want in zip(*map(jax.tree.leaves, (warm.dual, cold.dual)), strict=True):
        np.testing.assert_allclose(have, want, atol=1e-5)
    np.testing.assert_allclose(slope, cold_slope[1:], atol=1e-5)
    assert np.abs(slope).max() > 0.1 and not by_start.any()
    share = 0.5 if inequality is limits else 0.8
    assert float(jnp.mean(warm.steps)) < share * float(jnp.mean(cold.steps))


def test_far_from_the_previous_programme_and_in_batches():
    """Where the active-set method gives up the interior-point method answers, member by member."""

    def programme(start, c, h):
        return rf.argmin(
            lambda z, c: 0.5 * z @ z + c @ z, start, c, full=True,
            equality=lambda z, c: jnp.sum(z) - 1, inequality=lambda z, c: (z - h, -z),
        )  # fmt: skip

    rng = np.random.default_rng(0)
    cs, hs = jnp.asarray(10 * rng.normal(size=(6, 40))), jnp.linspace(0.06, 1.0, 6)

    @jax.jit
    def both(cs, hs):
        first = programme(jnp.zeros(40), cs[0], hs[0])
        return jax.vmap(programme, (None, 0, 0))(first, cs, hs)

    warm = both(cs, hs)
    assert warm.converged.all() and int(jnp.max(warm.steps)) > 20 > int(jnp.min(warm.steps))
    # Closed form: a box cut by one equation.
    project = jax.jit(jax.vmap(lambda h, c: rf.sets.BoxSection(0.0, h, 1.0, 1.0).project(-c)))
    np.testing.assert_allclose(warm.value, project(hs, cs), atol=1e-6)


def test_a_linear_programme_moves_to_another_corner():
    @jax.jit
    def corners(c, moved):
        solve = lambda start, c: rf.argmin(
            lambda x, c: c @ x, start, c, inequality=lambda x, c: (x - 1, -x), full=True
        )
        return solve(solve(jnp.full(3, 0.5), c), moved)

    found = corners(jnp.array([1.0, -1.0, 2.0]), jnp.array([1.5, 1.0, -2.0]))
    assert bool(found.converged)
    np.testing.assert_allclose(found.value, [0.0, 0.0, 1.0], atol=1e-8)


def test_a_maximum_is_no_solution():
    """x = 0 satisfies the conditions of first order of x^4 + a x^2, whatever the sign of a."""
    tolerance = Tolerance(1e-8, 1e-10)

    @jax.jit
    def search(a):
        none = jnp.zeros(0)
        problem = Constrained(lambda x: jnp.sum(a * x**2 + x**4), lambda x: none, lambda x: x - 2.0)
        return resume(problem, jnp.zeros(1), none, jnp.zeros(1), tolerance)

    minimum, maximum = search(1.0), search(-1.0)
    assert bool(minimum.done) and float(maximum.error) <= 1 and not bool(maximum.done)


def test_other_methods_take_the_value():
    @jax.jit
    def both(t):
        f, soft = lambda w, t: jnp.sum((w - t) ** 2), rf.prox.soft_threshold
        solve = lambda start, t: rf.argmin(
            f, start, t, full=True, prox=lambda w, t, step: soft(w, 0.1 * step)
        )
        previous = solve(jnp.zeros(3), t)
        return previous, solve(previous, t + 0.1)

    previous, again = both(1.0)
    np.testing.assert_allclose(again.value, np.full(3, 1.05), atol=1e-8)
    assert int(again.steps) <= int(previous.steps)


def test_multipliers_of_another_problem_are_refused():
    def refused(**other: Any):
        first = rf.argmin(lambda x: x @ x, jnp.ones(2), inequality=lambda x: 1 - x, full=True)
        return rf.argmin(lambda x: x @ x, first, **other)

    with pytest.raises(rf.InputError, match=r"multipliers of inequality have the shapes \(2,\)"):
        jax.eval_shape(lambda: refused(inequality=lambda x: 1 - jnp.sum(x)))
    with pytest.raises(rf.InputError, match="multipliers of equality"):
        jax.eval_shape(lambda: refused(inequality=lambda x: 1 - x, equality=lambda x: x[0] - x[1]))
