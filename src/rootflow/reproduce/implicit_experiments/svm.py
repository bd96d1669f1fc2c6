"""A hyper-parameter of a multiclass support vector machine: implicit and unrolled gradients."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ...roots import conditions
from ...roots.argmin import argmin
from ...roots.implicit import implicit
from ...roots.iterate import Tolerance
from ...roots.sets import Simplex
from ...roots.solvers.mirror_descent import (
    MirrorDescent,
    Mirrored,
    safe_log,
)
from ...roots.solvers.proximal_gradient import Composite, ProximalGradient
from .measure import paired_seconds, relative, scikit_learn, working_bytes

_CLASSES = 5
_SIMPLEX = Simplex()
# The steps are counted, not stopped by a tolerance.
_NEVER = Tolerance(0.0, 1.0)


class Problem(NamedTuple):
    """Training and validation data; labels are one-hot rows."""

    features: np.ndarray
    labels: np.ndarray
    validation: np.ndarray
    validation_labels: np.ndarray
    curvature: float

    def weights(self, x: Array, log_theta: Array) -> Any:
        """W = X' (Y - x) / theta, from the dual variables x (m, k)."""
        return self.features.T @ (self.labels - x) / jnp.exp(log_theta)

    def dual(self, x: Array, log_theta: Array) -> Array:
        """The inner objective, over a product of simplices."""
        weights = self.weights(x, log_theta)
        return 0.5 * jnp.exp(log_theta) * jnp.sum(weights**2) + jnp.sum(x * self.labels)

    def loss(self, x: Array, log_theta: Array) -> Array:
        """The outer objective: squared error on the validation data."""
        predicted = self.validation @ self.weights(x, log_theta)
        return 0.5 * jnp.sum((predicted - self.validation_labels) ** 2)

    def start(self) -> Array:
        """Every class equally likely."""
        return jnp.full(self.labels.shape, 1 / _CLASSES)


def problem(train: int, validation: int, features: int) -> Problem:
    """Synthetic data in five classes, a tenth of the features informative, rows normalised."""
    rows, classes = scikit_learn("datasets").make_classification(
        n_samples=train + validation,
        n_features=features,
        n_informative=max(features // 10, _CLASSES),
        n_redundant=0,
        n_classes=_CLASSES,
        random_state=0,
    )
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    labels = np.eye(_CLASSES)[classes]
    curvature = float(np.linalg.norm(rows[:train], 2) ** 2)
    return Problem(rows[:train], labels[:train], rows[train:], labels[train:], curvature)


def _repeat(method, state, x, task, steps):
    def step(carry, _):
        x, state, _ = method.step(task, *carry)
        return (x, state), None

    return jax.lax.scan(step, (x, state), length=steps)[0][0]


def projected_gradient(data: Problem, steps: int) -> Callable[..., Any]:
    """`solve(x, log_theta)`: that many accelerated projected-gradient steps of rootflow."""

    def solve(x, log_theta):
        shape, size = x.shape, jnp.exp(log_theta) / data.curvature
        task = Composite(
            lambda v: data.dual(v.reshape(shape), log_theta),
            lambda v, _: _SIMPLEX.project(v.reshape(shape)).ravel(),
        )
        method = ProximalGradient(_NEVER, step_size=size, feasible=True)
        return _repeat(method, method.init(task, x.ravel()), x.ravel(), task, steps).reshape(shape)

    return solve


def mirror_descent(data: Problem, steps: int) -> Callable[..., Any]:
    """`solve(x, log_theta)`: that many steps of rootflow's mirror descent."""

    def solve(x, log_theta):
        shape, size = x.shape, jnp.exp(log_theta) / data.curvature
        task = Mirrored(
            lambda v: data.dual(v.reshape(shape), log_theta),
            safe_log,
            lambda v: _SIMPLEX.project_kl(v.reshape(shape)).ravel(),
        )
        method = MirrorDescent(_NEVER, size)
        return _repeat(method, method.init(task, x.ravel()), x.ravel(), task, steps).reshape(shape)

    return solve


def _condition(data: Problem, name: str):
    def of_projection(x, log_theta):
        step = jnp.exp(log_theta) / data.curvature
        return conditions.ProjectedGradient(data.dual, _SIMPLEX, step)(x, log_theta)

    def of_mirror(x, log_theta):
        step = jnp.exp(log_theta) / data.curvature
        return conditions.MirrorDescent(data.dual, safe_log, _SIMPLEX.project_kl, step)(
            x, log_theta
        )

    return {"projected gradient": of_projection, "mirror descent": of_mirror}[name]


SOLVERS = {"projected gradient": projected_gradient, "mirror descent": mirror_descent}


def hypergradients(data: Problem, name: str, steps: int) -> tuple[Any, Any]:
    """Compiled derivatives of the validation loss in log theta: by the theorem, and unrolled."""
    unrolled = SOLVERS[name](data, steps)
    by_theorem = implicit(_condition(data, name), linear_solver="bicgstab")(unrolled)
    start = data.start()

    def compiled(solve):
        def loss(log_theta):
            return data.loss(solve(start, log_theta), log_theta)

        return jax.jit(jax.grad(loss)).lower(jnp.zeros(())).compile()

    return compiled(by_theorem), compiled(unrolled)


class Comparison(NamedTuple):
    """Implicit against unrolled, after the same steps."""

    gradient: float
    difference: float
    seconds: np.ndarray
    bytes: tuple[int, int]


def compare(data: Problem, name: str, steps: int, repeats: int) -> Comparison:
    """Values, median seconds and working memory of both hypergradients at theta = 1."""
    both = hypergradients(data, name, steps)
    at = jnp.zeros(())
    values = [np.asarray(f(at)) for f in both]
    seconds = paired_seconds([lambda f=f: f(at) for f in both], repeats)
    memory = (working_bytes(both[0]), working_bytes(both[1]))
    return Comparison(float(values[0]), relative(values[0], values[1]), seconds, memory)


class FixedPoint(NamedTuple):
    """What one solver of `argmin` gives."""

    gradient: float
    steps: int
    converged: bool


def fixed_points(data: Problem) -> dict[str, FixedPoint]:
    """The hypergradient at theta = 1 from three solvers of `argmin`, taken as far as they get.

    Mirror descent is differentiated through its own fixed point; the other two through the
    projected-gradient fixed point.
    """

    def hypergradient(method, max_steps):
        def loss(log_theta):
            solution = argmin(
                data.dual,
                data.start(),
                log_theta,
                constraint=_SIMPLEX,
                method=method,
                rtol=1e-8,
                atol=1e-10,
                max_steps=max_steps,
                throw=False,
                full=True,
            )
            return data.loss(solution.value, log_theta), (solution.steps, solution.converged)

        gradient, (steps, converged) = jax.jit(jax.grad(loss, has_aux=True))(jnp.zeros(()))
        return FixedPoint(float(gradient), int(steps), bool(converged))

    return {
        "projected gradient": hypergradient("accelerated", 5000),
        "mirror descent": hypergradient("mirror_descent", 5000),
        "block coordinate descent": hypergradient("block", 100),
    }


def working_memory(data: Problem, steps: int) -> tuple[int, int]:
    """Bytes that the implicit and the unrolled hypergradient work in, by projected gradient."""
    by_theorem, unrolled = hypergradients(data, "projected gradient", steps)
    return working_bytes(by_theorem), working_bytes(unrolled)
