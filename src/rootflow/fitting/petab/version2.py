"""The tables of PEtab version 2, as those that version 1 would have for the same problem.

What has its like there is rewritten: periods of experiments as conditions, before and after coming
to rest; rows of changes as rows of conditions; named placeholders by their numbers. Each cell knows
where it came from, so that messages name the table, line and column of the problem.
"""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import InputError
from ...tables.names import did_you_mean
from .formulas import names_in, parse
from .sbml import Network
from .tables import Row, by_id, cells_of, number_or_none, read_tables

#: Tables by the key of the problem file; the first three have to be there.
_TABLES = {
    "parameter_files": "parameter", "observable_files": "observable",
    "measurement_files": "measurement", "condition_files": "condition",
    "experiment_files": "experiment",
}  # fmt: skip
_PRIORS = {
    "uniform": "uniform", "normal": "normal", "laplace": "laplace", "log-normal": "logNormal",
    "log-laplace": "logLaplace",
}  # fmt: skip
_OTHER_PRIORS = ("cauchy", "chisquare", "exponential", "gamma", "log-uniform", "rayleigh")
_NOISE = {
    "normal": ("lin", "normal"), "laplace": ("lin", "laplace"),
    "log-normal": ("log", "normal"), "log-laplace": ("log", "laplace"),
}  # fmt: skip
#: The condition of a model that nothing changes.
_UNCHANGED = "(unchanged)"


@dataclass(frozen=True)
class _Cells(Row):
    """Cells by the columns of version 1, which stand elsewhere."""

    places: dict[str, tuple[Row, str]] = field(default_factory=dict)

    def place(self, column: str | None = None) -> str:
        row, name = self.places.get(column or "", (None, None))
        return Row.place(self, column) if row is None else row.place(name)


class Tables(NamedTuple):
    """The tables as version 1 has them."""

    parameters: dict[str, Row]
    conditions: dict[str, Row]
    observables: dict[str, Row]
    measured: list[Row]


def model_path(path: Path, content: dict[str, Any]) -> Path:
    """The SBML model of a problem.

    Raises:
        InputError: not one SBML model; extensions or tables that are not supported.
    """
    models = content.get("model_files")
    if not isinstance(models, dict) or len(models) != 1:
        count = len(models) if isinstance(models, dict) else 0
        raise InputError(
            f"{path}: model_files has {count} models; problems with one are supported."
        )
    ((name, model),) = models.items()
    location = model.get("location") if isinstance(model, dict) else None
    if not isinstance(location, str):
        raise InputError(f"{path}: model_files.{name} must have a location and a language.")
    language = model.get("language")
    if str(language).casefold() != "sbml":
        raise InputError(
            f"{path}: the language of the model {name!r} is {language!r}; SBML is supported."
        )
    extensions = content.get("extensions") or {}
    for extension, told in extensions.items() if isinstance(extensions, dict) else ():
        if not isinstance(told, dict) or told.get("required", True):
            raise InputError(f"{path}: the extension {extension!r} of PEtab is not supported.")
    if content.get("mapping_files"):
        raise InputError(
            f"{path}: mapping_files are not supported; name the entities of the SBML model by "
            "their own identifiers."
        )
    return path.parent / location


def tables(path: Path, content: dict[str, Any], network: Network) -> Tables:
    """The tables of a problem.

    Args:
        path: the YAML file.
        content: of it.
        network: the SBML model.

    Raises:
        InputError: what version 1 has no like of, or what contradicts itself.
    """
    rows = {what: _rows(path, content, key, what) for key, what in _TABLES.items()}
    observables = by_id(rows["observable"], "observableId")
    experiments = _Experiments(rows["condition"], rows["experiment"], network)
    placeholders = {name: _placeholders(row) for name, row in observables.items()}
    measured = [_measurement(row, placeholders, experiments) for row in rows["measurement"]]
    return Tables(
        {name: _parameter(row) for name, row in by_id(rows["parameter"], "parameterId").items()},
        experiments.made,
        {name: _observable(row, placeholders[name]) for name, row in observables.items()},
        measured,
    )


