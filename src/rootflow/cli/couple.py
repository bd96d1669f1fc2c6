"""`rootflow couple`: a profile of a diffusion couple to coefficients with bands."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..reports.progress import bar
from . import compiling
from .options import AsJson, Decimal, Quiet, tell
from .streams import all_or_nothing, plain, refuse

if TYPE_CHECKING:
    from ..materials.analysis import Analysis


def couple(
    profile: Annotated[
        Path | None,
        typer.Argument(
            help="The profile: an export of Probe for EPMA, pyDiffusion's CSV, or a plain table.",
            show_default=False,
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(help="Annealing time with its unit: 100h.", show_default=False),
    ] = None,
    molar_volume: Annotated[
        str | None,
        typer.Option(
            help="cm³/mol: V_A,V_B (ideal), a table N:V,N:V,... over the mole fraction of B, or a "
            "CSV file. Default: constant.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[str, typer.Option(help="all, wagner, den-broeder, matano or fit.")] = "all",
    elements: Annotated[
        str | None,
        typer.Option(help="A,B where the file has more than two.", show_default=False),
    ] = None,
    marker: Annotated[
        float | None,
        typer.Option(help="Position of the markers along the scan, µm.", show_default=False),
    ] = None,
    ends: Annotated[
        str | None,
        typer.Option(
            help="Mole fractions of B in the two alloys, in the order of the scan: 0,1.",
            show_default=False,
        ),
    ] = None,
    angle: Annotated[
        float, typer.Option(help="Between the scan and the diffusion direction, degrees.")
    ] = 0.0,
    knots: Annotated[int, typer.Option(min=1, help="Knots of the fit's spline.")] = 4,
    scale_error: Annotated[
        float, typer.Option(min=0.0, help="Of the length scale, in percent.")
    ] = 0.0,
    time_error: Annotated[
        float, typer.Option(min=0.0, help="Of the annealing time, in percent.")
    ] = 0.0,
    beam: Annotated[
        float, typer.Option(min=0.0, help="Width of the beam (standard deviation), µm.")
    ] = 0.0,
    thickness_error: Annotated[
        float, typer.Option(min=0.0, help="Of the thickness of each layer, µm.")
    ] = 0.0,
    bootstrap: Annotated[
        bool, typer.Option("--bootstrap", help="Bands by bootstrap instead of curvature.")
    ] = False,
    decimal: Decimal = ".",
    example: Annotated[
        str | None,
        typer.Option(
            help="Analyse a bundled synthetic profile: cu-sn or solid-solution.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The folder for the results. Default: couple-NAME.", show_default=False),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Interdiffusion, intrinsic and integrated coefficients from a measured profile, with a report.

    Give a profile, or --example NAME to see one. Exit code 0: done. 1: the fit did not converge;
    the results are written all the same. 2: the input cannot be used, and nothing is written.
    """
    options = {
        "time": time, "molar_volume": molar_volume, "angle": angle, "decimal": decimal,
        "marker": None if marker is None else marker * 1e-6,
        "elements": None if elements is None else tuple(e.strip() for e in elements.split(",")),
        "ends": None if ends is None else _pair(ends),
    }  # fmt: skip
    fit_options = {
        "scale_error": scale_error / 100, "time_error": time_error / 100, "beam": beam * 1e-6,
        "bands": "bootstrap" if bootstrap else "laplace",
    }  # fmt: skip
    place = _chosen(profile, example)
    target = Path(f"couple-{example or place.stem}") if out is None else out
    with all_or_nothing(lambda: target):
        compiling.prepare(keep=True)
        found, record = _run(
            place, target, options, shown=not (quiet or as_json),
            method=method, knots=knots, fit_options=fit_options,
            thickness_error=thickness_error * 1e-6,
        )  # fmt: skip
    tell(record, lambda: _show(found, target), as_json=as_json, quiet=quiet)
    if not found.complete:
        typer.echo(f"The fit did not converge: {found.fit.message}.", err=True)  # type: ignore
        raise typer.Exit(1)


def _pair(text: str) -> tuple[float, float]:
    try:
        first, second = (float(part) for part in text.split(","))
    except ValueError:
        refuse(f"--ends {text}: give two mole fractions, such as 0,1.")
    return first, second


def _chosen(profile: Path | None, example: str | None) -> Path:
    from ..errors import RootflowError
    from ..materials.examples import EXAMPLES, example_file

    if example is not None:
        if profile is not None:
            refuse("--example brings its own profile; give it alone.")
        try:
            return example_file(example)
        except RootflowError as error:
            refuse(str(error))
    if profile is None:
        refuse(f"Give PROFILE.csv, or --example {' or --example '.join(EXAMPLES)}.")
    return profile


def _run(
    place: Path, out: Path, options: dict[str, Any], *, shown: bool, **analysis: Any
) -> "tuple[Analysis, dict[str, Any]]":
    """The analysis and the content of its `couple.json`, once everything is in its folder."""
    import warnings

    import jax

    jax.config.update("jax_enable_x64", True)
    from ..materials.analysis import analyse
    from ..materials.files import read_profile
    from ..materials.output import check_folder, write_results

    check_folder(out)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        reading = read_profile(place, **options)
    with bar("couple", shown=shown) as report:
        found = analyse(reading, progress=report, **analysis)
    said = [str(item.message) for item in caught if issubclass(item.category, UserWarning)]
    found = found._replace(warnings=[*said, *found.warnings])
    return found, write_results(found, out)


def _show(found: "Analysis", out: Path) -> None:
    from rich.console import Console
    from rich.text import Text

    from ..materials.terminal import lines

    console = Console()
    for line in lines(found):
        console.print(plain(line), soft_wrap=True, highlight=False, markup=False)
    for warning in found.warnings:
        console.print(Text("Warning: ", "yellow").append(plain(warning), "default"))
    text = plain(f"Results: {out / 'report.html'}")
    console.print(text, soft_wrap=True, highlight=False, markup=False)
