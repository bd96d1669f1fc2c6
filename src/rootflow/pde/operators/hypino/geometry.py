"""Where a problem is posed: a domain, its boundary with conditions, and both as images."""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from scipy.spatial import KDTree

from ....errors import InputError
from ....ground.checks import whole
from ...informed.domains import HAIR, Box, Difference, Disk, Domain, Polygon

SQUARE = Box(((-1.0, 1.0), (-1.0, 1.0)))
# exp(-d / 0.1) > 0.8, as the masks of the paper are drawn.
_REACH = 0.1 * math.log(1 / 0.8)
_DENSITY = 96


def pixels(grid: int) -> Float[np.ndarray, "grid grid 2"]:
    """The points of an image; row 0 is y = 1, column 0 is x = -1."""
    line = np.linspace(-1.0, 1.0, grid)
    x, y = np.meshgrid(line, line[::-1])
    return np.stack([x, y], -1)


class Raster(eqx.Module):
    """A geometry on a grid of pixels, and pools of its points; arrays alone, which can be stacked.

    Attributes:
        inside: pixels of the domain.
        near: pixels near the boundary with a Dirichlet and with a Neumann condition.
        at: for each pixel the nearest such boundary point.
        normals: there.
        edge: points of the boundary, with `edge_normals` and `on`, whether they have a Dirichlet
            and a Neumann condition.
        interior: points of the domain.
    """

    inside: Bool[Array, "grid grid"]
    near: Bool[Array, "2 grid grid"]
    at: Float[Array, "2 grid grid 2"]
    normals: Float[Array, "2 grid grid 2"]
    edge: Float[Array, "m 2"]
    edge_normals: Float[Array, "m 2"]
    on: Bool[Array, "2 m"]
    interior: Float[Array, "k 2"]

    @property
    def masks(self) -> Bool[Array, "3 grid grid"]:
        """Where there is a source, a Dirichlet value and a Neumann value."""
        return jnp.concatenate([self.inside[None], self.near])


class Piece(eqx.Module):
    """A part of the boundary and what is prescribed on it.

    Attributes:
        points: shape (m, 2).
        normals: of length one, shape (m, 2); the direction of the Neumann condition.
        dirichlet: whether the value is given.
        neumann: whether the derivative along the normal is given.
    """

    points: np.ndarray
    normals: np.ndarray
    dirichlet: bool = eqx.field(static=True, default=True)
    neumann: bool = eqx.field(static=True, default=False)


class Geometry(eqx.Module):
    """A domain in [-1, 1]² and the pieces of its boundary that have a condition.

    Raises:
        InputError: a domain that is not within the square, or no piece with a condition.
    """

    domain: Domain
    pieces: tuple[Piece, ...]

    def __init__(self, domain: Domain, pieces: Sequence[Piece]) -> None:
        outside = domain.dim != 2 or any(low < -1 or high > 1 for low, high in domain.bounds)
        if outside:
            raise InputError(
                f"a domain must lie within [-1, 1]²; its bounds are {domain.bounds}. Scale it."
            )
        self.domain = domain
        self.pieces = tuple(p for p in pieces if len(p.points) and (p.dirichlet or p.neumann))
        if not self.pieces:
            raise InputError("no piece of the boundary has a condition: nothing fixes a solution.")

    def raster(self, grid: int, *, edge: int = 512, interior: int = 1024, seed: int = 0) -> Raster:
        """The geometry on grid x grid pixels, with pools of so many points.

        Pixels nearer to the boundary than 0.0223, or half a pixel where that is more, belong to it
        (thinner lines would vanish on coarse grids).
        """
        with jax.ensure_compile_time_eval():
            return self._raster(whole("grid", grid, 4), edge, interior, seed)

    def _raster(self, grid, edge, interior, seed):
        at = pixels(grid)
        reach = max(_REACH, 1.02 / (grid - 1))
        every = [np.concatenate([getattr(p, name) for p in self.pieces])
                 for name in ("points", "normals")]  # fmt: skip
        sizes = [len(p.points) for p in self.pieces]
        kinds = [[p.dirichlet for p in self.pieces], [p.neumann for p in self.pieces]]
        on = np.array([np.repeat(kind, sizes) for kind in kinds])
        near, nearest, normals = zip(
            *(_nearest(at, every[0], every[1], kind, reach) for kind in on)
        )
        chosen = np.random.default_rng(seed).choice(sum(sizes), edge, replace=sum(sizes) < edge)
        kind = jnp.result_type(float)
        return Raster(
            jnp.asarray(self.domain.contains(at.reshape(-1, 2)).reshape(grid, grid)),
            jnp.asarray(np.stack(near)), jnp.asarray(np.stack(nearest), kind),
            jnp.asarray(np.stack(normals), kind), jnp.asarray(every[0][chosen], kind),
            jnp.asarray(every[1][chosen], kind), jnp.asarray(on[:, chosen]),
            jnp.asarray(self.domain.sample(interior, seed=seed), kind),
        )  # fmt: skip