def _rows(path: Path, content: dict[str, Any], key: str, what: str) -> list[Row]:
    listed = content.get(key)
    if not listed and what in ("condition", "experiment"):
        return []
    if not isinstance(listed, list) or not all(isinstance(x, str) for x in listed) or not listed:
        raise InputError(f"{path}: {key} must list files.")
    return read_tables([path.parent / name for name in listed], what)


def _made(row: Row, cells: dict[str, str], **columns: str) -> _Cells:
    """A row with other cells; `columns`: where cells under new names stand."""
    places = {new: (row, old) for new, old in columns.items()}
    return _Cells(row.path, row.line, cells, places)


def _parameter(row: Row) -> Row:
    estimate = row.text("estimate").casefold()
    if estimate not in ("true", "false"):
        raise row.error("estimate", f"{row.text('estimate')!r} is neither true nor false.")
    cells = {**row.cells, "parameterScale": "lin", "estimate": "01"[estimate == "true"]}
    kind = row.get("priorDistribution")
    if kind:
        if kind in _OTHER_PRIORS:
            raise row.error(
                "priorDistribution",
                f"a {kind} prior is not supported; those that are: {', '.join(_PRIORS)}.",
            )
        row.choice("priorDistribution", _PRIORS, "uniform")
        cells |= {
            "objectivePriorType": _PRIORS[kind],
            "objectivePriorParameters": row.get("priorParameters"),
        }
    return _made(
        row, cells, objectivePriorType="priorDistribution",
        objectivePriorParameters="priorParameters",
    )  # fmt: skip


def _placeholders(row: Row) -> dict[str, tuple[str, ...]]:
    """The placeholders of an observable by the column that names them.

    Raises:
        InputError: one that the formula does not have, or that stands there twice.
    """
    found = {}
    for column, formula in (
        ("observablePlaceholders", "observableFormula"), ("noisePlaceholders", "noiseFormula"),
    ):  # fmt: skip
        names = tuple(cells_of(row.get(column)))
        used = names_in(parse(row.text(formula), row.place(formula)))
        for name in names:
            if name not in used or names.count(name) > 1:
                why = "stands there twice" if name in used else f"is not in the {formula}"
                raise row.error(column, f"the placeholder {name!r} {why}.")
        found[column] = names
    return found


def _observable(row: Row, placeholders: dict[str, tuple[str, ...]]) -> Row:
    """With numbered placeholders."""
    kind = row.choice("noiseDistribution", _NOISE, "normal")
    transformed, spread = _NOISE[kind]
    own = {}
    for column, short in (("observablePlaceholders", "observable"), ("noisePlaceholders", "noise")):
        for i, name in enumerate(placeholders[column], start=1):
            own[name] = f"{short}Parameter{i}_{row.text('observableId')}"
    cells = {**row.cells, "observableTransformation": transformed, "noiseDistribution": spread}
    for column in ("observableFormula", "noiseFormula"):
        cells[column] = re.sub(r"[^\W\d]\w*", lambda m: own.get(m[0], m[0]), row.text(column))
    return _made(row, cells, observableTransformation="noiseDistribution")


def _measurement(
    row: Row, placeholders: dict[str, dict[str, tuple[str, ...]]], experiments: "_Experiments"
) -> Row:
    """With the conditions of its experiment."""
    known = placeholders.get(row.text("observableId"))
    for kind in ("observable", "noise"):
        column, name = f"{kind}Parameters", f"{kind}Placeholders"
        given = cells_of(row.get(column))
        if known is not None and len(given) != len(known[name]):
            wanted = ", ".join(known[name]) or "none"
            raise row.error(
                column, f"{len(given)} values, but the placeholders of "
                f"{row.text('observableId')!r} are: {wanted}.",
            )  # fmt: skip
    before, after = experiments.conditions(row)
    cells = {
        **row.cells, "simulationConditionId": after, "preequilibrationConditionId": before,
    }  # fmt: skip
    return _made(
        row, cells, simulationConditionId="experimentId", preequilibrationConditionId="experimentId"
    )


