"""The folder that an analysis leaves behind, and the same as one JSON document."""

import csv
import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from .. import _atomic
from .._machine import describe
from ..reports import folder
from ..reports.folder import digits, plain
from ..reports.formats import error_shown, shown
from ..reports.page import encoded, template
from .analysis import Analysis, coefficient_rows
from .figures import coefficients_figure, profile_figure

PROGRAM = "rootflow couple"
FILES = ("couple.json", "coefficients.csv", "phases.csv", "profile.png", "report.html")
"""What is always there; `coefficients.png` where some phase has a range of composition."""
_SHOWN = (0.1, 0.3, 0.5, 0.7, 0.9)


def check_folder(path: Path) -> None:
    """Makes sure that an analysis may write to `path`, as `reports.folder.check` does."""
    folder.check(path, record="couple.json", program=PROGRAM, what="analysis")


def write_results(found: Analysis, path: Path) -> dict[str, Any]:
    """Fills the results folder, which appears whole or not at all.

    Results of an earlier analysis in the same place are replaced.

    Returns:
        The content of `couple.json`.

    Raises:
        InputError: as `check_folder`.
        OSError: the folder cannot be written.
    """
    check_folder(path)
    record = as_record(found)
    pictures = {"profile.png": profile_figure(found)}
    curve = coefficients_figure(found)
    if curve is not None:
        pictures["coefficients.png"] = curve
    with _atomic.folder(path) as draft:
        text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False)
        _atomic.write_text(draft / "couple.json", text + "\n")
        _atomic.write_text(draft / "coefficients.csv", _table(*coefficient_rows(found)))
        _atomic.write_text(draft / "phases.csv", _table(*_phase_rows(found)))
        for name, picture in pictures.items():
            _atomic.write_bytes(draft / name, picture)
        _atomic.write_text(draft / "report.html", report_page(found, record, pictures))
    if curve is None:  # that of an earlier analysis would be another couple's
        (path / "coefficients.png").unlink(missing_ok=True)
    return record


def as_record(found: Analysis) -> dict[str, Any]:
    """Everything about an analysis as plain JSON values in SI units; NaN is null."""
    reading, profile = found.reading, found.reading.profile
    names, rows = coefficient_rows(found)
    phase_names, phase_rows = _phase_rows(found)
    fit = None
    if found.fit is not None:
        fit = {
            "converged": found.fit.converged,
            "message": found.fit.message,
            "knots": found.fit.knots,
            "log_D": found.fit.log_D,
            "covariance": found.fit.covariance,
            "chi_square": found.fit.chi_square,
            "degrees_of_freedom": found.fit.freedom,
            "sigma_known": found.fit.sigma_known,
            "bands": found.fit.bands,
            "estimates": {
                name: {"value": np.asarray(value), "error": np.asarray(error)}
                for name, (value, error) in found.fit.estimates.items()
            },
        }
    markers = None
    if found.intrinsic is not None:
        i = found.intrinsic
        fields = ("A", "B", "composition", "position", "shift", "velocity", "interdiffusion")
        markers = {name: float(getattr(i, name)) for name in fields}
    return plain(
        {
            "program": PROGRAM,
            "format": 1,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": describe(("jax", "jaxlib", "equinox", "numpy", "scipy", "matplotlib")),
            "source": reading.source,
            "read_as": reading.format,
            "title": reading.title,
            "elements": list(reading.elements),
            "points": len(profile),
            "time_s": float(profile.time),
            "ends": np.asarray(profile.ends),
            "scatter": float(np.median(profile.noise)),
            "totals": reading.totals,
            "ends_flat": [end.flat for end in found.flatness],
            "variables_disagree": found.disagreement,
            "molar_volume_not_ideal_by": found.nonideality,
            "coefficients": {"columns": names, "rows": rows},
            "phases": {"columns": phase_names, "rows": phase_rows},
            "fit": fit,
            "markers": markers,
            "tracer_ratio": found.tracer_ratio,
            "warnings": found.warnings,
        }
    )


def _phase_rows(found: Analysis) -> tuple[list[str], list[list[float]]]:
    names = [
        "left_um", "right_um", "mole_fraction_B", "width_in_mole_fraction",
        "integrated_m2_per_s", "integrated_error_m2_per_s", "average_m2_per_s",
        "growth_constant_m2_per_s",
    ]  # fmt: skip
    rows = [
        [p.left * 1e6, p.right * 1e6, p.composition, p.width, p.integrated, found.error_of(i),
         p.average, p.growth_constant]
        for i, p in enumerate(found.phases)
    ]  # fmt: skip
    return names, rows


def _table(names: Sequence[str], rows: Sequence[Sequence[float]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([digits(value) for value in row] for row in rows)
    return stream.getvalue()


def report_page(found: Analysis, record: dict[str, Any], pictures: dict[str, bytes]) -> str:
    """The page as HTML."""
    reading = found.reading
    return template("rootflow.materials").render(
        found=found,
        A=reading.elements[0],
        B=reading.elements[1],
        source=Path(reading.source).name,
        record=record,
        hours=shown(float(reading.profile.time) / 3600),
        ends=[shown(float(end)) for end in np.asarray(reading.profile.ends)],
        selected=selected_rows(found),
        layers=[
            {
                "composition": f"{p.composition:.4f}",
                "thickness": shown(p.thickness * 1e6),
                "integrated": shown(p.integrated, found.error_of(i)),
                "error": error_shown(found.error_of(i)),
                "growth": shown(p.growth_constant),
            }
            for i, p in enumerate(found.phases)
            if 0 < i < len(found.phases) - 1
        ],
        chi=None if found.fit is None else found.fit.chi_square / max(found.fit.freedom, 1),
        pictures=encoded(pictures),
    )


def selected_rows(found: Analysis) -> list[dict[str, str]]:
    """A few compositions with their coefficients, for a page or a terminal."""
    names, rows = coefficient_rows(found)
    if not rows or len(found.phases) > 1:
        return []
    table = {name: np.array([row[i] for row in rows]) for i, name in enumerate(names)}
    low, high = sorted(float(end) for end in found.reading.profile.ends)
    out = []
    for share in _SHOWN:
        at = low + share * (high - low)
        line = {"composition": f"{at:.3f}"}
        for name, values in table.items():
            if name != "mole_fraction_B":
                line[name.removesuffix("_m2_per_s")] = shown(
                    float(np.interp(at, table["mole_fraction_B"], values))
                )
        out.append(line)
    return out
