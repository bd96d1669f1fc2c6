"""Arguments of the room, checked: an error says what was wrong, with which value, and a way out."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ...errors import InputError
from ...ground.tracing import is_traced


class EllipticityWarning(UserWarning):
    """The energy is not elliptic, or not with the constants in use, where it was looked at."""


class QuadratureWarning(UserWarning):
    """An energy that was minimised on its points and not in its integral."""


def positive(name: str, value: Any, most: float = math.inf) -> Any:
    """One finite number above zero (and at most `most`); traced values pass.

    Raises:
        InputError: anything else.
    """
    if is_traced(value):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be a positive number; got {value!r}.") from None
    if not (math.isfinite(number) and 0 < number <= most):
        limit = f" of at most {most:g}" if most < math.inf else ""
        raise InputError(f"{name} must be a positive number{limit}; got {number:g}.")
    return number


def not_negative(name: str, value: Any) -> float:
    """One finite number of at least zero.

    Raises:
        InputError: anything else.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be a number of at least zero; got {value!r}.") from None
    if not (math.isfinite(number) and number >= 0):
        raise InputError(f"{name} must be a finite number of at least zero; got {number:g}.")
    return number


def ellipticity(value: Any) -> tuple[float, float]:
    """The pair (λ, Λ) with 0 < λ <= Λ.

    Raises:
        InputError: it is no such pair.
    """
    try:
        low, high = (float(v) for v in value)
    except (TypeError, ValueError):
        raise InputError(
            f"ellipticity must be two numbers (λ, Λ), bounds of the Hessian of L; got {value!r}."
        ) from None
    if not (math.isfinite(low) and math.isfinite(high) and 0 < low <= high):
        raise InputError(
            f"ellipticity must satisfy 0 < λ <= Λ, finite; got λ={low:g}, Λ={high:g}. "
            "Leave it out to have both estimated."
        )
    return low, high


def field(name: str, value: Any, shape: tuple[int, ...]) -> Array:
    """Real values at the inner points of a grid.

    Raises:
        InputError: another shape, or no real numbers.
    """
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be an array of real numbers; got {value!r:.60}.") from None
    if array.shape != shape:
        raise InputError(
            f"{name} must have shape {shape}, a value for each inner point of the grid; got "
            f"{array.shape}."
        )
    if array.dtype.kind not in "iuf":
        raise InputError(f"{name} must hold real numbers; got type {array.dtype}.")
    array = array.astype(jnp.result_type(float, array.dtype))
    if not is_traced(array) and not np.all(np.isfinite(np.asarray(array))):
        raise InputError(f"{name} contains a value that is not finite.")
    return array


def scalar_of(name: str, function: Any, *arguments: Any) -> None:
    """Checks, without evaluating it, that a function of the user returns one real number.

    Raises:
        InputError: it does not.
    """
    if not callable(function):
        raise InputError(f"{name} must be a function; got {function!r:.60}.")
    try:
        out = jax.eval_shape(function, *arguments)
    except InputError:
        raise
    except (TypeError, ValueError, IndexError) as error:
        shapes = ", ".join(str(np.shape(a)) for a in arguments)
        raise InputError(
            f"{name} cannot be called with arrays of shapes {shapes}: {error}"
        ) from error
    shape, dtype = getattr(out, "shape", None), getattr(out, "dtype", None)
    if shape != () or dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(
            f"{name} must return one real number at one point; got "
            f"{f'shape {shape} and type {dtype}' if shape is not None else type(out).__name__}."
        )
