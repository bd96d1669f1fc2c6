"""Classes of real data as archetypes: they resemble one another, and shallow couplings mix them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ... import memory as mem
from ...generative.digits import digits
from ..implicit_experiments.measure import scikit_learn


class Split(NamedTuple):
    """Spins and classes, for learning and for the test."""

    train: np.ndarray
    train_classes: np.ndarray
    test: np.ndarray
    test_classes: np.ndarray


def digit_spins() -> Split:
    """scikit-learn's digits: a pixel of 8 and more of 16 is +1; 1200 to learn from, 597 to test."""
    pictures = digits()
    spins = np.where(np.asarray(pictures.images).reshape(-1, 64) >= 0, 1.0, -1.0)
    return _split(spins, np.asarray(pictures.classes), 1200)


def tumour_spins(levels: int = 8) -> Split:
    """scikit-learn's breast cancers: 30 measurements, each compared with `levels` quantiles."""
    values, classes = scikit_learn("datasets").load_breast_cancer(return_X_y=True)
    shares = (np.arange(levels) + 0.5) / levels
    cuts = np.quantile(values, shares, axis=0)
    spins = np.where(values[:, None] >= cuts, 1.0, -1.0).reshape(len(values), -1)
    return _split(spins, classes, 380)


def _split(spins: np.ndarray, classes: np.ndarray, learn: int) -> Split:
    order = np.random.default_rng(0).permutation(len(spins))
    first, rest = order[:learn], order[learn:]
    return Split(spins[first], classes[first], spins[rest], classes[rest])


def examples_of(data: Split, quantity: int) -> np.ndarray:
    """The first `quantity` examples of each class, shape (classes, quantity, N)."""
    kinds = np.unique(data.train_classes)
    return np.stack([data.train[data.train_classes == kind][:quantity] for kind in kinds])


def nearest_mean(data: Split, examples: np.ndarray) -> float:
    """The share of test examples whose class has the nearest mean."""
    means = examples.mean(axis=1)
    distance = np.sum((data.test[:, None] - means) ** 2, axis=-1)
    return float(np.mean(np.argmin(distance, axis=1) == data.test_classes))


def retrieval(data: Split, examples: np.ndarray, order: int) -> dict[str, float]:
    """Accuracy, and the overlap with the class archetype before and after the dynamics."""
    net = mem.DenseHebbian.supervised(examples, order, distinct=False)
    key = jax.random.key(0)

    def run(sigma: Any) -> Any:
        return mem.glauber(key, net, sigma, temperature=0.0, sweeps=30).sigma

    final = np.asarray(jax.vmap(run)(jnp.asarray(data.test)))
    guess = np.argmax(np.asarray(net.overlaps(final)), axis=1)
    archetypes = np.where(examples.mean(axis=1) >= 0, 1.0, -1.0)[data.test_classes]
    return {
        "accuracy": float(np.mean(guess == data.test_classes)),
        "before": float(np.mean(data.test * archetypes)),
        "after": float(np.mean(final * archetypes)),
    }
