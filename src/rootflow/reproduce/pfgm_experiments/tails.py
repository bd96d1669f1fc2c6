"""Training with D = 1, where the noise has neither a variance nor a mean."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from ... import generative as gen
from ...generative import pfgm
from ...generative.networks import MLP
from ...training import train


def errors(d: float = 1.0, steps: int = 1000) -> tuple[float, float]:
    """Root mean square distances from the exact denoiser: EDM's preconditioning, and by tails."""
    points = gen.exact.ring().means / (2 * 2**0.5)  # of standard deviation 0.5
    single = points.astype(jnp.float32)
    noise = pfgm.PoissonNoise(d)
    network = MLP((2,), width=64, depth=2, key=jax.random.key(0))
    network = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, network
    )
    loss = pfgm.poisson_loss(noise)
    key_level, key_point, key_noise = jax.random.split(jax.random.key(5), 3)
    sigma = loss.draw_times(key_level, 4000)
    x = points[jax.random.randint(key_point, (4000,), 0, 8)]
    x = x + sigma[:, None] * noise.draw(key_noise, x.shape)
    best = pfgm.Charges(points, noise).mean(x, sigma)

    def error(model: gen.EDMPreconditioned) -> float:
        found = train(
            loss,
            model,
            lambda key: single[jax.random.randint(key, (256,), 0, 8)],
            key=jax.random.key(1),
            steps=steps,
            every=steps,
            optimizer=optax.adam(optax.cosine_decay_schedule(1e-3, steps)),
            ema=0.99,
            progress=False,
        ).ema
        gap = jnp.sum((found(x, sigma) - best) ** 2, axis=1)
        return float(jnp.sqrt(jnp.mean(gap)))

    return (
        error(gen.EDMPreconditioned(network)),
        error(pfgm.TailPreconditioned(network, noise=noise)),
    )
