"""Latent ODEs: a generative model of series, with an encoder."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..errors import InputError
from ..flows.ode import solve_ode
from ..flows.solver import Solver
from . import checks
from .encoders import GRUEncoder
from .fields import MLPField, follow


class LatentODE(eqx.Module):
    """A series is a readout of an ordinary equation that starts at a network of z ~ N(0, I).

    z is inferred from a series, irregular and with gaps (NaN), by an encoder that reads it
    backwards. The equation does not depend on the time, only on the time since `t0` (the first
    observation).

    Args:
        channels: c, of the observations.
        latent: the length of z.
        hidden: the length of the state that is integrated and of the encoder.
        width: of the networks.
        depth: hidden layers.
        noise: standard deviation of the observations given the path.
        encoder: a `GRUEncoder` or `ODERNN`, or any function (ts, xs) -> (hidden,). Default: a GRU.
        solver: how to solve.
        key: for the initial weights.
        dtype: of the weights. Default: JAX's.

    Raises:
        InputError: sizes that are not positive whole numbers, noise that is not positive.

    Source: Chen, Rubanova, Bettencourt & Duvenaud, "Neural ordinary differential equations" (2018);
    Rubanova, Chen & Duvenaud, "Latent ODEs for irregularly-sampled time series" (2019).
    """

    encoder: Any
    inferred: eqx.nn.Linear
    lift: eqx.nn.MLP
    field: MLPField
    readout: eqx.nn.Linear
    channels: int = eqx.field(static=True)
    latent: int = eqx.field(static=True)
    noise: float = eqx.field(static=True)
    solver: Solver = eqx.field(static=True)

    def __init__(
        self,
        channels: int,
        latent: int,
        hidden: int,
        *,
        width: int = 16,
        depth: int = 2,
        noise: float = 1.0,
        encoder: Any = None,
        solver: Solver = Solver(),
        key: PRNGKeyArray,
        dtype: Any = None,
    ) -> None:
        checks.whole("latent", latent)
        if not noise > 0:
            raise InputError(f"noise must be positive; got {noise!r}.")
        a, b, c, d, e = jax.random.split(key, 5)
        self.encoder = encoder or GRUEncoder(channels, hidden, key=a, dtype=dtype)
        self.inferred = eqx.nn.Linear(hidden, 2 * latent, key=b, dtype=dtype)
        self.lift = eqx.nn.MLP(latent, hidden, width, depth, key=c, dtype=dtype)
        self.field = MLPField(
            hidden, width=width, depth=depth, time=False, bounded=True, key=d, dtype=dtype
        )
        self.readout = eqx.nn.Linear(hidden, channels, key=e, dtype=dtype)
        self.channels, self.latent, self.noise, self.solver = channels, latent, noise, solver

    def encode(
        self, ts: Float[Any, " n"], xs: Float[Any, "n c"]
    ) -> tuple[Float[Array, " latent"], Float[Array, " latent"]]:
        """Mean and logarithm of the standard deviation of z given a series.

        Raises:
            InputError: times that do not increase, shapes that do not fit.
        """
        ts, xs = checks.series(ts, xs, self.channels, "LatentODE")
        mean, log_std = jnp.split(self.inferred(self.encoder(ts, xs)), 2)
        return mean, log_std

    def decode(
        self, z: Float[Any, " latent"], ts: Float[Any, " n"], t0: Any = None
    ) -> Float[Array, "n c"]:
        """The series that belongs to z at the times `ts`.

        Args:
            z: the latent vector.
            ts: times, from t0 on, increasing.
            t0: where the equation starts. Default: the first of `ts`.
        """
        z = checks.vector(z, self.latent, "The latent vector")
        ts = checks.increasing(ts, "LatentODE")
        # The time since t0: the equation is the same for a series that begins later.
        past = ts - (ts[0] if t0 is None else jnp.asarray(t0, ts.dtype))
        span = (0.0 * past[-1], past[-1])
        options = self.solver.options()
        sol = solve_ode(follow, self.lift(z), span, self.field, saveat=past, **options)
        return jax.vmap(self.readout)(sol.ys)

    def loss(
        self,
        ts: Float[Any, " n"],
        xs: Float[Any, "n c"],
        key: PRNGKeyArray,
        kl_weight: Any = 1.0,
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """The negative evidence bound of one series, without a constant, and its two parts.

        Args:
            ts: times of the observations.
            xs: observations, NaN where one is missing.
            key: for the draw of z.
            kl_weight: of the Kullback-Leibler divergence (1 is the bound).
        """
        mean, log_std = self.encode(ts, xs)
        z = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape, mean.dtype)
        known = ~jnp.isnan(xs)
        miss = jnp.where(known, jnp.where(known, xs, 0.0) - self.decode(z, ts), 0.0)
        fit = 0.5 * jnp.sum(miss**2) / self.noise**2
        kl = 0.5 * jnp.sum(mean**2 + jnp.exp(2 * log_std) - 2 * log_std - 1)
        return fit + kl_weight * kl, {"fit": fit, "kl": kl}

    def predict(
        self,
        ts: Float[Any, " n"],
        xs: Float[Any, "n c"],
        at: Float[Any, " k"],
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "k c"]:
        """The series at the times `at` (from `ts[0]` on), given its observations.

        Args:
            ts: times of the observations.
            xs: observations, NaN where one is missing.
            at: times, from the first observation on.
            key: for a draw from the posterior. Default: that of the mean of z.
        """
        z, log_std = self.encode(ts, xs)
        if key is not None:
            z = z + jnp.exp(log_std) * jax.random.normal(key, z.shape, z.dtype)
        return self.decode(z, at, jnp.asarray(ts)[0])

    def sample(self, ts: Float[Any, " n"], key: PRNGKeyArray) -> Float[Array, "n c"]:
        """A series drawn from the model."""
        z = jax.random.normal(key, (self.latent,), jnp.asarray(self.readout.weight).dtype)
        return self.decode(z, ts)
