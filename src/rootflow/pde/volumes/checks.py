"""Arguments of the room, checked: an error says what was wrong, with which value, and a way out."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from ...errors import InputError
from ...ground.tracing import is_traced
from ..grids import Volumes


def parameter(name: str, value: Any) -> Array:
    """A number of at least 0.

    Raises:
        InputError: anything else.
    """
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be a number; got {value!r:.80}.") from None
    if array.dtype.kind not in "iuf" or array.shape != ():
        raise InputError(f"{name} must be one real number; got {value!r:.80}.")
    if not is_traced(array) and not (np.isfinite(array) and array >= 0):
        raise InputError(f"{name} must be finite and not negative; got {float(array):g}.")
    return array.astype(jnp.result_type(float, array.dtype))


def positive(name: str, value: Any) -> Any:
    """A number above 0, as it is.

    Raises:
        InputError: anything else.
    """
    if isinstance(parameter(name, value), Tracer):
        return value
    if not float(value) > 0:
        raise InputError(f"{name} must be positive; got {float(value):g}.")
    return value


def grid(value: Any) -> Volumes:
    """A grid.

    Raises:
        InputError: anything else.
    """
    if not isinstance(value, Volumes):
        raise InputError(f"grid must be a pde.Grid or a pde.RadialGrid; got {value!r:.80}.")
    return value


def fields(on: Volumes, start: Any, names: tuple[str, ...]) -> dict[str, Array]:
    """Initial fields: known names, the grid's shape, finite and not negative.

    Raises:
        InputError: anything else; the message has the worst value and its place.
    """
    if not isinstance(start, dict):
        raise InputError(
            f"start must be a dict of fields, such as {{'n': n0}}; got {type(start).__name__}."
        )
    unknown = [name for name in start if name not in names]
    if unknown:
        raise InputError(
            f"start has {unknown[0]!r}, but the fields of this model are {', '.join(names)}."
        )
    if "n" not in start:
        raise InputError("start has no 'n': give the initial density of the cells.")
    given = {name: on.check(f"start[{name!r}]", value) for name, value in start.items()}
    for name, value in given.items():
        if is_traced(value):
            continue
        content = np.asarray(value)
        if not np.isfinite(content).all():
            place = tuple(int(i) for i in np.argwhere(~np.isfinite(content))[0])
            raise InputError(
                f"start[{name!r}] is {content[place]} in the cell {place}: fields must be finite."
            )
        if content.min() < 0:
            place = tuple(int(i) for i in np.unravel_index(content.argmin(), content.shape))
            raise InputError(
                f"start[{name!r}] is {content[place]:g} in the cell {place}: densities and signals "
                "are not negative. Subtract a background before, not below zero, or check the sign."
            )
    dtype = jnp.result_type(*given.values())
    return {name: value.astype(dtype) for name, value in given.items()}


def increasing_span(span: Any) -> None:
    """(t0, t1) with t0 < t1: a dissipative evolution has one direction.

    Raises:
        InputError: anything else.
    """
    try:
        t0, t1 = span
    except (TypeError, ValueError):
        raise InputError(f"span must be a pair (t0, t1); got {span!r}.") from None
    if not is_traced(t0, t1) and not (np.isfinite(t0) and np.isfinite(t1) and t0 < t1):
        raise InputError(
            f"span must be finite and increase (diffusion has one direction); got ({t0}, {t1})."
        )
