"""How many eigenvalues stand out of the bulk: three rules, a fitted edge, and error bars."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Float, Int, Key

from ..errors import InputError
from . import marchenko_pastur
from .checks import require_count, require_key, require_operator, require_positive
from .classes import ClassMeans, class_means
from .losses import LossOperator
from .marchenko_pastur import MarchenkoPastur
from .operators import Operator
from .quadrature import quadratures
from .spectra import extreme, matrix


class OutlierReport(NamedTuple):
    """What stands out of the bulk of a spectrum.

    Attributes:
        by_gap: the place i of the largest ratio lambda_i / lambda_(i+1) among the first 2 classes +
            2 (first rule).
        by_edge: eigenvalues above what the fitted law of noise reaches (second rule).
        by_threshold: eigenvalues above `threshold` times the largest (third rule).
        gap: the largest ratio. Near 1 there is no gap, and `by_gap` means nothing.
        edge: the upper end of the fitted law.
        law: the Marchenko-Pastur law fitted to the bulk.
        largest: the leading eigenvalues, descending.
        residuals: bounds of their errors; zero where the matrix was diagonalised.
        spikes: the eigenvalues of a population that would appear at `largest`; NaN in the bulk.
        bands: intervals of `by_gap`, `by_edge`, `by_threshold`, `gap`, `edge` and `largest` over
            resampled data and probes, as pairs (low, high); empty without resamples. Those of
            numbers are centred at the values above, because resampled data have more noise.
        classes: what class means predict and explain, where the operator has classes; else None.
    """

    by_gap: int
    by_edge: int
    by_threshold: int
    gap: float
    edge: float
    law: MarchenkoPastur
    largest: Float[np.ndarray, " m"]
    residuals: Float[np.ndarray, " m"]
    spikes: Float[np.ndarray, " m"]
    bands: dict[str, tuple[Any, Any]]
    classes: ClassMeans | None


def outliers(
    operator: Operator,
    *,
    classes: int,
    key: Key[Any, ""],
    threshold: float = 0.1,
    resamples: int = 20,
    level: float = 0.9,
    probes: int = 8,
    steps: int = 60,
    exact: int = 1000,
    labels: Int[Any, " N"] | None = None,
) -> OutlierReport:
    """Counts outliers by three rules; how far they agree is for the reader to judge.

    Do not expect as many outliers as classes: on data that are fitted almost perfectly there may
    be no clean gap. For a softmax on symmetric clusters there are classes - 1.

    Args:
        operator: symmetric; it is tested first. The law of noise is one of positive semidefinite
            matrices, so the Gauss-Newton matrix fits it best; negative eigenvalues count as zero.
        classes: about how many outliers there may be; 2 classes + 3 eigenvalues are looked at.
        key: for probes and resampled data.
        threshold: of the third rule, between 0 and 1.
        resamples: spectra of resampled data and probes for the bands; data are resampled for
            operators of losses, and probes for those with more than `exact` rows.
        level: of the bands.
        probes: for the density of larger operators.
        steps: products for each.
        exact: operators of at most so many rows are diagonalised.
        labels: the classes of the examples; by default the labels of the data, where they are
            whole numbers below 2 classes.

    Raises:
        InputError: an operator that is not symmetric, linear and finite; options that do not fit;
            a spectrum without anything above zero.
    """
    require_operator(operator)
    require_key(key, "outliers")
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((operator, key))):
        raise InputError("outliers decides from numbers, which is not possible inside jit.")
    classes = require_count(classes, "classes", 1)
    resamples = require_count(resamples, "resamples", 0)
    for name, value in (("threshold", threshold), ("level", level)):
        if require_positive(value, name) >= 1:
            raise InputError(f"{name} must be between 0 and 1, got {value}.")
    count = min(2 * classes + 3, operator.size)
    look = _Look(count, threshold, exact, probes, steps)
    key, now = jax.random.split(key)
    first, vectors = look.at(operator, now)
    bands = {}
    again = isinstance(operator, LossOperator) or operator.size > exact
    if resamples and again:
        others = []
        for now in jax.random.split(key, resamples):
            data, probe = jax.random.split(now)
            other = operator.resampled(data) if isinstance(operator, LossOperator) else operator
            others.append(look.at(other, probe)[0])
        bands = _bands(first, others, level)
    explained = None
    if labels is not None and not isinstance(operator, LossOperator):
        raise InputError("labels go with the operator of a loss over data.")
    if isinstance(operator, LossOperator) and (
        labels is not None or _has_classes(operator, 2 * classes)
    ):
        explained = class_means(operator, vectors, labels)
    law, largest = first["law"], first["largest"]
    return OutlierReport(
        **{name: first[name] for name in ("by_gap", "by_edge", "by_threshold", "gap", "edge")},
        law=law,
        largest=largest,
        residuals=first["residuals"],
        spikes=np.array([law.population(value) for value in largest]),
        bands=bands,
        classes=explained,
    )


class _Look(NamedTuple):
    """One look at a spectrum."""

    count: int
    threshold: float
    exact: int
    probes: int
    steps: int

    def at(self, operator: Operator, key) -> tuple[dict[str, Any], Any]:
        if operator.size <= self.exact:
            values, vectors = jnp.linalg.eigh(matrix(operator, limit=self.exact))
            atoms = np.asarray(values)[::-1]
            weights = np.ones(len(atoms))
            largest, vectors = atoms[: self.count], vectors.T[::-1][: self.count]
            residuals = np.zeros(self.count)
        else:
            key_top, key_bulk = jax.random.split(key)
            top = extreme(operator, self.count, key=key_top)
            drawn = quadratures(operator, self.probes, self.steps, key_bulk)
            atoms, weights = (np.asarray(part) for part in drawn)
            largest, residuals = np.asarray(top.largest), np.asarray(top.residuals)
            vectors = top.vectors
        law = marchenko_pastur.fit(atoms, weights, dimension=operator.size)
        place, gap = widest_gap(largest)
        found = {
            "by_gap": place,
            "by_edge": int(np.sum(largest > law.largest(operator.size))),
            "by_threshold": int(np.sum(largest > self.threshold * largest[0])),
            "gap": gap,
            "edge": law.edges[1],
            "law": law,
            "largest": largest,
            "residuals": residuals,
        }
        return found, vectors


def widest_gap(values: Float[Any, " m"]) -> tuple[int, float]:
    """The place i (from 1) of the largest ratio values[i] / values[i + 1], and the ratio.

    Values that are zero or negative, up to round-off, count as the smallest positive number that
    the largest can be told from.
    """
    values = np.asarray(values, float)
    if len(values) < 2:
        return len(values), 1.0
    precision = np.finfo(np.asarray(values).dtype).eps
    floor = max(len(values) * precision * values[0], np.finfo(float).tiny)
    values = np.maximum(values, floor)
    ratios = values[:-1] / values[1:]
    place = int(np.argmax(ratios))
    return place + 1, float(ratios[place])


def _bands(first, others, level) -> dict[str, tuple[Any, Any]]:
    ends = [(1 - level) / 2, (1 + level) / 2]
    bands: dict[str, tuple[Any, Any]] = {}
    for name in ("by_gap", "by_edge", "by_threshold", "gap", "edge", "largest"):
        table = np.array([other[name] for other in others])
        low, high = np.quantile(table, ends, axis=0)
        if name.startswith("by_"):
            bands[name] = int(np.floor(low)), int(np.ceil(high))
            continue
        shift = first[name] - np.median(table, axis=0)
        bands[name] = (low + shift, high + shift)
    return bands


def _has_classes(operator: LossOperator, most: int) -> bool:
    """Whether the labels look like classes: whole numbers from 0, and not too many."""
    labels = operator.data[1]
    whole = isinstance(labels, jax.Array) and jnp.issubdtype(labels.dtype, jnp.integer)
    if not (whole and labels.shape == (operator.examples,)):
        return False
    shape = jax.eval_shape(operator.outputs, operator.vector, operator.data[0])
    in_range = bool((jnp.min(labels) >= 0) & (jnp.max(labels) < most))
    return getattr(shape, "ndim", 0) in (1, 2) and in_range
