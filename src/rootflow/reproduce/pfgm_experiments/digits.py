"""PFGM++ on handwritten digits, with their own exact field and with trained networks."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ... import generative as gen
from ...generative import pfgm
from ...generative.digits import digits
from ...generative.networks import MLP
from ...training import train

INF = math.inf


def images() -> np.ndarray:
    """Shape (1797, 64), of mean 0 and standard deviation 0.5."""
    values = np.asarray(digits(float).images, float).reshape(-1, 64)
    return 0.5 * (values - values.mean()) / values.std()


@eqx.filter_jit
def _to_uniform(field: pfgm.Charges, noise: Any, sigma: Any) -> Any:
    x = field.points + sigma * noise
    share = jax.nn.softmax(field.log_posterior(x, sigma), axis=1)
    return 0.5 * jnp.mean(jnp.sum(jnp.abs(share - 1 / share.shape[1]), axis=1))


def alignment(
    data: Any, sizes: tuple[float, ...]
) -> tuple[dict[float, tuple[list[float], list[float]]], dict[float, float]]:
    """For each D the total-variation distance of the posterior from uniform over sigma.

    And the sigma where it passes one half.
    """
    levels = np.exp(np.linspace(math.log(0.2), math.log(20.0), 25))
    curves, crossings = {}, {}
    for d in sizes:
        noise = pfgm.PoissonNoise(d)
        field = pfgm.Charges(data, noise)
        drawn = noise.draw(jax.random.key(1), data.shape)
        found = [float(_to_uniform(field, drawn, sigma)) for sigma in levels]
        curves[d] = (levels.tolist(), found)
        # It falls with sigma; interpolated in the logarithm.
        crossings[d] = float(np.exp(np.interp(-0.5, -np.asarray(found), np.log(levels))))
    return curves, crossings


def frechet(samples: Any, data: Any) -> float:
    """The Fréchet distance between normal distributions with the moments of two sets."""
    first, second = np.asarray(samples), np.asarray(data)
    gap = np.sum((first.mean(0) - second.mean(0)) ** 2)
    one, other = np.cov(first.T), np.cov(second.T)
    values, vectors = np.linalg.eigh(other)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ one @ root), 0)).sum()
    return float(gap + np.trace(one) + np.trace(other) - 2 * cross)


def robustness(data: Any, d: float, jolt: float, draws: int = 1) -> float:
    """The mean Fréchet distance of as many samples of the exact field as there are data."""
    noise = pfgm.PoissonNoise(d)
    denoiser = pfgm.Charges(data, noise).denoiser()
    keys = jax.random.split(jax.random.key(2), draws)
    found = [frechet(_samples(denoiser, noise, data.shape, jolt, key), data) for key in keys]
    return float(np.mean(found))


def _samples(denoiser: Any, noise: Any, shape: tuple[int, ...], jolt: float, key: Any) -> Any:
    sampler = pfgm.Jolted(jolt=jolt)
    return pfgm.sample(denoiser, noise, shape=shape, key=key, sampler=sampler)


def learned(data: Any, d: float, jolts: tuple[float, ...], steps: int = 4000) -> dict[float, float]:
    """The Fréchet distance of a trained network's samples for each jolt."""
    noise = pfgm.PoissonNoise(d)
    single = jnp.asarray(data, jnp.float32)
    network = MLP((data.shape[1],), width=256, depth=2, key=jax.random.key(3))
    network = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, network
    )
    trained = train(
        pfgm.poisson_loss(noise),
        gen.EDMPreconditioned(network, 0.5),
        single,
        key=jax.random.key(4),
        steps=steps,
        batch_size=256,
        optimizer=optax.adam(optax.cosine_decay_schedule(1e-3, steps)),
        ema=0.999,
        progress=False,
    )
    denoiser = gen.Denoiser(trained.ema, gen.EDM(), "data")
    key = jax.random.key(5)
    return {jolt: frechet(_samples(denoiser, noise, data.shape, jolt, key), data) for jolt in jolts}
