"""`rootflow fit`: a model and data to parameters with uncertainties."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..reports.progress import bar
from . import compiling
from .options import AsJson, Decimal, Missing, Quiet, tell
from .streams import all_or_nothing, plain, refuse

if TYPE_CHECKING:
    from ..fitting.model import Model
    from ..fitting.result import FitResult
    from ..fitting.search import Progress
    from ..fitting.table import Dataset


def fit(
    model: Annotated[
        Path | None,
        typer.Argument(
            help="The model file (TOML), or a PEtab problem (YAML).", show_default=False
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Argument(help="The measurements (CSV).", show_default=False)
    ] = None,
    example: Annotated[
        str | None,
        typer.Option(
            help="Fit a bundled example instead: hare-lynx, theophylline (a population) or "
            "theophylline-subjects.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The folder for the results. Default: fit-NAME.", show_default=False),
    ] = None,
    starts: Annotated[
        int | None,
        typer.Option(min=1, help="Number of searches from different starts.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random starts.")] = 0,
    screen: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Points drawn for each further search, which begins at the best of them; 0: at "
            "a drawn point itself. Default: 4.",
            show_default=False,
        ),
    ] = None,
    shooting: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Lead the drawn points on so many windows of the data at once, whose starts are "
            "unknowns too (multiple shooting), for models that oscillate. Default: 0, none.",
            show_default=False,
        ),
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Also compute profile-likelihood intervals.")
    ] = False,
    estimation: Annotated[
        str | None,
        typer.Option(
            help="Of a model with random effects, how their likelihood is maximised: fo, foce, "
            "focei, laplace or saem. Default: what the model says, or focei.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="How to solve the equations: auto, explicit, stiff, or a method's name, such as "
            "Kvaerno5. Default: what the model says, or auto.",
            show_default=False,
        ),
    ] = None,
    rtol: Annotated[
        float | None,
        typer.Option(
            help="Relative tolerance of the solves. Default: what the model says, or 1e-8.",
            show_default=False,
        ),
    ] = None,
    atol: Annotated[
        float | None,
        typer.Option(
            help="Absolute tolerance of the solves. Default: what the model says, or 1e-10.",
            show_default=False,
        ),
    ] = None,
    max_steps: Annotated[
        int | None,
        typer.Option(
            help="The most steps of a solve. Default: what the model says, or 512, and 16384 where "
            "those do not do.",
            show_default=False,
        ),
    ] = None,
    max_iterations: Annotated[
        int | None,
        typer.Option(min=1, help="Trial steps of a search. Default: 200.", show_default=False),
    ] = None,
    missing: Missing = None,
    decimal: Decimal = ".",
    cache: Annotated[
        bool,
        typer.Option(
            "--cache/--no-cache",
            help="Keep compiled programs in the user's cache folder (or in ROOTFLOW_CACHE), so "
            "that the next fit of the same model starts at once.",
        ),
    ] = True,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Fit a differential equation to data: parameters with uncertainties, figures, a report.

    Give a model file and a data table, or a PEtab problem (problem.yaml), or --example NAME to see
    one. Exit code 0: the fit
    converged. 1: it did not; the results are written all the same. 2: the input cannot be used,
    and nothing is written.
    """
    asked = {
        "method": method, "rtol": rtol, "atol": atol, "max_steps": max_steps,
        "max_iterations": max_iterations, "screen": screen,
        "shooting": shooting,
    }  # fmt: skip
    options = {name: value for name, value in asked.items() if value is not None}
    with all_or_nothing(lambda: out):
        compiling.prepare(keep=cache)
        description, dataset, text = _load(model, data, example, tuple(missing or ()), decimal)
        if estimation is not None:
            from ..fitting.population import estimated

            description = estimated(description, estimation)
        out = Path(f"fit-{description.name}") if out is None else out
        result, record = _run(
            description, dataset, text, out, shown=not (quiet or as_json),
            starts=starts, seed=seed, profile=profile, **options,
        )  # fmt: skip
    place = out
    tell(record, lambda: _show(result, place), as_json=as_json, quiet=quiet)
    if not result.converged:
        typer.echo(f"The fit did not converge. {result.message}", err=True)
        raise typer.Exit(1)


def _load(
    model: Path | None,
    data: Path | None,
    example: str | None,
    missing: tuple[str, ...],
    decimal: str,
) -> "tuple[Model, Dataset, str]":
    """The model, its data, and the text of its file."""
    from ..fitting.examples import NAMES, example_files

    if example is not None:
        if model is not None or data is not None:
            refuse("--example brings its own model and data; give it alone.")
        if missing or decimal != ".":
            refuse("--example brings its own data: leave out --missing and --decimal.")
        model, data = example_files(example)
    elif model is None:
        refuse(f"Give MODEL.toml and DATA.csv, or --example {' or --example '.join(NAMES)}.")
    elif model.suffix.lower() in (".yaml", ".yml"):
        if data is not None or missing or decimal != ".":
            refuse(f"{model} is a PEtab problem, which names its own data: give it alone.")
        return _petab(model)
    elif data is None:
        refuse(f"{model}: the data are missing; give MODEL.toml and DATA.csv.")
    elif data.suffix.lower() == ".toml" and model.suffix.lower() != ".toml":
        refuse(f"The model file comes first: rootflow fit {data} {model}")

    import jax

    jax.config.update("jax_enable_x64", True)
    from ..fitting.described import model_of
    from ..fitting.table import assemble, load_table

    description, text = model_of(model)
    table = load_table(data, missing=missing, decimal=decimal)
    return description, assemble(description, table), text


def _petab(problem: Path) -> "tuple[Model, Dataset, str]":
    import jax

    jax.config.update("jax_enable_x64", True)
    from ..fitting.petab import load_petab
    from ..fitting.petab.load import as_model_file

    return *load_petab(problem), as_model_file(problem)[0]


def _run(
    model: "Model", dataset: "Dataset", text: str, out: Path, *, shown: bool, **options: Any
) -> "tuple[FitResult, dict[str, Any]]":
    """The fit and the content of its `fit.json`, once everything is in its folder."""
    from ..fitting.fit import fit as fit_model
    from ..fitting.output import check_folder, write_results

    check_folder(out)
    with _progress(shown=shown) as report:
        result = fit_model(model, dataset, progress=report, **options)
    result = replace(result, model_text=text)
    return result, write_results(result, out)


def _show(result: "FitResult", out: Path) -> None:
    from rich.console import Console

    from ..fitting.terminal import print_result

    console = Console()
    print_result(result, console)
    text = plain(f"Results: {out / 'report.html'}")
    console.print(text, soft_wrap=True, highlight=False, markup=False)


@contextlib.contextmanager
def _progress(*, shown: bool) -> "Iterator[Progress | None]":
    """A bar with the best cost so far, on standard error if that is a terminal."""
    with bar("fit", shown=shown) as report:
        if report is None:
            yield None
            return

        def told(fraction: float, best: float, message: str) -> None:
            cost = "" if math.isnan(best) else f"best cost {best:.6g}, "
            report(fraction, f"{cost}{message}")

        yield told
