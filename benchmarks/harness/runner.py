"""Runs comparisons and gathers their lines."""

import importlib
import importlib.metadata
import importlib.util
import pkgutil
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from . import timing
from .comparison import Comparison, Row
from .load import MOST, Load
from .table import Line

# How a row of each kind is measured, and in how many pairs.
_TAKE = {
    "run": (timing.warm, 15),
    "first call": (timing.first_call, 5),
    "memory": (timing.memory, 1),
}
#: Stands for the rows of a comparison that could not be made.
_ROWS = "its rows"


def names(paths: Sequence[str]) -> list[str]:
    """The comparisons in the folders `paths` (a package's `__path__`), sorted."""
    found = pkgutil.iter_modules(paths)
    return sorted(m.name for m in found if not m.ispkg and not m.name.startswith("_"))


def run(
    package: str,
    chosen: Sequence[str],
    *,
    quick: bool = False,
    tell: Callable[[Line], None] = lambda line: None,
    known: Sequence[Line] = (),
) -> list[Line]:
    """Runs the comparisons `chosen`, modules of `package`; a row that fails does not stop the rest.

    Args:
        package: the importable package that holds the comparisons.
        chosen: names of its modules.
        quick: fewer pairs and smaller problems, to see that everything works.
        tell: called with each line as it is measured.
        known: lines of an earlier run, taken over where they are of the same row, measured as
            thoroughly, and neither failed nor busy.

    Returns:
        One line a row. A comparison whose rows cannot be made is one line, which says so.
    """
    before = {
        (line["comparison"], line["row"]): line
        for line in known
        if line["quick"] == quick and not line["failure"] and not line["busy"]
    }
    lines = []
    for name in chosen:
        try:
            comparison = importlib.import_module(f"{package}.{name}").COMPARISON
            rows = comparison.rows(quick)
        except Exception as error:
            lines.append(_line(name, _ROWS, name, "run", "", None) | _failed(error))
            tell(lines[-1])
            continue
        for row in rows:
            line = before.get((name, row.name)) or measure(name, comparison, row, quick=quick)
            tell(line)
            lines.append(line)
    return lines


def pictures(package: str, chosen: Sequence[str], lines: Sequence[Line], out: Path) -> list[Path]:
    """The pictures of the comparisons `chosen`, but of those whose rows could not be made."""
    paths: list[Path] = []
    failed = {line["comparison"] for line in lines if line["row"] == _ROWS}
    for name in chosen:
        if name in failed:
            continue
        draw = importlib.import_module(f"{package}.{name}").COMPARISON.pictures
        if draw is not None:
            paths += draw(out)
    return paths


def measure(name: str, comparison: Comparison, row: Row, *, quick: bool = False) -> Line:
    """Times one row and judges it."""
    peer = row.peer_name or comparison.peer
    if row.peer_version is not None:
        version = row.peer_version()
        installed = version is not None
    else:
        installed = importlib.util.find_spec(peer) is not None
        version = _version(peer) if installed else None
    line = _line(name, row.name, comparison.title, row.kind, peer, version)
    line |= {"installed": installed, "bar": row.bar, "quick": quick}
    take, pairs = _TAKE[row.kind]
    load = Load()
    try:
        taken = take(row.ours, row.peer if installed else None, 1 if quick else pairs)
        line |= {"ours": taken.ours, "peer": taken.peer, "ratio": taken.ratio}
        if row.error is not None:
            line["error_ours"] = float(row.error(taken.ours_result))
            if installed:
                line["error_peer"] = float(row.error(taken.peer_result))
    except Exception as error:
        line |= _failed(error)
    line["load"] = load.others()
    line["busy"] = row.kind != "memory" and (line["load"] or 0.0) > MOST
    if line["ratio"] is not None and row.bar is not None and not line["failure"]:
        line["meets"] = None if line["busy"] else line["ratio"] <= row.bar
    return line


def _line(name, row, title, kind, peer, version) -> Line:
    measured = ("ours", "peer", "ratio", "meets", "error_ours", "error_peer", "load", "bar")
    return {
        "comparison": name, "title": title, "row": row, "kind": kind, "peer_name": peer,
        "peer_version": version, "installed": True, "failure": None, "traceback": None,
        "busy": False, "quick": False, **dict.fromkeys(measured),
    }  # fmt: skip


def _failed(error: Exception) -> Line:
    return {"failure": f"failed: {type(error).__name__}", "traceback": traceback.format_exc()}


def _version(peer: str) -> str | None:
    try:
        return importlib.metadata.version(peer)
    except importlib.metadata.PackageNotFoundError:
        return None
