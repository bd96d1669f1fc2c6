"""Numbers that users hand in: what counts as one, and how intervals are shown."""

import math
from typing import Any

import numpy as np

from ..errors import InputError


def number(what: str, value: Any) -> float:
    """`value` as a Python float; NumPy and JAX scalars are numbers, booleans and text are not.

    Raises:
        InputError: it is none.
    """
    try:
        found = math.nan if isinstance(value, (bool, str, bytes)) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if math.isnan(found):
        raise InputError(f"{what} is {value!r}; give a number.")
    return found


def finite(what: str, value: Any) -> float:
    """As `number`; infinities are refused too."""
    found = number(what, value)
    if not math.isfinite(found):
        raise InputError(f"{what} is {found!r}; give a finite number.")
    return found


def interval(lower: float | None, upper: float | None) -> str:
    """Bounds as a reader knows them."""
    shown = ("none" if bound is None else f"{bound:g}" for bound in (lower, upper))
    return f"[{', '.join(shown)}]"


def whole(what: str, value: Any, least: int, most: int | None = None) -> int:
    """`value` as a Python integer.

    Raises:
        InputError: it is none, or not from `least` to `most`.
    """
    fine = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not fine or value < least or most is not None and value > most:
        wanted = f"at least {least}" if most is None else f"from {least} to {most}"
        raise InputError(f"{what} must be an integer, {wanted}; got {value!r}.")
    return int(value)
