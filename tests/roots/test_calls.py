"""Parameters by name and auxiliary values, against closed forms."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf

rng = np.random.default_rng(5)
X, Y = jnp.asarray(rng.normal(size=(12, 3))), jnp.asarray(rng.normal(size=12))


def ridge(w, *, l2reg, data):
    rows, values = data
    residual = rows @ w - values
    return 0.5 * residual @ residual + 0.5 * l2reg * w @ w, {"residual": residual}


def by_hand(l2reg, data):
    rows, values = data
    w = jnp.linalg.solve(rows.T @ rows + l2reg * jnp.eye(3), rows.T @ values)
    return w, {"residual": rows @ w - values}


def assert_alike(have, want):
    for a, b in zip(jax.tree.leaves(have), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prox": lambda w, step, *, l2reg: w},
        {"inequality": lambda w, *, l2reg: w - 100 * l2reg},
    ],
    ids=["newton", "prox", "inequality"],
)
def test_argmin_with_names_and_an_auxiliary_value(options):
    """Value, auxiliary value and the derivatives of both, inside jit and vmap."""

    def solve(l2reg, data):
        return rf.argmin(
            ridge, jnp.zeros(3), kwargs={"l2reg": l2reg, "data": data}, has_aux=True, **options
        )

    def everything(f):
        with_slope = lambda r, d: (f(r, d), jax.jacrev(f, (0, 1))(r, d))
        return jax.jit(jax.vmap(with_slope, (0, None)))(jnp.array([0.5, 2.0]), (X, Y))

    assert_alike(everything(solve), everything(by_hand))


def test_solution_has_the_auxiliary_value():
    found = rf.argmin(
        ridge, jnp.zeros(3), kwargs={"l2reg": 0.5, "data": (X, Y)}, has_aux=True, full=True
    )
    assert bool(found.converged)
    assert_alike((found.value, found.aux), by_hand(0.5, (X, Y)))


@pytest.mark.parametrize("verb", [rf.root, rf.fixed_point])
def test_roots_and_fixed_points(verb):
    """x^2 = a by Newton's method, and by Heron's map, with what is returned beside it."""
    heron = verb is rf.fixed_point

    def equation(x, b, *, a):
        return (0.5 * (x + a / x) if heron else x**2 - a), (b * x, a)

    def solve(a):
        return verb(equation, 1.0, 3.0, kwargs={"a": a}, has_aux=True)

    x, (tripled, same) = jax.jit(solve)(2.0)
    np.testing.assert_allclose((x, tripled, same), (2**0.5, 3 * 2**0.5, 2.0), rtol=1e-8)
    slope, (by_aux, one) = jax.jit(jax.jacfwd(solve))(2.0)
    np.testing.assert_allclose((slope, by_aux, one), (8**-0.5, 3 * 8**-0.5, 1.0), rtol=1e-7)
    options: Any = {"kwargs": {"a": 2.0}, "has_aux": True, "full": True}
    again = verb(equation, verb(equation, 1.0, 3.0, **options), 3.0, **options)
    assert int(again.steps) <= 2
    np.testing.assert_allclose(again.aux[0], 3 * 2**0.5, rtol=1e-8)


def test_implicit_and_least_squares_have_auxiliary_values_too():
    import optimistix as optx

    @rf.implicit(lambda x, *, a: x**2 - a, has_aux=True)
    def solver(init, *, a):
        return jnp.sqrt(a), jnp.int32(7)

    (x, seven), slope = jax.jit(
        lambda a: (solver(None, a=a), jax.jacrev(lambda a: solver(None, a=a)[0])(a))
    )(2.0)
    np.testing.assert_allclose((x, slope, seven), (2**0.5, 8**-0.5, 7))

    found, twice = rf.argmin(
        lambda w, *, data: (data[0] @ w - data[1], 2 * w), jnp.zeros(3), kwargs={"data": (X, Y)},
        has_aux=True, method=optx.LevenbergMarquardt(rtol=1e-8, atol=1e-10),
    )  # fmt: skip
    expected = np.linalg.lstsq(X, Y, rcond=None)[0]
    np.testing.assert_allclose((found, twice / 2), (expected, expected), atol=1e-7)


WRONG: Any = [("a", 1.0)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rf.root(lambda x, *, a: x - a, 1.0, kwargs={"b": 2.0}), "'b'.*it takes a, x"),
        (lambda: rf.root(lambda x, *, a: x - a, 1.0, kwargs=WRONG), "dictionary"),
        (lambda: rf.root(lambda x, a: x - a, 1.0, 1.0, kwargs={"a": 2.0}), "multiple values"),
        (lambda: rf.argmin(lambda x: x**2, 1.0, l2reg=2.0), r"kwargs=\{'l2reg'"),
        (lambda: rf.argmin(lambda x: x**2, 1.0, has_aux=True), "pair"),
        (lambda: rf.argmin(lambda x: (x**2, x), 1.0), "has_aux=True"),
        (
            lambda: rf.argmin(
                lambda x, a: x**2, 1.0, kwargs={"a": 2.0}, prox=lambda w, a, step: w - a * step
            ),
            "after a star",
        ),
    ],
)  # fmt: skip
def test_wrong_calls_are_refused(call, message):
    with pytest.raises(rf.InputError, match=message):
        call()
