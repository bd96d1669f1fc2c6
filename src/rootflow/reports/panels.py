"""What is drawn, as numbers: `reports.plots` makes pictures of it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

#: So many curves are told apart by colour and name; more become a map, or thin lines.
FEW = 6
#: So many thin lines are drawn, of the members of a batch.
LINES = 50
#: So many leaves of a tree get a panel.
PANELS = 4


class Band(NamedTuple):
    """An area about a curve; `shade` from 0 to 1."""

    low: np.ndarray
    high: np.ndarray
    label: str
    shade: float


class Curve(NamedTuple):
    """A line, or points, over x.

    Attributes:
        x, y: of one shape (n,); what is not finite is not drawn.
        label: in the legend; empty for none.
        colour: which of the colours; None: that of the text.
        points: markers in place of a line.
        marker: which, as matplotlib calls them.
        thin: one of many.
        bands: areas about it.
    """

    x: np.ndarray
    y: np.ndarray
    label: str = ""
    colour: int | None = 0
    points: bool = False
    marker: str = "o"
    thin: bool = False
    bands: tuple[Band, ...] = ()


class Lines(NamedTuple):
    """Curves with common axes.

    `log`: which axes are logarithmic, as "y" or ""; `places`: x are whole numbers.
    """

    curves: Sequence[Curve]
    xlabel: str = ""
    ylabel: str = ""
    title: str = ""
    log: str = ""
    places: bool = False


class Map(NamedTuple):
    """Numbers by colour over x (columns) and y (rows): `values` (len(y), len(x))."""

    x: np.ndarray
    y: np.ndarray
    values: np.ndarray
    xlabel: str = ""
    ylabel: str = ""
    title: str = ""


class Points(NamedTuple):
    """Points in a plane, shape (n, 2)."""

    places: np.ndarray
    title: str = ""


class Counts(NamedTuple):
    """How many of the numbers (n,) lie where."""

    numbers: np.ndarray
    title: str = ""


class Tiles(NamedTuple):
    """Images (count, height, width), or with a last axis of 3 colours."""

    images: np.ndarray
    title: str = ""


Panel = Lines | Map | Points | Counts | Tiles


def over_time(
    ts: np.ndarray, leaves: Mapping[str, np.ndarray], batch: int, xlabel: str = "t"
) -> list[Panel]:
    """Time series, a panel for each leaf (four at most).

    Args:
        ts: times (*batch, n); rows that are not finite are left out.
        leaves: arrays (*batch, n, ...) by name.
        batch: number of leading axes of a batch.
        xlabel: what the times are.
    """
    members = ts.reshape(-1, ts.shape[-1])
    panels: list[Panel] = []
    for name, leaf in leaves.items():
        if leaf.size and len(panels) < PANELS:
            values = leaf.reshape(*members.shape, -1)
            panels.append(_series(members, values, name, leaf.shape[batch + 1 :], xlabel))
    return cut(panels, sum(leaf.size > 0 for leaf in leaves.values()))


def cut(panels: list[Panel], count: int) -> list[Panel]:
    """Tells in the last panel that not all of `count` are drawn."""
    if count > len(panels) > 0:
        last = panels[-1]
        title = f"{last.title} ({count - len(panels)} more are not drawn)".strip()
        return [*panels[:-1], last._replace(title=title)]
    return panels


def profiles(leaves: Mapping[str, np.ndarray], xlabel: str = "component") -> list[Panel]:
    """Arrays at one time: over their place where they have one axis, by colour with two."""
    panels: list[Panel] = []
    for name, leaf in leaves.items():
        if leaf.size < 2 or len(panels) == PANELS:
            continue
        leaf = np.abs(leaf) if leaf.ndim == 2 and np.iscomplexobj(leaf) else leaf
        if leaf.ndim == 2 and min(leaf.shape) > FEW:
            rows, columns = leaf.shape
            panels.append(Map(np.arange(columns), np.arange(rows), leaf, title=name))
            continue
        rows = leaf.reshape(-1, leaf.shape[-1]) if leaf.ndim == 2 else leaf.reshape(1, -1)
        rows = rows if rows.shape[0] <= FEW else leaf.reshape(1, -1)
        x, several = np.arange(rows.shape[1]), rows.shape[0] > 1
        curves = [
            Curve(x, part, _joined(prefix, f"{i}" if several else ""), colour, len(x) <= 40)
            for colour, (i, row, prefix, part) in enumerate(
                (i, row, prefix, part) for i, row in enumerate(rows) for prefix, part in _real(row)
            )
        ]
        panels.append(Lines(curves, xlabel, name, places=True))
    return cut(panels, sum(leaf.size > 1 for leaf in leaves.values()))


def _series(ts, values, name: str, shape: tuple[int, ...], xlabel: str) -> Panel:
    """One leaf: `values` (members, n, components)."""
    count, _, many = values.shape
    if many > FEW or (np.iscomplexobj(values) and many > FEW // 2):
        first = np.abs(values[0]) if np.iscomplexobj(values) else values[0]
        return _map(ts[0], first, name, xlabel, f"first of {count}" if count > 1 else "")
    names = [",".join(map(str, place)) for place in np.ndindex(shape)]
    thin = count * many > FEW
    curves, colour = [], 0
    for k in range(many):
        for prefix, part in _real(values[:, :, k]):
            for m in range(min(count, LINES)):
                told = f"{name}[{names[k]}]" if names[k] else (name if prefix else "")
                label = _joined(prefix, told) if m == 0 or not thin else ""
                if count > 1 and not thin:
                    label = f"{label} member {m}".strip()
                row = ts[m] if ts.shape[0] > 1 else ts[0]
                good = np.isfinite(row)
                curves.append(Curve(row[good], part[m][good], label, colour, thin=thin))
                colour += 0 if thin else 1
            colour += 1 if thin else 0
    title = f"the first {LINES} of {count}" if count > LINES else ""
    return Lines(curves, xlabel, name, title)


def _map(ts, values, name: str, xlabel: str, title: str) -> Panel:
    good = np.isfinite(ts)
    return Map(ts[good], np.arange(values.shape[1]), values[good].T, xlabel, f"component of {name}",
               title)  # fmt: skip


def _real(values: np.ndarray) -> list[tuple[str, Any]]:
    """Real numbers as they are; of complex ones the two parts."""
    if np.iscomplexobj(values):
        return [("Re", np.real(values)), ("Im", np.imag(values))]
    return [("", values)]


def _joined(*words: str) -> str:
    return " ".join(word for word in words if word)
