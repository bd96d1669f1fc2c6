"""Model files with published measurements, for `rootflow fit --example NAME`; see SOURCES.md."""

from importlib.resources import files
from pathlib import Path

from ...errors import InputError
from ...tables.names import did_you_mean

NAMES = ("hare-lynx", "theophylline", "theophylline-subjects")
#: Examples with the data of another.
_DATA = {"theophylline-subjects": "theophylline"}


def example_files(name: str) -> tuple[Path, Path]:
    """The model file and the data table of a bundled example.

    Raises:
        InputError: there is no example of that name.
    """
    if name not in NAMES:
        raise InputError(
            f"there is no example {name!r}.{did_you_mean(name, NAMES)} "
            f"Examples: {', '.join(NAMES)}."
        )
    folder = Path(str(files(__name__)))
    return folder / f"{name}.toml", folder / f"{_DATA.get(name, name)}.csv"
