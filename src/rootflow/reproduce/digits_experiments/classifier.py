"""The judge of these experiments: scikit-learn's classifier of the digits, in JAX."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..implicit_experiments.measure import scikit_learn


@functools.cache
def weights() -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Matrices and offsets of a network with one hidden layer of 64, trained on all pictures."""
    images, kinds = scikit_learn("datasets").load_digits(return_X_y=True)
    classifier = scikit_learn("neural_network").MLPClassifier(
        hidden_layer_sizes=(64,), random_state=0, max_iter=400
    )
    classifier.fit(images / 8 - 1, kinds)
    return tuple(zip(classifier.coefs_, classifier.intercepts_))


def features(x: Float[Any, "n ..."]) -> np.ndarray:
    """The 64 hidden units at pictures."""
    weight, offset = weights()[0]
    return np.maximum(np.asarray(x, dtype=float).reshape(-1, 64) @ weight + offset, 0)


def log_probabilities(x: Float[Array, "n 64"]) -> Float[Array, "n 10"]:
    """Of the classes, differentiable in x."""
    (a, b), (c, d) = [[jnp.asarray(part, x.dtype) for part in pair] for pair in weights()]
    return jax.nn.log_softmax(jax.nn.relu(x @ a + b) @ c + d, axis=-1)


def classes(x: Float[Array, "n 64"]) -> Int[Array, " n"]:
    """The most probable class of each picture."""
    return jnp.argmax(log_probabilities(x), axis=-1)
