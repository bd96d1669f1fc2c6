"""Learned fields: the score of the mixtures on a line, and a checkerboard in the plane."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from ...generative import interpolants as ip
from ...training import train
from .laws import BASE, BROWNIAN, DATA, LAW


class Network(eqx.Module):
    """A fully connected network of (x, t) in single precision, with a head for each field."""

    layers: eqx.nn.MLP
    heads: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        size: int,
        heads: tuple[str, ...],
        depth: int,
        activation: Callable[..., Any],
        key: Array,
    ) -> None:
        layers = eqx.nn.MLP(
            size + 1, size * len(heads), 128, depth, activation, dtype=jnp.float32, key=key
        )
        self.layers, self.heads = layers, heads

    def __call__(self, x: Array, t: Any) -> dict[str, Array]:
        time = jnp.broadcast_to(jnp.asarray(t, x.dtype), x.shape[:1])[:, None]
        out = jax.vmap(self.layers)(jnp.concatenate([x, time], axis=1).astype(jnp.float32))
        return dict(zip(self.heads, jnp.split(out, len(self.heads), axis=1)))


def _train(
    loss: ip.Regression, model: Network, data: Any, rate: float, steps: int, key: Array
) -> Network:
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))
    return train(
        loss, model, data, key=key, steps=steps, optimizer=optimizer, every=steps, progress=False
    ).model


def scores(steps: int) -> dict[str, dict[float, float]]:
    """The root mean square error of a learned score, by the loss and by the time."""

    def data(key):
        key0, key1 = jax.random.split(key)
        x0, x1 = BASE.draw(key0, 1000), DATA.draw(key1, 1000)
        return ip.Pairs(x0.astype(jnp.float32), x1.astype(jnp.float32))

    losses = {
        "antithetic": ip.L_s(BROWNIAN),
        "plain": ip.L_s(BROWNIAN, antithetic=False),
        "-eta / gamma": ip.L_eta(BROWNIAN),
    }
    times = (0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99)
    found: dict[str, dict[float, float]] = {}
    for name, loss in losses.items():
        kind = loss.predicts[0]
        model = Network(1, (kind,), 3, jax.nn.gelu, jax.random.key(0))
        model = _train(loss, model, data, 1e-3, steps, jax.random.key(1))
        found[name] = {}
        for t in times:
            x = LAW.draw(jax.random.key(2), 10000, t)
            value = model(x, t)[kind]
            if kind == "eta":
                value = -value / BROWNIAN.gamma.value(t)
            found[name][t] = float(jnp.sqrt(jnp.mean((value - LAW.score(x, t)) ** 2)))
    return found


def checkerboard(key: Array, n: int) -> Array:
    """Eight black squares of side 2 in [-4, 4]^2."""
    key_x, key_y, key_bit = jax.random.split(key, 3)
    x = jax.random.uniform(key_x, (n,), minval=-2.0, maxval=2.0)
    y = jax.random.uniform(key_y, (n,)) - 2.0 * jax.random.bernoulli(key_bit, shape=(n,))
    return (2 * jnp.stack([x, y + jnp.floor(x) % 2], axis=1)).astype(jnp.float32)


def off_the_squares(x: Any) -> float:
    """The fraction of points that lie on no black square."""
    x = np.asarray(x)
    inside = np.all(np.abs(x) <= 4, axis=1)
    black = (np.floor(x[:, 0] / 2) + np.floor(x[:, 1] / 2)) % 2 == 0
    return float(np.mean(~(inside & black)))


FLOOR = float(np.log(32.0))  # the entropy of the checkerboard: the area of its squares is 32
LEVELS = (0.0, 0.5, 1.0, 2.5, 5.0)


def board(
    steps: int, particles: int, sde_steps: int
) -> tuple[float, dict[float, float], dict[float, np.ndarray]]:
    """Cross-entropy of the learned flow; the leakage and the samples for several epsilon."""
    path = ip.OneSidedLinear()
    model = Network(2, ("b", "eta"), 4, jax.nn.silu, jax.random.key(0))
    loss = ip.Regression(path, ("b", "eta"))
    model = _train(loss, model, lambda key: checkerboard(key, 1000), 2e-3, steps, jax.random.key(1))
    fields = ip.Fields(model, path, ("b", "eta"))
    test = checkerboard(jax.random.key(3), 2000)
    nll = float(ip.cross_entropy(fields, test, rtol=1e-4, atol=1e-5).value)
    start = jax.random.normal(jax.random.key(4), (particles, 2), jnp.float32)
    leaks, samples = {}, {}
    for level in LEVELS:
        x = ip.transport(
            fields, start, epsilon=ip.Proportional(level) if level else 0.0,
            key=jax.random.key(5), steps=sde_steps if level else None,
        )  # fmt: skip
        leaks[level], samples[level] = off_the_squares(x), np.asarray(x)
    return nll, leaks, samples