def _nearest(at, points, normals, chosen, reach):
    if not chosen.any():
        return np.zeros(at.shape[:2], bool), at, np.zeros_like(at)
    distance, index = KDTree(points[chosen]).query(at)
    return distance < reach, points[chosen][index], normals[chosen][index]


def square(kind: str = "elliptic") -> Geometry:
    """[-1, 1]² with values on all sides; or, with y the time, on the sides and at y = -1.

    Args:
        kind: `"elliptic"`; `"parabolic"`: the end y = 1 is free; `"hyperbolic"`: u_y is given at
            y = -1, too.
    """
    edge = SQUARE.boundary(4 * _DENSITY * 2)
    if kind == "elliptic":
        return Geometry(SQUARE, [Piece(edge.x, edge.normals)])
    sides, start = np.abs(edge.normals[:, 0]) > 0.5, edge.normals[:, 1] < -0.5
    # The derivative that a wave begins with is u_y, not that along the outward normal.
    up = np.tile([0.0, 1.0], (int(start.sum()), 1))
    begin = Piece(edge.x[start], up, True, kind == "hyperbolic")
    return Geometry(SQUARE, [Piece(edge.x[sides], edge.normals[sides]), begin])


def with_holes(
    holes: Sequence[Domain],
    *,
    whole: Domain = SQUARE,
    conditions: Sequence[tuple[bool, bool]] | None = None,
    outer_neumann: bool = False,
) -> Geometry:
    """A domain without some others; values on the outside.

    Args:
        holes: what is taken away, disks, boxes, polygons and their differences.
        whole: from what.
        conditions: for each hole whether the value and whether the normal derivative is given.
        outer_neumann: whether the normal derivative is given on the outside, too.

    Raises:
        InputError: nothing is left, or not one pair for each hole.
    """
    conditions = [(True, False)] * len(holes) if conditions is None else list(conditions)
    if len(conditions) != len(holes):
        raise InputError(f"there are {len(holes)} holes and {len(conditions)} pairs of conditions.")
    domain: Domain = whole
    for hole in holes:
        domain = Difference(domain, hole)
    parts: list[tuple[Domain, float, bool, bool]] = [(whole, 1.0, True, outer_neumann)]
    parts += [(hole, -1.0, *pair) for hole, pair in zip(holes, conditions)]
    pieces = []
    for number, (part, sign, dirichlet, neumann) in enumerate(parts):
        around = 2 * sum(high - low for low, high in part.bounds)
        edge = part.boundary(max(64, int(_DENSITY * around)), seed=number)
        hair = HAIR * max(high - low for low, high in whole.bounds)
        keep = domain.contains(edge.x - sign * hair * edge.normals)
        pieces.append(Piece(edge.x[keep], sign * edge.normals[keep], dirichlet, neumann))
    return Geometry(domain, pieces)


def random_holes(rng: np.random.Generator, most: int = 3) -> Geometry:
    """The square with 0 to `most` holes and conditions at random, as the paper draws them."""
    holes = [_hole(rng) for _ in range(rng.integers(0, most + 1))]
    conditions = []
    for _ in holes:
        neumann = bool(rng.random() < 0.5)
        conditions.append((not neumann or bool(rng.random() < 0.5), neumann))
    return with_holes(holes, conditions=conditions, outer_neumann=bool(rng.random() < 0.25))


def _hole(rng) -> Any:
    shape, radius = rng.integers(0, 4), rng.uniform(0.15, 0.3)
    x, y = rng.uniform(-0.6, 0.6, 2)
    disk = Disk((x, y), radius)
    if shape == 0:
        return disk
    if shape == 1:
        angle = rng.uniform(0, 2 * np.pi) + 2 * np.pi / 3 * np.arange(3)
        return Polygon(np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], 1))
    width, height = radius * rng.uniform(0.6, 1.0, 2)
    if shape == 2:
        return Box(((x - width, x + width), (y - height, y + height)))
    return disk - Disk((x + radius, y), 0.7 * radius)
