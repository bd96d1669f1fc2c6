"""Finds the entries: every module of `rootflow.reproduce` is one."""

import difflib
import importlib
import pkgutil

from ... import reproduce
from ...errors import InputError
from .entry import Entry


def names() -> list[str]:
    """The names of all entries, sorted; nothing is imported."""
    modules = pkgutil.iter_modules(reproduce.__path__)
    return sorted(
        module.name.replace("_", "-")
        for module in modules
        if not module.ispkg and not module.name.startswith("_")
    )


def find(name: str) -> str:
    """The name of an entry as `names` has it; underscores and capitals are forgiven.

    Raises:
        InputError: there is no such entry; the message lists those there are.
    """
    known = names()
    wanted = name.strip().lower().replace("_", "-")
    if wanted in known:
        return wanted
    close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    raise InputError(f"There is no entry named {name!r}.{hint} Entries: {', '.join(known)}.")


def load(name: str) -> Entry:
    """Imports the entry called `name`.

    Raises:
        InputError: its module declares no `ENTRY`, or one under another name.
        Exception: whatever importing the module raises.
    """
    module = importlib.import_module(f"{reproduce.__name__}.{name.replace('-', '_')}")
    entry = getattr(module, "ENTRY", None)
    if not isinstance(entry, Entry):
        raise InputError(f"{module.__name__} must declare ENTRY = Entry(...); got {entry!r}.")
    if entry.name != name:
        raise InputError(
            f"{module.__name__} declares an entry named {entry.name!r}: name it {name!r}, "
            "after its file."
        )
    return entry
