"""The pictures of a fit, made with matplotlib's objects; nothing is shown on a screen."""

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from jaxtyping import Float

from ..reports.figures import COLOURS, SOFT, STYLE, png, text
from ..reports.plots import draw_curve
from .formats import with_unit
from .model import Model
from .result import FitResult, Start
from .shown import CURVE, DATA, MEASUREMENT, curve_panel
from .table import Dataset

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PANELS = 24
"""Groups that get a panel of their own; the rest are in the table of predictions."""
MAX_PARAMETERS = 24
"""Parameters that are drawn for each search."""
Curves = Mapping[str, tuple[Any, Any, Any]]
"""Mean, lower and upper by column, each of shape (groups, times)."""


class Shown(Protocol):
    """What has curves: a fit, a forecast, a simulation."""

    @property
    def model(self) -> Model:
        """What is observed, and how it is called."""
        ...

    @property
    def dataset(self) -> Dataset:
        """Groups and measurements."""
        ...


def fit_figure(
    result: Shown, ts: Float[np.ndarray, "groups times"], curve: Curves, spread: Curves | None
) -> bytes:
    """Data, curve and bands, a panel for each observed column (and group), as PNG.

    Args:
        result: what was fitted, predicted or simulated.
        ts: times of the curves, increasing in each group.
        curve: the model with the band of its own uncertainty.
        spread: the same with the band for a new measurement; `None`: curves without bands.
    """
    import matplotlib

    with matplotlib.rc_context(STYLE):
        if len(result.dataset.groups) == 1:
            figure = _one_experiment(result, ts, curve, spread)
        else:
            figure = _many_groups(result, ts, curve, spread)
        return png(figure)


