"""Implicit derivatives beside JAXopt: ridge regression, and a thousand small systems."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import rootflow as rf

from .harness.comparison import Build, Comparison, Row

FEATURES = 200
MEMBERS = 1000
PENALTY = 3.0


def ridge_data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(2 * FEATURES, FEATURES)), rng.normal(size=2 * FEATURES)


def ridge(decorate: Callable[[Callable], Callable]) -> Build:
    """The derivative of the ridge solution in its penalty, the solver being a Cholesky solve."""

    def build():
        def stationarity(w, penalty, x, y):
            return x.T @ (x @ w - y) + penalty * w

        def solver(init, penalty, x, y):
            return jax.scipy.linalg.solve(
                x.T @ x + penalty * jnp.eye(FEATURES), x.T @ y, assume_a="pos"
            )

        solution = decorate(stationarity)(solver)
        call = jax.jit(jax.grad(lambda penalty, x, y: solution(None, penalty, x, y).sum()))
        x, y = map(jnp.asarray, ridge_data())
        return lambda: call(PENALTY, x, y)

    return build


def ridge_reference() -> float:
    x, y = ridge_data()
    a = x.T @ x + PENALTY * np.eye(FEATURES)
    return float(-np.linalg.solve(a, np.linalg.solve(a, x.T @ y)).sum())


def ours(condition: Callable) -> Callable[[Callable], Callable]:
    # The equation is the gradient of a convex function, which both sides are told.
    return rf.implicit(condition, symmetric=True)


def theirs(condition: Callable) -> Callable[[Callable], Callable]:
    from jaxopt import implicit_diff, linear_solve

    # Its default, conjugate gradients on the normal equations, stops at four digits here; a dense
    # Cholesky factorisation is what rootflow takes at this size.
    return implicit_diff.custom_root(condition, solve=linear_solve.solve_cholesky)


def circle_and_cubic(x, p):
    """A circle of radius p[0] meets the cubic p[1] x**3."""
    return jnp.stack([x[0] ** 2 + x[1] ** 2 - p[0] ** 2, x[1] - p[1] * x[0] ** 3])


def our_root(x0, p):
    return rf.root(circle_and_cubic, x0, p)


def their_root(x0, p):
    import jaxopt

    solver = jaxopt.LevenbergMarquardt(circle_and_cubic, tol=1e-10, implicit_diff=True)
    return solver.run(x0, p).params


def outside(side: Callable[[], Callable[[Any, Any], Any]]) -> Build:
    """One call outside `jit`, of functions that are there already."""

    def build():
        solve = side()
        x0, p = jnp.ones(2), jnp.asarray([1.5, 1.0])
        return lambda: solve(x0, p)

    return build


def their_solver() -> Callable[[Any, Any], Any]:
    import jaxopt

    solver = jaxopt.LevenbergMarquardt(circle_and_cubic, tol=1e-10)
    return lambda x0, p: solver.run(x0, p).params


def radii() -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.stack([rng.uniform(1.0, 2.0, MEMBERS), rng.uniform(0.5, 1.5, MEMBERS)], axis=1)


def small(side: Callable[[Any, Any], Any]) -> Build:
    def build():
        call = jax.jit(jax.vmap(jax.grad(lambda p, x0: side(x0, p).sum()), in_axes=(0, None)))
        p, x0 = jnp.asarray(radii()), jnp.ones(2)
        return lambda: call(p, x0)

    return build


def small_reference() -> np.ndarray:
    """By Newton's method in NumPy, to round-off, and Cramer's rule."""
    r, a = radii().T
    x = np.ones_like(r)
    for _ in range(60):  # x**2 + a**2 x**6 = r**2, convex and increasing for x > 0
        x = x - (x**2 + a**2 * x**6 - r**2) / (2 * x + 6 * a**2 * x**5)
    slope = 2 * x + 6 * a**2 * x**5
    dx = np.stack([2 * r / slope, -2 * a * x**6 / slope], axis=1)
    dy = 3 * (a * x**2)[:, None] * dx + np.stack([np.zeros_like(x), x**3], axis=1)
    return dx + dy


def rows(quick: bool) -> Sequence[Row]:
    exact = ridge_reference()
    exact_small = small_reference()
    size = np.linalg.norm(exact_small)

    def error(result) -> float:
        return abs(float(result) - exact) / abs(exact)

    def error_small(result) -> float:
        return float(np.linalg.norm(np.asarray(result) - exact_small) / size)

    one, many = f"ridge gradient, {FEATURES} unknowns", f"{MEMBERS:,} gradients of 2-d roots, vmap"
    return [
        Row(one, ridge(ours), ridge(theirs), bar=1.0, error=error),
        Row(many, small(our_root), small(their_root), bar=1.0, error=error_small),
        Row(
            "a 2-d root outside jit",
            outside(lambda: our_root),
            outside(their_solver),
            bar=1.0,
            error=lambda x: float(np.max(np.abs(circle_and_cubic(x, (1.5, 1.0))))),
        ),
        Row(f"first call, {one}", ridge(ours), ridge(theirs), bar=1.0, kind="first call"),
        Row(f"first call, {many}", small(our_root), small(their_root), bar=1.0, kind="first call"),
    ]


COMPARISON = Comparison(
    title="implicit derivatives, float64, dense linear solves on both sides",
    peer="jaxopt",
    rows=rows,
)
