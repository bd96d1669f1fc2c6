"""Results as data frames of pandas, and as they show themselves in a notebook."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..reports.account import html_table as html_table
from ..reports.frames import data_frame as data_frame

if TYPE_CHECKING:
    from .result import Estimate, FitResult

_PROFILE = ("profile_lower", "profile_upper")


def estimates_frame(result: "FitResult") -> Any:
    """A row for each estimate, indexed by its name."""
    rows = [
        {
            "name": name_of(e), "kind": e.kind, "value": e.value, "se": e.se, "lower": e.lower,
            "upper": e.upper, "unit": e.unit, "fixed": e.fixed, "at_bound": e.at_bound,
            **({} if e.profile is None else dict(zip(_PROFILE, e.profile, strict=True))),
        }
        for e in result.estimates
    ]  # fmt: skip
    return data_frame(rows).set_index("name")


def residuals_frame(result: "FitResult") -> Any:
    """A row for each measurement beside the model."""
    names = ("row", "group", "time", "column", "observed", "predicted", "residual")
    return data_frame([{name: getattr(r, name) for name in names} for r in result.residuals])


def predictions_frame(shown: Any, ts: Any, predicted: Mapping[str, tuple[Any, ...]]) -> Any:
    """A row for each group, column and time, with the band."""
    model, rows = shown.model, []
    for g, group in enumerate(shown.dataset.groups):
        for column, (mean, lower, upper) in predicted.items():
            for k, t in enumerate(ts[g]):
                label = {} if model.group is None else {model.group: group}
                rows.append(
                    {
                        **label, model.time: float(t), "column": column,
                        "predicted": float(mean[g, k]), "lower": float(lower[g, k]),
                        "upper": float(upper[g, k]),
                    }
                )  # fmt: skip
    return data_frame(rows)


def name_of(e: "Estimate") -> str:
    """`ke`, `ke[3]`, `noise of level`."""
    if e.kind == "scale":
        return f"noise of {e.name}"
    return e.name if e.group is None else f"{e.name}[{e.group}]"
