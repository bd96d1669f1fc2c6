"""The folder that a population fit leaves behind."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ... import _atomic
from ...reports.folder import digits, plain
from ...reports.formats import shown, with_unit
from ...reports.page import encoded, template
from ..figures import Curves, residuals_figure
from ..report import _matrix, _row
from . import figures, store
from .result import PopulationResult

#: Data sets that the visual predictive check simulates.
SIMULATIONS = 200
Values = Mapping[str, Float[np.ndarray, "groups times"]]
_NAMES = {"fo": "FO", "foce": "FOCE", "focei": "FOCEI", "laplace": "Laplace", "saem": "SAEM"}


def write_population(result: PopulationResult, path: Path) -> dict[str, Any]:
    """Fills the results folder, as `output.write_results` does.

    Returns:
        The content of `fit.json`.

    Raises:
        InputError: the folder holds something else than an earlier fit.
        OSError: it cannot be written.
    """
    from .. import output

    output.check_folder(path)
    ts = output.fine_times(result.dataset)
    drawn = _drawn(result, ts)
    check = figures.predictive_check(result, SIMULATIONS, result.seed)
    record = {**output.as_record(result), **as_record(result)}
    pictures = {
        "fit.png": figures.subjects_figure(result, ts, drawn.curve, drawn.spread, drawn.typical),
        "observed.png": figures.observed_figure(result, drawn.own, drawn.typical_own),
        "vpc.png": figures.check_figure(result, check),
        "residuals.png": residuals_figure(result),
    }
    if result.trace is not None:
        pictures["trace.png"] = figures.trace_figure(result)
    with _atomic.folder(path) as draft:
        text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False)
        _atomic.write_text(draft / "fit.json", text + "\n")
        predictions = output.predictions_table(result, ts, drawn.curve, drawn.spread)
        _atomic.write_text(draft / "predictions.csv", predictions)
        _atomic.write_text(draft / "individuals.csv", _individuals(result))
        for name, picture in pictures.items():
            _atomic.write_bytes(draft / name, picture)
        _atomic.write_text(draft / "report.html", _page(result, record, pictures))
        for name, content in output.store.kept(result).items():
            _atomic.write_text(draft / name, content)
    return record


class _Drawn(NamedTuple):
    """What the pictures and the table show of the model, by observed column.

    Attributes:
        curve, spread: subjects at the fine times, with the band of the curve and of measurements.
        typical: the same without effects.
        own, typical_own: values at the times of the data.
    """

    curve: Curves
    spread: Curves
    typical: Values
    own: Values
    typical_own: Values


def _drawn(result: PopulationResult, ts: Float[np.ndarray, "groups times"]) -> _Drawn:
    """All of it from one compiled program: the measured times are asked for first."""
    slots = result.dataset.ts.shape[1]
    every = np.concatenate([result.dataset.ts, ts], axis=1)
    curve, spread = result.predict(every, noise=False), result.predict(every, noise=True)
    typical = result.predict_typical(every)
    fine = lambda all_of: {
        column: tuple(part[:, slots:] for part in parts) for column, parts in all_of.items()
    }
    return _Drawn(
        fine(curve),
        fine(spread),
        {column: values[:, slots:] for column, values in typical.items()},
        {column: parts[0][:, :slots] for column, parts in curve.items()},
        {column: values[:, :slots] for column, values in typical.items()},
    )


def as_record(result: PopulationResult) -> dict[str, Any]:
    """What `fit.json` says of the population beside what it says of any fit."""
    return {
        "population": plain(
            {
                "approximation": result.approximation,
                "objective_function": result.objf,
                "objective_function_error": result.objf_error,
                "aic": result.aic,
                "bic": result.bic,
                "effects": result.effects,
                "omega": result.omega,
                "eta_shrinkage": result.eta_shrinkage,
                "epsilon_shrinkage": result.epsilon_shrinkage,
                "sandwich": result.sandwich,
                "individuals": [
                    {
                        "group": group,
                        "negative_log_likelihood": result.subject_nll[g],
                        "etas": dict(zip(result.effects, result.etas[g].tolist(), strict=True)),
                        "parameters": {name: x[g] for name, x in result.individuals.items()},
                    }
                    for g, group in enumerate(result.dataset.groups)
                ],
                "description": store.described(result),
            }
        )
    }


def summary(result: PopulationResult) -> str:
    """One line for the terminal."""
    shrinkage = ", ".join(f"{name} {100 * x:.0f} %" for name, x in result.eta_shrinkage.items())
    error = f" +- {result.objf_error:.2g}" if result.objf_error else ""
    return (
        f"{_NAMES[result.approximation]}, {len(result.dataset.groups)} subjects: objective "
        f"function {result.objf:.4f}{error}, AIC {result.aic:.2f}, BIC {result.bic:.2f}; shrinkage "
        f"{shrinkage}."
    )


def _individuals(result: PopulationResult) -> str:
    """A row for each subject: its parameters and its effects."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        [result.model.group, *result.individuals, *(f"eta_{name}" for name in result.effects)]
    )
    for g, group in enumerate(result.dataset.groups):
        values = [x[g] for x in result.individuals.values()]
        writer.writerow([group, *map(digits, values), *map(digits, result.etas[g])])
    return stream.getvalue()


def _page(
    result: PopulationResult, record: Mapping[str, Any], pictures: Mapping[str, bytes]
) -> str:
    laws = {
        name: result.model.random.law(name, result.model.fitted[name]) for name in result.effects
    }
    sd = np.sqrt(np.diagonal(result.omega))
    effects = [
        {
            "name": name,
            "law": laws[name],
            "sd": shown(float(sd[k])),
            "cv": f"{100 * np.sqrt(np.expm1(sd[k] ** 2)):.1f} %"
            if laws[name] == "lognormal"
            else "–",
            "shrinkage": f"{100 * result.eta_shrinkage[name]:.1f} %",
        }
        for k, name in enumerate(result.effects)
    ]
    individuals = [
        (group, [shown(float(x[g])) for x in result.individuals.values()])
        for g, group in enumerate(result.dataset.groups)
    ]
    return template("rootflow.fitting.population").render(
        result=result,
        model=result.model,
        data=result.dataset,
        data_name=Path(result.dataset.table.source).name,
        record=record,
        rows=[_row(e, result) for e in result.estimates],
        effects=effects,
        names=[with_unit(name, result.model.fitted[name].unit) for name in result.individuals],
        individuals=individuals,
        approximation=_NAMES[result.approximation],
        errors=_NAMES[result.model.random.approximation],
        noise=[(c, f"{100 * x:.1f} %") for c, x in result.epsilon_shrinkage.items()],
        best=sum(start.reached_best for start in result.starts),
        matrix=_matrix(result),
        simulations=SIMULATIONS,
        pictures=encoded(pictures),
    )
