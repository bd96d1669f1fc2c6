"""Ordered vectors, and boxes cut by one equation."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from ...errors import InputError
from ...ground.derivative import custom_jvp
from ...ground.varying import while_loop
from ..blocks import run_means, runs
from ..checks import concrete, require_fit, require_number
from ..implicit import implicit
from .base import ArraySet, known_and, largest, numbers, over_leading, require_ordered


@custom_jvp
def isotonic_increasing(y: Float[Array, " n"]) -> Float[Array, " n"]:
    """The nearest non-decreasing vector: pooling of adjacent violators (Ayer et al. 1955)."""
    n = y.shape[0]

    # A stack of blocks (sum, length); the newest block is merged into its neighbour below as long
    # as its mean is smaller, else the next entry is pushed. At most 2n - 1 steps.
    def proceed(carry):
        _, _, top, k = carry
        return (k < n) | _violated(carry, top)

    def _violated(carry, top):
        sums, lengths, _, _ = carry
        below = jnp.maximum(top - 1, 0)
        mean, before = sums[top] / lengths[top], sums[below] / lengths[below]
        return (top > 0) & (mean < before)

    def step(carry):
        sums, lengths, top, k = carry
        merge = _violated(carry, top)
        at = jnp.where(merge, top - 1, top + 1)
        gain = jnp.where(merge, sums[top], y[jnp.minimum(k, n - 1)])
        extra = jnp.where(merge, lengths[top], 1)
        base = jnp.where(merge, sums[at], 0)
        width = jnp.where(merge, lengths[at], 0)
        sums = sums.at[at].set(base + gain)
        lengths = lengths.at[at].set(width + extra)
        return sums, lengths, at, jnp.where(merge, k, k + 1)

    ones = jnp.ones(n + 1, y.dtype)
    start = (jnp.zeros(n + 1, y.dtype).at[0].set(y[0]), ones, jnp.asarray(0), jnp.asarray(1))
    sums, lengths, top, _ = while_loop(proceed, step, start)
    used = jnp.arange(n + 1) <= top
    ends = jnp.cumsum(jnp.where(used, lengths, 0))
    owner = jnp.searchsorted(ends, jnp.arange(n).astype(y.dtype), side="right")
    return (sums / lengths)[jnp.minimum(owner, top)]


@isotonic_increasing.defjvp
def _isotonic_jvp(primals, tangents):
    (y,), (y_dot,) = primals, tangents
    x = isotonic_increasing(y)
    return x, run_means(y_dot, runs(x))


class Isotonic(ArraySet):
    """Ordered vectors along the last axis, optionally between two bounds (the order simplex).

    Attributes:
        increasing: non-decreasing if true, else non-increasing.
        lower: least value allowed, or None.
        upper: greatest value allowed, or None.
    """

    increasing: bool = True
    lower: Any = eqx.field(converter=numbers, default=None)
    upper: Any = eqx.field(converter=numbers, default=None)

    def __check_init__(self) -> None:
        require_ordered(self.lower, self.upper, "Isotonic")

    def _project(self, x: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
        sign = 1 if self.increasing else -1
        out = sign * over_leading(isotonic_increasing, sign * x)
        if self.lower is not None:
            out = jnp.where(out < self.lower, self.lower, out)
        if self.upper is not None:
            out = jnp.where(out > self.upper, self.upper, out)
        for bound, nowhere in ((self.lower, jnp.inf), (self.upper, -jnp.inf)):
            if isinstance(bound, Tracer):
                # Where it is known, such a bound is refused.
                out = jnp.where(jnp.isnan(bound) | (bound == nowhere), jnp.nan, out)
        return out

    def _violation(self, x):
        steps = x[..., :-1] - x[..., 1:]
        parts = [steps if self.increasing else -steps]
        if self.lower is not None:
            parts.append(self.lower - x)
        if self.upper is not None:
            parts.append(x - self.upper)
        return largest(*parts)

    def _checked(self, point, x):
        for name, bound in (("lower", self.lower), ("upper", self.upper)):
            if bound is not None:
                require_number(bound, f"Isotonic: {name}")
        return point


class BoxSection(ArraySet):
    """Vectors between bounds with a given weighted sum, along the last axis.

    Attributes:
        lower: lower bounds, a number or shape (n,); may be -inf.
        upper: upper bounds, likewise; may be inf.
        weights: positive weights w, a number or shape (n,).
        total: the value c of w . x.

    Raises:
        InputError: bounds out of order, a weight not positive, or no point satisfies all.
    """

    lower: Any = eqx.field(converter=numbers)
    upper: Any = eqx.field(converter=numbers)
    weights: Any = eqx.field(converter=numbers, default=1.0)
    total: Any = eqx.field(converter=numbers, default=1.0)

    def __check_init__(self) -> None:
        require_ordered(self.lower, self.upper, "BoxSection")
        if known_and(self.weights, lambda w: ~(w > 0) | ~np.isfinite(w)):
            raise InputError(f"BoxSection: weights={np.asarray(self.weights)} must be positive")
        if known_and(self.total, lambda v: ~np.isfinite(v)):
            raise InputError(f"BoxSection: total={np.asarray(self.total)} must be finite")
        self._check_total(max(np.size(v) for v in (self.lower, self.upper, self.weights)))

    def _check_total(self, n: int, *, known_length: bool = False) -> None:
        given = [concrete(v) for v in (self.lower, self.upper, self.weights, self.total)]
        known = [v for v in given if v is not None]
        for name in ("lower", "upper", "weights"):
            require_fit(getattr(self, name), (n,), f"BoxSection: {name}", "the other bounds")
        # Before a point is seen, numbers may stand for any length.
        if (n == 1 and not known_length) or len(known) < len(given):
            return
        low, high, weights, total = known
        least = np.sum(np.broadcast_to(weights * low, n))
        most = np.sum(np.broadcast_to(weights * high, n))
        size = np.max([np.abs(v) for v in (least, most, total) if np.isfinite(v)])
        slack = 1e-6 * size
        if np.any(total < least - slack) or np.any(total > most + slack):
            raise InputError(
                f"BoxSection: the bounds allow a weighted sum from {least} to {most}, so "
                f"total={total} makes the set empty"
            )

    def _project(self, x: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
        shape = x.shape[-1:]
        self._check_total(*shape, known_length=True)
        low, high, w = (
            jnp.broadcast_to(jnp.asarray(v, x.dtype), shape)
            for v in (self.lower, self.upper, self.weights)
        )
        total = jnp.asarray(self.total, x.dtype)

        def one(v):
            shift = _section_shift(jnp.zeros((), v.dtype), v, low, high, w, total)
            return _section_point(shift, v, low, high, w)

        return over_leading(one, x)

    def _violation(self, x):
        gap = jnp.abs(jnp.sum(self.weights * x, axis=-1) - self.total)
        return largest(self.lower - x, x - self.upper, gap)

    def _checked(self, point, x):
        for name in ("lower", "upper", "weights"):
            value, shape = getattr(self, name), point.shape[-1:]
            require_fit(value, shape, f"BoxSection: {name}", "the last axis")
        require_number(self.total, "BoxSection: total")
        return point


def _section_point(shift, x, low, high, w):
    moved = x + shift * w
    return jnp.where(moved < low, low, jnp.where(moved > high, high, moved))


def _section_excess(shift, x, low, high, w, total):
    return jnp.vdot(w, _section_point(shift, x, low, high, w)) - total


def _section_noise(shift, x, low, high, w, total):
    """What the round-off of the excess is proportional to: the sizes of its terms."""
    moved = x + shift * w
    at_bound = jnp.abs(_section_point(shift, x, low, high, w))
    terms = jnp.where((moved > low) & (moved < high), jnp.abs(x) + jnp.abs(shift * w), at_bound)
    return jnp.vdot(w, terms) + jnp.abs(total)


@implicit(_section_excess, singular="minimum_norm", throw=False)
def _section_shift(init, x, low, high, w, total):
    """The root of an increasing, piecewise linear function: Newton's method within a bracket."""
    n, eps = x.shape[0], jnp.finfo(x.dtype).eps

    def proceed(carry):
        shift, left, right, gap, k = carry
        small = 4 * eps * n**0.5 * _section_noise(shift, x, low, high, w, total)
        return (jnp.abs(gap) > small) & (right > left) & (k < 200)

    def step(carry):
        shift, left, right, gap, k = carry
        left = jnp.where(gap < 0, shift, left)
        right = jnp.where(gap > 0, shift, right)
        moved = x + shift * w
        slope = jnp.sum(jnp.where((moved > low) & (moved < high), w * w, 0))
        newton = shift - gap / jnp.where(slope > 0, slope, 1)
        # Without a slope, go to the nearest entry that starts to move in the wanted direction.
        starts = jnp.where(gap < 0, (low - x) / w, (high - x) / w)
        ahead = jnp.where(gap < 0, starts > shift, starts < shift)
        nearest_up = jnp.min(jnp.where(ahead, starts, jnp.inf))
        nearest_down = jnp.max(jnp.where(ahead, starts, -jnp.inf))
        jump = jnp.where(gap < 0, nearest_up, nearest_down)
        proposal = jnp.where(slope > 0, newton, jump)
        bisect = 0.5 * (left + right)
        usable = (proposal > left) & (proposal < right) & jnp.isfinite(proposal)
        proposal = jnp.where(usable, proposal, jnp.where(jnp.isfinite(bisect), bisect, proposal))
        gap = _section_excess(proposal, x, low, high, w, total)
        return proposal, left, right, gap, k + 1

    infinite = jnp.asarray(jnp.inf, x.dtype)
    start = (init, -infinite, infinite, _section_excess(init, x, low, high, w, total), 0)
    shift, *_, gap, _ = while_loop(proceed, step, start)
    # Bounds that are known to leave no point are refused; traced ones can only give NaN.
    noise = _section_noise(shift, x, low, high, w, total) + jnp.vdot(w, jnp.abs(x))
    empty = jnp.abs(gap) > eps**0.5 * noise
    return jnp.where(empty, jnp.nan, shift)
