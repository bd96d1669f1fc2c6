"""Profiles for `rootflow couple --example NAME`; all are synthetic, see SOURCES.md."""

from importlib.resources import files
from pathlib import Path

from ...errors import InputError
from ...tables.names import did_you_mean

EXAMPLES = {"cu-sn": "cu-sn.csv", "solid-solution": "solid-solution.dat"}


def example_file(name: str) -> Path:
    """The profile of a bundled example.

    Raises:
        InputError: there is no example of that name.
    """
    if name not in EXAMPLES:
        raise InputError(
            f"there is no example {name!r}.{did_you_mean(name, EXAMPLES)} "
            f"Examples: {', '.join(EXAMPLES)}."
        )
    return Path(str(files(__name__))) / EXAMPLES[name]
