"""Steering a network of digits by the gradient of a loss on its samples: a condition, its weights.

All that is known of the wish is a function of the finished pictures; the gradient goes through
every step of sampling.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray

from ... import generative as gen
from ...training import train
from .classifier import classes, log_probabilities

_SAMPLER = gen.EDMSampler(order=2)
_STEPS = 20
HEUN = gen.Adjoint("heun")


def _sampled(denoiser: Any, condition: Any, start: Array, route: Any, steps: int) -> Array:
    options: dict[str, Any] = {"sampler": _SAMPLER, "steps": steps, "gradient": route}
    return gen.sample(denoiser, condition, start=start, throw=False, **options)


class Learned(NamedTuple):
    """A condition that was learned.

    Attributes:
        before: share of samples that the classifier takes for the digit, at the start.
        after: and with what was learned.
        losses: of the classifier, while learning.
        pictures: some samples, shape (n, 64).
    """

    before: float
    after: float
    losses: np.ndarray
    pictures: np.ndarray


def learn_condition(
    denoiser: gen.Denoiser,
    digit: int,
    *,
    rounds: int = 100,
    batch: int = 64,
    count: int = 256,
    steps: int = _STEPS,
    route: Any = HEUN,
) -> Learned:
    """Learns a row for the table of classes from the classifier's loss on the samples alone.

    It begins at the row that stands for no class, and the table's own rows are not used.
    """
    first = denoiser.model.embedding.table[-1]

    def loss(row, start, key: PRNGKeyArray):
        found = _sampled(denoiser, row, start, route, steps)
        return -jnp.mean(log_probabilities(found)[:, digit])

    def draw(key: PRNGKeyArray):
        return jax.random.normal(key, (batch, 64), first.dtype)

    done = train(
        loss, first, draw, key=jax.random.key(8), steps=rounds, optimizer=optax.adam(0.05),
        every=1, progress=False,
    )  # fmt: skip
    fresh = jax.random.normal(jax.random.key(9), (count, 64), first.dtype)
    found = [_sampled(denoiser, row, fresh, "direct", steps) for row in (first, done.model)]
    before, after = (float(jnp.mean(classes(x) == digit)) for x in found)
    return Learned(before, after, np.asarray(done.history["loss"]), np.asarray(found[1][:16]))


class Tuned(NamedTuple):
    """Weights that were tuned.

    Attributes:
        losses: before every step, by route.
        gradient: relative difference of the first gradient from that of backpropagation.
        means: of the pixels, before the first step and before the last.
    """

    losses: dict[str, np.ndarray]
    gradient: float
    means: tuple[float, float]


def tune_brightness(
    denoiser: gen.Denoiser,
    wanted: float,
    *,
    rounds: int = 30,
    count: int = 64,
    steps: int = _STEPS,
    rate: float = 1e-3,
) -> Tuned:
    """Tunes the network's last layer until the pictures of fixed starts have a mean intensity.

    Gradient descent on the squared distance to `wanted`, once by the adjoint and once by
    backpropagation.
    """
    start = jax.random.normal(jax.random.key(10), (count, 64), jnp.float32)
    kinds = jnp.arange(count) % denoiser.model.embedding.classes
    first = denoiser.model.last

    def loss_by(route):
        def loss(layer, batch, key: PRNGKeyArray):
            tuned = eqx.tree_at(lambda d: d.model.last, denoiser, layer)
            mean = jnp.mean(_sampled(tuned, batch[1], batch[0], route, steps))
            return (mean - wanted) ** 2, {"mean": mean}

        return loss

    slopes, losses, means = [], {}, {}
    for name, route in {"adjoint": HEUN, "direct": "direct"}.items():
        loss = loss_by(route)
        slope, _ = jax.jit(jax.grad(loss, has_aux=True))(first, (start, kinds), jax.random.key(0))
        slopes.append(np.concatenate([np.ravel(part) for part in jax.tree.leaves(slope)]))
        done = train(
            loss, first, (start, kinds), key=jax.random.key(11), steps=rounds,
            optimizer=optax.sgd(rate), every=1, progress=False,
        )  # fmt: skip
        losses[name], means[name] = done.history["loss"], done.history["mean"]
    gap = np.linalg.norm(slopes[0] - slopes[1]) / np.linalg.norm(slopes[1])
    ends = float(means["adjoint"][0]), float(means["adjoint"][-1])
    return Tuned(losses, float(gap), ends)
