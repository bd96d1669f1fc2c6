"""Options that several commands have, and how all of them tell what they found."""

import json
from collections.abc import Callable
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


def tell(record: dict[str, Any], show: Callable[[], None], *, as_json: bool, quiet: bool) -> None:
    """Prints a record as JSON, or what `show` prints, or nothing.

    Called after everything is written, so that failures of printing are told apart.
    """
    if as_json:
        typer.echo(json.dumps(record, allow_nan=False))
    elif not quiet:
        show()
