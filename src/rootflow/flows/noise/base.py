"""What a method for stochastic equations knows of the noise that drives them."""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from ...errors import InputError
from ...ground.tracing import is_traced, raise_if


class Increment(NamedTuple):
    """What the path does over an interval (s, t); of size m.

    Attributes:
        w: W(t) - W(s).
        area: the space-time Levy area, 1/(t - s) times the integral over the interval of
            W(r) - W(s) - (r - s)/(t - s) (W(t) - W(s)); `None` where the path does not know it.
    """

    w: Float[Array, " m"]
    area: Float[Array, " m"] | None = None


class Noise(eqx.Module):
    """A path that drives an equation; a function of time, so that steps can be repeated.

    A solve asks for consecutive intervals: `start` and `advance` may carry along what two of them
    share.
    """

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """m, the number of components."""

    @property
    def areas(self) -> bool:
        """Whether increments come with their space-time Levy area."""
        return False

    @property
    def resolution(self) -> Any:
        """Times closer to one another do not have their joint law; `None`: all have."""
        return None

    @property
    def grid(self) -> Any:
        """The length of the steps over which alone there are increments; `None`: over any."""
        return None

    @abc.abstractmethod
    def start(self, t: Array) -> Any:
        """What the first interval, from `t`, needs."""

    @abc.abstractmethod
    def advance(self, t: Array, h: Array, state: Any) -> tuple[Increment, Any]:
        """The increment over (t, t + h), `h` of either sign, and what the next one needs."""

    def rest(self, t: Array, h: Array, count: int) -> Float[Array, " count"]:
        """Standard normal numbers that belong to the interval (t, t + h) and to nothing else."""
        raise InputError(
            f"{type(self).__name__} has no areas between its components: use a BrownianMotion."
        )


def checked_shape(shape: Any) -> tuple[int, ...]:
    """The shape of a path, as a tuple."""
    try:
        made = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
        made = tuple(int(n) for n in made if not isinstance(n, bool) and int(n) == n and n > 0)
    except (TypeError, ValueError):
        made = None
    if made is None or len(made) != np.size(shape):
        raise InputError(
            f"shape must be a tuple of positive integers, () for one scalar path; got {shape!r}."
        )
    return made


def checked_time(name: str, t: Any, dtype: Any) -> Any:
    """One end of a span: a NumPy number where it is known, so that it stays known under `jit`."""
    if isinstance(t, Tracer):
        return t.astype(dtype)
    value = np.asarray(t)
    if value.ndim or value.dtype.kind not in "iuf" or not np.isfinite(value):
        raise InputError(f"{name} must be one finite real number; got {t!r}.")
    return value.astype(dtype)


def checked_span(t0: Any, t1: Any, dtype: Any) -> tuple[Any, Any]:
    """The span (t0, t1) of a path, in order."""
    t0, t1 = checked_time("t0", t0, dtype), checked_time("t1", t1, dtype)
    if is_traced(t0, t1):
        # A path that cannot be has no values.
        return t0, jnp.where(t0 < t1, t1, jnp.nan)
    if not t0 < t1:
        raise InputError(
            f"A path needs t0 < t1; got t0={float(t0)}, t1={float(t1)}. (A solve may run backwards "
            "on it.)"
        )
    return t0, t1


def within(t: ArrayLike, t0: Any, t1: Any, what: str = "The path") -> Array:
    """Times in the floating-point type of the span; refused where they lie outside it."""
    dtype = jnp.result_type(t0)
    known = not is_traced(t, t0, t1)
    # (What is known stays known under `jit` if NumPy looks at it.)
    t = np.asarray(t, dtype) if known else jnp.asarray(t, dtype)
    # A time at the end of the span may have been rounded on its way here.
    slack = 4 * jnp.finfo(dtype).eps * (t1 - t0)
    outside = ~((t >= t0 - slack) & (t <= t1 + slack))
    if known:
        if np.any(outside):
            value = float(np.asarray(t)[np.asarray(outside)].flat[0])
            raise InputError(
                f"{what} was asked for time {value}, outside its span ({float(t0)}, {float(t1)}): "
                "make it with a wider span."
            )
        return jnp.asarray(t)
    message = f"{what} was asked for a time outside its span: make it with a wider span."
    return raise_if(t, jnp.any(outside), message, InputError)
