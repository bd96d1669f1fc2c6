"""Draws results: `rf.plot`, and the small pictures of notebooks.

Figures are made with matplotlib's objects: no window opens, `pyplot` and its settings are not
touched.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import ArrayLike

from ..errors import InputError
from .figures import COLOURS, INK, STYLE, png, text
from .panels import Counts, Curve, Lines, Map, Panel, Points, Tiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 5.8, 2.5
_SMALL_DPI = 80
#: So many rows and columns of a map are drawn, and images of a batch.
_CELLS, _IMAGES = 400, 32
#: Numbers beyond it are as good as infinite for an axis.
_LARGEST = 1e30


def plot(result: Any, *, axes: Any = None) -> "Figure":
    """Draws a result: states over time, data beside the fitted curve, losses over steps, samples.

    Args:
        result: what a solve, `rf.fit`, `rf.train` or `generative.sample(..., full=True)` returned.
        axes: matplotlib's axes to draw into: one, or a sequence of as many as there are panels.
            Without it a new figure is made, which shows itself in a notebook and is written by
            `figure.savefig("result.png")`; `pyplot` has no part in it.

    Returns:
        The figure.

    Raises:
        InputError: something that is no result, one that is traced or has nothing to draw (a single
            number), or another number of axes than of panels.
    """
    account = getattr(result, "_account_", None)
    if account is None:
        raise InputError(
            f"rf.plot draws results (of a solve, a fit, a training run, sampling); got "
            f"{type(result).__name__}."
        )
    panels = account().panels
    if panels is None:
        raise InputError(
            "Inside jit, vmap or grad a result has no values to draw: plot it outside."
        )
    panels = panels()
    if not panels:
        raise InputError(
            "There is nothing to draw: the result holds single numbers. Of a solve, ask for more "
            'times, as saveat=jnp.linspace(t0, t1, 100) or saveat="dense".'
        )
    if axes is None:
        return figure(panels)
    given = np.atleast_1d(np.asarray(axes, object)).ravel()
    if len(given) != len(panels):
        raise InputError(f"axes: {len(given)} were given for {len(panels)} panels.")
    for place, panel in zip(given, panels, strict=True):
        draw(place, panel)
    return given[0].figure


def figure(panels: Sequence[Panel]) -> "Figure":
    """A figure of panels below one another."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        made = _shown()(figsize=(_WIDTH, _HEIGHT * len(panels) + 0.3), layout="constrained")
        places = made.subplots(len(panels), 1, squeeze=False)[:, 0]
        for place, panel in zip(places, panels, strict=True):
            draw(place, panel)
        return made


def small(panels: Sequence[Panel]) -> bytes:
    """The same as PNG, of a size for a page with other things on it."""
    import matplotlib

    made = figure(panels)
    with matplotlib.rc_context(STYLE):
        return png(made, dpi=_SMALL_DPI)


def draw(axes: "Axes", panel: Panel) -> None:
    """Draws one panel."""
    drawn = {Lines: _lines, Map: _map, Points: _points, Counts: _counts, Tiles: _tiles}
    drawn[type(panel)](axes, panel)
    if panel.title:
        axes.set_title(text(panel.title), loc="left")


def draw_curve(axes: "Axes", curve: Curve) -> None:
    """Draws a curve with its bands, or points."""
    colour = INK if curve.colour is None else COLOURS[curve.colour % len(COLOURS)]
    for band in curve.bands:
        axes.fill_between(
            curve.x, _finite(band.low), _finite(band.high), color=colour, alpha=band.shade,
            linewidth=0, label=text(band.label),
        )  # fmt: skip
    label = text(curve.label) or None
    y = _finite(curve.y)
    if curve.points or np.isfinite(y).sum() == 1:
        axes.plot(
            curve.x, y, linestyle="", marker=curve.marker, markersize=4,
            markerfacecolor="white", markeredgecolor=colour, markeredgewidth=1.1, label=label,
            clip_on=False, zorder=4,
        )  # fmt: skip
    else:
        width, alpha = (0.8, 0.5) if curve.thin else (1.6, 1.0)
        axes.plot(curve.x, y, color=colour, linewidth=width, alpha=alpha, label=label)


