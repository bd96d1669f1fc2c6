"""Problems with closed-form answers that several tests use."""

import jax
import jax.numpy as jnp

from rootflow import generative as gen
from rootflow.generative.grids import knots
from rootflow.generative.loop import evaluator

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


def by_hand(denoiser, sampler, start, times, *, denoise=False, key=None):
    """The turns of a sampler one after another, as `gen.sample` takes them, without compiling."""
    known = knots(denoiser.schedule, times, clean=denoise)
    plan = sampler.plan(denoiser.schedule, known, None)
    evaluate, state = evaluator(denoiser, sampler, None), sampler.init(start)
    count = jax.tree.leaves(plan.rows)[0].shape[0]
    keys = jax.random.split(jax.random.split(key)[1], count) if sampler.noisy else [None] * count
    for i in range(count):
        row = jax.tree.map(lambda part, i=i: part[i], plan.rows)
        draw = None if keys[i] is None else jax.random.normal(keys[i], start.shape, start.dtype)
        state = sampler.step(evaluate, state, row, draw)
    return sampler.sample(state)
