"""The measurement table of PEtab as a table with one column for each observable."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...tables.names import did_you_mean
from .formulas import written
from .tables import Row, cells_of, number_or_none

if TYPE_CHECKING:
    from .load import Problem


@dataclass
class Table:
    """The data, and what the model file has to say of them.

    Attributes:
        columns: cells by column.
        head: keys of `[model]`.
        observed: observables that are measured.
        placeholders: by observable, what its formulas have for each placeholder.
        names: parameters that cells name.
        conditions: those that occur.
        first_conditions: those under which a simulation begins.
        pairs: (condition of the rest before it, or empty; condition) of each simulation.
    """

    columns: dict[str, list[Any]] = field(default_factory=dict)
    head: dict[str, Any] = field(default_factory=dict)
    observed: list[str] = field(default_factory=list)
    placeholders: dict[str, dict[str, str]] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    conditions: list[str] = field(default_factory=list)
    first_conditions: list[str] = field(default_factory=list)
    pairs: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class _Measurement:
    row: Row
    observable: str
    before: str
    condition: str
    time: float
    value: float
    overrides: dict[str, str]


def arranged(problem: "Problem") -> Table:
    """The measurements, as many side by side in a row as there are at a time.

    Raises:
        InputError: an observable or a condition that there is not, a cell that is no number, too
            few or too many values for the placeholders of an observable.
    """
    if not problem.measured:
        path = problem.path
        raise Row(path, 1, {}).error(None, "there are no measurements.")
    found = [_measurement(problem, row) for row in problem.measured]
    table = Table()
    table.observed = [x for x in problem.observables if any(m.observable == x for m in found)]
    rows = _placeholders(problem, table, found)
    pairs = list(dict.fromkeys((m.before, m.condition) for m in found))
    table.pairs = pairs
    table.conditions = list(dict.fromkeys(x for pair in pairs for x in (pair[1], pair[0]) if x))
    table.first_conditions = list(dict.fromkeys(before or label for before, label in pairs))
    rested = any(before for before, _ in pairs)
    plain = not rested and not _sets_anything(problem, table)
    several = len(pairs) > 1
    if rested:
        table.head |= {"condition": "condition", "preequilibration": "preequilibration"}
    if several or rested or not plain:
        table.head["group"] = "experiment" if rested else "condition"
    if rows:
        table.head["rows"] = rows
    names = [*(["experiment", "condition", "preequilibration"] if rested else ["condition"])]
    table.columns = {x: [] for x in (*names, "time", *table.observed, *rows)}
    for before, label in pairs:
        own = [m for m in found if (m.before, m.condition) == (before, label)]
        cells = {"condition": label}
        if rested:
            cells |= {"experiment": f"{before}+{label}" if before else label}
            cells |= {"preequilibration": before}
        _fill(table, sorted(own, key=lambda m: m.time), cells, rows)
    return table


def _sets_anything(problem: "Problem", table: Table) -> bool:
    rows = [problem.conditions[label] for label in table.conditions]
    return any(
        row.get(column) for row in rows for column in row.cells
        if column not in ("conditionId", "conditionName", "")
    )  # fmt: skip


def _fill(table: Table, own: list[_Measurement], cells: dict[str, str], rows: list[str]):
    """Puts each measurement into the first row of its time that has a place for it."""
    lines: list[tuple[float, dict[str, Any]]] = []
    for m in own:
        values: dict[str, Any] = {m.observable: m.value}
        for name in rows:
            if name in m.overrides:
                values[name] = m.overrides[name]
        for time, line in reversed(lines):
            if time != m.time:
                continue
            if m.observable not in line:
                line.update(values)
                break
        else:
            lines.append((m.time, values))
    for time, line in lines:
        for column, listed in table.columns.items():
            blank = "" if column in rows else None
            listed.append(time if column == "time" else line.get(column, cells.get(column, blank)))


def _measurement(problem: "Problem", row: Row) -> _Measurement:
    observable = row.text("observableId")
    _check(row, "observableId", observable, problem.observables, "observable")
    condition = row.text("simulationConditionId")
    _check(row, "simulationConditionId", condition, problem.conditions, "condition")
    before = row.get("preequilibrationConditionId")
    if before:
        _check(row, "preequilibrationConditionId", before, problem.conditions, "condition")
    if (number_or_none(row.get("time")) or 0.0) == float("inf"):
        raise row.error(
            "time",
            "measurements of the steady state (time inf) are not supported; use a late time.",
        )
    time = row.number("time")
    if time < 0:
        raise row.error("time", f"{time:g} lies before the start, which is 0.")
    overrides = {}
    for column, kind in (("observableParameters", "observable"), ("noiseParameters", "noise")):
        for i, text in enumerate(cells_of(row.get(column)), start=1):
            number = number_or_none(text)
            name = f"{kind}Parameter{i}_{observable}"
            overrides[name] = problem.name(text, row, column) if number is None else written(number)
    return _Measurement(
        row, observable, before, condition, time, row.number("measurement"), overrides
    )


def _check(row: Row, column: str, name: str, known: dict[str, Any], what: str):
    if name not in known:
        raise row.error(column, f"{name!r} is not in the {what} table.{did_you_mean(name, known)}")


def _placeholders(problem: "Problem", table: Table, found: list[_Measurement]) -> list[str]:
    """What stands for each placeholder: its one value, or a column of the table.

    Returns:
        The columns.
    """
    from .load import placeholders

    rows: list[str] = []
    for observable in table.observed:
        own = [m for m in found if m.observable == observable]
        wanted = placeholders(problem.observables[observable])
        for m in own:
            for names, column, kind in zip(
                wanted, ("observableParameters", "noiseParameters"), ("observable", "noise"),
                strict=True,
            ):  # fmt: skip
                given = {x for x in m.overrides if x.startswith(f"{kind}Parameter")}
                if names - given:
                    raise m.row.error(
                        column,
                        f"{len(given)} values, but the formulas of {observable!r} need "
                        f"{', '.join(sorted(names))}.",
                    )
                if given - names:
                    raise m.row.error(
                        column,
                        f"{len(given)} values, but the formulas of {observable!r} have "
                        f"{', '.join(sorted(names)) or 'no such placeholder'}.",
                    )
        table.placeholders[observable] = {}
        for name in sorted(wanted[0] | wanted[1]):
            values = {m.overrides[name] for m in own}
            if len(values) == 1:
                table.placeholders[observable][name] = values.pop()
            else:
                rows.append(name)
                table.placeholders[observable][name] = name
                table.names |= {x for x in values if number_or_none(x) is None}
    return rows
