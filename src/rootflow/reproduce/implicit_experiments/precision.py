"""How far implicit and unrolled derivatives are from the truth at an unconverged iterate."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...roots import conditions
from ...roots.certificate import certificate
from ...roots.implicit import implicit
from .measure import scikit_learn


class Precision(NamedTuple):
    """Errors after each number of iterations (spectral norms)."""

    iterations: np.ndarray
    iterate: np.ndarray
    implicit: np.ndarray
    unrolled: np.ndarray
    bound: np.ndarray
    certificate: np.ndarray


def _data():
    found = scikit_learn("datasets").load_diabetes()
    features, target = found.data, found.target
    features = (features - features.mean(0)) / features.std(0)
    target = (target - target.mean()) / target.std()
    return features / np.sqrt(len(target)), target / np.sqrt(len(target))


def measure(iterations: list[int]) -> Precision:
    """Ridge regression with a weight for every coefficient, by gradient descent from zero."""
    features, target = _data()
    weights = jnp.full(features.shape[1], 0.1)

    def objective(x, weights):
        return 0.5 * jnp.sum((features @ x - target) ** 2) + 0.5 * jnp.sum(weights * x**2)

    hessian = features.T @ features + np.diag(weights)
    curvatures = np.linalg.eigvalsh(hessian)
    exact = np.linalg.solve(hessian, features.T @ target)
    jacobian = -np.linalg.solve(hessian, np.diag(exact))

    def descend(start, weights, steps):
        def step(_, x):
            return x - jax.grad(objective)(x, weights) / curvatures[-1]

        return jax.lax.fori_loop(0, steps, step, start)

    stationary = conditions.Stationary(objective)

    def condition(x, weights, steps):
        del steps
        return stationary(x, weights)

    by_theorem = implicit(condition, symmetric=True)(descend)
    start = jnp.zeros(features.shape[1])

    @jax.jit
    def after(steps):
        x = descend(start, weights, steps)
        by_theorem_of = jax.jacrev(lambda w: by_theorem(start, w, steps))(weights)
        unrolled_of = jax.jacfwd(lambda w: descend(start, w, steps))(weights)
        promised = certificate(stationary, x, weights).jacobian_error
        return x, by_theorem_of, unrolled_of, promised

    rows = []
    for steps in iterations:
        x, by_theorem_of, unrolled_of, promised = after(steps)
        distance = np.linalg.norm(x - exact)
        # The Hessian does not depend on x (gamma = 0), and dF/dtheta = diag(x) (beta = 1).
        bound = distance / curvatures[0]
        errors = [np.linalg.norm(found - jacobian, 2) for found in (by_theorem_of, unrolled_of)]
        rows.append((steps, distance, *errors, bound, promised))
    return Precision(*(np.array(column, dtype=float) for column in zip(*rows, strict=True)))
