"""The pictures of a population fit: subjects, observed and predicted, visual predictive check."""

import math
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ...reports.figures import COLOURS, INK, SOFT, STYLE, png, text
from ...reports.formats import with_unit
from ..figures import MAX_PANELS, Curves, Shown
from .errors import reported
from .result import PopulationResult

#: Bins of time of the predictive check, at most.
_BINS = 12
_PERCENTILES = (5.0, 50.0, 95.0)


class Check(NamedTuple):
    """A visual predictive check of one column.

    Attributes:
        ts: middle of each bin, the median of its times.
        observed: percentiles of the data (3, bins).
        lower, upper: 95 % bands of the same percentiles of simulated data sets.
    """

    ts: Float[np.ndarray, " bins"]
    observed: Float[np.ndarray, "3 bins"]
    lower: Float[np.ndarray, "3 bins"]
    upper: Float[np.ndarray, "3 bins"]


def predictive_check(result: PopulationResult, count: int, seed: int) -> dict[str, Check]:
    """Percentiles of the data and of `count` simulated data sets, in bins of time, by column.

    As many bins as a subject has measurements (the median), that hold about as many each (Holford
    2005, PAGE 14, abstract 738).
    """
    simulated = result.simulate(count, seed=seed)
    out = {}
    for column, drawn in simulated.items():
        measured = np.isfinite(result.dataset.values[column])
        ts, y = result.dataset.ts[measured], result.dataset.values[column][measured]
        drawn = drawn[:, measured]
        own = int(np.median(measured.sum(1)))
        number = max(1, min(_BINS, own, len(np.unique(ts))))
        edges = np.unique(np.quantile(ts, np.linspace(0, 1, number + 1)))
        bins = np.clip(np.searchsorted(edges, ts, side="right") - 1, 0, max(len(edges) - 2, 0))
        kept = np.unique(bins)
        inside = [bins == b for b in kept]
        sims = np.stack([np.nanpercentile(drawn[:, i], _PERCENTILES, axis=1) for i in inside], -1)
        low, high = np.nanpercentile(sims, [2.5, 97.5], axis=1)
        out[column] = Check(
            np.array([np.median(ts[i]) for i in inside]),
            np.stack([np.percentile(y[i], _PERCENTILES) for i in inside], -1),
            low,
            high,
        )
    return out


def subjects_figure(
    result: Shown,
    ts: Float[np.ndarray, "groups times"],
    curve: Curves,
    spread: Curves,
    typical: Mapping[str, Float[np.ndarray, "groups times"]],
    population: Curves | None = None,
    new: Collection[str] = (),
) -> bytes:
    """Data, each subject's curve with its bands, and the typical one, as PNG.

    Args:
        result: what has groups and measurements.
        ts: times of the curves.
        curve: each subject, with the band of its curve.
        spread: the same, with the band of a measurement.
        typical: without random effects.
        population: of subjects drawn from it, whose interval is drawn too.
        new: subjects of which nothing is known, whose panels say so.
    """
    import matplotlib
    from matplotlib.figure import Figure

    groups, columns = result.dataset.groups, list(result.model.observed)
    count = min(len(groups), MAX_PANELS)
    across = min(3, count)
    down = math.ceil(count / across)
    size = (6.4, (1.6 * down + 0.5) * len(columns) + 0.6)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        blocks = np.atleast_1d(figure.subfigures(len(columns), 1))  # type: ignore[arg-type]
        for number, (column, block) in enumerate(zip(columns, blocks, strict=True)):
            panels = block.subplots(down, across, sharex=True, sharey=True, squeeze=False)
            for g, axes in enumerate(panels.flat):
                if g >= count:
                    axes.set_visible(False)
                    continue
                colour = COLOURS[number % len(COLOURS)]
                _subject(axes, result, g, column, ts[g], curve, spread, typical, colour)
                name = groups[g] if len(groups[g]) <= 24 else f"{groups[g][:21]}..."
                if population is not None:
                    _outline(axes, ts[g], population[column], g)
                told = " (new)" if groups[g] in new else ""
                axes.set_title(text(f"{result.model.group} {name}{told}"), loc="left", pad=3)
                axes.tick_params(labelbottom=g + across >= count)
            _from_zero(panels[0, 0], result.dataset.values[column])
            block.supylabel(_label(result, column), fontsize=9.5)
            block.supxlabel(_label(result, result.model.time), fontsize=9.5)
        handles, labels = blocks[0].axes[0].get_legend_handles_labels()
        some = f"the first {count} of {len(groups)}; all are in predictions.csv"
        figure.legend(
            handles, labels, loc="outside upper left", ncols=5, columnspacing=1.2,
            title=some if count < len(groups) else None, alignment="left",
        )  # fmt: skip
        return png(figure)


def _outline(axes, ts, interval, g):
    """The interval of subjects drawn from the population."""
    for end, label in ((1, "95 %: population"), (2, None)):
        axes.plot(ts, interval[end][g], color=SOFT, linewidth=0.9, linestyle=":", label=label)


