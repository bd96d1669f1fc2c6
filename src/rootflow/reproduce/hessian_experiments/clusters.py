"""Networks trained on symmetric clusters: what the data and what the parameters put there."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from ... import curvature as cv
from ...training import train

FEATURES = 20
EXAMPLES = 600

# One object for all runs, so that those of equal sizes share a compiled program.
_OPTIMIZER = optax.sgd(0.05, momentum=0.9)


class Data(NamedTuple):
    """Inputs and classes."""

    inputs: Float[Array, "n d"]
    labels: Int[Array, " n"]


def data(classes: int, key: Key[Array, ""]) -> Data:
    """Balanced clusters about 4 e_1, ..., 4 e_k (centred), with identity noise, over sqrt(d)."""
    labels = jnp.arange(EXAMPLES) % classes
    centres = 4.0 * jnp.eye(classes, FEATURES)
    centres = centres - centres.mean(axis=0)
    noise = jax.random.normal(key, (EXAMPLES, FEATURES))
    return Data((centres[labels] + noise) / FEATURES**0.5, labels)


def initial(sizes: tuple[int, ...], key: Key[Array, ""]) -> list[tuple[Array, Array]]:
    """Weights of variance 1 / fan-in, biases of zero."""
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        (jax.random.normal(k, (m, n)) / m**0.5, jnp.zeros(n))
        for k, m, n in zip(keys, sizes, sizes[1:], strict=False)
    ]


def network(params: list[tuple[Array, Array]], x: Float[Array, " d"]) -> Float[Array, " k"]:
    """ReLU between the layers."""
    *hidden, (weight, bias) = params
    for w, b in hidden:
        x = jax.nn.relu(x @ w + b)
    return x @ weight + bias


def cross_entropy(z: Float[Array, " k"], y: Int[Array, ""]) -> Float[Array, ""]:
    """Of one example."""
    return -jax.nn.log_softmax(z)[y]


def mean_loss(params: Any, batch: Any, key: Any = None) -> Float[Array, ""]:
    """The loss as `rf.train` wants it."""
    del key
    return jnp.mean(jax.vmap(lambda x, y: cross_entropy(network(params, x), y))(*batch))


class Spectrum(NamedTuple):
    """A network at the start and at the end of training.

    Attributes:
        size: parameters.
        before: all eigenvalues of the Hessian at the start, ascending.
        after: at the end.
        report: what stands out at the end.
        explained: the least share of an outlier's eigenvector in the span of the class means.
    """

    size: int
    before: np.ndarray
    after: np.ndarray
    report: cv.OutlierReport
    explained: float


def spectrum(classes: int, width: int, seed: int, steps: int = 300) -> Spectrum:
    """Trains by gradient descent with momentum on all data, and takes the exact spectra."""
    key = jax.random.key(seed)
    key_data, key_net, key_rest = jax.random.split(key, 3)
    examples = data(classes, key_data)
    start = initial((FEATURES, width, width, classes), key_net)
    trained = train(
        mean_loss, start, tuple(examples), key=key_rest, steps=steps, every=steps,
        optimizer=_OPTIMIZER, progress=False,
    )  # fmt: skip
    here, there = (
        cv.hessian(network, cross_entropy, params, (examples.inputs, examples.labels))
        for params in (start, trained.model)
    )
    report = cv.outliers(there, classes=classes, key=key_rest, resamples=0, exact=there.size)
    assert report.classes is not None
    return Spectrum(
        there.size,
        np.asarray(cv.eigenvalues(here)),
        np.asarray(cv.eigenvalues(there)),
        report,
        float(jnp.min(report.classes.explained[: classes - 1])),
    )


def flat_share(values: Float[np.ndarray, " m"]) -> float:
    """The share of eigenvalues below a thousandth of the largest, in size."""
    return float(np.mean(np.abs(values) < 1e-3 * values.max()))


def negative_share(values: Float[np.ndarray, " m"]) -> float:
    """The sum of the negative eigenvalues' sizes over the sum of all."""
    return float(-values[values < 0].sum() / np.abs(values).sum())
