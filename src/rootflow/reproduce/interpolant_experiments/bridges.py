"""Schrödinger bridges between two normal laws on a line, N(-1, 1/2) and N(3/2, 2)."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from ...generative import interpolants as ip
from ...generative.exact import GaussianMixture, Interpolated
from ...roots.argmin import argmin
from ...training import train_adversarial

BASE, DATA = (
    GaussianMixture(np.array([[-1.0]]), 0.5**0.5),
    GaussianMixture(np.array([[1.5]]), 2.0**0.5),
)
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)
_TIMES, _WEIGHTS = 0.5 * (_NODES + 1), 0.5 * _WEIGHTS


@eqx.filter_jit
def energy(path: ip.Path, epsilon: Any) -> Array:
    """E int |b + eps s|^2 dt by quadrature: the drift is linear, so two points say it all."""
    law = Interpolated(path, DATA, BASE)

    def at(t):
        c = path.coefficients(t)
        mean = -c.alpha + 1.5 * c.beta
        std = jnp.sqrt(0.5 * c.alpha**2 + 2.0 * c.beta**2 + c.gamma**2)
        x = jnp.stack([mean - std, mean + std])[:, None]
        return jnp.mean((law.b(x, t) + epsilon * law.score(x, t)) ** 2)

    return jnp.sum(jnp.asarray(_WEIGHTS) * jax.vmap(at)(jnp.asarray(_TIMES)))


def energies(epsilon: float) -> dict[str, float]:
    """The kinetic energy on several paths, and the best size of Brownian noise."""

    def of_size(log_a):
        return energy(ip.Linear(ip.Brownian(jnp.exp(log_a))), level)

    level = jnp.asarray(epsilon, float)  # an array, so that one program serves for all
    best = jnp.exp(argmin(of_size, jnp.log(2 * level), rtol=1e-10, atol=1e-12))
    bridge = ip.gaussian_bridge(epsilon, 0.5, 2.0)
    return {
        "bridge": float(energy(bridge, level)),
        "no noise": float(energy(ip.Linear(), level)),
        "noise of the diffusion": float(energy(ip.Linear(ip.Brownian(2 * level)), level)),
        "optimised": float(energy(ip.Linear(ip.Brownian(best)), level)),
        "size": float(best),
        "size of the bridge": float(jnp.asarray(bridge.gamma.a)),  # pyright: ignore
    }


class Affine(eqx.Module):
    """A drift that is linear in x and polynomial in t."""

    weights: Array

    def __call__(self, x: Array, t: Any) -> Array:
        powers = jnp.stack([(2 * t - 1) ** k for k in range(self.weights.shape[1])], axis=-1)
        offset, slope = (powers @ w for w in self.weights)
        return offset[:, None] + slope[:, None] * x


class Size(eqx.Module):
    """The path with Brownian noise of a size that is learned, by its logarithm."""

    log_a: Array

    @property
    def path(self) -> ip.Path:
        """The path."""
        return ip.Linear(ip.Brownian(jnp.exp(self.log_a)))


def learned(epsilon: float, steps: int) -> float:
    """The size of the noise that two players find, the path and the drift."""
    bridge = ip.SchrodingerBridge(epsilon)

    def batch(key):
        key0, key1 = jax.random.split(key)
        # For the steps of the drift and the one of the path.
        return ip.Pairs(BASE.draw(key0, 8192), DATA.draw(key1, 8192))

    players = train_adversarial(
        lambda size, drift, batch, key: bridge.path_loss(size.path, drift, batch, key),
        lambda size, drift, batch, key: bridge.drift_loss(size.path, drift, batch, key),
        Size(jnp.log(jnp.asarray(2 * epsilon))),
        Affine(jnp.zeros((2, 6))),
        batch,
        key=jax.random.key(0),
        steps=steps,
        optimizers=(
            optax.adam(optax.cosine_decay_schedule(0.02, steps)),
            optax.adam(optax.cosine_decay_schedule(0.05, 4 * steps, alpha=0.05)),
        ),
        critic_steps=4,
        every=steps,
        progress=False,
    )
    return float(jnp.exp(players.generator.log_a))
