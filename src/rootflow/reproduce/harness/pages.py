"""The pages: one for each entry and an index, each a single file that needs nothing else."""

import base64
from collections.abc import Sequence
from typing import Any

import jinja2

from ..._version import __version__
from .entry import FALLS_SHORT, HOLDS, NOT_MEASURED, show

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("rootflow.reproduce.harness", "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters["show"] = show
_TEMPLATES.filters["duration"] = lambda seconds: (
    f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
)
_TEMPLATES.globals["marks"] = {HOLDS: "good", FALLS_SHORT: "bad", NOT_MEASURED: "none"}


def entry_page(record: dict[str, Any], picture: bytes | None) -> str:
    """The page of one entry, with its picture inside."""
    encoded = base64.b64encode(picture).decode("ascii") if picture else None
    return _TEMPLATES.get_template("entry.html").render(record=record, picture=encoded)


def index_page(records: Sequence[dict[str, Any]]) -> str:
    """The gallery: every entry with its picture and verdicts, linked to its page."""
    rows = [(record, tally(record)) for record in records]
    return _TEMPLATES.get_template("index.html").render(rows=rows, version=__version__)


def tally(record: dict[str, Any]) -> str:
    """The verdicts of a record in words, such as "4 of 5 claims hold"."""
    if record["error"]:
        return "crashed"
    verdicts = [claim["verdict"] for claim in record["claims"]]
    held, missing = verdicts.count(HOLDS), verdicts.count(NOT_MEASURED)
    text = f"{held} of {len(verdicts)} claims hold"
    return f"{text}, {missing} not measured" if missing else text