def _lines(axes: "Axes", panel: Lines) -> None:
    for curve in panel.curves:
        draw_curve(axes, curve)
    if panel.log == "y" and any((curve.y > 0).any() for curve in panel.curves):
        axes.set_yscale("log")
    if panel.places:
        _whole(axes.xaxis)
    _labels(axes, panel)
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        legend = axes.legend(
            handles, labels, loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2
        )
        for line in legend.get_lines():
            line.set_alpha(1.0)
            line.set_linewidth(1.6)


def _map(axes: "Axes", panel: Map) -> None:
    x, y, values = panel.x, panel.y, _finite(panel.values)
    across, down = -(-len(x) // _CELLS), -(-len(y) // _CELLS)
    x, y, values = x[::across], y[::down], values[::down, ::across]
    order = np.argsort(x, kind="stable")  # time may run backwards
    drawn = axes.pcolormesh(
        _edges(x[order]), _edges(y), values[:, order], cmap="viridis", rasterized=True
    )
    axes.grid(False)
    _whole(axes.yaxis)
    figure = axes.figure
    figure.colorbar(drawn, ax=axes, pad=0.02)  # pyright: ignore[reportAttributeAccessIssue]
    _labels(axes, panel)


def _points(axes: "Axes", panel: Points) -> None:
    places = _finite(panel.places)
    size = float(np.clip(2000 / max(len(places), 1), 1.0, 16.0))
    axes.scatter(places[:, 0], places[:, 1], s=size, color=COLOURS[0], linewidths=0)
    axes.set_aspect("equal", adjustable="datalim")


def _counts(axes: "Axes", panel: Counts) -> None:
    numbers = _finite(panel.numbers)
    numbers = numbers[np.isfinite(numbers)]
    bins = int(np.clip(np.sqrt(numbers.size), 5, 60))
    low, high = (numbers.min(), numbers.max()) if numbers.size else (0.0, 1.0)
    room = 0.0 if high > low else 0.5 * max(abs(low), 1.0)
    axes.hist(numbers, bins=bins, range=(low - room, high + room), color=COLOURS[0])
    axes.set_ylabel("count")


def _tiles(axes: "Axes", panel: Tiles) -> None:
    images = _finite(panel.images[:_IMAGES])
    across = min(len(images), 8)
    down = -(-len(images) // across)
    finite = images[np.isfinite(images)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    images = np.nan_to_num((images - low) / ((high - low) or 1.0))
    height, width, *colours = images.shape[1:]
    sheet = np.ones((down * (height + 1) - 1, across * (width + 1) - 1, *colours))
    for place, image in enumerate(images):
        row, column = divmod(place, across)
        top, left = row * (height + 1), column * (width + 1)
        sheet[top : top + height, left : left + width] = image
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()


def _whole(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))


def _labels(axes: "Axes", panel: Lines | Map) -> None:
    axes.set_xlabel(text(panel.xlabel))
    axes.set_ylabel(text(panel.ylabel))


def _finite(values: ArrayLike) -> np.ndarray:
    """What an axis can show; the rest is a gap."""
    values = np.asarray(values, float)
    return np.where(np.abs(values) <= _LARGEST, values, np.nan)


def _edges(middles: np.ndarray) -> np.ndarray:
    """Where the cells about the middles begin and end."""
    middles = np.asarray(middles, float)
    if len(middles) == 1:
        return middles[0] + np.array([-0.5, 0.5])
    between = (middles[1:] + middles[:-1]) / 2
    return np.concatenate([[1.5 * middles[0] - 0.5 * middles[1]], between,
                           [1.5 * middles[-1] - 0.5 * middles[-2]]])  # fmt: skip


def _shown() -> Any:
    """A figure that shows itself in a notebook without pyplot."""
    from matplotlib.figure import Figure

    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            return png(self)

    return Picture
