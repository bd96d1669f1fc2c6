"""The pictures of a posterior: the path of each chain, and each pair of parameters."""

from typing import TYPE_CHECKING

import numpy as np

from ..reports.figures import COLOURS, INK, SOFT, STYLE, png, text

if TYPE_CHECKING:
    from .posterior import Posterior

#: Parameters that get a panel of their own; the others are in the table.
MAX_TRACES, MAX_PAIRS = 20, 7
_POINTS = 1500


def trace_figure(posterior: "Posterior") -> bytes:
    """Of each parameter the draws of every chain in turn, and their distribution, as PNG."""
    import matplotlib
    from matplotlib.figure import Figure

    drawn = list(posterior._all().items())[:MAX_TRACES]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 1.25 * len(drawn) + 0.7), layout="constrained")
        panels = figure.subplots(len(drawn), 2, squeeze=False, width_ratios=[3, 1.3])
        for (name, x), (path, shape) in zip(drawn, panels, strict=True):
            bins = np.histogram_bin_edges(x, 40)
            for chain, row in enumerate(x):
                colour = COLOURS[chain % len(COLOURS)]
                path.plot(row, color=colour, linewidth=0.5, alpha=0.8)
                shape.hist(row, bins=bins, histtype="step", color=colour, density=True)
            where = np.argwhere(posterior.divergent)
            for chain, draw in where:
                path.plot(draw, x[chain, draw], "x", color=INK, markersize=3)
            path.set_ylabel(text(name))
            shape.set_yticks([])
        panels[0, 0].set_title("each chain (crosses: divergent paths)", loc="left")
        panels[0, 1].set_title("distribution", loc="left")
        panels[-1, 0].set_xlabel("draw")
        return png(figure)


def pairs_figure(posterior: "Posterior") -> bytes:
    """Each pair of parameters as points, each parameter as a histogram, as PNG."""
    import matplotlib
    from matplotlib.figure import Figure

    drawn = [(name, x.reshape(-1)) for name, x in list(posterior._all().items())[:MAX_PAIRS]]
    total = posterior.divergent.size
    which = np.unique(np.linspace(0, total - 1, min(total, _POINTS)).astype(int))
    odd = np.flatnonzero(posterior.divergent.reshape(-1))
    n = len(drawn)
    with matplotlib.rc_context(STYLE):
        size = max(1.5 * n + 0.6, 3.0)
        figure = Figure(figsize=(size, size), layout="constrained")
        panels = figure.subplots(n, n, squeeze=False, sharex="col")
        for i, (row_name, y) in enumerate(drawn):
            for j, (column_name, x) in enumerate(drawn):
                axes = panels[i, j]
                if j > i:
                    axes.set_visible(False)
                    continue
                if i == j:
                    axes.hist(x, bins=40, color=COLOURS[0], alpha=0.6)
                    axes.set_yticks([])
                else:
                    axes.plot(x[which], y[which], ".", color=COLOURS[0], markersize=1.5, alpha=0.4)
                    axes.plot(x[odd], y[odd], "x", color=INK, markersize=3)
                    if j > 0:
                        axes.set_yticklabels([])
                    else:
                        axes.set_ylabel(text(row_name))
                axes.tick_params(labelbottom=i == n - 1, labelsize=7, color=SOFT)
                if i == n - 1:
                    axes.set_xlabel(text(column_name))
        return png(figure)