class _Experiments:
    """Experiments as pairs of conditions: one that leads to rest, and one from time 0 on."""

    def __init__(self, changes: list[Row], periods: list[Row], network: Network) -> None:
        self.moves = network.states
        #: What the model computes from others once, at the start.
        self.computed = {name: network.read(name) for name in network.computed}
        #: The conditions that are used, as rows of version 1.
        self.made: dict[str, Row] = {}
        self.changes: dict[str, list[Row]] = {}
        for row in changes:
            self.changes.setdefault(row.text("conditionId"), []).append(row)
        self.periods: dict[str, dict[float, list[Row]]] = {}
        for row in periods:
            time = number_or_none(row.text("time"))
            if time is None or math.isnan(time) or time == math.inf:
                raise row.error("time", f"{row.text('time')!r} is no time, nor -inf.")
            own = self.periods.setdefault(row.text("experimentId"), {})
            own.setdefault(time, []).append(row)
        for name in self.periods:
            self._check(name)

    def _check(self, name: str) -> None:
        times = sorted(self.periods[name])
        finite = [time for time in times if math.isfinite(time)]
        first = self.periods[name][times[0]][0]
        if not finite:
            raise first.error("time", f"the experiment {name!r} has no period that is measured.")
        if finite[0] != 0:
            row = self.periods[name][finite[0]][0]
            raise row.error(
                "time",
                f"the experiment {name!r} begins at {finite[0]:g}; a start at 0 is supported: "
                "count its times from there.",
            )
        if len(finite) > 1:
            row = self.periods[name][finite[1]][0]
            raise row.error(
                "time",
                f"a second period (from {finite[1]:g} on) is not supported; write what changes "
                "then as an event of the SBML model.",
            )

    def conditions(self, row: Row) -> tuple[str, str]:
        """The conditions of a measurement: before (empty: none), and during the experiment."""
        name = row.get("experimentId")
        if not name:
            return "", self._condition(_UNCHANGED, {}, row)
        if name not in self.periods:
            close = did_you_mean(name, self.periods)
            raise row.error("experimentId", f"{name!r} is not in the experiment table.{close}")
        own = self.periods[name]
        before, carried = "", {}
        if -math.inf in own:
            before, carried = self._period(own[-math.inf])
            self._condition(before, carried, own[-math.inf][0])
            # What moves goes on from where it came to rest; what was set stays set.
            carried = {x: place for x, place in carried.items() if x not in self.moves}
        label, changed = self._period(own[0.0])
        if before:
            self._check_computed(changed)
        label = f"{label} after {before}" if carried else label
        return before, self._condition(label, {**carried, **changed}, own[0.0][0])

    def _check_computed(self, changed: dict[str, Row]) -> None:
        """What was computed at the start keeps its value, and conditions compute it again."""
        for target, change in changed.items():
            for name, used in self.computed.items():
                if target in used:
                    raise change.error(
                        "targetId",
                        f"{target!r} changes after the model came to rest, and the initial "
                        f"assignment of {name!r} has it: that is not supported; write a rule.",
                    )

    def _period(self, rows: list[Row]) -> tuple[str, dict[str, Row]]:
        """The name of a period's conditions together, and the changes by what is changed."""
        labels, found = [], {}
        for row in rows:
            label = row.get("conditionId")
            if not label:
                continue
            if label not in self.changes:
                close = did_you_mean(label, self.changes)
                raise row.error("conditionId", f"{label!r} is not in the condition table.{close}")
            labels.append(label)
            for change in self.changes[label]:
                target = change.text("targetId")
                if target in found:
                    raise change.error("targetId", f"{target!r} is changed twice in one period.")
                found[target] = change
        return "+".join(labels) or _UNCHANGED, found

    def _condition(self, label: str, changed: dict[str, Row], row: Row) -> str:
        """Adds a condition to the table."""
        cells = {target: change.text("targetValue") for target, change in changed.items()}
        places = {target: (change, "targetValue") for target, change in changed.items()}
        cells = {"conditionId": label, **cells}
        self.made.setdefault(label, _Cells(row.path, row.line, cells, places))
        return label
