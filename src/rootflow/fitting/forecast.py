"""A fitted model under other conditions: other rows of a table, other times, other doses."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import InputError
from ..tables.table import Table, load_table, table_from_columns
from . import columns, problem
from .dose_table import without_events
from .model import Dose, Model
from .predict import Predictor
from .problem import Layout
from .table import Dataset, assemble

#: So many times can be asked for at once.
_MOST_TIMES = 100_000
#: What stands where nothing need be measured; a number that stands for no missing one.
_FILLER = 0.7310585786300049


def rows(model: Model, data: Any) -> Dataset:
    """A table that asks for predictions, as a model needs it; what it has measured is kept.

    Observed columns and weights may be missing, or blank. Groups, covariates, conditions and doses
    are read as in a fit.

    Raises:
        InputError: as `assemble`.
    """
    if isinstance(data, Dataset):
        return data
    table = data
    if isinstance(data, str | os.PathLike):
        table = load_table(data)
    elif not isinstance(data, Table):
        table = table_from_columns(data)
    table = without_events(model, table)
    # Every cell stands as measured, so that rows of every kind are taken; then as it is.
    ones: list[Any] = [_FILLER] * len(table)
    laws = {column: replace(law, weights=None) for column, law in model.noise.items()}
    asked = replace(model, noise=laws)
    filled = replace(table, columns={**table.columns, **dict.fromkeys(model.observed, ones)})
    dataset = assemble(asked, filled, asked=True)
    values, sides = {}, {}
    for column in model.observed:
        numbers, side = np.full(len(table), np.nan), np.zeros(len(table), int)
        if column in table.columns and not _blank(table, column):
            numbers, side = columns.measurements(model, table, column)
        values[column] = np.where(dataset.real, numbers[dataset.rows], np.nan)
        sides[column] = side[dataset.rows]
    weights = {column: np.ones_like(x) for column, x in values.items()}
    return replace(dataset, values=values, sides=sides, weights=weights, table=table)


def _blank(table: Table, column: str) -> bool:
    cells = table.cells(column)
    if any(isinstance(cell, str) and cell.strip()[:1] in ("<", ">") for cell in cells):
        return False
    return bool(np.isnan(table.numbers(column)).all())


def moved(
    predictor: Predictor, groups: Sequence[str], data: Any, doses: Any
) -> tuple[Predictor, Dataset | None]:
    """A predictor for other rows or doses, and the rows (`None`: those of the fit).

    Args:
        predictor: of the fit.
        groups: labels of its groups.
        data: a table, or `None`.
        doses: of the model, in place of its own; or `None`.

    Raises:
        InputError: a table that cannot be used; a group that the fit did not have, where
            parameters belong to groups; doses before the start.
    """
    model, dataset = asked(predictor.model, predictor.data, groups, data, doses)
    lay, at = predictor.lay, predictor.data
    if dataset is not None:
        lay = relaid(model, lay, groups, dataset)
        at = problem.group_data(model, dataset)
    solvers = started(model, predictor.solvers, np.asarray(at.t0))
    return replace(predictor, model=model, lay=lay, data=at, solvers=solvers, at_data=None), dataset


def asked(
    model: Model, at: problem.GroupData, groups: Sequence[str], data: Any, doses: Any
) -> tuple[Model, Dataset | None]:
    """The model with other doses, and other rows (`None`: those of the fit).

    Args:
        model: of the fit.
        at: its data.
        groups: labels of its groups.
        data: as `moved` has it.
        doses: the same.

    Raises:
        InputError: a table or doses that cannot be used.
    """
    if doses is not None:
        if model.dosing is not None:
            raise InputError(
                "The doses of this model stand in the table: give them by data=, not doses=."
            )
        model = replace(model, doses=_doses_of(doses))
    if data is None:
        return model, None
    return model, data if isinstance(data, Dataset) else _begun(model, data, groups, at)


def started(
    model: Model, solvers: tuple[problem.Solver, ...], t0: Float[np.ndarray, " groups"]
) -> tuple[problem.Solver, ...]:
    """The solvers for groups that start at these times.

    Raises:
        InputError: a dose before the start.
    """
    for dose in model.doses:
        if not callable(dose.time) and dose.time < t0.max():
            raise InputError(
                f"the dose into {dose.state!r} at time {dose.time:g} lies before the start "
                f"{t0.max():g}; give it later, or set t0 in the model."
            )
    same = float(t0[0]) if np.all(t0 == t0[0]) else None
    return tuple(replace(solver, t0=same) for solver in solvers)


def _begun(model: Model, data: Any, groups: Sequence[str], at: problem.GroupData) -> Dataset:
    """The rows, each group from the time at which it started in the fit.

    A group that the fit did not have starts when all groups of the fit did, or, if those differ,
    at its first row.
    """
    if model.t0 is not None:
        return rows(model, data)
    starts = dict(zip(groups, np.asarray(at.t0).tolist(), strict=True))
    if len(set(starts.values())) == 1:
        return rows(replace(model, t0=next(iter(starts.values()))), data)
    dataset = rows(model, data)
    own = zip(dataset.groups, dataset.t0, strict=True)
    return replace(dataset, t0=np.array([starts.get(label, t0) for label, t0 in own]))


def relaid(model: Model, lay: Layout, groups: Sequence[str], dataset: Dataset) -> Layout:
    """The same vector u, seen from other groups: per-group parameters go by their labels.

    Raises:
        InputError: a group that has no parameters of its own.
    """
    own = [name for name in lay.local if model.fitted[name].per_group]
    where = []
    for label in dataset.groups:
        if own and label not in groups:
            raise InputError(
                f"{dataset.table.source}: group {label!r} was not in the fit, which gave each "
                f"group its own {', '.join(own)}; there are {_listed(groups)}. Only these can be "
                "predicted."
            )
        where.append(list(groups).index(label) if own else 0)
    return replace(lay, index=lay.index[where])


def _listed(groups: Sequence[str]) -> str:
    shown = ", ".join(map(repr, groups[:8]))
    return shown if len(groups) <= 8 else f"{shown} and {len(groups) - 8} more"


def asked_times(text: str, model: Model) -> Float[np.ndarray, " times"]:
    """Times as the command line has them: `START:STOP:COUNT`, numbers with commas, or a file.

    Args:
        text: see above; of a file the column of the time, or its only column.
        model: has the name of that column.

    Raises:
        InputError: neither of these, or no finite times.
    """
    parts = text.split(":")
    try:
        if len(parts) == 3:
            first, last, count = float(parts[0]), float(parts[1]), int(parts[2])
            fine = np.isfinite([first, last]).all() and first < last
            if fine and 2 <= count <= _MOST_TIMES:
                return np.linspace(first, last, count)
        elif len(parts) == 1:
            found = np.array([float(part) for part in text.split(",")])
            if np.isfinite(found).all():
                return np.unique(found)
    except ValueError:
        if len(parts) == 1 and (Path(text).exists() or Path(text).suffix):
            return _times_of(load_table(text), model)
    raise InputError(
        f"the times are {text!r}; give START:STOP:COUNT with START below STOP and COUNT from 2 to "
        f"{_MOST_TIMES}, as 0:48:100, or numbers with commas between, or a file with a column "
        f"{model.time!r}."
    )


def _times_of(table: Table, model: Model) -> Float[np.ndarray, " times"]:
    only = len(table.columns) == 1
    found = table.numbers(next(iter(table.columns)) if only else model.time, needed_as="the times")
    return np.unique(found[np.isfinite(found)])


def _doses_of(doses: Any) -> tuple[Dose, ...]:
    listed = (doses,) if isinstance(doses, Dose) or not isinstance(doses, Iterable) else doses
    listed = tuple(listed)
    for dose in listed:
        if not isinstance(dose, Dose):
            raise InputError(
                f"doses holds {dose!r:.80}; give a list of rf.Dose(time, state, amount)."
            )
    return listed
