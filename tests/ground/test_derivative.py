"""Derivatives of one's own, under transformations that lose the rule of `jax.custom_jvp`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow.ground.derivative import custom_jvp, jvp_of_active
from rootflow.ground.linear import product


@custom_jvp
def cube_root(x):
    """By a loop, of which a derivative says nothing."""
    frozen = jax.lax.stop_gradient(x)
    return jax.lax.fori_loop(0, 60, lambda _, y: y - (y**3 - frozen) / (3 * y**2), jnp.ones_like(x))


@cube_root.defjvp
def _(primals, tangents):
    y = cube_root(*primals)
    return y, tangents[0] / (3 * y**2)


def plain(f, y):
    return f(f(y))


def scanned(f, y):
    return jax.lax.scan(lambda y, _: (f(y), None), y, None, length=2)[0]


def mapped(f, y):
    return f(jax.lax.map(f, jnp.stack([y]))[0])


def checkpointed(f, y):
    return jax.checkpoint(f)(jax.checkpoint(f)(y))


WAYS = [plain, scanned, mapped, checkpointed]


@pytest.mark.parametrize("way", WAYS)
def test_second_and_third_derivatives(way):
    def f(x):
        return way(cube_root, x)

    x = 1.7
    second = (1 / 9) * (1 / 9 - 1) * x ** (1 / 9 - 2)
    third = second * (1 / 9 - 2) / x
    first = jax.grad(f)
    np.testing.assert_allclose(jax.jacfwd(first)(x), second, rtol=1e-12)
    np.testing.assert_allclose(jax.grad(first)(x), second, rtol=1e-12)
    np.testing.assert_allclose(jax.jacfwd(jax.jacfwd(f))(x), second, rtol=1e-12)
    np.testing.assert_allclose(jax.grad(jax.grad(first))(x), third, rtol=1e-12)
    batch = jnp.array([1.7, 2.5])
    np.testing.assert_allclose(
        jax.jit(jax.vmap(jax.grad(first)))(batch), [second, jax.grad(first)(2.5)], rtol=1e-12
    )


def test_known_in_the_inner_derivative():
    """The rule is not lost where only the outer of two derivatives needs it."""

    def total(x, p):
        return jax.lax.scan(lambda s, _: (s + x * cube_root(p), None), 0.0, None, length=2)[0]

    mixed = 2 / 3 * 1.3 ** (-2 / 3)
    inner = jax.grad(total, 0)
    np.testing.assert_allclose(jax.grad(inner, 1)(1.0, 1.3), mixed, rtol=1e-12)
    np.testing.assert_allclose(jax.jacfwd(inner, 1)(1.0, 1.3), mixed, rtol=1e-12)


def test_solves_inside_a_scan():
    """y' = -p y^2: after a time of 2 it is 1 / (1 + 2 p)."""

    def step(p, y):
        field = lambda t, y, p: -p * y * y
        return rf.solve_ode(field, y, (0.0, 1.0), p, rtol=1e-9).ys[-1]

    def f(p):
        return scanned(lambda y: step(p, y), 1.0)

    second = 8 / (1 + 2 * 1.2) ** 3
    np.testing.assert_allclose(jax.jacfwd(jax.grad(f))(1.2), second, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(jax.grad(f))(1.2), second, rtol=1e-6)


def test_events_inside_a_scan():
    def of(**options):
        def step(p, y):
            field = lambda t, y, p: -p * y * y
            return rf.solve_ode(field, y, (0.0, 1.0), p, **options).ys[-1]

        def f(p, way):
            return way(lambda y: step(p, y), 1.0)

        second = jax.jacfwd(jax.grad(lambda p: f(p, scanned)))
        right = jax.jacfwd(jax.jacfwd(lambda p: f(p, plain)))
        np.testing.assert_allclose(second(1.2), right(1.2), rtol=1e-10)

    of(event=rf.Event(lambda t, y, p: y - 0.8, terminal=False, jump=lambda t, y, p: y * p))


@pytest.mark.parametrize("verb", [rf.root, rf.fixed_point, rf.argmin])
def test_roots_inside_a_scan(verb):
    functions = {
        rf.root: lambda x, p, y: x**3 + x - p * y * y,
        rf.fixed_point: lambda x, p, y: 0.3 * jnp.cos(x * p) + 0.1 * y * y,
        rf.argmin: lambda x, p, y: 0.5 * (x - p * y * y) ** 2 + jnp.exp(x),
    }

    def f(p, way):
        return way(lambda y: verb(functions[verb], 1.0, p, y), 1.0)

    right = jax.jacfwd(jax.jacfwd(f))(1.2, plain)
    np.testing.assert_allclose(jax.jacfwd(jax.grad(f))(1.2, scanned), right, rtol=1e-7)
    np.testing.assert_allclose(jax.grad(jax.grad(f))(1.2, scanned), right, rtol=1e-7)


def test_a_function_that_closes_over_a_traced_array_is_refused():
    def outer(x):
        @custom_jvp
        def inner(y):
            return x * y

        inner.defjvp(lambda primals, tangents: (primals[0], tangents[0]))
        return inner(2.0)

    with pytest.raises(AssertionError):
        jax.jit(outer)(1.0)


def test_nothing_times_an_infinite_derivative():
    f = lambda factor, x: product(factor, x)
    assert f(jnp.inf, 0.0) == 0.0
    np.testing.assert_array_equal(
        jax.vmap(f, (None, 0))(jnp.inf, jnp.array([0.0, 2.0])), [0, np.inf]
    )
    np.testing.assert_allclose(jax.grad(f, 1)(3.0, 0.0), 3.0)
    np.testing.assert_allclose(jax.jvp(lambda x: f(3.0, x), (1.0,), (2.0,))[1], 6.0)


def test_only_what_has_a_derivative_is_differentiated():
    f = lambda x, n: x * n
    zero = jax.custom_derivatives.SymbolicZero.from_primal_value
    out, dot = jvp_of_active(f, (2.0, 3), (jnp.asarray(1.0), zero(jnp.asarray(3))))
    assert out == 6.0 and dot == 3.0
    assert jvp_of_active(f, (2.0, 3), (zero(jnp.asarray(2.0)), zero(jnp.asarray(3))))[1] == 0.0


def test_a_function_that_is_differentiated_at_once_is_not_traced_itself():
    """Its rule has its own way to the value, and tracing is much of a first call."""
    traced = []

    @custom_jvp
    def double(x):
        traced.append(x)
        return 2 * x

    @double.defjvp
    def _(primals, tangents):
        return 2 * primals[0], 2 * tangents[0]

    xs = jnp.arange(3.0)
    np.testing.assert_array_equal(jax.jit(jax.vmap(jax.grad(double)))(xs), 2.0)
    np.testing.assert_array_equal(jax.jit(jax.grad(lambda x: jnp.sum(jax.vmap(double)(x))))(xs), 2)
    assert not traced
    np.testing.assert_array_equal(jax.jit(double)(xs), 2 * xs)
    assert len(traced) == 1
