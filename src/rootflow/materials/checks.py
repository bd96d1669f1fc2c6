"""Arguments of the room, checked: an error says what was wrong, with which value, and a way out."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..errors import InputError
from ..ground.tracing import is_traced


def real(name: str, value: Any, *, positive: bool = False, low: float | None = None) -> Array:
    """Finite real numbers as an array of floats.

    Raises:
        InputError: anything else; not positive where it must be, or below `low`.
    """
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be real numbers; got {value!r:.80}.") from None
    if array.dtype.kind not in "iuf":
        raise InputError(f"{name} must be real numbers; got {value!r:.80}.")
    array = array.astype(jnp.result_type(float, array.dtype))
    if not is_traced(value):
        content = np.asarray(value, float)
        bad = ~np.isfinite(content)
        wanted = "finite"
        if positive:
            bad |= content <= 0
            wanted = "finite and positive"
        if low is not None:
            bad |= content < low
            wanted = f"finite and at least {low:g}"
        if bad.any():
            raise InputError(f"{name} must be {wanted}; got {content[bad].flat[0]:g}.")
    return array


def one(name: str, value: Any, **limits: Any) -> Array:
    """One real number."""
    array = real(name, value, **limits)
    if array.shape != ():
        raise InputError(f"{name} must be one number; got shape {array.shape}.")
    return array


def fractions(name: str, value: Any) -> Array:
    """Mole fractions, in [0, 1].

    Raises:
        InputError: anything else; the message has the first value and its place.
    """
    array = real(name, value)
    if not is_traced(value):
        content = np.atleast_1d(np.asarray(value, float))
        for place in np.flatnonzero((content < 0) | (content > 1)):
            where = f" (number {place})" if np.ndim(value) else ""
            raise InputError(
                f"{name} must lie in [0, 1]; got {content[place]:g}{where}. Divide percentages by "
                "100."
            )
    return array


def micrometres(position: Any) -> str:
    """A position as messages show it."""
    return f"{float(position) * 1e6:.4g} µm"
