"""What a controlled equation knows of its control, and the data that controls are made of."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from ...errors import InputError
from ...ground.tracing import raise_if


class Control(eqx.Module):
    """A path X(t) with c channels, from t0 to t1."""

    @property
    @abc.abstractmethod
    def t0(self) -> Array:
        """Start of the path."""

    @property
    @abc.abstractmethod
    def t1(self) -> Array:
        """End of the path."""

    @property
    @abc.abstractmethod
    def channels(self) -> int:
        """c."""

    @property
    def kinks(self) -> Float[Array, " k"] | None:
        """Times at which the path or a derivative of it has a kink; `None`: there are none."""
        return None

    @abc.abstractmethod
    def evaluate(self, t: ArrayLike) -> Float[Array, " c"]:
        """X(t), for one time."""

    @abc.abstractmethod
    def derivative(self, t: ArrayLike) -> Float[Array, " c"]:
        """dX/dt at one time; at a kink, that of the piece which begins there."""


def checked_data(ts: Any, xs: Any, name: str) -> tuple[Array, Array]:
    """Times (n,) and observations (n, c) in one floating-point type."""
    ts, xs = jnp.asarray(ts), jnp.asarray(xs)
    dtype = jnp.result_type(ts, xs, jnp.float32)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(f"{name} needs real numbers; got {ts.dtype} and {xs.dtype}.")
    ts, xs = ts.astype(dtype), xs.astype(dtype)
    if ts.ndim != 1 or xs.ndim != 2 or ts.shape[0] != xs.shape[0] or ts.shape[0] < 2:
        raise InputError(
            f"{name} takes times of shape (n,) and observations of shape (n, channels), n >= 2; "
            f"got {ts.shape} and {xs.shape}. (One series at a time: use jax.vmap for a batch.)"
        )
    if xs.shape[1] == 0:
        raise InputError(f"{name} needs at least one channel; got observations {xs.shape}.")
    gaps = ts[1:] - ts[:-1]
    bad = ~((gaps > 0) & jnp.isfinite(gaps))
    if isinstance(bad, Tracer):
        message = f"The times of {name} must be finite and increase from each to the next."
        return raise_if(ts, jnp.any(bad), message, InputError), xs
    if np.asarray(bad).any():
        i = int(np.argmax(bad))
        raise InputError(
            f"The times of {name} must be finite and increase from each to the next; got "
            f"{float(ts[i])} and then {float(ts[i + 1])} (numbers {i} and {i + 1}). Sort them, and "
            "drop repeated ones."
        )
    return ts, xs


def _neighbours(known: Array) -> tuple[Array, Array]:
    """For each entry the last known one up to it and the first from it on; -1 and n: none."""
    n = known.shape[0]
    index = jnp.arange(n)
    before = jax.lax.cummax(jnp.where(known, index, -1))
    after = jax.lax.cummin(jnp.where(known, index, n), reverse=True)
    return before, after


def filled(ts: Array, xs: Array, name: str) -> Array:
    """The observations with missing ones (NaN) on the straight line between their neighbours.

    Before the first observation of a channel and after its last, that value is kept.
    """
    known = ~jnp.isnan(xs)
    empty = ~jnp.any(known, axis=0)
    if not isinstance(empty, Tracer) and np.asarray(empty).any():
        raise InputError(
            f"Channel {int(np.argmax(empty))} of {name} has no observation: all are NaN. Drop it."
        )

    def channel(x, known):
        n = x.shape[0]
        before, after = _neighbours(known)
        before = jnp.where(before < 0, after, before)
        after = jnp.where(after >= n, before, after)
        a, b = jnp.clip(before, 0, n - 1), jnp.clip(after, 0, n - 1)
        # Missing values are put aside, so that no derivative passes through a NaN.
        safe = jnp.where(known, x, 0.0)
        gap = ts[b] - ts[a]
        place = jnp.where(gap == 0, 0.0, (ts - ts[a]) / jnp.where(gap == 0, 1.0, gap))
        # A channel without any observation could not be refused where it is traced.
        return jnp.where(jnp.any(known), safe[a] + place * (safe[b] - safe[a]), jnp.nan)

    return jax.vmap(channel, (1, 1), 1)(xs, known)


def carried_forward(xs: Array) -> Array:
    """The observations with missing ones (NaN) replaced by the last before; by 0 if none is."""
    known = ~jnp.isnan(xs)

    def channel(x, known):
        before, _ = _neighbours(known)
        value = jnp.where(known, x, 0.0)[jnp.clip(before, 0)]
        return jnp.where(before < 0, 0.0, value)

    return jax.vmap(channel, (1, 1), 1)(xs, known)
