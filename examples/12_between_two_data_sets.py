"""Carry one data set to another: learn two fields once, choose the noise afterwards."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import rootflow as rf
from rootflow import generative as gen
from rootflow.generative import interpolants as ip

jax.config.update("jax_enable_x64", True)

base = gen.exact.GaussianMixture(jnp.array([[-1.0, 0.0], [1.0, 0.0]]), 0.5)
target = gen.exact.ring(modes=6, radius=2.0, std=0.3)


class Network(eqx.Module):
    layers: eqx.nn.MLP

    def __call__(self, x, t):
        time = jnp.broadcast_to(t, x.shape[:1])[:, None]
        out = jax.vmap(self.layers)(jnp.concatenate([x, time], axis=1))
        return {"b": out[:, :2], "eta": out[:, 2:]}


path = ip.Linear(ip.Quadratic())  # x_t = (1 - t) x0 + t x1 + t (1 - t) z
loss = ip.Regression(path, ("b", "eta"))
data = ip.Pairs(base.draw(jax.random.key(0), 20_000), target.draw(jax.random.key(1), 20_000))
model = Network(eqx.nn.MLP(3, 4, 64, 3, jax.nn.silu, key=jax.random.key(2)))
trained = rf.train(
    loss,
    model,
    data,
    key=jax.random.key(3),
    steps=1000,
    batch_size=256,
    optimizer=optax.adam(optax.cosine_decay_schedule(5e-3, 1000)),
    every=500,
    progress=False,
)
fields = ip.Fields(trained.model, path, ("b", "eta"))

start = base.draw(jax.random.key(4), 1000)
by_flow = ip.transport(fields, start)
by_diffusion = ip.transport(
    fields, start, epsilon=ip.Proportional(1.0), key=jax.random.key(5), steps=100
)
fresh = target.draw(jax.random.key(6), 300)
law = gen.exact.Interpolated(path, target, base)
entropy = ip.cross_entropy(fields, fresh, prior=lambda x: law.log_density(x, 0.0))
least = -law.log_density(fresh, 1.0).mean()

for name, x in (("flow", by_flow), ("diffusion", by_diffusion), ("data", fresh)):
    radius = jnp.linalg.norm(x, axis=1)
    print(f"radius, {name}: mean {radius.mean():.3f}, standard deviation {radius.std():.3f}")
print(f"cross-entropy {entropy.value:.3f} +- {entropy.error:.3f}, at least {least:.3f}")
