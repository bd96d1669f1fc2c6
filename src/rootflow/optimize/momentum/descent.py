"""Runs a method: every iterate, the points of the gradients, and the declared output."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool

from ..._typing import PyTree
from ...errors import InputError
from ...ground.programs import Behaviour, compiled_for
from . import checks, trees
from .method import Momentum, floats_as_arrays

_RESTARTS = ("gradient", "function", "speed")
_LEAST = 10  # steps between restarts by speed, as in their source


class Run(eqx.Module):
    """What `descend` returns; leaves have a leading axis of length steps + 1, the start first.

    Attributes:
        x: the iterates.
        y: the points where the gradient is taken.
        output: the sequence that the method declares as its result, to which guarantees apply.
        restarted: after which steps the momentum was set to zero, shape (steps,); None without
            `restart`.
    """

    x: PyTree[Array]
    y: PyTree[Array]
    output: PyTree[Array]
    restarted: Bool[Array, " steps"] | None = None

    @property
    def final(self) -> PyTree[Array]:
        """The last output."""
        return jax.tree.map(lambda leaf: leaf[-1], self.output)


def descend(
    method: Momentum,
    gradient: Callable[..., Any],
    x0: PyTree[ArrayLike],
    *theta: Any,
    steps: int,
    start: Any = "rest",
    restart: str | None = None,
    value: Callable[..., Any] | None = None,
) -> Run:
    """Makes `steps` steps of a method and keeps all of them.

    Works under `jit`, `vmap`, `grad` and `jvp`; differentiable in x0, theta and the coefficients of
    the method. Compiled once for each function `gradient`: define it once rather than in a loop.

    Args:
        method: from the catalogue, or any `Momentum`.
        gradient: gradient(x, *theta), of the structure and shapes of x.
        x0: the start: a pytree of real arrays.
        *theta: passed to `gradient`.
        steps: how many.
        start: "rest" (no momentum), "matched" (x_1 = x_0 - (1 + beta) alpha grad f(x_0), with which
            the iterates follow their high-resolution equation from the first), or the iterate
            before x0.
        restart: set the momentum to zero (and the count of steps) where it points uphill:
            "gradient" (grad f(y_k) . (x_{k+1} - x_k) > 0), "function" (f(x_{k+1}) > f(x_k)) or
            "speed" (|x_{k+1} - x_k| < |x_k - x_{k-1}|, ten steps after a restart or later).
        value: f(x, *theta), for restart="function".

    Raises:
        InputError: arguments that do not fit together.

    Source: restarts: O'Donoghue and Candès (2015); Su, Boyd and Candès (2016), section 5.
    """
    steps = checks.whole("steps", steps)
    checks.function("gradient", gradient)
    x0 = checks.state(x0)
    if restart is not None:
        checks.one_of("restart", restart, _RESTARTS)
    if (restart == "function") != (value is not None):
        raise InputError('value goes with restart="function", which compares values of f.')
    if isinstance(start, str):
        checks.one_of("start", start, ("rest", "matched"))
        before = None
    else:
        start, before = "given", checks.like(start, x0, "The iterate before x0")
    dtype = jnp.result_type(*jax.tree.leaves(x0))
    return _descend(
        floats_as_arrays(method, dtype), gradient, x0, checks.parameters(theta), before, value,
        steps=steps, start=start, restart=restart,
    )  # fmt: skip


@compiled_for(
    lambda method, gradient, x0, theta, before, value, **_: Behaviour(
        (gradient, (x0, *theta)), (value, (x0, *theta))
    )
)
def _descend(method, gradient, x0, theta, before, value, *, steps, start, restart) -> Run:
    def step(carry, _):
        x, before, k = carry
        following, y, slope = advance(method, gradient, theta, x, before, k)
        z = _output(method, x, before, k)
        if restart is None:
            return (following, x, k + 1), (following, y, z, None)
        now = _uphill(restart, value, theta, x, before, following, slope, k)
        back = trees.choose(now, following, x)
        return (following, back, jnp.where(now, 0, k + 1)), (following, y, z, now)

    carry = (x0, x0 if before is None else before, jnp.zeros((), int))
    first = None
    if start == "matched":
        first = (_matched(method, gradient, theta, x0), x0, x0)
        carry, steps = (first[0], x0, carry[2] + 1), steps - 1
    (x, before, k), (xs, ys, zs, restarted) = lax.scan(step, carry, length=steps)
    _, y, _ = advance(method, gradient, theta, x, before, k)
    z = _output(method, x, before, k)
    if first is not None:
        xs, ys, zs = (
            jax.tree.map(lambda one, rest: jnp.concatenate([one[None], rest]), one, rest)
            for one, rest in zip(first, (xs, ys, zs))
        )
        restarted = None if restarted is None else jnp.concatenate([jnp.zeros(1, bool), restarted])
    return Run(_before(x0, xs), _after(ys, y), _after(zs, z), restarted)


def advance(
    method: Momentum,
    gradient: Callable[..., Any],
    theta: tuple[Any, ...],
    x: PyTree,
    before: PyTree,
    k: Any,
) -> tuple[PyTree, PyTree, PyTree]:
    """The next iterate, the point of its gradient, and that gradient."""
    alpha, beta, gamma, _ = method.coefficients(k)
    moved = trees.minus(x, before)
    y = trees.plus(x, gamma, moved)
    slope = checks.shaped(gradient, y, theta)
    return trees.plus(trees.plus(x, beta, moved), -alpha, slope), y, slope


def _output(method, x, before, k) -> PyTree:
    return trees.plus(x, method.coefficients(k)[3], trees.minus(x, before))


def _matched(method, gradient, theta, x0) -> PyTree:
    # Step 1: where the momentum grows from zero, so does the start.
    alpha, beta, _, _ = method.coefficients(1)
    return trees.plus(x0, -(1 + beta) * alpha, checks.shaped(gradient, x0, theta))


def _uphill(restart, value, theta, x, before, following, slope, k) -> Array:
    moved = trees.minus(following, x)
    if restart == "gradient":
        return trees.dot(slope, moved) > 0
    if restart == "function":
        return value(following, *theta) > value(x, *theta)
    # Soon after a start steps get shorter because steep directions are done with.
    return (k >= _LEAST) & (trees.square(moved) < trees.square(trees.minus(x, before)))


def _before(one: PyTree, rest: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), one, rest)


def _after(rest: PyTree, one: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), rest, one)
