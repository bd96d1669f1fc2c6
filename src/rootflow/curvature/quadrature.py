"""Stochastic Lanczos quadrature: spectral densities and sums over spectra, with standard errors.

Bai, Fahey and Golub (1996); Lin, Saad and Yang (2016); Ubaru, Chen and Saad (2017).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Key

from ..errors import InputError
from ..ground.tracing import raise_if
from . import krylov, symmetry
from .checks import require_count, require_key, require_operator, require_positive
from .estimates import Estimate, estimate
from .operators import Operator, Vector, compiled


class Quadrature(NamedTuple):
    """The spectral measure of a start, as Gauss quadrature: v.f(H) v = sum of weights f(nodes).

    Exact for polynomials of degree 2 steps - 1, and for every f where the recurrence ended by
    itself (`length` < steps): then the nodes are eigenvalues. The nodes are never outside of the
    spectrum.

    Attributes:
        nodes: shape (steps,), ascending; where the recurrence ended early the last ones repeat the
            first and have weight zero.
        weights: shape (steps,), summing to one.
        start: v, a unit vector, shape (n,).
        length: the steps that were made.
    """

    nodes: Float[Array, " steps"]
    weights: Float[Array, " steps"]
    start: Vector
    length: Int[Array, ""]


def lanczos(
    operator: Operator,
    steps: int,
    *,
    key: Key[Array, ""] | None = None,
    start: Vector | None = None,
) -> Quadrature:
    """Lanczos with full re-orthogonalisation from one vector; breakdown is an exact result.

    Args:
        operator: symmetric; it is tested first.
        steps: products; more than there are distinct eigenvalues do no harm.
        key: for a random start, uniform on the unit sphere, and for the test of symmetry.
        start: another start; it is scaled to length one.

    Raises:
        InputError: an operator that is not symmetric, linear and finite; options that do not fit.
    """
    require_operator(operator)
    if start is None:
        require_key(key, "lanczos")
    else:
        given = jnp.asarray(start, operator.dtype)
        if given.shape != (operator.size,):
            raise InputError(
                f"start must have shape ({operator.size},), that of the operator, got "
                f"{given.shape}."
            )
        start = raise_if(given, ~(jnp.linalg.norm(given) > 0), "start is zero", InputError)
    steps = require_count(steps, "steps")
    key = jax.random.key(0) if key is None else key
    key_test, key = jax.random.split(key)
    return _lanczos(symmetry.checked(operator, key_test), key, start, steps)


@compiled
def _lanczos(operator, key, start, steps):
    n, dtype = operator.size, operator.dtype
    product = operator.linear()
    start = jax.random.normal(key, (n,), dtype) if start is None else start
    start = start / jnp.linalg.norm(start)
    t = krylov.tridiagonal(product, start, steps)
    nodes, weights = krylov.gauss(t)
    return Quadrature(nodes, weights, start, t.length)


def quadratures(
    operator: Operator, probes: int, steps: int, key: Key[Array, ""]
) -> tuple[Float[Array, "probes steps"], Float[Array, "probes steps"]]:
    """Nodes and weights for each of several random probes, uniform on the unit sphere."""
    key_test, key = jax.random.split(key)
    operator = symmetry.checked(operator, key_test)
    return _quadratures(operator, key, probes, min(steps, operator.size))


@compiled
def _quadratures(operator, key, probes, steps):
    n, dtype = operator.size, operator.dtype
    product = operator.linear()

    def one(key):
        start = jax.random.normal(key, (n,), dtype)
        return krylov.gauss(krylov.tridiagonal(product, start / jnp.linalg.norm(start), steps))

    at_once = operator.at_once(probes, n * steps)
    keys = jax.random.split(key, probes)
    if at_once == 1:
        return jax.lax.map(one, keys)
    return jax.lax.map(one, keys, batch_size=at_once)


class Density(NamedTuple):
    """A spectral density that is smoothed by normal curves.

    Attributes:
        grid: shape (points,), ascending.
        density: at the grid; it integrates to one.
        standard_error: of `density`, from the spread over the probes.
        sigma: the standard deviation of the normal curves, which is the resolution.
        nodes: Ritz values, shape (probes, steps).
        weights: their weights, shape (probes, steps); each row sums to one.
    """

    grid: Float[Array, " points"]
    density: Float[Array, " points"]
    standard_error: Float[Array, " points"]
    sigma: Float[Array, ""]
    nodes: Float[Array, "probes steps"]
    weights: Float[Array, "probes steps"]

    @property
    def error(self) -> Float[Array, ""]:
        """The standard error, integrated over the grid."""
        return jnp.trapezoid(self.standard_error, self.grid)


def density(
    operator: Operator,
    *,
    probes: int = 8,
    steps: int = 80,
    key: Key[Array, ""],
    sigma: float | None = None,
    points: int = 1000,
    grid: Float[Array, " points"] | None = None,
    target: float | None = None,
    max_probes: int = 200,
) -> Density:
    """The density of eigenvalues by stochastic Lanczos quadrature, with its standard error.

    Args:
        operator: symmetric; it is tested first.
        probes: random vectors, at least 2, because their spread is the error bar.
        steps: products for each; no more than the operator has rows are made.
        key: for the probes.
        sigma: the standard deviation of the normal curves, by default the range of the Ritz values
            over 2 steps. Smaller ones show spikes at the Ritz values, larger ones a bulk that is
            not there.
        points: of the grid, which reaches 5 sigma beyond the outermost Ritz values.
        grid: another grid, ascending.
        target: go on with more probes until `Density.error` is at most this (not inside `jit`).
        max_probes: the most to take for it.

    Raises:
        InputError: an operator that is not symmetric, linear and finite; a grid that is too coarse
            for sigma; options that do not fit.
    """
    require_operator(operator)
    require_key(key, "density")
    probes, steps = require_count(probes, "probes", 2), require_count(steps, "steps")
    points = require_count(points, "points", 3)
    if sigma is not None:
        sigma = require_positive(sigma, "sigma")
    if target is not None:
        target = require_positive(target, "target")
    given = None if grid is None else jnp.asarray(grid, operator.dtype)
    taken: list[Any] = []
    while True:
        key, now = jax.random.split(key)
        taken.append(quadratures(operator, probes, steps, now))
        nodes, weights = (jnp.concatenate(parts) for parts in zip(*taken, strict=True))
        width, places = _places(nodes, weights, steps, sigma, points, given)
        mean, error = _smoothed(nodes, weights, width, places)
        found = Density(places, mean, error, width, nodes, weights)
        if target is None:
            return found
        if isinstance(nodes, Tracer):
            raise InputError("target= decides from numbers, which is not possible inside jit.")
        if float(found.error) <= target or len(nodes) >= max_probes:
            return found


def _places(nodes, weights, steps, sigma, points, grid):
    low = jnp.min(jnp.where(weights > 0, nodes, jnp.inf))
    high = jnp.max(jnp.where(weights > 0, nodes, -jnp.inf))
    if sigma is None:
        # A spectrum of one point still gets a curve.
        scale = jnp.maximum(high - low, 1e-3 * jnp.maximum(jnp.abs(high), jnp.abs(low)))
        sigma = jnp.where(scale > 0, scale, 1) / (2 * min(steps, nodes.shape[1]))
    sigma = jnp.asarray(sigma, nodes.dtype)
    if grid is None:
        grid = jnp.linspace(low - 5 * sigma, high + 5 * sigma, points)
    spacing = jnp.max(jnp.diff(grid))
    grid = raise_if(
        grid,
        spacing > 1.5 * sigma,
        "the grid is too coarse for sigma, whose curves would fall between its points: take more "
        "points or a larger sigma",
        InputError,
    )
    return sigma, grid


@jax.jit
def _smoothed(nodes, weights, sigma, grid):
    def one(probe):
        nodes, weights = probe
        z = (grid[:, None] - nodes) / sigma
        return jnp.exp(-0.5 * z**2) @ weights / (sigma * np.sqrt(2 * np.pi))

    curves = jax.lax.map(one, (nodes, weights))
    spread = jnp.std(curves, axis=0, ddof=1)
    return jnp.mean(curves, axis=0), spread / np.sqrt(len(nodes))


def spectral_sum(
    operator: Operator,
    function: Callable[[Array], Array],
    *,
    probes: int = 16,
    steps: int = 60,
    key: Key[Array, ""],
) -> Estimate:
    """The sum of a function over all eigenvalues, tr f(H), with its standard error.

    Args:
        operator: symmetric; it is tested first.
        function: of an array of eigenvalues, elementwise. For jumps the quadrature is only as good
            as its nodes; for smooth functions it converges fast.
        probes: random vectors, at least 2.
        steps: products for each.
        key: for the probes.
    """
    require_operator(operator)
    require_key(key, "spectral_sum")
    probes, steps = require_count(probes, "probes", 2), require_count(steps, "steps")
    nodes, weights = quadratures(operator, probes, steps, key)
    values = jnp.where(weights > 0, function(nodes), 0)
    return estimate(operator.size * jnp.sum(weights * values, axis=1))
