"""Data tables become batched arrays.

`assemble` turns a table into a `Dataset`: one row of padded arrays per group, ready for a batched
solve.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from ..errors import InputError
from ..tables.table import Table as Table
from ..tables.table import load_table as load_table
from ..tables.table import table_from_columns as table_from_columns
from . import columns
from .dose_table import Doses, doses, without_events
from .model import Model


@dataclass(frozen=True, eq=False)
class Dataset:
    """A table as a model sees it: one row of arrays per group, padded to the longest.

    Within a group, slots are in order of time. Measurements repeated at one time (replicates)
    are slots of their own with equal times, in the order of the table, and so are rows without a
    measurement, which ask for a prediction only. Padding repeats the last time and holds NaN.

    Attributes:
        groups: labels in order of appearance; `[""]` without a group column.
        ts: times.
        values: measurements by observed column; NaN where there is none.
        weights: weights by observed column; 1 without a weights column.
        covariates: covariates by name.
        t0: time of the initial values.
        rows: row of the table behind each slot, -1 for padding.
        real: which slots are not padding.
        table: where it came from.
        sides: by observed column, -1 where the value lies below what is measured, +1 above, else 0.
        cells: by row column, numbers, and the index of a parameter (-1: the number counts).
        condition, before: index of the condition of each group, and of that under which it comes to
            rest first; -1: none.
        doses: from the table; `None`: the model has none there.
    """

    groups: list[str]
    ts: Float[np.ndarray, "groups slots"]
    values: dict[str, Float[np.ndarray, "groups slots"]]
    weights: dict[str, Float[np.ndarray, "groups slots"]]
    covariates: dict[str, Float[np.ndarray, " groups"]]
    t0: Float[np.ndarray, " groups"]
    rows: Int[np.ndarray, "groups slots"]
    real: Bool[np.ndarray, "groups slots"]
    table: Table
    sides: dict[str, Int[np.ndarray, "groups slots"]] = field(default_factory=dict)
    cells: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    condition: Int[np.ndarray, " groups"] | None = None
    before: Int[np.ndarray, " groups"] | None = None
    doses: Doses | None = None

    @property
    def observations(self) -> int:
        """How many measurements there are."""
        return int(sum(np.isfinite(values).sum() for values in self.values.values()))

    def side(self, column: str) -> Int[np.ndarray, "groups slots"]:
        """On which side of its number each value of a column lies, as `sides` says it."""
        return self.sides.get(column, np.zeros(self.ts.shape, int))

    def line(self, group: int, slot: int) -> int:
        """Line of the file (or row of the columns) behind a slot."""
        return self.table.lines[self.rows[group, slot]]


def assemble(model: Model, table: Table | Mapping[str, Any], *, asked: bool = False) -> Dataset:
    """Picks the columns that a model needs out of a table, checks them, and batches them.

    Args:
        model: says which columns are the time, the group, observed, covariates and weights.
        table: a `Table`, or columns as `table_from_columns` takes them.
        asked: whether a number stands in every row at which a prediction is asked for.

    Raises:
        InputError: a missing column, a cell that is no number, a missing or too early time, a
            covariate that changes within a group, data that the noise cannot produce, weights that
            are not positive, a column or a group without measurements, a dose before the start, a
            label that is no condition, doses of the table that make no sense.
    """
    if not isinstance(table, Table):
        table = table_from_columns(table)
    time = table.numbers(model.time, needed_as="the time")
    for row in np.flatnonzero(np.isnan(time)):
        raise InputError(
            f"{table.place(row, model.time)}: the time is missing; fill it in or remove the row."
        )
    if not asked:
        table = without_events(model, table)
    found = {column: columns.measurements(model, table, column) for column in model.observed}
    values = {column: numbers for column, (numbers, _) in found.items()}
    weights = {column: _weights(model, table, column, values[column]) for column in values}
    groups, members = _groups(model, table, time)
    covariates = {name: _constant(table, name, groups, members, model) for name in model.covariates}
    _check_coverage(model, table, values, groups, members)
    t0 = np.array([time[rows[0]] if model.t0 is None else model.t0 for rows in members], float)
    _check_start(model, table, time, groups, members, t0)
    cells = {name: columns.row_cells(model, table, name) for name in model.rows}
    condition, before = columns.conditions(model, table, groups, members)
    measured = np.any([np.isfinite(column) for column in values.values()], axis=0)
    given = doses(model, table, time, groups, members, measured)

    slots = max(len(rows) for rows in members)
    index = np.full((len(groups), slots), -1)
    for place, rows in zip(index, members, strict=True):
        place[: len(rows)] = rows
    real = index >= 0
    # Padding repeats the last row of its group, then loses its measurements.
    last = np.array([rows[-1] for rows in members])
    source = np.where(real, index, last[:, None])
    return Dataset(
        groups=groups,
        ts=time[source],
        values={name: np.where(real, column[source], np.nan) for name, column in values.items()},
        weights={name: np.where(real, column[source], 1.0) for name, column in weights.items()},
        covariates=covariates,
        t0=t0,
        rows=index,
        real=real,
        table=table,
        sides={name: side[source] for name, (_, side) in found.items()},
        cells={name: (numbers[source], which[source]) for name, (numbers, which) in cells.items()},
        condition=condition,
        before=before,
        doses=given,
    )


def _weights(model: Model, table: Table, column: str, values: np.ndarray) -> np.ndarray:
    name = model.noise[column].weights
    if name is None:
        return np.ones(len(table))
    weights = table.numbers(name, needed_as=f"the weights of {column!r}")
    measured = ~np.isnan(values)
    for row in np.flatnonzero(measured & ~(weights > 0)):
        shown = "missing" if np.isnan(weights[row]) else f"{weights[row]:g}"
        raise InputError(
            f"{table.place(row, name)}: the weight is {shown}; a weight must be positive. "
            f"Leave the cell of {column!r} blank to take the measurement out."
        )
    return np.where(measured, weights, 1.0)


def _groups(model: Model, table: Table, time: np.ndarray) -> tuple[list[str], list[np.ndarray]]:
    """Labels in order of appearance, and the rows of each in order of time (stable)."""
    if model.group is None:
        return [""], [np.argsort(time, kind="stable")]
    rows: dict[str, list[int]] = {}
    for row, label in enumerate(table.labels(model.group, needed_as="the group")):
        rows.setdefault(label, []).append(row)
    members = [
        np.array(of_group)[np.argsort(time[of_group], kind="stable")] for of_group in rows.values()
    ]
    return list(rows), members


def _constant(
    table: Table, name: str, groups: list[str], members: list[np.ndarray], model: Model
) -> Float[np.ndarray, " groups"]:
    column = table.numbers(name, needed_as="a covariate")
    constants = []
    for group, rows in zip(groups, members, strict=True):
        of_group = f" of group {group!r}" if model.group else ""
        given = np.sort(rows[~np.isnan(column[rows])])
        if not len(given):
            raise InputError(
                f"{table.source}: the covariate {name!r}{of_group} has no value; "
                "fill in at least one cell."
            )
        for row in given:
            if column[row] != column[given[0]]:
                way_out = "" if model.group else "; name the column that tells groups apart"
                raise InputError(
                    f"{table.place(row, name)}: the covariate is {column[row]:g}, but "
                    f"{column[given[0]]:g} before; it must not change within "
                    f"{f'group {group!r}' if model.group else 'the data'}{way_out}."
                )
        constants.append(column[given[0]])
    return np.array(constants)


def _check_coverage(
    model: Model,
    table: Table,
    values: dict[str, np.ndarray],
    groups: list[str],
    members: list[np.ndarray],
):
    own = [name for name, p in model.fitted.items() if p.per_group and not p.fixed]
    for group, rows in zip(groups, members, strict=True):
        if own and all(np.isnan(column[rows]).all() for column in values.values()):
            raise InputError(
                f"{table.place(min(rows), model.group)}: group {group!r} has no measurements, but "
                f"its own value of {', '.join(own)} is to be fitted; remove the group."
            )


def _check_start(
    model: Model,
    table: Table,
    time: np.ndarray,
    groups: list[str],
    members: list[np.ndarray],
    t0: np.ndarray,
):
    for group, rows, start in zip(groups, members, t0, strict=True):
        if time[rows[0]] < start:
            raise InputError(
                f"{table.place(rows[0], model.time)}: the time {time[rows[0]]:g} lies before the "
                f"start t0 = {start:g} of the model; give an earlier t0 or remove the row."
            )
        for dose in model.doses:
            if not callable(dose.time) and dose.time < start:
                of_group = f" of group {group!r}" if model.group else ""
                raise InputError(
                    f"{table.source}: the dose into {dose.state!r} at time {dose.time:g} lies "
                    f"before the start {start:g}{of_group}; set t0 = {dose.time:g} in the model."
                )
