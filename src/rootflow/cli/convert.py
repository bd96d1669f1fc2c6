"""`rootflow convert`: a PEtab problem as a model file and a table."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Quiet
from .streams import all_or_nothing


def convert(
    problem: Annotated[
        Path, typer.Argument(help="The PEtab problem (YAML, version 1 or 2).", show_default=False)
    ],
    folder: Annotated[
        Path, typer.Argument(help="The folder for model.toml and data.csv.", show_default=False)
    ],
    quiet: Quiet = False,
) -> None:
    """Write a PEtab problem with an SBML model as a model file and a data table.

    Both can be read and changed by hand, and fitted by rootflow fit. Exit code 0: they are written.
    2: the problem cannot be used, and nothing is written.
    """
    import jax

    jax.config.update("jax_enable_x64", True)
    with all_or_nothing(lambda: folder):
        from ..fitting.petab import convert as write

        model, data = write(problem, folder)
    if not quiet:
        typer.echo(f"rootflow fit {model} {data}")
