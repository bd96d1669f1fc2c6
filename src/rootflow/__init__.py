"""rootflow: solve equations and differentiate through their solutions.

The names in `__init__.pyi` are imported when they are first used, so that `import rootflow` costs
nothing by itself and the command line answers at once.
"""

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

from ._version import __version__ as __version__


def _homes() -> dict[str, str]:
    """The module in which each public name is, or which it is, from the list that editors read."""
    homes = {}
    listed = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    for line in ast.parse(listed).body:
        if isinstance(line, ast.ImportFrom):
            for name in line.names:
                homes[name.name] = line.module or ""
    return homes


_HOME = _homes()
_PACKAGES = tuple(name for name, home in _HOME.items() if not home)

__all__ = sorted(name for name, home in _HOME.items() if home and not name.startswith("_"))  # pyright: ignore


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rootflow' has no attribute {name!r}")
    if name in _PACKAGES:
        return import_module(f".{name}", __name__)
    room = import_module(f".{_HOME[name]}", __name__)
    # A catalogue (sets, prox, conditions) is a module of its room.
    value = getattr(room, name, None) or import_module(f"{room.__name__}.{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_PACKAGES])
