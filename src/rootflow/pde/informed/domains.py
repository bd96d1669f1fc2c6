"""Domains with points inside and on their boundary: intervals, boxes, disks, polygons, space-time.

A domain of one dimension has points of shape (), any other of shape (dim,).
"""

import math
from abc import abstractmethod
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ...errors import InputError
from .points import low_discrepancy, shifted
from .polygons import inside_polygon, triangles

_POOL = 8192
#: How far from its boundary a domain is asked for its side, in units of its size.
HAIR = 1e-7


class Edge(NamedTuple):
    """Points of a boundary with their outward normals.

    Attributes:
        x: points, shape (n,) or (n, dim).
        normals: of length one, of the same shape.
    """

    x: Float[np.ndarray, "n ..."]
    normals: Float[np.ndarray, "n ..."]


class Domain(eqx.Module):
    """A set of points; `a - b` is the part of a that is not in b."""

    @property
    @abstractmethod
    def bounds(self) -> tuple[tuple[float, float], ...]:
        """The smallest box that holds it: a pair for each axis."""

    @property
    def dim(self) -> int:
        """How many coordinates a point has."""
        return len(self.bounds)

    @property
    def cube(self) -> int:
        """How many coordinates `place` takes."""
        return self.dim

    @abstractmethod
    def place(self, z: Float[Array, "n cube"]) -> Float[Array, "n dim"]:
        """Evenly distributed points for points of the unit cube; traced."""

    @abstractmethod
    def holds(self, x: Float[np.ndarray, "n dim"]) -> np.ndarray:
        """Whether points are inside, shape (n,)."""

    @abstractmethod
    def around(self, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """About n points of the boundary and their normals, each of shape (n, dim)."""

    @property
    def perimeter(self) -> float:
        """The measure of the boundary; by default that of the smallest box."""
        return Box(self.bounds).perimeter

    def _shaped(self, x: Any) -> Any:
        return x[:, 0] if self.dim == 1 else x

    def contains(self, x: Any) -> np.ndarray:
        """Whether points, shape (n,) or (n, dim), are inside."""
        x = np.asarray(x, float)
        return self.holds(x.reshape(-1, self.dim))

    def sample(self, n: int, *, seed: int = 0) -> Float[np.ndarray, "n ..."]:
        """n fixed points of low discrepancy, shape (n,) in one dimension, else (n, dim)."""
        z = jnp.asarray(low_discrepancy(self.cube, n, seed))
        return self._shaped(np.asarray(self.place(z)))

    def draw(self, key: PRNGKeyArray, n: int) -> Float[Array, "n ..."]:
        """n random points, together of low discrepancy; traced."""
        base = jnp.asarray(low_discrepancy(self.cube, n, 0))
        return self._shaped(self.place(shifted(base, key)))

    def boundary(self, n: int, *, seed: int = 0) -> Edge:
        """About n points of the boundary."""
        x, normals = self.around(n, seed)
        return Edge(self._shaped(x), self._shaped(normals))

    def __sub__(self, other: "Domain") -> "Difference":
        return Difference(self, other)


def _pair(name: str, value: Any) -> tuple[float, float]:
    try:
        low, high = (float(v) for v in value)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be two numbers (low, high); got {value!r}.") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(
            f"{name} must be (low, high) with low < high, both finite; got ({low:g}, {high:g}), "
            "which holds no points."
        )
    return low, high


