"""Dictionary learning for a task: codes that are learnt to predict, against codes that are not."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ...roots import prox
from ...roots.argmin import argmin
from .measure import scikit_learn

PATIENTS = 299
_ATOMS = 10
_SPARSITY = 0.1
_SHRINKAGE = 0.01
_PENALTIES = np.logspace(-5, 0, 6)
_OUTER_STEPS = 100


class Patients(NamedTuple):
    """Rows of features and labels 0 or 1: 60 per cent to train on, 20 to choose by, 20 to test."""

    rows: np.ndarray
    labels: np.ndarray


_TRAIN, _CHOOSE, _TEST = slice(0, 179), slice(179, 239), slice(239, PATIENTS)


def _load(name):
    datasets = scikit_learn("datasets")
    if name == "breast cancer":
        return datasets.load_breast_cancer(return_X_y=True)
    rows, progression = datasets.load_diabetes(return_X_y=True)
    return rows, (progression > np.median(progression)).astype(int)


def draw(name: str, seed: int) -> Patients:
    """299 patients of scikit-learn's breast-cancer or diabetes data, evenly from both classes.

    The label is that the tumour is benign, or that the disease progresses faster than the median.
    Features are scaled by the mean and deviation of the patients to train on.
    """
    rows, labels = _load(name)
    parts = scikit_learn("model_selection").train_test_split
    sizes = [part.stop - part.start for part in (_TRAIN, _CHOOSE, _TEST)]
    pieces = []
    for size in sizes:
        part, rows, part_labels, labels = parts(
            rows, labels, train_size=size, stratify=labels, random_state=seed
        )
        pieces.append((part, part_labels))
    train = pieces[0][0]
    mean, scale = train.mean(0), train.std(0) * np.sqrt(train.shape[1])
    rows = np.concatenate([(part - mean) / scale for part, _ in pieces])
    return Patients(rows, np.concatenate([part_labels for _, part_labels in pieces]))


def _atoms(dictionary):
    return dictionary / jnp.linalg.norm(dictionary, axis=1, keepdims=True)


def _reconstruction(code, atoms, row):
    return 0.5 * jnp.sum((row - code @ atoms) ** 2)


def _encode(dictionary, rows):
    """The sparse code of every row: an elastic net, differentiable in the dictionary."""

    def shrink(code, atoms, row, step):
        del atoms, row
        return prox.elastic_net(code, _SPARSITY * step, _SHRINKAGE * step)

    def one(row):
        return argmin(
            _reconstruction, jnp.zeros(_ATOMS), _atoms(dictionary), row, prox=shrink, rtol=1e-7
        )

    return jax.vmap(one)(rows)


def _logistic(model, features, labels):
    weights, offset = model
    return optax.sigmoid_binary_cross_entropy(features @ weights + offset, labels).mean()


def _logistic_fit(features, labels, penalty, *, lasso):
    """Logistic regression; `lasso` chooses |w|_1 rather than |w|^2 / 2."""
    start = (jnp.zeros(features.shape[1]), jnp.zeros(()))
    if lasso:

        def shrink(model, step):
            return prox.soft_threshold(model[0], penalty * step), model[1]

        return argmin(lambda m: _logistic(m, features, labels), start, prox=shrink, rtol=1e-6)

    def objective(model):
        return _logistic(model, features, labels) + 0.5 * penalty * jnp.sum(model[0] ** 2)

    return argmin(objective, start, rtol=1e-6)


@jax.jit
def _unsupervised(rows, dictionary):
    """Adam on the elastic-net objective, at whose minimum the codes need no derivative.

    Returns the dictionary and the codes of all rows, those that were not trained on too.
    """
    optimiser = optax.adam(0.05)

    def objective(dictionary):
        codes = jax.lax.stop_gradient(_encode(dictionary, rows))
        atoms = _atoms(dictionary)
        fits = jax.vmap(lambda code, row: _reconstruction(code, atoms, row))(codes, rows)
        return jnp.mean(fits[_TRAIN]), codes

    def step(carry, _):
        dictionary, state, *_ = carry
        gradient, codes = jax.grad(objective, has_aux=True)(dictionary)
        changes, state = optimiser.update(gradient, state)
        return (optax.apply_updates(dictionary, changes), state, dictionary, codes), None

    codes = jnp.zeros((rows.shape[0], _ATOMS))
    start = (dictionary, optimiser.init(dictionary), dictionary, codes)
    return jax.lax.scan(step, start, length=_OUTER_STEPS)[0][2:]


@jax.jit
def _task_driven(rows, labels, dictionary, model, penalty):
    """Adam on the classifier and, through the codes, on the dictionary: all scores it goes by."""
    optimiser = optax.adam(0.01)

    def objective(both):
        dictionary, model = both
        codes = _encode(dictionary, rows)
        fit = _logistic(model, codes[_TRAIN], labels[_TRAIN])
        return fit + 0.5 * penalty * jnp.sum(model[0] ** 2), codes @ model[0] + model[1]

    def step(carry, _):
        both, state = carry
        gradient, scores = jax.grad(objective, has_aux=True)(both)
        changes, state = optimiser.update(gradient, state)
        return (optax.apply_updates(both, changes), state), scores

    both = (dictionary, model)
    return jax.lax.scan(step, (both, optimiser.init(both)), length=_OUTER_STEPS)[1]


@functools.partial(jax.jit, static_argnames="lasso")
def _path(features, labels, lasso):
    """Classifiers for every penalty."""
    fit = functools.partial(_logistic_fit, features[_TRAIN], labels[_TRAIN], lasso=lasso)
    return jax.vmap(fit)(jnp.asarray(_PENALTIES))


def _chosen(scores, labels) -> int:
    """The row of scores with the smallest logistic loss on the patients kept for choosing."""
    losses = optax.sigmoid_binary_cross_entropy(scores[:, _CHOOSE], labels[_CHOOSE]).mean(axis=1)
    return int(jnp.argmin(losses))


def measure(name: str, seed: int) -> dict[str, float]:
    """Area under the curve on the test patients of one draw, for the four methods."""
    rows, labels = draw(name, seed)

    def area(scores):
        return float(scikit_learn("metrics").roc_auc_score(labels[_TEST], scores[_TEST]))

    def logistic(features, lasso):
        weights, offsets = _path(features, labels, lasso)
        scores = weights @ features.T + offsets[:, None]
        place = _chosen(scores, labels)
        return area(scores[place]), (weights[place], offsets[place]), _PENALTIES[place]

    start = jnp.asarray(np.random.default_rng(seed).normal(size=(_ATOMS, rows.shape[1])))
    dictionary, codes = _unsupervised(rows, start)
    of_codes, model, penalty = logistic(codes, lasso=False)
    scores = _task_driven(rows, labels, dictionary, model, penalty)
    return {
        "L1 logistic": logistic(rows, lasso=True)[0],
        "L2 logistic": logistic(rows, lasso=False)[0],
        "dictionary + L2": of_codes,
        "task-driven": area(scores[_chosen(scores, labels)]),
    }
