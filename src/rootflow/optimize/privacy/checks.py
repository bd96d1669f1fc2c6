"""Checks of the numbers that a privacy statement stands on."""

import math
from typing import Any

from jax.core import Tracer

from ...errors import InputError
from ...ground.checks import one_of as one_of
from ...ground.checks import whole as whole

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
