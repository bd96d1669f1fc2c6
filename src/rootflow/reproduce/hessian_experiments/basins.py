"""Digits by large batches, then by small ones: is a basin left?"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ... import curvature as cv
from ...training import train
from ..implicit_experiments.measure import scikit_learn
from .clusters import cross_entropy, initial, mean_loss, network

SIZES = (64, 30, 30, 10)


class Basins(NamedTuple):
    """The two solutions and what is between them.

    Attributes:
        start: the network before training.
        large: the solution of the large batches.
        small: that of the small batches, which began there.
        path: the loss from the large-batch solution to the small-batch one.
        control: to the large-batch solution from another start.
        accuracy: on the test data, of the two solutions.
    """

    start: Any
    large: Any
    small: Any
    path: cv.Path
    control: cv.Path
    accuracy: tuple[float, float]


def digits() -> tuple[Any, Any]:
    """Inputs and classes, three quarters to train on, the classes in equal shares."""
    inputs, labels = scikit_learn("datasets").load_digits(return_X_y=True)
    split = scikit_learn("model_selection").train_test_split
    parts = split(inputs / 16, labels, test_size=0.25, stratify=labels, random_state=0)
    a, b, c, d = (jnp.asarray(part) for part in parts)
    return (a, c), (b, d)


def run(steps: int) -> Basins:
    """`steps` steps of plain gradient descent with batches of 512, then as many with 16."""
    seen, unseen = digits()
    keys = jax.random.split(jax.random.key(0), 4)
    start = initial(SIZES, keys[0])
    options: dict[str, Any] = dict(
        steps=steps, every=steps, optimizer=optax.sgd(0.1), progress=False
    )

    def descended(start):
        return train(mean_loss, start, seen, key=keys[1], batch_size=512, **options).model

    large, other = descended(start), descended(initial(SIZES, keys[3]))
    small = train(mean_loss, large, seen, key=keys[2], batch_size=16, **options).model
    h = cv.hessian(network, cross_entropy, large, seen)
    return Basins(
        start,
        large,
        small,
        path=cv.path(h, small),
        control=cv.path(h, other),
        accuracy=(accuracy(large, unseen), accuracy(small, unseen)),
    )


def curvature(basins: Basins) -> tuple[cv.Along, cv.OutlierReport]:
    """Curvature at the start and at the two solutions, and what stands out at the last."""
    seen, _ = digits()
    h = cv.hessian(network, cross_entropy, basins.small, seen)
    key = jax.random.key(1)
    along = cv.along(h, [basins.start, basins.large, basins.small], key=key)
    return along, cv.outliers(h, classes=10, key=key, resamples=0)


def accuracy(params: Any, data: tuple[Any, Any]) -> float:
    """The share of examples whose class is the largest output."""
    inputs, labels = data
    chosen = jnp.argmax(jax.vmap(lambda x: network(params, x))(inputs), axis=1)
    return float(np.mean(np.asarray(chosen == labels)))