class Box(Domain):
    """A product of intervals.

    Args:
        sides: (low, high) for each axis.

    Raises:
        InputError: no side, or one that holds no points.
    """

    sides: tuple[tuple[float, float], ...] = eqx.field(static=True)

    def __init__(self, sides: Any) -> None:
        self.sides = tuple(_pair(f"side {i} of the box", side) for i, side in enumerate(sides))
        if not self.sides:
            raise InputError("a box needs a pair (low, high) for each axis; got none.")

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        return self.sides

    @property
    def perimeter(self) -> float:
        lengths = np.array([high - low for low, high in self.sides])
        return float(2 * np.sum(np.prod(lengths) / lengths))

    def place(self, z: Float[Array, "n cube"]) -> Float[Array, "n dim"]:
        low, high = np.array(self.sides).T
        return low.astype(z.dtype) + (high - low).astype(z.dtype) * z

    def holds(self, x: Float[np.ndarray, "n dim"]) -> np.ndarray:
        low, high = np.array(self.sides).T
        return np.all((x >= low) & (x <= high), axis=1)

    def around(self, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        if self.dim == 1:
            low, high = self.sides[0]
            return np.array([[low], [high]]), np.array([[-1.0], [1.0]])
        lengths = np.array([high - low for low, high in self.sides])
        areas = np.prod(lengths) / lengths
        points, normals = [], []
        for axis, area in enumerate(areas):
            count = max(1, round(n * area / (2 * areas.sum())))
            z = low_discrepancy(self.dim - 1, count, seed + axis)
            for end, sign in ((0.0, -1.0), (1.0, 1.0)):
                on = np.insert(z, axis, end, axis=1)
                points.append(np.array(self.sides)[:, 0] + lengths * on)
                normals.append(sign * np.eye(self.dim)[[axis] * count])
        return np.concatenate(points), np.concatenate(normals)


class Interval(Box):
    """The numbers from low to high.

    Raises:
        InputError: low is not below high.
    """

    def __init__(self, low: float, high: float) -> None:
        self.sides: tuple[tuple[float, float], ...] = (_pair("the interval", (low, high)),)


class Disk(Domain):
    """The points within a distance of a centre, in the plane.

    Raises:
        InputError: a radius that is not positive.
    """

    centre: tuple[float, float] = eqx.field(static=True)
    radius: float = eqx.field(static=True)

    def __init__(self, centre: Any = (0.0, 0.0), radius: float = 1.0) -> None:
        x, y = (float(v) for v in centre)
        self.centre, self.radius = (x, y), float(radius)
        if not (0 < self.radius < math.inf):
            raise InputError(f"radius={radius} of a disk must be positive: it holds no points.")

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        x, y = self.centre
        return (x - self.radius, x + self.radius), (y - self.radius, y + self.radius)

    @property
    def perimeter(self) -> float:
        return 2 * math.pi * self.radius

    def place(self, z: Float[Array, "n cube"]) -> Float[Array, "n dim"]:
        r, angle = self.radius * jnp.sqrt(z[:, 0]), 2 * jnp.pi * z[:, 1]
        centre = jnp.asarray(self.centre, z.dtype)
        return centre + r[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], 1)

    def holds(self, x: Float[np.ndarray, "n dim"]) -> np.ndarray:
        return np.sum((x - np.array(self.centre)) ** 2, 1) <= self.radius**2

    def around(self, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        angle = 2 * np.pi * low_discrepancy(1, n, seed)[:, 0]
        normals = np.stack([np.cos(angle), np.sin(angle)], 1)
        return np.array(self.centre) + self.radius * normals, normals


class Polygon(Domain):
    """The inside of a closed line of straight edges that does not cross itself.

    Args:
        vertices: shape (n, 2), in either sense; the first may be repeated at the end.

    Raises:
        InputError: fewer than three vertices, or no area, or edges that cross.
    """

    vertices: tuple[tuple[float, float], ...] = eqx.field(static=True)

    def __init__(self, vertices: Any) -> None:
        v = np.asarray(vertices, float)
        if v.ndim != 2 or v.shape[1] != 2 or len(v) < 3 or not np.all(np.isfinite(v)):
            raise InputError(
                f"vertices must be at least three finite points, shape (n, 2); got {v.shape}."
            )
        v = v[np.any(v != np.roll(v, -1, 0), axis=1)]  # an edge of no length has no normal
        area = 0.5 * np.sum(v[:, 0] * np.roll(v[:, 1], -1) - v[:, 1] * np.roll(v[:, 0], -1))
        if len(v) < 3 or not abs(area) > 1e-14 * np.ptp(v, axis=0).max() ** 2:
            raise InputError("the vertices lie on a line: the polygon holds no points.")
        v = v if area > 0 else v[::-1]
        self.vertices = tuple((float(x), float(y)) for x, y in v)
        triangles(v)

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        v = np.array(self.vertices)
        (x0, y0), (x1, y1) = v.min(0), v.max(0)
        return (float(x0), float(x1)), (float(y0), float(y1))

    @property
    def perimeter(self) -> float:
        v = np.array(self.vertices)
        return float(np.sum(np.linalg.norm(np.roll(v, -1, 0) - v, axis=1)))

    def place(self, z: Float[Array, "n cube"]) -> Float[Array, "n dim"]:
        corners = triangles(np.array(self.vertices))
        a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        areas = 0.5 * np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
        ends = np.cumsum(areas) / areas.sum()
        starts = ends - areas / areas.sum()
        which = jnp.clip(jnp.searchsorted(jnp.asarray(ends), z[:, 0]), 0, len(ends) - 1)
        first = (z[:, 0] - jnp.asarray(starts)[which]) / jnp.asarray(ends - starts)[which]
        root = jnp.sqrt(jnp.clip(first, 0.0, 1.0))[:, None]
        second = z[:, 1:2]
        corner, a, b = (jnp.asarray(v)[which] for v in (corners[:, 0], a, b))
        return (corner + root * ((1 - second) * a + second * b)).astype(z.dtype)

    def holds(self, x: Float[np.ndarray, "n dim"]) -> np.ndarray:
        return inside_polygon(x, np.array(self.vertices))

    def around(self, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        v = np.array(self.vertices)
        edges = np.roll(v, -1, 0) - v
        lengths = np.linalg.norm(edges, axis=1)
        place = low_discrepancy(1, n, seed)[:, 0] * lengths.sum()
        ends = np.cumsum(lengths)
        which = np.minimum(np.searchsorted(ends, place), len(ends) - 1)
        along = (place - (ends - lengths)[which]) / lengths[which]
        normals = np.stack([edges[:, 1], -edges[:, 0]], 1) / lengths[:, None]
        return v[which] + along[:, None] * edges[which], normals[which]


class Difference(Domain):
    """The points of `whole` that are not in `hole`.

    Raises:
        InputError: domains of different dimensions, or nothing is left.
    """

    whole: Domain
    hole: Domain

    def __init__(self, whole: Domain, hole: Domain) -> None:
        if not (isinstance(whole, Domain) and isinstance(hole, Domain)):
            raise InputError("a difference is of two domains.")
        if whole.dim != hole.dim:
            raise InputError(
                f"a difference is of domains of one dimension; got {whole.dim} and {hole.dim}."
            )
        self.whole, self.hole = whole, hole
        if not len(self._kept(4096, 0)):
            raise InputError(
                "the difference of the two domains holds no points: the hole covers the whole."
            )

    def _kept(self, n, seed):
        with jax.ensure_compile_time_eval():
            x = np.asarray(self.whole.sample(n, seed=seed)).reshape(n, -1)
        return x[~self.hole.holds(x)]

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        return self.whole.bounds

    def place(self, z: Float[Array, "n cube"]) -> Float[Array, "n dim"]:
        raise InputError("a difference of domains has no map from the cube: use sample or draw.")

    def holds(self, x: Float[np.ndarray, "n dim"]) -> np.ndarray:
        return self.whole.holds(x) & ~self.hole.holds(x)

    def sample(self, n: int, *, seed: int = 0) -> Float[np.ndarray, "n ..."]:
        tried = n
        while True:
            tried *= 2
            kept = self._kept(tried, seed)
            if len(kept) >= n:
                return self._shaped(kept[:n])

    def draw(self, key: PRNGKeyArray, n: int) -> Float[Array, "n ..."]:
        pool = jnp.asarray(self.sample(max(_POOL, n)))
        return jax.random.choice(key, pool, (n,), replace=False)

    @property
    def perimeter(self) -> float:
        return self.whole.perimeter + self.hole.perimeter

    def around(self, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        x, normals = self._edges(n, seed)
        # Parts of both boundaries that are none of the difference are left out.
        return self._edges(n * n // len(x), seed) if 0 < len(x) < n else (x, normals)

    def _edges(self, n, seed):
        of_hole = round(n * self.hole.perimeter / self.perimeter)
        outer, outward = self.whole.around(max(1, n - of_hole), seed)
        inner, inward = self.hole.around(max(1, of_hole), seed + 1)
        # Where a side of the hole lies on one of the whole neither is a boundary: a hair to the one
        # side of it is the hole, to the other the outside.
        hair = HAIR * max(high - low for low, high in self.bounds)
        free = self.holds(outer - hair * outward)
        within = self.holds(inner + hair * inward)
        return (
            np.concatenate([outer[free], inner[within]]),
            np.concatenate([outward[free], -inward[within]]),
        )


class SpaceTime(Domain):
    """Points of a domain at times of a span; the time is the last coordinate.

    Args:
        space: a domain.
        span: (t0, t1).

    Raises:
        InputError: no domain, or a span that holds no times.
    """

    space: Domain
    span: tuple[float, float] = eqx.field(static=True)

    def __init__(self, space: Domain, span: Any) -> None:
        if not isinstance(space, Domain):
            raise InputError(
                f"space must be a domain such as pde.Interval(0, 1); got {space!r:.60}."
            )
        self.space, self.span = space, _pair("the span of times", span)

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        return (*self.space.bounds, self.span)

    @property
    def cube(self) -> int:
        return self.space.cube + 1

    @property
    def perimeter(self) -> float:
        return self.space.perimeter * (self.span[1] - self.span[0])

    def place(self, z: Float[Array, "n cube"]) -> Float[Array, "n dim"]:
        t = self.span[0] + (self.span[1] - self.span[0]) * z[:, -1:]
        return jnp.concatenate([self.space.place(z[:, :-1]), t], 1)

    def _with_times(self, x, seed):
        x = np.asarray(x).reshape(len(x), -1)
        # A sequence of its own, in an order of its own: pairs fill the product.
        z = np.random.default_rng(seed).permutation(low_discrepancy(1, len(x), seed + 7)[:, 0])
        return np.column_stack([x, self.span[0] + (self.span[1] - self.span[0]) * z])

    def sample(self, n: int, *, seed: int = 0) -> Float[np.ndarray, "n ..."]:
        if isinstance(self.space, Difference):
            return self._with_times(self.space.sample(n, seed=seed), seed)
        return super().sample(n, seed=seed)

    def draw(self, key: PRNGKeyArray, n: int) -> Float[Array, "n ..."]:
        if not isinstance(self.space, Difference):
            return super().draw(key, n)
        at, when = jax.random.split(key)
        x = self.space.draw(at, n).reshape(n, -1)
        t = jax.random.uniform(when, (n, 1), x.dtype, *self.span)
        return jnp.concatenate([x, t], 1)

    def holds(self, x: Float[np.ndarray, "n dim"]) -> np.ndarray:
        t = x[:, -1]
        return self.space.holds(x[:, :-1]) & (t >= self.span[0]) & (t <= self.span[1])

    def around(self, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """The sides: the boundary of space at all times, without the beginning and the end."""
        x, normals = self.space.around(n, seed)
        if self.space.dim == 1:  # two points only
            repeats = max(1, n // len(x))
            x, normals = np.repeat(x, repeats, 0), np.repeat(normals, repeats, 0)
        return self._with_times(x, seed), np.column_stack([normals, np.zeros(len(x))])

    def at(self, t: float, n: int, *, seed: int = 0) -> Float[np.ndarray, "n dim"]:
        """n points at one time."""
        x = np.asarray(self.space.sample(n, seed=seed)).reshape(n, -1)
        return np.column_stack([x, np.full(n, float(t))])
