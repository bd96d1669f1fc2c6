"""Data tables: CSV files or dictionaries of columns.

A table keeps its cells as text until somebody says which columns are needed, so that notes and
other columns never get in the way.
"""

import csv
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from jaxtyping import Float

from ..errors import InputError
from .cells import MISSING, NUMBER, hint_for, is_blank, label_of
from .names import did_you_mean
from .textfile import read_text

MAX_BYTES = 200_000_000

_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}
# The first line that a spreadsheet writes to tell another one the separator.
_SEPARATOR = re.compile(r"""\ufeff?"?sep=(.)"?,*;*\s*""", re.IGNORECASE)
# A cell #N/A or #DIV/0! of a spreadsheet begins no comment.
_COMMENT = re.compile(r"\s*#(?!(N/A|NULL!|DIV/0!|VALUE!|REF!|NUM!|NAME\?))")


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of equal length, with the place each row came from.

    Attributes:
        columns: cells by column name: text (from a file) or numbers (from Python).
        lines: line in the file of each row, or the row's number from 0.
        source: file name, or `"data"`.
        from_file: whether `lines` are lines of a file.
        missing: what stands for no number besides `MISSING`; a number stands for every way in which
            it can be written.
        decimal: the decimal mark, `"."` or `","`.
    """

    columns: Mapping[str, Sequence[Any]]
    lines: tuple[int, ...]
    source: str = "data"
    from_file: bool = False
    missing: tuple[str, ...] = ()
    decimal: str = "."

    def __len__(self) -> int:
        return len(self.lines)

    def place(self, row: SupportsIndex, column: str | None = None) -> str:
        """How messages name a row: file, line and column."""
        word = "line" if self.from_file else "row"
        where = f"{self.source}, {word} {self.lines[row]}"
        return where if column is None else f"{where}, column {column!r}"

    def cells(self, column: str, *, needed_as: str = "") -> Sequence[Any]:
        """The cells of a column.

        Raises:
            InputError: there is no such column.
        """
        if column in self.columns:
            return self.columns[column]
        purpose = f" ({needed_as})" if needed_as else ""
        raise InputError(
            f"{self.source}: there is no column {column!r}{purpose}."
            f"{did_you_mean(column, self.columns)} Columns: {', '.join(map(repr, self.columns))}."
        )

    def numbers(self, column: str, *, needed_as: str = "") -> Float[np.ndarray, " rows"]:
        """A column as numbers; blank cells, `MISSING` and `missing` are NaN.

        Raises:
            InputError: no such column, or a cell that is not a finite number.
        """
        cells = self.cells(column, needed_as=needed_as)
        codes = frozenset(code.strip().casefold() for code in ("", *MISSING, *self.missing))
        numbers = np.array(
            [self._number(row, column, cell, codes) for row, cell in enumerate(cells)], float
        )
        for code in self.missing:
            if (value := self._read(code.strip())) is not None:
                numbers[numbers == value] = math.nan
        return numbers

    def labels(self, column: str, *, needed_as: str = "") -> list[str]:
        """A column as labels; whole numbers are written without a decimal point.

        Raises:
            InputError: no such column, or a blank cell.
        """
        labels = []
        for row, cell in enumerate(self.cells(column, needed_as=needed_as)):
            label = label_of(cell)
            if not label:
                raise InputError(
                    f"{self.place(row, column)}: the cell is blank; "
                    "every row needs the label of its group."
                )
            labels.append(label)
        return labels

    def _read(self, text: str) -> float | None:
        """The number that a text says, if it says one."""
        if self.decimal == ",":  # a point would then set thousands apart: 1.500 is not 1.5
            text = "" if "." in text else text.replace(",", ".", 1)
        return float(text) if NUMBER.fullmatch(text) else None

    def _number(self, row: int, column: str, cell: Any, codes: frozenset[str]) -> float:
        if isinstance(cell, str):
            text = cell.strip()
            if text.casefold() in codes:
                return math.nan
            value = self._read(text)
        elif is_blank(cell):
            return math.nan
        else:
            text = str(cell)
            try:
                value = None if isinstance(cell, (bool, np.bool_)) else float(cell)
            except (TypeError, ValueError):
                value = None
            if value is not None and math.isnan(value):
                return math.nan
        if value is not None and math.isfinite(value):
            return value
        shown = text if len(text) <= 40 else f"{text[:37]}..."
        hint = hint_for(text)
        if self.decimal == "," and NUMBER.fullmatch(text):
            hint = "it has a point, but the decimal mark of this file is said to be a comma"
        raise InputError(f"{self.place(row, column)}: {shown!r} is not a number; {hint}.")


def load_table(
    path: str | os.PathLike[str], *, missing: Sequence[str] = (), decimal: str = "."
) -> Table:
    """Reads a CSV file.

    The first line that is neither blank nor a `#` comment holds the column names. Cells are
    separated by commas, semicolons or tabs, whichever the header uses most, or by what a first line
    `sep=;`, as spreadsheets write it, says; they may be quoted.

    Args:
        path: a UTF-8 text file of at most `MAX_BYTES`.
        missing: what stands for a missing number, besides a blank cell and `MISSING`.
        decimal: the decimal mark, `"."` or `","`.

    Raises:
        InputError: no such file, not readable, no header, no data rows, a name twice, a row with
            too few or too many cells; the message names the line.
    """
    if decimal not in (".", ","):
        raise InputError(f"the decimal mark is {decimal!r}; it must be '.' or ','.")
    path = Path(path)
    text = read_text(path, what="data file", limit=MAX_BYTES)
    kept = [
        (number, line)
        for number, line in enumerate(_physical_lines(text), start=1)
        if line.strip() and not _COMMENT.match(line)
    ]
    told = _SEPARATOR.fullmatch(kept[0][1]) if kept else None
    kept = kept[1:] if told else kept
    if not kept:
        raise InputError(
            f"{path}: the file is empty; "
            "it needs a line of column names and at least one row of data."
        )
    delimiter = told.group(1) if told else _delimiter(kept[0][1])
    if delimiter not in _DELIMITERS:
        raise InputError(
            f"{path}: its first line says that {delimiter!r} separates the cells; save it with "
            "commas, semicolons or tabs."
        )
    rows = list(_records(path, kept, delimiter))
    header_line, header = rows[0]
    names = [name.strip() for name in header]
    _check_header(path, header_line, names)
    if len(rows) == 1:
        raise InputError(
            f"{path}: there are no data rows below the header ({', '.join(names)}); "
            "add at least one."
        )
    for line, cells in rows[1:]:
        if len(cells) != len(names):
            raise InputError(
                f"{path}, line {line}: {_counted(len(cells), 'cell')}, but the header has "
                f"{_counted(len(names), 'column')}; {_ragged_hint(cells, len(names), delimiter)}."
            )
    columns = {name: [cells[i] for _, cells in rows[1:]] for i, name in enumerate(names)}
    lines = tuple(line for line, _ in rows[1:])
    return Table(columns, lines, str(path), from_file=True, missing=tuple(missing), decimal=decimal)


def table_from_columns(columns: Any, *, source: str = "data") -> Table:
    """A table from arrays, lists or anything with `keys()` or `columns`, such as a data frame.

    Args:
        columns: column name to one-dimensional sequence, all of one length; NaN, `None` and masked
            cells are missing.
        source: how messages call it.

    Raises:
        InputError: not such a mapping, columns of different lengths or none at all, no rows.
    """
    if not hasattr(columns, "keys"):
        raise InputError(
            f"{source} is a {type(columns).__name__}; give a dictionary "
            "from column name to a list or an array."
        )
    cells: dict[str, list[Any]] = {}
    for name in columns.keys():  # noqa: SIM118, a data frame iterates otherwise
        array = np.ma.asanyarray(columns[name])
        if array.dtype.kind in "mM":  # as numbers they would be nanoseconds, or days
            raise InputError(
                f"{source}: column {str(name)!r} holds dates or durations ({array.dtype}); give "
                "numbers, such as (t - t[0]) / np.timedelta64(1, 'h')."
            )
        if array.ndim != 1:
            raise InputError(
                f"{source}: column {str(name)!r} has the shape {array.shape}; "
                "give one value per row."
            )
        cells[str(name)] = array.tolist()  # None where it is masked
    lengths = {name: len(column) for name, column in cells.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(
            f"{source}: the columns differ in length ("
            + ", ".join(f"{name} {length}" for name, length in lengths.items())
            + "); give one value per row in each."
        )
    if not any(lengths.values()):
        raise InputError(f"{source}: there are no data rows; give at least one.")
    return Table(cells, tuple(range(next(iter(lengths.values())))), source)


def _physical_lines(text: str) -> list[str]:
    """Lines as editors count them: str.splitlines would also split at form feeds and the like."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _records(
    path: Path, kept: Iterable[tuple[int, str]], delimiter: str
) -> Iterable[tuple[int, list[str]]]:
    """Records with the number of the line each begins on."""
    consumed: list[int] = []

    def feed():
        for number, line in kept:
            consumed.append(number)
            yield line + "\n"

    first = 0
    reader = csv.reader(feed(), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for cells in reader:
            yield consumed[first], cells
            first = len(consumed)
    except csv.Error as error:
        line = consumed[first] if first < len(consumed) else consumed[-1]
        raise InputError(
            f"{path}, line {line}: the cells cannot be told apart ({error}); "
            "check the quotes in this line."
        ) from None


def _delimiter(header: str) -> str:
    unquoted = re.sub(r'"[^"]*"', "", header)
    return max(_DELIMITERS, key=unquoted.count)


def _check_header(path: Path, line: int, names: list[str]):
    place = f"{path}, line {line}"
    if all(NUMBER.fullmatch(name) for name in names):
        raise InputError(
            f"{place}: the first line holds numbers ({', '.join(names[:5])}), but it must hold the "
            "names of the columns; add them. (Lines that begin with # are comments.)"
        )
    for count, name in enumerate(names, start=1):
        if not name:
            raise InputError(
                f"{place}: column {count} has no name; name it, "
                "or remove the separator at the end of each line."
            )
        if name in names[: count - 1]:
            raise InputError(f"{place}: two columns are called {name!r}; rename one.")


def _ragged_hint(cells: list[str], columns: int, delimiter: str) -> str:
    if len(cells) == 1 and delimiter != ";" and ";" in cells[0]:
        return "the header and the rows use different separators"
    if len(cells) > columns and delimiter == ",":
        return (
            "if commas are decimal commas here, separate the cells by semicolons and say "
            "--decimal , or write decimal points"
        )
    if len(cells) < columns:
        return "leave a cell blank for a missing value, but keep its separator"
    return f"cells are separated by a {_DELIMITERS[delimiter]}; put text that holds one in quotes"


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
