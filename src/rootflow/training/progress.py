"""Tells how far a training run has got."""

import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

Report = Callable[[int, Mapping[str, float]], Any]


class Meter:
    """A context that calls a report, or draws a bar on a terminal, or is silent."""

    def __init__(self, progress: "bool | Report | None", steps: int) -> None:
        self._steps = steps
        self._report = progress if callable(progress) else None
        shown = sys.stderr.isatty() if progress is None else bool(progress)
        self._shown = shown and self._report is None
        self._bar: Any = None

    def __enter__(self) -> "Meter":
        if self._shown:
            from rich.console import Console

            from ..reports.progress import columns

            self._bar = columns(Console(stderr=True), counted=True)
            self._task = self._bar.add_task("training", total=self._steps, message="compiling")
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows the metrics after `step` steps."""
        if self._report is not None:
            self._report(step, metrics)
        elif self._bar is not None:
            shown = "  ".join(f"{k} {v:.4g}" for k, v in metrics.items() if k != "seconds")
            self._bar.update(self._task, completed=step, message=shown)
