"""Pictures of achieved error against what it cost, in one style for all classes of problems."""

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib.figure
import matplotlib.lines
import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

#: Of a package, one for each of its methods in turn.
COLOURS = {
    "rootflow": ("#c44e00", "#7f2f00", "#ef9a4d", "#b5305c", "#d9b310", "#f2a7a0"),
    "diffrax": ("#3b5bab", "#7d98d6", "#1f2f5c"),
    "scipy": ("#5a8f3c", "#98c47c", "#2f5219"),
}
_OTHER = ("#7a4b9c", "#b58fd1", "#45235e")
_MARKS = "osD^vP"


class Point(NamedTuple):
    """One solve: what was asked for, the achieved error, seconds, and a count of work, if told."""

    setting: Any
    error: float
    seconds: float
    count: int | None


class Curve(NamedTuple):
    """What a method of a package does as more is asked of it."""

    package: str
    method: str
    points: list[Point]

    @property
    def label(self) -> str:
        return f"{self.package} {self.method}"


class Panel(NamedTuple):
    """One problem, with the curves of all who solve it."""

    title: str
    curves: Sequence[Curve]


#: An axis: its label, and what of a point is on it.
SECONDS = ("time [ms]", lambda point: 1e3 * point.seconds)


def counted(label: str) -> tuple[str, Callable[[Point], Any]]:
    return label, lambda point: point.count


def timed(call: Callable[[], Any], repeats: int) -> tuple[Any, float]:
    """The result of a call, and the least of so many times after a first one."""
    result = jax.block_until_ready(call())
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return result, min(seconds)


def swept(
    package: str, method: str, solve: Callable[[Any], Any], settings: Iterable[Any],
    error: Callable[[Any], float], *, repeats: int, patience: float = 5.0,
    count: Callable[[Any], int | None] | None = None,
) -> Curve:  # fmt: skip
    """A curve: `solve` at each setting, given up after one that takes too long."""
    points = []
    for setting in settings:
        result, seconds = timed(functools.partial(solve, setting), repeats)
        value = error(result)
        if np.isfinite(value):
            work = None if count is None else count(setting)
            points.append(Point(setting, max(value, 1e-16), seconds, work))
        if seconds > patience:
            break
    return Curve(package, method, points)


def quickest(curves: Iterable[Curve], package: str, target: float) -> tuple[Curve, Point] | None:
    """The curve of a package that meets an error soonest, and where on it that is."""
    found = [
        (curve, point)
        for curve in curves
        if curve.package == package
        for point in curve.points
        if point.error <= target
    ]
    return min(found, key=lambda pair: pair[1].seconds) if found else None


def draw(
    panels: Sequence[Panel], axes: Sequence[tuple[str, Callable[[Point], Any]]], ylabel: str,
    path: Path, bottom: float | None = None, across: int | None = None,
) -> Path:  # fmt: skip
    """A column for each panel and a row for each of `axes`; `across`: so many columns, then on."""
    across = across or len(panels)
    down = -(-len(panels) // across) * len(axes)
    figure = matplotlib.figure.Figure(
        figsize=(max(3.6 * across, 9.6), 0.4 + 3.7 * down), layout="constrained"
    )  # fmt: skip
    grid = figure.subplots(down, across, sharey=True, squeeze=False)
    for k, panel in enumerate(panels):
        top = k // across * len(axes)
        _column(grid[top : top + len(axes), k % across], panel, axes)
    for empty in grid[-len(axes) :, len(panels) - across * (down // len(axes) - 1) :].flat:
        empty.remove()
    for row in grid:
        row[0].set_ylabel(ylabel)
        if bottom is not None:
            row[0].set_ylim(bottom=bottom)
    figure.savefig(path, dpi=110)
    return path


def _column(cells: Any, panel: Panel, axes: Sequence[tuple[str, Callable[[Point], Any]]]) -> None:
    seen: dict[str, int] = {}
    handles = []
    for curve in panel.curves:
        index = seen.setdefault(curve.package, 0)
        seen[curve.package] += 1
        colours = COLOURS.get(curve.package, _OTHER)
        ours = curve.package == "rootflow"
        style: dict[str, Any] = dict(
            color=colours[index % len(colours)], marker=_MARKS[index], markersize=4,
            linewidth=1.6 if ours else 1.0, markerfacecolor=None if ours else "white",
        )  # fmt: skip
        handles.append(matplotlib.lines.Line2D([], [], label=curve.label, **style))
        for cell, (_, cost) in zip(cells, axes, strict=True):
            told = [point for point in curve.points if cost(point) is not None]
            cell.loglog([cost(point) for point in told], [point.error for point in told], **style)
    for cell, (label, _) in zip(cells, axes, strict=True):
        cell.set_xlabel(label)
        low, high = cell.get_xlim()
        cell.xaxis.set_minor_formatter(NullFormatter())
        if high < 30 * low:  # one power of ten is no scale
            cell.xaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
            for part in (cell.xaxis.set_major_formatter, cell.xaxis.set_minor_formatter):
                part(FuncFormatter(lambda x, _: f"{x:g}"))
        cell.grid(True, which="major", color="0.9")
        cell.set_axisbelow(True)
    cells[0].set_title(panel.title, fontsize=11)
    # Below: inside there is no room for it that no curve goes through.
    cells[-1].legend(
        handles=handles, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2,
        frameon=False,
    )  # fmt: skip
