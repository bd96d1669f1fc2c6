"""The folder that a command leaves behind: whether it may be written, and plain values in it."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError


def check(path: Path, *, record: str, program: str, what: str) -> None:
    """Makes sure that results may be written to `path`.

    Args:
        path: the folder.
        record: the JSON document that marks results of an earlier run.
        program: what stands in it under "program".
        what: what messages call earlier results, such as "fit".

    Raises:
        InputError: it or a folder on the way to it is a file or may not be written, or it has other
            things in it than earlier results.
    """
    for place in (path, *path.absolute().parents):
        if place.exists():
            if not place.is_dir():
                raise InputError(
                    f"{place} is a file; name another folder for the results with --out."
                )
            if not os.access(place, os.W_OK | os.X_OK):
                raise InputError(f"{place} may not be written to; name another folder with --out.")
            break
    if not path.exists() or not any(path.iterdir()):
        return
    try:
        earlier = json.loads((path / record).read_text(encoding="utf-8"))
        ours = isinstance(earlier, dict) and earlier.get("program") == program
    except (OSError, ValueError):
        ours = False
    if not ours:
        raise InputError(
            f"{path} holds other files and no earlier {what}, so nothing is written there; "
            "name another folder with --out, or empty this one."
        )


def plain(value: Any) -> Any:
    """A value in what JSON has; numbers that are not finite become `None`."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def digits(value: float) -> str:
    """As many digits as any measurement has; a number that is not finite is a blank cell."""
    return f"{value:.10g}" if math.isfinite(value) else ""
