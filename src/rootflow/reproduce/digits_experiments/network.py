"""The network of these experiments, trained once a process, and a distance between pictures."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ... import generative as gen
from ...generative.digits import digits
from ...training import train
from ..implicit_experiments.measure import scikit_learn

SCHEDULE = gen.VPLinear()
_STEPS = 15_000


@functools.cache
def trained() -> gen.Denoiser:
    """A network of three layers of 256 that predicts noise, told log_snr; about a minute.

    15,000 steps of Adam at 2e-3 with a cosine schedule, batches of 128, average with decay 0.999,
    times uniform from 0.001 to 1, single precision.
    """
    net = gen.MLP((64,), 256, 3, key=jax.random.key(0))
    net = jax.tree.map(lambda p: p.astype(jnp.float32) if eqx.is_array(p) else p, net)
    loss = gen.DiffusionLoss(SCHEDULE, "noise", time=SCHEDULE.log_snr)
    done = train(
        loss,
        net,
        digits().images.reshape(-1, 64),
        key=jax.random.key(1),
        steps=_STEPS,
        optimizer=optax.adam(optax.cosine_decay_schedule(2e-3, _STEPS)),
        batch_size=128,
        ema=0.999,
        every=500,
        progress=False,
    )
    return loss.denoiser(done.ema)


@functools.cache
def features() -> Callable[[Any], np.ndarray]:
    """The 64 hidden units of scikit-learn's classifier of the digits."""
    data = digits()
    images = np.asarray(data.images, dtype=float).reshape(-1, 64)
    classifier = scikit_learn("neural_network").MLPClassifier(
        hidden_layer_sizes=(64,), random_state=0, max_iter=400
    )
    classifier.fit(images, np.asarray(data.classes))
    weight, offset = classifier.coefs_[0], classifier.intercepts_[0]
    return lambda x: np.maximum(np.asarray(x, dtype=float).reshape(-1, 64) @ weight + offset, 0)


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) of two sets of features (Heusel et al. 2017)."""
    ca, cb = np.cov(a.T), np.cov(b.T)
    values = np.linalg.eigvals(ca @ cb)  # those of a product of covariances are not negative
    cross = np.sqrt(np.maximum(np.real(values), 0)).sum()
    offset = np.sum((a.mean(0) - b.mean(0)) ** 2)
    return float(offset + np.trace(ca) + np.trace(cb) - 2 * cross)


class Quality:
    """Samples judged by their distance to the solved flow, and to the pictures."""

    def __init__(self, count: int):
        self.start = jax.random.normal(jax.random.key(2), (count, 64), jnp.float32)
        flow = gen.EDMSampler(order=4)
        self.truth = np.asarray(
            gen.sample(trained(), start=self.start, sampler=flow, steps=150, grid="log_snr")
        )
        self.real = features()(digits().images)

    def __call__(self, sampler: Any, evaluations: int, **options: Any) -> tuple[float, float]:
        """Root mean square error to the solved flow, and the Fréchet distance to the pictures."""
        found = gen.sample(
            trained(), start=self.start, sampler=sampler, evaluations=evaluations, grid="log_snr",
            throw=False, **options,
        )  # fmt: skip
        found = np.nan_to_num(np.asarray(found, dtype=float), nan=0.0, posinf=1e6, neginf=-1e6)
        rms = float(np.sqrt(np.mean((found - self.truth) ** 2)))
        return rms, frechet(features()(found), self.real)

    def converged(self) -> float:
        """The Fréchet distance of the flow's own samples."""
        return frechet(features()(self.truth), self.real)
