"""The networks of these experiments, trained once a process, and a distance between pictures."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from ... import generative as gen
from ...generative.digits import CLASSES, NONE, digits
from ...training import train
from .classifier import features

SCHEDULE = gen.VPLinear()
_STEPS = 15_000


@functools.cache
def trained() -> gen.Denoiser:
    """A network of three layers of 256 that predicts noise, told log_snr; about a minute.

    15,000 steps of Adam at 2e-3 with a cosine schedule, batches of 128, average with decay 0.999,
    times uniform from 0.001 to 1, single precision.
    """
    net = gen.MLP((64,), 256, 3, key=jax.random.key(0))
    loss = gen.DiffusionLoss(SCHEDULE, "noise", time=SCHEDULE.log_snr)
    return loss.denoiser(_trained(net, loss, digits().images.reshape(-1, 64), _STEPS))


@functools.cache
def conditional() -> gen.Denoiser:
    """The same, told the class of a picture as well, or in one of ten that there is none."""
    return train_conditional(256, _STEPS)


def train_conditional(width: int, steps: int) -> gen.Denoiser:
    """As `conditional`, of any size."""
    net = gen.MLP((64,), width, 3, key=jax.random.key(5), classes=CLASSES)
    free = {"dropout": 0.1, "unconditional": NONE}
    loss = gen.DiffusionLoss(SCHEDULE, "noise", time=SCHEDULE.log_snr, **free)
    data = digits()
    pairs = data.images.reshape(-1, 64), data.classes
    return loss.denoiser(_trained(net, loss, pairs, steps))


def guided(denoiser: gen.Denoiser, scale: float) -> gen.Denoiser:
    """A class-conditional network with classifier-free guidance."""
    guidance = gen.ClassifierFree(scale, unconditional=NONE)
    return eqx.tree_at(lambda d: d.guidance, denoiser, guidance, is_leaf=lambda x: x is None)


def _trained(net: Any, loss: Any, data: Any, steps: int) -> Any:
    net = jax.tree.map(lambda p: p.astype(jnp.float32) if eqx.is_array(p) else p, net)
    done = train(
        loss,
        net,
        data,
        key=jax.random.key(1),
        steps=steps,
        optimizer=optax.adam(optax.cosine_decay_schedule(2e-3, steps)),
        batch_size=128,
        ema=0.999,
        every=500,
        progress=False,
    )
    return done.ema


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) of two sets of features (Heusel et al. 2017)."""
    ca, cb = np.cov(a.T), np.cov(b.T)
    values = np.linalg.eigvals(ca @ cb)  # those of a product of covariances are not negative
    cross = np.sqrt(np.maximum(np.real(values), 0)).sum()
    offset = np.sum((a.mean(0) - b.mean(0)) ** 2)
    return float(offset + np.trace(ca) + np.trace(cb) - 2 * cross)


class Quality:
    """Samples judged by their distance to the solved flow, and to the pictures."""

    start: Array
    truth: np.ndarray
    real: np.ndarray

    def __init__(self, count: int) -> None:
        self.start = jax.random.normal(jax.random.key(2), (count, 64), jnp.float32)
        flow = gen.EDMSampler(order=4)
        self.truth = np.asarray(
            gen.sample(trained(), start=self.start, sampler=flow, steps=150, grid="log_snr")
        )
        self.real = features(digits().images)

    def __call__(self, sampler: Any, evaluations: int, **options: Any) -> tuple[float, float]:
        """Root mean square error to the solved flow, and the Fréchet distance to the pictures."""
        found = gen.sample(
            trained(), start=self.start, sampler=sampler, evaluations=evaluations, grid="log_snr",
            throw=False, **options,
        )  # fmt: skip
        found = np.nan_to_num(np.asarray(found, dtype=float), nan=0.0, posinf=1e6, neginf=-1e6)
        rms = float(np.sqrt(np.mean((found - self.truth) ** 2)))
        return rms, frechet(features(found), self.real)

    def converged(self) -> float:
        """The Fréchet distance of the flow's own samples."""
        return frechet(features(self.truth), self.real)
