"""Train a small diffusion model with classes, guide it, and sample it given a measurement."""

import jax
import jax.numpy as jnp
import optax

import rootflow as rf
from rootflow import generative as gen

schedule = gen.VPLinear()
centres = jnp.array([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]])


def batch(key):
    """Points about three centres, and which one each belongs to."""
    which, where = jax.random.split(key)
    kind = jax.random.randint(which, (128,), 0, 3)
    return centres[kind] + 0.3 * jax.random.normal(where, (128, 2)), kind


loss = gen.DiffusionLoss(
    schedule, predicts="velocity", time=schedule.log_snr, dropout=0.1, unconditional=-1
)
network = gen.MLP((2,), width=64, depth=2, classes=3, key=jax.random.key(0))
trained = rf.train(
    loss,
    network,
    batch,
    key=jax.random.key(1),
    steps=800,
    optimizer=optax.adam(optax.cosine_decay_schedule(3e-3, 800)),
    ema=0.99,
    progress=False,
)

guided = loss.denoiser(trained.ema, guidance=gen.ClassifierFree(1.5, unconditional=-1))
kinds = jnp.repeat(jnp.arange(3), 200)
samples = gen.sample(guided, kinds, shape=(600, 2), key=jax.random.key(2), steps=20)

# The same network without a class, given that the first coordinate was measured as -1.
seen = gen.PiGDM(lambda x: x[:, :1], jnp.array([-1.0]), noise=0.1)
posterior = gen.sample(
    loss.denoiser(trained.ema, guidance=seen), shape=(600, 2), key=jax.random.key(3), steps=50
)

print("loss:", trained.history["loss"][-1])
for kind in range(3):
    print("centre", centres[kind], "mean of its samples", samples[kinds == kind].mean(0))
print("given a measurement of -1 the first coordinate is", posterior[:, 0].mean())
print("and the second is positive for a share of", (posterior[:, 1] > 0).mean())
