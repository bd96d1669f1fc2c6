"""A fit in its folder: the model and the data that are kept beside it, and the way back.

What was fitted at which values is all that a result is made of; the rest is computed again.
"""

import csv
import io
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..tables.cells import is_blank
from ..tables.table import Table, load_table
from .described import model_of
from .evaluate import at_values, with_fixed
from .model import Model
from .result import Estimate, FitResult, Start
from .solving import METHODS, name_of, options
from .table import assemble

MODEL, DATA = "model.toml", "data.csv"
#: A folder whose model and data give another negative log-likelihood than it says is not believed.
_SAME, _RELATIVE = 1e-2, 1e-6


def kept(result: FitResult) -> dict[str, str]:
    """The text of each file by name; none for models that are no text."""
    if not result.model_text or result.model.random is not None:
        return {}
    return {MODEL: result.model_text, DATA: table_text(result.dataset.table)}


def described(result: FitResult) -> dict[str, Any]:
    """What `fit.json` says so that `load_fit` can read the folder again."""
    table, solving = result.dataset.table, result.solving
    solvers = getattr(result._predict, "solvers", ())
    named = [name for name, method in METHODS.items() if method == solving.method]
    return {
        "files": list(kept(result)),
        "solve": {
            "method": "auto" if solving.method == "auto" else named[-1] if named else None,
            "rtol": solving.rtol,
            "atol": solving.atol,
            "max_steps": solving.max_steps,
        },
        "solver_steps": solvers[0].max_steps if solvers else None,
        "table": {
            "from_file": table.from_file,
            "missing": list(table.missing),
            "decimal": table.decimal,
        },
    }


def table_text(table: Table) -> str:
    """A table as CSV. Rows that came from a file stand in the lines that they had there."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(table.columns)
    for i, line in enumerate(table.lines):
        if table.from_file:
            written = stream.getvalue().count("\n") if i == 0 else written
            stream.write("\n" * max(line - 1 - written, 0))
            written = max(line - 1, written)
        cells = [_cell(column[i]) for column in table.columns.values()]
        writer.writerow(cells)
        if table.from_file:
            written += 1 + sum(cell.count("\n") for cell in cells)
    return stream.getvalue()


def _cell(cell: Any) -> str:
    if is_blank(cell) or isinstance(cell, float) and np.isnan(cell):
        return ""
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 1e15:
        return str(int(cell))
    return cell if isinstance(cell, str) else str(cell)


def load_fit(folder: str | os.PathLike) -> FitResult:
    """A fit that `rootflow fit`, or `FitResult.write`, left in a folder.

    The model and the data are read from the folder, and the model is solved again at the values
    found: predictions, residuals and errors are those of the fit. Files are read as files from
    anybody: nothing in them is run.

    Args:
        folder: with `fit.json`, `model.toml` and `data.csv`.

    Returns:
        The result; its `dataset.table.source` is the file in the folder.

    Raises:
        InputError: no such fit; one of a model from Python functions, of which a folder cannot
            hold a copy (keep its result by `pickle`); a model or data that are not those of the
            fit any more.
    """
    folder = Path(folder)
    record = _record(folder)
    model, text = model_of(folder / MODEL)
    table = load_table(
        folder / DATA, missing=record["table"]["missing"], decimal=record["table"]["decimal"]
    )
    if not record["table"]["from_file"]:
        table = replace(table, from_file=False, lines=tuple(range(len(table))))
    values = _values(model, record["estimates"])
    model = replace(with_fixed(model, values), source=record["model"]["source"])
    asked = {name: value for name, value in record["solve"].items() if value is not None}
    result = at_values(model, assemble(model, table), options({}, asked), values, _chosen(record))
    difference = abs(result.nll - _number(record["negative_log_likelihood"]))
    if not difference <= _SAME + _RELATIVE * abs(result.nll):
        raise InputError(
            f"{folder}: the model and the data give the negative log-likelihood {result.nll:.6g} "
            f"at the estimates, and fit.json says {record['negative_log_likelihood']}: one of the "
            "files was changed after the fit. Fit again."
        )
    return replace(_as_it_was(result, record), model_text=text)


def _as_it_was(result: FitResult, record: Mapping[str, Any]) -> FitResult:
    """With what only the searches knew."""
    profiles = {(e["name"], e["group"], e["kind"]): e["profile"] for e in record["estimates"]}

    def profiled(e: Estimate) -> Estimate:
        ends = profiles.get((e.name, e.group, e.kind))
        if ends is None:
            return e
        low, high = (_number(end) for end in ends)
        # An end that was never reached is null in JSON.
        low = -np.inf if np.isnan(low) and not np.isnan(high) else low
        high = np.inf if np.isnan(high) and not np.isnan(low) else high
        return replace(e, profile=(low, high))

    starts = [
        Start(**{**s, "cost": np.inf if s["cost"] is None else s["cost"],
                 "values": tuple(map(_number, s["values"]))})
        for s in record["starts"]
    ]  # fmt: skip
    names = ("converged", "outcome", "message", "warnings", "seed", "method", "seconds",
             "solver_reason")  # fmt: skip
    told = {name: record[name] for name in names}
    estimates = [profiled(e) for e in result.estimates]
    return replace(result, estimates=estimates, starts=starts, **told)


def _number(value: Any) -> float:
    return np.nan if value is None else float(value)


def _record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / "fit.json").read_text(encoding="utf-8"))
        ours = isinstance(record, dict) and record.get("program") == "rootflow fit"
    except (OSError, ValueError):
        ours, record = False, {}
    if not ours:
        raise InputError(
            f"{folder} holds no fit; give the folder that rootflow fit wrote, with fit.json in it."
        )
    if "population" in record:
        raise InputError(
            f"{folder}: fits of models with random effects are not read again from folders; keep "
            "their results by pickle.dump(result, file)."
        )
    if "files" not in record:
        raise InputError(
            f"{folder}: the fit is of a version of rootflow that kept no model beside it. "
            "Fit again."
        )
    if MODEL not in record["files"]:
        raise InputError(
            f"{folder}: the fit is of a model from Python, of which the folder holds no copy. Keep "
            "such results by pickle.dump(result, file), or write the model as a model file."
        )
    return record


def _values(model: Model, estimates: list[dict[str, Any]]) -> dict[str, float]:
    """The estimates by name; those on a bound exactly on it."""
    out = {}
    for e in estimates:
        if e["kind"] == "scale":
            continue
        name = e["name"] if e["group"] is None else f"{e['name']}[{e['group']}]"
        value = e["value"]
        if e["at_bound"] and e["name"] in model.fitted:
            value = model.fitted[e["name"]].limits[e["at_bound"] == "upper"]
        out[name] = value
    return out


def _chosen(record: Mapping[str, Any]):
    """Which of the solvers is the one that the fit used."""
    return lambda solver: (
        name_of(solver) == record["solver"] and solver.max_steps == record["solver_steps"]
    )
