"""Minimisation by any gradient transformation of Optax."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from ..iterate import Tolerance, Vector


class OptaxDescent(eqx.Module):
    """Steps of an Optax optimiser; `problem` is the objective f of a vector.

    Attributes:
        tolerance: the iteration ends when no component of the gradient is larger than
            atol + rtol * (the largest component of the first gradient).
        optimiser: an `optax.GradientTransformation`.
    """

    tolerance: Tolerance
    optimiser: optax.GradientTransformation = eqx.field(static=True)

    def init(self, problem: Callable[[Vector], Array], x: Vector) -> Any:
        first = jax.grad(problem)(x)
        return self.optimiser.init(x), first

    def step(
        self, problem: Callable[[Vector], Array], x: Vector, state: Any
    ) -> tuple[Vector, Any, Array]:
        inner, first = state
        value, gradient = jax.value_and_grad(problem)(x)
        error = self.tolerance.scaled(gradient, first)
        updates, inner = optax.with_extra_args_support(self.optimiser).update(
            gradient, inner, x, value=value, grad=gradient, value_fn=problem
        )
        # The point whose gradient was small is the result.
        moved: Any = optax.apply_updates(x, updates)
        x = jnp.where(error <= 1, x, moved)
        return x, (inner, first), error
