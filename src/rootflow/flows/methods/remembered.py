"""Explicit methods whose lifted state holds the slope."""

import jax.numpy as jnp

from .wrapper import Wrapper


class Remembered(Wrapper):
    """An explicit Runge-Kutta method with the slope at the end of a step as part of its state.

    The method itself evaluates that slope again when a step is repeated, for its derivative. For a
    vector field that costs more than the memory of one more state that is one evaluation, and one
    derivative of it, in seven (`Tsit5`). The steps are the same.

    The slope at the start of a step is the one at the end of the step before: not for vector fields
    that jump between the two.
    """

    def lift(self, f, t, y, args):
        y = self.method.lift(f, t, y, args)
        return jnp.concatenate([y, self.method.init(f, t, y, args)])

    def project(self, z):
        return z[: z.shape[0] // 2]

    def limit(self, f, t, z, args):
        return self.method.limit(f, t, self.project(z), args)

    def init(self, f, t, z, args):
        return None

    def step(self, f, t, z, h, args, state):
        y, slope = jnp.split(z, 2)
        step = self.method.step(f, t, y, h, args, slope)
        # An idle repetition, by h = 0, is at no particular time.
        after = jnp.where(h == 0, slope, step.state)
        return step._replace(y=jnp.concatenate([step.y, after]), state=None)