def _subject(axes, result, g, column, ts, curve, spread, typical, colour):
    mean, low, high = (np.asarray(part)[g] for part in curve[column])
    _, least, most = (np.asarray(part)[g] for part in spread[column])
    data = result.dataset
    axes.plot(
        data.ts[g], data.values[column][g], linestyle="", marker="o", markersize=4,
        markerfacecolor="white", markeredgecolor=INK, markeredgewidth=1.1, label="data",
        clip_on=False, zorder=4,
    )  # fmt: skip
    axes.plot(ts, mean, color=colour, linewidth=1.6, label="subject")
    axes.plot(
        ts, typical[column][g], color=SOFT, linewidth=1.2, linestyle=(0, (4, 3)), label="typical"
    )
    axes.fill_between(ts, low, high, color=colour, alpha=0.32, linewidth=0, label="95 %: curve")
    axes.fill_between(
        ts, least, most, color=colour, alpha=0.13, linewidth=0, label="95 %: measurement"
    )


def observed_figure(
    result: PopulationResult,
    own: Mapping[str, Float[np.ndarray, "groups slots"]],
    typical: Mapping[str, Float[np.ndarray, "groups slots"]],
) -> bytes:
    """Measurements against the typical subject's curve and against their own subject's, as PNG.

    Args:
        result: the fit.
        own: values of each subject at the times of the data.
        typical: the same without its effects.
    """
    import matplotlib
    from matplotlib.figure import Figure

    data, columns = result.dataset, list(result.model.observed)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.1 * len(columns)), layout="constrained")
        panels = figure.subplots(len(columns), 2, squeeze=False, sharey="row")
        for number, (column, row) in enumerate(zip(columns, panels, strict=True)):
            measured = np.isfinite(data.values[column])
            y = data.values[column][measured]
            sides = (("typical subject", typical[column]), ("own subject", own[column]))
            for axes, (title, values) in zip(row, sides, strict=True):
                x = values[measured]
                ends = np.array([min(x.min(), y.min()), max(x.max(), y.max())])
                axes.plot(ends, ends, color=SOFT, linewidth=1, zorder=1)
                axes.plot(
                    x, y, linestyle="", marker="o", markersize=4, markerfacecolor="none",
                    markeredgecolor=COLOURS[number % len(COLOURS)], markeredgewidth=1.1,
                )  # fmt: skip
                axes.set_title(title, loc="left")
                axes.set_xlabel(f"predicted {_label(result, column)}")
            row[0].set_ylabel(f"observed {_label(result, column)}")
        return png(figure)


def check_figure(result: PopulationResult, checks: Mapping[str, Check]) -> bytes:
    """Percentiles of the data within the bands of simulated ones, as PNG."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.3 * len(checks)), layout="constrained")
        panels = figure.subplots(len(checks), 1, squeeze=False)[:, 0]
        for number, (axes, (column, check)) in enumerate(zip(panels, checks.items(), strict=True)):
            _bands(axes, check, *np.roll(COLOURS, -number)[:2])
            data = result.dataset
            axes.plot(
                data.ts.ravel(), data.values[column].ravel(), linestyle="", marker="o",
                markersize=3, markerfacecolor="white", markeredgecolor=SOFT, label="data",
                zorder=1.5,
            )  # fmt: skip
            axes.set_xlabel(_label(result, result.model.time))
            axes.set_ylabel(_label(result, column))
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=3, columnspacing=1.2)
        return png(figure)


def trace_figure(result: PopulationResult) -> bytes:
    """Every estimate after each iteration of SAEM, as PNG."""
    import jax
    import matplotlib
    from matplotlib.figure import Figure

    assert result.trace is not None
    lay, names = result._predictor.lay, result.free_names[: 2 * MAX_PANELS]
    with jax.enable_x64(True):
        values = np.asarray(jax.jit(jax.vmap(lambda u: reported(lay, u)))(result.trace.values))
    down = math.ceil(len(names) / 3)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 1.5 * down + 0.5), layout="constrained")
        panels = figure.subplots(down, 3, sharex=True, squeeze=False)
        for k, axes in enumerate(panels.flat):
            if k >= len(names):
                axes.set_visible(False)
                continue
            axes.axvline(result.trace.burn, color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
            axes.plot(np.arange(1, len(values) + 1), values[:, k], color=COLOURS[0], linewidth=1)
            axes.set_title(text(names[k]), loc="left", pad=3)
            axes.tick_params(labelbottom=k + 3 >= len(names))
        figure.supxlabel("iteration of SAEM (dashed: from there on, steps of 1/k)", fontsize=9.5)
        return png(figure)


def _bands(axes, check: Check, middle: str, outer: str):
    """Percentiles of the data over the bands of the simulated ones, each with its edges.

    Bands may overlap where subjects are few: the edges, and a colour of its own for the median,
    tell which is which.
    """
    for k in (0, 2, 1):
        colour = middle if k == 1 else outer
        label = {0: "95 %: 5th, 95th simulated", 1: "95 %: median simulated"}.get(k)
        axes.fill_between(
            check.ts, check.lower[k], check.upper[k], color=colour, alpha=0.2, linewidth=0,
            label=label, zorder=1,
        )  # fmt: skip
        for edge in (check.lower[k], check.upper[k]):
            axes.plot(check.ts, edge, color=colour, linewidth=0.7, alpha=0.7, zorder=1.2)
    for k, style in ((0, (0, (4, 3))), (2, (0, (4, 3))), (1, "-")):
        axes.plot(
            check.ts, check.observed[k], color=INK, linewidth=1.4, linestyle=style,
            label={0: "5th, 95th of the data", 1: "median of the data"}.get(k),
        )  # fmt: skip


def _label(result: Shown, column: str) -> str:
    return text(with_unit(column, result.model.units.get(column, "")))


def _from_zero(axes, values: np.ndarray):
    if np.isfinite(values).any() and np.nanmin(values) >= 0:
        axes.set_ylim(bottom=0)
