"""`root` and `fixed_point`: reference systems, derivatives, honest failure."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

from rootflow.errors import DerivativeError, InputError, SolveError
from rootflow.roots.root import fixed_point, root

# Points at which textbook systems vanish (More, Garbow and Hillstrom 1981, numbers as there).
SYSTEMS = {
    "1 Rosenbrock": (
        lambda x: jnp.array([10 * (x[1] - x[0] ** 2), 1 - x[0]]), [-1.2, 1.0], [1.0, 1.0],
    ),
    "3 Powell badly scaled": (
        lambda x: jnp.array([1e4 * x[0] * x[1] - 1, jnp.exp(-x[0]) + jnp.exp(-x[1]) - 1.0001]),
        [0.0, 1.0], [1.098159e-5, 9.106146],
    ),
    "4 Brown badly scaled": (
        lambda x: jnp.array([x[0] - 1e6, x[0] * x[1] - 2]), [1.0, 1.0], [1e6, 2e-6],
    ),
    "arc tangent from afar": (jnp.arctan, [3.0], [0.0]),
}  # fmt: skip


@pytest.mark.parametrize("name", SYSTEMS)
def test_reference_systems(name):
    equations, start, expected = SYSTEMS[name]
    solution = root(equations, jnp.array(start), full=True)
    np.testing.assert_allclose(solution.value, expected, rtol=1e-6, atol=1e-12)
    assert solution.converged and "converged in" in solution.message


def kepler(e, mean):
    return root(lambda x, e, m: x - e * jnp.sin(x) - m, mean, e, mean)


def test_kepler_derivatives_alone_and_batched():
    means = jnp.linspace(0.2, 3.0, 5)
    by_e, by_mean = jax.jit(jax.vmap(jax.grad(kepler, argnums=(0, 1)), in_axes=(None, 0)))(
        0.6, means
    )
    x = jax.jit(jax.vmap(kepler, in_axes=(None, 0)))(0.6, means)
    np.testing.assert_allclose(x - 0.6 * np.sin(x), means, rtol=1e-12)
    np.testing.assert_allclose(by_mean, 1 / (1 - 0.6 * np.cos(x)), rtol=1e-10)
    np.testing.assert_allclose(by_e, np.sin(x) / (1 - 0.6 * np.cos(x)), rtol=1e-10)


def test_trees_closures_and_complex_numbers():
    def solve(t):
        return root(lambda x: {"a": x["a"] ** 2 - t, "b": x["b"] * x["a"] - 1.0},
                    {"a": 1.0, "b": jnp.ones(2)})  # fmt: skip

    found = jax.jit(jax.jacfwd(solve))(4.0)
    np.testing.assert_allclose(found["a"], 0.25)
    np.testing.assert_allclose(found["b"], [-1 / 16] * 2)
    np.testing.assert_allclose(root(lambda z: z**2 + 1, jnp.array(0.5 + 0.5j)), 1j, atol=1e-12)


def test_a_large_system_is_solved_without_its_matrix():
    n = 1500
    x = root(lambda x, t: 3 * jnp.tanh(x) + x - t, jnp.zeros(n), jnp.linspace(0.0, 3.0, n))
    np.testing.assert_allclose(3 * np.tanh(x) + x, np.linspace(0.0, 3.0, n), atol=1e-9)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (optx.Newton(1e-10, 1e-10), None),
        (optx.LevenbergMarquardt(1e-10, 1e-10), None),
        (optx.Bisection(1e-12, 1e-12), {"lower": 0.0, "upper": 5.0}),
    ],
)
def test_solvers_of_optimistix(method, options):
    def solve(a):
        return root(lambda x, a: x**3 - a, 1.0, a, method=method, options=options)

    found = jax.jit(jax.value_and_grad(solve))(8.0)
    np.testing.assert_allclose(found, (2.0, 1 / 12), rtol=1e-8)


def test_no_root_is_an_error_or_a_flag():
    with pytest.raises(SolveError, match="did not converge"):
        root(lambda x: x**2 + 1, 1.0)
    with pytest.raises(Exception, match="did not converge"):
        eqx.filter_jit(lambda x: root(lambda x: x**2 + 1, x))(1.0)
    solution = root(lambda x: x**2 + 1, 1.0, throw=False, full=True)
    assert not solution.converged and "not converged" in solution.message
    few = root(lambda x: x**3 - 1e9, 1.0, throw=False, full=True, max_steps=3)
    assert not few.converged and few.steps == 3


@pytest.mark.parametrize("method", ["anderson", "plain", "newton"])
def test_fixed_point_of_the_cosine(method):
    def solve(a):
        return fixed_point(lambda x, a: jnp.cos(a * x), 0.5, a, method=method)

    x = 0.7390851332151607
    value, slope = jax.jit(jax.value_and_grad(solve))(1.0)
    np.testing.assert_allclose(value, x, rtol=2e-8)
    np.testing.assert_allclose(slope, -x * np.sin(x) / (1 + np.sin(x)), rtol=1e-7)


def test_anderson_needs_fewer_steps_than_the_plain_iteration():
    root_of_matrix = np.random.default_rng(0).normal(size=(30, 30))
    matrix = jnp.asarray(root_of_matrix @ root_of_matrix.T)
    matrix = 0.95 * matrix / jnp.linalg.norm(matrix, 2)

    def solve(method):
        return fixed_point(lambda x: matrix @ x + 1.0, jnp.zeros(30), method=method, full=True)

    found, plain = solve("anderson"), solve("plain")
    exact = np.linalg.solve(np.eye(30) - matrix, np.ones(30))
    np.testing.assert_allclose(found.value, exact, rtol=1e-6)
    assert found.steps < plain.steps / 5


def test_single_precision():
    x = root(lambda x, a: x**3 - a, jnp.float32(1.0), jnp.float32(8.0))
    assert x.dtype == jnp.float32
    np.testing.assert_allclose(x, 2.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: root(lambda x: jnp.stack([x, x]), 1.0), "shape of x0"),
        (lambda: root(lambda x: x, "text"), "not an array"),
        (lambda: root(lambda x: x, None), "no numbers"),
        (lambda: root(lambda x: x, 1.0, method="magic"), "method='magic'"),
        (lambda: root(lambda x: x, 1.0, method=3), "method must be"),
        (lambda: root(lambda x: x, 1.0, rtol=-1.0), "rtol=-1.0"),
        (lambda: root(lambda x: x, 1.0, rtol=0, atol=0), "both zero"),
        (lambda: root(lambda x: x, 1.0, max_steps=0), "max_steps=0"),
        (lambda: root(lambda x: x, 1.0, tolerance=1e-3), "no option 'tolerance'"),
        (lambda: fixed_point(lambda x: (x, x), 1.0), "structure of x0"),
        (lambda: fixed_point(lambda x: x, 1.0, method="magic"), "method='magic'"),
        (lambda: fixed_point(lambda x: x, 1.0, depth=0), "depth=0"),
        (lambda: fixed_point(lambda x: x, 1.0, method="plain", damping=1.0), "damping=1.0"),
    ],
)  # fmt: skip
def test_input_errors(call, message):
    with pytest.raises(InputError, match=message):
        call()


MULTIPLE = {
    "square": lambda x, a: x**2 - a,
    "cube": lambda x, a: (x - 2) ** 3 - a,
    "component": lambda x, a: jnp.array([x[0] ** 2 - a, 1e6 * (x[1] - jnp.cos(x[1]))]),
}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("name", MULTIPLE)
def test_where_newton_meets_a_multiple_root_there_is_no_derivative(name, dtype):
    """dx/da is infinite there, and dF/dx near it is a small number like any other."""
    f = MULTIPLE[name]
    start = jnp.array([1.0, 2.0], dtype) if name == "component" else jnp.asarray(1.0, dtype)
    zero = jnp.zeros((), dtype)
    solves = [lambda a: root(f, start, a)]
    if name == "square":
        solves.append(lambda a: fixed_point(lambda x, a: x + f(x, a), start, a, method="newton"))
    for solve in solves:
        for derivative in (jax.jacfwd, jax.jacrev):
            with pytest.raises(DerivativeError, match="is isolated"):
                derivative(solve)(zero)
    lenient = jax.vmap(jax.jacrev(lambda a: root(f, start, a, throw=False)))
    at = jnp.array([0.0, 0.25], dtype)
    slopes = lenient(at)[..., 0] if name == "component" else lenient(at)
    exact = 0.25 ** (-2 / 3) / 3 if name == "cube" else 1.0
    assert jnp.isnan(slopes[0])
    np.testing.assert_allclose(slopes[1], exact, rtol=1e-5)


def test_a_simple_root_keeps_its_derivative_however_the_search_ends():
    """Next to the solution, and at tolerances below round-off, no step tells of slowness."""
    exact = -0.7390851332151607 / (1 + np.sin(0.7390851332151607))
    for start, options in (
        (0.7390851332151607 + 3e-10, {}),
        (0.7390851332151607, {}),
        (0.1, {"rtol": 1e-16, "atol": 1e-300}),
        (30.0, {}),
    ):
        solve = lambda a, start=start, options=options: root(
            lambda x, a: jnp.cos(x) - a * x, start, a, **options
        )
        np.testing.assert_allclose(jax.grad(solve)(1.0), exact, rtol=1e-9)
