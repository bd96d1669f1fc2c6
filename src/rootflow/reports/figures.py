"""The look of the pictures, made with matplotlib's objects; nothing is shown on a screen."""

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, SOFT, GRID = "#1d2430", "#5b6472", "#e4e7ec"
# Okabe and Ito (2008), "Color universal design": told apart by the colour-blind, dark ones first.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_DPI = 150
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.labelsize": 9.5,
    "axes.titlesize": 9.5,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-4, 5),
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "font.family": "DejaVu Sans",
}


def text(text: str) -> str:
    """Text as it is: without this, matplotlib sets what is between dollars as mathematics."""
    return text.replace("$", r"\$")


def png(figure: "Figure", dpi: int = _DPI) -> bytes:
    """The picture as a file."""
    stream = io.BytesIO()
    # Without the version in the file, equal fits give equal bytes.
    figure.savefig(stream, format="png", dpi=dpi, metadata={"Software": "rootflow"})
    return stream.getvalue()
