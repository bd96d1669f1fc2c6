"""Methods whose lifted state holds the slope."""

from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..system import Given, System
from .base import Method, Step
from .wrapper import Wrapper


class Remembered(Wrapper):
    """A Runge-Kutta method with the slope at the end of a step as part of its state.

    The method itself evaluates that slope again when a step is repeated, for its derivative. The
    steps are the same.

    For an explicit method, with a vector field that costs more than the memory of one more state,
    this saves one evaluation, and one derivative of it, in seven (`Tsit5`). An implicit one has its
    slope from its last stage: evaluated again at the state it would have the error of Newton's
    method times the stiffness, and the repetition would be another step. A method that takes turns
    with such a one hands the slope on that it evaluates at the end.
    """

    remembers: ClassVar[bool] = True

    def lift(self, f: System, t: Array, y: Float[Array, " n"], args: Given) -> Float[Array, " m"]:
        y = self.method.lift(f, t, y, args)
        return jnp.concatenate([y, f(t, self.method.project(y), args)])

    def project(self, z: Float[Array, " m"]) -> Float[Array, " n"]:
        return z[: z.shape[0] // 2]

    def limit(self, f: System, t: Array, z: Float[Array, " m"], args: Given) -> Array | None:
        return self.method.limit(f, t, self.project(z), args)

    def init(self, f: System, t: Array, z: Float[Array, " m"], args: Given) -> Any:
        return None

    def step(
        self, f: System, t: Array, z: Float[Array, " m"], h: Array, args: Given, state: Any
    ) -> Step:
        y, slope = jnp.split(z, 2)
        if self.method.slope:
            step = self.method.step(f, t, y, h, args, slope)
        else:
            step = self.method.step(f, t, y, h, args, self.method.init(f, t, y, args))
            step = step._replace(state=f(t + h, step.y, args))
        # An idle repetition, by h = 0, is at no particular time.
        after = jnp.where(h == 0, slope, step.state)
        return step._replace(y=jnp.concatenate([step.y, after]), state=None)


def repeatable(methods: tuple[Method, ...]) -> tuple[Method, ...]:
    """The methods that take turns in a solve, as functions of the lifted state alone."""
    if any(method.keeps_slope for method in methods):
        return tuple(map(Remembered, methods))
    return methods
