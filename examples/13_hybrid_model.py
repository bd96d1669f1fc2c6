"""Hares and lynxes: growth and death are known, a network finds what each does to the other."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rootflow as rf
from rootflow import neural
from rootflow.fitting.examples import example_files
from rootflow.training import load, save

jax.config.update("jax_enable_x64", True)

year, hare, lynx = np.genfromtxt(example_files("hare-lynx")[1], delimiter=",", skip_header=3).T
ts = year - year[0]
data = np.stack([hare, lynx], axis=1) / 30  # in units of 30,000 pelts


def known(t, y, rates, share):
    """Each population grows or dies at a rate of its own, more or less by what the other does."""
    return y * (jnp.exp(rates) * jnp.array([1.0, -1.0]) + share)


field = neural.HybridField(
    known,
    neural.MLPField(2, width=8, depth=1, time=False, key=jax.random.key(0)),
    parameters=jnp.log(jnp.array([0.5, 0.8])),
    inside=True,
)
model = neural.NeuralODE(field, solver=neural.Solver(rf.Heun(), dt=0.25, max_steps=128))
stages = neural.shoot(
    model, ts, data, lengths=(2, 5, 10), steps=500, key=jax.random.key(1),
    continuity=1.0, optimizer=optax.adam(1e-2), progress=False,
)  # fmt: skip
model = stages[-1].model
save("hare_lynx.npz", model)
again = load("hare_lynx.npz", model)

pieces = neural.segments(ts, data, 5)
ahead = jax.vmap(again)(pieces.ys[:, 0], pieces.ts)
error = 30 * jnp.sqrt(jnp.mean((ahead - pieces.ys)[:, 1:] ** 2, axis=(0, 1)))
spread = 30 * data.std(axis=0)
print(f"one to five years ahead it errs by {error[0]:.1f} hares and {error[1]:.1f} lynxes")
print(f"(thousands of pelts; the standard deviations are {spread[0]:.1f} and {spread[1]:.1f})")
