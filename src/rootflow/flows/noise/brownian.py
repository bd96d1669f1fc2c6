"""Brownian motion as a function of (key, time)."""

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Shaped, UInt32

from ...errors import InputError
from ...ground.tracing import is_traced
from .base import Increment, Noise, checked_shape, checked_span, within
from .counter import normals, words

#: Levels of the tree, unless the user says otherwise: cells of 1/65,536 of the span.
_DEPTH = 16


class BrownianMotion(Noise):
    """A standard Brownian motion W on [t0, t1], W(t0) = 0, with independent components.

    The path is a function of the key and the time alone: it can be asked again, at other times, in
    any order, under `jit` and `vmap`, forwards and backwards, and answers from the same path;
    increments add up to round-off. It is a binary tree of the span: W at the midpoint of a cell is
    drawn given W at its ends, with a random number that belongs to that cell, `depth` times over;
    inside the last cells W is drawn from the law of the Brownian bridge. A query adds up
    `depth` + 1 numbers, all known at once: nothing is stored.

    Within one of the last cells all queries share a number: times closer to one another than
    (t1 - t0) / 2**depth do not have the right joint law (each has for itself). Solves with shorter
    steps are refused. A random number has 32 bits.

    The path has no derivative in time; a solve on it is differentiated with the path held fixed.

    Args:
        key: a random key, e.g. `jax.random.key(0)`. For a batch of paths, `vmap` over keys.
        shape: shape of W(t); `()` for a scalar path.
        t0: start of the span.
        t1: end of the span, > t0.
        levy_area: draw W and its space-time Levy area together, as the methods `SRA1` and `ShARK`
            need. (With it the same key gives another path.) A query costs about three times more.
        steps: draw an increment for each of so many equal steps instead, at one random number a
            step: the fastest path for a solve with `dt = (t1 - t0) / steps`, and for no other
            step. W(t) is then the sum of all increments before t: a query takes time O(steps).
        depth: levels of the tree, 1 to 31; at most 20 in float32.
        dtype: floating-point type. Default: JAX's.

    Raises:
        InputError: a shape, span, depth or number of steps that cannot be; later, a time outside
            the span.

    Source: the tree, Kidger, "On Neural Differential Equations" (2022), Section 5.5.2; W and its
    area, Foster, Oberhauser and Lyons, "An optimal polynomial approximation of Brownian motion"
    (2020), and Jelincic, Foster and Kidger, "Single-seed generation of Brownian paths and integrals
    for adaptive and high order SDE solvers" (2024).
    """

    data: UInt32[Array, "2"]
    t0: Shaped[Any, ""]
    t1: Shaped[Any, ""]
    shape: tuple[int, ...] = eqx.field(static=True)
    levy_area: bool = eqx.field(static=True)
    steps: int | None = eqx.field(static=True)
    depth: int = eqx.field(static=True)
    whole: bool = eqx.field(static=True)  # steps are the last cells, and nothing else is asked for

    def __init__(
        self,
        key: Array,
        shape: tuple[int, ...] = (),
        t0: ArrayLike = 0.0,
        t1: ArrayLike = 1.0,
        *,
        levy_area: bool = False,
        steps: int | None = None,
        depth: int = _DEPTH,
        dtype: Any = None,
    ) -> None:
        self.data = words(key)
        self.shape = checked_shape(shape)
        dtype = jnp.dtype(jnp.result_type(float) if dtype is None else dtype)
        if dtype not in (jnp.float32, jnp.float64):
            raise InputError(f"dtype must be float32 or float64; got {dtype}.")
        self.t0, self.t1 = checked_span(t0, t1, dtype)
        self.levy_area, self.whole = bool(levy_area), False
        deepest = 20 if dtype == jnp.float32 else 31
        self.depth = _whole("depth", depth, deepest, dtype)
        self.steps = None if steps is None else _whole("steps", steps, 2**31, dtype)
        if self.steps is not None and self.levy_area:
            # One hash gives both numbers, so that the area is there for the asking.
            raise InputError("A path with steps= knows its Levy area: leave levy_area out.")

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def areas(self) -> bool:
        return self.levy_area or self.steps is not None

    @property
    def resolution(self) -> Any:
        return None if self.steps is not None else (self.t1 - self.t0) / 2.0**self.depth

    @property
    def grid(self) -> Any:
        return None if self.steps is None else (self.t1 - self.t0) / self.steps

    @property
    def dtype(self) -> Any:
        """The floating-point type of the path."""
        return jnp.result_type(self.t0)

    def __call__(self, t: ArrayLike) -> Float[Array, "..."]:
        """W at the times `t`, of any shape: an array of shape `t.shape + shape`."""
        t = within(t, self.t0, self.t1)
        return _values(self, t).reshape(*t.shape, *self.shape)

    def increment(self, s: ArrayLike, t: ArrayLike) -> Float[Array, "..."]:
        """W(t) - W(s), for one s and one t in any order; of shape `shape`."""
        return self(t) - self(s)

    def area(self, s: ArrayLike, t: ArrayLike) -> Float[Array, "..."]:
        """The space-time Levy area over (s, t), of shape `shape`; the same for (t, s).

        It is 1/(t - s) times the integral over the interval of W(r) minus the straight line
        between its ends; of variance |t - s| / 12, independent of the increment.
        """
        if not self.levy_area:
            raise InputError(
                "This path answers for its Levy area only if it was made with levy_area=True; got "
                f"levy_area=False, steps={self.steps}."
            )
        s, t = within(s, self.t0, self.t1), within(t, self.t0, self.t1)
        return _area(self, s, t).reshape(self.shape)

    def for_steps(self, start: float, size: float, only_steps: bool = False) -> "BrownianMotion":
        """The same path for a solve that asks at `start`, `start + size`, ... and nowhere else.

        Where these are cell boundaries of some level, nothing below that level is looked at. With
        `only_steps` the intervals between them are all that is asked for, in either direction.
        """
        if self.steps is not None or is_traced(self.t0, self.t1):
            return self
        span = float(self.t1) - float(self.t0)
        for level in range(self.depth):
            places = np.array([start - float(self.t0), size]) / span * 2.0**level
            if np.all(places == np.round(places)):
                coarse = object.__new__(BrownianMotion)
                for each in dataclasses.fields(self):
                    object.__setattr__(coarse, each.name, getattr(self, each.name))
                object.__setattr__(coarse, "depth", max(level, 1))
                one_cell = level > 0 and abs(places[1]) == 1
                object.__setattr__(coarse, "whole", bool(only_steps and one_cell))
                return coarse
        return self

    # What solves ask for.

    def start(self, t: Array) -> Any:
        # Two intervals share an end: the value there is carried from one to the next.
        return None if self.areas else self._value(t)

    def advance(self, t: Array, h: Array, state: Any) -> tuple[Increment, Any]:
        if self.steps is not None:
            return self._cell(t, h), None
        if self.levy_area:
            return self._last_cell(t, h) if self.whole else self._between(t, t + h), None
        end = self._value(t + h)
        return Increment(end - state), end

    def rest(self, t: Array, h: Array, count: int) -> Float[Array, " count"]:
        first = jnp.minimum(t, t + h)
        if self.steps is None:
            cell, _ = self._position(first)
        else:
            size = self._span / self.steps
            cell = jnp.round((lax.stop_gradient(first) - self.t0) / size).astype(jnp.uint32)
        # Another key: the numbers of the path itself are not used again.
        key = self.data ^ np.array([0x9E3779B9, 0x7F4A7C15], np.uint32)
        lanes = jnp.arange(count, dtype=jnp.uint32)
        return normals(key, cell, lanes, self.dtype)[0]

    # The tree.

    @property
    def _lanes(self) -> UInt32[Array, " m"]:
        return jnp.arange(self.size, dtype=jnp.uint32)

    @property
    def _span(self) -> Array:
        return lax.stop_gradient(jnp.asarray(self.t1) - self.t0)

    def _position(self, t: Array) -> tuple[UInt32[Array, ""], Float[Array, ""]]:
        """In which of the last cells `t` lies, and where in it (0 to 1)."""
        t = lax.stop_gradient(t).astype(self.dtype)
        x = (t - lax.stop_gradient(self.t0)) / self._span * 2.0**self.depth
        cell = jnp.clip(jnp.floor(x), 0, 2.0**self.depth - 1)
        # Rounded to a few bits less than there are: the square root of a rounding error in the
        # time, which is what W would make of it, is not a rounding error.
        bits = min(20, jnp.finfo(self.dtype).nmant - 2 - self.depth)
        inside = jnp.round((x - cell) * 2.0**bits) * 2.0**-bits
        return cell.astype(jnp.uint32), jnp.clip(inside, 0, 1)

    def _value(self, t: Array) -> Float[Array, " m"]:
        """W(t)."""
        if self.steps is not None:
            return self._sum(t)
        if self.levy_area:
            return self._between(jnp.asarray(self.t0), t).w
        cell, inside = self._position(t)
        level = np.arange(self.depth + 1, dtype=np.uint32)
        above = np.uint32(self.depth) - level
        node = (np.uint32(1) << level) | (cell >> above)
        # Where in its cell of each level t lies.
        below = cell & ((np.uint32(1) << above) - np.uint32(1))
        place = (below.astype(self.dtype) + inside) * 2.0 ** -above.astype(self.dtype)
        bridge = jnp.sqrt(inside * (1 - inside))
        shape = jnp.where(level == self.depth, bridge, jnp.minimum(place, 1 - place))
        weights = shape * 2.0 ** (-0.5 * level.astype(self.dtype))
        # The straight line to W(t1) is level -1; its node is 0.
        weights = jnp.append(weights, place[0])
        node = jnp.append(node, np.uint32(0))
        draws, _ = normals(self.data, node[:, None], self._lanes, self.dtype)
        total = jnp.sum(weights[:, None] * draws, axis=0)
        return jnp.sqrt(self._span) * total

    def _between(self, s: Array, t: Array) -> Increment:
        """W and its area over (s, t), put together from cells that lie in it.

        Both ends are followed down the tree at once. Where their ways have parted, the right half
        of a cell is whole inside (s, t) when s is in the left one, and so is the left half when t
        is in the right one. Pieces are only added, so that nothing cancels.
        """
        backwards = t < s
        ends = jnp.stack([jnp.minimum(s, t), jnp.maximum(s, t)])
        cell, inside = jax.vmap(self._position)(ends)  # (2,), of s and of t
        m, dtype = self.size, self.dtype
        zeros = jnp.zeros((2, m), dtype)
        # The barrier keeps XLA from simplifying a hash of constants, which it never finishes.
        top = lax.optimization_barrier(jnp.zeros((2, 1), jnp.uint32))
        root = normals(self.data, top, self._lanes, dtype)
        whole = _Piece(
            jnp.ones((2, 1), dtype),
            root[0],
            root[1] * math.sqrt(1 / 12),
        )
        is_s = jnp.array([True, False])[:, None]

        def down(level, carry):
            """From the cells of a level to their halves."""
            current, gathered, parted = carry
            above = np.uint32(self.depth) - level
            node = (np.uint32(1) << level) | (cell >> above)
            draws = normals(self.data, node[:, None], self._lanes, self.dtype)
            left, right = _halves(current, *draws)
            to_right = ((cell >> (above - np.uint32(1))) & np.uint32(1)).astype(bool)[:, None]
            taken, other = _pick(to_right, right, left), _pick(to_right, left, right)
            # The half not taken lies in (s, t), beside what has been gathered.
            inner = parted & (to_right ^ is_s)
            joined = _join(_rows(other, gathered), _rows(gathered, other))
            gathered = _pick(inner, joined, gathered)
            return taken, gathered, parted | (to_right[0] ^ to_right[1])[0]

        nothing = _Piece(zeros[:, :1], zeros, zeros)
        current, gathered, parted = lax.fori_loop(
            np.uint32(0), np.uint32(self.depth), down, (whole, nothing, jnp.asarray(False))
        )
        node = (np.uint32(1) << np.uint32(self.depth)) | cell
        draws = normals(self.data, node[:, None], self._lanes, self.dtype)
        before, after = _split(current, inside[:, None], *draws)
        apart = _join(
            _join(_row(after, 0), _row(gathered, 0)), _join(_row(gathered, 1), _row(before, 1))
        )
        piece = _pick(parted, apart, _difference(_row(before, 1), _row(before, 0)))
        root_span = jnp.sqrt(self._span)
        w = root_span * piece.w
        return Increment(jnp.where(backwards, -w, w), root_span * piece.area)

    def _last_cell(self, t: Array, h: Array) -> Increment:
        """W and its area over one of the last cells: as `_between`, with one way down the tree."""
        first = lax.stop_gradient(jnp.minimum(t, t + h)).astype(self.dtype)
        size = self._span * 2.0**-self.depth
        x = jnp.round((first - lax.stop_gradient(self.t0)) / size)
        cell = jnp.clip(x, 0, 2.0**self.depth - 1).astype(jnp.uint32)
        level = np.arange(self.depth, dtype=np.uint32)
        above = np.uint32(self.depth) - level
        node = (np.uint32(1) << level) | (cell >> above)
        to_right = ((cell >> (above - np.uint32(1))) & np.uint32(1)).astype(bool)
        # All numbers at once, that of the whole span (node 0) first.
        node = jnp.concatenate([jnp.zeros(1, jnp.uint32), node])
        a, b = normals(self.data, node[:, None], self._lanes, self.dtype)
        piece = _Piece(jnp.ones(1, self.dtype), a[0], b[0] * math.sqrt(1 / 12))
        for i in range(self.depth):
            left, right = _halves(piece, a[i + 1], b[i + 1])
            piece = _pick(to_right[i], right, left)
        sign = jnp.where(jnp.abs(h) > 0.5 * size, jnp.sign(h), 0.0)  # see `_cell`
        root = jnp.sqrt(self._span)
        return Increment(sign * root * piece.w, jnp.abs(sign) * root * piece.area)

    # A path of so many equal steps.

    def _draw(self, i: UInt32[Array, "..."]) -> Increment:
        """The increments over the steps `i`, (..., m), of unit length."""
        a, b = normals(self.data, i[..., None], self._lanes, self.dtype)
        return Increment(a, b * math.sqrt(1 / 12))

    def _cell(self, t: Array, h: Array) -> Increment:
        assert self.steps is not None
        first = lax.stop_gradient(jnp.minimum(t, t + h))
        size = self._span / self.steps
        i = jnp.round((first - self.t0) / size).astype(jnp.uint32)
        drawn = self._draw(i)
        root = jnp.sqrt(size)
        assert drawn.area is not None
        # A step of no length moves nothing; nor does what rounding has left over before the end.
        sign = jnp.where(jnp.abs(h) > 0.5 * size, jnp.sign(h), 0.0)
        return Increment(sign * root * drawn.w, jnp.abs(sign) * root * drawn.area)

    def _sum(self, t: Array) -> Float[Array, " m"]:
        assert self.steps is not None
        size = self._span / self.steps
        x = (lax.stop_gradient(t) - self.t0) / size
        nearest = jnp.round(x)
        x = jnp.where(jnp.abs(x - nearest) < 64 * jnp.finfo(x.dtype).eps * x, nearest, x)
        i = jnp.clip(jnp.floor(x), 0, self.steps - 1)
        inside = jnp.clip(x - i, 0, 1)
        index = jnp.arange(self.steps, dtype=jnp.uint32)
        weights = jnp.where(index < i, 1.0, jnp.where(index == i, inside, 0.0))
        total = jnp.sum(weights[:, None] * self._draw(index).w, axis=0)
        bridge = self._draw(np.uint32(2**31) + i.astype(jnp.uint32)).w
        return jnp.sqrt(size) * (total + jnp.sqrt(inside * (1 - inside)) * bridge)


