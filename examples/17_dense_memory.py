"""Plan an associative memory for noisy data, build it, and retrieve what it was never shown."""

import jax
import jax.numpy as jnp

from rootflow import memory as mem

jax.config.update("jax_enable_x64", True)

neurons, archetypes, quality = 200, 20, 0.5
plan = mem.plan(
    neurons=neurons, archetypes=archetypes, quality=quality, overlap=0.97, smallest_order=4
)
print(
    f"order {plan.order}, {plan.quantity} examples each, temperature up to {plan.temperature:.2f}"
)

data = mem.examples(
    jax.random.key(0), neurons=neurons, archetypes=archetypes, quality=quality,
    quantity=plan.quantity,
)  # fmt: skip
net = mem.DenseHebbian.supervised(data.examples, plan.order, quality=quality)

# Start from one example each, three quarters of whose neurons are right.
starts = data.examples[:, 0]
runs = jax.vmap(lambda key, start: mem.glauber(key, net, start, temperature=0.0))(
    jax.random.split(jax.random.key(1), archetypes), starts
)
before = jnp.mean(starts * data.archetypes, axis=1)
after = jnp.mean(runs.sigma * data.archetypes, axis=1)
print(f"overlap with the archetypes: {before.mean():.2f} before, {after.mean():.2f} after")
