"""Nesterov's method without the strong convexity: an estimate that is lowered when refuted."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from ..._typing import PyTree
from ...errors import InputError
from ...ground.programs import Behaviour, compiled_for
from . import checks, trees
from .descent import Run


class AdaptiveRun(Run):
    """What `descend_adaptively` returns: a `Run`, and the estimate of mu in each step.

    Attributes:
        mu: the estimate in each step, shape (steps,); it never rises.
    """

    mu: Float[Array, " steps"] | None = None


def descend_adaptively(
    gradient: Callable[..., Any],
    x0: PyTree[ArrayLike],
    *theta: Any,
    L: ArrayLike,
    mu: ArrayLike | None = None,
    steps: int,
    factor: float = 4.0,
) -> AdaptiveRun:
    """Nesterov's method with an estimate of mu that is lowered, with a restart, when refuted.

    Two observations prove an estimate too large. A secant: with y and y' the last two points,
    (grad f(y) - grad f(y')) . (y - y') < mu |y - y'|^2. And slow progress: k steps after a restart
    at x_0, |grad f(y_k)|^2 > 2 (L/mu)^2 (1 - sqrt(mu/L))^k |grad f(x_0)|^2, which the certificate
    of `nesterov` excludes. Then the estimate becomes the secant or itself over `factor`, whichever
    is smaller, so it is wrong by a few factors at most and is never lowered below mu / factor.

    Once the gradient is at the level of round-off nothing is refuted any more.

    Args:
        gradient: gradient(x, *theta).
        x0: the start.
        *theta: passed to `gradient`.
        L: the largest curvature; it must not be underestimated.
        mu: the first estimate; by default L.
        steps: how many.
        factor: by how much the estimate falls at least, above 1.

    Raises:
        InputError: constants out of range.

    Source: the restarts of Nesterov (2013), section 5.3, and O'Donoghue and Candès (2015); the two
    tests follow from Nesterov (2004), theorem 2.2.3.
    """
    checks.function("gradient", gradient)
    steps = checks.whole("steps", steps)
    L = checks.positive("L", L)
    _, L = checks.condition(L if mu is None else mu, L)
    factor = checks.number("factor", factor)
    if not checks.is_traced(factor) and factor <= 1:
        raise InputError(f"factor must be above 1; got {factor}.")
    x0 = checks.state(x0)
    dtype = jnp.result_type(*jax.tree.leaves(x0))
    first = jnp.asarray(L if mu is None else mu, dtype)
    theta = checks.parameters(theta)
    return _descend(gradient, x0, theta, jnp.asarray(L, dtype), first, factor, steps=steps)


@compiled_for(lambda gradient, x0, theta, *_, **__: Behaviour((gradient, (x0, *theta))))
def _descend(gradient, x0, theta, L, mu, factor, *, steps) -> AdaptiveRun:
    eps = jnp.finfo(L.dtype).eps

    def step(carry, _):
        x, before, k, mu, first, last = carry
        q = jnp.sqrt(mu / L)
        y = trees.plus(x, (1 - q) / (1 + q), trees.minus(x, before))
        slope = checks.shaped(gradient, y, theta)
        following = trees.plus(y, -1 / L, slope)
        size = trees.square(slope)
        first = jnp.where(k == 0, size, first)

        secant = _secant(y, slope, last, eps, mu)
        slow = size > 2 * (L / mu) ** 2 * (1 - q) ** k * first
        live = size > (1e3 * eps * L) ** 2 * trees.square(y)
        refuted = live & ((secant < mu * (1 - 1e-6)) | ((k > 0) & slow))
        lower = jnp.maximum(jnp.minimum(secant, mu / factor), eps * L)
        changed = jnp.where(refuted, jnp.minimum(lower, mu), mu)
        back = trees.choose(refuted, following, x)
        k = jnp.where(refuted, 0, k + 1)
        return (following, back, k, changed, first, (y, slope)), (following, y, mu, refuted)

    start = (x0, x0, jnp.zeros((), int), mu, jnp.zeros((), L.dtype), (x0, trees.zeros(x0)))
    (x, before, _, mu, _, _), (xs, ys, mus, refuted) = lax.scan(step, start, length=steps)
    q = jnp.sqrt(mu / L)
    y = trees.plus(x, (1 - q) / (1 + q), trees.minus(x, before))
    xs = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), x0, xs)
    ys = jax.tree.map(lambda a, b: jnp.concatenate([b, a[None]]), y, ys)
    return AdaptiveRun(xs, ys, xs, refuted, mus)


def _secant(y, slope, last, eps, mu) -> Array:
    """The curvature between the last two points; mu where they are too near to tell."""
    moved = trees.minus(y, last[0])
    distance = trees.square(moved)
    known = distance > eps * trees.square(y)
    # In the first step y is x_0, the point that it is compared with.
    curvature = trees.dot(trees.minus(slope, last[1]), moved) / jnp.where(known, distance, 1.0)
    return jnp.where(known, curvature, mu)
