"""Fractional Brownian motion as a weighted sum of Ornstein-Uhlenbeck processes."""

import math
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Shaped

from ..._typing import PyTree
from ...errors import InputError
from .base import checked_shape, checked_span
from .brownian import BrownianMotion
from .law import MarkovLaw
from .moving import MovingLaw

Law = MarkovLaw | MovingLaw


class MarkovFractional(eqx.Module):
    """Fractional Brownian motion, approximated by a state of Ornstein-Uhlenbeck processes.

    B(t) is the sum of w[k] (Y[k](t) - Y[k](0)) over `terms` processes dY[k] = -g[k] Y[k] dt + dW
    that share one Brownian motion. An equation dy = f dt + s dB becomes an ordinary stochastic one
    in (y, Y), which is what `rf.solve_sde(..., noise=this)` solves. The weights minimise the mean
    square error over the span; they, and a solve, are differentiable in `hurst`.

    Type II starts at Y = 0 and approximates the Riemann-Liouville process, whose increments are not
    stationary. Type I starts Y in its stationary law and approximates the process of Mandelbrot and
    Van Ness. `error` says how well: type II is good for hurst >= 0.4 with the default rates, type I
    between 0.3 and 0.5; outside, take more terms and larger rates. Explicit methods need
    g[k] dt < 0.5.

    Args:
        key: a random key.
        hurst: the Hurst index, in (0, 1); may be traced. `None`: white noise. A function of the
            time since t0: an index that changes (see `MovingLaw`).
        shape: shape of B(t).
        t0: start of the span.
        t1: end of the span.
        kind: 1 or 2, the type.
        terms: how many processes.
        largest: the largest decay rate, in units of one over time; the smallest is its inverse.
        rates: other decay rates, (terms,); `"spread"`: a range that grows with the number of terms,
            better from ten terms on.
        standard: divide by the standard deviation of the process at time 1.
        steps: draw the Brownian motion at one random number a step, for solves with
            `dt = (t1 - t0) / steps` only (see `BrownianMotion`): the fastest.

    Raises:
        InputError: a Hurst index outside (0, 1), a type other than 1 and 2, no terms.

    Source: R. Daems, M. Opper, G. Crevecoeur & T. Birdal, "Variational inference for SDEs driven by
    fractional noise" (2024), Propositions on the optimal approximation; P. Harms & D. Stefanovits,
    "Affine representations of fractional processes with applications in mathematical finance"
    (2019).
    """

    law: Law
    motion: BrownianMotion
    start_key: Array
    t0: Shaped[Any, ""]
    t1: Shaped[Any, ""]
    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        key: Array,
        hurst: ArrayLike | Callable[[Any], Any] | None,
        shape: tuple[int, ...] = (),
        t0: ArrayLike = 0.0,
        t1: ArrayLike = 1.0,
        *,
        kind: Literal[1, 2] = 2,
        terms: int = 5,
        largest: ArrayLike = 20.0,
        rates: ArrayLike | Literal["spread"] | None = None,
        standard: bool = True,
        steps: int | None = None,
    ) -> None:
        dtype = jnp.result_type(float)
        self.shape = checked_shape(shape)
        self.t0, self.t1 = checked_span(t0, t1, dtype)
        made = MovingLaw if callable(hurst) else MarkovLaw
        self.law = made(
            hurst, self.t1 - self.t0, kind=kind, terms=terms, largest=largest, rates=rates,  # pyright: ignore
            standard=standard,
        )  # fmt: skip
        key, self.start_key = jax.random.split(key)
        self.motion = BrownianMotion(key, self.shape, t0, t1, steps=steps)

    @property
    def hurst(self) -> Float[Array, ""] | Callable[[Any], Any] | None:
        return self.law.hurst

    @property
    def kind(self) -> int:
        return self.law.kind

    @property
    def rates(self) -> Float[Array, " terms"]:
        return self.law.rates

    @property
    def weights(self) -> Float[Array, "*knots terms"]:
        return self.law.weights

    @property
    def error(self) -> Float[Array, ""]:
        """Root mean square error over the span, relative to that of leaving the process out."""
        return self.law.error

    def covariance(self, s: ArrayLike, t: ArrayLike) -> Float[Array, "..."]:
        """The covariance of the approximation at times s and t, broadcast against one another."""
        return self.law.covariance(jnp.asarray(s) - self.t0, jnp.asarray(t) - self.t0)

    def initial(self) -> Float[Array, "... terms"]:
        """Y(t0): zero for type II, a draw from the stationary law for type I."""
        shape = (*self.shape, self.rates.size)
        if self.kind == 2:
            return jnp.zeros(shape)
        return jax.random.normal(self.start_key, shape) @ self.law.start_root().T

    def augmented(
        self, drift: Callable[..., Any], diffusion: Callable[..., Any], y0: PyTree[Array]
    ) -> tuple[Callable[..., Any], Callable[..., Any], Any, BrownianMotion]:
        """Drift, diffusion and initial state of (y, Y), and the Brownian motion that drives it."""
        start = self.initial().astype(jnp.result_type(*jax.tree.leaves(y0)))
        parts = _Extended(drift, diffusion, self.law, start, jnp.asarray(self.t0), self.shape)
        return parts.drift_of, _Diffusion(parts), (y0, start), self.motion


class _Extended(eqx.Module):
    drift: Callable[..., Any]
    diffusion: Callable[..., Any]
    law: Law
    start: Array
    t0: Array
    shape: tuple[int, ...] = eqx.field(static=True)

    def drift_of(self, t, z, args):
        y, Y = z
        rates = self.law.rates.astype(Y.dtype)
        weights, slopes = self.law.at(t - self.t0)
        moved = -(Y @ (weights.astype(Y.dtype) * rates))  # the part of dB/dt
        if slopes is not None:
            moved = moved + (Y - self.start) @ slopes.astype(Y.dtype)
        g = self.diffusion(t, y, args)

        def leaf(f, g, y):
            g = jnp.asarray(g)
            return f + _product(g, moved, jnp.shape(y), self.shape)

        return jax.tree.map(leaf, self.drift(t, y, args), g, y), -rates * Y


def _product(g: Array, w: Array, state: tuple[int, ...], noise: tuple[int, ...]) -> Array:
    """The diffusion of one leaf times a vector of the shape of the noise."""
    if g.shape == state:  # scalar or diagonal
        return g * w
    return jnp.tensordot(g, w, len(noise)) if noise else g * w


class _Diffusion(eqx.Module):
    of: _Extended

    def __call__(self, t, z, args):
        y, Y = z
        noise = self.of.shape
        total = jnp.sum(self.of.law.at(t - self.of.t0)[0]).astype(Y.dtype)
        m = math.prod(noise)
        value = self.of.diffusion(t, y, args)
        if not noise:
            return jax.tree.map(lambda g: total * jnp.asarray(g), value), jnp.ones_like(Y)

        def leaf(g, y):
            g = jnp.asarray(g)
            if g.shape == jnp.shape(y):
                if g.shape != noise:
                    raise InputError(
                        f"The diffusion returned shape {g.shape} for noise of shape {noise}: "
                        "diagonal noise has the shape of y0."
                    )
                g = (g.ravel()[:, None] * jnp.eye(m, dtype=Y.dtype)).reshape(noise + noise)
            return total * g

        each = jnp.eye(m, dtype=Y.dtype).reshape(*noise, 1, *noise)
        return jax.tree.map(leaf, value, y), jnp.broadcast_to(each, (*Y.shape, *noise))
