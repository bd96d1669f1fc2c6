"""Problems with closed-form answers that several tests use."""

import jax
import jax.numpy as jnp

from rootflow import generative as gen

VP = gen.VPLinear()
MEAN, STD, END = jnp.array([1.5, -0.5]), 0.3, 1e-3
GAUSSIAN = gen.exact.GaussianMixture(MEAN[None], STD)
NORMAL = GAUSSIAN.denoiser(VP)
RING = gen.exact.ring().denoiser(VP)
START = jax.random.normal(jax.random.key(0), (32, 2))
TRUTH = GAUSSIAN.flow_map(VP, START, 1.0, END)


def network(key, size=2, width=16, dtype=float):
    """A random smooth network (x, t) -> noise, untrained, and its parameters."""
    a, b, c = (0.5 * jax.random.normal(k, s, dtype) for k, s in zip(
        jax.random.split(key, 3), [(size + 1, width), (width, width), (width, size)]
    ))  # fmt: skip
    return (a, b, c)


def apply(parameters, x, t):
    a, b, c = parameters
    time = jnp.broadcast_to(jnp.asarray(t, x.dtype), (*x.shape[:-1], 1))
    hidden = jnp.tanh(jnp.concatenate([x, time], axis=-1) @ a)
    return jnp.tanh(hidden @ b) @ c
