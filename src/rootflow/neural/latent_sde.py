"""Latent stochastic differential equations: a stochastic model of series, by variational inference.

Prior dZ = h(Z) dt + g(Z) dW, posterior dZ = f(Z, context(t)) dt + g(Z) dW with the same g, so that
the divergence between them is the mean of half the integral of |(f - h) / g|^2.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..errors import InputError
from ..flows.noise import BrownianMotion
from ..flows.sde import solve_sde
from ..flows.solver import Solver
from . import checks
from .encoders import GRUEncoder


class Bound(NamedTuple):
    """The parts of the evidence bound log p >= fit - path - start, for one draw.

    Attributes:
        fit: log-density of the observations given the path.
        path: half the integral of |u|^2.
        start: the divergence of the two laws of Z(t0).
    """

    fit: Float[Array, ""]
    path: Float[Array, ""]
    start: Float[Array, ""]


class LatentSDE(eqx.Module):
    """A series is a linear readout, with noise, of a latent diffusion.

    The drifts of prior and posterior are networks; each component of g is a network of its own
    component of Z, between 0 and 1. The posterior drift sees, at each time, what a recurrent unit
    made of the observations from then on. The model does not know the time.

    Args:
        channels: c, of the observations.
        latent: the length of Z.
        context: the length of what the posterior is told.
        hidden: width of the networks and state of the recurrent unit.
        noise: standard deviation of the observations given the path.
        solver: how to solve, such as `Solver(rf.EulerMaruyama(), dt=0.01)`. (The divergence is the
            same in the Ito and in the Stratonovich sense.) With `rf.ReversibleHeun()` and
            `rf.ReversibleAdjoint()` the memory of training does not grow with the steps.
        key: for the initial weights.
        dtype: of the weights. Default: JAX's.

    Raises:
        InputError: sizes that are not positive whole numbers, noise that is not positive.

    Source: Li, Wong, Chen & Duvenaud, "Scalable gradients for stochastic differential equations"
    (2020).
    """

    encoder: GRUEncoder
    told: eqx.nn.Linear
    inferred: eqx.nn.Linear
    start_mean: Float[Array, " latent"]
    start_log_std: Float[Array, " latent"]
    prior: eqx.nn.MLP
    posterior: eqx.nn.MLP
    diffusion: eqx.nn.MLP  # of each component, stacked
    readout: eqx.nn.Linear
    channels: int = eqx.field(static=True)
    latent: int = eqx.field(static=True)
    noise: float = eqx.field(static=True)
    solver: Solver = eqx.field(static=True)

    def __init__(
        self,
        channels: int,
        latent: int,
        *,
        context: int = 16,
        hidden: int = 32,
        noise: float = 0.1,
        solver: Solver,
        key: PRNGKeyArray,
        dtype: Any = None,
    ) -> None:
        checks.whole("latent", latent)
        checks.whole("context", context)
        if not noise > 0:
            raise InputError(f"noise must be positive; got {noise!r}.")
        keys = jax.random.split(key, 8)
        self.encoder = GRUEncoder(channels, hidden, key=keys[0], dtype=dtype)
        self.told = eqx.nn.Linear(hidden, context, key=keys[1], dtype=dtype)
        self.inferred = eqx.nn.Linear(context, 2 * latent, key=keys[2], dtype=dtype)
        self.start_mean = jnp.zeros(latent, dtype)
        self.start_log_std = jnp.zeros(latent, dtype)
        drift = lambda size, key: eqx.nn.MLP(
            size, latent, hidden, 1, jax.nn.softplus, key=key, dtype=dtype
        )
        self.prior = drift(latent, keys[3])
        self.posterior = drift(latent + context, keys[4])
        each = lambda key: eqx.nn.MLP(
            "scalar", "scalar", hidden, 1, jax.nn.softplus, jax.nn.sigmoid, key=key, dtype=dtype
        )
        self.diffusion = eqx.filter_vmap(each)(jax.random.split(keys[5], latent))
        self.readout = eqx.nn.Linear(latent, channels, key=keys[6], dtype=dtype)
        self.channels, self.latent, self.noise, self.solver = channels, latent, noise, solver

    def spread(self, z: Float[Any, " latent"]) -> Float[Array, " latent"]:
        """The diffusion g, a component at a time."""
        return eqx.filter_vmap(lambda g, z: g(z))(self.diffusion, z)

    def bound(self, ts: Float[Any, " n"], xs: Float[Any, "n c"], key: PRNGKeyArray) -> Bound:
        """The parts of the evidence bound of one series, for one draw of the posterior.

        Args:
            ts: times of the observations. (Given as a NumPy array, and not as an argument of
                `jit`, the solve knows its steps beforehand and is faster.)
            xs: observations, NaN where one is missing.
            key: for the path and its start.

        Raises:
            InputError: times that do not increase, shapes that do not fit.
        """
        path, half_squares, start = self._posterior(ts, xs, key)
        known = ~jnp.isnan(xs)
        miss = jnp.where(known, jnp.where(known, xs, 0.0) - path, 0.0) / self.noise
        log_scale = jnp.log(self.noise) + 0.5 * jnp.log(2 * jnp.pi)
        fit = -0.5 * jnp.sum(miss**2) - jnp.sum(known) * log_scale
        return Bound(fit, half_squares, start)

    def loss(
        self,
        ts: Float[Any, " n"],
        xs: Float[Any, "n c"],
        key: PRNGKeyArray,
        kl_weight: Any = 1.0,
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """Minus the bound, and its parts; `kl_weight` rises from 0 to 1 while training begins."""
        fit, path, start = self.bound(ts, xs, key)
        return kl_weight * (path + start) - fit, {"fit": fit, "path": path, "start": start}

    def infer(
        self, ts: Float[Any, " n"], xs: Float[Any, "n c"], key: PRNGKeyArray
    ) -> Float[Array, "n c"]:
        """A draw of the posterior: a series without observation noise at the times `ts`."""
        return self._posterior(ts, xs, key)[0]

    def sample(self, ts: Float[Any, " n"], key: PRNGKeyArray) -> Float[Array, "n c"]:
        """A draw of the prior, without observation noise."""
        ts = checks.increasing(ts, "LatentSDE")
        for_start, for_path = jax.random.split(key)
        noise = jax.random.normal(for_start, (self.latent,), self.start_mean.dtype)
        z0 = self.start_mean + jnp.exp(self.start_log_std) * noise
        sol = self._solve(_prior_drift, _prior_spread, z0, ts, for_path, self)
        return jax.vmap(self.readout)(sol)

    def _posterior(self, ts, xs, key):
        ts, xs = checks.series(ts, xs, self.channels, "LatentSDE")
        context = jax.vmap(self.told)(self.encoder.along(ts, xs))
        mean, log_std = jnp.split(self.inferred(context[0]), 2)
        for_start, for_path = jax.random.split(key)
        z0 = mean + jnp.exp(log_std) * jax.random.normal(for_start, mean.shape, mean.dtype)
        ratio = jnp.exp(2 * (log_std - self.start_log_std))
        away = (mean - self.start_mean) * jnp.exp(-self.start_log_std)
        start = 0.5 * jnp.sum(ratio + away**2 - 1 - 2 * (log_std - self.start_log_std))
        state = jnp.append(z0, jnp.zeros(1, z0.dtype))
        args = (self, jnp.asarray(ts), context)
        path = self._solve(_posterior_drift, _posterior_spread, state, ts, for_path, args)
        return jax.vmap(self.readout)(path[:, :-1]), path[-1, -1], start

    def _solve(self, drift, diffusion, start, ts, key, args):
        noise = BrownianMotion(key, start.shape, ts[0], ts[-1], dtype=start.dtype)
        sol = solve_sde(
            drift, diffusion, start, (ts[0], ts[-1]), noise, args, saveat=ts,
            **self.solver.options(),
        )  # fmt: skip
        return sol.ys


def _prior_drift(t, z, model):
    return model.prior(z)


def _prior_spread(t, z, model):
    return model.spread(z)


def _posterior_drift(t, state, args):
    """Of Z, and of half the integral of |u|^2."""
    model, ts, context = args
    z = state[:-1]
    i = jnp.minimum(jnp.searchsorted(ts, t, side="right"), ts.shape[0] - 1)
    drift = model.posterior(jnp.concatenate([z, context[i]]))
    u = (drift - model.prior(z)) / model.spread(z)
    return jnp.append(drift, 0.5 * jnp.sum(u**2))


def _posterior_spread(t, state, args):
    return jnp.append(args[0].spread(state[:-1]), jnp.zeros(1, state.dtype))
