"""The size gamma(t) of the latent noise on a path between two distributions.

It is zero at both ends. Its rate of change need not be finite there, but gamma times the rate is:
every gamma brings this product as a formula of its own, so that nothing divides by zero.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from ...errors import InputError
from ...ground.tracing import is_traced


class Gamma(eqx.Module):
    """The size of the latent noise at time t in [0, 1].

    Attributes:
        smooth: whether the rate of change is finite at the ends.
        zero: whether there is no latent noise at all.
    """

    smooth: ClassVar[bool] = True
    zero: ClassVar[bool] = False

    @abstractmethod
    def value(self, t: Any) -> Array:
        """gamma."""

    @abstractmethod
    def rate(self, t: Any) -> Array:
        """The derivative of gamma; infinite at the ends where `smooth` is False."""

    def product(self, t: Any) -> Array:
        """gamma times its rate, finite everywhere."""
        return self.value(t) * self.rate(t)


def as_time(t: Any) -> Array:
    """The time as an array of floating-point numbers, in the precision it came in."""
    t = jnp.asarray(t)
    return t if jnp.issubdtype(t.dtype, jnp.floating) else t.astype(float)


def root(square: Array) -> Array:
    """A square root whose derivative at zero is zero and not NaN."""
    inside = square > 0
    return jnp.where(inside, jnp.sqrt(jnp.where(inside, square, 1.0)), 0.0)


class Zero(Gamma):
    """No latent noise: flow matching and rectified flow."""

    zero: ClassVar[bool] = True

    def value(self, t: Any) -> Array:
        return jnp.zeros_like(as_time(t))

    rate = value


class Brownian(Gamma):
    """sqrt(a t (1 - t)): at each time the law of sqrt(a) times a Brownian bridge.

    Attributes:
        a: positive; a number, or an array that broadcasts against a sample, such as one number per
            axis.
    """

    smooth: ClassVar[bool] = False

    a: ArrayLike = 1.0

    def __check_init__(self) -> None:
        if not is_traced(self.a) and not (np.asarray(self.a) > 0).all():
            raise InputError(f"a={self.a} must be positive; use Zero() for no latent noise.")

    def value(self, t: Any) -> Array:
        t = as_time(t)
        return root(self.a * t * (1 - t))

    def rate(self, t: Any) -> Array:
        return self.product(t) / self.value(t)

    def product(self, t: Any) -> Array:
        return jnp.asarray(self.a * (0.5 - as_time(t)))


class Quadratic(Gamma):
    """t (1 - t)."""

    def value(self, t: Any) -> Array:
        t = as_time(t)
        return t * (1 - t)

    def rate(self, t: Any) -> Array:
        return 1 - 2 * as_time(t)


class SineSquared(Gamma):
    """sin(pi t)^2, with gamma(1/2) = 1."""

    def value(self, t: Any) -> Array:
        # Written in the distance to the nearer end, where sin(pi) would not be zero.
        t = as_time(t)
        return jnp.sin(jnp.pi * jnp.where(t > 0.5, 1 - t, t)) ** 2

    def rate(self, t: Any) -> Array:
        return jnp.pi * jnp.sin(2 * jnp.pi * as_time(t))


class SigmoidBump(Gamma):
    """A plateau between two sigmoids.

    s(f (t - 1/2) + 1) - s(f (t - 1/2) - 1) - s(1 - f/2) + s(-1 - f/2), s the logistic function.

    Attributes:
        steepness: f, positive.
    """

    steepness: float = 10.0

    def __check_init__(self) -> None:
        if not is_traced(self.steepness) and not self.steepness > 0:
            raise InputError(f"steepness={self.steepness} must be positive.")

    def value(self, t: Any) -> Array:
        f, place = self.steepness, jnp.abs(as_time(t) - 0.5)  # it is even about 1/2
        s = jax.nn.sigmoid
        # s(-u) = 1 - s(u): the difference to the ends, exactly zero there.
        return (s(f * place + 1) - s(f * 0.5 + 1)) - (s(f * place - 1) - s(f * 0.5 - 1))

    def rate(self, t: Any) -> Array:
        f, place = self.steepness, as_time(t) - 0.5

        def slope(u):
            return jax.nn.sigmoid(u) * jax.nn.sigmoid(-u)

        return f * (slope(f * place + 1) - slope(f * place - 1))


class FromSquare(Gamma):
    """Any other gamma, given by its square: the square is smooth where gamma itself is not.

    Attributes:
        square: gamma^2, a differentiable function of t that works on arrays of any shape, zero at
            0 and 1 and positive between.

    Raises:
        InputError: it does not vanish at the ends, or is not positive between them.
    """

    smooth: ClassVar[bool] = False

    square: Callable[[Any], Any]

    def __check_init__(self) -> None:
        if not callable(self.square):
            raise InputError(f"square must be a function of t, gamma^2; got {self.square!r}.")
        values = known_values(self.square, np.linspace(0.0, 1.0, 33))
        if values is None:
            return
        ends, inside = values[[0, -1]], values[1:-1]
        if not np.abs(ends).max() < 1e-6:
            raise InputError(
                f"gamma^2 must vanish at both ends, so that the path begins and ends in the data; "
                f"it is {ends[0]:.4g} at t = 0 and {ends[1]:.4g} at t = 1."
            )
        if not (inside > 0).all():
            raise InputError(
                f"gamma^2 must be positive between the ends; its smallest value is "
                f"{inside.min():.4g}."
            )

    def value(self, t: Any) -> Array:
        return root(jnp.asarray(self.square(as_time(t))))

    def rate(self, t: Any) -> Array:
        return self.product(t) / self.value(t)

    def product(self, t: Any) -> Array:
        return 0.5 * derivative(self.square, t)[1]


def known_values(function: Callable[[Any], Any], times: Any) -> np.ndarray | None:
    """The values of a function of the time, or None if they are not known yet, under `jit`."""
    with jax.ensure_compile_time_eval():
        value = function(jnp.asarray(times))
        return None if is_traced(value) else np.asarray(value)


def derivative(function: Callable[[Any], Any], t: Any) -> tuple[Array, Array]:
    """A function of the time that works on arrays, and its derivative."""
    t = as_time(t)
    return jax.jvp(lambda t: jnp.asarray(function(t), t.dtype), (t,), (jnp.ones_like(t),))
