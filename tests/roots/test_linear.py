"""The linear solve of implicit derivatives: every method, scaling, and singular systems."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from rootflow.errors import DerivativeError, InputError
from rootflow.roots.conditions import GradientDescent
from rootflow.roots.implicit import implicit

rng = np.random.default_rng(1)
ROOT = rng.normal(size=(5, 5))
DEFINITE = jnp.asarray(ROOT @ ROOT.T + np.eye(5))
GENERAL = jnp.asarray(ROOT + 4 * np.eye(5))
B = jnp.asarray(rng.normal(size=5))


def linear_root(matrix, **options):
    return implicit(lambda x, b: matrix @ x - b, **options)(
        lambda init, b: jnp.linalg.solve(matrix, b)
    )


def pullback(f, at):
    """The compiled map from cotangents of f to those of its argument."""
    return jax.jit(lambda v: jax.vjp(f, at)[1](v)[0])


@pytest.mark.parametrize(
    "method",
    [
        "auto", "lu", "qr", "svd", "normal_cg", "gmres", "bicgstab", "lsmr",
        lx.GMRES(1e-12, 1e-12), lx.AutoLinearSolver(well_posed=True),
    ],
)  # fmt: skip
def test_every_method_solves_both_systems(method):
    solver = linear_root(GENERAL, linear_solver=method)

    @jax.jit
    def both(v):
        solve = lambda b: solver(None, b)
        return jax.vjp(solve, B)[1](v)[0], jax.jvp(solve, (B,), (v,))[1]

    pulled, pushed = both(jnp.ones(5))
    np.testing.assert_allclose(pulled, np.linalg.solve(GENERAL.T, np.ones(5)), 1e-8)
    np.testing.assert_allclose(pushed, np.linalg.solve(GENERAL, np.ones(5)), 1e-8)


@pytest.mark.parametrize("method", ["cg", "cholesky", lx.CG(1e-12, 1e-12)])
def test_methods_for_definite_matrices(method):
    for sign in (1, -1):
        if sign == -1 and not isinstance(method, str):
            continue
        solver = linear_root(sign * DEFINITE, linear_solver=method)
        found = jax.jit(jax.jacrev(lambda b, s=solver: s(None, b)))(B)
        np.testing.assert_allclose(found, sign * np.linalg.inv(DEFINITE), rtol=1e-8)


def test_large_systems_choose_a_krylov_method():
    n = 600
    diagonal = jnp.linspace(1.0, 3.0, n)
    for symmetric in (True, False):
        solver = implicit(lambda x, b: diagonal * x + 0.1 * jnp.sin(x) - b, symmetric=symmetric)(
            lambda init, b: init
        )
        found = pullback(lambda b, s=solver: s(jnp.zeros(n), b), jnp.zeros(n))(jnp.ones(n))
        np.testing.assert_allclose(found, 1 / (diagonal + 0.1), rtol=1e-7)


@pytest.mark.parametrize("method", ["cg", "gmres", "bicgstab", "normal_cg"])
def test_tiny_cotangents_do_not_underflow(method):
    solver = linear_root(DEFINITE, linear_solver=method)
    pull = pullback(lambda b: solver(None, b), B)
    tiny = 1e-200 * jnp.ones(5)
    np.testing.assert_allclose(pull(tiny), np.linalg.solve(DEFINITE, tiny), rtol=1e-7)
    np.testing.assert_array_equal(pull(jnp.zeros(5)), np.zeros(5))


def test_badly_scaled_rows_are_not_mistaken_for_singular():
    scale = jnp.array([1e-30, 1.0, 1e30, 1e-8, 1e8])
    solver = implicit(lambda x, b: scale * (GENERAL @ x - b))(lambda i, b: b)
    found = jax.jacfwd(lambda b: solver(None, b))(B)
    np.testing.assert_allclose(found, np.linalg.inv(GENERAL), rtol=1e-9)


def test_ridge_is_added_to_the_jacobian():
    solver = linear_root(DEFINITE, ridge=0.5)
    found = jax.jit(jax.jacrev(lambda b: solver(None, b)))(B)
    np.testing.assert_allclose(found, np.linalg.inv(DEFINITE + 0.5 * np.eye(5)), rtol=1e-10)
    free = linear_root(DEFINITE, ridge=0.5, linear_solver="cg")
    free_found = jax.jit(jax.jacrev(lambda b: free(None, b)))(B)
    np.testing.assert_allclose(free_found, found, rtol=1e-8)


@pytest.mark.parametrize("method", ["cg", "gmres", "bicgstab"])
def test_preconditioner(method):
    diagonal = jnp.geomspace(1.0, 1e7, 300)
    solver = implicit(
        lambda x, b: diagonal * x - b,
        linear_solver=method,
        preconditioner=lambda v, x, b: v / diagonal,
    )(lambda init, b: b / diagonal)
    found = pullback(lambda b: solver(None, b), jnp.ones(300))(jnp.ones(300))
    np.testing.assert_allclose(found, 1 / diagonal, rtol=1e-8)


# x + y = t twice: one line of solutions.
def _line(x, t):
    return jnp.stack([x[0] + x[1] - t, 2 * (x[0] + x[1] - t)])


@pytest.mark.parametrize("method", ["auto", "lsmr"])
def test_minimum_norm_derivative(method):
    solver = implicit(_line, singular="minimum_norm", linear_solver=method)(
        lambda init, t: jnp.stack([0.5 * t, 0.5 * t])
    )
    for jacobian in (jax.jacfwd, jax.jacrev):
        found = jax.jit(jacobian(lambda t: solver(None, t)))(1.0)
        np.testing.assert_allclose(found, [0.5, 0.5], rtol=1e-8)


@pytest.mark.parametrize("method", ["auto", "qr", "svd", "gmres", "bicgstab", "normal_cg"])
def test_singular_systems_are_errors(method):
    def equation(x, t):
        return jnp.stack([x[0] + x[1] - t, 2 * (x[0] + x[1]) - t])

    solver = implicit(equation, linear_solver=method)(lambda init, t: jnp.stack([t, t]))

    def slope(t):
        return jax.jvp(lambda t: solver(None, t), (t,), (1.0,))[1]

    with pytest.raises((DerivativeError, RuntimeError, ValueError), match="implicit derivative"):
        eqx.filter_jit(slope)(1.0)


def test_nan_instead_of_an_error():
    solver = implicit(_line, singular="nan")(lambda init, t: jnp.stack([0.5 * t, 0.5 * t]))
    assert np.all(np.isnan(jax.jacfwd(lambda t: solver(None, t))(1.0)))


@pytest.mark.parametrize("n", [2, 40, 200])
@pytest.mark.parametrize("symmetric", [False, True])
def test_every_size_of_dense_system(n, symmetric):
    """Written out, with the identity beside it, and by LAPACK's pivots: the same solutions."""
    root = np.random.default_rng(n).normal(size=(n, n))
    matrix = root @ root.T + np.eye(n) if symmetric else root + 2 * np.eye(n)[::-1]
    b = jnp.arange(1.0, n + 1)

    def solve(matrix, b):
        equation = lambda x, m, b: m @ x - b
        solver = implicit(equation, symmetric=symmetric)(lambda i, m, b: jnp.linalg.solve(m, b))
        return solver(None, matrix, b)

    @jax.jit
    def both(matrix, b):
        along = lambda b: solve(matrix, b)
        push = jax.jvp(along, (b,), (jnp.sin(b),))[1]
        return push, jax.vjp(along, b)[1](jnp.cos(b))[0]

    push, pull = both(jnp.asarray(matrix), b)
    np.testing.assert_allclose(push, np.linalg.solve(matrix, np.sin(b)), rtol=1e-6, atol=1e-9)
    transposed = np.linalg.solve(matrix.T, np.cos(b))
    np.testing.assert_allclose(pull, transposed, rtol=1e-6, atol=1e-9)
    # Two equal rows (and columns) at any size.
    matrix[1], matrix[:, 1] = matrix[0], matrix[:, 0]
    singular = implicit(lambda x, b: jnp.asarray(matrix) @ x - b, symmetric=symmetric)
    with pytest.raises(DerivativeError, match="does not exist"):
        jax.jacfwd(lambda b: singular(lambda i, b: b)(None, b))(b)


