"""What is carried and diffused on a periodic box: the description that every frame reads."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from ...errors import InputError
from ...ground.checks import required
from ..variational.checks import not_negative, positive, scalar_of
from .characteristics import first_crossing
from .reference import steepest_descent

#: Places along each of one, two and three axes, where means and extremes are looked for. An odd
#: prime has no fast wave that is zero at all of them.
_FINE = (4096, 67, 67)


class ShockWarning(UserWarning):
    """Paths that cross: a moving frame has no solution from then on."""


class Transport(eqx.Module):
    """u_t + a(u)·∇u = ν Δu + s(u) on a periodic box, from u₀ at t = 0 to a time.

    In one dimension a place is a number and so is the speed; in d dimensions a place has shape (d,)
    and so has the speed.

    Args:
        speed: a: a number (d of them), or a function of u, or of (u, x, t), that returns such.
        viscosity: ν, a number of at least zero.
        initial: u₀, a function of one place.
        length: L of the interval [0, L], or one for each axis.
        end: T.
        source: s, a function of u; or None.

    Raises:
        InputError: an argument is none of these.
    """

    speed: Any
    viscosity: Any
    initial: Any
    length: Any = eqx.field(static=True)
    end: float = eqx.field(static=True)
    source: Any = None

    def __init__(
        self, *, speed: Any, viscosity: Any, initial: Any, length: Any, end: float,
        source: Any = None,
    ) -> None:  # fmt: skip
        lengths = np.atleast_1d(np.asarray(length, float))
        if lengths.ndim != 1:
            raise InputError(f"length must be one number, or one for each axis; got {length!r}.")
        sides = tuple(float(positive("length", side)) for side in lengths)
        self.length = sides[0] if np.ndim(length) == 0 else sides
        self.end = float(positive("end", end))
        self.viscosity = (
            viscosity if isinstance(viscosity, Tracer) else not_negative("viscosity", viscosity)
        )
        self.initial, self.source = initial, source
        self.speed = speed
        place, zero = jnp.zeros(self.place_shape), jnp.zeros(())
        scalar_of("initial", initial, place)
        if source is not None:
            scalar_of("source", source, zero)
        out = jax.eval_shape(self.speed_at, zero, place, zero)
        if out.shape != self.place_shape:
            raise InputError(
                f"speed must have shape {self.place_shape}, like a place; got {out.shape}."
            )
        if not callable(speed) and not isinstance(speed, Tracer):
            if not np.all(np.isfinite(np.asarray(speed, float))):
                raise InputError(f"speed must be finite; got {speed!r}.")

    @property
    def dim(self) -> int:
        """How many coordinates a place has."""
        return len(self.lengths)

    @property
    def lengths(self) -> tuple[float, ...]:
        """The length of each axis."""
        return self.length if isinstance(self.length, tuple) else (self.length,)

    @property
    def place_shape(self) -> tuple[int, ...]:
        """() in one dimension on an interval given by a number, else (d,)."""
        return (len(self.length),) if isinstance(self.length, tuple) else ()

    @property
    def is_shift(self) -> bool:
        """Whether the speed is one number, so that paths are parallel."""
        return not callable(self.speed)

    @property
    def is_straight(self) -> bool:
        """Whether paths without viscosity are straight lines along which u stays as it is."""
        return self.source is None and (self.is_shift or required(self.speed) < 3)

    @property
    def is_inviscid(self) -> bool:
        """Whether the viscosity is known to be zero."""
        return not isinstance(self.viscosity, Tracer) and float(self.viscosity) == 0

    def speed_at(self, u: Array, x: Array, t: Array) -> Array:
        """a at a value, place and time."""
        if not callable(self.speed):
            return jnp.asarray(self.speed, u.dtype)
        return jnp.asarray(self.speed(u, x, t) if required(self.speed) >= 3 else self.speed(u))

    def initial_speed(self, x: Array) -> Array:
        """a(u₀) at one place."""
        return self.speed_at(jnp.asarray(self.initial(x)), x, jnp.zeros((), x.dtype))

    def labels(self, n: int = 256) -> Array:
        """An even grid of about n places, shape (m,) or (m, d)."""
        side = max(2, round(n ** (1 / self.dim)))
        axes = [np.arange(side) * (length / side) for length in self.lengths]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, self.dim)
        return jnp.asarray(grid[:, 0] if self.place_shape == () else grid)

    def fine_labels(self) -> Array:
        """A grid fine enough for means and extremes of what waves on the box make."""
        axes = min(self.dim, len(_FINE))
        return self.labels(_FINE[axes - 1] ** axes)

    def mean_speed(self) -> Array:
        """The mean of a(u₀) over the box."""
        return jnp.mean(jax.vmap(self.initial_speed)(self.fine_labels()), axis=0)

    def shock_time(self) -> float:
        """When paths of the equation without viscosity first cross; inf where they do not.

        -1 / min d/dX a(u₀(X)) in one dimension; in more, where the speed depends on u alone,
        -1 over the smallest real eigenvalue of the matrix d a(u₀(X)) / dX. With a source, or a
        speed of place or time, the paths are followed, to the end of the problem and no further.
        """
        if self.is_shift:
            return math.inf
        if not self.is_straight:
            return first_crossing(self, self.labels(4096))
        if self.place_shape == ():
            return steepest_descent(self.initial_speed, self.lengths[0])
        slopes = np.asarray(jax.vmap(jax.jacfwd(self.initial_speed))(self.fine_labels()))
        values = np.linalg.eigvals(slopes)
        real = values.real[np.abs(values.imag) < 1e-9 * (1 + np.abs(values.real))]
        lowest = float(real.min(initial=0.0))
        return -1 / lowest if lowest < -1e-12 else math.inf

    def travelled(self) -> float:
        """How far the fastest path goes, max |a(u₀)| T, in lengths of the box."""
        speeds = np.asarray(jax.vmap(self.initial_speed)(self.fine_labels()))
        speeds = speeds.reshape(-1, self.dim)
        return float(np.max(np.abs(speeds) / np.array(self.lengths)) * self.end)
