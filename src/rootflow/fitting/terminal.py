"""A fit as a table in the terminal."""

from typing import TYPE_CHECKING

from .formats import error_shown, interval_shown, label, note, shown
from .result import FitResult

if TYPE_CHECKING:
    from rich.console import Console

_ROWS = 60


def print_result(result: FitResult, console: "Console") -> None:
    """Prints estimates with their uncertainty, warnings, and how the searches ended."""
    from rich.markup import escape
    from rich.table import Table

    profiled = any(e.profile for e in result.estimates)
    grouped = any(e.group is not None for e in result.estimates)
    table = Table(box=None, pad_edge=False, header_style="bold")
    if grouped:
        table.add_column(escape(str(result.model.group)), no_wrap=True)
    table.add_column("name", max_width=24, overflow="fold")
    for title in ("estimate", "std. error"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("95 % interval", no_wrap=True)
    if profiled:
        table.add_column("95 % by profile", no_wrap=True)
    table.add_column("unit")
    for estimate in result.estimates[:_ROWS]:
        fixed = estimate.fixed
        cells = [estimate.group or ""] if grouped else []
        cells += [label(estimate, result), shown(estimate.value, estimate.se)]
        cells.append("–" if fixed else error_shown(estimate.se))
        interval = interval_shown(estimate.lower, estimate.upper, estimate.se)
        cells.append("–" if fixed else interval)
        if profiled:
            profile = estimate.profile
            cells.append(interval_shown(*profile, estimate.se) if profile else "–")
        cells.append(f"{estimate.unit} {note(estimate, result)}".strip())
        table.add_row(*map(escape, cells))
    console.print(table)
    if len(result.estimates) > _ROWS:
        more = len(result.estimates) - _ROWS
        console.print(f"... and {more} more, in report.html and fit.json.", highlight=False)
    console.print(escape(_summary(result)), highlight=False, style="dim")
    for warning in result.warnings:
        console.print(f"[yellow]Warning:[/yellow] {escape(warning)}", highlight=False)


def _summary(result: FitResult) -> str:
    best = sum(start.reached_best for start in result.starts)
    searches = len(result.starts)
    ended = f"{best} of {searches} searches ended at the best fit" if searches > 1 else "one search"
    return (
        f"{result.observations} measurements, {len(result.free_names)} fitted numbers, "
        f"negative log-likelihood {shown(result.nll, 1e-3)}; {ended}."
    )
