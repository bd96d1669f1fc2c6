"""What a fit says of itself, and its data beside the fitted curve."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..reports.account import Account
from ..reports.panels import Band, Curve, Lines, Panel, cut
from .formats import error_shown, interval_shown, label, note, shown, with_unit

if TYPE_CHECKING:
    from .population.result import PopulationResult
    from .result import Estimate, FitResult
    from .table import Dataset

#: Rows of the table, and panels of the picture, beyond which there is more elsewhere.
_ROWS, _PANELS = 8, 4
_TIMES = 100
#: What the bands are called.
CURVE, MEASUREMENT = "95 %: curve", "95 %: new measurement"
#: What measurements are called, and how they are marked, by the side on which the value lies of the
#: number: a censored one is a limit, and the triangle points to where the value is.
DATA = {0: ("data", "o"), -1: ("data: less than this", "v"), 1: ("data: more than this", "^")}


def account(result: "FitResult") -> Account:
    """The account of a fit without random effects."""
    return Account(_title(result), (*_facts(result), _more(result)), _drawn(result), table(result))


def population(result: "PopulationResult") -> Account:
    """The account of a population."""
    shrinkage = [f"{name} {100 * x:.0f} %" for name, x in result.eta_shrinkage.items()]
    lines = [
        *_facts(result),
        (
            "subjects",
            f"{len(result.dataset.groups)}, random effects on {', '.join(result.effects)}; "
            f"{result.approximation.upper()}, OBJF {shown(result.objf, 0.1)}",
        ),
    ]
    if shrinkage:
        lines.append(("shrinkage", ", ".join(shrinkage[:_ROWS])))
    return Account(_title(result), (*lines, _more(result)), _drawn(result), table(result))


def table(result: "FitResult", rows: int = _ROWS) -> list[list[str]]:
    """The titles and a row for each estimate, of which `rows` are shown."""
    grouped = any(e.group is not None for e in result.estimates)
    head = ["name", "estimate", "standard error", "95 % interval", "unit", ""]
    lines = [([str(result.model.group)] if grouped else []) + head]
    for e in result.estimates[:rows]:
        lines.append(([e.group or ""] if grouped else []) + _cells(e, result))
    rest = len(result.estimates) - rows
    if rest > 0:
        lines.append([f"and {rest} more", *[""] * (len(lines[0]) - 1)])
    return lines


def curve_panel(
    result: Any,
    group: int,
    column: str,
    ts: np.ndarray,
    curve: Mapping[str, Any],
    spread: Mapping[str, Any] | None,
    colour: int,
) -> Lines:
    """Data, curve and bands of one column of one group.

    Args:
        result: what has a model and a data set.
        group: its place among the groups.
        column: what is observed.
        ts: times of the curves (groups, times).
        curve: mean, lower and upper by column, each (groups, times).
        spread: the same for a new measurement; None: a curve without bands.
        colour: which of the colours.
    """
    data, model = result.dataset, result.model
    mean, low, high = (np.asarray(part)[group] for part in curve[column])
    bands = ()
    if spread is not None:
        _, least, most = (np.asarray(part)[group] for part in spread[column])
        bands = (Band(least, most, MEASUREMENT, 0.13), Band(low, high, CURVE, 0.32))
    curves = [Curve(ts[group], mean, "model", colour, bands=bands)]
    values, times = np.asarray(data.values[column][group]), np.asarray(data.ts[group])
    sides = data.side(column)
    for side, (name, marker) in DATA.items():
        if np.any(np.isfinite(data.values[column]) & (sides == side)):
            shown = np.where(sides[group] == side, values, np.nan)
            curves.append(Curve(times, shown, name, None, points=True, marker=marker))
    return Lines(
        curves,
        with_unit(model.time, model.units.get(model.time, "")),
        with_unit(column, model.units.get(column, "")),
        f"{model.group} {data.groups[group]}" if len(data.groups) > 1 else "",
    )


def _title(result: "FitResult") -> str:
    ended = {"evaluated": "evaluated, nothing was fitted"}.get(result.outcome, result.outcome)
    if not result.converged and result.outcome == "converged":
        ended = "not converged"
    return f"Fit of {result.model.name}: {ended}"


def _facts(result: "FitResult") -> list[tuple[str, str]]:
    lines = [] if result.message == result.outcome else [("ended", result.message)]
    name = "−log L − log prior" if result.has_priors else "−log L"
    lines.append(
        (
            "fit",
            f"{result.observations} measurements, {result.fitted_numbers} fitted numbers, {name} "
            f"{result.nll:.4g}, AIC {result.aic:.2f}, BIC {result.bic:.2f}",
        )
    )
    lines += [("warning", warning) for warning in result.warnings[:2]]
    if len(result.warnings) > 2:
        lines.append(("warning", f"and {len(result.warnings) - 2} more: .warnings"))
    return lines


def _more(result: "FitResult") -> tuple[str, str]:
    size = "×".join(map(str, np.shape(result.covariance)))
    return (
        "more",
        f".estimates, .frame(), .residuals, .covariance ({size}), .predict(ts), .write(folder); "
        "rf.plot(fit)",
    )


def _cells(e: "Estimate", result: "FitResult") -> list[str]:
    known = not e.fixed
    return [
        label(e, result), shown(e.value, e.se), error_shown(e.se) if known else "–",
        interval_shown(e.lower, e.upper, e.se) if known else "–", e.unit, note(e, result),
    ]  # fmt: skip


def _drawn(result: "FitResult") -> Any:
    return lambda: panels(result)


def panels(result: "FitResult") -> list[Panel]:
    """Data beside the fitted curve: every column of the first group, or one column of several."""
    columns, groups = list(result.model.observed), result.dataset.groups
    ts = _times(result.dataset)
    curve, spread = result.predict(ts, noise=False), result.predict(ts, noise=True)
    places = [(g, k) for k in range(len(columns)) for g in range(len(groups))][:_PANELS]
    drawn: list[Panel] = [
        curve_panel(result, g, columns[k], ts, curve, spread, k) for g, k in places
    ]
    return cut(drawn, len(columns) * len(groups))


def _times(data: "Dataset") -> np.ndarray:
    """A grid over the span of each group (groups, times)."""
    return np.linspace(data.t0, data.ts[:, -1], _TIMES, axis=1)
