"""Displacements prescribed in time, with the velocities and accelerations that belong to them."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from ..errors import InputError
from . import checks


class Motion(NamedTuple):
    """u, u' and u'' at one time, all of one shape."""

    displacement: Array
    velocity: Array
    acceleration: Array


#: A time within this part of an interval of a knot, or within the rounding of the sum of many
#: steps, is that knot: displacements there are exact.
_SNAP = 1e-6


class Trajectory(eqx.Module):
    """A cubic Hermite interpolant through displacements at equal intervals of time.

    Velocity and acceleration are the derivatives of the same cubic. A straight line between values
    would have an infinite acceleration at each of them. At the times themselves the displacement is
    the given value, to the last bit.

    Attributes:
        values: displacements, shape (times, ...), from time 0 on.
        rates: velocities there, of the same shape.
        interval: between two times.
    """

    values: Float[Array, "times ..."]
    rates: Float[Array, "times ..."]
    interval: Float[Array, ""]

    def __init__(
        self,
        values: Float[ArrayLike, "times ..."],
        interval: ArrayLike,
        rates: Float[ArrayLike, "times ..."] | None = None,
    ) -> None:
        """The trajectory.

        Args:
            values: displacements, shape (times, ...), at least three times.
            interval: between two times, positive.
            rates: velocities; by default differences of second order.

        Raises:
            InputError: too few times, or rates of another shape.
        """
        self.values = jnp.asarray(values, jnp.result_type(float))
        self.interval = jnp.asarray(interval, self.values.dtype)
        if self.values.ndim < 1 or self.values.shape[0] < 3:
            raise InputError(
                "a trajectory needs at least three times, for velocities are differences; got "
                f"values of shape {self.values.shape}."
            )
        if rates is None:
            self.rates = differences(self.values, self.interval)
            return
        self.rates = jnp.asarray(rates, self.values.dtype)
        if self.rates.shape != self.values.shape:
            raise InputError(
                f"rates must have the shape {self.values.shape} of values; got {self.rates.shape}."
            )

    def __call__(self, t: ArrayLike) -> Motion:
        """The motion at time t; beyond the last time as the last cubic goes on."""
        position = jnp.asarray(t) / self.interval
        nearest = jnp.round(position)
        hair = jnp.maximum(_SNAP, 32 * jnp.finfo(position.dtype).eps * jnp.abs(position))
        position = jnp.where(jnp.abs(position - nearest) < hair, nearest, position)
        last = self.values.shape[0] - 1
        k = jnp.clip(jnp.floor(position), 0, last - 1).astype(int)
        s = position - k
        h = self.interval
        u0, u1 = self.values[k], self.values[k + 1]
        m0, m1 = h * self.rates[k], h * self.rates[k + 1]
        b, c = 3 * (u1 - u0) - 2 * m0 - m1, 2 * (u0 - u1) + m0 + m1
        return Motion(
            jnp.where(s == 0, u0, jnp.where(s == 1, u1, u0 + s * (m0 + s * (b + s * c)))),
            (m0 + s * (2 * b + s * 3 * c)) / h,
            (2 * b + 6 * s * c) / h**2,
        )


def differences(values: Float[Array, "times ..."], interval: ArrayLike) -> Array:
    """Velocities by differences of second order, one-sided at the ends."""
    h = jnp.asarray(interval, values.dtype)
    inside = (values[2:] - values[:-2]) / (2 * h)
    first = (-3 * values[0] + 4 * values[1] - values[2]) / (2 * h)
    last = (3 * values[-1] - 4 * values[-2] + values[-3]) / (2 * h)
    return jnp.concatenate([first[None], inside, last[None]])


def newmark_rates(
    values: Float[ArrayLike, "times ..."],
    interval: ArrayLike,
    *,
    beta: float = 0.25,
    gamma: float = 0.5,
) -> tuple[Array, Array]:
    """Velocities and accelerations with which Newmark's formulas give these displacements.

    From rest. A boundary that moves by them fits to an interior that is stepped by `rf.Newmark`.

    Args:
        values: displacements at the steps, shape (times, ...), the first zero.
        interval: the step.
        beta: of Newmark's method.
        gamma: of it.

    Raises:
        InputError: values that do not start at rest.
    """
    u = jnp.asarray(values, jnp.result_type(float))
    checks.at_rest(np.asarray(u).reshape(1, u.shape[0], -1, 1), "values")
    h = jnp.asarray(interval, u.dtype)

    def step(carry, pair):
        v, a = carry
        u0, u1 = pair
        a1 = ((u1 - u0 - h * v) / h**2 - (0.5 - beta) * a) / beta
        v1 = v + h * ((1 - gamma) * a + gamma * a1)
        return (v1, a1), (v1, a1)

    rest = jnp.zeros_like(u[0]), jnp.zeros_like(u[0])
    _, (v, a) = lax.scan(step, rest, (u[:-1], u[1:]))
    return jnp.concatenate([rest[0][None], v]), jnp.concatenate([rest[1][None], a])