# Compiled, so that a query outside `jit` costs as little as one inside.


@jax.jit
def _values(path: BrownianMotion, t: Array) -> Array:
    return jax.vmap(path._value)(t.ravel())


@jax.jit
def _area(path: BrownianMotion, s: Array, t: Array) -> Array:
    area = path._between(s, t).area
    assert area is not None
    return area


def _whole(name: str, value: Any, most: int, dtype: Any) -> int:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not 1 <= value <= most:
        raise InputError(f"{name} must be an integer from 1 to {most} in {dtype}; got {value!r}.")
    return int(value)


class _Piece(eqx.Module):
    """W and its area over an interval."""

    length: Array  # (..., 1)
    w: Array  # (..., m)
    area: Array  # (..., m)


def _pick(condition: Array, new: _Piece, old: _Piece) -> _Piece:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def _row(piece: _Piece, i: int) -> _Piece:
    return jax.tree.map(lambda x: x[i], piece)


def _rows(p: _Piece, q: _Piece) -> _Piece:
    """The first row of one and the second of the other."""
    return jax.tree.map(lambda a, b: jnp.concatenate([a[:1], b[1:]]), p, q)


def _halves(p: _Piece, x1: Array, x2: Array) -> tuple[_Piece, _Piece]:
    """`_split` in the middle."""
    root = jnp.sqrt(p.length)
    w = 0.5 * p.w + 1.5 * p.area + 0.25 * root * x1
    mean = 0.25 * p.area - 0.125 * root * x1
    odd = root * (0.25 / math.sqrt(3)) * x2
    half = 0.5 * p.length
    return _Piece(half, w, mean + odd), _Piece(half, p.w - w, mean - odd)


