"""Ten images from which a classifier learns to read the digits: dataset distillation."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ...roots import conditions
from ...roots.implicit import implicit
from ...roots.iterate import Tolerance
from ...roots.prox import none
from ...roots.solvers.proximal_gradient import Composite, ProximalGradient
from .measure import scikit_learn

_CLASSES = 10
_PENALTY = 1e-2


class Digits(NamedTuple):
    """Images of 8 x 8 pixels between 0 and 1, as rows, and their labels."""

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


class Distilled(NamedTuple):
    """Loss before each outer step, the images, test accuracy, and median seconds a step."""

    losses: np.ndarray
    images: np.ndarray
    accuracy: float
    seconds: float


def digits() -> Digits:
    """A quarter of scikit-learn's digits, drawn evenly from the classes, is for the test."""
    images, labels = scikit_learn("datasets").load_digits(return_X_y=True)
    split = scikit_learn("model_selection").train_test_split
    train, test, train_labels, test_labels = split(
        images / 16, labels, test_size=0.25, stratify=labels, random_state=0
    )
    return Digits(train, train_labels, test, test_labels)


def _cross_entropy(weights, images, labels):
    """Multinomial logistic loss of the scores images @ weights."""
    return optax.softmax_cross_entropy_with_integer_labels(images @ weights, labels).mean()


def _inner(weights, images):
    """The loss of a classifier on the distilled images, one of each digit."""
    penalty = _PENALTY * jnp.sum(weights**2)
    return _cross_entropy(weights, images, jnp.arange(_CLASSES)) + penalty


def _train(steps: int) -> Callable[..., Any]:
    """`solve(weights, images)`: that many accelerated gradient steps on the inner loss."""

    def solve(weights, images):
        shape = weights.shape
        task = Composite(lambda v: _inner(v.reshape(shape), images), none)
        # The softmax has curvature 1/2 at most. The step is no part of what is differentiated.
        squared = jnp.linalg.norm(jax.lax.stop_gradient(images), 2) ** 2
        size = 1 / (0.5 * squared / _CLASSES + 2 * _PENALTY)
        method = ProximalGradient(Tolerance(0.0, 1.0), step_size=size)

        def step(carry, _):
            v, state, _ = method.step(task, *carry)
            return (v, state), None

        start = (weights.ravel(), method.init(task, weights.ravel()))
        return jax.lax.scan(step, start, length=steps)[0][0].reshape(shape)

    return solve


def distil(data: Digits, inner_steps: int, outer_steps: int) -> dict[str, Distilled]:
    """Adam on ten images, with the implicit and the unrolled gradient, from the same start.

    The two take turns, step by step, so that their times can be compared.
    """
    unrolled = _train(inner_steps)
    solvers = {
        "implicit": implicit(conditions.Stationary(_inner))(unrolled),
        "unrolled": unrolled,
    }
    size = data.train.shape[1]
    blank = jnp.zeros((size, _CLASSES))
    start = jnp.asarray(np.random.default_rng(0).normal(size=(_CLASSES, size)))
    optimiser = optax.adam(0.05)

    def updater(solve):
        def outer(images):
            return _cross_entropy(solve(blank, images), data.train, data.train_labels)

        @jax.jit
        def update(images, state):
            loss, gradient = jax.value_and_grad(outer)(images)
            changes, state = optimiser.update(gradient, state)
            return optax.apply_updates(images, changes), state, loss

        return update

    updates = {name: updater(solve) for name, solve in solvers.items()}
    at = {name: (start, optimiser.init(start)) for name in solvers}
    for name, update in updates.items():
        jax.block_until_ready(update(*at[name]))
    losses = {name: [] for name in solvers}
    seconds = {name: [] for name in solvers}
    for _ in range(outer_steps):
        for name, update in updates.items():
            before = time.perf_counter()
            images, state, loss = update(*at[name])
            losses[name].append(float(loss))
            seconds[name].append(time.perf_counter() - before)
            at[name] = images, state

    train = jax.jit(unrolled)

    def finished(name):
        images, _ = at[name]
        right = jnp.argmax(data.test @ train(blank, images), axis=1) == data.test_labels
        return Distilled(
            np.array(losses[name]),
            np.asarray(images),
            float(right.mean()),
            float(np.median(seconds[name])),
        )

    return {name: finished(name) for name in solvers}
