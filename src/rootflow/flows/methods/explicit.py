"""Explicit Runge-Kutta methods: the step, for any tableau."""

from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from ..system import Given, System
from .base import Method, Step


class Stages(NamedTuple):
    """The stages of a step, and what the further stages of an interpolant need."""

    values: list[Array]
    t: Array | None = None
    field: Any = None


def combine(weights: np.ndarray, stages: list[Array]) -> Array:
    """The weighted sum of the stages, without the terms whose weight is zero."""
    total = None
    for weight, stage in zip(weights, stages, strict=True):
        if weight != 0.0:
            term = stage if weight == 1.0 else float(weight) * stage
            total = term if total is None else total + term
    return jnp.zeros_like(stages[0]) if total is None else total


def nested(weights: np.ndarray, *corrections: np.ndarray) -> np.ndarray:
    """The cubic Hermite interpolant of a step, or one of higher degree.

    It is y + s (F0 + (1 - s) (F1 + s (F2 + (1 - s) (F3 + ...)))). F0, F1 and F2 match the states
    and slopes at both ends; F3, ... are h times sums of stages and leave these as they are.

    Source: Hairer, Norsett & Wanner, Solving ODEs I, Section II.6, equation (6.13) and the codes
    DOPRI5 and DOP853.

    Args:
        weights: of the stages in the step; the first stage is the slope at its start and the
            one after the last weight that at its end.
        corrections: of the stages in F3, F4, ..., shape (stages,).

    Returns:
        Coefficients of s, s**2, ... in the weight of each stage, shape (stages, degree).
    """
    size = len(corrections[0]) if corrections else len(weights) + 1
    move, first, last = np.zeros((3, size))
    move[: len(weights)] = weights
    first[0] = last[len(weights)] = 1.0
    parts = [move, first - move, 2 * move - first - last, *corrections]
    total = np.zeros((size, 1))
    for degree, part in reversed(list(enumerate(parts))):
        total[:, 0] += part
        factor = (0.0, 1.0) if degree % 2 == 0 else (1.0, -1.0)
        total = np.stack([np.convolve(row, factor) for row in total])
    return total[:, 1:]


def stiffness_of(rise: Array, run: Array) -> Array:
    """|rise| / |run|, with a derivative (of zero) also where nothing rises or runs."""
    rise, run = jnp.sum(jnp.abs(rise) ** 2), jnp.sum(jnp.abs(run) ** 2)
    moved = run > 0
    ratio = jnp.where(moved, rise, 0.0) / jnp.where(moved, run, 1.0)
    positive = ratio > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, ratio, 1.0)), 0.0)


class ExplicitRungeKutta(Method):
    """An explicit Runge-Kutta method, given by its tableau.

    The stages are unrolled and the tableau is data known at compile time, so that the compiler
    sees one straight piece of arithmetic. The last stage is evaluated at the new state and reused
    as the first of the next step: with that, a method is "first same as last" or made so, which
    costs no evaluation more in a step and gives every method the slopes at both ends.

    The stiffness is Shampine's estimate: the quotient of the differences of the last two stages
    and of their arguments. Where the two share their time (Heun, Tsit5, Dopri5, Dopri8, Vern7)
    this is the Jacobian applied to the difference of the arguments, over its length; in the other
    methods it holds for a vector field that does not depend on time.

    Attributes:
        nodes: times of the stages in units of the step.
        matrix: weights of the earlier stages in the argument of each stage but the first; the
            last row are those of the new state.
        error_weights: of the stages in the error estimate; `None`: there is none.
        interpolation: coefficients of s, s**2, ... in the weight of each stage, shape
            (stages, degree); the extra stages come last.
        extra_nodes: times of the stages that only the interpolant needs.
        extra_matrix: weights in their arguments. They are evaluated in `coefficients`.
    """

    nodes: ClassVar[np.ndarray]
    matrix: ClassVar[list[np.ndarray]]
    error_weights: ClassVar[np.ndarray | None]
    interpolation: ClassVar[np.ndarray]
    extra_nodes: ClassVar[np.ndarray] = np.array([])
    extra_matrix: ClassVar[list[np.ndarray]] = []

    slope: ClassVar[bool] = True

    def init(self, f: System, t: Array, y: Float[Array, " m"], args: Given) -> Any:
        return f(t, y, args)

    def run(
        self,
        f: System,
        t: Array,
        y: Float[Array, " n"],
        h: Array,
        args: Given,
        first: Float[Array, " n"],
        last: bool = True,
    ) -> tuple[list[Array], list[Array]]:
        """The stages and their arguments; the stage at the new state only if `last`."""
        stages, arguments = [first], [y]
        for i, (node, row) in enumerate(zip(self.nodes[1:], self.matrix, strict=True)):
            arguments.append(y + h * combine(row, stages))
            if last or i + 1 < len(self.matrix):
                stages.append(f(t + float(node) * h, arguments[-1], args))
        return stages, arguments

    def increment(self, h: Array, stages: list[Array]) -> Float[Array, " n"]:
        """By what the step moves the state."""
        return h * combine(self.matrix[-1], stages)

    def local_error(
        self,
        f: System,
        h: Array,
        y: Float[Array, " n"],
        new: Float[Array, " n"],
        args: Given,
        stages: list[Array],
    ) -> Float[Array, " n"] | None:
        """The error estimate."""
        del f, y, new, args
        return None if self.error_weights is None else h * combine(self.error_weights, stages)

    def kept(self, f: System, t: Array, args: Given, stages: list[Array]) -> Stages:
        """What the interpolant needs."""
        if not self.extra_matrix:
            return Stages(stages)
        return Stages(stages, t, Partial(f, args=args))

    def step(
        self, f: System, t: Array, y: Float[Array, " m"], h: Array, args: Given, state: Any
    ) -> Step:
        stages, arguments = self.run(f, t, y, h, args, state)
        new = arguments[-1]
        error = self.local_error(f, h, y, new, args, stages)
        stiffness = None
        if self.adaptive:
            stiffness = stiffness_of(stages[-1] - stages[-2], new - arguments[-2])
        return Step(new, error, stages[-1], self.kept(f, t, args, stages), stiffness)

    def coefficients(self, h: Array, y: Float[Array, " m"], step: Step) -> Float[Array, "degree n"]:
        values, t, field = step.stages
        values = list(values)
        for node, row in zip(self.extra_nodes, self.extra_matrix, strict=True):
            values.append(field(t + float(node) * h, y + h * combine(row, values)))
        return jnp.stack([h * combine(column, values) for column in self.interpolation.T])
