"""The folders that predictions and simulations of populations leave behind."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ...reports.folder import digits, plain
from .. import predictions
from ..figures import Curves, Shown
from . import figures
from .forecast import PopulationForecast, merged
from .simulate import PopulationSimulation

#: What each column of predictions.csv says.
COLUMNS = {
    "kind": "fitted: a subject of the fit, at its own most probable effects; new: one of which "
    "nothing is known, a median of subjects drawn from the population",
    "predicted": "the subject's curve",
    "curve_lower, curve_upper": "95 % of the subject's curve: its effects given its data (new: how "
    "subjects differ), and what is not known of the population",
    "lower, upper": "95 % of a new measurement of the subject: the same and the noise",
    "typical": "the typical subject with these covariates and doses: without random effects",
    "typical_lower, typical_upper": "95 % of the typical curve: what is not known of the "
    "population; no random effects, no noise",
    "population_lower, population_upper": "95 % of measurements of subjects drawn from the "
    "population with these covariates and doses: how subjects differ, what is not known of the "
    "population, and the noise",
}
SIMULATED = {
    "predicted": "the typical subject: without random effects",
    "median": "of the curves of drawn subjects",
    "curve_lower, curve_upper": "95 % of the curves of drawn subjects: how subjects differ",
    "lower, upper": "95 % of measurements of drawn subjects: the noise too (where its scale is "
    "known)",
}


def write_predictions(
    shown: PopulationForecast, ts: Float[np.ndarray, "groups times"], path: Path, source: str,
    draws: int, seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Subjects, typical subjects and drawn ones: `predictions.csv`, `.png` and `.json`.

    Args:
        shown: what predicts.
        ts: times, increasing in each group.
        path: the folder, which appears whole or not at all.
        source: where the fit is from.
        draws: subjects drawn for each group.
        seed: of the draws.

    Returns:
        The content of `predictions.json`.

    Raises:
        InputError: as `predictions.check_predictions`.
        OSError: the folder cannot be written.
    """
    predictions.check_predictions(path)
    population = shown.predict_population(ts, draws=draws, seed=seed)
    curve, spread = (
        merged(shown, shown._predict(ts, noise), population, noise) for noise in (False, True)
    )
    typical = shown.predict_typical(ts)
    record = predictions.record(predictions.PREDICT, shown, ts) | {
        "fit": source, "columns": COLUMNS, "draws": draws, "seed": seed, "new": shown.new,
        "curve": curve, "measurement": spread, "typical": typical,
        "population": {
            column: {"curve": x.curve, "measured": x.measured} for column, x in population.items()
        },
    }  # fmt: skip
    drawn = {column: x.measured for column, x in population.items()}
    middle = {column: parts[0] for column, parts in typical.items()}
    picture = figures.subjects_figure(shown, ts, curve, spread, middle, drawn, shown.new)
    parts = {"": curve, "_": spread, "typical": typical, "population": drawn}
    table = _table(shown, ts, _HEAD, lambda column: _lines(parts, column))
    return predictions.place(path, "predictions", plain(record), table, picture)


_HEAD = [
    "predicted", "curve_lower", "curve_upper", "lower", "upper", "typical", "typical_lower",
    "typical_upper", "population_lower", "population_upper",
]  # fmt: skip


def _lines(parts: Mapping[str, Curves], column: str) -> Iterator[np.ndarray]:
    yield from parts[""][column]
    yield from parts["_"][column][1:]
    yield from parts["typical"][column]
    yield from parts["population"][column][1:]


def write_simulation(simulation: PopulationSimulation, path: Path) -> dict[str, Any]:
    """Drawn subjects: `simulation.csv`, `simulation.png`, `simulation.json`.

    Returns:
        The content of `simulation.json`.

    Raises:
        InputError: as `predictions.check_simulation`.
        OSError: the folder cannot be written.
    """
    predictions.check_simulation(path)
    order = np.argsort(simulation.times, axis=1, kind="stable")
    ts = np.take_along_axis(simulation.times, order, 1)

    def sort(curves: Mapping[str, Any]) -> dict[str, Any]:
        return {
            column: tuple(np.take_along_axis(np.asarray(x), order, 1) for x in parts)
            for column, parts in curves.items()
        }

    typical = sort({column: (x,) for column, x in simulation.curves.items()})
    curve = sort(simulation.subjects)
    measured = sort(simulation.measured)
    record = predictions.record(predictions.SIMULATE, simulation, ts) | {
        "values": simulation.values, "columns": SIMULATED, "draws": simulation.draws,
        "seed": simulation.seed, "curves": {column: x[0] for column, x in typical.items()},
        "subjects": curve, "measured": measured,
    }  # fmt: skip
    head = ["predicted", "median", "curve_lower", "curve_upper"]
    head += ["lower", "upper"] if measured else []
    lines = lambda column: (
        *typical[column], *curve[column], *(measured[column][1:] if measured else ())
    )  # fmt: skip
    picture = figures.subjects_figure(
        simulation, ts, curve, measured or curve, {c: x[0] for c, x in typical.items()}
    )
    table = _table(simulation, ts, head, lines)
    return predictions.place(path, "simulation", plain(record), table, picture)


def _table(shown: Shown, ts: np.ndarray, head: list[str], lines: Any) -> str:
    """A row for each group, observed column and time; a measurement stands where there is one."""
    model, data = shown.model, shown.dataset
    new = getattr(shown, "new", None)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    kind = [] if new is None else ["kind"]
    writer.writerow([model.group, *kind, model.time, "column", *head, "measured"])
    for g, name in enumerate(data.groups):
        told = [] if new is None else ["new" if name in new else "fitted"]
        for column in model.observed:
            numbers = np.stack([np.asarray(x)[g] for x in lines(column)], axis=1)
            for i, t in enumerate(ts[g]):
                if i and t == ts[g][i - 1]:
                    continue
                for value in _measured(data.ts[g] == t, data.values[column][g]):
                    cells = [*map(digits, numbers[i]), value]
                    writer.writerow([name, *told, digits(t), column, *cells])
    return stream.getvalue()


def _measured(here: np.ndarray, values: np.ndarray) -> Iterable[str]:
    """The measurements at a time, or a blank cell."""
    return [digits(x) for x in values[here & np.isfinite(values)]] or [""]
