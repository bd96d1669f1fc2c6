"""Runs entries, keeps their records, and picks up where an interrupted run stopped."""

import dataclasses
import datetime
import io
import json
import math
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ... import _atomic, _machine
from ..._version import __version__
from ...errors import InputError
from . import catalogue, pages
from .entry import Entry, Report

FINISHED = "finished"
CRASHED = "crashed"
_FORMAT = 1

Record = dict[str, Any]


def run(name: str, out: Path, *, quick: bool, report: Report) -> Record:
    """Runs one entry and writes `NAME.json`, `NAME.png` and `NAME.html` into the folder `out`.

    The record is written last: where it stands, the other two are complete. An entry that raises
    gives a record with status "crashed", its error and a page that says so.

    Args:
        name: an entry, as `catalogue.find` returns it.
        out: an existing folder.
        quick: whether to take the entry's smaller version.
        report: called with the progress.

    Returns:
        The record: what is in `NAME.json`.

    Raises:
        OSError: the folder cannot be written.
    """
    record: Record = {
        "format": _FORMAT,
        "name": name,
        "version": __version__,
        "quick": quick,
        "status": CRASHED,
        "title": name,
        "paper": None,
        "protocol": "",
        "caption": "",
        "claims": [],
        "error": None,
        "traceback": None,
        "data": {},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": _machine.describe(),
    }
    picture = None
    start = time.perf_counter()
    try:
        entry = catalogue.load(name)
        record |= _declared(entry)
        outcome = entry.run(report, quick)
        record["claims"] = _judged(entry, outcome.measurements)
        record["data"] = _plain(outcome.data)
        picture = _png(outcome.figure)
        record["status"] = FINISHED
    except Exception as error:
        record["error"] = f"{type(error).__name__}: {error}"
        record["traceback"] = traceback.format_exc()
    record["seconds"] = round(time.perf_counter() - start, 3)

    if picture is None:
        (out / f"{name}.png").unlink(missing_ok=True)
    else:
        _atomic.write_bytes(out / f"{name}.png", picture)
    _atomic.write_text(out / f"{name}.html", pages.entry_page(record, picture))
    _atomic.write_text(out / f"{name}.json", json.dumps(record, indent=1, allow_nan=False) + "\n")
    return record


def run_all(
    names: Sequence[str],
    out: Path,
    *,
    quick: bool,
    fresh: bool,
    report_for: Callable[[str], Report],
    done: Callable[[Record, bool], None] = lambda record, resumed: None,
) -> list[Record]:
    """Runs the entries in turn and writes the index after each.

    Args:
        names: the entries.
        out: the folder; it is made if it does not exist.
        quick: whether to take the smaller versions.
        fresh: run also the entries that are finished in `out`; otherwise they are read back.
        report_for: the progress callback of an entry.
        done: called with each record, and whether it was read back instead of run.

    Returns:
        The records, in the order of `names`.

    Raises:
        InputError: `out` is a file.
        OSError: `out` cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file: name a folder.")
    out.mkdir(parents=True, exist_ok=True)
    records = []
    for name in names:
        kept = None if fresh else finished(out, name, quick=quick)
        record = kept or run(name, out, quick=quick, report=report_for(name))
        records.append(record)
        _atomic.write_text(out / "index.html", pages.index_page(_all_records(out)))
        done(record, kept is not None)
    return records


def finished(out: Path, name: str, *, quick: bool) -> Record | None:
    """The record of an entry if it was finished by this version with this `quick`, else None."""
    record = _read(out / f"{name}.json")
    if record is None or not all((out / f"{name}.{kind}").is_file() for kind in ("png", "html")):
        return None
    wanted = {"name": name, "version": __version__, "quick": quick, "status": FINISHED}
    return record if all(record.get(key) == value for key, value in wanted.items()) else None


def _all_records(out: Path) -> list[Record]:
    found = (_read(path) for path in sorted(out.glob("*.json")))
    return [record for record in found if record is not None]


def _read(path: Path) -> Record | None:
    """A record of ours, or None: other JSON files in the folder are not our business."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ours = isinstance(record, dict) and record.get("format") == _FORMAT and "claims" in record
    return record if ours and record.get("name") == path.stem else None


def _declared(entry: Entry) -> Record:
    return {
        "title": entry.title,
        "paper": dataclasses.asdict(entry.paper) | {"link": entry.paper.link},
        "protocol": entry.protocol,
        "caption": entry.caption,
        "claims": _judged(entry, {}),
    }


def _judged(entry: Entry, measurements: Mapping[str, Any]) -> list[Record]:
    unknown = set(measurements) - entry.ids
    if unknown:
        raise InputError(
            f"The run measured {sorted(unknown)}, which are not claims of {entry.name!r}: "
            f"{sorted(entry.ids)}."
        )
    judged = []
    for claim in entry.claims:
        measured = _value(measurements.get(claim.id))
        judged.append(
            {
                "id": claim.id,
                "text": claim.text,
                "source": claim.source,
                "published": _plain(claim.published),
                "criterion": claim.criterion,
                "measured": _plain(measured),
                "verdict": claim.verdict(measured),
            }
        )
    return judged


def _value(measured: Any) -> Any:
    """A measured scalar as a Python value, whatever array type it came in."""
    if measured is None or isinstance(measured, bool | int | float | str):
        return measured
    array = np.asarray(measured)
    if array.shape != () or array.dtype.kind not in "biuf":
        raise InputError(f"A measurement must be one number or a word; got {measured!r}.")
    return array.item()


def _plain(value: Any) -> Any:
    """The value in what JSON has; numbers that are not finite become words."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    return _plain(np.asarray(value).tolist())


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, facecolor="white")
    return buffer.getvalue()
