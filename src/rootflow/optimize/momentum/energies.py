"""Lyapunov functions along a run. All are for k = 1, ..., steps."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..._typing import PyTree
from . import checks, trees

if TYPE_CHECKING:
    from .descent import Run


def _pairs(run: "Run", minimiser: PyTree) -> tuple[PyTree, PyTree, PyTree]:
    """x_k - x*, x_{k-1} - x* and y_{k-1} - x* for k = 1, ..., steps."""
    first = jax.tree.map(lambda x: x[0], run.x)
    minimiser = checks.like(minimiser, first, "The minimiser")
    about = jax.tree.map(lambda x, m: x - m, run.x, minimiser)
    points = jax.tree.map(lambda y, m: y - m, run.y, minimiser)
    return (
        jax.tree.map(lambda x: x[1:], about),
        jax.tree.map(lambda x: x[:-1], about),
        jax.tree.map(lambda y: y[:-1], points),
    )


def _shifted(
    value: Callable[..., Any], theta: tuple[Any, ...], minimiser: PyTree
) -> Callable[[Any], Array]:
    """f(x* + d) - f* as a function of d."""
    least = value(minimiser, *theta)
    return lambda d: value(trees.plus(minimiser, 1.0, d), *theta) - least


def _slack(gap: Callable[[Any], Array], y: PyTree, mu: Any, L: Any) -> Array:
    """q(y): the interpolation inequality between y and the minimiser, at least zero."""
    height, slope = jax.value_and_grad(gap)(y)
    rest = trees.plus(slope, -mu, y)
    return (L - mu) * (height - 0.5 * mu * trees.square(y)) - 0.5 * trees.square(rest)


def distance(run: "Run", minimiser: PyTree[ArrayLike]) -> Float[Array, " steps"]:
    """|x_k - x*|^2."""
    x, _, _ = _pairs(run, minimiser)
    return jax.vmap(trees.square)(x)


def robust(
    value: Callable[..., Any],
    run: "Run",
    theta: tuple[Any, ...],
    minimiser: PyTree[ArrayLike],
    *,
    mu: Any,
    L: Any,
    delta: Any,
    weight: Any,
) -> Float[Array, " steps"]:
    """weight |z_k - x*|^2 + q_{k-1}, for the triple momentum and the robust momentum method."""
    gap = _shifted(value, theta, minimiser)

    def energy(x, before, y):
        z = trees.plus(x, delta, trees.minus(x, before))
        return weight * trees.square(z) + _slack(gap, y, mu, L)

    return jax.vmap(energy)(*_pairs(run, minimiser))


def estimate_sequence(
    value: Callable[..., Any],
    run: "Run",
    theta: tuple[Any, ...],
    minimiser: PyTree[ArrayLike],
    *,
    mu: Any,
    factor: Any,
) -> Float[Array, " steps"]:
    """f(x_k) - f* + mu/2 |v_k - x*|^2, v_k = x_k + factor (x_k - x_{k-1}), for `nesterov`."""
    gap = _shifted(value, theta, minimiser)

    def energy(x, before, y):
        v = trees.plus(x, factor, trees.minus(x, before))
        return gap(x) + 0.5 * mu * trees.square(v)

    return jax.vmap(energy)(*_pairs(run, minimiser))


def convex(
    value: Callable[..., Any],
    run: "Run",
    theta: tuple[Any, ...],
    minimiser: PyTree[ArrayLike],
    *,
    step: Any,
    friction: Any,
) -> Float[Array, " steps"]:
    """2 s (k + r - 2)^2 / (r - 1) (f(x_k) - f*) + (r - 1) |v_k - x*|^2, for `nesterov_convex`.

    v_k = ((k + r - 1) y_k - k x_k) / (r - 1) (Su, Boyd and Candès 2016, theorem 6).
    """
    gap = _shifted(value, theta, minimiser)
    r = friction

    def energy(k, x, before, y):
        ahead = (k - 1) / (k + r - 1)
        point = trees.plus(x, ahead, trees.minus(x, before))
        v = trees.plus(trees.times((k + r - 1) / (r - 1), point), -k / (r - 1), x)
        height = 2 * step * (k + r - 2) ** 2 / (r - 1) * gap(x)
        return height + (r - 1) * trees.square(v)

    x, before, y = _pairs(run, minimiser)
    ks = jnp.arange(1, 1 + jax.tree.leaves(x)[0].shape[0])
    return jax.vmap(energy)(ks, x, before, y)


def quadratic(
    value: Callable[..., Any],
    run: "Run",
    theta: tuple[Any, ...],
    minimiser: PyTree[ArrayLike],
    P: Any,
    mu: Any,
    L: Any,
) -> Float[Array, " steps"]:
    """s' P s + 2 q_{k-1} for the state s = (x_k, x_{k-1}, zeta_k) about the minimiser.

    zeta_k = grad f(y_{k-1}) - L y_{k-1}: the Lyapunov function of an integral quadratic constraint.
    """
    gap = _shifted(value, theta, minimiser)
    P = jnp.asarray(P, jnp.result_type(*jax.tree.leaves(run.x)))

    def energy(x, before, y):
        zeta = trees.plus(jax.grad(gap)(y), -L, y)
        parts = (x, before, zeta)
        form = sum(P[i, j] * trees.dot(parts[i], parts[j]) for i in range(3) for j in range(3))
        return form + 2 * _slack(gap, y, mu, L)

    return jax.vmap(energy)(*_pairs(run, minimiser))
