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


def with_slope(f, jacobian=jax.jacrev):
    """f and its derivative in one compiled program: eager JAX is slow."""
    return jax.jit(lambda *args: (f(*args), jacobian(f)(*args)))


def rosenbrock(x, a):
    return (1 - x[0]) ** 2 + a * (x[1] - x[0] ** 2) ** 2


def test_root_of_a_system():
    def system(x, a):
        return jnp.stack([x[0] ** 2 + x[1] ** 2 - a, x[0] - x[1]])

    f = lambda a: rf.root(system, jnp.array([1.0, 0.5]), a)
    value, slope = with_slope(f)(2.0)
    np.testing.assert_allclose(value, [1.0, 1.0], rtol=1e-9)
    np.testing.assert_allclose(slope, [0.25, 0.25], rtol=1e-8)
    batch = jax.jit(jax.vmap(f))(jnp.array([2.0, 8.0]))
    np.testing.assert_allclose(batch, [[1.0, 1.0], [2.0, 2.0]], rtol=1e-8)


def test_root_by_a_solver_of_optimistix():
    method = optx.Newton(rtol=1e-10, atol=1e-10)
    found = rf.root(lambda x, a: x**3 - a, jnp.array(1.0), 8.0, method=method)
    np.testing.assert_allclose(found, 2.0, rtol=1e-9)


@pytest.mark.parametrize("method", ["auto", "newton", "lbfgs", optx.BFGS(1e-10, 1e-10)], ids=str)
def test_unconstrained_minimum(method):
    f = lambda a: rf.argmin(rosenbrock, jnp.array([-1.0, 1.0]), a, method=method)
    value, slope = with_slope(f)(10.0)
    np.testing.assert_allclose(value, [1.0, 1.0], rtol=1e-6)
    np.testing.assert_allclose(slope, [0.0, 0.0], atol=1e-6)


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
    w, found = with_slope(lasso)(lam)
    np.testing.assert_allclose(w, expected, atol=1e-7)
    support = np.flatnonzero(np.abs(w) > 1e-8)
    active = np.asarray(X)[:, support]
    slope = np.zeros(6)
    slope[support] = -np.linalg.solve(active.T @ active, np.sign(np.asarray(w))[support])
    np.testing.assert_allclose(found, slope, atol=1e-6)


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
    value, slope = with_slope(f)(cost)
    np.testing.assert_allclose(value, x, atol=1e-6)
    np.testing.assert_allclose(slope, -(np.diag(x) - np.outer(x, x)), atol=1e-5)


def test_block_coordinate_descent():
    """Rows on simplices, a strongly convex objective: the same minimum as all at once."""
    target = jnp.asarray(rng.normal(size=(3, 4)))
    mix = jnp.asarray(rng.normal(size=(3, 3))) * 0.3
    objective = lambda x, t: 0.5 * jnp.sum((x + mix @ x - t) ** 2)
    start = jnp.full((3, 4), 0.25)
    solve = lambda t, method: rf.argmin(
        objective, start, t, constraint=rf.sets.Simplex(), method=method
    )
    blocks, by_blocks = with_slope(lambda t: solve(t, "block"))(target)
    together, by_all = with_slope(lambda t: solve(t, "accelerated"))(target)
    np.testing.assert_allclose(blocks, together, atol=1e-6)
    np.testing.assert_allclose(by_blocks, by_all, atol=1e-5)


def test_quadratic_programme_with_equations_and_inequalities():
    Q, c = np.diag([1.0, 2.0, 3.0]), np.array([1.0, -1.0, 0.5])
    objective = lambda z, b, h: 0.5 * z @ Q @ z + c @ z
    solve = lambda b, h: rf.argmin(
        objective, jnp.zeros(3), b, h,
        equality=lambda z, b, h: jnp.stack([z.sum() - b]), inequality=lambda z, b, h: z - h,
    )  # fmt: skip
    h = jnp.array([0.5, 0.6, 2.0])
    best = scipy.optimize.minimize(
        lambda z: 0.5 * z @ Q @ z + c @ z, np.zeros(3), method="SLSQP", options={"ftol": 1e-15},
        constraints=[
            {"type": "eq", "fun": lambda z: z.sum() - 1.0},
            {"type": "ineq", "fun": lambda z: np.asarray(h) - z},
        ],
    )  # fmt: skip
    found, slope = with_slope(solve)(1.0, h)
    np.testing.assert_allclose(found, best.x, atol=1e-6)
    batch = jax.jit(jax.vmap(solve, (0, None)))(jnp.array([1.0 + 1e-4, 1.0 - 1e-4, 1.0]), h)
    np.testing.assert_allclose(slope, (batch[0] - batch[1]) / 2e-4, atol=1e-4)
    np.testing.assert_allclose(batch[2], found, atol=1e-7)


def test_nonlinear_constraint():
    """The point of the unit circle nearest to (2, 1)."""
    solve = lambda p: rf.argmin(
        lambda z, p: jnp.sum((z - p) ** 2), jnp.array([0.5, 0.5]), p,
        equality=lambda z, p: jnp.stack([z @ z - 1.0]),
    )  # fmt: skip
    p = jnp.array([2.0, 1.0])
    unit = np.asarray(p) / np.sqrt(5)
    value, slope = with_slope(solve)(p)
    np.testing.assert_allclose(value, unit, atol=1e-7)
    expected = (np.eye(2) - np.outer(unit, unit)) / np.sqrt(5)
    np.testing.assert_allclose(slope, expected, atol=1e-6)


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

    @jax.jit
    def slopes(lam):
        found = []
        for condition in catalogue:
            solver = rf.implicit(condition)(lambda init, lam: exact_solution(lam))
            found += [jacobian(partial(solver, None))(lam) for jacobian in (jax.jacrev, jax.jacfwd)]
        return found

    for i, found in enumerate(slopes(lam)):
        np.testing.assert_allclose(found, exact, rtol=1e-6, err_msg=str(catalogue[i // 2]))


def test_block_condition_and_kkt_objects():
    halves = lambda w, lam: least_squares(jnp.concatenate(w))
    ridge = lambda w, lam, s: rf.prox.ridge(w, lam * s)
    condition = conditions.BlockProximalGradient(halves, (ridge, ridge))
    exact = lambda lam: jnp.linalg.solve(X.T @ X + lam * jnp.eye(6), X.T @ Y)
    solver = rf.implicit(condition)(lambda i, lam: (exact(lam)[:3], exact(lam)[3:]))
    found = jnp.concatenate(jax.jit(jax.jacrev(lambda lam: solver(None, lam)))(0.7))
    np.testing.assert_allclose(found, jax.jit(jax.jacfwd(exact))(0.7), rtol=1e-6)

    Q, c, E = jnp.diag(jnp.array([1.0, 2.0, 3.0])), jnp.array([1.0, -1.0, 0.5]), jnp.ones((1, 3))
    kkt = jnp.block([[Q, E.T], [E, jnp.zeros((1, 1))]])

    def by_hand(init, d):
        both = jnp.linalg.solve(kkt, jnp.concatenate([-c, d]))
        return both[:3], both[3:], None

    solver = rf.implicit(lambda x, d: conditions.QuadraticKKT()(x, Q, c, E, d))(by_hand)
    slope = jax.jit(jax.jacrev(lambda d: solver(None, d)[0]))(jnp.array([1.0]))
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
    found, slope = jax.jit(jax.vmap(with_slope(solve)))(targets)
    np.testing.assert_allclose(2 * (found - targets) + 0.4 * found**3, 0.0, atol=1e-6)
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
