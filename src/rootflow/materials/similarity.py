"""The profile of an infinite couple for given coefficients, differentiable.

With lambda = (moles between the plane and the origin) / sqrt(t), the flux F = D dN/dlambda of
Boltzmann's equation (D N')' + lambda N' / 2 = 0 obeys F = [(1 - Y) int_left Y dlambda + Y
int_right (1 - Y) dlambda] (N+ - N-) / 2, which is Wagner's formula read backwards. The unknown is
here g = F / (dN/ds) over a coordinate s with Y = erfc(-s) / 2: for a constant coefficient g is the
constant sqrt(D), and for others smooth, because the grid follows the composition and not the
position. So a couple whose coefficient spans three decades needs no finer grid.
"""

from functools import lru_cache
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erfc
from jaxtyping import Array, Float
from scipy import special

from ..roots.root import fixed_point
from .curves import hermite

#: Y at the first node is erfc(4.2) / 2 = 1.4e-9.
REACH = 4.2
NODES = 121


class Grid:
    """Nodes in s, and what is known there beforehand.

    Attributes:
        s: nodes, uniform.
        Y, rest: Y and 1 - Y, each with all digits.
        slope: dY/ds.
        left: weights of the integral of Y f ds from minus infinity to each node.
        right: weights of that of (1 - Y) f ds from each node to infinity.
        whole: weights of the integral of f ds from the first node to each.
    """

    s: np.ndarray
    Y: np.ndarray
    rest: np.ndarray
    slope: np.ndarray
    left: np.ndarray
    right: np.ndarray
    whole: np.ndarray

    def __init__(self, nodes: int) -> None:
        s = np.linspace(-REACH, REACH, nodes)
        h = s[1] - s[0]
        self.s = s
        self.Y, self.rest = special.erfc(-s) / 2, special.erfc(s) / 2
        self.slope = np.exp(-(s**2)) / np.sqrt(np.pi)
        self.whole = _cumulative_weights(nodes) * h
        # Beyond the first node f is taken as constant: int Y ds = ierfc(S) / 2.
        tail = (np.exp(-(REACH**2)) / np.sqrt(np.pi) - REACH * special.erfc(REACH)) / 2
        self.left = self.whole * self.Y
        self.left[:, 0] += tail
        backwards = (self.whole[::-1, ::-1]) * self.rest
        backwards[:, -1] += tail
        self.right = backwards


def _cumulative_weights(nodes: int) -> np.ndarray:
    """Weights of the integral up to each node, by cubics through four neighbours, unit spacing."""
    weights = np.zeros((nodes, nodes))
    inner = np.array([-1.0, 13.0, 13.0, -1.0]) / 24
    edge = np.array([9.0, 19.0, -5.0, 1.0]) / 24
    for i in range(1, nodes):
        weights[i] = weights[i - 1]
        if i == 1:
            weights[i, :4] += edge
        elif i == nodes - 1:
            weights[i, -4:] += edge[::-1]
        else:
            weights[i, i - 2 : i + 2] += inner
    return weights


@lru_cache(maxsize=8)
def grid(nodes: int = NODES) -> Grid:
    """The grid of so many nodes."""
    return Grid(nodes)


class Similarity(eqx.Module):
    """A solution at the nodes.

    Attributes:
        position: lambda = x / sqrt(t) at constant volume, m/sqrt(s), from the Matano plane.
        slope: dlambda/ds.
        log_g: ln g.
        converged: whether the iteration was.
        steps: of the iteration.
    """

    position: Float[Array, " nodes"]
    slope: Float[Array, " nodes"]
    log_g: Float[Array, " nodes"]
    converged: Array
    steps: Array


def solve(
    log_D: Float[Array, " nodes"], *, throw: bool = True, start: Array | None = None
) -> Similarity:
    """The similarity solution for the logarithm of a coefficient at the nodes of `grid`.

    The map ln g <- (ln g + ln T(g)) / 2, with T(g) Wagner's bracket of the profile that g implies,
    is a contraction of positive functions (T turns their order round and scales as 1 / g); its
    fixed point is found by `rf.fixed_point`, with the implicit derivative.

    Args:
        log_D: ln D at the nodes; m²/s.
        throw: raise where the iteration does not converge.
        start: ln g to begin with.
    """
    g = grid(len(log_D))
    left, right = jnp.asarray(g.left, log_D.dtype), jnp.asarray(g.right, log_D.dtype)
    Y, rest = jnp.asarray(g.Y, log_D.dtype), jnp.asarray(g.rest, log_D.dtype)
    dY = jnp.asarray(g.slope, log_D.dtype)
    # Scaled, so that the tolerances mean the same for any size of the coefficient.
    level = jnp.mean(log_D)

    def mapping(log_g: Array, log_D: Array) -> Array:
        speed = jnp.exp(log_D - log_g)
        bracket = rest * (left @ speed) + Y * (right @ speed)
        return 0.5 * (log_g + jnp.log(bracket / (2 * dY)))

    first = 0.5 * (log_D - level) if start is None else start
    found = fixed_point(
        mapping, first, log_D - level, throw=throw, full=True, linear_solver="lu", max_steps=400
    )
    log_g = found.value + 0.5 * level
    slope = jnp.exp(log_D - log_g)
    whole = jnp.asarray(g.whole, log_D.dtype)
    position = whole @ slope
    # The origin: as much is missing on its left as there is too much on its right.
    return Similarity(
        position - matano(position, slope, Y), slope, log_g, found.converged, found.steps
    )


def matano(position: Array, slope: Array, Y: Array) -> Array:
    """The plane left of which as much of Y is missing as there is too much on its right."""
    whole = jnp.asarray(grid(len(position)).whole, position.dtype)
    return position[-1] - whole[-1] @ (Y * slope)


def profile_at(z: Any, position: Array, slope: Array) -> Array:
    """Y at places z, from the positions of the nodes and d position / ds there."""
    s = jnp.asarray(grid(len(position)).s, position.dtype)
    return 0.5 * erfc(-hermite(z, position, s, 1 / slope))


def with_volume(
    solution: Similarity, V: Float[Array, " nodes"], time: Array
) -> tuple[Array, Array]:
    """Positions of the nodes and their derivative in s, m, for a molar volume at the nodes.

    Wagner's coefficient makes N diffuse over moles per area n with D / V²: what was solved for is
    D / V² times the square of any reference, and dx = V dn.

    Args:
        solution: for ln D - 2 ln (V / reference), reference V[0].
        V: m³/mol.
        time: s.
    """
    relative = V / V[0]
    slope = relative * solution.slope
    whole = jnp.asarray(grid(len(V)).whole, V.dtype)
    root_t = jnp.sqrt(time)
    return root_t * (whole @ slope), root_t * slope
