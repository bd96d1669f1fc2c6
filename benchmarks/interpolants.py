"""Flow matching beside torchcfm and flow_matching, and Heun steps beside those of EDM in torch.

Both sides have the same network, four layers of 128 with SiLU on (x, t), with the same weights, in
single precision and in two dimensions.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import rootflow as rf
from rootflow import generative as gen
from rootflow.generative import interpolants as ip

from .harness.comparison import Comparison, Row

_RANDOM = np.random.default_rng(0)


def weights(times: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of a network that sees a point of the plane and so many times."""
    widths = pairwise((2 + times, 128, 128, 128, 128, 2))
    return [(_RANDOM.normal(size=(n, m)) / np.sqrt(m), np.zeros(n)) for m, n in widths]


WEIGHTS = weights(1)
STEPS = 50


def network(weights, x, *times):
    """The value at x and the times."""
    told = [jnp.broadcast_to(t, x.shape[:1])[:, None] for t in times]
    h = jnp.concatenate([x, *told], axis=1)
    for i, (matrix, offset) in enumerate(weights):
        h = h @ matrix.T + offset
        h = jax.nn.silu(h) if i < len(weights) - 1 else h
    return h


class Model:
    """The network with its weights, as a pytree."""

    def __init__(self, weights):
        self.weights = weights

    def __call__(self, x, *times):
        return network(self.weights, x, *times)


jax.tree_util.register_pytree_node(Model, lambda m: ((m.weights,), None), lambda _, c: Model(*c))


def model(dtype, values=WEIGHTS):
    return Model([(jnp.asarray(a, dtype), jnp.asarray(b, dtype)) for a, b in values])


def batch(n: int) -> tuple[np.ndarray, np.ndarray]:
    angle = _RANDOM.uniform(0, 2 * np.pi, n)
    x1 = 2 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.3 * _RANDOM.normal(size=(n, 2))
    return _RANDOM.normal(size=(n, 2)).astype(np.float32), x1.astype(np.float32)


def torch_network(values=WEIGHTS):
    import torch  # pyright: ignore[reportMissingImports]

    layers: list[Any] = []
    for a, b in values:
        layer = torch.nn.Linear(a.shape[1], a.shape[0])
        layer.weight.data = torch.tensor(a, dtype=torch.float32)
        layer.bias.data = torch.tensor(b, dtype=torch.float32)
        layers += [layer, torch.nn.SiLU()]
    chain: Any = torch.nn.Sequential(*layers[:-1])

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = chain

        def forward(self, x, *times):
            told = [t.expand(x.shape[0])[:, None] for t in times]
            return self.layers(torch.cat([x, *told], dim=1))

    return Network()


def our_gradient(loss: ip.Regression, n: int) -> Callable[[], Any]:
    """The loss of a batch and its gradient, with a new key each time."""
    data, net = ip.Pairs(*map(jnp.asarray, batch(n))), model(jnp.float32)

    @jax.jit
    def step(net, key):
        key, this = jax.random.split(key)
        return jax.value_and_grad(loss)(net, data, this), key

    keys = [jax.random.key(0)]

    def call():
        found, keys[0] = step(net, keys[0])
        return found

    return call


def their_gradient(matcher: str, n: int, **options: Any) -> Callable[[], Any]:
    import torch  # pyright: ignore[reportMissingImports]
    import torchcfm.conditional_flow_matching as cfm  # pyright: ignore[reportMissingImports]

    x0, x1 = map(torch.tensor, batch(n))
    net, make = torch_network(), getattr(cfm, matcher)(**options)

    def call():
        net.zero_grad()
        t, x, target = make.sample_location_and_conditional_flow(x0, x1)
        loss = torch.mean((net(x, t) - target) ** 2)
        loss.backward()
        return loss.detach().numpy()

    return call


def our_samples(n: int, dtype: Any = jnp.float32) -> Callable[[], Any]:
    start = jnp.asarray(START[:n], dtype)
    fields = ip.Fields(model(dtype), ip.OneSidedLinear())
    solve = jax.jit(lambda x: ip.transport(fields, x, method=rf.Midpoint(), steps=STEPS))
    return lambda: solve(start)


