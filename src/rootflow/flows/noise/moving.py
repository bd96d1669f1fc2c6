"""Weights of the Markov approximation where the Hurst index changes in time."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ...errors import InputError
from ...ground.tracing import is_traced
from .law import MarkovLaw, memory_covariance, memory_root


class MovingLaw(eqx.Module):
    """As `MarkovLaw`, with a Hurst index H(t): multifractional noise.

    B(t) is the sum of w[k](H(t)) (Y[k](t) - Y[k](0)): at each time the approximation of the
    fractional Brownian motion of that index, all of one Brownian motion. (The increments of B
    therefore hold a term with the derivative of H.) The weights are computed at `knots` equal
    steps, with their derivative in time, and are cubic in between.

    Args:
        hurst: H(t), t being the time since the start of the noise; in (0, 1). Differentiable in
            what it holds, if it is a pytree, such as an Equinox module.
        horizon: length of the span.
        kind: 1 (Mandelbrot-Van Ness) or 2 (Riemann-Liouville, Y(0) = 0).
        terms: how many processes.
        largest: the largest decay rate; the smallest is its inverse.
        rates: other decay rates, (terms,).
        standard: divide, at each time, by the standard deviation at time 1 of the process of that
            index: type II has variance t**(2 H(t)).
        knots: how many steps of the table.

    Raises:
        InputError: as `MarkovLaw`; an H(t) that is no number between 0 and 1.

    Source: R. Peltier & J. Levy Vehel, "Multifractional Brownian motion" (1995), definition 3; the
    weights are those of `MarkovFractional`.
    """

    hurst: Callable[[Any], Any]
    horizon: Float[Array, ""]
    rates: Float[Array, " terms"]
    weights: Float[Array, "knots terms"]
    slopes: Float[Array, "knots terms"]
    kind: int = eqx.field(static=True)
    standard: bool = eqx.field(static=True)

    def __init__(
        self,
        hurst: Callable[[Any], Any],
        horizon: ArrayLike = 1.0,
        *,
        kind: Literal[1, 2] = 2,
        terms: int = 5,
        largest: ArrayLike = 20.0,
        rates: ArrayLike | None = None,
        standard: bool = True,
        knots: int = 64,
    ) -> None:
        if isinstance(rates, str):
            raise InputError(
                f"rates={rates!r} depends on the Hurst index, which is not one number here: give "
                "terms and largest, or an array of rates."
            )
        if isinstance(knots, bool) or not isinstance(knots, int) or knots < 1:
            raise InputError(f"knots must be a positive integer; got {knots!r}.")
        one = MarkovLaw(0.5, horizon, kind=kind, terms=terms, largest=largest, rates=rates)
        self.hurst, self.horizon, self.rates = hurst, one.horizon, one.rates
        self.kind, self.standard = one.kind, bool(standard)
        ts = jnp.linspace(0.0, self.horizon, knots + 1)
        kind_of = jax.eval_shape(hurst, ts[0])
        if getattr(kind_of, "shape", None) != ():
            raise InputError(f"hurst(t) must be one number; got {kind_of}.")
        self._check(ts, jax.vmap(hurst)(ts))
        self.weights, self.slopes = _table(hurst, ts, self.horizon, self.rates, kind, standard)

    def _check(self, ts: Array, values: Array) -> None:
        if is_traced(ts, values):
            return
        wrong = ~((np.asarray(values) > 0) & (np.asarray(values) < 1))
        if wrong.any():
            i = int(np.argmax(wrong))
            raise InputError(
                "The Hurst index must be between 0 and 1 at all times; hurst(t) is "
                f"{float(values[i]):g} at t = {float(ts[i]):g}."
            )

    @property
    def error(self) -> Float[Array, ""]:
        """The largest error that `MarkovLaw` has for the indices at the knots."""
        ts = jnp.linspace(0.0, self.horizon, self.weights.shape[0])
        law = lambda h: MarkovLaw(h, self.horizon, kind=self.kind, rates=self.rates)  # pyright: ignore
        return jnp.max(jax.vmap(lambda t: law(self.hurst(t)).error)(ts))

    def at(self, t: ArrayLike) -> tuple[Float[Array, " terms"], Float[Array, " terms"]]:
        """The weights at a time since the start, and their derivative in time."""
        last = self.weights.shape[0] - 1
        h = self.horizon / last
        s = jnp.asarray(t, self.horizon.dtype) / h
        i = jnp.clip(jnp.floor(s).astype(int), 0, last - 1)
        u = s - i
        a, b = self.weights[i], self.weights[i + 1]
        da, db = h * self.slopes[i], h * self.slopes[i + 1]
        # Cubic Hermite: values and derivatives at both ends.
        p, q = 3 * (b - a) - 2 * da - db, 2 * (a - b) + da + db
        return a + u * (da + u * (p + u * q)), (da + u * (2 * p + 3 * u * q)) / h

    def covariance(self, s: ArrayLike, t: ArrayLike) -> Float[Array, "..."]:
        """The covariance of B at times s and t after its start, broadcast against one another."""
        s, t = jnp.broadcast_arrays(jnp.asarray(s), jnp.asarray(t))
        s, t = jnp.minimum(s, t), jnp.maximum(s, t)
        rows = jnp.vectorize(lambda x: self.at(x)[0], signature="()->(k)")
        each = memory_covariance(self.kind, self.rates, s, t)
        return jnp.sum(rows(s)[..., :, None] * rows(t)[..., None, :] * each, (-2, -1))

    def start_root(self) -> Float[Array, "terms terms"]:
        """A square root R of the covariance R R' of Y(0); zero for type II."""
        return memory_root(self.kind, self.rates)


@eqx.filter_jit
def _table(hurst, ts, horizon, rates, kind, standard) -> tuple[Array, Array]:
    """The weights at times, and their derivatives."""

    def weights(t):
        h = jnp.asarray(hurst(t), horizon.dtype)
        return MarkovLaw(h, horizon, kind=kind, rates=rates, standard=standard).weights

    return jax.vmap(lambda t: jax.jvp(weights, (t,), (jnp.ones_like(t),)))(ts)
