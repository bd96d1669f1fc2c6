"""The folders that predictions and simulations leave behind."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from .. import _atomic
from .._machine import describe
from ..reports import folder
from ..reports.folder import plain
from .figures import Curves, Shown, fit_figure
from .output import predictions_table
from .result import FitResult, Forecast
from .simulate import Simulation

PREDICT, SIMULATE = "rootflow predict", "rootflow simulate"


def check_predictions(path: Path) -> None:
    """Makes sure that predictions may be written to `path`, as `reports.folder.check` does."""
    folder.check(path, record="predictions.json", program=PREDICT, what="prediction")


def check_simulation(path: Path) -> None:
    """The same for a simulation."""
    folder.check(path, record="simulation.json", program=SIMULATE, what="simulation")


def write_predictions(
    shown: FitResult | Forecast, ts: Float[np.ndarray, "groups times"], path: Path, source: str
) -> dict[str, Any]:
    """Predictions with both bands: `predictions.csv`, `predictions.png`, `predictions.json`.

    Args:
        shown: what predicts.
        ts: times, increasing in each group.
        path: the folder, which appears whole or not at all.
        source: where the fit is from.

    Returns:
        The content of `predictions.json`.

    Raises:
        InputError: as `check_predictions`.
        OSError: the folder cannot be written.
    """
    check_predictions(path)
    curve, spread = shown.predict(ts, noise=False), shown.predict(ts, noise=True)
    record = _record(PREDICT, shown, ts) | {"fit": source, "curve": curve, "measurement": spread}
    return _write(path, "predictions", shown, ts, curve, spread, record)


def write_simulation(simulation: Simulation, path: Path) -> dict[str, Any]:
    """A simulation: `simulation.csv`, `simulation.png`, `simulation.json`.

    Returns:
        The content of `simulation.json`.

    Raises:
        InputError: as `check_simulation`.
        OSError: the folder cannot be written.
    """
    check_simulation(path)
    order = np.argsort(simulation.times, axis=1, kind="stable")
    ts = np.take_along_axis(simulation.times, order, 1)
    sort = lambda x: np.take_along_axis(x, order, 1)
    curve = {name: (sort(x), sort(x), sort(x)) for name, x in simulation.curves.items()}
    record = _record(SIMULATE, simulation, ts) | {
        "values": simulation.values,
        "curves": {name: parts[0] for name, parts in curve.items()},
    }
    return _write(path, "simulation", simulation, ts, curve, None, record)


def _record(program: str, shown: Shown, ts: np.ndarray) -> dict[str, Any]:
    return {
        "program": program,
        "format": 1,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe(("jax", "jaxlib", "equinox", "numpy", "scipy", "matplotlib")),
        "model": {"name": shown.model.name, "source": shown.model.source},
        "data": {"source": shown.dataset.table.source, "groups": shown.dataset.groups},
        "times": ts,
    }


def _write(
    path: Path, stem: str, shown: Shown, ts: np.ndarray, curve: Curves, spread: Curves | None,
    record: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    record = plain(record)
    picture = fit_figure(shown, ts, curve, spread)
    with _atomic.folder(path) as draft:
        text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False)
        _atomic.write_text(draft / f"{stem}.json", text + "\n")
        _atomic.write_text(draft / f"{stem}.csv", predictions_table(shown, ts, curve, spread))
        _atomic.write_bytes(draft / f"{stem}.png", picture)
    return record
