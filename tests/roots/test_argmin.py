"""`argmin`: tight tolerances, fixed steps, odd but legal arguments, checks that cannot be lost."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

import rootflow as rf

rng = np.random.default_rng(3)
A, B = jnp.asarray(rng.normal(size=(30, 6))), jnp.asarray(rng.normal(size=30))
START = jnp.full(6, 1 / 6)


def far_from_zero(x, scale):
    """A value of 1e3, whose round-off hides every change of x below about 1e-7."""
    return 1e3 + 0.5 * jnp.sum((A @ x - scale * B) ** 2)


def test_mirror_descent_goes_down_to_round_off():
    solve = lambda method: rf.argmin(
        far_from_zero, START, 1.0, constraint=rf.sets.Simplex(), method=method,
        rtol=1e-12, atol=1e-13, full=True,
    )  # fmt: skip
    found, reference = jax.jit(lambda: (solve("mirror_descent"), solve("proximal_newton")))()
    assert found.converged
    np.testing.assert_allclose(found.value, reference.value, atol=1e-11)
    # Optimality of the support in closed form: equal gradients, larger ones off it.
    slope = np.asarray(A.T @ (A @ found.value - B))
    on = np.asarray(found.value) > 1e-12
    np.testing.assert_allclose(slope[on], slope[on].mean(), atol=1e-9)
    assert (slope[~on] > slope[on].mean()).all()


def test_mirror_descent_lowers_a_function_that_is_not_quadratic():
    cost = jnp.array([0.3, -0.2, 1.1, 0.4, 0.0, 2.0])
    entropic = lambda x, c: c @ x + jnp.sum(x * jnp.log(jnp.maximum(x, 1e-300)))
    found = rf.argmin(
        entropic, START, cost, constraint=rf.sets.Simplex(), method="mirror_descent",
        rtol=1e-12, atol=1e-13,
    )  # fmt: skip
    np.testing.assert_allclose(found, jax.nn.softmax(-cost), atol=1e-10)


TARGET = jnp.asarray(rng.normal(size=(3, 4)))
MIX = jnp.asarray(0.3 * rng.normal(size=(3, 3)))


def coupled(x, t):
    return 0.5 * jnp.sum((x + MIX @ x - t) ** 2)


@pytest.mark.parametrize("method", ["block", "accelerated", "proximal_gradient", "mirror_descent"])
def test_a_fixed_step_gives_the_same_minimum_and_derivative(method):
    @eqx.filter_jit
    def both(step):
        solve = lambda t: rf.argmin(
            coupled, jnp.full((3, 4), 0.25), t, constraint=rf.sets.Simplex(), method=method,
            step=step, rtol=1e-11, atol=1e-12,
        )  # fmt: skip
        return solve(TARGET), jax.jvp(solve, (TARGET,), (jnp.ones_like(TARGET),))[1]

    (fixed, fixed_slope), (free, free_slope) = both(0.3), both(None)
    np.testing.assert_allclose(fixed, free, atol=1e-8)
    np.testing.assert_allclose(fixed_slope, free_slope, atol=1e-7)


def test_the_block_step_is_the_step_that_is_taken():
    """One sweep on an unconstrained quadratic moves each row by -step * gradient, in order."""
    zero = jnp.zeros((3, 4))
    found = rf.argmin(
        coupled, zero, TARGET, prox=rf.prox.none, method="block", step=0.1, max_steps=1,
        throw=False,
    )  # fmt: skip
    expected = np.zeros((3, 4))
    mixing = np.eye(3) + np.asarray(MIX)
    for j in range(3):
        expected[j] -= 0.1 * (mixing.T @ (mixing @ expected - np.asarray(TARGET)))[j]
    np.testing.assert_allclose(found, expected, atol=1e-13)


def test_a_step_too_long_for_the_blocks_is_reported():
    with pytest.raises(rf.SolveError, match="did not converge"):
        rf.argmin(
            coupled, jnp.zeros((3, 4)), TARGET, prox=rf.prox.none, method="block", step=50.0,
            max_steps=100,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": 0.1}, "step=0.1 has no meaning for method='newton'"),
        ({"step": 0.1, "method": "lbfgs"}, "no meaning for method='lbfgs'"),
        ({"step": 0.1, "equality": jnp.sum}, "no meaning for method='interior_point'"),
        ({"step": -0.1, "prox": rf.prox.none}, "step=-0.1 must be one positive number"),
        ({"step": jnp.ones(2), "prox": rf.prox.none}, "one positive number"),
    ],
)
def test_steps_that_mean_nothing_are_refused(options, message):
    with pytest.raises(rf.InputError, match=message):
        rf.argmin(lambda x: jnp.sum(x**2), jnp.ones(2), **options)


def quartic(x, t):
    return jnp.sum((x - t) ** 2) + 0.1 * jnp.sum(x**4)


KINDS = {
    "newton": {},
    "lbfgs": {"method": "lbfgs"},
    "optimistix": {"method": optx.BFGS(1e-9, 1e-9)},
    "box": {"constraint": rf.sets.Box(-9.0, 9.0)},
    "mirror": {"constraint": rf.sets.Simplex(), "method": "mirror_descent"},
    "inequality": {"inequality": lambda x, t: x - 9.0},
}


@pytest.mark.parametrize("kind", KINDS)
def test_numpy_arrays_batched_inside_jit(kind):
    """`vmap` of a NumPy array inside `jit` leaves it in its tracer."""
    rows = np.array([[0.2, 0.3, 0.5], [0.1, 0.3, 0.6]])
    solve = lambda t: rf.argmin(quartic, np.full(3, 1 / 3), t, **KINDS[kind])
    slope = jax.grad(lambda t: solve(t)[0])
    found, slope = jax.jit(lambda: (jax.vmap(solve)(rows), jax.vmap(slope)(rows)))()
    np.testing.assert_allclose(found, jax.jit(jax.vmap(solve))(jnp.asarray(rows)), atol=1e-10)
    assert np.isfinite(slope).all()


def test_integers_scalars_and_empty_leaves():
    found = rf.argmin(quartic, np.array([1, 2, 3]), 1.0)
    np.testing.assert_allclose(2 * (found - 1) + 0.4 * found**3, 0, atol=1e-8)
    tree = {"a": 1, "b": np.zeros(2), "empty": np.zeros((0, 3))}
    solve = lambda t: rf.argmin(
        lambda x, t: (x["a"] - t) ** 2 + jnp.sum((x["b"] - x["a"]) ** 2), tree, t
    )
    found = jax.jit(jax.jacfwd(solve))(1.5)
    np.testing.assert_allclose(found["a"], 1.0)
    np.testing.assert_allclose(found["b"], 1.0)
    assert found["empty"].shape == (0, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_second_derivatives_and_single_precision(kind):
    solve = lambda t: rf.argmin(quartic, jnp.full(3, 1 / 3, t.dtype), t, **KINDS[kind])
    loss = lambda t: jnp.sum(solve(t) ** 2)
    t = jnp.array([0.2, 0.3, 0.7])
    hessian, slope = jax.jit(jax.hessian(loss))(t), jax.jit(jax.grad(loss))
    if kind != "optimistix":  # which brings its own tolerances
        single = slope(t.astype(jnp.float32))
        assert single.dtype == jnp.float32
        np.testing.assert_allclose(single, slope(t), rtol=2e-3, atol=1e-4)
    numeric = [(slope(t + e) - slope(t - e)) / 2e-4 for e in 1e-4 * np.eye(3)]
    np.testing.assert_allclose(hessian, np.stack(numeric), atol=2e-5)


@pytest.mark.parametrize(
    "solve",
    [
        lambda t: rf.root(lambda x, t: x**2 + t, 1.0, t),
        lambda t: rf.fixed_point(lambda x, t: x**2 + t, 1.0, t, method="plain", max_steps=20),
        lambda t: rf.argmin(quartic, jnp.ones(2), t, method="lbfgs", max_steps=2).sum(),
        lambda t: rf.argmin(
            quartic, jnp.ones(2), t, constraint=rf.sets.Box(0.0, 9.0), method="proximal_gradient",
            max_steps=2,
        ).sum(),
        lambda t: rf.argmin(
            quartic, jnp.ones(2), t, equality=lambda x, t: jnp.stack([x @ x - 9.0]), max_steps=1,
        ).sum(),
    ],
)  # fmt: skip
def test_a_derivative_alone_does_not_hide_that_nothing_converged(solve):
    """Inside `jit` a gradient does not need the value, nor a check that hangs on it."""
    with pytest.raises(Exception, match="did not converge"):
        eqx.filter_jit(jax.grad(solve))(5.0)


def test_a_projection_on_an_empty_set_is_an_error_for_its_derivative_too():
    empty = rf.sets.Polyhedron(jnp.array([[1.0, 0.0], [-1.0, 0.0]]), jnp.array([-1.0, -1.0]))
    with pytest.raises(Exception, match="set is empty"):
        eqx.filter_jit(jax.grad(lambda x: empty.project(x).sum()))(jnp.ones(2))


@pytest.mark.parametrize("n", [2, 6])
def test_a_saddle_is_no_minimum_but_has_a_derivative(n):
    sign = jnp.where(jnp.arange(n) % 2 == 0, 1.0, -1.0)
    condition = rf.conditions.Stationary(lambda x, t: 0.5 * jnp.sum(sign * x**2) - t * x.sum())
    solver = lambda init, t: sign * t
    with pytest.raises(rf.DerivativeError, match="symmetric=False"):
        jax.jacfwd(lambda t: rf.implicit(condition)(solver)(None, t))(1.0)
    general = rf.implicit(condition, symmetric=False)(solver)
    found = jax.jit(jax.jacfwd(lambda t: general(None, t)))(1.0)
    np.testing.assert_allclose(found, sign)
    peak = rf.conditions.Stationary(lambda x, t: -0.5 * jnp.sum(x**2) + t * x.sum())
    at_peak = rf.implicit(peak)(lambda i, t: t * jnp.ones(n))
    found = jax.jit(jax.jacfwd(lambda t: at_peak(None, t)))(1.0)
    np.testing.assert_allclose(found, np.ones(n))


@pytest.mark.parametrize("kind", ["newton", "lbfgs", "box", "inequality"])
def test_peak_memory_of_the_derivative_is_that_of_one_iteration(kind):
    def peak(max_steps):
        solve = lambda t: rf.argmin(
            quartic, jnp.full(8, 0.3), t, max_steps=max_steps, **KINDS[kind]
        )
        slope = jax.jit(jax.grad(lambda t: solve(t).sum()))
        memory: Any = slope.lower(jnp.ones(8)).compile().memory_analysis()
        return memory.temp_size_in_bytes

    assert peak(10_000) == peak(10)


def double_well(x):
    return jnp.sum((x**2 - 1) ** 2)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "newton"}, {"method": "lbfgs"}, {"method": "bfgs"}, {"method": "ssbroyden"},
        {"constraint": rf.sets.Box(-2.0, 2.0), "method": "proximal_newton"},
        {"constraint": rf.sets.Box(-2.0, 2.0), "method": "accelerated"},
        {"prox": rf.prox.none, "method": "proximal_gradient"},
        {"inequality": lambda x: x - 2.0},
    ],
)  # fmt: skip
def test_a_maximum_to_start_from_is_left(options):
    x = rf.argmin(double_well, jnp.zeros(3), **options)
    np.testing.assert_allclose(jnp.abs(x), 1.0, rtol=1e-7)
    # A minimum to start from is not.
    at = rf.argmin(double_well, jnp.asarray([1.0, -1.0, 1.0]), **options)
    np.testing.assert_allclose(at, [1.0, -1.0, 1.0], rtol=1e-7)


def test_a_linear_objective_on_a_curved_surface():
    """The Lagrangian is curved by the equation alone."""
    solve = jax.jit(
        lambda x0: rf.argmin(jnp.sum, x0, equality=lambda x: x @ x - 1.0, full=True, throw=False)
    )
    for angle in 2 * np.pi * np.arange(16) / 16:
        if np.isclose(angle, np.pi / 4):
            continue  # straight above the maximum
        for radius in (0.3, 1.0, 3.0):
            found = solve(radius * jnp.asarray([np.cos(angle), np.sin(angle)]))
            assert found.converged, (angle, radius)
            np.testing.assert_allclose(found.value, -np.sqrt(0.5), rtol=1e-8)
    # Problem 39 of Hock and Schittkowski, whose minimum is -1 at (1, 1, 0, 0).
    two = lambda x: jnp.stack([x[1] - x[0] ** 3 - x[2] ** 2, x[0] ** 2 - x[1] - x[3] ** 2])
    x = rf.argmin(lambda x: -x[0], jnp.full(4, 2.0), equality=two)
    np.testing.assert_allclose(x, [1.0, 1.0, 0.0, 0.0], atol=1e-6)


def test_newtons_method_ends_at_no_maximum_and_no_saddle():
    with pytest.raises(rf.errors.SolveError, match="not converge"):
        rf.argmin(lambda x: -(x**2), 0.0)
    # From a line of symmetry that leads to the saddle.
    x = rf.argmin(lambda x: x[0] ** 2 - x[1] ** 2 + x[1] ** 4, jnp.asarray([1.0, 0.0]))
    np.testing.assert_allclose(jnp.abs(x), [0.0, np.sqrt(0.5)], atol=1e-8)
    x = jax.vmap(lambda x0: rf.argmin(double_well, x0))(jnp.asarray([[0.0], [0.5], [-1.0]]))
    np.testing.assert_allclose(jnp.abs(x), 1.0, rtol=1e-7)
    # Where the curvature is zero too it may be a minimum, and is.
    assert rf.argmin(lambda x: x**4, 0.0) == 0.0
    slope = jax.grad(lambda p: rf.argmin(lambda x, p: (x**2 - p) ** 2, 0.0, p))(4.0)
    np.testing.assert_allclose(abs(slope), 0.25, rtol=1e-7)
