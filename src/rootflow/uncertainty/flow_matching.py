"""A generator that follows a learned velocity from noise to codes."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..flows.methods import Tsit5
from ..flows.ode import solve_ode
from ..ground.checks import whole
from ..networks import MLP
from ..training import train
from . import checks
from .generators import Generator
from .representations import Representation


class FlowMatching(Generator):
    """Codes at the end of dx/dt = v(t, x), of which the velocity is learned along straight lines.

    v minimises E |v(t, (1 - t) z + t x) - (x - z)|^2 over noise z, codes x and times. The noise has
    the spread of the codes in each coefficient, so that nothing has to shrink on the way; errors
    are weighed by the inverse of that spread. It needs no critic, and is slower to draw from. With
    conditions the velocity is told them.

    Attributes:
        width: of the residual layers.
        depth: their number.
        ema: decay of the average of the weights.

    Source: Lipman, Chen, Ben-Hamu, Nickel & Le (2023), "Flow matching for generative modeling".
    """

    width: int
    depth: int
    ema: float

    baseline = False
    conditional = True

    def __init__(
        self,
        rank: int = 16,
        *,
        representation: Representation | None = None,
        width: int = 128,
        depth: int = 3,
        ema: float = 0.999,
    ) -> None:
        """The recipe; for coefficients (`POD`, `WholeField`)."""
        super().__init__(rank, representation=representation)
        self.width, self.depth = whole("width", width), whole("depth", depth)
        self.ema = ema

    def _fit(
        self, codes, conditions, key, *, steps: int = 4000, batch_size: int = 256,
        rate: float = 1e-3, rtol: float = 1e-3, **options: Any,
    ):  # fmt: skip
        self._flat()
        start, training = jax.random.split(key)
        size = codes.shape[1]
        told = None if conditions is None else jnp.asarray(conditions.values, jnp.float32)
        more = 0 if told is None else told.shape[1]
        spread = jnp.asarray(np.maximum(codes.std(axis=0), 1e-6), jnp.float32)
        network = MLP((size + more,), self.width, self.depth, key=start)
        network = jax.tree.map(
            lambda w: w.astype(jnp.float32) if eqx.is_inexact_array(w) else w, network
        )
        decay = optax.cosine_decay_schedule(checks.positive("rate", rate), whole("steps", steps))
        done = train(
            _Straight(spread), network, (jnp.asarray(codes, jnp.float32), told), key=training,
            steps=steps, optimizer=optax.adam(decay), batch_size=min(batch_size, codes.shape[0]),
            ema=self.ema, **options,
        )  # fmt: skip
        return _Carried(done.best, spread, float(rtol)), done.history, done


class _Velocity(eqx.Module):
    """The network in units of the spread of each coefficient; conditions go in beside them."""

    network: Any
    spread: Float[Array, " size"]

    def __call__(self, t, x, told):
        seen = x / self.spread
        seen = seen if told is None else jnp.concatenate([seen, told], axis=1)
        return self.spread * self.network(seen, t)[:, : self.spread.size]


class _Straight(eqx.Module):
    spread: Float[Array, " size"]

    def __call__(self, network, batch, key):
        x, told = batch
        at, noise = jax.random.split(key)
        z = self.spread * jax.random.normal(noise, x.shape, x.dtype)
        t = jax.random.uniform(at, (x.shape[0],), x.dtype)
        along = (1 - t[:, None]) * z + t[:, None] * x
        velocity = _Velocity(network, self.spread)(t, along, told)
        return jnp.mean(((velocity - (x - z)) / self.spread**0.5) ** 2)


class _Carried(eqx.Module):
    network: Any
    spread: Float[Array, " size"]
    rtol: float = eqx.field(static=True)

    def __call__(self, key, count: int, told: Float[Array, "count k"] | None) -> Array:
        z = self.spread * jax.random.normal(key, (count, self.spread.size), jnp.float32)
        told = None if told is None else told.astype(jnp.float32)
        velocity = _Velocity(self.network, self.spread)
        sol = solve_ode(
            velocity,
            z,
            (0.0, 1.0),
            told,
            method=Tsit5(),
            rtol=self.rtol,
            atol=self.rtol * self.spread,
        )
        return sol.ys[-1]
