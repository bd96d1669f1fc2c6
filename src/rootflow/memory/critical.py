"""Where retrieval ends: critical loads and temperatures, and where the theory itself does.

A retrieval solution ends where it meets an unstable one: the equations hold there, and the
determinant of their Jacobian is zero. Both are solved together by `rf.root`, from a start found by
the iteration's survival, so that critical values are as exact as solutions and have derivatives.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ..roots.root import root
from . import checks, theory
from .law import Law, law
from .theory import Point

_LOOK = 400  # iterations to see whether retrieval survives
_GONE = 1e-3  # an overlap that stands for none
_HALVINGS = 14
_SCAN = 64  # temperatures looked at before they are halved

Scalar = Float[Array, ""]


class _Fold(NamedTuple):
    """The unknowns at the end of a branch: the point, and the parameter that ends it."""

    point: Point
    value: Scalar


def critical_load(
    *,
    order: int,
    temperature: ArrayLike = 0.0,
    entropy: ArrayLike | None = None,
    quality: ArrayLike | None = None,
    quantity: ArrayLike | None = None,
    supervised: bool = True,
    small_sample: bool = False,
) -> Scalar:
    """The largest load, (P! / 2) K / N^(P-1), at which the archetypes are retrieved.

    At a load a bit above, the overlap drops to that of a spin glass. Differentiable in all numbers.

    Args:
        order: P.
        temperature: T.
        entropy: rho of the data set; or give `quality` and `quantity`.
        quality: r.
        quantity: M.
        supervised: as in `replica_symmetric`.
        small_sample: as in `replica_symmetric`.

    Returns:
        The load; NaN at temperatures where not even a single archetype is retrieved.

    Raises:
        InputError: as in `replica_symmetric`.
        SolveError: the end of the branch was not found to the tolerance.
    """
    data = law(order, entropy, quality, quantity, supervised, small_sample)
    _, T = theory.conditions(0.0, temperature)

    value, fine = _critical_load(data, T)
    return checks.converged(value, fine, "the search of critical_load")


@eqx.filter_jit
def _critical_load(data: Law, T: Array) -> tuple[Array, Array]:
    def survives(gamma):
        return _survivor(data, gamma, T)

    def doubled(_, bracket):
        low, high = bracket
        alive = survives(high)[0]
        return jnp.where(alive, high, low), jnp.where(alive, 2 * high, high)

    zero = jnp.zeros((), jnp.result_type(T, data.entropy))
    alive, first = survives(zero)
    # Loads are of order one or less, 2^6 at most.
    low, high = jax.lax.fori_loop(0, 6, doubled, (zero, zero + 1.0))
    gamma, point = _halve(survives, low, high, first)

    def equations(x: _Fold, data: Law, T: Array) -> _Fold:
        return _fold(data, x.point, x.value, T)

    return _finish(equations, _Fold(point, gamma), alive, data, T)


def critical_temperature(
    *,
    order: int,
    load: ArrayLike = 0.0,
    entropy: ArrayLike | None = None,
    quality: ArrayLike | None = None,
    quantity: ArrayLike | None = None,
    supervised: bool = True,
    small_sample: bool = False,
) -> Scalar:
    """The highest temperature at which the archetypes are retrieved.

    With noisy examples retrieval may be lost again at lower temperatures.

    Args:
        order: P.
        load: gamma.
        entropy: rho of the data set; or give `quality` and `quantity`.
        quality: r.
        quantity: M.
        supervised: as in `replica_symmetric`.
        small_sample: as in `replica_symmetric`.

    Returns:
        T, in the units of the energy of `DenseHebbian`; NaN at loads where the archetypes are not
        retrieved at any temperature.

    Raises:
        InputError: as in `replica_symmetric`.
        SolveError: the end of the branch was not found to the tolerance.
    """
    data = law(order, entropy, quality, quantity, supervised, small_sample)
    gamma, _ = theory.conditions(load, 0.0)
    # A single pair-wise archetype is lost continuously, at T = 1 whatever the data; nearby it is
    # 1 - 1.95 sqrt(alpha) without noise in the data (Amit et al., 1987).
    empty = data.pairwise & (gamma == 0)
    value, fine = _highest_temperature(data, jnp.where(empty, 0.05, gamma))
    value = checks.converged(value, fine, "the search of critical_temperature")
    return jnp.where(empty, 1 - 1.95 * jnp.sqrt(jnp.where(empty, gamma, 0.0)), value)


def at_temperature(
    *,
    order: int,
    load: ArrayLike,
    entropy: ArrayLike | None = None,
    quality: ArrayLike | None = None,
    quantity: ArrayLike | None = None,
    supervised: bool = True,
    small_sample: bool = False,
) -> Scalar:
    """The line of de Almeida and Thouless: below this temperature retrieval breaks the symmetry.

    Under it the replica symmetric numbers are approximations.

    Args:
        order: P.
        load: gamma.
        entropy: rho of the data set; or give `quality` and `quantity`.
        quality: r.
        quantity: M.
        supervised: as in `replica_symmetric`.
        small_sample: as in `replica_symmetric`.

    Returns:
        T; 0 where it is less than a millionth of the critical temperature, NaN where the archetypes
        are not retrieved at any temperature.

    Raises:
        InputError: as in `replica_symmetric`.
        SolveError: the line was not found to the tolerance.
    """
    data = law(order, entropy, quality, quantity, supervised, small_sample)
    gamma, _ = theory.conditions(load, 0.0)
    top = jax.lax.stop_gradient(
        critical_temperature(
            order=order, load=load, entropy=entropy, quality=quality, quantity=quantity,
            supervised=supervised, small_sample=small_sample,
        )
    )  # fmt: skip

    value, fine = _broken_temperature(data, gamma, top)
    return checks.converged(value, fine, "the search of at_temperature")


@eqx.filter_jit
def _broken_temperature(data: Law, gamma: Array, top: Array) -> tuple[Array, Array]:
    def broken(T):
        alive, x = _survivor(data, gamma, T)
        return alive & (theory.stability(data, x, gamma, T) > 1), x

    grid = jnp.where(jnp.isnan(top), 1.0, top) * jnp.logspace(-6, 0, _SCAN, dtype=top.dtype)
    found, T, point = _last(broken, grid)
    found = found & ~jnp.isnan(top)

    def equations(x: _Fold, data: Law, gamma: Array) -> _Fold:
        residual = _residual(data, x.point, gamma, x.value)
        return _Fold(residual, jnp.log(theory.stability(data, x.point, gamma, x.value)))

    value, fine = _finish(equations, _Fold(point, T), found, data, gamma)
    return jnp.where(found | jnp.isnan(top), value, 0.0), fine


def spin_glass_temperature(
    *,
    order: int,
    load: ArrayLike,
    quality: ArrayLike | None = None,
    quantity: ArrayLike | None = None,
    supervised: bool = True,
) -> Scalar:
    """The temperature below which the other archetypes alone freeze the neurons (q > 0, n = 0).

    For P = 2 the transition is continuous, for more it is where a solution with q > 0 appears; T
    is proportional to the square root of the load then. A supervised memory has it whatever its
    data; an unsupervised one needs `quality` and `quantity`.

    Raises:
        InputError: as in `replica_symmetric`.
    """
    entropy = 0.0 if quality is None and quantity is None else None
    data = law(order, entropy, quality, quantity, supervised)
    gamma, _ = theory.conditions(load, 0.0)
    if order > 2:
        return _onset(order) * jnp.sqrt(gamma * data.crosstalk)

    if supervised:
        return 1 + jnp.sqrt(gamma)
    number, weight = data.minor

    def excess(y, gamma, number, weight):
        """Of the crosstalk's gain over one, at T = 1 + sqrt(gamma) y."""
        T = 1 + jnp.sqrt(gamma) * y
        return 1 / y**2 + number * gamma * (weight / (T - weight)) ** 2 - 1

    # Convex and falling, so that Newton's method comes up from the supervised value.
    y = root(excess, jnp.ones((), jnp.result_type(gamma, weight)), gamma, number, weight)
    return 1 + jnp.sqrt(gamma) * y


