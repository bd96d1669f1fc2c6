"""Steps of DP-SGD beside Opacus and jax_privacy, at equal minibatches and in single precision.

Both sides draw minibatches without replacement, clip record by record and add floating-point noise.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rootflow.optimize import privacy as p

from .harness.comparison import Comparison, Row

_RANDOM = np.random.default_rng(0)
N, STEPS, RATE, CLIP, NOISE = 4096, 10, 0.1, 1.0, 1.0
ROWS = _RANDOM.normal(size=(N, 784)).astype(np.float32)
DIGITS = _RANDOM.integers(0, 10, N)
SIZES = (784, 256, 10)
WEIGHTS = [
    (_RANDOM.normal(size=(n, m)).astype(np.float32) / np.float32(n**0.5), np.zeros(m, np.float32))
    for n, m in pairwise(SIZES)
]


def cross_entropy(output, digit):
    return -jax.nn.log_softmax(output)[digit]


NET = p.DenseLoss(cross_entropy, jax.nn.softplus)


def by_record(params, record):
    """The same loss without what `DenseLoss` knows: a gradient for each record."""
    return NET(params, record)


def our_steps(loss: Any, batch: int, **options: Any) -> Callable[[], Any]:
    """STEPS steps in one compiled program, which has the account as a constant."""
    data = (jnp.asarray(ROWS), jnp.asarray(DIGITS))
    start = jax.tree.map(jnp.asarray, WEIGHTS)

    @jax.jit
    def steps(params, key):
        key, this = jax.random.split(key)
        run = p.dp_sgd(
            loss, params, data, rounds=STEPS, batch=batch, step=RATE, key=this, clip=CLIP,
            noise=NOISE * 2 * CLIP / batch, adjacency="replace", **options,
        )  # fmt: skip
        return run.params, key

    keys = [jax.random.key(0)]

    def call():
        params, keys[0] = steps(start, keys[0])
        return params

    return call


def opacus_steps(batch: int, mode: str) -> Callable[[], Any]:
    """The same steps with Opacus; the order of the records is drawn by torch."""
    import torch  # pyright: ignore[reportMissingImports]
    from opacus import PrivacyEngine  # pyright: ignore[reportMissingImports]

    layers: list[Any] = []
    for i, (weight, _) in enumerate(WEIGHTS):
        layer = torch.nn.Linear(*weight.shape)
        layer.weight.data, layer.bias.data = (
            torch.tensor(weight.T.copy()),
            torch.zeros(weight.shape[1]),
        )
        layers += ([torch.nn.Softplus()] if i else []) + [layer]
    rows, digits = torch.tensor(ROWS), torch.tensor(DIGITS)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(rows, digits), batch_size=batch
    )
    net: Any = torch.nn.Sequential(*layers)
    made: Any = PrivacyEngine().make_private(
        module=net,
        optimizer=torch.optim.SGD(net.parameters(), lr=RATE),
        criterion=torch.nn.CrossEntropyLoss(),
        data_loader=loader,
        noise_multiplier=NOISE,
        max_grad_norm=CLIP,
        poisson_sampling=False,
        grad_sample_mode=mode,
    )
    net, optimizer = made[:2]
    criterion = made[2] if mode == "ghost" else torch.nn.CrossEntropyLoss()

    def call():
        for _ in range(STEPS):
            some = torch.randperm(N)[:batch]
            optimizer.zero_grad()
            criterion(net(rows[some]), digits[some]).backward()
            optimizer.step()
        return layers[0].weight.detach().numpy()

    return call


def jax_privacy_steps(batch: int) -> Callable[[], Any]:
    """The same steps with jax_privacy, in one compiled loop."""
    from jax_privacy import (  # pyright: ignore[reportMissingImports]
        clipped_grad,
        noise_addition,
    )

    rows, digits = jnp.asarray(ROWS), jnp.asarray(DIGITS)
    start = jax.tree.map(jnp.asarray, WEIGHTS)
    gradient = clipped_grad(
        lambda params, x, digit: by_record(params, (x, digit)),
        l2_clip_norm=CLIP,
        normalize_by=float(batch),
        batch_argnums=(1, 2),
        keep_batch_dim=False,
    )
    privatizer = noise_addition.gaussian_privatizer(
        stddev=NOISE * 2 * CLIP / batch, prng_key=jax.random.key(0)
    )

    @jax.jit
    def steps(params, state, key):
        def one(carry, key):
            params, state = carry
            some = jax.random.choice(key, N, (batch,), replace=False)
            noisy, state = privatizer.update(gradient(params, rows[some], digits[some]), state)
            return (jax.tree.map(lambda a, b: a - RATE * b, params, noisy), state), None

        key, this = jax.random.split(key)
        (params, state), _ = jax.lax.scan(one, (params, state), jax.random.split(this, STEPS))
        return params, state, key

    held = [privatizer.init(start), jax.random.key(0)]

    def call():
        params, *held[:] = steps(start, *held)
        return params

    return call


def rows(quick: bool) -> Sequence[Row]:
    batches = (128,) if quick else (256, 1024)
    found = []
    for batch in batches:
        name = f"{STEPS} steps of DP-SGD, batch {batch}"
        dense = lambda batch=batch: our_steps(NET, batch, grid=False)
        each = lambda batch=batch: our_steps(by_record, batch, grid=False)
        hooks = lambda batch=batch: opacus_steps(batch, "hooks")
        found += [
            Row(name, dense, hooks, bar=0.5),
            Row(f"{name}, both by norms alone", dense, lambda b=batch: opacus_steps(b, "ghost")),
            Row(f"{name}, both a gradient for each record", each, hooks),
            Row(f"{name}, noise on a grid", lambda b=batch: our_steps(NET, b), hooks),
            Row(
                name,
                dense,
                lambda b=batch: jax_privacy_steps(b),
                peer_name="jax_privacy",
            ),
        ]
    return found


COMPARISON = Comparison(
    title="a network of 784, 256 and 10 units, 4096 records, float32",
    peer="opacus",
    rows=rows,
)
