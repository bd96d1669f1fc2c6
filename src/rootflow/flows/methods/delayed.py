"""The method of steps: any one-step method for equations with delays."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...errors import InputError
from ..interpolation import polynomial
from ..system import Given, System, the
from .base import Step
from .wrapper import Wrapper


class Delayed(Wrapper):
    """A method for dy/dt = f(t, y(t), y(t - d)), which looks the delayed states up in its past.

    The past, that is the interpolant of every step so far, is part of the lifted state. A step is
    never longer than the shortest delay, so that what it looks up is known.

    Source: Bellen & Zennaro, Numerical Methods for Delay Differential Equations (2003), Chapter 3.

    Attributes:
        method: the one-step method.
        delays: how many delays there are.
        capacity: the most steps of the past.
        size: the size n of the state.
        degree: of the method's interpolant.
    """

    delays: int = eqx.field(static=True)
    capacity: int = eqx.field(static=True)
    size: int = eqx.field(static=True)
    degree: int = eqx.field(static=True)

    # The lifted state: y, the number of steps so far, their starts, sizes, states and coefficients.
    def _split(self, z):
        n, k = self.size, self.capacity
        count, starts, sizes = z[n], z[n + 1 : n + 1 + k], z[n + 1 + k : n + 1 + 2 * k]
        pieces = z[n + 1 + 2 * k :].reshape(k, self.degree + 1, n)
        return z[:n], count, starts, sizes, pieces

    def lift(self, f: System, t: Array, y: Float[Array, " n"], args: Given) -> Float[Array, " m"]:
        if jnp.iscomplexobj(y):
            raise InputError("Equations with delays are for real states: split y into two parts.")
        past = jnp.zeros(1 + self.capacity * (2 + (self.degree + 1) * self.size), y.dtype)
        return jnp.concatenate([y, past])

    def project(self, z: Float[Array, " m"]) -> Float[Array, " n"]:
        return z[: self.size]

    def restart(
        self, f: System, t: Array, z: Float[Array, " m"], y: Float[Array, " n"], args: Given
    ) -> Float[Array, " m"]:
        return z.at[: self.size].set(y)

    def limit(self, f: System, t: Array, z: Float[Array, " m"], args: Given) -> Array | None:
        y = self.project(z)
        shortest: Any = jnp.inf
        for i in range(self.delays):
            shortest = jnp.minimum(shortest, jnp.abs(f.parts.delays[i](t, y, args)))
        return shortest

    def _past(self, f: System, z: Array, args: Given):
        """The state at an earlier time."""
        _, count, starts, sizes, pieces = self._split(z)
        some = count > 0
        direction = jnp.where(some & (sizes[0] < 0), -1.0, 1.0).astype(z.dtype)
        index = jnp.arange(self.capacity)
        ordered = jnp.where(index < count, direction * starts, jnp.inf)

        def at(time: Array) -> Float[Array, " n"]:
            row = jnp.searchsorted(ordered, direction * time, side="right") - 1
            row = jnp.maximum(row, 0)
            size = jnp.where(some, sizes[row], 1.0)
            s = (time - jnp.where(some, starts[row], time)) / size
            value = polynomial(pieces[row, 0], pieces[row, 1:], s)
            before = ~some | (direction * time < direction * starts[0])
            old = the(f.parts.history)(time, z[: self.size], args._replace(window=None))
            return jnp.where(before, old, value)

        return at

    def _system(self, f: System, z: Array, args: Given) -> System:
        """The equation as one without delays, for a step from here."""
        past = self._past(f, z, args)

        def field(t, y, args):
            delayed = [past(t - f.parts.delays[i](t, y, args)) for i in range(self.delays)]
            return the(f.parts.delayed)(t, jnp.concatenate([y, *delayed]), args)

        return System(field, self.size)

    def init(self, f: System, t: Array, z: Float[Array, " m"], args: Given) -> Any:
        return self.method.init(self._system(f, z, args), t, z[: self.size], args)

    def step(
        self, f: System, t: Array, z: Float[Array, " m"], h: Array, args: Given, state: Any
    ) -> Step:
        inner = self._system(f, z, args)
        y, count, *_ = self._split(z)
        if self.method.keeps_slope:
            # The slope of its last stage could not be had again when the step is repeated.
            state = self.method.init(inner, t, y, args)
        step = self.method.step(inner, t, y, h, args, state)
        coefficients = self.method.coefficients(h, y, step)
        n, k = self.size, self.capacity
        # A step of size zero is done again for its derivative: it leaves everything as it is.
        row = jnp.where((h != 0) & (count < k), count, k).astype(jnp.int32)
        piece = jnp.concatenate([y[None], coefficients]).ravel()
        new = z.at[:n].set(step.y).at[n].add(jnp.where(h != 0, 1.0, 0.0))
        new = new.at[jnp.where(row < k, n + 1 + row, z.size)].set(t, mode="drop")
        new = new.at[jnp.where(row < k, n + 1 + k + row, z.size)].set(h, mode="drop")
        first = n + 1 + 2 * k + row * piece.size
        places = jnp.where(row < k, first + jnp.arange(piece.size), z.size)
        new = new.at[places].set(piece, mode="drop")
        return step._replace(y=new)
