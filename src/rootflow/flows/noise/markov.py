"""Fractional Brownian motion as a weighted sum of Ornstein-Uhlenbeck processes."""

import math
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammainc, gammaincc, gammaln
from jaxtyping import Array, ArrayLike, Float, PyTree, Shaped

from ...errors import InputError
from .base import checked_shape, checked_span, known
from .brownian import BrownianMotion
from .fractional import checked_hurst, variance


def rates(terms: int, largest: ArrayLike) -> Float[Array, " terms"]:
    """A geometric grid of decay rates, symmetric about 1, up to `largest`."""
    if terms == 1:
        return jnp.ones(1)
    k = jnp.arange(1, terms + 1) - (terms + 1) / 2
    return jnp.asarray(largest, float) ** (2 * k / (terms - 1))


def _upper_scaled(a: Array, z: Array) -> Array:
    """Q(a, z) exp(z), Q being the regularised upper incomplete gamma function."""
    large = z >= 10
    # Each branch gets an argument at which it is finite, so that derivatives are.
    near = jnp.where(large, 1.0, z)
    far = jnp.where(large, z, 10.0)
    fraction = jnp.ones_like(far)
    for k in range(24, 0, -1):
        fraction = 1 + (k - a) / far / (1 + k / far / fraction)
    asymptotic = jnp.exp(a * jnp.log(far) - gammaln(a)) / far / fraction
    return jnp.where(large, asymptotic, gammaincc(a, near) * jnp.exp(near))