def _onset(P: int) -> float:
    """T / sqrt(gamma) where E tanh^2 first has a solution, by the largest value along its curve."""

    def ratio(log_v):
        v = np.exp(log_v)
        # Double precision in NumPy, as this is a constant: a trapezoidal sum in g, fine enough for
        # the widths that matter (v below 100).
        g = np.linspace(-9, 9, 4001)
        weight = np.exp(-0.5 * g**2)
        q = np.sum(weight * np.tanh(np.sqrt(v) * g) ** 2) / np.sum(weight)
        return -np.sqrt(0.5 * P * q ** (P - 1) / v)

    from scipy.optimize import minimize_scalar

    grid = np.linspace(-3, 4.6, 60)
    best = grid[int(np.argmin([ratio(x) for x in grid]))]
    found: Any = minimize_scalar(ratio, (best - 0.2, best, best + 0.2), tol=1e-10)
    return float(-found.fun)


@eqx.filter_jit
def _highest_temperature(data: Law, gamma: Array) -> tuple[Array, Array]:
    # No higher than that of a single archetype, whose curve is explicit; and a margin.
    top = 1.05 * jnp.max(jax.vmap(lambda ratio: _alone(data, ratio))(_ratios(data)))
    grid = top * jnp.linspace(0.0, 1.0, _SCAN, dtype=top.dtype)
    found, T, point = _last(lambda T: _survivor(data, gamma, T), grid)

    def equations(x: _Fold, data: Law, gamma: Array) -> _Fold:
        return _fold(data, x.point, gamma, x.value)

    return _finish(equations, _Fold(point, T), found, data, gamma)


