"""The reversible Heun method for stochastic equations."""

from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..system import Given, System, the
from .base import Step
from .reversible import still
from .sde import Calculus, StochasticMethod, times


class StochasticReversibleHeun(StochasticMethod):
    """The reversible Heun method for Stratonovich equations; `rf.ReversibleHeun()` in `solve_sde`.

    The lifted state is (y, x): drift and diffusion are taken at x, once a step. Strong order 0.5, 1
    for additive noise and where the noise commutes; weak order 1. A step is undone to round-off,
    with the same noise.

    Source: P. Kidger, J. Foster, X. Li & T. Lyons, "Efficient and accurate gradients for neural
    SDEs" (2021), Algorithms 1 and 2.
    """

    calculus: ClassVar[Calculus | None] = "stratonovich"
    order: ClassVar[int] = 1
    error_order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 1
    start: ClassVar[int] = 1
    exact_inverse: ClassVar[bool] = True

    def lift(self, f: System, t: Array, y: Float[Array, " n"], args: Given) -> Float[Array, " m"]:
        del f, t, args
        return jnp.concatenate([y, y])

    def project(self, z: Float[Array, " m"]) -> Float[Array, " n"]:
        return z[: z.shape[0] // 2]

    def _slopes(self, f, t, x, args):
        return f(t, x, args), the(f.parts.diffusion)(t, x, args)

    def init(self, f: System, t: Array, z: Float[Array, " m"], args: Given) -> Any:
        return self._slopes(f, t, z[z.shape[0] // 2 :], args), args.noise.start(t)

    def step(
        self, f: System, t: Array, z: Float[Array, " m"], h: Array, args: Given, state: Any
    ) -> Step:
        y, x = jnp.split(z, 2)
        (drift, g), path = state
        noise, path = args.noise.advance(t, h, path)
        first = h * drift + times(g, noise.w)
        new_x = 2 * y - x + first
        slopes = self._slopes(f, t + h, new_x, args)
        second = h * slopes[0] + times(slopes[1], noise.w)
        new = y + 0.5 * (first + second)
        return Step(still(h, z, new, new_x), 0.5 * (second - first), (slopes, path), None)

    def inverse(
        self, f: System, t: Array, z: Float[Array, " m"], h: Array, args: Given
    ) -> Float[Array, " m"]:
        new, new_x = jnp.split(z, 2)
        start = t - h
        noise, _ = args.noise.advance(start, h, args.noise.start(start))
        drift, g = self._slopes(f, t, new_x, args)
        second = h * drift + times(g, noise.w)
        x = 2 * new - new_x - second
        drift, g = self._slopes(f, start, x, args)
        first = h * drift + times(g, noise.w)
        return jnp.concatenate([new - 0.5 * (first + second), x])
