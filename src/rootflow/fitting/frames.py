"""Results as data frames of pandas, and as they show themselves in a notebook."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from .result import Estimate, FitResult

_PROFILE = ("profile_lower", "profile_upper")


def data_frame(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as a `pandas.DataFrame`.

    Raises:
        InputError: pandas is not installed.
    """
    try:
        import pandas  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(
            "A data frame needs pandas: python -m pip install pandas. Without it, the same is in "
            "the attributes of the result."
        ) from None
    return pandas.DataFrame(rows)


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


def predictions_frame(shown: Any, ts: Any, predicted: Mapping[str, tuple]) -> Any:
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


def result_html(result: "FitResult") -> str:
    """What a notebook shows of a fit: its estimates, how it ended, its warnings."""
    from .formats import error_shown, interval_shown, label, note, shown

    head = ["name", "estimate", "standard error", "95 % interval", "unit", ""]
    grouped = any(e.group is not None for e in result.estimates)
    lines = []
    for e in result.estimates:
        known = not e.fixed
        cells = [
            label(e, result), shown(e.value, e.se), error_shown(e.se) if known else "–",
            interval_shown(e.lower, e.upper, e.se) if known else "–", e.unit, note(e, result),
        ]  # fmt: skip
        lines.append([escape(str(cell)) for cell in ([e.group or ""] if grouped else []) + cells])
    head = [str(result.model.group), *head] if grouped else head
    ended = "" if result.converged else "<strong>Not a converged fit.</strong> "
    told = (
        f"{escape(result.model.name)}: {result.observations} measurements, "
        f"{result.fitted_numbers} fitted numbers, −log L {result.nll:.4g}, AIC {result.aic:.2f}, "
        f"BIC {result.bic:.2f}; {escape(result.message)}"
    )
    warned = "".join(f"<p>⚠ {escape(warning)}</p>" for warning in result.warnings)
    return f"<div>{html_table(head, lines)}<p>{ended}{told}</p>{warned}</div>"


def html_table(head: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells whose text is escaped already."""
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    body = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"