def _split(p: _Piece, place: Array, x1: Array, x2: Array) -> tuple[_Piece, _Piece]:
    """W and area on both sides of a point, given those of the whole.

    Args:
        p: the whole, of length h.
        place: where in it the point is, 0 to 1.
        x1: standard normal numbers: with `x2`, they say which of the possible paths it is.
        x2: the same.
    """
    l, r = place, 1 - place  # in units of h
    root = jnp.sqrt(p.length)
    cubes = l**3 + r**3
    v = 0.5 * jnp.sqrt(l * r / cubes)
    a, b, c = v * l**2, v * r**2, v / math.sqrt(3)
    moved = 6 * l * r * p.area + 2 * (a * l + b * r) * root * x1
    left = _Piece(l * p.length, l * p.w + moved, l**2 * p.area + root * (-a * x1 + c * r * x2))
    right = _Piece(r * p.length, r * p.w - moved, r**2 * p.area - root * (b * x1 + c * l * x2))
    return left, right


def _join(p: _Piece, q: _Piece) -> _Piece:
    """One interval after the other."""
    length = p.length + q.length
    safe = jnp.where(length > 0, length, 1.0)
    area = (q.length * (q.area + 0.5 * p.w) + p.length * (p.area - 0.5 * q.w)) / safe
    return _Piece(length, p.w + q.w, area)


def _difference(p: _Piece, q: _Piece) -> _Piece:
    """What is left of `p` when `q`, with which it begins, is taken away."""
    length = p.length - q.length
    w = p.w - q.w
    safe = jnp.where(length > 0, length, 1.0)
    integral = p.length * (p.area + 0.5 * p.w) - q.length * (q.area + 0.5 * q.w) - length * q.w
    return _Piece(length, w, jnp.where(length > 0, integral / safe - 0.5 * w, 0.0))
