"""The tables of a PEtab problem: text between tabs, with errors that name line and column."""

import csv
import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...tables.names import did_you_mean
from ...tables.textfile import read_text

MAX_BYTES = 200_000_000
_BLANK = frozenset({"", "nan", "na", "none"})


@dataclass(frozen=True)
class Row:
    """A row of a table; knows where it stands."""

    path: Path
    line: int
    cells: dict[str, str]

    def place(self, column: str | None = None) -> str:
        """How messages name it."""
        where = f"{self.path}, line {self.line}"
        return where if column is None else f"{where}, column {column!r}"

    def error(self, column: str | None, reason: str) -> InputError:
        return InputError(f"{self.place(column)}: {reason}")

    def get(self, column: str) -> str:
        """The cell, empty where there is no such column or nothing in it (NaN is nothing)."""
        text = self.cells.get(column, "").strip()
        return "" if text.casefold() in _BLANK else text

    def text(self, column: str) -> str:
        """The cell, which must not be empty."""
        if text := self.get(column):
            return text
        if column not in self.cells:
            close = did_you_mean(column, self.cells)
            raise InputError(f"{self.path}: the table has no column {column!r}.{close}")
        raise self.error(column, "the cell is empty; fill it in.")

    def number(self, column: str) -> float:
        """The cell as a finite number."""
        text = self.text(column)
        value = number_or_none(text)
        if value is None or not math.isfinite(value):
            raise self.error(column, f"{text!r} is not a finite number.")
        return value

    def choice(self, column: str, known: Iterable[str], default: str) -> str:
        """The cell as one of some words."""
        text = self.get(column) or default
        known = tuple(known)
        if text not in known:
            close = did_you_mean(text, known)
            raise self.error(
                column, f"{text!r} is not known; it is one of {', '.join(known)}.{close}"
            )
        return text


def number_or_none(text: str) -> float | None:
    """The number that a text says, if it says one."""
    try:
        return float(text)
    except ValueError:
        return None


def read_tables(paths: Iterable[Path], what: str) -> list[Row]:
    """The rows of tables, one after another.

    Raises:
        InputError: a file that is no table, a row of another length than the header.
    """
    return [row for path in paths for row in _rows(path, what)]


def _rows(path: Path, what: str) -> Iterator[Row]:
    text = read_text(path, what=f"{what} table", limit=MAX_BYTES)
    reader = csv.reader(io.StringIO(text), delimiter="\t")
    header: list[str] | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                for name in header:
                    if name and header.count(name) > 1:
                        raise InputError(f"{path}: two columns are called {name!r}; rename one.")
                continue
            if len(cells) > len(header) and any(cell.strip() for cell in cells[len(header) :]):
                raise InputError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells, but the header has "
                    f"{len(header)}; cells are separated by tabs."
                )
            yield Row(path, reader.line_num, dict(zip(header, cells, strict=False)))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}.") from None
    if header is None:
        raise InputError(f"{path}: the {what} table is empty.")


def by_id(rows: Iterable[Row], column: str) -> dict[str, Row]:
    """Rows by their identifier.

    Raises:
        InputError: one twice.
    """
    found: dict[str, Row] = {}
    for row in rows:
        name = row.text(column)
        if name in found:
            raise row.error(
                column, f"{name!r} stands in line {found[name].line} of {found[name].path} already."
            )
        found[name] = row
    return found


def cells_of(text: str) -> list[str]:
    """The values of a cell that holds several, separated by semicolons."""
    return [part.strip() for part in text.split(";")] if text else []


def as_yaml(path: Path) -> dict[str, Any]:
    """The content of a YAML file that is a table of names.

    Raises:
        InputError: PyYAML is not installed, no YAML, something else than names and values.
    """
    from .formulas import EXTRA

    try:
        import yaml
    except ImportError:
        raise InputError(f"PEtab problems need the package pyyaml: {EXTRA}") from None
    text = read_text(path, what="PEtab problem", limit=1_000_000)
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not valid YAML: {reason:.300}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: a PEtab problem is a YAML file of names and values.")
    return content
