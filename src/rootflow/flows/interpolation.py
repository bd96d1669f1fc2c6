"""The solution between the steps."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Real

from .._typing import PyTree
from ..ground.modes import own_modes


class Steps(eqx.Module):
    """The accepted steps of a solve, one row each; a row with size 0 is idle."""

    starts: Float[Array, " rows"]
    sizes: Float[Array, " rows"]
    states: Any  # the state at the start of each step
    last: Int[Array, ""]  # the last row that is not idle; -1: there was no step
    direction: Float[Array, ""]
    t0: Float[Array, ""]
    t1: Float[Array, ""]  # where the solve got to
    y0: Any

    def locate(self, t: Array) -> tuple[Int[Array, ""], Array]:
        """The row whose step covers `t`, and where in it `t` is (0 to 1)."""
        # Idle rows end where the step before them does.
        index = jnp.arange(self.starts.shape[0])
        ends = self.direction * jnp.where(index == self.last, self.t1, self.starts + self.sizes)
        ends = jax.lax.stop_gradient(jnp.where(self.sizes == 0, -jnp.inf, ends))
        ends = jax.lax.cummax(jnp.where(index <= self.last, ends, jnp.inf))
        row = jnp.searchsorted(ends, self.direction * jax.lax.stop_gradient(t), side="right")
        row = jnp.clip(row, 0, jnp.maximum(self.last, 0))
        # The end of the span may be followed by idle rows.
        idle = self.sizes[row] == 0
        row = jnp.where(idle, jnp.maximum(self.last, 0), row)
        size = self.sizes[row]
        empty = size == 0
        return row, jnp.where(empty, 0.0, (t - self.starts[row]) / jnp.where(empty, 1.0, size))

    def covers(self, t: Array) -> Array:
        t = self.direction * t
        return (t >= self.direction * self.t0) & (t <= self.direction * self.t1)

    def start(self, row: Array) -> tuple[Array, Any]:
        """Time and state at the start of a row; without any step, the initial ones."""
        some = self.last >= 0
        t = jnp.where(some, self.starts[row], self.t0)
        return t, jax.tree.map(lambda y, y0: jnp.where(some, y[row], y0), self.states, self.y0)


class Dense(eqx.Module):
    """A piecewise polynomial over the accepted steps; made by `saveat="dense"`."""

    steps: Steps
    coefficients: PyTree[Array]
    origin: Float[Array, ""] | None = None  # what the times of the steps are counted from

    @own_modes
    def __call__(self, t: Real[Array, ""]) -> PyTree[Array]:
        if self.origin is not None:
            t = self._counted(jnp.asarray(t, self.origin.dtype), self.origin)
        row, s = self.steps.locate(t)
        _, start = self.steps.start(row)
        inside = self.steps.covers(t)

        def at(state, coefficients):
            return jnp.where(inside, polynomial(state, coefficients[row], s), jnp.nan)

        return jax.tree.map(at, start, self.coefficients)

    def _counted(self, t: Array, origin: Array) -> Array:
        """The time since `origin`; beside an end by no more than rounding it is that end."""
        near = 4 * jnp.finfo(t.dtype).eps * jnp.maximum(jnp.abs(t), jnp.abs(origin))
        t = t - origin
        for end in (self.steps.t0, self.steps.t1):
            t = t + jax.lax.stop_gradient(jnp.where(jnp.abs(t - end) <= near, end - t, 0.0))
        return t


def polynomial(start: Array, coefficients: Array, s: Array) -> Array:
    """start + c[0] s + c[1] s**2 + ... by Horner's rule."""
    total = jnp.zeros_like(start)
    for c in coefficients[::-1]:
        total = (total + c) * s
    return start + total