def _last(test: Callable[[Array], tuple[Array, Point]], grid: Array) -> tuple[Array, Array, Point]:
    """Whether any of a grid passes, and where past the last one that does it ceases to."""
    passed, points = jax.vmap(test)(grid)
    last = _SCAN - 1 - jnp.argmax(passed[::-1])
    above = grid[jnp.minimum(last + 1, _SCAN - 1)]
    first = jax.tree.map(lambda x: x[last], points)
    return jnp.any(passed), *_halve(test, grid[last], above, first)


def _ratios(data: Law) -> Array:
    dtype = jnp.result_type(data.entropy)
    return jnp.logspace(-3, 2, 400, dtype=dtype)


def _alone(data: Law, ratio: Array) -> Array:
    """The temperature at which a single archetype's field is T / ratio."""
    one, zero = jnp.ones_like(ratio), jnp.zeros_like(ratio)
    n = theory.averages(data, one, zero, ratio).aligned / (1 + data.entropy)
    return ratio * theory.field(data, Point(n, zero), zero, zero)[0]


def _survivor(data: Law, gamma: Array, T: Array) -> tuple[Array, Point]:
    """Whether retrieval is there after some iterations, and where they were the slowest.

    Just past its end the iteration lingers where the solution was: Newton's method starts there.
    """
    data, gamma, T = jax.lax.stop_gradient((data, gamma, T))
    dtype = jnp.result_type(gamma, T, data.entropy)

    def once(_, carry):
        x, slowest, least = carry
        new = theory.step(x, data, gamma, T)
        speed = jnp.where(new.n > _GONE, jnp.abs(new.n - x.n) / new.n, jnp.inf)
        slower = speed < least
        slowest = jax.tree.map(lambda u, v: jnp.where(slower, u, v), new, slowest)
        return new, slowest, jnp.minimum(speed, least)

    x = Point(jnp.ones((), dtype), jnp.zeros((), dtype))
    x, slowest, _ = jax.lax.fori_loop(0, _LOOK, once, (x, x, jnp.asarray(jnp.inf, dtype)))
    return x.n > _GONE, slowest


def _halve(
    survives: Callable[[Array], tuple[Array, Point]], low: Array, high: Array, point: Point
) -> tuple[Array, Point]:
    """The last value to survive between one that does, with its point, and one that does not."""

    def halve(_, carry):
        low, high, point = carry
        middle = 0.5 * (low + high)
        alive, x = survives(middle)
        point = jax.tree.map(lambda new, old: jnp.where(alive, new, old), x, point)
        return jnp.where(alive, middle, low), jnp.where(alive, high, middle), point

    low, _, point = jax.lax.fori_loop(0, _HALVINGS, halve, (low, high, point))
    return low, point


def _residual(data: Law, x: Point, gamma: Array, T: Array) -> Point:
    new = theory.step(x, data, gamma, T)
    return Point(x.n - new.n, x.response - new.response)


def _fold(data: Law, x: Point, gamma: Array, T: Array) -> _Fold:
    """The equations at x, and the determinant of their Jacobian."""
    rows = jax.jacfwd(lambda x: _residual(data, x, gamma, T))(x)
    determinant = rows.n.n * rows.response.response - rows.n.response * rows.response.n
    return _Fold(_residual(data, x, gamma, T), determinant)


def _finish(
    equations: Callable[..., Any], start: _Fold, ask: Array, *theta: Any
) -> tuple[Array, Array]:
    """Newton's method from a start, and whether it converged; NaN unless `ask`."""
    start = jax.lax.stop_gradient(start)

    def conditional(x: _Fold, ask: Array, *theta: Any) -> _Fold:
        real = equations(x, *theta)
        return jax.tree.map(lambda f, u, v: jnp.where(ask, f, u - v), real, x, start)

    found = root(conditional, start, ask, *theta, max_steps=60, throw=False, full=True)
    return jnp.where(ask, found.value.value, jnp.nan), found.converged
