"""How far generated traces and quantities are from true ones."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance

from ..errors import InputError
from . import checks


def wasserstein(a: Float[ArrayLike, " n"], b: Float[ArrayLike, " m"]) -> float:
    """The Wasserstein-1 distance between two sets of numbers, exactly.

    The area between their distribution functions; for as many numbers in both the mean distance of
    the sorted ones.

    Raises:
        InputError: anything but finite numbers, shape (n,).
    """
    return float(wasserstein_distance(checks.samples("a", a), checks.samples("b", b)))


def energy_distance(a: Float[ArrayLike, "n ..."], b: Float[ArrayLike, "m ..."]) -> float:
    """2 E|a - b| - E|a - a'| - E|b - b'| over all pairs (Székely and Rizzo 2013).

    Zero for equal sets, never negative; samples of any shape, compared in the Euclidean norm.

    Raises:
        InputError: samples of different shapes.
    """
    x, y = _rows("a", a), _rows("b", b)
    if x.shape[1] != y.shape[1]:
        raise InputError(f"samples differ in shape: {np.shape(a)[1:]} and {np.shape(b)[1:]}.")
    return float(2 * cdist(x, y).mean() - cdist(x, x).mean() - cdist(y, y).mean())


def memorisation(samples: Float[ArrayLike, "n ..."], seen: Float[ArrayLike, "m ..."]) -> float:
    """How near samples lie to what was seen: 0 copies, about 1 new samples of the same kind.

    The median distance of a sample to the nearest one that was seen, over the median distance of
    those to the nearest other one.

    Raises:
        InputError: fewer than two that were seen.
    """
    x, y = _rows("samples", samples), _rows("seen", seen)
    if y.shape[0] < 2 or x.shape[1] != y.shape[1]:
        raise InputError(
            "memorisation needs samples of one shape, and at least two that were seen; got "
            f"{np.shape(samples)} and {np.shape(seen)}."
        )
    tree = KDTree(y)
    own = np.median(tree.query(y, k=2)[0][:, 1])
    return float(np.median(tree.query(x)[0]) / max(own, np.finfo(float).tiny))


class Spectrum(NamedTuple):
    """Standard deviations along the principal components of true traces.

    Attributes:
        true: of the true ones, shape (rank,).
        generated: of the generated ones.
    """

    true: Float[np.ndarray, " rank"]
    generated: Float[np.ndarray, " rank"]


def pod_spectrum(representation: Any, true: Any, generated: Any) -> Spectrum:
    """Spectra of true and generated traces in the basis of a fitted `POD`."""
    codes = (representation.scale * representation.encode(np.asarray(x)) for x in (true, generated))
    return Spectrum(*(code.std(axis=0, ddof=1) for code in codes))


def correlation_error(true: Float[ArrayLike, "n k"], generated: Float[ArrayLike, "m k"]) -> float:
    """Root mean square difference of the correlation matrices, off the diagonal.

    Raises:
        InputError: arrays that are no (samples, k) with one k of at least two.
    """
    x, y = _rows("true", true), _rows("generated", generated)
    if x.shape[1] != y.shape[1] or x.shape[1] < 2 or min(len(x), len(y)) < 3:
        raise InputError(
            f"correlations need (samples, k) arrays with one k >= 2; got {np.shape(true)} and "
            f"{np.shape(generated)}."
        )
    gap = np.corrcoef(x.T) - np.corrcoef(y.T)
    return float(np.sqrt(np.mean(gap[~np.eye(len(gap), dtype=bool)] ** 2)))


def _rows(name: str, value: Any) -> np.ndarray:
    array = np.asarray(value, float)
    if array.ndim < 1 or array.shape[0] < 1:
        raise InputError(f"{name} must have shape (samples, ...); got {array.shape}.")
    return checks.finite(name, array).reshape(array.shape[0], -1)
