"""Schrödinger bridges by optimising the path.

For fixed epsilon the bridge is the solution of

    max over I, min over u of E int |u|^2 / 2 - (dI/dt + (gamma' - eps / gamma) z) . u dt

(Albergo, Boffi and Vanden-Eijnden 2023, sec. 3.4). For a given path the best u is the forward drift
b + eps s, and the value is -E int |u|^2 / 2: the path with the least kinetic energy is the bridge,
provided that some path has its marginals. Any path that is not yet optimal samples without bias.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from ...errors import InputError
from ...ground.tracing import is_traced
from ..numerics import expand
from .fields import predictions
from .gammas import Brownian
from .losses import NEAR, Regression
from .paths import Linear, Path


class SchrodingerBridge(eqx.Module):
    """The two losses of the bridge, for `rootflow.training.train_adversarial`.

    The drift u, a model `(x, t) -> u`, is the critic, and the path, whose gamma or bend has
    parameters, is the generator. Both signs of z are averaged, see `Regression`.

    Attributes:
        epsilon: positive.
        times: the interval of times.
    """

    epsilon: ArrayLike
    times: tuple[float, float] = eqx.field(static=True, default=(NEAR, 1 - NEAR))

    def __check_init__(self) -> None:
        if not is_traced(self.epsilon) and not (np.asarray(self.epsilon) > 0).all():
            raise InputError(f"epsilon={self.epsilon} must be positive.")

    def value(self, path: Path, drift: Any, batch: Any, key: Key[Array, ""]) -> Array:
        """The objective, which the drift minimises and the path maximises."""
        if not isinstance(path, Path) or path.sides != "two" or not path.noisy:
            raise InputError(
                f"The bridge needs a two-sided path with latent noise, as Linear(Brownian()); got "
                f"{path!r}."
            )
        key_pairs, key_t, key_z = jax.random.split(key, 3)
        x0, x1, condition = Regression(path, "b").pairs(batch, key_pairs)
        low, high = self.times
        t = jax.random.uniform(key_t, x1.shape[:1], x1.dtype, low, high)
        z = jax.random.normal(key_z, x1.shape, x1.dtype)
        middle, velocity = path.interpolate(t, x0, x1)
        c = path.coefficients(expand(t, x1))

        def at(z):
            u = predictions(drift, ("b",), middle + c.gamma * z, t, condition)["b"]
            target = velocity + (c.product - self.epsilon) / c.gamma * z
            return jnp.mean(jnp.sum((0.5 * u - target) * u, axis=tuple(range(1, x1.ndim))))

        return 0.5 * (at(z) + at(-z))

    def path_loss(self, path: Path, drift: Any, batch: Any, key: Key[Array, ""]) -> Array:
        """What the path minimises: the generator's loss."""
        return -self.value(path, drift, batch, key)

    def drift_loss(self, path: Path, drift: Any, batch: Any, key: Key[Array, ""]) -> Array:
        """What the drift minimises: the critic's loss."""
        return self.value(path, drift, batch, key)


def gaussian_bridge(epsilon: ArrayLike, variance0: ArrayLike, variance1: ArrayLike) -> Linear:
    """The path that is the Schrödinger bridge between two normal distributions.

    gamma^2 = 2 sqrt(c0 c1 + eps^2) t (1 - t) on straight lines, x0 and x1 independent: exact for
    normal distributions with a common set of principal axes, along which the variances are c0 and
    c1, and a good start for others.

    Args:
        epsilon: positive.
        variance0: c0 of the base: a number or one for each axis.
        variance1: c1 of the target.
    """
    for name, value in (("epsilon", epsilon), ("variance0", variance0), ("variance1", variance1)):
        if not is_traced(value) and not (np.asarray(value) > 0).all():
            raise InputError(f"{name}={value} must be positive.")
    product = jnp.asarray(variance0) * jnp.asarray(variance1)
    return Linear(Brownian(2 * jnp.sqrt(product + jnp.asarray(epsilon) ** 2)))


def kinetic_energy(
    path: Path,
    drift: Any,
    batch: Any,
    key: Key[Array, ""],
    *,
    draws: int = 16,
    times: tuple[float, float] = (NEAR, 1 - NEAR),
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """E int |u|^2 dt along a path, and its standard error.

    Args:
        path: where the points are drawn.
        drift: u, a function `(x, t) -> u` of a batch and one time per sample.
        batch: as in `Regression`.
        key: for the points.
        draws: times for each pair.
        times: the interval.
    """
    key_pairs, key_points = jax.random.split(key)
    x0, x1, condition = Regression(path, "b").pairs(batch, key_pairs)
    low, high = times

    def energy(key: Array) -> Array:
        key_t, key_z = jax.random.split(key)
        t = jax.random.uniform(key_t, x1.shape[:1], x1.dtype, low, high)
        x = path.at(t, x0, x1, jax.random.normal(key_z, x1.shape, x1.dtype)).x
        u = predictions(drift, ("b",), x, t, condition)["b"]
        return (high - low) * jnp.sum(u**2, axis=tuple(range(1, x.ndim)))

    found = jnp.mean(jax.lax.map(energy, jax.random.split(key_points, draws)), axis=0)
    return jnp.mean(found), jnp.std(found) / math.sqrt(x1.shape[0])
