"""The loss of a problem: mean squares of residuals, conditions and data, and their weights."""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from .points import adaptive
from .problem import Informed

# Of the old in the average of weights (Wang, Teng and Perdikaris 2021).
_KEPT = 0.9


class Trainee(eqx.Module):
    """What is carried while a network is trained.

    Attributes:
        network: of the coordinates.
        parameters: the unknown ones.
        weights: a factor for each term, not trained.
        pool: the points, where they are chosen between reports; else None.
    """

    network: Any
    parameters: Any
    weights: dict[str, Array]
    pool: Any = None

    def trained(self) -> "Trainee":
        """Booleans of the same structure: what is trained."""
        network, parameters = jax.tree.map(
            eqx.is_inexact_array, (self.network, self.parameters)
        )  # fmt: skip
        frozen = jax.tree.map(lambda _: False, (self.weights, self.pool))
        return Trainee(network, parameters, *frozen)


class Loss(eqx.Module):
    """Σ weight · mean r² over residuals, conditions and data, for `rootflow.train`.

    Attributes:
        problem: what is solved.
        edges: points and normals of each condition.
        data: points and values, or None.
        causal: ε of the weights exp(-ε Σ earlier losses) over chunks of time (Wang, Sankaran and
            Perdikaris 2022); None for equal ones.
        chunks: how many.
        measure: "mean_square", or "norm": √Σ r², as in the code of Mojgani et al.
    """

    problem: Informed
    edges: tuple[tuple[Array, Array], ...]
    data: Any
    causal: float | None = eqx.field(static=True)
    chunks: int = eqx.field(static=True)
    measure: Literal["mean_square", "norm"] = eqx.field(static=True)

    def names(self) -> tuple[str, ...]:
        """Of the terms, in order."""
        conditions = tuple(
            condition.name or f"condition {i + 1}"
            for i, condition in enumerate(self.problem.conditions)
        )
        return (*self.problem.equations, *conditions, *(["data"] if self.data else []))

    def fixed_weights(self) -> dict[str, float]:
        """Those of the problem."""
        problem = self.problem
        of_equations = problem.weights or (1.0,) * len(problem.equations)
        of_data = [self.data[2]] if self.data else []
        numbers = (*of_equations, *(c.weight for c in problem.conditions), *of_data)
        return dict(zip(self.names(), numbers))

    def residuals(self, trainee: Trainee, x: Float[Array, "n ..."]) -> tuple[Array, ...]:
        """Of the equations at points, shape (n,) each."""
        u = self.problem.field(trainee.network)
        return jax.vmap(lambda x: self.problem.at(u, x, trainee.parameters))(x)

    def terms(self, trainee: Trainee, x: Float[Array, "n ..."]) -> dict[str, Array]:
        """The terms without their weights, by name."""
        u, p = self.problem.field(trainee.network), trainee.parameters
        values = [self._of_equation(r, x) for r in self.residuals(trainee, x)]
        for condition, (at, normals) in zip(self.problem.conditions, self.edges):
            parts = jax.vmap(lambda x, n, c=condition: c.at(u, x, n, p))(at, normals)
            values.append(sum(map(self._size, parts), jnp.zeros(())))
        if self.data:
            at, wanted, _ = self.data
            values.append(self._size(jax.vmap(u)(at) - wanted))
        return dict(zip(self.names(), values))

    def __call__(
        self, trainee: Trainee, batch: Any, key: PRNGKeyArray
    ) -> tuple[Array, dict[str, Array]]:
        x = batch if trainee.pool is None else trainee.pool
        terms = self.terms(trainee, x)
        fixed = self.fixed_weights()
        total = sum(
            (fixed[n] * jax.lax.stop_gradient(trainee.weights[n]) * terms[n] for n in terms),
            jnp.zeros((), x.dtype),
        )
        return total, terms

    def _size(self, r):
        squares = jnp.square(r)
        return jnp.mean(squares) if self.measure == "mean_square" else _root(jnp.sum(squares))

    def _of_equation(self, r, x):
        if self.causal is None:
            return self._size(r)
        low, high = self.problem.domain.bounds[-1]
        chunk = jnp.clip((x[:, -1] - low) / (high - low) * self.chunks, 0, self.chunks - 1)
        chunk = chunk.astype(int)
        sums = jax.ops.segment_sum(jnp.square(r), chunk, self.chunks)
        counts = jax.ops.segment_sum(jnp.ones_like(r), chunk, self.chunks)
        means = sums / jnp.maximum(counts, 1)
        weights = jax.lax.stop_gradient(jnp.exp(-self.causal * (jnp.cumsum(means) - means)))
        return jnp.mean(weights * means)


def _root(x):
    none = x <= 0
    return jnp.where(none, 0.0, jnp.sqrt(jnp.where(none, 1, x)))


@eqx.filter_jit
def gradient_norm_weights(loss: Loss, trainee: Trainee, x: Array) -> dict[str, Array]:
    """Factors that make the gradients of all weighted terms equally long, averaged with the old.

    λ_i = Σ_j |∇L_j| / |∇L_i|, divided by the number of terms (Wang, Teng and Perdikaris 2021,
    in the form of Wang, Sankaran, Wang and Perdikaris 2023, arXiv 2308.08468).
    """
    moving, rest = eqx.partition(trainee, trainee.trained())
    fixed = loss.fixed_weights()

    def of_vector(moving):
        terms = loss.terms(eqx.combine(moving, rest), x)
        return jnp.stack([fixed[name] * terms[name] for name in terms])

    flat, unravel = ravel_pytree(moving)
    slopes = jax.jacrev(lambda v: of_vector(unravel(v)))(flat)
    sizes = jnp.linalg.norm(slopes, axis=1)
    wanted = jnp.mean(sizes) / jnp.maximum(sizes, 1e-12 * jnp.max(sizes) + 1e-30)
    old = trainee.weights
    return {
        name: (_KEPT * old[name] + (1 - _KEPT) * new).astype(old[name].dtype)
        for name, new in zip(old, wanted)
    }


@eqx.filter_jit
def adapted_points(loss: Loss, trainee: Trainee, key: PRNGKeyArray, n: int) -> Array:
    """n points of ten times as many, drawn where the residual is large."""
    at, choose = jax.random.split(key)
    candidates = loss.problem.domain.draw(at, 10 * n).astype(trainee.pool.dtype)
    squares = sum(jnp.square(r) for r in loss.residuals(trainee, candidates))
    return adaptive(choose, candidates, jnp.sqrt(squares), n)
