"""What a comparison declares."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Build = Callable[[], Callable[[], Any]]


@dataclass(frozen=True)
class Row:
    """One thing that both sides do.

    Attributes:
        name: what is done, with the size of the problem.
        ours: builds a function without arguments that does it once. Each call of `ours()` gives a
            new one, which has not been compiled. Set-up that is not to be timed belongs here.
        peer: the same for the peer; it imports the peer itself.
        bar: the most that ours / peer may be; None where the row is for information.
        kind: `"run"` times warm calls, `"first call"` times the first call of a new function, with
            tracing and compilation.
        error: the achieved error of a result, against something tighter than both.
        peer_name: who the peer is in this row, where it is not the comparison's.
        peer_version: the version of a peer that is not a Python package, or `None` without it.
    """

    name: str
    ours: Build
    peer: Build
    bar: float | None = None
    kind: Literal["run", "first call", "memory"] = "run"
    error: Callable[[Any], float] | None = None
    peer_name: str | None = None
    peer_version: Callable[[], str | None] | None = None


@dataclass(frozen=True)
class Comparison:
    """One file: what is compared, with whom, and the rows.

    Attributes:
        title: the problem, the precision and the tolerances.
        peer: the distribution to compare with, as `import` names it.
        rows: makes the rows; called when the comparison is run. `quick=True` asks for less.
        pictures: writes into a folder what the comparison has to show besides its rows, after they
            have been run, and returns the paths.
    """

    title: str
    peer: str
    rows: Callable[[bool], Sequence[Row]]
    pictures: Callable[[Path], Sequence[Path]] | None = None
