"""A bar on standard error where that is a terminal, lines where it is a log."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def columns(console: "Console", *, counted: bool = False) -> "Progress":
    """Bars that vanish when they are done: what runs, how far it is, its time, a word about it.

    How far: the share done and the time since the beginning, or, where what is done is `counted`,
    its number and the time that is left.
    """
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.progress import TimeElapsedColumn as Elapsed
    from rich.progress import TimeRemainingColumn as Remaining

    far = "{task.completed:.0f}/{task.total:.0f}" if counted else "{task.percentage:>3.0f}%"
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn(far),
        Remaining() if counted else Elapsed(),
        TextColumn("[dim]{task.fields[message]}"),
        console=console,
        transient=True,
    )


def lines(label: str) -> Callable[[float, str], None]:
    """For logs: a line on standard error for each new word, with the seconds until then."""
    begin, told = time.perf_counter(), [""]

    def report(fraction: float, message: str) -> None:
        if message and message != told[0]:
            told[0] = message
            seconds = time.perf_counter() - begin
            text = f"{label}: {100 * fraction:3.0f}%, {seconds:.0f} s, {message}"
            print(text, file=sys.stderr, flush=True)

    return report


@contextlib.contextmanager
def bar(label: str, *, shown: bool) -> Iterator[Callable[[float, str], None] | None]:
    """Gives a function of the share done and a word about it, or `None` where there is no bar."""
    from rich.console import Console

    console = Console(stderr=True)
    if not (shown and console.is_terminal):
        yield None
        return
    progress = columns(console)
    with progress:
        task = progress.add_task(label, total=1.0, message="compiling")

        def report(fraction: float, message: str) -> None:
            done = min(max(fraction, 0.0), 1.0)
            progress.update(task, completed=done, message=message)

        yield report
