"""How much of the package a type checker knows: `python .ci/typed.py`, where it is installed.

Fails below a completeness of `LEAST`, and where the type of a public name of
`src/rootflow/__init__.pyi` is not wholly known. The list of what is missing:

    cd "$(mktemp -d)" && pyright --verifytypes rootflow --ignoreexternal
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LEAST = 0.99
COMMAND = ("--verifytypes", "rootflow", "--ignoreexternal")


def verified() -> dict[str, Any]:
    """What pyright says of the `rootflow` that this Python imports."""
    # pyright asks the `python` of the path, and an empty folder has no settings that it would read.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(
            [sys.executable, "-m", "pyright", *COMMAND, "--outputjson"],
            cwd=empty, env={**os.environ, "PATH": path}, capture_output=True, text=True,
        )  # fmt: skip
    try:
        return json.loads(done.stdout)["typeCompleteness"]
    except (json.JSONDecodeError, KeyError):
        sys.exit(f"pyright gave no account of the types:\n{done.stdout}{done.stderr}")


def unknown(symbols: list[dict[str, Any]]) -> list[str]:
    """The public names whose type is not wholly known, with the first reason."""
    lines = []
    for symbol in symbols:
        if symbol["name"].count(".") == 1 and symbol["isExported"]:
            if not symbol["isTypeKnown"] or symbol["isTypeAmbiguous"]:
                reasons = [x["message"].splitlines()[0] for x in symbol["diagnostics"]]
                lines.append(f"  {symbol['name']}: {(reasons or ['a part of it is unknown'])[0]}")
    return lines


def main() -> None:
    """Prints the completeness, or what is wrong with it."""
    found = verified()
    score, names = found["completenessScore"], unknown(found["symbols"])
    how = f'the list: cd "$(mktemp -d)" && pyright {" ".join(COMMAND)}'
    if not found["symbols"]:
        sys.exit("pyright found no symbols of rootflow: install the package in this environment.")
    if names:
        sys.exit("\n".join(["the type of these public names is not known:", *names, how]))
    if score < LEAST:
        sys.exit(f"types are known of {score:.2%} of the package, below {LEAST:.0%}; {how}")
    print(f"types are known of {score:.2%} of the package, and of every public name")


if __name__ == "__main__":
    main()
