"""The checks of options that the functions of this package share."""

from typing import Any

import numpy as np
from jax.core import Tracer

from ..errors import InputError
from .operators import Operator


def require_operator(operator: Any) -> None:
    """Raises `InputError` for what is no operator."""
    if not isinstance(operator, Operator):
        raise InputError(
            f"this takes an operator, got {type(operator).__name__}: make one by "
            "curvature.hessian(...) or, from a function v -> H v, curvature.operator(...)."
        )


def require_count(value: Any, name: str, least: int = 1, most: int | None = None) -> int:
    """`value` as an int; raises `InputError` unless it is a whole number in range."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}.")
    if most is not None and value > most:
        raise InputError(f"{name}={value} is more than {most}, the size of the operator.")
    return int(value)


def require_positive(value: Any, name: str) -> float:
    """`value` as a float; raises `InputError` unless it is known, finite and positive."""
    if isinstance(value, Tracer):
        raise InputError(f"{name} must be known when the function is traced: give a number.")
    if not (np.shape(value) == () and np.isfinite(value) and value > 0):
        raise InputError(f"{name} must be a finite positive number, got {value!r}.")
    return float(value)


def require_key(key: Any, what: str) -> None:
    """Raises `InputError` without a random key."""
    if key is None:
        raise InputError(f"{what} begins with random vectors and needs a key: give key=.")
