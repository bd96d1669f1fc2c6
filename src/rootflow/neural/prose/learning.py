"""The loss, the schedule, and training.

Source: Liu, Zhang & Schaeffer (2024), in the form of the released code.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from ...training import Trained
from ...training import train as run
from . import words as w
from .data import Examples
from .network import Prose

DATA_WEIGHT = 6.0


def loss(net: Prose, batch: Examples, key: Any = None) -> tuple[Array, dict[str, Array]]:
    """6 times the error of the trajectories plus the cross-entropy of the words.

    The first is the mean over examples of the squared error relative to the squared size of the
    target, (Σ|û - u|²) / (Σ|u|² + 1e-5) over queries and real components; the second the mean over
    words. With an ordered head of numbers, mantissas and exponents count as the squared error of
    log10 of the number instead.
    """
    batch = Examples(*(x.astype(net.table.dtype) if x.dtype.kind == "f" else x for x in batch))
    features = jax.vmap(net.encode)(batch.t, batch.u, batch.guess)
    parts: dict[str, Array] = {}
    if net.outputs != "symbols":
        found = jax.vmap(net.states)(features, batch.queries)
        parts["trajectory"] = trajectory_loss(found, batch.target, batch.real)
    if net.outputs != "trajectory":
        hidden = jax.vmap(net.hidden)(features, batch.text[:, :-1])
        parts["symbols"] = symbol_loss(net, hidden, batch.text)
    total = DATA_WEIGHT * parts.get("trajectory", 0.0) + parts.get("symbols", 0.0)
    return jnp.asarray(total), parts


def trajectory_loss(found: Array, target: Array, real: Array) -> Float[Array, ""]:
    """The mean relative squared error of trajectories (batch, m, dims)."""
    mask = real[:, None, :]
    miss = jnp.sum(jnp.where(mask, (found - target) ** 2, 0.0), axis=(1, 2))
    size = jnp.sum(jnp.where(mask, target**2, 0.0), axis=(1, 2))
    return jnp.mean(miss / (size + 1e-5))


def symbol_loss(net: Prose, hidden: Array, text: Array) -> Float[Array, ""]:
    """The mean cross-entropy of words (batch, L), given what is known before each but the first."""
    wanted, last = text[:, 1:], text[:, :-1]
    counts = wanted != net.words.index[w.PAD]
    logits = net.logits(hidden)
    # (Chosen by comparison: the derivative of an index is a scatter, slow on processors.)
    chosen = wanted[..., None] == jnp.arange(logits.shape[-1])
    each = jax.nn.logsumexp(logits, -1) - jnp.sum(jnp.where(chosen, logits, 0.0), -1)
    if net.read_size is not None:
        signs = [net.words.index[sign] for sign in w.SIGNS]
        first, zero = net.words.index["N000"], net.words.index["E0"]
        after = (last == signs[0]) | (last == signs[1])
        mantissa = jnp.maximum(wanted - first, 1)
        exponent = jnp.roll(wanted, -1, axis=1) - zero
        size = jnp.log10(mantissa.astype(each.dtype)) + exponent
        found = jax.vmap(net.sizes)(hidden)
        each = jnp.where(after, (found - jnp.where(after, size, 0.0)) ** 2, each)
        counts = counts & (wanted < zero - 10)  # exponents are told already
    return jnp.sum(jnp.where(counts, each, 0.0)) / jnp.maximum(jnp.sum(counts), 1)


def schedule(peak: float = 1e-4, warmup: int = 20_000) -> optax.Schedule:
    """A rate that rises linearly from 1e-7 to its peak, then falls as 1/√step."""

    def rate(step):
        step = jnp.asarray(step, float)
        rising = 1e-7 + (peak - 1e-7) * step / warmup
        falling = peak * jnp.sqrt(warmup / jnp.maximum(step, 1.0))
        return jnp.where(step < warmup, rising, falling)

    return rate


def optimizer(rate: Any = None) -> optax.GradientTransformation:
    """Gradients cut at norm 1, AdamW with a decay of 1e-4; the rate is `schedule()` by default."""
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule() if rate is None else rate, weight_decay=1e-4),
    )


def train(
    net: Prose, examples: Examples, *, key: PRNGKeyArray, steps: int, batch_size: int = 64,
    rate: Any = None, **options: Any,
) -> Trained:  # fmt: skip
    """Trains a network by `rf.train` on examples.

    Args:
        net: to be trained.
        examples: as `prose.examples` makes them.
        key: for the order of the examples.
        steps: how many.
        batch_size: examples in a step.
        rate: of learning, a number or a schedule; the paper's by default, whose warm-up of 20,000
            steps is long. For short runs give a cosine of a few 1e-3.
        **options: of `rf.train`.
    """
    return run(
        loss, net, Examples(*map(jnp.asarray, examples)), key=key, steps=steps,
        batch_size=batch_size, optimizer=optimizer(rate), **options,
    )  # fmt: skip
