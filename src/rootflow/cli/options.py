"""Options that several commands have, and how all of them tell what they found."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print errors only.")]
Decimal = Annotated[str, typer.Option(help="The decimal mark of the table: . or ,")]
Missing = Annotated[
    list[str] | None,
    typer.Option(
        help="What stands for a missing number in the table, besides a blank cell, NA, NaN, N/A, "
        "#N/A and NULL; repeat it for several.",
        show_default=False,
    ),
]
Times = Annotated[
    str | None,
    typer.Option(
        help="START:STOP:COUNT, as 0:48:100; numbers with commas between; or a CSV file of times. "
        "Default: a fine grid over the rows.",
        show_default=False,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="The folder for the results. Default: the name of the command and of the model.",
        show_default=False,
    ),
]
Draws = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="With random effects, subjects drawn for each group. Default: 1000.",
        show_default=False,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        min=0, help="With random effects, seed of the drawn subjects. Default: 0.",
        show_default=False,
    ),
]  # fmt: skip


def tell(record: dict[str, Any], show: Callable[[], None], *, as_json: bool, quiet: bool) -> None:
    """Prints a record as JSON, or what `show` prints, or nothing.

    Called after everything is written, so that failures of printing are told apart.
    """
    if as_json:
        typer.echo(json.dumps(record, allow_nan=False))
    elif not quiet:
        show()
