"""A fit as a table in the terminal, or as a list where the terminal is too narrow for it."""

from typing import TYPE_CHECKING, NamedTuple

from ..formulas.messages import visible
from .formats import error_shown, interval_shown, label, note, shown, solved
from .result import Estimate, FitResult

if TYPE_CHECKING:
    from rich.console import Console

_ROWS = 60
#: Names and units longer than this may be folded.
_WIDEST = {"name": 24, "unit": 12}


class _Row(NamedTuple):
    """The cells of one estimate, safe for a terminal; `None`: this column is not shown."""

    group: str | None
    name: str
    estimate: str
    error: str
    interval: str
    profile: str | None
    unit: str


_TITLES = _Row("", "name", "estimate", "std. error", "95 % interval", "95 % by profile", "unit")


def print_result(result: FitResult, console: "Console") -> None:
    """Prints estimates with their uncertainty, warnings, and how the searches ended."""
    from rich.text import Text

    listed = result.estimates[:_ROWS]
    profiled = any(e.profile for e in result.estimates)
    grouped = any(e.group is not None for e in result.estimates)
    rows = [_row(e, result, grouped, profiled) for e in listed]
    titles = _TITLES._replace(group=visible(str(result.model.group)))
    if _width([titles, *rows]) <= console.width:
        _print_table(titles, rows, console)
    else:
        _print_list(titles, rows, console)
    if len(result.estimates) > _ROWS:
        more = len(result.estimates) - _ROWS
        _say(f"... and {more} more, in report.html and fit.json.", console)
    _say(_summary(result), console, style="dim")
    from .population.result import PopulationResult

    if isinstance(result, PopulationResult):
        from .population.output import summary

        _say(summary(result), console, style="dim")
    for warning in result.warnings:
        console.print(Text("Warning: ", "yellow").append(visible(warning), "default"))


def _say(text: str, console: "Console", **options) -> None:
    console.print(visible(text), highlight=False, markup=False, **options)


def _row(e: Estimate, result: FitResult, grouped: bool, profiled: bool) -> _Row:
    row = _Row(
        group=(e.group or "") if grouped else None,
        name=label(e, result),
        estimate=shown(e.value, e.se),
        error="–" if e.fixed else error_shown(e.se),
        interval="–" if e.fixed else interval_shown(e.lower, e.upper, e.se),
        profile=(interval_shown(*e.profile, e.se) if e.profile else "–") if profiled else None,
        unit=f"{e.unit} {note(e, result)}".strip(),
    )
    group = None if row.group is None else visible(row.group)
    return row._replace(group=group, name=visible(row.name), unit=visible(row.unit))


def _width(rows: list[_Row]) -> int:
    """Columns that the table takes at least, with two blanks between its columns."""
    from rich.cells import cell_len

    shown = [i for i in range(len(_Row._fields)) if rows[-1][i] is not None]
    widths = [max(cell_len(row[i] or "") for row in rows) for i in shown]
    limits = [_WIDEST.get(_Row._fields[i], w) for i, w in zip(shown, widths)]
    return sum(map(min, widths, limits)) + 2 * len(shown) - 2


def _print_table(titles: _Row, rows: list[_Row], console: "Console") -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    shown = [field for field in _Row._fields if getattr(rows[-1], field) is not None]
    for field in shown:
        title = escape(getattr(titles, field))
        if field in _WIDEST:
            widest = _WIDEST["name"] if field == "name" else None
            table.add_column(title, max_width=widest, overflow="fold")
        else:
            right = field in ("estimate", "error")
            table.add_column(title, justify="right" if right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(escape(getattr(row, field)) for field in shown))
    console.print(table)


def _print_list(titles: _Row, rows: list[_Row], console: "Console") -> None:
    for row in rows:
        of_group = f", {titles.group} {row.group}" if row.group else ""
        unit = f" ({row.unit})" if row.unit else ""
        _say(f"{row.name}{of_group}{unit}", console, style="bold")
        for field in ("estimate", "error", "interval", "profile"):
            if (cell := getattr(row, field)) is not None:
                _say(f"  {getattr(titles, field)} {cell}", console)


def _summary(result: FitResult) -> str:
    best = sum(start.reached_best for start in result.starts)
    searches = len(result.starts)
    ended = f"{best} of {searches} searches ended at the best fit" if searches > 1 else "one search"
    ended = ended if searches else "no search"
    what = "negative log-likelihood" + (" and log-prior" if result.has_priors else "")
    return (
        f"{result.observations} measurements, {len(result.free_names)} fitted numbers, "
        f"{what} {shown(result.nll, 1e-3)}; {ended}.{solved(result)}"
    )
