"""One cell of a table: what is a number, what is none, and what to do about it."""

import math
import re
from typing import Any

NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+(?:[eE][+-]?[0-9]+)?")
_DATE = re.compile(r"\d{1,4}[-./]\d{1,2}[-./]\d{1,4}([T ].*)?")
_CLOCK = re.compile(r"\d{1,3}:\d{2}(:\d{2})?([.,]\d+)?\s*([AaPp]\.?[Mm]\.?)?")
_LIKELY_MISSING = re.compile(r"[-.?*]+|none|missing|nd|n\.d\.|\(null\)|#.*", re.IGNORECASE)

MISSING = ("NA", "NaN", "N/A", "#N/A", "NULL")
"""What stands for no number, besides a blank cell; capitals or not."""


def is_blank(cell: Any) -> bool:
    """Whether a cell from Python says that there is nothing: `None`, or what data frames use."""
    return cell is None or type(cell).__name__ in ("NAType", "NaTType", "MaskedConstant")


def hint_for(text: str) -> str:
    """What to do about a cell that is no number."""
    if _DECIMAL_COMMA.fullmatch(text):
        return (
            f"write {text.replace(',', '.')}, with a decimal point, or say that the file has "
            "decimal commas by --decimal ,"
        )
    if _DATE.fullmatch(text):
        return (
            "it looks like a date. Times are numbers: write the days (or hours, years) since the "
            "first, in a spreadsheet =A2-$A$2 with the format of a number"
        )
    if _CLOCK.fullmatch(text):
        return (
            "it looks like the time of a clock. Times are numbers: write the hours (or minutes) "
            "since the first, in a spreadsheet =24*(A2-$A$2) with the format of a number"
        )
    if _LIKELY_MISSING.fullmatch(text):
        return (
            f"leave the cell blank if the value is missing, or say by --missing '{text:.20}' that "
            "this stands for it"
        )
    return "leave the cell blank if the value is missing"


def label_of(cell: Any) -> str:
    """A cell as the label of a group: whole numbers without a decimal point."""
    if is_blank(cell) or isinstance(cell, float) and math.isnan(cell):
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()
