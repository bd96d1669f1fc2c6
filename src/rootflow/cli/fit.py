"""`rootflow fit`: a model and data to parameters with uncertainties."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from ..fitting.fit import Progress
    from ..fitting.model import Model
    from ..fitting.result import FitResult
    from ..fitting.table import Dataset


def fit(
    model: Annotated[
        Path | None, typer.Argument(help="The model file (TOML).", show_default=False)
    ] = None,
    data: Annotated[
        Path | None, typer.Argument(help="The measurements (CSV).", show_default=False)
    ] = None,
    example: Annotated[
        str | None,
        typer.Option(
            help="Fit a bundled example instead: hare-lynx or theophylline.", show_default=False
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
    profile: Annotated[
        bool, typer.Option("--profile", help="Also compute profile-likelihood intervals.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the results as JSON and nothing else.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print errors only.")] = False,
) -> None:
    """Fit a differential equation to data: parameters with uncertainties, figures, a report.

    Give a model file and a data table, or --example NAME to see one. Exit code 0: the fit
    converged. 1: it did not; the results are written all the same. 2: the input cannot be used,
    and nothing is written.
    """
    from ..errors import RootflowError

    try:
        description, dataset = _load(model, data, example)
        out = Path(f"fit-{description.name}") if out is None else out
        result = _run(
            description, dataset, out,
            starts=starts, seed=seed, profile=profile, as_json=as_json, quiet=quiet,
        )  # fmt: skip
    except RootflowError as error:
        _refuse(str(error))
    except OSError as error:
        _refuse(f"{out}: the results cannot be written ({error.strerror or error}). Name another "
                "folder with --out.")  # fmt: skip
    except KeyboardInterrupt:
        typer.echo("Interrupted; nothing is written.", err=True)
        raise typer.Exit(130) from None
    if not result.converged:
        typer.echo(f"The fit did not converge. {result.message}", err=True)
        raise typer.Exit(1)


def _refuse(message: str) -> NoReturn:
    typer.echo(f"Error: {message}", err=True)
    raise typer.Exit(2)


def _load(model: Path | None, data: Path | None, example: str | None) -> "tuple[Model, Dataset]":
    from ..fitting.examples import NAMES, example_files

    if example is not None:
        if model is not None or data is not None:
            _refuse("--example brings its own model and data; give it alone.")
        model, data = example_files(example)
    elif model is None:
        _refuse(f"Give MODEL.toml and DATA.csv, or --example {' or --example '.join(NAMES)}.")
    elif data is None:
        _refuse(f"{model}: the data are missing; give MODEL.toml and DATA.csv.")
    elif data.suffix.lower() == ".toml" and model.suffix.lower() != ".toml":
        _refuse(f"The model file comes first: rootflow fit {data} {model}")

    import jax

    jax.config.update("jax_enable_x64", True)
    from ..fitting.modelfile import load_model
    from ..fitting.table import assemble, load_table

    description = load_model(model)
    return description, assemble(description, load_table(data))


def _run(
    model: "Model",
    dataset: "Dataset",
    out: Path,
    *,
    starts: int | None,
    seed: int,
    profile: bool,
    as_json: bool,
    quiet: bool,
) -> "FitResult":
    from rich.console import Console

    from ..fitting.fit import fit as fit_model
    from ..fitting.output import check_folder, write_results
    from ..fitting.terminal import print_result

    check_folder(out)
    with _progress(shown=not (quiet or as_json)) as report:
        result = fit_model(
            model, dataset, starts=starts, seed=seed, profile=profile, progress=report
        )
    record = write_results(result, out)
    if as_json:
        typer.echo(json.dumps(record, allow_nan=False, ensure_ascii=False))
    elif not quiet:
        console = Console()
        print_result(result, console)
        console.print(f"Results: {out / 'report.html'}", soft_wrap=True, highlight=False)
    return result


@contextlib.contextmanager
def _progress(*, shown: bool) -> "Iterator[Progress | None]":
    """A bar with the best cost so far, on standard error if that is a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not (shown and console.is_terminal):
        yield None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn("fit"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[message]}"),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task("fit", total=1.0, message="compiling")

        def report(fraction: float, best: float, message: str) -> None:
            text = f"best cost {best:.6g}, {message}"
            bar.update(task, completed=min(max(fraction, 0.0), 1.0), message=text)

        yield report
