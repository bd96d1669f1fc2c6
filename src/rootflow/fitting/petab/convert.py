"""`rootflow convert`: a PEtab problem as a model file and a table of data."""

import csv
import io
import math
from pathlib import Path
from typing import Any

from ... import _atomic
from ...errors import InputError
from ..modelfile import load_model
from ..table import assemble, load_table
from .load import as_model_file

FILES = ("model.toml", "data.csv")


def convert(path: str | Path, folder: str | Path) -> tuple[Path, Path]:
    """Writes a PEtab problem as `model.toml` and `data.csv`; both say the same as the problem.

    Args:
        path: the YAML file of the problem.
        folder: where they go; made if it is not there.

    Returns:
        The two files.

    Raises:
        InputError: as `load_petab`, or the folder holds a file of one of these names already;
            nothing is written then.
    """
    folder = Path(folder)
    for name in FILES:
        if (folder / name).exists():
            raise InputError(f"{folder / name} is there already; choose another folder.")
    text, columns = as_model_file(path)
    with _atomic.folder(folder) as place:
        (place / FILES[0]).write_text(text, encoding="utf-8")
        (place / FILES[1]).write_text(csv_text(columns), encoding="utf-8")
        assemble(load_model(place / FILES[0]), load_table(place / FILES[1]))
    return folder / FILES[0], folder / FILES[1]


def csv_text(columns: dict[str, list[Any]]) -> str:
    """A table as CSV; numbers with all their digits."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow([_cell(cell) for cell in row])
    return out.getvalue()


def _cell(cell: Any) -> str:
    if cell is None or isinstance(cell, float) and math.isnan(cell):
        return ""
    return cell if isinstance(cell, str) else repr(cell)
