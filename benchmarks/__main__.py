"""`python -m benchmarks`: runs the comparisons and writes the table."""

import argparse
import fnmatch
import itertools
import sys
from pathlib import Path

import jax

import benchmarks
from rootflow import _machine
from rootflow.errors import InputError

from .harness import runner, table


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 1 if a row failed, 2 for bad arguments."""
    known = runner.names(benchmarks.__path__)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Times rootflow beside its peers. The peers come with the extra 'bench'.",
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME",
        help=f"any of {', '.join(known)}, or a pattern such as 'work_precision*'",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results"), help="folder for the two tables"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one pair a row, to see that everything works"
    )
    parser.add_argument(
        "--resume", action="store_true", help="keep the rows that the table in --out has already"
    )
    options = parser.parse_args(arguments)
    matching = {name: fnmatch.filter(known, name) for name in options.names}
    unknown = [name for name, found in matching.items() if not found]
    if unknown:
        parser.error(f"no comparison named {', '.join(unknown)}; there are {', '.join(known)}")
    if options.out.exists() and not options.out.is_dir():
        parser.error(f"--out {options.out} is a file: name a folder")

    jax.config.update("jax_enable_x64", True)
    chosen = list(dict.fromkeys(itertools.chain(*matching.values()))) or known
    machine = _machine.describe(("jax", "jaxlib", "equinox", "numpy", "scipy"))
    try:
        known = table.read(options.out, machine) if options.resume else []
    except InputError as error:
        parser.error(str(error))
    so_far: list[table.Line] = []

    def tell(line: table.Line) -> None:
        print(table.brief(line), file=sys.stderr, flush=True)
        so_far.append(line)
        # A run that is cut short has lost nothing, of an earlier one neither.
        table.write(options.out, table.merged(so_far, known), machine)

    lines = runner.run("benchmarks", chosen, quick=options.quick, tell=tell, known=known)
    written = table.write(options.out, table.merged(lines, known), machine)
    for path in [*written, *runner.pictures("benchmarks", chosen, lines, options.out)]:
        print(path)
    for line in lines:
        if line["traceback"]:
            print(line["traceback"], file=sys.stderr)
    return 1 if any(line["failure"] for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