def their_samples(n: int) -> Callable[[], Any]:
    import torch  # pyright: ignore[reportMissingImports]
    from flow_matching.solver import ODESolver  # pyright: ignore[reportMissingImports]
    from flow_matching.utils import ModelWrapper  # pyright: ignore[reportMissingImports]

    class Wrapped(ModelWrapper):
        def forward(self, x, t, **extras):
            return self.model(x, t)

    solver = ODESolver(velocity_model=Wrapped(torch_network()))
    start = torch.tensor(START[:n])
    return lambda: (
        solver.sample(x_init=start, method="midpoint", step_size=1 / STEPS).detach().numpy()
    )


# Noise levels of Karras et al. (2022), table 1, and the standard deviation of the data.
LEVELS = gen.times(gen.EDM(), 17)
SIGMA_DATA = 0.5


def our_heun(n: int, dtype: Any = jnp.float32) -> Callable[[], Any]:
    start = jnp.asarray(LEVELS[0] * START[:n], dtype)
    denoiser = gen.Denoiser(gen.EDMPreconditioned(model(dtype), SIGMA_DATA), gen.EDM(), "data")
    solve = jax.jit(
        lambda x: gen.sample(denoiser, start=x, sampler=gen.EDMSampler(), grid=LEVELS, denoise=True)
    )
    return lambda: solve(start)


def their_heun(n: int) -> Callable[[], Any]:
    """Algorithm 2 of Karras et al. (2022) without churn.

    The network in single precision and the samples in double, as their implementation has them.
    """
    import torch  # pyright: ignore[reportMissingImports]

    net = torch_network()
    levels = torch.tensor([*LEVELS, 0.0], dtype=torch.float64)
    noise = torch.tensor(START[:n], dtype=torch.float64)

    def denoised(x, sigma):
        x, sigma = x.to(torch.float32), sigma.to(torch.float32)
        size = (sigma**2 + SIGMA_DATA**2).sqrt()
        value = net(x / size, sigma.log() / 4)
        return (SIGMA_DATA / size) ** 2 * x + sigma * SIGMA_DATA / size * value

    @torch.no_grad()
    def call():
        x = levels[0] * noise
        for now, then in pairwise(levels):
            slope = (x - denoised(x, now).to(torch.float64)) / now
            guess = x + (then - now) * slope
            if then > 0:
                other = (guess - denoised(guess, then).to(torch.float64)) / then
                guess = x + (then - now) * (slope + other) / 2
            x = guess
        return x.numpy()

    return call


START = _RANDOM.normal(size=(4096, 2)).astype(np.float32)


def rows(quick: bool) -> Sequence[Row]:
    big, small = (256, 64) if quick else (1000, 256)
    exact = np.asarray(our_samples(big, jnp.float64)())

    heun = np.asarray(our_heun(big, jnp.float64)())

    def error(result: Any) -> float:
        return float(np.max(np.abs(np.asarray(result) - exact)))

    def heun_error(result: Any) -> float:
        return float(np.max(np.abs(np.asarray(result) - heun)))

    return [
        Row(
            f"loss and gradient, independent pairs, batch {big}",
            lambda: our_gradient(ip.flow_matching(), big),
            lambda: their_gradient("ConditionalFlowMatcher", big, sigma=0.0),
            bar=1.0,
        ),
        Row(
            f"loss and gradient, optimal pairs, batch {small}",
            lambda: our_gradient(ip.optimal_transport_matching(), small),
            lambda: their_gradient("ExactOptimalTransportConditionalFlowMatcher", small, sigma=0.0),
            bar=1.0,
        ),
        Row(
            f"sampling, {STEPS} midpoint steps of {big} samples",
            lambda: our_samples(big),
            lambda: their_samples(big),
            bar=1.0,
            error=error,
            peer_name="flow_matching",
        ),
        Row(
            f"sampling, Heun steps of EDM on 18 levels of {big} samples",
            lambda: our_heun(big),
            lambda: their_heun(big),
            bar=1.0,
            error=heun_error,
            peer_name="torch",
        ),
    ]


COMPARISON = Comparison(
    title="flow matching with a network of four layers of 128, float32",
    peer="torchcfm",
    rows=rows,
)
