"""The folder a fit leaves behind, and the same as one JSON document."""

import csv
import io
import json
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from .. import _atomic
from .._machine import describe
from ..reports import folder
from ..reports.folder import digits, plain
from . import store
from .figures import Curves, Shown, fit_figure, residuals_figure, starts_figure
from .model import Noise, Parameter
from .report import report_page
from .result import FitResult
from .table import Dataset

PROGRAM = "rootflow fit"
#: Before a measurement by the side on which its value lies, as tables of data have them.
_SIGNS = {0: "", -1: "<", 1: ">"}
#: What every fit leaves; beside them goes the model, where it is a text.
FILES = (
    "fit.json", "data.csv", "predictions.csv", "fit.png", "residuals.png", "starts.png",
    "report.html",
)  # fmt: skip
_GRID = 200


def check_folder(path: Path) -> None:
    """Makes sure that a fit may write to `path`, as `reports.folder.check` does."""
    folder.check(path, record="fit.json", program=PROGRAM, what="fit")


def write_results(result: FitResult, path: Path) -> dict[str, Any]:
    """Fills the results folder, which appears whole or not at all.

    The results of an earlier fit in the same place are replaced.

    Args:
        result: what was fitted.
        path: the folder.

    Returns:
        The content of `fit.json`.

    Raises:
        InputError: as `check_folder`.
        OSError: the folder cannot be written.
    """
    from .population.result import PopulationResult

    if isinstance(result, PopulationResult):
        from .population.output import write_population

        return write_population(result, path)
    check_folder(path)
    ts = fine_times(result.dataset)
    curve = result.predict(ts, noise=False)
    spread = result.predict(ts, noise=True)
    record = as_record(result)
    pictures = {
        "fit.png": fit_figure(result, ts, curve, spread),
        "residuals.png": residuals_figure(result),
        "starts.png": starts_figure(result),
    }
    with _atomic.folder(path) as draft:
        text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False)
        _atomic.write_text(draft / "fit.json", text + "\n")
        _atomic.write_text(draft / "predictions.csv", predictions_table(result, ts, curve, spread))
        for name, picture in pictures.items():
            _atomic.write_bytes(draft / name, picture)
        _atomic.write_text(draft / "report.html", report_page(result, record, pictures))
        for name, content in store.kept(result).items():
            _atomic.write_text(draft / name, content)
    return record


def as_record(result: FitResult) -> dict[str, Any]:
    """Everything about a fit as plain JSON values; numbers that are not finite are null."""
    model, data = result.model, result.dataset
    record = {
        "program": PROGRAM,
        "format": 1,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe(("jax", "jaxlib", "equinox", "numpy", "scipy", "matplotlib")),
        "model": {
            "name": model.name,
            "description": model.description,
            "source": model.source,
            "equations": [list(pair) for pair in model.equations],
            "time": model.time,
            "group": model.group,
            "covariates": model.covariates,
            "t0": model.t0,
            "states": {name: _start(start) for name, start in model.states.items()},
            "parameters": model.parameters,
            "noise": {column: _law(law) for column, law in model.noise.items()},
            "units": model.units,
        },
        "data": {
            "source": data.table.source,
            "rows": len(data.table),
            "groups": data.groups,
            "observations": result.observations,
        },
        "converged": result.converged,
        "outcome": result.outcome,
        "message": result.message,
        "warnings": result.warnings,
        "estimates": result.estimates,
        "scales": result.scales,
        "negative_log_likelihood": result.nll,
        "sum_of_squares": result.rss,
        "degrees_of_freedom": result.dof,
        "free_names": result.free_names,
        "covariance": result.covariance,
        "correlation": result.correlation,
        "residuals": result.residuals,
        "starts": result.starts,
        "seed": result.seed,
        "method": result.method,
        "solver": result.solver,
        "solver_reason": result.solver_reason,
        "seconds": result.seconds,
        "aic": result.aic,
        "bic": result.bic,
        **store.described(result),
    }
    return plain(record)


def _start(start: Any) -> Any:
    if isinstance(start, Parameter):
        return start
    return "computed" if callable(start) else float(start)


def _law(law: Noise) -> Any:
    """The noise of a column; what is no number of its scale is its formula, if there is a text."""
    if not callable(law.scale):
        return law
    given = {f.name: getattr(law, f.name) for f in fields(law)}
    return {**given, "scale": getattr(law.scale, "text", "computed")}


def fine_times(data: Dataset) -> Float[np.ndarray, "groups times"]:
    """A fine grid over the span of each group, and the times of its rows, in order."""
    ends = data.ts[:, -1]
    grid = np.linspace(data.t0, ends, _GRID, axis=1)
    return np.sort(np.concatenate([grid, data.ts], axis=1), axis=1)


def predictions_table(
    result: Shown, ts: Float[np.ndarray, "groups times"], curve: Curves, spread: Curves | None
) -> str:
    """A table with a row for each group, observed column and time; without `spread` no bands.

    The measured value stands in the rows at whose time there is one, a limit as `<0.05` or `>200`;
    replicates repeat the row.
    """
    model, data = result.model, result.dataset
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    head = [model.time, "column", "predicted"]
    head += ["curve_lower", "curve_upper", "lower", "upper"] if spread is not None else []
    writer.writerow([*([model.group] if model.group else []), *head, "measured"])
    for group, name in enumerate(data.groups):
        for column in model.observed:
            bands = curve[column][:1]
            if spread is not None:
                bands = (*curve[column], *spread[column][1:])
            lines = np.stack([np.asarray(band)[group] for band in bands], axis=1)
            measured, side = data.values[column][group], data.side(column)[group]
            for i, t in enumerate(ts[group]):
                if i and t == ts[group][i - 1]:
                    continue
                here = np.flatnonzero((data.ts[group] == t) & np.isfinite(measured))
                for k in here if len(here) else [None]:
                    writer.writerow(
                        [
                            *([name] if model.group else []),
                            digits(t),
                            column,
                            *map(digits, lines[i]),
                            "" if k is None else f"{_SIGNS[side[k]]}{digits(measured[k])}",
                        ]
                    )
    return stream.getvalue()