def residuals_figure(result: FitResult) -> bytes:
    """Standardised residuals against time, and against the normal distribution, as PNG."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.8, 5.6), layout="constrained")
        over_time, quantiles = figure.subplots(2, 1)
        columns, data = list(result.model.observed), result.dataset
        for count, column in enumerate(columns):
            points = [r for r in result.residuals if r.column == column]
            times = [r.time for r in points]
            values = np.sort([r.residual for r in points])
            style = _point_style(count)
            over_time.plot(times, [r.residual for r in points], label=text(column), **style)
            normal = NormalDist()
            expected = [normal.inv_cdf((i + 0.5) / len(values)) for i in range(len(values))]
            quantiles.plot(expected, values, **style)
        over_time.axhline(0, color=SOFT, linewidth=1)
        for level in (-1.96, 1.96):
            over_time.axhline(level, color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
        _reach(over_time, 2.5)
        _time_axis(over_time)
        over_time.set_xlabel(_time_label(result))
        over_time.set_ylabel("standardised residual")
        over_time.set_title("over time (95 % are expected between the dashed lines)", loc="left")
        if len(columns) > 1:
            handles, labels = over_time.get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside upper left", ncols=min(len(columns), 4))
        ends = np.array(quantiles.get_xlim())
        quantiles.plot(ends, ends, color=SOFT, linewidth=1, zorder=1, scalex=False)
        quantiles.set_xlabel("expected, normal distribution")
        quantiles.set_ylabel("standardised residual")
        limits = any(data.side(column).any() for column in columns)
        without = " (limits have no residual)" if limits else ""
        quantiles.set_title(f"against the normal distribution{without}", loc="left")
        return png(figure)


def starts_figure(result: FitResult) -> bytes:
    """Where the searches ended, best first, and at which parameters, as PNG.

    The first panel (a waterfall) shows steps where several searches found the same minimum; the
    second, at most `MAX_PARAMETERS` parameters between their bounds, those of the best in front.
    """
    import matplotlib
    from matplotlib.figure import Figure

    starts = sorted((s for s in result.starts if np.isfinite(s.cost)), key=lambda start: start.cost)
    told = any(start.values for start in starts)
    names = result.free_names[:MAX_PARAMETERS] if told else []
    with matplotlib.rc_context(STYLE):
        height = 2.6 + 0.22 * len(names) + 0.6
        figure = Figure(figsize=(5.8, height), layout="constrained")
        ends, places = figure.subplots(2, 1, height_ratios=[2.6, 0.22 * len(names) + 0.6])
        above = np.array([start.cost for start in starts]) - starts[0].cost if starts else []
        ends.plot(np.arange(1, len(above) + 1), above, color=SOFT, linewidth=1, zorder=1)
        for start, order, height in zip(starts, range(1, len(starts) + 1), above, strict=True):
            colour = COLOURS[0] if start.reached_best else SOFT
            filled = colour if start.converged else "white"
            ends.plot(order, height, "o", color=colour, markerfacecolor=filled, markersize=5)
        ends.set_yscale("symlog", linthresh=1e-3)
        ends.set_ylim(-2e-4, max(1.0, 3 * max(above, default=0.0)))
        _whole(ends)
        ends.set_xlabel("search, best first (hollow: did not converge)")
        ends.set_ylabel("above the best")
        missing = len(result.starts) - len(starts)
        lost = f"; {missing} never had a value" if missing else ""
        ends.set_title(f"negative log-likelihood where each search ended{lost}", loc="left")
        _parameters(places, result, starts, names)
        return png(figure)


def _parameters(axes: "Axes", result: FitResult, starts: list[Start], names: list[str]):
    """A row for each parameter; each search is a point between its bounds."""
    all_names = len(result.free_names)
    rows = np.arange(len(names))
    for start in reversed([s for s in starts if s.values]):
        shares = [_share(result, i, start) for i in range(len(names))]
        best = start.reached_best
        axes.plot(
            shares, rows, "o", color=COLOURS[0] if best else SOFT, markersize=5 if best else 3.5,
            markerfacecolor="none", zorder=3 if best else 2, clip_on=False,
        )  # fmt: skip
    axes.set_yticks(rows, [text(name) for name in names])
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 1], ["lowest", "highest"])
    first = f"the first {len(names)} of {all_names} " if all_names > len(names) else ""
    axes.set_title(
        f"{first}parameters between their bounds (the best searches in colour)", loc="left"
    )


def _share(result: FitResult, index: int, start: Start) -> float:
    """Where a parameter lies between its bounds, or the ends of the searches where it has none."""
    parameter = result.model.fitted[result.free_names[index].split("[")[0]]
    found = [s.values[index] for s in result.starts if s.values and np.isfinite(s.cost)]
    low, high = parameter.limits
    change = np.log if parameter.scale == "log" else np.asarray
    low = low if np.isfinite(change(low)) else min(found)
    high = high if np.isfinite(high) else max(found)
    low, high, value = (float(change(x)) for x in (low, high, start.values[index]))
    return 0.5 if high <= low else (value - low) / (high - low)


def _whole(axes: "Axes"):
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _one_experiment(
    result: Shown, ts: np.ndarray, curve: Curves, spread: Curves | None
) -> "Figure":
    from matplotlib.figure import Figure

    columns = list(result.model.observed)
    height = 3.2 if len(columns) == 1 else 2.2 * len(columns) + 0.6
    figure = Figure(figsize=(5.8, height), layout="constrained")
    panels = figure.subplots(len(columns), 1, sharex=True, squeeze=False)[:, 0]
    for count, (column, axes) in enumerate(zip(columns, panels, strict=True)):
        _draw(axes, result, 0, column, ts, curve, spread, count)
        axes.set_ylabel(text(with_unit(column, result.model.units.get(column, ""))))
        _vertical_scale(axes, result, column)
    _time_axis(panels[-1])
    panels[-1].set_xlabel(_time_label(result))
    _legend(figure, list(panels))
    return figure


def _many_groups(result: Shown, ts: np.ndarray, curve: Curves, spread: Curves | None) -> "Figure":
    from matplotlib.figure import Figure

    groups, columns = result.dataset.groups, list(result.model.observed)
    count = min(len(groups), MAX_PANELS)
    across = min(3, count)
    down = math.ceil(count / across)
    figure = Figure(figsize=(6.4, (1.6 * down + 0.5) * len(columns) + 0.6), layout="constrained")
    blocks = np.atleast_1d(figure.subfigures(len(columns), 1))  # type: ignore[arg-type]
    for number, (column, block) in enumerate(zip(columns, blocks, strict=True)):
        panels = block.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        for group, axes in enumerate(panels.flat):
            if group >= count:
                axes.set_visible(False)
                continue
            _draw(axes, result, group, column, ts, curve, spread, number)
            name = groups[group] if len(groups[group]) <= 24 else f"{groups[group][:21]}..."
            axes.set_title(text(f"{result.model.group} {name}"), loc="left", pad=3)
            # Below the last panel of a column that ends early there is none to carry the numbers.
            axes.tick_params(labelbottom=group + across >= count)
        _vertical_scale(panels[0, 0], result, column)
        _time_axis(panels[0, 0])
        label = with_unit(column, result.model.units.get(column, ""))
        block.supylabel(text(label), fontsize=9.5)
        block.supxlabel(_time_label(result), fontsize=9.5)
    some = f"the first {count} of {len(groups)} groups; all are in predictions.csv"
    title = some if count < len(groups) else None
    _legend(figure, [axes for block in blocks for axes in block.axes], title)
    return figure


def _draw(
    axes: "Axes",
    result: Shown,
    group: int,
    column: str,
    ts: np.ndarray,
    curve: Curves,
    spread: Curves | None,
    colour: int,
):
    for part in curve_panel(result, group, column, ts, curve, spread, colour).curves:
        draw_curve(axes, part)


def _vertical_scale(axes: "Axes", result: Shown, column: str):
    """Logarithmic where the noise is and the data span more than two decades."""
    values = result.dataset.values[column]
    values = values[np.isfinite(values)]
    if not len(values):
        return
    if result.model.noise[column].logarithmic and values.max() > 100 * values.min():
        axes.set_yscale("log")
    elif values.min() >= 0:
        axes.set_ylim(bottom=0)


def _time_axis(axes: "Axes"):
    from matplotlib.ticker import MaxNLocator

    # Without steps of 2.5, years and other whole times get whole labels.
    axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", steps=[1, 2, 5, 10]))


def _legend(figure: "Figure", panels: list["Axes"], title: str | None = None):
    """One for all panels: what a later one has first, such as limits, is in it too."""
    found: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    wanted = (*(name for name, _ in DATA.values()), "model", CURVE, MEASUREMENT)
    order = [name for name in wanted if name in found]
    figure.legend(
        [found[name] for name in order],
        order,
        loc="outside upper left",
        ncols=4,
        columnspacing=1.4,
        handlelength=1.6,
        title=title,
        alignment="left",
    )


def _point_style(count: int) -> dict[str, Any]:
    return dict(
        linestyle="",
        marker="os^Dvp"[count % 6],
        markersize=4.2,
        markerfacecolor="none",
        markeredgecolor=COLOURS[count % len(COLOURS)],
        markeredgewidth=1.2,
        zorder=3,
    )


def _reach(axes: "Axes", size: float):
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -size), max(high, size))


def _time_label(result: Shown) -> str:
    return text(with_unit(result.model.time, result.model.units.get(result.model.time, "")))
