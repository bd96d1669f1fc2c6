"""`rootflow predict` and `rootflow simulate`: a model at other times and under other conditions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import compiling
from .options import AsJson, Decimal, Draws, Missing, Out, Quiet, Seed, Times, tell
from .streams import all_or_nothing, plain, refuse

if TYPE_CHECKING:
    import numpy as np

    from ..fitting.model import Model
    from ..tables.table import Table


def predict(
    fit: Annotated[
        Path, typer.Argument(help="The folder of a fit, as rootflow fit left it.", metavar="FIT")
    ],
    times: Times = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Another table: new groups, covariates, conditions, doses and times. What the "
            "model observes may be missing in it.",
            show_default=False,
        ),
    ] = None,
    subjects: Annotated[
        str | None,
        typer.Option(
            help="Of a population, the subjects that are wanted, with commas between. "
            "Default: all.",
            show_default=False,
        ),
    ] = None,
    draws: Draws = None,
    seed: Seed = None,
    out: Out = None,
    missing: Missing = None,
    decimal: Decimal = ".",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Predict with a fitted model at other times and under other conditions, with 95 % bands.

    Of a population: each subject (new ones are drawn), the typical subject, and subjects drawn from
    the population. Writes predictions.csv, a figure and predictions.json. Exit code 0: they are
    written. 2: the input cannot be used, or the model cannot be solved so far, and nothing is
    written.
    """
    with all_or_nothing(lambda: out):
        _double_precision()
        from ..fitting.output import fine_times
        from ..fitting.predict import times as rows_of
        from ..fitting.predictions import check_predictions, write_predictions
        from ..fitting.store import load_fit

        shown: Any = load_fit(fit)
        out = Path(f"predict-{shown.model.name}") if out is None else out
        check_predictions(out)
        asked = _asked(times, shown.model)
        options = _drawn(shown.model, draws=draws, seed=seed, subjects=subjects)
        wanted = options.pop("subjects", None)
        if data is not None or wanted is not None:
            table = None if data is None else _table(data, missing, decimal)
            wanted = {} if wanted is None else {"subjects": [x.strip() for x in wanted.split(",")]}
            shown = shown.under(data=table, **wanted)
        groups = len(shown.dataset.groups)
        ts = fine_times(shown.dataset) if asked is None else rows_of(asked, groups)
        record = write_predictions(shown, ts, out, str(fit), **options)
    _tell(record, out / "predictions.csv", as_json, quiet)


def simulate(
    model: Annotated[
        Path,
        typer.Argument(
            help="A model file (TOML), the folder of a fit, or a PEtab problem (problem.yaml).",
            metavar="MODEL",
            show_default=False,
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Argument(
            help="A table (CSV) of groups, covariates, doses and times, where the model needs "
            "one; measurements in it are shown.",
            metavar="DATA",
            show_default=False,
        ),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="NAME=VALUE: a parameter or fitted initial value, NAME[GROUP]=VALUE, or with "
            "random effects 'sd(NAME)=VALUE' and 'noise of COLUMN=VALUE'; repeat it for several. "
            "Default: the guesses, of a fit what was fitted.",
            show_default=False,
        ),
    ] = None,
    times: Times = None,
    out: Out = None,
    draws: Draws = None,
    seed: Seed = None,
    method: Annotated[
        str | None,
        typer.Option(help="How to solve the equations, as in rootflow fit.", show_default=False),
    ] = None,
    missing: Missing = None,
    decimal: Decimal = ".",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Follow a model at its guesses or at values of yours; nothing is fitted.

    A fit is followed at what was fitted, over its own rows unless DATA gives others; a PEtab
    problem at its nominal values, over its measurements. With random effects: the typical subject,
    and subjects drawn from the population. Writes simulation.csv, a figure and simulation.json.
    Exit code 0: they are written. 2: the input cannot be used, or the model cannot be solved so
    far, and nothing is written.
    """
    with all_or_nothing(lambda: out):
        given = _values(values or [])
        alone = model.suffix.lower() not in (".yaml", ".yml") and not model.is_dir()
        if alone and data is None and times is None:
            refuse(
                "Give --times START:STOP:COUNT, or a table: rootflow simulate MODEL.toml DATA.csv"
            )
        _double_precision()
        from ..fitting.forecast import rows
        from ..fitting.output import fine_times
        from ..fitting.predictions import check_simulation, write_simulation
        from ..fitting.simulate import simulate as simulated
        from ..fitting.simulate import source_of

        source: Any = source_of(model)
        description = source.model
        out = Path(f"simulate-{description.name}") if out is None else out
        check_simulation(out)
        dataset: Any = source.data
        ts = _asked(times, description)
        if data is not None:
            dataset = rows(description, _table(data, missing, decimal))
        if ts is None:
            ts = fine_times(dataset)
        options = _drawn(description, draws=draws, seed=seed)
        simulation = simulated(source, ts, data=dataset, values=given, method=method, **options)
        record = write_simulation(simulation, out)
    _tell(record, out / "simulation.csv", as_json, quiet)


def _double_precision() -> None:
    compiling.prepare(keep=True)
    import jax

    jax.config.update("jax_enable_x64", True)


def _table(path: Path, missing: list[str] | None, decimal: str) -> "Table":
    from ..tables.table import load_table

    return load_table(path, missing=tuple(missing or ()), decimal=decimal)


def _asked(times: str | None, model: "Model") -> "np.ndarray | None":
    from ..fitting.forecast import asked_times

    return None if times is None else asked_times(times, model)


def _drawn(model: "Model", **options: Any) -> dict[str, Any]:
    """The options about drawn subjects that were given, which only populations have."""
    given = {name: value for name, value in options.items() if value is not None}
    if given and model.random is None:
        name = next(iter(given))
        refuse(f"--{name} is about populations, and the model has no random effects; leave it out.")
    return given


def _values(given: list[str]) -> dict[str, float]:
    values: dict[str, float] = {}
    for text in given:
        name, sign, number = text.rpartition("=")
        name = name.strip()
        try:
            value = float(number)
        except ValueError:
            sign = ""
        if not sign or not name:
            refuse(f"--set {text}: write NAME=VALUE, as --set k=0.5")
        if name in values:
            refuse(f"--set gives {name} twice.")
        values[name] = value  # pyright: ignore[reportPossiblyUnbound]
    return values


def _tell(record: dict[str, Any], path: Path, as_json: bool, quiet: bool) -> None:
    show = lambda: typer.echo(plain(f"Results: {path}"))
    tell(record, show, as_json=as_json, quiet=quiet)
