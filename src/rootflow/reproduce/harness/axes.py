"""What the pictures of several entries have in common."""

from collections.abc import Iterable

from matplotlib.axes import Axes


def tick_at(axes: Axes, numbers: Iterable[float]) -> None:
    """Ticks along x at these numbers, written in full, and at no other."""
    numbers = list(numbers)
    axes.set_xticks(numbers, [f"{number:g}" for number in numbers])
    axes.minorticks_off()


def grid_and_legend(axes: Axes) -> None:
    """A faint grid, and a legend without a frame."""
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
