"""Arguments of the room, checked: an error says what was wrong, with which value, and a way out."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..errors import InputError, SolveError
from ..ground.tracing import is_traced, raise_if


def number(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> Array:
    """Real numbers in [low, high], as an array of floats."""
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be a real number; got {value!r}.") from None
    if array.dtype.kind not in "iuf" and array.dtype != jnp.bfloat16:
        raise InputError(f"{name} must be a real number; got {value!r}.")
    array = array.astype(jnp.result_type(float, array.dtype))
    if not is_traced(value):  # a constant is known inside `jit` too, where its array is not
        content = np.asarray(value)
        bad = ~(np.isfinite(content) & (content >= low) & (content <= high))
        if bad.any():
            raise InputError(
                f"{name} must be finite{_interval(low, high)}; got {content[bad].flat[0]:g}."
            )
    return array


def _interval(low: float, high: float) -> str:
    if high == math.inf:
        return f" and at least {low:g}" if low > -math.inf else ""
    return f" and between {low:g} and {high:g}"


def constant(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """One real number in [low, high] that shapes the program, and so cannot be traced."""
    if is_traced(value):
        raise InputError(f"{name} must be known when the program is traced: make it static.")
    number(name, value, low, high)
    scalars(**{name: value})
    return float(value)


def quality(value: Any) -> Array:
    """r, in (0, 1]."""
    array = number("quality", value)
    if not is_traced(value):
        content = np.asarray(value)
        bad = ~((content > 0) & (content <= 1))
        if bad.any():
            raise InputError(
                f"quality must lie in (0, 1]; got {content[bad].flat[0]:g}. At 0 the examples say "
                "nothing about their archetype, at 1 they equal it."
            )
    return array


def quantity(value: Any) -> Array:
    """M, at least one; whole where it is known, though theory may differentiate in it."""
    return number("quantity", value, low=1.0)


def count(name: str, value: Any, least: int = 1) -> int:
    """A whole number of things."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}; got {value!r}.")
    return int(value)


def order(value: Any, dtype: Any = None, even: str = "") -> int:
    """P, at least two, with P! in the range of the precision; `even` says who needs it even."""
    P = count("order", value, least=2)
    dtype = jnp.result_type(float) if dtype is None else dtype
    most = 34 if jnp.finfo(dtype).maxexp <= 128 else 170
    if most < P:
        raise InputError(
            f"order={P}: {P}! overflows {jnp.dtype(dtype).name}, which holds factorials up to "
            f"{most}!; take a smaller order{', or float64' if most == 34 else ''}."
        )
    if even and P % 2:
        raise InputError(f"order={P} must be even for {even}; take {P - 1} or {P + 1}.")
    return P


def spins(name: str, sigma: Any, neurons: int) -> Array:
    """A configuration of +1 and -1, shape (neurons,)."""
    array = number(name, sigma)
    if array.shape != (neurons,):
        raise InputError(
            f"{name} must have shape ({neurons},), a spin for each neuron; got {array.shape}. For "
            "several configurations use jax.vmap."
        )
    if not is_traced(array) and not np.all(np.abs(np.asarray(array)) == 1):
        wrong = np.asarray(array)[np.abs(np.asarray(array)) != 1].flat[0]
        raise InputError(f"{name} must hold +1 and -1 only; got {wrong:g}: take its sign.")
    return array


def scalars(**values: Any) -> None:
    """One number each."""
    for name, value in values.items():
        if np.shape(value) != ():
            raise InputError(
                f"{name} must be one number; got shape {np.shape(value)}. For several, use "
                "jax.vmap."
            )


def converged(value: Any, fine: Array, what: str) -> Any:
    """The arrays `value`, which raise where a solve did not converge."""
    message = (
        f"{what} did not converge: this happens just where a solution ends; change the load or the "
        "temperature a little"
    )
    if is_traced(fine):
        return raise_if(value, ~fine, message, InputError)
    if not np.all(np.asarray(fine)):
        raise SolveError(f"{message}.")
    return value


def one_of(name: str, value: Any, allowed: Sequence[str]) -> str:
    """One of a few words."""
    if value not in allowed:
        raise InputError(f"{name}={value!r} is not known; use {' or '.join(map(repr, allowed))}.")
    return value
