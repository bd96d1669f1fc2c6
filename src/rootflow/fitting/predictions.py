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
from .population.forecast import DRAWS, PopulationForecast
from .population.result import PopulationResult
from .population.simulate import PopulationSimulation
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
    shown: FitResult | Forecast, ts: Float[np.ndarray, "groups times"], path: Path, source: str,
    draws: int = DRAWS, seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Predictions with both bands: `predictions.csv`, `predictions.png`, `predictions.json`.

    Of a population also those of the typical subjects and of drawn ones.

    Args:
        shown: what predicts.
        ts: times, increasing in each group.
        path: the folder, which appears whole or not at all.
        source: where the fit is from.
        draws: of a population, subjects drawn for each group.
        seed: of the draws.

    Returns:
        The content of `predictions.json`.

    Raises:
        InputError: as `check_predictions`.
        OSError: the folder cannot be written.
    """
    if isinstance(shown, PopulationResult | PopulationForecast):
        from .population.predictions import write_predictions as of_population

        forecast = shown.under() if isinstance(shown, PopulationResult) else shown
        return of_population(forecast, ts, path, source, draws, seed)
    check_predictions(path)
    curve, spread = shown.predict(ts, noise=False), shown.predict(ts, noise=True)
    told = record(PREDICT, shown, ts) | {"fit": source, "curve": curve, "measurement": spread}
    return _write(path, "predictions", shown, ts, curve, spread, told)


def write_simulation(simulation: Simulation, path: Path) -> dict[str, Any]:
    """A simulation: `simulation.csv`, `simulation.png`, `simulation.json`.

    Returns:
        The content of `simulation.json`.

    Raises:
        InputError: as `check_simulation`.
        OSError: the folder cannot be written.
    """
    if isinstance(simulation, PopulationSimulation):
        from .population.predictions import write_simulation as of_population

        return of_population(simulation, path)
    check_simulation(path)
    order = np.argsort(simulation.times, axis=1, kind="stable")
    ts = np.take_along_axis(simulation.times, order, 1)
    sort = lambda x: np.take_along_axis(x, order, 1)
    curve = {name: (sort(x), sort(x), sort(x)) for name, x in simulation.curves.items()}
    told = record(SIMULATE, simulation, ts) | {
        "values": simulation.values,
        "curves": {name: parts[0] for name, parts in curve.items()},
    }
    return _write(path, "simulation", simulation, ts, curve, None, told)


def record(program: str, shown: Shown, ts: np.ndarray) -> dict[str, Any]:
    """What the JSON documents of both commands have."""
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
    told: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    picture = fit_figure(shown, ts, curve, spread)
    return place(path, stem, plain(told), predictions_table(shown, ts, curve, spread), picture)


def place(
    path: Path, stem: str, told: dict[str, Any], table: str, picture: bytes
) -> dict[str, Any]:
    """Writes the three files, all or none; returns what the JSON document holds."""
    with _atomic.folder(path) as draft:
        text = json.dumps(told, indent=1, allow_nan=False, ensure_ascii=False)
        _atomic.write_text(draft / f"{stem}.json", text + "\n")
        _atomic.write_text(draft / f"{stem}.csv", table)
        _atomic.write_bytes(draft / f"{stem}.png", picture)
    return told
