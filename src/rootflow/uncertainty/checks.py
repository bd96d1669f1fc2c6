"""Arguments of the room, checked: an error says what was wrong, with which value, and a way out."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import InputError


def positive(name: str, value: Any) -> float:
    """One positive finite number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise InputError(f"{name} must be a positive number; got {value!r}.")
    return number


def fraction(name: str, value: Any) -> float:
    """A number between 0 and 1, both left out."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < 1:
        raise InputError(f"{name} must lie between 0 and 1; got {value!r}.")
    return number


def samples(name: str, value: Any, least: int = 1) -> Float[np.ndarray, " n"]:
    """Finite real numbers, shape (n,), at least so many."""
    try:
        array = np.asarray(value, float)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be real numbers; got {value!r}.") from None
    if array.ndim != 1:
        raise InputError(f"{name} must have shape (samples,); got {array.shape}.")
    if array.size < least:
        raise InputError(f"{name} needs at least {least} samples; got {array.size}.")
    return finite(name, array)


def finite(name: str, array: np.ndarray) -> np.ndarray:
    """The array, without NaN or infinity."""
    bad = ~np.isfinite(array)
    if bad.any():
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        raise InputError(
            f"{name} must be finite; got {array[place]} at {place}, and {int(bad.sum())} such "
            "numbers in all: leave those samples out."
        )
    return array


def traces(value: Any, name: str = "traces", shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Traces, shape (samples, times, nodes, components), or (samples, *shape)."""
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise InputError(f"{name} must be real numbers; got {array.dtype}.")
    if array.ndim != 4 or not array.size or (shape is not None and array.shape[1:] != shape):
        wanted = "times, nodes, components" if shape is None else ", ".join(map(str, shape))
        raise InputError(f"{name} must have shape (samples, {wanted}); got {array.shape}.")
    array = array.astype(np.result_type(array.dtype, np.float32), copy=False)
    return finite(name, array)


#: The part of its largest value with which a trace may start.
REST = 1e-3


def at_rest(array: np.ndarray, name: str = "traces") -> np.ndarray:
    """The traces, which begin where a structure at rest is: with zero."""
    first, largest = np.abs(array[:, 0]).max(), np.abs(array).max()
    if first > REST * largest:
        raise InputError(
            f"{name} must start at rest, for a first value is a shock that no load made; got "
            f"{first:.3g} at the first time, where the largest is {largest:.3g}. Begin before the "
            "load does, or subtract the first values."
        )
    return array
