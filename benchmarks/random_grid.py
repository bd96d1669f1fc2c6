"""A training step of a random-grid process beside the same objective written by hand in JAX.

The nonlinear Poisson problem with two parameters, a diagonal covariance, single precision. By hand:
a batch of points as matrices, second derivatives in x carried through the layers by their formulas,
the encoder's formulas for one case under vmap, all steps in one scan with Optax. Both sides draw z,
w, points and noise anew in each step.
"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from rootflow.pde import operators as op

from .harness.comparison import Build, Comparison, Row

POINTS, BATCH = 10, 32
SCALE, FLOOR = 0.02, 1e-5
KEY = jax.random.key(0)


def model() -> op.RandomGridProcess:
    return op.RandomGridProcess(op.nonlinear_poisson_family(terms=2), rank=0, key=KEY)


def ours(steps: int) -> Build:
    def build() -> Callable[[], Any]:
        start = model()

        def run():
            found = op.train_random_grid(
                start, points=POINTS, batch=BATCH, steps=steps, residual_scale=SCALE,
                dtype=jnp.float32, key=KEY, progress=False,
            )  # fmt: skip
            return jax.block_until_ready(found.model.network.waves)

        return run

    return build


def forward(net: Any, x: Any, told: Any) -> tuple[Any, Any, Any]:
    """μ and the variance's logit, with first and second derivatives in x; points as rows."""
    a = 2 * jnp.pi * x[:, None] * net.waves[0]
    rate = 2 * jnp.pi * net.waves[0]
    one, zero = jnp.ones_like(x)[:, None], jnp.zeros_like(told)
    s, c = jnp.sin(a), jnp.cos(a)
    h = jnp.concatenate([x[:, None], s, c, told], 1)
    d = jnp.concatenate([one, rate * c, -rate * s, zero], 1)
    dd = jnp.concatenate([0 * one, -(rate**2) * s, -(rate**2) * c, zero], 1)
    for layer in net.mlp.layers[:-1]:
        h, d, dd = h @ layer.weight.T + layer.bias, d @ layer.weight.T, dd @ layer.weight.T
        e = jax.nn.sigmoid(h)
        e1 = e * (1 - e)
        first, second = e + h * e1, e1 * (2 + h * (1 - 2 * e))
        h, d, dd = h * e, first * d, second * d * d + first * dd
    last = net.mlp.layers[-1]
    return h @ last.weight.T + last.bias, d @ last.weight.T, dd @ last.weight.T


def sigma(o: Any, d: Any, dd: Any) -> tuple[Any, Any, Any]:
    """√(ℓ + (1 - ℓ) sigmoid(o)) and its derivatives in x."""
    e = jax.nn.sigmoid(o)
    v, e1 = FLOOR + (1 - FLOOR) * e, (1 - FLOOR) * e * (1 - e)
    v1, v2 = e1 * d, e1 * (1 - 2 * e) * d * d + e1 * dd
    s = jnp.sqrt(v)
    return s, v1 / (2 * s), v2 / (2 * s) - v1 * v1 / (4 * v * s)


def inverse(net: Any, x: Any, u: Any, w: Any) -> Any:
    """One case."""
    lifted = jax.vmap(net.lift)(u[:, None])
    nodes = jnp.linspace(-1, 1, net.grid, dtype=x.dtype)
    kernel = jnp.exp(
        -0.5 * (nodes[:, None] - x) ** 2 * jnp.exp(-2 * net.log_lengths)[:, None, None]
    )
    image = jnp.einsum("pgn,np->pg", kernel, lifted) / (kernel.sum(-1) + 1e-6)
    image = jnp.concatenate([image, nodes[None]])
    for layer in net.convolutions:
        image = jax.nn.silu(layer(image))
    told = net.branch[1](net.branch[0](image.ravel()))
    return net.head(jnp.concatenate([told, net.trunk(w)])).reshape(2, 2)


def loss(nets: Any, key: Any) -> Any:
    network, encoder = nets
    one, two = jax.random.split(key)
    unit = jax.random.uniform(one, (BATCH, 3 + POINTS), jnp.float32, -1.0, 1.0)
    z, ws, x = unit[:, :2], unit[:, 2:3], (1 - 2e-5) * unit[:, 3:]
    eps = jax.random.normal(two, x.shape, jnp.float32).ravel()
    told = jnp.repeat(unit[:, :3], POINTS, 0)
    flat = x.ravel()
    (o, d, dd) = forward(network, flat, told)
    s, s1, s2 = sigma(o[:, 1], d[:, 1], dd[:, 1])
    v, v1, v2 = o[:, 0] + s * eps, d[:, 0] + s1 * eps, dd[:, 0] + s2 * eps
    c, c1 = jnp.cos(jnp.pi * flat / 2), -jnp.pi / 2 * jnp.sin(jnp.pi * flat / 2)
    u, u1 = c * v, c1 * v + c * v1
    u2 = -((jnp.pi / 2) ** 2) * c * v + 2 * c1 * v1 + c * v2
    q, q1 = told[:, 0] + told[:, 1] * flat, told[:, 1]
    e = jax.nn.sigmoid(u * q)
    r = -((jax.nn.softplus(u * q) + 0.1) * u2 + e * (u1 * q + u * q1) * u1)
    r = r - (1.5 + 0.5 * told[:, 2])
    log_r = -0.5 * jnp.sum(r * r) / SCALE**2 - r.size * np.log(SCALE)
    log_q = -0.5 * jnp.sum(eps**2) - jnp.sum(jnp.log(s))
    rows = jax.vmap(lambda x, u, w: inverse(encoder, x, u, w))(x, v.reshape(x.shape), ws)
    spread = jnp.sqrt(FLOOR + (1 - FLOOR) * jax.nn.sigmoid(rows[..., 1]))
    log_p = -0.5 * jnp.sum(((z - rows[..., 0]) / spread) ** 2) - jnp.sum(jnp.log(spread))
    return -(log_r + log_p - log_q) / BATCH


def by_hand(steps: int) -> Build:
    def build() -> Callable[[], Any]:
        start = model()
        nets = jax.tree.map(
            lambda v: v.astype(jnp.float32) if eqx.is_inexact_array(v) else v,
            (start.network, start.encoder),
        )
        moving, rest = eqx.partition(nets, eqx.is_inexact_array)
        schedule = optax.cosine_decay_schedule(2e-3, steps)
        adam = optax.chain(optax.clip_by_global_norm(1e3), optax.adam(schedule))

        @jax.jit
        def go(moving, key):
            def step(carry, key):
                moving, state = carry
                slope = jax.grad(lambda m: loss(eqx.combine(m, rest), key))(moving)
                change, state = adam.update(slope, state, moving)
                return (optax.apply_updates(moving, change), state), None

            carry = (moving, adam.init(moving))
            return jax.lax.scan(step, carry, jax.random.split(key, steps))[0][0]

        return lambda: jax.block_until_ready(go(moving, KEY))

    return build


def rows(quick: bool) -> Sequence[Row]:
    steps = 50 if quick else 500
    return [
        Row(
            f"{steps} steps of {BATCH} cases with {POINTS} points", ours(steps), by_hand(steps),
            bar=1.5,
        )
    ]  # fmt: skip


COMPARISON = Comparison(
    title="training of a random-grid process, nonlinear Poisson, float32",
    peer="jax",
    rows=rows,
)
