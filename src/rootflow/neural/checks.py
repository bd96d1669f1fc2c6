"""Checks of series, sizes and what networks return."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from ..errors import InputError
from ..ground.checks import one_of as one_of
from ..ground.checks import whole as whole
from ..ground.tracing import raise_if


def increasing(ts: Any, name: str, least: int = 2) -> Any:
    """Times as an array; they must be finite and increase (a runtime error where they are traced).

    Times that are known stay a NumPy array also under `jit`, so that solves know their spans.

    Raises:
        InputError: another shape, too few times, or times that do not increase.
    """
    if not isinstance(ts, Tracer):
        ts = np.asarray(ts)
    if ts.dtype.kind not in "iuf" and not jnp.issubdtype(ts.dtype, jnp.floating):
        raise InputError(f"The times of {name} must be real numbers; got {ts.dtype}.")
    floating = jnp.issubdtype(ts.dtype, jnp.floating)
    ts = ts.astype(jnp.result_type(ts) if floating else jnp.result_type(float))
    if ts.ndim != 1 or ts.shape[0] < least:
        raise InputError(
            f"{name} takes times of shape (n,) with n >= {least}; got shape {ts.shape}. (One "
            "series at a time: use jax.vmap for a batch.)"
        )
    gaps = ts[1:] - ts[:-1]
    bad = ~((gaps > 0) & (gaps < float("inf")))
    if isinstance(bad, Tracer):
        message = f"The times of {name} must be finite and increase from each to the next."
        return raise_if(ts, jnp.any(bad), message, InputError)
    if bad.any():
        i = int(np.argmax(bad))
        raise InputError(
            f"The times of {name} must be finite and increase from each to the next; got "
            f"{float(ts[i])} and then {float(ts[i + 1])} (numbers {i} and {i + 1}). Sort them, and "
            "drop repeated ones."
        )
    return ts


def series(
    ts: Any, xs: Any, channels: int, name: str, missing: bool = True, least: int = 2
) -> tuple[Any, Float[Array, "n c"]]:
    """Times (n,) and observations (n, channels), NaN where one is missing.

    Raises:
        InputError: shapes that do not fit, times that do not increase; outside `jit`, infinite
            observations, and NaN where `missing` is false.
    """
    ts = increasing(ts, name, least)
    xs = jnp.asarray(xs)
    if xs.shape != (ts.shape[0], channels):
        raise InputError(
            f"{name} was made for {channels} channels: with {ts.shape[0]} times it takes "
            f"observations of shape {(ts.shape[0], channels)}; got {xs.shape}."
        )
    xs = xs.astype(jnp.result_type(xs, ts))
    if not isinstance(xs, Tracer):
        values = np.asarray(xs)
        bad = np.isinf(values) if missing else ~np.isfinite(values)
        if bad.any():
            i, j = np.argwhere(bad)[0]
            raise InputError(
                f"The observation at time number {i}, channel {j}, of {name} is {values[i, j]}. "
                + ("Mark a missing one with NaN." if missing else "This model has no place for it.")
            )
    return ts, xs


def shaped(value: Any, shape: tuple[int, ...], what: str) -> Array:
    """What a network returned, which must have this shape.

    Raises:
        InputError: it has another.
    """
    if not eqx.is_array_like(value) or jnp.shape(value) != shape:
        got = jax.tree.map(jnp.shape, value)
        raise InputError(f"{what} must return one array of shape {shape}; it returned {got}.")
    return jnp.asarray(value)


def vector(x: Any, size: int | None, what: str) -> Float[Array, " d"]:
    """One example as a vector of floating-point numbers.

    Raises:
        InputError: another shape or type.
    """
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.integer):
        x = x.astype(jnp.result_type(float))
    wanted = f"({size},)" if size is not None else "(d,)"
    if x.ndim != 1 or (size is not None and x.shape[0] != size):
        raise InputError(
            f"{what} must have shape {wanted}; got {x.shape}. (One example at a time: use jax.vmap "
            "for a batch.)"
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(f"{what} must be real numbers; got {x.dtype}.")
    return x