def growth(x, t):
    """1.1**3 x - t by a loop that ends by a condition: it has no reverse mode."""
    more = lambda c: (1.1 * c[0], c[1] + 1)
    return jax.lax.while_loop(lambda c: c[1] < 3, more, (x, 0))[0] - t


@jax.custom_vjp
def cube(x):
    return x**3


cube.defvjp(lambda x: (x**3, x), lambda x, g: (3 * x**2 * g,))


@pytest.mark.parametrize(("n", "symmetric"), [(3, False), (200, True), (300, True)])
def test_equations_with_one_mode_of_differentiation(n, symmetric):
    """Dense by columns, dense by rows, matrix-free: each makes do with the mode that is there."""
    t = jnp.arange(1.0, n + 1)
    solve = solution_of(growth, symmetric, lambda t: t / 1.1**3)
    np.testing.assert_allclose(jax.jit(jax.grad(lambda t: solve(t).sum()))(t), 1.1**-3)
    solve = solution_of(lambda x, t: cube(x) - t, symmetric, jnp.cbrt)
    np.testing.assert_allclose(jax.jit(jax.grad(lambda t: solve(t).sum()))(t), t ** (-2 / 3) / 3)


def solution_of(equation, symmetric, answer):
    solver = implicit(equation, symmetric=symmetric)(lambda init, t: answer(t))
    return lambda t: solver(None, t)


@pytest.mark.parametrize("method", ["gmres", "normal_cg"])
def test_a_method_that_needs_the_missing_mode_says_so(method):
    solver = implicit(growth, linear_solver=method)(lambda init, t: t / 1.1**3)
    with pytest.raises(InputError, match=r"no reverse-mode derivative.*'lu'"):
        jax.jvp(lambda t: solver(None, t), (B,), (B,))


def test_step_sizes_that_differ_are_not_taken_for_a_symmetric_system():
    """Rows of the Hessian are scaled, each by its own step."""
    hessian, slope = jnp.array([[2.0, 1.0], [1.0, 3.0]]), jnp.array([1.0, 2.0])

    def objective(x, t):
        v = jnp.stack([x["a"], x["b"]])
        return 0.5 * v @ hessian @ v - t * slope @ v

    condition = GradientDescent(objective, {"a": 0.1, "b": 0.5})
    solver = implicit(condition)(lambda i, t: dict(zip("ab", t * exact, strict=True)))
    exact = jnp.linalg.solve(hessian, slope)
    found = jax.jit(jax.jacfwd(lambda t: solver(None, t)))(1.0)
    np.testing.assert_allclose([found["a"], found["b"]], exact)
