"""Arguments that every package checks alike."""

import inspect
from typing import Any

import numpy as np

from ..errors import InputError


def whole(name: str, value: Any, least: int = 1) -> int:
    """A whole number of at least `least`.

    Raises:
        InputError: anything else.
    """
    fine = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not fine or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}; got {value!r}.")
    return int(value)


def required(function: Any) -> int:
    """How many arguments a function must be given by position; one where that does not show."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return 1
    return sum(
        p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
        for p in signature.parameters.values()
    )


def one_of(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """One of some words.

    Raises:
        InputError: anything else.
    """
    if value not in allowed:
        raise InputError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {value!r}.")
    return value
