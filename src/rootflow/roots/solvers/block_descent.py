"""Block coordinate descent: a proximal-gradient step on one block after the other.

Each block has its own step size, found by backtracking unless fixed (Tseng and Yun 2009). Blocks
are the rows of one array.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...ground.varying import fori_loop
from ..iterate import Tolerance, Vector
from .proximal_gradient import Composite, backtrack, first_step_size


class Blocks(NamedTuple):
    """min f(X) + sum_j g(X_j) over the rows X_j of a matrix; `prox(row, step)` belongs to g."""

    f: Callable[[Float[Array, "k n"]], Array]
    prox: Callable[[Vector, Array], Vector]
    shape: tuple[int, int]


class BlockDescent(eqx.Module):
    """Cyclic block coordinate descent; `problem` is a `Blocks`, x its rows one after another.

    Attributes:
        tolerance: of the change of x in one sweep.
        step_size: a fixed step size for every block, or None for backtracking.
    """

    tolerance: Tolerance
    step_size: Array | float | None = None

    def init(self, problem: Blocks, x: Vector) -> Float[Array, " k"]:
        if self.step_size is not None:
            return jnp.full(problem.shape[0], self.step_size, x.dtype)
        rows = x.reshape(problem.shape)

        def first(j):
            return first_step_size(lambda row: problem.f(rows.at[j].set(row)), rows[j])

        return jax.lax.map(first, jnp.arange(problem.shape[0]))

    def step(
        self, problem: Blocks, x: Vector, sizes: Float[Array, " k"]
    ) -> tuple[Vector, Any, Array]:
        rows = x.reshape(problem.shape)

        def update(j, carry):
            rows, sizes = carry

            def of_row(row):
                return problem.f(rows.at[j].set(row))

            row = rows[j]
            value, gradient = jax.value_and_grad(of_row)(row)
            size = sizes[j]
            if self.step_size is None:
                part = Composite(of_row, problem.prox)
                new, size = backtrack(part, row, value, gradient, size)
            else:
                new = problem.prox(row - size * gradient, size)
            return rows.at[j].set(new), sizes.at[j].set(size)

        new, sizes = fori_loop(0, problem.shape[0], update, (rows, sizes))
        new = new.reshape(x.shape)
        return new, sizes, self.tolerance.scaled(new - x, x)
