"""`root`, `fixed_point`, `argmin`: answers, derivatives, conditions that agree, no convergence."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix as optx
import pytest
import scipy.optimize

import rootflow as rf
from rootflow import conditions

rng = np.random.default_rng(0)
X, Y = jnp.asarray(rng.normal(size=(40, 6))), jnp.asarray(rng.normal(size=40))


def least_squares(w, *_):
    return 0.5 * jnp.sum((X @ w - Y) ** 2)


def rosenbrock(x, a):
    return (1 - x[0]) ** 2 + a * (x[1] - x[0] ** 2) ** 2


def test_root_of_a_system():
    def system(x, a):
        return jnp.stack([x[0] ** 2 + x[1] ** 2 - a, x[0] - x[1]])

    f = lambda a: rf.root(system, jnp.array([1.0, 0.5]), a)
    np.testing.assert_allclose(f(2.0), [1.0, 1.0], rtol=1e-9)
    np.testing.assert_allclose(jax.jacrev(f)(2.0), [0.25, 0.25], rtol=1e-8)
    batch = jax.vmap(f)(jnp.array([2.0, 8.0]))
    np.testing.assert_allclose(batch, [[1.0, 1.0], [2.0, 2.0]], rtol=1e-8)


def test_root_by_a_solver_of_optimistix():
    method = optx.Newton(rtol=1e-10, atol=1e-10)
    found = rf.root(lambda x, a: x**3 - a, jnp.array(1.0), 8.0, method=method)
    np.testing.assert_allclose(found, 2.0, rtol=1e-9)


@pytest.mark.parametrize("method", ["anderson", "plain", "newton"])
def test_fixed_point(method):
    f = lambda a: rf.fixed_point(lambda x, a: jnp.cos(a * x), jnp.array(0.5), a, method=method)
    x = 0.7390851332151607
    np.testing.assert_allclose(f(1.0), x, rtol=1e-8)
    np.testing.assert_allclose(jax.grad(f)(1.0), -x * np.sin(x) / (1 + np.sin(x)), rtol=1e-7)


def test_anderson_needs_fewer_steps():
    matrix = jnp.asarray(rng.normal(size=(20, 20)))
    matrix = 0.95 * matrix / np.linalg.norm(matrix, 2)
    run = lambda method: rf.fixed_point(
        lambda x: matrix @ x + 1, jnp.zeros(20), method=method, full=True
    )
    plain, fast = run("plain"), run("anderson")
    np.testing.assert_allclose(plain.value, fast.value, rtol=1e-5)
    assert fast.steps < plain.steps


@pytest.mark.parametrize("method", ["auto", "newton", "lbfgs", optx.BFGS(1e-10, 1e-10)], ids=str)
def test_unconstrained_minimum(method):
    f = lambda a: rf.argmin(rosenbrock, jnp.array([-1.0, 1.0]), a, method=method)
    np.testing.assert_allclose(f(10.0), [1.0, 1.0], rtol=1e-6)
    np.testing.assert_allclose(jax.jacrev(f)(10.0), [0.0, 0.0], atol=1e-6)


def test_unconstrained_minimum_by_optax():
    found = rf.argmin(
        lambda w, lam: least_squares(w) + 0.5 * lam * w @ w, jnp.zeros(6), 1.0,
        method=optax.lbfgs(), max_steps=500,
    )  # fmt: skip
    exact = np.linalg.solve(X.T @ X + np.eye(6), X.T @ Y)
    np.testing.assert_allclose(found, exact, rtol=1e-6)


def soft(w, lam, step):
    return rf.prox.soft_threshold(w, lam * step)


@pytest.mark.parametrize("method", ["auto", "accelerated", "proximal_gradient"])
def test_lasso_and_its_path(method):
    sklearn = pytest.importorskip("sklearn.linear_model")
    lam = 4.0
    peer = sklearn.Lasso(alpha=lam / 40, fit_intercept=False, tol=1e-12, max_iter=100000)
    expected = peer.fit(np.asarray(X), np.asarray(Y)).coef_
    lasso = lambda lam: rf.argmin(least_squares, jnp.zeros(6), lam, prox=soft, method=method)
    w = lasso(lam)
    np.testing.assert_allclose(w, expected, atol=1e-7)
    support = np.flatnonzero(np.abs(w) > 1e-8)
    active = np.asarray(X)[:, support]
    slope = np.zeros(6)
    slope[support] = -np.linalg.solve(active.T @ active, np.sign(np.asarray(w))[support])
    np.testing.assert_allclose(jax.jacrev(lasso)(lam), slope, atol=1e-6)


def test_non_negative_least_squares():
    found = rf.argmin(least_squares, jnp.ones(6), constraint=rf.sets.NonNegative())
    expected, _ = scipy.optimize.nnls(np.asarray(X), np.asarray(Y))
    np.testing.assert_allclose(found, expected, atol=1e-7)


@pytest.mark.parametrize("method", ["auto", "accelerated", "mirror_descent"])
def test_entropic_simplex_is_softmax(method):
    cost = jnp.array([0.3, -0.2, 1.1, 0.4])
    objective = lambda x, c: (
        c @ x + jnp.sum(jnp.where(x > 0, x * jnp.log(jnp.maximum(x, 1e-30)), 0))
    )
    f = lambda c: rf.argmin(
        objective, jnp.full(4, 0.25), c, constraint=rf.sets.Simplex(), method=method
    )
    x = np.asarray(jax.nn.softmax(-cost))
    np.testing.assert_allclose(f(cost), x, atol=1e-6)
    np.testing.assert_allclose(jax.jacrev(f)(cost), -(np.diag(x) - np.outer(x, x)), atol=1e-5)


def test_block_coordinate_descent():
    """Rows on simplices, a strongly convex objective: the same minimum as all at once."""
    target = jnp.asarray(rng.normal(size=(3, 4)))
    mix = jnp.asarray(rng.normal(size=(3, 3))) * 0.3
    objective = lambda x, t: 0.5 * jnp.sum((x + mix @ x - t) ** 2)
    start = jnp.full((3, 4), 0.25)
    solve = lambda t, method: rf.argmin(
        objective, start, t, constraint=rf.sets.Simplex(), method=method
    )
    np.testing.assert_allclose(solve(target, "block"), solve(target, "accelerated"), atol=1e-6)
    blocks = jax.jit(jax.jacrev(lambda t: solve(t, "block")))(target)
    together = jax.jit(jax.jacrev(lambda t: solve(t, "accelerated")))(target)
    np.testing.assert_allclose(blocks, together, atol=1e-5)


def test_quadratic_programme_with_equations_and_inequalities():
    Q, c = np.diag([1.0, 2.0, 3.0]), np.array([1.0, -1.0, 0.5])
    objective = lambda z, b, h: 0.5 * z @ Q @ z + c @ z
    solve = lambda b, h: rf.argmin(
        objective, jnp.zeros(3), b, h,
        equality=lambda z, b, h: jnp.stack([z.sum() - b]), inequality=lambda z, b, h: z - h,
    )  # fmt: skip
    solve = jax.jit(solve)
    h = jnp.array([0.5, 0.6, 2.0])
    best = scipy.optimize.minimize(
        lambda z: 0.5 * z @ Q @ z + c @ z, np.zeros(3), method="SLSQP", options={"ftol": 1e-15},
        constraints=[
            {"type": "eq", "fun": lambda z: z.sum() - 1.0},
            {"type": "ineq", "fun": lambda z: np.asarray(h) - z},
        ],
    )  # fmt: skip
    found = solve(1.0, h)
    np.testing.assert_allclose(found, best.x, atol=1e-6)
    numeric = (solve(1.0 + 1e-4, h) - solve(1.0 - 1e-4, h)) / 2e-4
    np.testing.assert_allclose(jax.jit(jax.jacrev(solve))(1.0, h), numeric, atol=1e-4)
    batch = jax.jit(jax.vmap(lambda b: solve(b, h)))(jnp.array([0.8, 1.0]))
    np.testing.assert_allclose(batch[1], found, atol=1e-7)


def test_nonlinear_constraint():
    """The point of the unit circle nearest to (2, 1)."""
    solve = lambda p: rf.argmin(
        lambda z, p: jnp.sum((z - p) ** 2), jnp.array([0.5, 0.5]), p,
        equality=lambda z, p: jnp.stack([z @ z - 1.0]),
    )  # fmt: skip
    p = jnp.array([2.0, 1.0])
    unit = np.asarray(p) / np.sqrt(5)
    np.testing.assert_allclose(solve(p), unit, atol=1e-7)
    expected = (np.eye(2) - np.outer(unit, unit)) / np.sqrt(5)
    np.testing.assert_allclose(jax.jit(jax.jacrev(solve))(p), expected, atol=1e-6)


def test_every_condition_gives_the_same_derivative():
    lam = 0.7
    objective = lambda w, lam: least_squares(w) + 0.5 * lam * w @ w
    gradient = jax.grad(objective)
    exact_solution = lambda lam: jnp.linalg.solve(X.T @ X + lam * jnp.eye(6), X.T @ Y)
    A = X.T @ X + lam * jnp.eye(6)
    exact = -jnp.linalg.solve(A, exact_solution(lam))
    everywhere = rf.sets.Box(-1e6, 1e6)
    catalogue = [
        conditions.Stationary(objective),
        conditions.GradientDescent(objective),
        conditions.GradientDescent(objective, step=1e-4),
        conditions.FixedPoint(lambda w, lam: w - 0.01 * gradient(w, lam)),
        conditions.Newton(gradient),
        conditions.Newton(gradient, step=0.5),
        conditions.ProjectedGradient(objective, everywhere),
        conditions.ProximalGradient(least_squares, lambda w, lam, s: rf.prox.ridge(w, lam * s)),
        conditions.ProximalGradient(
            least_squares, lambda w, lam, s: rf.prox.ridge(w, lam * s), step=1.0
        ),
    ]
    for condition in catalogue:
        solver = rf.implicit(condition)(lambda init, lam: exact_solution(lam))
        for jacobian in (jax.jacrev, jax.jacfwd):
            found = jacobian(partial(solver, None))(lam)
            np.testing.assert_allclose(found, exact, rtol=1e-6, err_msg=str(condition))


def test_block_condition_and_kkt_objects():
    halves = lambda w, lam: least_squares(jnp.concatenate(w))
    ridge = lambda w, lam, s: rf.prox.ridge(w, lam * s)
    condition = conditions.BlockProximalGradient(halves, (ridge, ridge))
    exact = lambda lam: jnp.linalg.solve(X.T @ X + lam * jnp.eye(6), X.T @ Y)
    solver = rf.implicit(condition)(lambda i, lam: (exact(lam)[:3], exact(lam)[3:]))
    found = jnp.concatenate(jax.jacrev(lambda lam: solver(None, lam))(0.7))
    np.testing.assert_allclose(found, jax.jacfwd(exact)(0.7), rtol=1e-6)

    Q, c, E = jnp.diag(jnp.array([1.0, 2.0, 3.0])), jnp.array([1.0, -1.0, 0.5]), jnp.ones((1, 3))
    kkt = jnp.block([[Q, E.T], [E, jnp.zeros((1, 1))]])

    def by_hand(init, d):
        both = jnp.linalg.solve(kkt, jnp.concatenate([-c, d]))
        return both[:3], both[3:], None

    solver = rf.implicit(lambda x, d: conditions.QuadraticKKT()(x, Q, c, E, d))(by_hand)
    slope = jax.jacrev(lambda d: solver(None, d)[0])(jnp.array([1.0]))
    expected = np.linalg.solve(kkt, [0, 0, 0, 1.0])[:3]
    np.testing.assert_allclose(slope[:, 0], expected, atol=1e-10)


def test_conic_residual_of_a_linear_programme_vanishes():
    c, d = jnp.array([-1.0, -2.0]), jnp.array([1.0, 0.0, 0.0])
    E = jnp.array([[1.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    z, s, y = jnp.array([0.0, 1.0]), jnp.array([0.0, 0.0, 1.0]), jnp.array([2.0, 1.0, 0.0])
    condition = conditions.Conic(rf.sets.NonNegative())
    x = condition.embed(z, s, y)
    for part in condition(x, c, E, d):
        np.testing.assert_allclose(part, 0.0, atol=1e-14)
    for found, given in zip(condition.recover(x), (z, s, y), strict=True):
        np.testing.assert_allclose(found, given, atol=1e-14)


def test_a_thousand_small_problems_at_once():
    targets = jnp.asarray(rng.normal(size=(1000, 3)))
    solve = lambda t: rf.argmin(
        lambda x, t: jnp.sum((x - t) ** 2) + 0.1 * jnp.sum(x**4), jnp.zeros(3), t
    )
    found = jax.jit(jax.vmap(solve))(targets)
    np.testing.assert_allclose(2 * (found - targets) + 0.4 * found**3, 0.0, atol=1e-6)
    slope = jax.jit(jax.vmap(jax.jacrev(solve)))(targets)
    np.testing.assert_allclose(
        jnp.diagonal(slope, axis1=1, axis2=2), 2 / (2 + 1.2 * found**2), rtol=1e-6
    )


def test_no_convergence_is_reported():
    no_root = lambda x: x**2 + 1.0
    with pytest.raises(rf.SolveError, match="converge"):
        rf.root(no_root, jnp.array(1.0), max_steps=20)
    solution = rf.root(no_root, jnp.array(1.0), max_steps=20, throw=False, full=True)
    assert not bool(solution.converged) and "not converged" in solution.message
    with pytest.raises(rf.SolveError, match="converge"):
        rf.fixed_point(lambda x: 2 * x + 1, jnp.array(1.0), method="plain", max_steps=20)
    with pytest.raises(rf.SolveError, match="converge"):
        rf.argmin(rosenbrock, jnp.array([-1.0, 1.0]), 100.0, method="lbfgs", max_steps=3)
    with pytest.raises(Exception, match="converge"):
        jax.block_until_ready(jax.jit(lambda x: rf.root(no_root, x, max_steps=20))(1.0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rf.root(lambda x: x[:1], jnp.ones(2)), "shape|structure"),
        (lambda: rf.fixed_point(lambda x: (x, x), jnp.ones(2)), "structure|shape"),
        (lambda: rf.argmin(lambda x: x, jnp.ones(2)), "one number"),
        (lambda: rf.argmin(jnp.sum, jnp.ones(2), method="simplex"), "simplex"),
        (
            lambda: rf.argmin(
                jnp.sum, jnp.ones(2), constraint=rf.sets.Simplex(), prox=rf.prox.ridge
            ),
            "only one",
        ),
        (lambda: rf.root(lambda x: x, jnp.ones(2), max_steps=0), "max_steps"),
        (lambda: rf.root(lambda x: x, jnp.ones(2), rtol=-1.0), "rtol|negative"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(rf.InputError, match=message):
        call()
