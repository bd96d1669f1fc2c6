"""`implicit`: the derivative of the equation, whatever the solver and the transformation."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rootflow.errors import DerivativeError, InputError, SolveError
from rootflow.roots.implicit import implicit

rng = np.random.default_rng(0)
X, Y = jnp.asarray(rng.normal(size=(20, 4))), jnp.asarray(rng.normal(size=20))
EYE = jnp.eye(4)


def ridge_equation(w, lam, y):
    return X.T @ (X @ w - y) + lam * w


def ridge_solution(lam, y):
    return jnp.linalg.solve(X.T @ X + lam * EYE, X.T @ y)


@implicit(ridge_equation)
def ridge(init, lam, y):
    del init
    return ridge_solution(lam, y)


@implicit(lambda x, theta: x**2 - theta)
def square_root(init, theta):
    del init
    return jnp.sqrt(theta)


@pytest.mark.parametrize("jacobian", [jax.jacfwd, jax.jacrev])
def test_ridge_jacobians_have_their_closed_form(jacobian):
    inverse = np.linalg.inv(X.T @ X + 2.0 * np.eye(4))
    w = ridge_solution(2.0, Y)
    both = jax.jit(jacobian(lambda lam, y: ridge(None, lam, y), argnums=(0, 1)))
    by_lam, by_y = both(2.0, Y)
    np.testing.assert_allclose(by_lam, -inverse @ w, rtol=1e-10)
    np.testing.assert_allclose(by_y, inverse @ X.T, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "second",
    [
        jax.hessian,
        lambda f: jax.grad(jax.grad(f)),
        lambda f: jax.jacfwd(jax.jacfwd(f)),
        lambda f: jax.jacrev(jax.jacfwd(f)),
    ],
)
def test_second_derivative_of_the_square_root(second):
    found = second(lambda t: square_root(None, t))(3.0)
    np.testing.assert_allclose(found, -0.25 * 3.0**-1.5, rtol=1e-12)


def test_third_derivative_and_jit_of_vmap():
    third = jax.grad(jax.grad(jax.grad(lambda t: square_root(None, t))))
    points = jnp.array([1.0, 2.0, 5.0])
    np.testing.assert_allclose(jax.jit(jax.vmap(third))(points), 3 / 8 * points**-2.5, rtol=1e-12)


def test_both_modes_give_the_same_inner_products():
    v, u = jnp.asarray(rng.normal(size=4)), jnp.asarray(rng.normal(size=20))
    _, forward = jax.jvp(lambda y: ridge(None, 0.3, y), (Y,), (u,))
    _, pull = jax.vjp(lambda y: ridge(None, 0.3, y), Y)
    np.testing.assert_allclose(v @ forward, pull(v)[0] @ u, rtol=1e-12)


def test_vmap_equals_a_loop():
    lams = jnp.linspace(0.5, 2.0, 4)
    slope = jax.jit(jax.grad(lambda lam: ridge(None, lam, Y).sum()))
    np.testing.assert_allclose(jax.vmap(slope)(lams), [slope(lam) for lam in lams], rtol=1e-12)


def test_the_initial_guess_has_no_derivative():
    solver = implicit(lambda x, t: x - t)(lambda init, t: t + 0 * init)
    assert jax.grad(solver)(1.0, 2.0) == 0


def test_trees_in_and_out():
    def equation(x, theta):
        return {"a": x["a"] ** 2 - theta["p"], "b": x["b"] - x["a"] * theta["q"][0]}

    @implicit(equation)
    def solver(init, theta):
        a = jnp.sqrt(theta["p"])
        return {"a": a, "b": a * theta["q"][0]}

    theta = {"p": 4.0, "q": (jnp.array([1.0, 3.0]),)}
    found = jax.jacrev(lambda t: solver(None, t))(theta)
    np.testing.assert_allclose(found["a"]["p"], 0.25)
    np.testing.assert_allclose(found["b"]["p"], 0.25 * theta["q"][0])
    np.testing.assert_allclose(found["b"]["q"][0], 2 * np.eye(2))


def test_complex_unknowns():
    # x^3 = c has dx/dc = 1 / (3 x^2), for a real parameter of the right-hand side.
    solver = implicit(lambda x, t: x**3 - (1j + t))(lambda init, t: (1j + t) ** (1 / 3))
    found = jax.jvp(lambda t: solver(None, t), (2.0,), (1.0,))[1]
    np.testing.assert_allclose(found, 1 / (3 * (2 + 1j) ** (2 / 3)), rtol=1e-12)


def test_other_arguments_pass_untouched():
    def equation(x, theta, *, power, shift=None, function=None, **_):
        assert shift is None
        return x**power - function(theta)

    @implicit(equation)
    def solver(init, theta, *, power, shift=None, function=None, name="none", steps=3):
        assert name == "word" and steps == 5
        return function(theta) ** (1 / power)

    def run(theta):
        return solver(None, theta, power=3, function=jnp.exp, name="word", steps=5)

    np.testing.assert_allclose(jax.grad(run)(0.5), jnp.exp(0.5 / 3) / 3, rtol=1e-12)


def test_integer_and_key_arguments():
    key = jax.random.key(0)

    def equation(x, theta, n, key):
        return x - theta**n - jax.random.normal(key)

    @implicit(equation)
    def solver(init, theta, n, key):
        return theta**n + jax.random.normal(key)

    found = jax.grad(lambda t: solver(None, t, jnp.array(3), key))(2.0)
    np.testing.assert_allclose(found, 12.0)


def test_options_of_the_solver_alone_and_unknown_arrays():
    @implicit(lambda x, t: x - t)
    def solver(init, t, scale=1.0):
        return t

    assert jax.grad(lambda t: solver(None, t, scale=2.0))(1.0) == 1
    with pytest.raises(InputError, match=r"'scale'.*no argument of that name"):
        solver(None, 1.0, scale=jnp.ones(2))


def test_auxiliary_output_has_no_derivative():
    @implicit(lambda x, t: x - t**2, has_aux=True)
    def solver(init, t):
        return t**2, {"steps": 7, "trace": t}

    value, aux = solver(None, 3.0)
    assert value == 9 and aux["steps"] == 7
    assert jax.grad(lambda t: solver(None, t)[1]["trace"])(3.0) == 0
    assert jax.grad(lambda t: solver(None, t)[0])(3.0) == 6


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_a_condition_may_close_over_what_is_differentiated(wrap):
    def root_of(theta):
        @implicit(lambda x: x**2 - theta)
        def solver(init):
            return jnp.sqrt(theta)

        return solver(None)

    np.testing.assert_allclose(wrap(jax.grad(root_of))(4.0), 0.25)
    np.testing.assert_allclose(wrap(jax.jacfwd(root_of))(4.0), 0.25)
    np.testing.assert_allclose(wrap(jax.grad(jax.grad(root_of)))(4.0), -1 / 32)
    np.testing.assert_allclose(
        wrap(jax.vmap(jax.grad(root_of)))(jnp.array([1.0, 4.0])), [0.5, 0.25]
    )


def test_a_function_argument_may_close_over_what_is_differentiated():
    solver = implicit(lambda x, f: x - f(2.0))(lambda init, f: f(2.0))
    np.testing.assert_allclose(jax.grad(lambda t: solver(None, lambda s: s * t**2))(3.0), 12.0)


def test_solver_behind_a_callback():
    @implicit(ridge_equation)
    def solver(init, lam, y):
        def run(lam, y):
            return np.linalg.solve(X.T @ X + lam * np.eye(4), X.T @ y)

        shape = jax.ShapeDtypeStruct((4,), jnp.float64)
        return jax.pure_callback(run, shape, lam, y, vmap_method="sequential")

    expected = -np.linalg.solve(X.T @ X + 2 * np.eye(4), ridge_solution(2.0, Y))
    for jacobian in (jax.jacfwd, jax.jacrev):
        np.testing.assert_allclose(
            jax.jit(jacobian(lambda lam: solver(None, lam, Y)))(2.0), expected, rtol=1e-10
        )


def test_single_precision_stays_single():
    out, slope = jax.value_and_grad(lambda t: square_root(None, t))(jnp.float32(4))
    assert out.dtype == slope.dtype == jnp.float32


def test_refining_makes_a_rough_solution_exact():
    rough = implicit(lambda x, t: x**2 - t, refine=3)(lambda init, t: jnp.sqrt(t) + 0.05)
    np.testing.assert_allclose(rough(None, 4.0), 2.0, rtol=1e-12)
    np.testing.assert_allclose(jax.grad(lambda t: rough(None, t))(4.0), 0.25, rtol=1e-12)


def test_memory_of_the_derivative_does_not_grow_with_the_iterations():
    def peak(steps):
        @implicit(ridge_equation)
        def descent(init, lam, y):
            def step(_, w):
                return w - 0.01 * ridge_equation(w, lam, y)

            return jax.lax.fori_loop(0, steps, step, init)

        slope = jax.jit(jax.grad(lambda lam: descent(jnp.zeros(4), lam, Y).sum()))
        return slope.lower(1.0).compile().memory_analysis().temp_size_in_bytes

    assert peak(10_000) == peak(10)


@pytest.mark.parametrize(
    ("equation", "solver", "message"),
    [
        (lambda x, t: (x - t, x), lambda i, t: t, "must have the structure"),
        (lambda x, t: jnp.stack([x, t]), lambda i, t: t, r"shape of the solution.*\(2,\)"),
        (lambda x, t: x - t, lambda i, t: 3, "int.*aux"),
        (lambda x, t: x - t, lambda i, t: "three", "'three'.*aux"),
    ],
)
def test_input_errors(equation, solver, message):
    with pytest.raises(InputError, match=message):
        implicit(equation)(solver)(None, 1.0)


def test_solution_that_is_not_finite():
    with pytest.raises(SolveError, match="not finite"):
        square_root(None, -1.0)
    with pytest.raises(Exception, match="not finite"):
        eqx.filter_jit(lambda t: square_root(None, t))(-1.0)
    lenient = implicit(lambda x, t: x**2 - t, throw=False)(lambda init, t: jnp.sqrt(t))
    assert np.isnan(lenient(None, -1.0))


def test_bad_options():
    with pytest.raises(InputError, match=r"linear_solver='magic'.*'?lu"):
        implicit(ridge_equation, linear_solver="magic")
    with pytest.raises(InputError, match="solver object of lineax"):
        implicit(ridge_equation, linear_solver=3)
    with pytest.raises(InputError, match="singular='ignore'"):
        implicit(ridge_equation, singular="ignore")
    with pytest.raises(InputError, match="refine=-1"):
        implicit(ridge_equation, refine=-1)
    with pytest.raises(InputError, match="has_aux"):
        implicit(ridge_equation, has_aux=True)(lambda i, lam, y: lam)(None, 1.0, Y)


def test_a_double_root_has_no_derivative():
    double = implicit(lambda x, t: (x - t) ** 2)(lambda init, t: t)
    with pytest.raises(DerivativeError, match="singular"):
        jax.grad(lambda t: double(None, t))(1.0)
    with pytest.raises(Exception, match="singular"):
        eqx.filter_jit(jax.grad(lambda t: double(None, t)))(1.0)
