"""Piecewise polynomial controls."""

from typing import Any

import jax.numpy as jnp
from jax.lax.linalg import tridiagonal_solve
from jaxtyping import Array, ArrayLike, Float

from .base import Control, carried_forward, checked_data, filled


class _Piecewise(Control):
    """On piece i, X(t) is the sum of coefficients[i, k] (t - knots[i])**k."""

    knots: Float[Array, " n"]
    coefficients: Float[Array, "pieces degree c"]

    @property
    def t0(self) -> Array:
        return self.knots[0]

    @property
    def t1(self) -> Array:
        return self.knots[-1]

    @property
    def channels(self) -> int:
        return self.coefficients.shape[2]

    @property
    def kinks(self) -> Float[Array, " k"]:
        return self.knots[1:-1]

    def _piece(self, t: ArrayLike) -> tuple[Array, Array]:
        t = jnp.asarray(t, self.knots.dtype)
        i = jnp.searchsorted(self.knots, t, side="right") - 1
        i = jnp.clip(i, 0, self.coefficients.shape[0] - 1)
        return self.coefficients[i], t - self.knots[i]

    def evaluate(self, t: ArrayLike) -> Float[Array, " c"]:
        coefficients, r = self._piece(t)
        total = coefficients[-1]
        for c in coefficients[-2::-1]:
            total = total * r + c
        return total

    def derivative(self, t: ArrayLike) -> Float[Array, " c"]:
        coefficients, r = self._piece(t)
        degree = coefficients.shape[0] - 1
        total = degree * coefficients[-1]
        for k in range(degree - 1, 0, -1):
            total = total * r + k * coefficients[k]
        return total


class Linear(_Piecewise):
    """The straight lines between the observations.

    Missing observations (NaN) are filled in linearly, channel by channel. Time is a channel only if
    it is among the observations. Not causal between observations: the line to one leads up to it.

    Args:
        ts: times, increasing, shape (n,).
        xs: observations, shape (n, c).

    Raises:
        InputError: times that do not increase, shapes that do not fit, a channel without any
            observation.
    """

    def __init__(self, ts: ArrayLike, xs: ArrayLike) -> None:
        ts, xs = checked_data(ts, xs, "Linear")
        self.knots: Float[Array, " n"] = ts
        self.coefficients: Float[Array, "pieces degree c"] = _lines(ts, filled(ts, xs, "Linear"))


class Rectilinear(_Piecewise):
    """First the time moves on, then the observations follow: causal at every moment.

    The channels are the time and the observations. Between two observation times the first half of
    the interval moves the time channel from the one to the other, with the observations kept; the
    second half moves the observations. (A controlled equation does not notice how fast its control
    is gone through, so that a solution at `ts[i]` knows all observations up to i and no later one.)
    A missing observation (NaN) is the last one before it; 0 where there is none.

    Args:
        ts: times, increasing, shape (n,).
        xs: observations, shape (n, c), without the time.

    Raises:
        InputError: times that do not increase, shapes that do not fit.

    Source: Morrill, Kidger, Yang & Lyons, "Neural controlled differential equations for online
    prediction tasks" (2021).
    """

    def __init__(self, ts: ArrayLike, xs: ArrayLike) -> None:
        ts, xs = checked_data(ts, xs, "Rectilinear")
        xs = carried_forward(xs)
        both = jnp.concatenate([ts[:, None], xs], axis=1)
        moved = jnp.concatenate([ts[1:, None], xs[:-1]], axis=1)
        middle = 0.5 * (ts[1:] + ts[:-1])
        self.knots: Float[Array, " n"] = jnp.append(
            jnp.stack([ts[:-1], middle], axis=1).ravel(), ts[-1]
        )
        values = jnp.stack([both[:-1], moved], axis=1).reshape(-1, both.shape[1])
        self.coefficients: Float[Array, "pieces degree c"] = _lines(
            self.knots, jnp.concatenate([values, both[-1:]])
        )


class CubicNatural(_Piecewise):
    """The natural cubic spline: twice differentiable, with no curvature at its ends.

    Missing observations (NaN) are filled in linearly. Not causal: every observation moves all of
    the path.

    Args:
        ts: times, increasing, shape (n,).
        xs: observations, shape (n, c).

    Raises:
        InputError: times that do not increase, shapes that do not fit, a channel without any
            observation.
    """

    def __init__(self, ts: ArrayLike, xs: ArrayLike) -> None:
        ts, xs = checked_data(ts, xs, "CubicNatural")
        xs = filled(ts, xs, "CubicNatural")
        h = ts[1:] - ts[:-1]
        slope = (xs[1:] - xs[:-1]) / h[:, None]
        # Second derivatives m: zero at the ends, and a first derivative without jumps inside.
        zero, one = jnp.zeros(1, ts.dtype), jnp.ones(1, ts.dtype)
        lower = jnp.concatenate([zero, h[:-1], zero])
        upper = jnp.concatenate([zero, h[1:], zero])
        middle = jnp.concatenate([one, 2 * (h[1:] + h[:-1]), one])
        ends = jnp.zeros_like(xs[:1])
        right = jnp.concatenate([ends, 6 * (slope[1:] - slope[:-1]), ends])
        m = tridiagonal_solve(lower, middle, upper, right) if len(ts) > 2 else jnp.zeros_like(xs)
        step = h[:, None]
        self.knots: Float[Array, " n"] = ts
        self.coefficients: Float[Array, "pieces degree c"] = jnp.stack(
            [
                xs[:-1],
                slope - step * (2 * m[:-1] + m[1:]) / 6,
                m[:-1] / 2,
                (m[1:] - m[:-1]) / (6 * step),
            ],
            axis=1,
        )


class CubicHermite(_Piecewise):
    """Cubic pieces whose slope at each observation is that of the line that led to it.

    Once differentiable and local: the path up to an observation depends on nothing later. (On its
    way there it does depend on that observation.) The recommended control. Missing observations
    (NaN) are filled in linearly.

    Args:
        ts: times, increasing, shape (n,).
        xs: observations, shape (n, c).

    Raises:
        InputError: times that do not increase, shapes that do not fit, a channel without any
            observation.

    Source: Morrill, Kidger, Yang & Lyons, "Neural controlled differential equations for online
    prediction tasks" (2021).
    """

    def __init__(self, ts: ArrayLike, xs: ArrayLike) -> None:
        ts, xs = checked_data(ts, xs, "CubicHermite")
        xs = filled(ts, xs, "CubicHermite")
        h = (ts[1:] - ts[:-1])[:, None]
        after = (xs[1:] - xs[:-1]) / h
        before = jnp.concatenate([after[:1], after[:-1]])
        bend = (after - before) / h
        # With the slopes b at the start and d at the end, and the line's own slope d.
        self.knots: Float[Array, " n"] = ts
        self.coefficients: Float[Array, "pieces degree c"] = jnp.stack(
            [xs[:-1], before, 2 * bend, -bend / h], axis=1
        )


def _lines(ts: Array, xs: Array) -> Any:
    return jnp.stack([xs[:-1], (xs[1:] - xs[:-1]) / (ts[1:] - ts[:-1])[:, None]], axis=1)
