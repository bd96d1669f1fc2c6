"""The table of all rows, as Markdown and as JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rootflow import _atomic
from rootflow.errors import InputError

Line = dict[str, Any]

HEADINGS = (
    "comparison",
    "row",
    "ours",
    "peer",
    "ratio",
    "bar",
    "meets?",
    "error ours",
    "error peer",
)


def write(out: Path, lines: Sequence[Line], machine: Mapping[str, Any]) -> tuple[Path, Path]:
    """Writes `benchmarks.md` and `benchmarks.json` into the folder `out`, each whole."""
    out.mkdir(parents=True, exist_ok=True)
    markdown, record = out / "benchmarks.md", out / "benchmarks.json"
    _atomic.write_text(markdown, as_markdown(lines, machine))
    content = {"machine": dict(machine), "rows": list(lines)}
    _atomic.write_text(record, json.dumps(content, indent=1) + "\n")
    return markdown, record


def read(out: Path, machine: Mapping[str, Any]) -> list[Line]:
    """The lines of an earlier run in the folder `out`; none where there was none.

    Raises:
        InputError: a file that cannot be read, or of another machine or other versions.
    """
    record = out / "benchmarks.json"
    if not record.exists():
        return []
    try:
        content = json.loads(record.read_text())
        known, lines = content["machine"], content["rows"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{record} is not a table of benchmarks ({error}); move it away."
        ) from None
    other = {key for key in {*known, *machine} if known.get(key) != machine.get(key)}
    if other:
        raise InputError(
            f"{record} was measured elsewhere ({', '.join(sorted(other))} differ): give another "
            "folder, or leave --resume out."
        )
    return lines


def merged(new: Sequence[Line], old: Sequence[Line]) -> list[Line]:
    """New lines, and those of an earlier run that are of other rows."""
    rows = {(line["comparison"], line["row"]) for line in new}
    return [*new, *(line for line in old if (line["comparison"], line["row"]) not in rows)]


def as_markdown(lines: Sequence[Line], machine: Mapping[str, Any]) -> str:
    """One table, and under it what the columns and the machine are."""
    cells = [HEADINGS, *(_cells(line) for line in lines)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(HEADINGS))]

    def text(row: Sequence[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = f"|{'|'.join('-' * (width + 2) for width in widths)}|"
    about = []
    for name in dict.fromkeys(line["comparison"] for line in lines):
        mine = [line for line in lines if line["comparison"] == name]
        peers = " and ".join(dict.fromkeys(_peer(line) for line in mine))
        about.append(f"- {name}: {mine[0]['title']}; beside {peers}.")
    where = ", ".join(f"{key} {value}" for key, value in machine.items())
    return "\n".join(
        [
            "# Benchmarks",
            "",
            text(cells[0]),
            rule,
            *map(text, cells[1:]),
            "",
            "Times are medians of paired runs in one process; the ratio is the median of ours / "
            "peer over the pairs, and meets the bar if it is at most the bar. A first call "
            "includes tracing and compilation; rows in bytes are of memory; all other rows are "
            "warm. Errors are those achieved, against a reference tighter than both. Rows during "
            "which other processes took more than a quarter of a core are busy, and not judged.",
            "",
            *about,
            "",
            f"Machine: {where}.",
            "",
        ]
    )


def brief(line: Line) -> str:
    """A line for the terminal."""
    cells = _cells(line)
    return (
        f"{cells[0]}: {cells[1]}: ours {cells[2]}, peer {cells[3]}, ratio {cells[4]} ({cells[6]})"
    )


def _cells(line: Line) -> tuple[str, ...]:
    amount = _bytes if line["kind"] == "memory" else _duration
    return (
        line["comparison"],
        line["row"],
        amount(line["ours"]) if line["failure"] is None else line["failure"],
        amount(line["peer"]) if line["installed"] else "not installed",
        "–" if line["ratio"] is None else f"{line['ratio']:.2f}",
        "–" if line["bar"] is None else f"{line['bar']:.2f}",
        "busy" if line["busy"] else {None: "–", True: "yes", False: "no"}[line["meets"]],
        _error(line["error_ours"]),
        _error(line["error_peer"]),
    )


def _peer(line: Line) -> str:
    return f"{line['peer_name']} {line['peer_version'] or '(not installed)'}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{1e3 * seconds:.3g} ms" if seconds >= 1e-4 else f"{1e6 * seconds:.3g} µs"


def _bytes(size: float | None) -> str:
    if size is None:
        return "–"
    return f"{size / 1e6:.3g} MB" if size >= 1e6 else f"{size / 1e3:.3g} kB"


def _error(error: float | None) -> str:
    return "–" if error is None else f"{error:.1e}"
