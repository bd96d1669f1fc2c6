"""The `rootflow` command and its subcommands.

What a subcommand computes with is imported when it runs, so that `--help` and mistakes in the
arguments answer at once.
"""

import sys
from typing import Annotated

import typer

from .._version import __version__
from . import streams
from .convert import convert
from .couple import couple
from .fit import fit
from .generate import generate
from .predict import predict, simulate
from .reproduce import reproduce
from .sample import sample

app: typer.Typer = typer.Typer(
    name="rootflow",
    help="Solve equations, fit models to data, and measure published claims again.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(fit)
app.command()(convert)
app.command()(couple)
app.command()(generate)
app.command()(predict)
app.command()(reproduce)
app.command()(sample)
app.command()(simulate)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rootflow {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Solve equations, fit models to data, and measure published claims again."""


def main() -> None:
    """Runs the command line; the entry point of the `rootflow` script."""
    streams.prepare()
    code: str | int | None = 0
    try:
        app()
    except SystemExit as leaving:
        code = leaving.code
    sys.exit(streams.finish(code))
