"""Data columns that say more than a number: censored cells, cells of a row's own, conditions."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from ..errors import InputError
from ..tables.cells import MISSING, label_of
from ..tables.names import did_you_mean
from ..tables.table import Table
from .model import Model

_BLANK = frozenset(code.casefold() for code in MISSING)


def measurements(
    model: Model, table: Table, column: str
) -> tuple[Float[np.ndarray, " rows"], Int[np.ndarray, " rows"]]:
    """The measurements of a column, and on which side of the number a censored one lies.

    Returns:
        The numbers (limits for censored cells, NaN where there is none), and -1 where the value
        lies below, +1 above, 0 where the number is the value.

    Raises:
        InputError: a cell that is no number, or none that the noise can produce.
    """
    noise = model.noise[column]
    side = np.zeros(len(table), int)
    needed = "observed by the model"
    if noise.censored:
        cells = list(table.cells(column, needed_as=needed))
        for row, cell in enumerate(cells):
            text = cell.strip() if isinstance(cell, str) else ""
            if text[:1] in ("<", ">"):
                side[row] = -1 if text[0] == "<" else 1
                cells[row] = text[1:].lstrip("=").strip()
        table = replace(table, columns={**table.columns, column: cells})
    values = table.numbers(column, needed_as=needed)
    for row in np.flatnonzero((side != 0) & np.isnan(values)):
        raise InputError(f"{table.place(row, column)}: a limit has no number; write one, as <0.05.")
    plain = (side == 0) & ~np.isnan(values)
    if noise.below is not None:
        low = plain & (values <= noise.below)
        values, side = np.where(low, noise.below, values), np.where(low, -1, side)
    if noise.above is not None:
        high = plain & (values >= noise.above)
        values, side = np.where(high, noise.above, values), np.where(high, 1, side)
    if np.isnan(values).all():
        raise InputError(
            f"{table.source}: column {column!r} has no measurements; "
            "fill it in, or remove it from what the model observes."
        )
    if noise.logarithmic:
        for row in np.flatnonzero(values <= 0):
            raise InputError(
                f"{table.place(row, column)}: {values[row]:g} cannot occur under {noise.kind} "
                "noise, which needs positive data; leave the cell blank, "
                "or choose normal or proportional noise."
            )
    return values, side


def row_cells(
    model: Model, table: Table, column: str
) -> tuple[Float[np.ndarray, " rows"], Int[np.ndarray, " rows"]]:
    """A column whose cells are numbers or names of parameters.

    Returns:
        The numbers (NaN where there is none), and the index of the parameter, -1 for a number.

    Raises:
        InputError: no such column, or a cell that is neither.
    """
    names = list(model.parameters)
    cells = list(table.cells(column, needed_as="values of each row"))
    which = np.full(len(cells), -1)
    for row, cell in enumerate(cells):
        text = cell.strip() if isinstance(cell, str) else ""
        if text in model.parameters:
            which[row], cells[row] = names.index(text), None
        elif text.isidentifier() and text.casefold() not in _BLANK:
            raise InputError(
                f"{table.place(row, column)}: {text!r} is neither a number nor a parameter "
                f"({', '.join(names)}).{did_you_mean(text, names)}"
            )
    return replace(table, columns={**table.columns, column: cells}).numbers(column), which


def conditions(
    model: Model, table: Table, groups: Sequence[str], members: Sequence[np.ndarray]
) -> tuple[Int[np.ndarray, " groups"], Int[np.ndarray, " groups"]]:
    """The condition of each group, and that of its pre-equilibration; -1: none.

    Raises:
        InputError: a label that is no condition, or one that changes within a group.
    """
    none = np.full(len(groups), -1)
    if not model.conditions:
        return none, none
    labels = list(model.conditions)

    def found(column: str, blank: bool) -> np.ndarray:
        cells = table.cells(column, needed_as="the conditions")
        out = []
        for group, rows in zip(groups, members, strict=True):
            told = {label_of(cells[row]): int(row) for row in sorted(rows, reverse=True)}
            if len(told) > 1:
                raise InputError(
                    f"{table.place(max(told.values()), column)}: the condition of group {group!r} "
                    f"is {' and '.join(map(repr, told))}; it must not change within a group."
                )
            ((label, row),) = told.items()
            if not label and blank:
                out.append(-1)
                continue
            if label not in model.conditions:
                raise InputError(
                    f"{table.place(row, column)}: {label!r} is no condition of the model "
                    f"({', '.join(labels)}).{did_you_mean(label, labels)} Add it, without values "
                    "if nothing is different under it."
                )
            out.append(labels.index(label))
        return np.array(out)

    column = model.condition or model.group
    assert column is not None
    before = model.preequilibration
    return found(column, False), none if before is None else found(before, True)
