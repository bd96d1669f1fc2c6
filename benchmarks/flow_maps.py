"""Losses of flow maps with their gradients, beside the same written by hand in JAX and in torch.

All sides have the same network, four layers of 128 with SiLU, with the same weights, in single
precision and in two dimensions, and draw their times and their noise anew in each call. By hand
there is nothing but the formulas, so that row is what the library adds to them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rootflow.generative import flow_maps as fm

from .harness.comparison import Comparison, Row
from .interpolants import batch, model, torch_network, weights

WEIGHTS = {1: weights(1), 2: weights(2)}
SHARE = 0.75  # of the samples of MeanFlow whose two times differ
TIMES = 64  # of consistency training
SIGMA_DATA, LEAST, MOST = 0.5, 0.002, 80.0


def mean_flow(net: Any, x0: Any, key: Any) -> Any:
    """Geng et al. (2025), eq. 6 to 11, on x_s = (1 - s) x0 + s z."""
    key_s, key_t, key_z, key_share = jax.random.split(key, 4)
    n = x0.shape[0]
    one, other = (jax.random.uniform(k, (n,), x0.dtype) for k in (key_s, key_t))
    s, t = jnp.maximum(one, other), jnp.minimum(one, other)
    t = jnp.where(jax.random.bernoulli(key_share, SHARE, (n,)), t, s)
    z = jax.random.normal(key_z, x0.shape, x0.dtype)
    x, v = (1 - s)[:, None] * x0 + s[:, None] * z, z - x0
    u, rate = jax.jvp(lambda x, s: net(x, s, t), (x, s), (v, jnp.ones_like(s)))
    target = jax.lax.stop_gradient(v - (s - t)[:, None] * rate)
    return jnp.mean((u - target) ** 2)


def levels() -> np.ndarray:
    """Noise levels of Karras et al. (2022), table 1."""
    share = np.arange(TIMES + 1) / TIMES
    return (MOST ** (1 / 7) + share * (LEAST ** (1 / 7) - MOST ** (1 / 7))) ** 7


def consistent(net: Any, x: Any, sigma: Any) -> Any:
    """Song et al. (2023), app. C."""
    way, size = sigma - LEAST, jnp.sqrt(sigma**2 + SIGMA_DATA**2)
    skip, out = SIGMA_DATA**2 / (way**2 + SIGMA_DATA**2), SIGMA_DATA * way / size
    value = net(x / size[:, None], 0.25 * jnp.log(sigma))
    return skip[:, None] * x + out[:, None] * value


def consistency(net: Any, x0: Any, key: Any) -> Any:
    """Song et al. (2023), algorithm 3, the target with the parameters of the model."""
    key_index, key_z = jax.random.split(key)
    index = jax.random.randint(key_index, x0.shape[:1], 0, TIMES)
    table = jnp.asarray(levels(), x0.dtype)
    s, r = table[index], table[index + 1]
    z = jax.random.normal(key_z, x0.shape, x0.dtype)
    target = consistent(net, x0 + r[:, None] * z, r)
    error = consistent(net, x0 + s[:, None] * z, s) - jax.lax.stop_gradient(target)
    return jnp.mean(error**2)


def stepper(loss: Any, net: Any, n: int) -> Callable[[], Any]:
    """The loss of a batch and its gradient, with a new key each time."""
    data = jnp.asarray(batch(n)[1])

    @jax.jit
    def step(net, data, key):
        key, this = jax.random.split(key)
        return jax.value_and_grad(loss)(net, data, this), key

    keys = [jax.random.key(0)]

    def call():
        found, keys[0] = step(net, data, keys[0])
        return found

    return call


def ours(name: str, n: int) -> Callable[[], Any]:
    if name == "MeanFlow":
        return stepper(fm.MeanFlow(SHARE), fm.FlowMap(model(jnp.float32, WEIGHTS[2])), n)
    net = fm.ConsistencyMap(model(jnp.float32, WEIGHTS[1]), sigma_data=SIGMA_DATA, end=LEAST)
    return stepper(fm.ConsistencyTraining(TIMES), net, n)


def by_hand(name: str, n: int) -> Callable[[], Any]:
    if name == "MeanFlow":
        return stepper(mean_flow, model(jnp.float32, WEIGHTS[2]), n)
    return stepper(consistency, model(jnp.float32, WEIGHTS[1]), n)


def in_torch(name: str, n: int) -> Callable[[], Any]:
    import torch  # pyright: ignore[reportMissingImports]

    x0 = torch.tensor(batch(n)[1])
    net = torch_network(WEIGHTS[2 if name == "MeanFlow" else 1])
    table = torch.tensor(levels(), dtype=torch.float32)

    def mean_flow():
        one, other = torch.rand(n), torch.rand(n)
        s, t = torch.maximum(one, other), torch.minimum(one, other)
        t = torch.where(torch.rand(n) < SHARE, t, s)
        z = torch.randn_like(x0)
        x, v = (1 - s)[:, None] * x0 + s[:, None] * z, z - x0
        u, rate = torch.func.jvp(lambda x, s: net(x, s, t), (x, s), (v, torch.ones_like(s)))
        target = (v - (s - t)[:, None] * rate).detach()
        return torch.mean((u - target) ** 2)

    def denoised(x, sigma):
        way, size = sigma - LEAST, (sigma**2 + SIGMA_DATA**2).sqrt()
        skip, out = SIGMA_DATA**2 / (way**2 + SIGMA_DATA**2), SIGMA_DATA * way / size
        return skip[:, None] * x + out[:, None] * net(x / size[:, None], sigma.log() / 4)

    def consistency():
        index = torch.randint(0, TIMES, (n,))
        s, r = table[index], table[index + 1]
        z = torch.randn_like(x0)
        with torch.no_grad():
            target = denoised(x0 + r[:, None] * z, r)
        return torch.mean((denoised(x0 + s[:, None] * z, s) - target) ** 2)

    loss = mean_flow if name == "MeanFlow" else consistency

    def call():
        net.zero_grad()
        value = loss()
        value.backward()
        return value.detach().numpy()

    return call


def rows(quick: bool) -> Sequence[Row]:
    n = 64 if quick else 512
    found = []
    for name in ("MeanFlow", "consistency training"):
        for kind, bar in (("run", 1.05), ("first call", None)):
            found.append(
                Row(
                    f"{name}, loss and gradient, batch {n}, beside formulas in JAX"
                    + (", first call" if kind == "first call" else ""),
                    lambda name=name: ours(name, n),
                    lambda name=name: by_hand(name, n),
                    bar=bar,
                    kind=kind,  # pyright: ignore[reportArgumentType]
                    peer_name="jax",
                )
            )
        found.append(
            Row(
                f"{name}, loss and gradient, batch {n}, beside torch",
                lambda name=name: ours(name, n),
                lambda name=name: in_torch(name, n),
                bar=1.0,
            )
        )
    return found


COMPARISON = Comparison(
    title="losses of flow maps with a network of four layers of 128, float32",
    peer="torch",
    rows=rows,
)
