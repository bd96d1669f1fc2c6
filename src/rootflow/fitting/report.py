"""The report: one page that needs nothing else, for a phone as for a desk."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..reports.page import encoded, template
from .formats import error_shown, interval_shown, label, note, shown
from .result import Estimate, FitResult

_MATRIX = 10
"""Correlations are shown as a matrix up to this many parameters, as a list of pairs beyond."""
_PAIRS = 15


def report_page(result: FitResult, record: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """The page as HTML.

    Args:
        result: what was fitted.
        record: the same as `output.as_record` gives it.
        pictures: `fit.png`, `residuals.png` and `starts.png`.
    """
    estimates = [e for e in result.estimates if e.group is None]
    own = [e for e in result.estimates if e.group is not None]
    best = sum(start.reached_best for start in result.starts)
    return template("rootflow.fitting").render(
        result=result,
        model=result.model,
        data=result.dataset,
        data_name=Path(result.dataset.table.source).name,
        record=record,
        shared=[_row(e, result) for e in estimates],
        profiled=any(e.profile for e in result.estimates),
        own_names=list(dict.fromkeys((label(e, result), e.unit) for e in own)),
        own=_by_group(own, result),
        free=len(result.free_names),
        best=best,
        starts=_starts(result),
        matrix=_matrix(result),
        pairs=_pairs(result),
        pictures=encoded(pictures),
    )


def _row(estimate: Estimate, result: FitResult) -> dict[str, str]:
    known = not estimate.fixed
    profile = estimate.profile
    return {
        "name": label(estimate, result),
        "value": shown(estimate.value, estimate.se),
        "error": error_shown(estimate.se) if known else "–",
        "interval": interval_shown(estimate.lower, estimate.upper, estimate.se) if known else "–",
        "profile": interval_shown(*profile, estimate.se) if profile else "–",
        "unit": estimate.unit,
        "note": note(estimate, result),
    }


def _by_group(own: list[Estimate], result: FitResult) -> list[tuple[str, list[dict[str, str]]]]:
    """(group, its estimates), in the order of the groups."""
    rows: dict[str, list[dict[str, str]]] = {}
    for estimate in own:
        rows.setdefault(str(estimate.group), []).append(_row(estimate, result))
    return [(group, rows[group]) for group in result.dataset.groups if group in rows]


def _starts(result: FitResult) -> list[dict[str, Any]]:
    finite = [start.cost for start in result.starts if math.isfinite(start.cost)]
    least = min(finite, default=math.nan)
    starts = sorted(result.starts, key=lambda start: (math.isnan(start.cost), start.cost))
    return [
        {
            "cost": shown(start.cost, 1e-3),
            "above": "best" if start.reached_best else shown(start.cost - least),
            "iterations": start.iterations,
            "converged": "yes" if start.converged else "no",
        }
        for start in starts
    ]


def _matrix(result: FitResult) -> list[tuple[str, list[tuple[str, float]]]]:
    """(name, its correlations as text with the weight of their shade); empty if too large."""
    if not 1 < len(result.free_names) <= _MATRIX:
        return []
    rows = []
    for i, name in enumerate(result.free_names):
        row = np.asarray(result.correlation)[i, : i + 1]
        cells = [("–", 0.0) if np.isnan(r) else (f"{r:.2f}", float(abs(r))) for r in row]
        rows.append((name, cells))
    return rows


def _pairs(result: FitResult) -> list[tuple[str, str, str]]:
    """The strongest correlations, strongest first; empty where the matrix is shown."""
    names = result.free_names
    if len(names) <= _MATRIX:
        return []
    correlation = np.asarray(result.correlation)
    first, second = np.tril_indices(len(names), -1)
    strength = np.nan_to_num(np.abs(correlation[first, second]))
    strongest = np.argsort(-strength, kind="stable")[:_PAIRS]
    return [
        (names[first[k]], names[second[k]], f"{correlation[first[k], second[k]]:.2f}")
        for k in strongest
        if strength[k] > 0
    ]
