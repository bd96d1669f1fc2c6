"""`rootflow reproduce`: measures published claims again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..reports.progress import columns, lines
from .streams import folder, plain, refuse

if TYPE_CHECKING:
    from rich.console import Console


def reproduce(
    name: Annotated[
        str | None, typer.Argument(help="The entry to run; --list names them.", show_default=False)
    ] = None,
    list_entries: Annotated[bool, typer.Option("--list", help="List the entries.")] = False,
    all_entries: Annotated[
        bool, typer.Option("--all", help="Run every entry that is not finished in --out.")
    ] = False,
    out: Annotated[Path, typer.Option(help="The folder for records, pictures and pages.")] = Path(
        "rootflow-reproduce"
    ),
    quick: Annotated[bool, typer.Option("--quick", help="Smaller problems, fewer points.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="With --all: run the finished entries again too.")
    ] = False,
) -> None:
    """Measure the claims of a paper again, and write a record, a picture and a page.

    A claim that does not come out is reported as it came out, and the exit code is still 0.
    An entry that crashes gives exit code 1; with --all, the others go on. Exit code 2: the
    arguments cannot be used, and nothing is written.
    An interrupted --all picks up where it stopped when it is run again.
    """
    if (name is not None) + list_entries + all_entries != 1:
        refuse("Give one of NAME, --list or --all.")
    if fresh and not all_entries:
        refuse("--fresh goes with --all; a single entry is always run again.")

    from ..errors import InputError
    from ..reproduce.harness import catalogue

    if list_entries:
        _list(catalogue.names())
        return
    try:
        names = catalogue.names() if name is None else [catalogue.find(name)]
        folder(out)
    except InputError as error:
        refuse(str(error))
    try:
        records = _run(names, out, quick=quick, fresh=fresh or not all_entries)
    except OSError as error:
        refuse(
            f"Cannot write to --out {out}: {error.strerror or error}. Finished entries are kept; "
            "--all picks up from here.",
            code=1,
        )
    except KeyboardInterrupt:
        typer.echo("Interrupted. Finished entries are kept; --all picks up from here.", err=True)
        raise typer.Exit(130) from None
    if any(record["error"] for record in records):
        raise typer.Exit(1)


def _list(names: list[str]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    from ..reproduce.harness import catalogue

    # A name is there to be copied: it is never cut.
    whole = Column("name", no_wrap=True, min_width=max(map(len, names), default=0))
    table = Table(whole, "title", "paper", "claims")
    for name in names:
        try:
            entry = catalogue.load(name)
        except Exception as error:  # one broken entry must not hide the others
            table.add_row(name, f"does not load: {type(error).__name__}: {error}", "", "")
            continue
        paper = f"{entry.paper.authors} ({entry.paper.year})"
        table.add_row(name, entry.title, paper, str(len(entry.claims)))
    Console().print(table)


def _run(names: list[str], out: Path, *, quick: bool, fresh: bool) -> list[dict[str, Any]]:
    import jax
    from rich.console import Console

    from ..reproduce.harness import runner

    jax.config.update("jax_enable_x64", True)
    console = Console()
    progress = columns(console)
    with progress:
        overall = progress.add_task("all", total=len(names), message="", visible=len(names) > 1)

        def report_for(name: str):
            task = progress.add_task(name, total=1.0, message="")
            log = None if console.is_terminal else lines(name)

            def report(done: float, message: str = "") -> None:
                if log is not None:
                    log(done, message)
                progress.update(task, completed=min(max(done, 0.0), 1.0), message=message)

            return report

        def done(record: dict[str, Any], resumed: bool) -> None:
            for task in progress.tasks[1:]:
                progress.remove_task(task.id)
            progress.advance(overall)
            _print_record(console, record, resumed)

        records = runner.run_all(
            names, out, quick=quick, fresh=fresh, report_for=report_for, done=done
        )
    text = plain(f"Pages: {out / 'index.html'}")
    console.print(text, soft_wrap=True, highlight=False, markup=False)
    return records


_STYLES = {"holds": "green", "falls short": "red", "not measured": "dim"}


def _print_record(console: "Console", record: dict[str, Any], resumed: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    from ..reproduce.harness.entry import show

    note = " (finished before; --fresh runs it again)" if resumed else ""
    quick = " (quick)" if record["quick"] else ""
    title = f"[bold]{escape(record['title'])}[/bold]{quick}{note}"
    console.print(title, highlight=False)
    if record["error"]:
        console.print(f"[red]crashed:[/red] {escape(record['error'])}", highlight=False)
        console.print(f"[dim]The traceback is in {record['name']}.json.", highlight=False)
        return
    table = Table("claim", "published", "measured", "verdict", show_lines=True)
    for claim in record["claims"]:
        style = _STYLES[claim["verdict"]]
        table.add_row(
            escape(claim["text"]),
            escape(show(claim["published"])),
            escape(show(claim["measured"])),
            f"[{style}]{claim['verdict']}[/{style}]",
        )
    console.print(table)
