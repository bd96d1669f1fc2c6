"""A fitted population under other conditions: other times, doses, covariates, and new subjects."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from ...errors import InputError
from ...tables.names import did_you_mean
from .. import forecast, problem
from ..model import Model
from ..numbers import whole
from ..predict import times
from ..result import Forecast
from ..table import Dataset
from .predict import Interval, Predictor

#: Subjects drawn for each group of an interval.
DRAWS = 1000
_MOST_DRAWS = 100_000


@dataclass(frozen=True, eq=False)
class PopulationForecast(Forecast):
    """A fitted population at other times and under other conditions (`PopulationResult.under`).

    Three things are predicted of each group: the subject itself (`predict`), the typical subject
    with its covariates and doses (`predict_typical`), and subjects drawn from the population with
    the same (`predict_population`).

    Attributes:
        fit: where the estimates come from.
        dataset: the rows it is asked about; `dataset.groups` are what axis 0 of predictions is.
        new: labels of the subjects that the fit did not have: nothing is known of their effects.
    """

    new: tuple[str, ...] = ()
    _predict: Predictor = field(repr=False, kw_only=True)

    @property
    def model(self) -> Model:
        """The model, with the doses it is followed under."""
        return self._predict.lay.model

    def predict(
        self, ts: Any = None, *, noise: bool = True, draws: int = DRAWS, seed: int = 0
    ) -> dict[str, tuple[Any, ...]]:
        """Each subject, with a 95 % band.

        A subject of the fit at its own most probable effects; its band is that of its effects given
        its data, and of the estimates of the population. Of a new subject the median and the
        interval of subjects drawn from the population (see `predict_population`).

        Args:
            ts: times, as `FitResult.predict` takes them; default: those of the table.
            noise: whether the band is for a new measurement or for the curve.
            draws: subjects that are drawn for a new one.
            seed: of the draws.

        Returns:
            By observed column: mean (median), lower and upper, each of shape (groups, times).

        Raises:
            InputError: times or a number of draws that cannot be used.
            SolveError: the model cannot be solved over the times.
        """
        asked = self._times(ts)
        found = self._predict(asked, bool(noise))
        if not self.new:
            return found
        return merged(self, found, self.predict_population(asked, draws=draws, seed=seed), noise)

    def predict_typical(self, ts: Any = None) -> dict[str, tuple[Any, ...]]:
        """The typical subject with the covariates and doses of each group.

        Returns:
            By observed column: mean, and the 95 % band of the estimates alone, each of shape
            (groups, times).
        """
        return self._predict.typical(self._times(ts))

    def predict_population(
        self, ts: Any = None, *, draws: int = DRAWS, seed: int = 0
    ) -> dict[str, Interval]:
        """Subjects drawn from the population, with the covariates and doses of each group.

        Each draw takes a population from the normal law of the estimates, a subject from that
        population, and its measurements.

        Args:
            ts: as `predict` has them.
            draws: subjects drawn for each group, 20 or more.
            seed: of the draws.

        Returns:
            By observed column: `curve` and `measured`, each the median and the ends of the 95 %
            interval, of shape (groups, times). The first holds how subjects differ and what is not
            known of the population, the second the noise too.

        Raises:
            InputError: times or a number of draws that cannot be used.
            SolveError: too many drawn subjects cannot be solved.
        """
        whole("draws", draws, 20, _MOST_DRAWS)
        whole("seed", seed, 0)
        return self._predict.population(self._times(ts), int(draws), int(seed))

    def frame(self, ts: Any = None, *, noise: bool = True) -> Any:
        """`predict` as a `pandas.DataFrame`, a row for each group, column and time."""
        from ..frames import predictions_frame

        ts = self._times(ts)
        return predictions_frame(self, ts, self.predict(ts, noise=noise))

    def write(
        self, folder: str | os.PathLike[str], ts: Any = None, *, draws: int = DRAWS, seed: int = 0
    ) -> None:
        """Writes what `rootflow predict` writes: a table, a figure, and both as JSON.

        Args:
            folder: appears when it is complete.
            ts: as `predict` has them, in increasing order.
            draws: as `predict_population` has them.
            seed: the same.

        Raises:
            InputError: the folder holds something else than an earlier prediction.
            OSError: it cannot be written.
        """
        from .predictions import write_predictions

        write_predictions(self, self._times(ts), Path(folder), "", draws, seed)

    def _times(self, ts: Any) -> Float[np.ndarray, "groups times"]:
        return times(self.dataset.ts if ts is None else ts, len(self.dataset.groups))


def merged(
    shown: PopulationForecast,
    found: Mapping[str, tuple[Any, ...]],
    drawn: Mapping[str, Interval],
    noise: bool,
) -> dict[str, tuple[Any, ...]]:
    """The bands of the subjects of the fit, and in place of those of new ones the drawn ones."""
    new = np.isin(shown.dataset.groups, shown.new)[:, None]
    out = {}
    for column, parts in found.items():
        curve, measured = drawn[column]
        ends = measured if noise else curve
        out[column] = tuple(
            np.where(new, b, a) for a, b in zip(parts, (curve[0], *ends[1:]), strict=True)
        )
    return out


def moved(fit: Any, data: Any, doses: Any, subjects: Any) -> PopulationForecast:
    """The forecast of a population fit.

    Args:
        fit: a `PopulationResult`.
        data: as `FitResult.predict` has it.
        doses: the same.
        subjects: labels of those that are wanted; `None`: all.

    Raises:
        InputError: a table or doses that cannot be used, subjects that are not there.
    """
    p = fit._predict
    if not isinstance(p, Predictor):
        raise InputError("This result was made by hand, and cannot predict.")
    model, dataset = forecast.asked(p.lay.model, p.data, fit.dataset.groups, data, doses)
    shown = fit.dataset if dataset is None else dataset
    if subjects is not None:
        shown = of_groups(shown, _rows(shown, subjects))
    at = p.data if shown is fit.dataset else problem.group_data(model, shown)
    lay = p.lay if model is p.lay.model else replace(p.lay, model=model)
    place = {label: g for g, label in enumerate(fit.dataset.groups)}
    where = np.array([place.get(label, -1) for label in shown.groups])
    known = where >= 0
    rows = lambda x, rest: np.where(known.reshape(-1, *[1] * (x.ndim - 1)), x[where], rest)
    predictor = replace(
        p, lay=lay, data=at, solvers=forecast.started(model, p.solvers, np.asarray(at.t0)),
        z=rows(p.z, 0.0), spread=rows(p.spread, np.eye(p.z.shape[1])), fitted=None,
        moved=None if p.moved is None else rows(p.moved, 0.0),
    )  # fmt: skip
    new = tuple(label for label, old in zip(shown.groups, known, strict=True) if not old)
    return PopulationForecast(fit, shown, new=new, _predict=predictor)


def _rows(dataset: Dataset, subjects: Any) -> Int[np.ndarray, " subjects"]:
    labels = [subjects] if isinstance(subjects, str) else subjects
    labels = [str(label) for label in labels] if isinstance(labels, Iterable) else []
    if not labels:
        raise InputError(f"subjects is {subjects!r:.80}; give a list of labels.")
    for label in labels:
        if label not in dataset.groups:
            listed = ", ".join(dataset.groups[:8])
            more = f" and {len(dataset.groups) - 8} more" if len(dataset.groups) > 8 else ""
            raise InputError(
                f"{dataset.table.source}: there is no subject {label!r}; there are {listed}{more}."
                f"{did_you_mean(label, dataset.groups)}"
            )
    return np.array([dataset.groups.index(label) for label in dict.fromkeys(labels)])


def of_groups(dataset: Dataset, rows: Int[np.ndarray, " some"]) -> Dataset:
    """Some groups of a dataset, in this order."""
    names = ("ts", "values", "weights", "covariates", "t0", "rows", "real", "sides", "cells",
             "condition", "before", "doses")  # fmt: skip
    parts = {name: getattr(dataset, name) for name in names}
    picked = jax.tree.map(lambda x: np.asarray(x)[rows], parts)
    return replace(dataset, groups=[dataset.groups[g] for g in rows], **picked)