def _normal_equations(
    kind: int, hurst: Array, rates: Array, horizon: Array
) -> tuple[Array, Array, Array]:
    """A, b and c of the mean square error (w A w - 2 b w + c) / horizon."""
    g, T = rates, horizon
    total = g[:, None] + g
    if kind == 1:
        once = jnp.expm1(-g * T) / g
        A = (2 * T + once[:, None] + once) / total
        b = (
            2 * T / g ** (hurst + 0.5)
            - T ** (hurst + 0.5) / g * jnp.exp(-gammaln(hurst + 1.5))
            + (jnp.exp(-g * T) - _upper_scaled(hurst + 0.5, g * T)) / g ** (hurst + 1.5)
        )
        c = variance(1, hurst) * T ** (2 * hurst + 1) / (2 * hurst + 1)
        return A, b, c
    A = (T + jnp.expm1(-total * T) / total) / total
    b = T / g ** (hurst + 0.5) * gammainc(hurst + 0.5, g * T) - (hurst + 0.5) / g ** (
        hurst + 1.5
    ) * gammainc(hurst + 1.5, g * T)
    c = variance(2, hurst) * T ** (2 * hurst + 1) / (2 * hurst + 1)
    return A, b, c


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
        hurst: the Hurst index, in (0, 1); may be traced.
        shape: shape of B(t).
        t0: start of the span.
        t1: end of the span.
        kind: 1 or 2, the type.
        terms: how many processes.
        largest: the largest decay rate, in units of one over time; the smallest is its inverse.
        standard: divide by the standard deviation of the process at time 1.

    Raises:
        InputError: a Hurst index outside (0, 1), a type other than 1 and 2, no terms.

    Source: R. Daems, M. Opper, G. Crevecoeur & T. Birdal, "Variational inference for SDEs driven by
    fractional noise" (2024), Propositions on the optimal approximation; P. Harms & D. Stefanovits,
    "Affine representations of fractional processes with applications in mathematical finance"
    (2019).
    """

    motion: BrownianMotion
    start_key: Array
    hurst: Float[Array, ""]
    rates: Float[Array, " terms"]
    weights: Float[Array, " terms"]
    t0: Shaped[Any, ""]
    t1: Shaped[Any, ""]
    shape: tuple[int, ...] = eqx.field(static=True)
    kind: int = eqx.field(static=True)
    standard: bool = eqx.field(static=True)

    def __init__(
        self,
        key: Array,
        hurst: ArrayLike,
        shape: tuple[int, ...] = (),
        t0: ArrayLike = 0.0,
        t1: ArrayLike = 1.0,
        *,
        kind: Literal[1, 2] = 2,
        terms: int = 5,
        largest: ArrayLike = 20.0,
        standard: bool = True,
    ):
        if kind not in (1, 2):
            raise InputError(f"kind must be 1 (Mandelbrot-Van Ness) or 2; got {kind!r}.")
        if isinstance(terms, bool) or not isinstance(terms, int) or terms < 1:
            raise InputError(f"terms must be a positive integer; got {terms!r}.")
        if known(largest) and not (np.ndim(largest) == 0 and float(np.asarray(largest)) > 1):
            raise InputError(f"largest must be above 1; got {largest!r}.")
        dtype = jnp.result_type(float)
        self.shape = checked_shape(shape)
        self.t0, self.t1 = checked_span(t0, t1, dtype)
        self.kind, self.standard = int(kind), bool(standard)
        self.hurst = checked_hurst(hurst)
        self.rates = rates(terms, largest)
        key, self.start_key = jax.random.split(key)
        self.motion = BrownianMotion(key, self.shape, t0, t1)
        A, b, _ = _normal_equations(
            self.kind, self.hurst, self.rates, jnp.asarray(self.t1 - self.t0)
        )
        self.weights = jnp.linalg.solve(A, b) / self._unit()

    def _unit(self) -> Array:
        return jnp.sqrt(variance(self.kind, self.hurst)) if self.standard else jnp.ones(())

    @property
    def error(self) -> Float[Array, ""]:
        """Root mean square error over the span, relative to that of leaving the process out."""
        horizon = jnp.asarray(self.t1 - self.t0)
        A, b, c = _normal_equations(self.kind, self.hurst, self.rates, horizon)
        w = self.weights * self._unit()
        return jnp.sqrt(jnp.maximum((w @ A @ w - 2 * b @ w + c) / c, 0.0))

    def covariance(self, s: ArrayLike, t: ArrayLike) -> Float[Array, "..."]:
        """The covariance of the approximation at times s and t, broadcast against one another."""
        s, t = jnp.asarray(s) - self.t0, jnp.asarray(t) - self.t0
        s, t = jnp.minimum(s, t)[..., None, None], jnp.maximum(s, t)[..., None, None]
        gi, gj = self.rates[:, None], self.rates
        if self.kind == 1:
            each = jnp.exp(-gi * (t - s)) - jnp.exp(-gi * t) - jnp.exp(-gj * s) + 1
        else:
            each = jnp.exp(-gi * (t - s)) - jnp.exp(-gi * t - gj * s)
        return jnp.sum(self.weights[:, None] * self.weights * each / (gi + gj), (-2, -1))

    def initial(self) -> Float[Array, "... terms"]:
        """Y(t0): zero for type II, a draw from the stationary law for type I."""
        zeros = jnp.zeros((*self.shape, self.rates.size))
        if self.kind == 2:
            return zeros
        values, vectors = jnp.linalg.eigh(1 / (self.rates[:, None] + self.rates))
        root = vectors * jnp.sqrt(jnp.maximum(values, 0.0))
        return jax.random.normal(self.start_key, zeros.shape) @ root.T

    def augmented(
        self, drift: Callable, diffusion: Callable, y0: PyTree[Array]
    ) -> tuple[Callable, Callable, Any, BrownianMotion]:
        """Drift, diffusion and initial state of (y, Y), and the Brownian motion that drives it."""
        start = self.initial().astype(jnp.result_type(*jax.tree.leaves(y0)))
        parts = _Extended(drift, diffusion, self.rates, self.weights, self.shape)
        return parts.drift_of, _Diffusion(parts), (y0, start), self.motion


class _Extended(eqx.Module):
    drift: Callable
    diffusion: Callable
    rates: Array
    weights: Array
    shape: tuple[int, ...] = eqx.field(static=True)

    def drift_of(self, t, z, args):
        y, Y = z
        moved = -(Y @ (self.weights * self.rates).astype(Y.dtype))  # the part of dB/dt
        g = self.diffusion(t, y, args)

        def leaf(f, g, y):
            g = jnp.asarray(g)
            return f + _product(g, moved, jnp.shape(y), self.shape)

        return jax.tree.map(leaf, self.drift(t, y, args), g, y), -self.rates.astype(Y.dtype) * Y


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
        total = jnp.sum(self.of.weights).astype(Y.dtype)
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
