"""Training on manufactured problems: samples, losses, the schedule, and residuals as problems."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from ....errors import InputError
from ....ground.checks import whole
from ....training import Trained, train
from .expressions import jet
from .geometry import Raster
from .model import HyPINO
from .problems import Family, Images, images_of
from .refinement import applied
from .target import Target


class Weights(NamedTuple):
    """Of the terms of the loss; Huber's, with δ = 1.

    The defaults are for the elliptic family; Bischof et al. use 0.25, 0.25, 1, 10, 1. `correction`
    is that of `residual_aware` training.
    """

    residual: float = 0.02
    derivatives: float = 0.02
    value: float = 1.0
    dirichlet: float = 10.0
    neumann: float = 1.0
    correction: float = 0.3


class Sample(NamedTuple):
    """A problem as a network is trained on it.

    Attributes:
        c: coefficients.
        images: what it sees.
        raster: where.
        x: points of the domain, with the derivatives `u` of the solution and the source `f`.
        edge: points of the boundary, with normals, conditions `on` and values of both kinds.
        supervised: 1 where the solution is known, else 0.
    """

    c: Float[Array, " 5"]
    images: Images
    raster: Raster
    x: Float[Array, "k 2"]
    u: Float[Array, "k 5"]
    f: Float[Array, " k"]
    edge: Float[Array, "m 2"]
    normals: Float[Array, "m 2"]
    on: Float[Array, "2 m"]
    values: Float[Array, "2 m"]
    supervised: Float[Array, ""]


class Draw(eqx.Module):
    """A batch of samples for a key; traced."""

    family: Family
    rasters: Raster
    batch: int = eqx.field(static=True)
    interior: int = eqx.field(static=True)
    edge: int = eqx.field(static=True)
    dtype: Any = eqx.field(static=True)

    def __call__(self, key: PRNGKeyArray) -> Sample:
        drawn = jax.vmap(self.one)(jax.random.split(key, self.batch))
        narrow = lambda v: v.astype(self.dtype) if eqx.is_inexact_array(v) else v
        return jax.tree.map(narrow, drawn)

    def one(self, key: PRNGKeyArray) -> Sample:
        """One sample."""
        keys = jax.random.split(key, 6)
        c, u, kind = self.family.draw(keys[0])
        count = self.rasters.inside.shape[0]
        shared = count - (2 if self.family.operators == "mixed" else 0)
        which = jax.random.randint(keys[1], (), 0, shared)
        which = jnp.where(kind == 0, which, shared + kind - 1)
        raster: Raster = jax.tree.map(lambda leaf: leaf[which], self.rasters)
        x = _some(keys[2], raster.interior, self.interior)
        edge, normals, on = (
            _some(keys[3], v, self.edge) for v in (raster.edge, raster.edge_normals, raster.on.T)
        )
        at, along = jet(u, x), jet(u, edge)
        slope = jnp.sum(along[:, 1:3] * normals, 1)
        images = images_of(
            raster, lambda x: jet(u, x) @ c, u, lambda x, n: jnp.sum(jet(u, x)[:, 1:3] * n, 1)
        )
        values = jnp.stack([along[:, 0], slope])
        sample = Sample(
            c, images, raster, x, at, at @ c, edge, normals, on.T.astype(x.dtype), values,
            jnp.ones((), x.dtype),
        )  # fmt: skip
        return self._perhaps_unsupervised(sample, keys[4], keys[5])

    def _perhaps_unsupervised(self, sample: Sample, key, choose) -> Sample:
        if not self.family.unsupervised:
            return sample
        f, g = jax.random.normal(key, (2,), sample.x.dtype)
        f, g = 10 * (1 + f), jnp.where(sample.c[0] == 0, g, 0)
        values = sample.images.masks * jnp.stack([f, g, jnp.zeros_like(g)])[:, None, None]
        other = sample._replace(
            images=Images(sample.images.masks, values), f=jnp.full_like(sample.f, f),
            values=jnp.stack([jnp.full_like(sample.f, g, shape=sample.values.shape[1]),
                              jnp.zeros_like(sample.values[1])]),
            supervised=jnp.zeros_like(sample.supervised),
        )  # fmt: skip
        without = jax.random.uniform(choose) < self.family.unsupervised
        return jax.tree.map(lambda a, b: jnp.where(without, a, b), other, sample)


def _some(key, pool, n):
    # The same key takes the same rows of pools of one length.
    return pool[jax.random.randint(key, (n,), 0, pool.shape[0])]


def _huber(errors, mask=None):
    losses = optax.losses.huber_loss(errors)
    if mask is None:
        return jnp.mean(losses)
    return jnp.sum(losses * mask) / jnp.maximum(jnp.sum(mask), 1)


def misfit(target: Any, sample: Sample, weights: Weights, known: Any, scale: Any = 1.0) -> Array:
    """The loss of one answer; `known` is taken off what it should be, at the sample's points.

    Args:
        target: with `many`.
        sample: the problem.
        weights: of the terms.
        known: derivatives (k, 5), (m, 5) of an approximation that is to be corrected, or None.
        scale: of the errors.
    """
    found, around = jet(target.many, sample.x), jet(target.many, sample.edge)
    if known is not None:
        found, around = found + known[0], around + known[1]
    errors = (found - sample.u) / scale
    slope = jnp.sum(around[:, 1:3] * sample.normals, 1)
    beside = (jnp.stack([around[:, 0], slope]) - sample.values) / scale
    supervised = weights.derivatives * _huber(errors[:, 1:]) + weights.value * _huber(errors[:, 0])
    return (
        weights.residual * _huber((found @ sample.c - sample.f) / scale)
        + sample.supervised * supervised
        + weights.dirichlet * _huber(beside[0], sample.on[0])
        + weights.neumann * _huber(beside[1], sample.on[1])
    )


class OperatorLoss(eqx.Module):
    """The mean over a batch, for `rootflow.train`."""

    weights: Weights = eqx.field(static=True)
    residual_aware: bool = eqx.field(static=True)

    def __call__(
        self, net: HyPINO, batch: Sample, key: PRNGKeyArray
    ) -> Array | tuple[Array, dict[str, Array]]:
        plain, corrected = jax.vmap(lambda sample: self._one(net, sample))(batch)
        total = jnp.mean(plain)
        if not self.residual_aware:
            return total
        correction = jnp.mean(corrected)
        return total + self.weights.correction * correction, {"correction": correction}

    def _one(self, net, sample):
        target = net.write(sample.c, sample.images)
        plain = misfit(target, sample, self.weights, None)
        if not self.residual_aware:
            return plain, plain
        held: Target = jax.lax.stop_gradient(target)
        made = applied(held, sample.c, sample.raster)
        left = Images(sample.images.masks, sample.images.values - made)
        known = jet(held.many, sample.x), jet(held.many, sample.edge)
        wrong = jnp.sqrt(jnp.mean(jnp.square(sample.u[:, 0] - known[0][:, 0]))) + 1e-3
        # Where the solution is not known there is no error to scale by.
        wrong = jnp.where(sample.supervised > 0, wrong, 1)
        answer = net.write(sample.c, left)
        return plain, misfit(answer, sample, self.weights, known, wrong)


def schedule(
    steps: int,
    *,
    learning_rate: float = 1e-3,
    warmup: int | None = None,
    decay: tuple[float, float] = (1e-4, 1e-4),
    clip: float = 1.0,
) -> optax.GradientTransformation:
    """AdamW: a linear warm-up, a cosine to a thousandth, decay that changes linearly, clipping.

    Args:
        steps: of the whole run.
        learning_rate: at the peak; the paper's is 1e-4.
        warmup: steps; None for 200 or a fifth of all, the lower. The paper's is a hundredth of all.
        decay: of the weights, at the beginning and at the end; the paper's rises from 1e-4 to 1e-3.
        clip: norm of the gradient above which it is shortened.
    """
    warmup = min(200, steps // 5) if warmup is None else warmup
    rate = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, warmup, max(steps, warmup + 1), 1e-3 * learning_rate
    )
    return optax.chain(
        optax.clip_by_global_norm(clip),
        optax.scale_by_adam(),
        _decay(optax.linear_schedule(*decay, max(steps, 1))),
        optax.scale_by_learning_rate(rate),
    )


def _decay(share) -> optax.GradientTransformation:
    def update(updates, state, params=None):
        factor = share(state)
        add = lambda u, p: u + factor.astype(p.dtype) * p
        return jax.tree.map(add, updates, params), state + 1

    return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)


def train_hypino(
    net: HyPINO,
    *,
    key: PRNGKeyArray,
    steps: int,
    family: Family | None = None,
    residual_aware: bool = False,
    batch: int = 16,
    interior: int = 64,
    edge: int = 48,
    weights: Weights | None = None,
    optimizer: optax.GradientTransformation | None = None,
    **options: Any,
) -> Trained:
    """Trains a network on problems that are made while it is trained.

    Args:
        net: where to begin; its number type is that of the training.
        key: for the problems.
        steps: how many batches.
        family: the problems; by default `Family()`.
        residual_aware: the network is also asked to correct its own answer, from the residual it
            left: without that, `refine` diverges after a few rounds, because residuals are rougher
            than any source of the family.
        batch: problems in a step.
        interior: points of each in the domain.
        edge: on the boundary.
        weights: of the loss.
        optimizer: of Optax; by default `schedule(steps)`.
        **options: of `rootflow.train`.

    Returns:
        `Trained`; its `model` is the network.

    Raises:
        InputError: an argument cannot be used.
    """
    if not isinstance(net, HyPINO):
        raise InputError(f"net must be an op.HyPINO; got {type(net).__name__}.")
    family = Family() if family is None else family
    draw = Draw(
        family, family.rasters(net.grid), whole("batch", batch), whole("interior", interior),
        whole("edge", edge), net.heads[0].last.weight.dtype,
    )  # fmt: skip
    loss = OperatorLoss(Weights() if weights is None else weights, bool(residual_aware))
    optimizer = schedule(whole("steps", steps)) if optimizer is None else optimizer
    options = {"every": max(1, steps // 50), **options}
    return train(loss, net, draw, key=key, steps=steps, optimizer=optimizer, **options)
