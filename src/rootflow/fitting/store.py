"""A fit in its folder: the model and the data that are kept beside it, and the way back.

What was fitted at which values is all that a result is made of; the rest is computed again.
"""

import csv
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..reports.folder import plain
from ..tables.cells import is_blank
from ..tables.table import Table, load_table
from .described import described as described_model
from .described import model_of
from .evaluate import at_values, with_fixed
from .model import Dose, Model, Noise, Parameter
from .population.store import population_of, restored
from .result import Estimate, FitResult, Start
from .solving import METHODS, name_of, options
from .table import assemble

MODEL, DATA = "model.toml", "data.csv"
#: A folder whose model and data give another negative log-likelihood than it says is not believed.
_SAME, _RELATIVE = 1e-2, 1e-6
_DIFFERENT = "The model or the data are not those of the fit: give those, or fit again."


def kept(result: FitResult) -> dict[str, str]:
    """The text of each file by name: the data, and the model where it is a text."""
    text = {MODEL: result.model_text} if result.model_text else {}
    return {**text, DATA: table_text(result.dataset.table)}


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


def load_fit(
    folder: str | os.PathLike[str],
    *,
    model: Model | Callable[[Any, Any, Any], Any] | None = None,
    states: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Parameter] | None = None,
    observed: Mapping[str, Callable[..., Any]] | None = None,
    noise: str | Noise | Mapping[str, Noise | str] = "normal",
    doses: Sequence[Dose] = (),
    time: str = "time",
    group: str | None = None,
) -> FitResult:
    """A fit that `rootflow fit`, or `FitResult.write`, left in a folder.

    The model and the data are read from the folder, and the model is solved again at the values
    found: predictions, residuals and errors are those of the fit. Files are read as files from
    anybody: nothing in them is run. Models that are a text (model files, PEtab problems) are in the
    folder; a model made of Python functions has to be given again.

    Args:
        folder: with `fit.json`, `data.csv` and, unless the model is given, `model.toml`.
        model: a model that is no text, as `rf.fit` took it: an `rf.Model`, or the vector field with
            the next arguments.
        states: of a function, initial value of each state.
        parameters: of a function, the unknowns.
        observed: of a function, data column to model value.
        noise: of a function, as in `rf.fit`.
        doses: of a function, jumps of a state.
        time: of a function, name of the time column.
        group: of a function, name of the column that tells experiments apart.

    Returns:
        The result; its `dataset.table.source` is the file in the folder.

    Raises:
        InputError: no such fit; one of a model from Python functions without `model`; a model
            whose states, parameters or columns are not those of the fit; a model or data that are
            not those of the fit any more.
    """
    folder = Path(folder)
    record = _record(folder, model is not None)
    table = load_table(
        folder / DATA, missing=record["table"]["missing"], decimal=record["table"]["decimal"]
    )
    if not record["table"]["from_file"]:
        table = replace(table, from_file=False, lines=tuple(range(len(table))))
    if model is None:
        found, text = model_of(folder / MODEL)
    else:
        found, _, text = described_model(
            model, table, states, parameters, observed, noise, doses, time, group
        )
    told = record.get("population", {}).get("description")
    try:
        _check_same(found, record["model"])
        if told is not None:
            found = population_of(found, told)
        result = _restored(found, table, record)
    except InputError as error:
        raise InputError(f"{folder}: {str(error).removesuffix('.')}. {_DIFFERENT}") from None
    difference = abs(result.nll - _number(record["negative_log_likelihood"]))
    if not difference <= _SAME + _RELATIVE * abs(result.nll):
        raise InputError(
            f"{folder}: the model and the data give the negative log-likelihood {result.nll:.6g} "
            f"at the estimates, and fit.json says {record['negative_log_likelihood']}: one of the "
            f"files{' or the model' if model is not None else ''} was changed after the fit. "
            "Fit again."
        )
    return replace(_as_it_was(result, record), model_text=text)


def _restored(model: Model, table: Table, record: Mapping[str, Any]) -> FitResult:
    """The result at the estimates of a record."""
    values = _values(model, record["estimates"])
    model, source = with_fixed(model, values), record["model"]["source"]
    model = model if model.source == source else replace(model, source=source)
    asked = {name: value for name, value in record["solve"].items() if value is not None}
    solving, dataset = options({}, asked), assemble(model, table)
    if model.random is not None:
        return restored(model, dataset, record, solving, _chosen(record))
    return at_values(model, dataset, solving, values, _chosen(record))


def _check_same(model: Model, told: Mapping[str, Any]) -> None:
    """Whether a model has the names of the fit, and parameters with the same scale and bounds.

    Raises:
        InputError: it has others.
    """
    columns = {"time": (model.time, told["time"]), "group": (model.group, told["group"])}
    for what, (ours, theirs) in columns.items():
        if ours != theirs:
            raise InputError(f"the {what} column of the model is {ours!r}, of the fit {theirs!r}")
    lists = {
        "states": (model.states, told["states"]),
        "parameters": (model.parameters, told["parameters"]),
        "observed columns": (model.observed, told["noise"]),
        "covariates": (model.covariates, told["covariates"]),
    }
    for what, (ours, theirs) in lists.items():
        if list(ours) != list(theirs):
            names = [", ".join(x) or "none" for x in (ours, theirs)]
            raise InputError(f"the {what} of the model are {names[0]}, of the fit {names[1]}")
    starts = {name: x for name, x in told["states"].items() if isinstance(x, dict)}
    for name, theirs in {**told["parameters"], **starts}.items():
        if name not in model.fitted:
            raise InputError(f"{name!r} is fitted in the fit, and not in the model")
        ours = model.fitted[name]
        for key in ("scale", "lower", "upper", "fixed", "per_group"):
            if plain(getattr(ours, key)) != theirs[key]:
                raise InputError(
                    f"{key} of {name!r} is {getattr(ours, key)} in the model, {theirs[key]} in "
                    "the fit"
                )


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


def _record(folder: Path, given: bool) -> dict[str, Any]:
    try:
        record = json.loads((folder / "fit.json").read_text(encoding="utf-8"))
        ours = isinstance(record, dict) and record.get("program") == "rootflow fit"
    except (OSError, ValueError):
        ours, record = False, {}
    if not ours:
        raise InputError(
            f"{folder} holds no fit; give the folder that rootflow fit wrote, with fit.json in it."
        )
    if "files" not in record or DATA not in record["files"]:
        raise InputError(
            f"{folder}: the fit is of a version of rootflow that kept too little beside it. "
            "Fit again."
        )
    if MODEL not in record["files"] and not given:
        raise InputError(
            f"{folder}: the fit is of a model from Python functions, of which the folder holds no "
            "copy: give it again, rf.load_fit(folder, model=...). Or keep such results by "
            "pickle.dump(result, file)."
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
