"""Checks of the numbers that a privacy statement stands on."""

import math
from typing import Any

import numpy as np
from jax.core import Tracer

from ...errors import InputError

ADJACENCIES = ("replace", "add-remove")


def number(name: str, value: Any, *, zero: bool = False, infinite: bool = False) -> float:
    """A positive Python number; `zero` and `infinite` say what else is allowed.

    Raises:
        InputError: anything else, a traced value included: privacy is accounted before the run.
    """
    if isinstance(value, Tracer):
        raise InputError(
            f"{name} is traced: what a run spends is accounted before it starts, so give a Python "
            "number, and leave it out of jit, vmap and grad."
        )
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be one number; got {value!r:.60}.") from None
    fine = found > 0 or (zero and found == 0)
    if not fine or math.isnan(found) or (math.isinf(found) and not infinite):
        wanted = "zero or positive" if zero else "positive"
        end = "" if infinite else " and finite"
        raise InputError(f"{name} must be {wanted}{end}; got {value!r}.")
    return found


def fraction(name: str, value: Any, *, one: bool = False) -> float:
    """A number above 0 and below 1; `one` allows 1.

    Raises:
        InputError: anything else.
    """
    found = number(name, value)
    if found > 1 or (found == 1 and not one):
        raise InputError(
            f"{name} must be above 0 and {'at most' if one else 'below'} 1; got {value!r}."
        )
    return found


def whole(name: str, value: Any, least: int = 1) -> int:
    """A whole number of at least `least`.

    Raises:
        InputError: anything else.
    """
    fine = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not fine or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}; got {value!r}.")
    return int(value)


def one_of(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """One of some words.

    Raises:
        InputError: anything else.
    """
    if value not in allowed:
        raise InputError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {value!r}.")
    return value
