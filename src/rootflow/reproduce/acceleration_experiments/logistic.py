"""Logistic regression on the breast cancer data: iterations to a small gap."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ... import optimize as opt
from ..implicit_experiments.measure import scikit_learn

METHODS = ("GD", "HB", "NAG", "NAG quadratic", "TMM", "NAG-C", "NAG-C, restarted", "mu unknown")


def problem() -> tuple[Array, Array]:
    """Standardised features (569, 30) and labels -1, 1."""
    data = scikit_learn("datasets").load_breast_cancer()
    features = (data.data - data.data.mean(axis=0)) / data.data.std(axis=0)
    return jnp.asarray(features), jnp.asarray(2.0 * data.target - 1)


def value(w: Array, mu: float, features: Array, labels: Array) -> Array:
    """Mean logistic loss and mu/2 |w|^2."""
    return jnp.mean(jnp.logaddexp(0, -labels * (features @ w))) + 0.5 * mu * w @ w


SLOPE = jax.grad(value)
_VALUES = jax.jit(jax.vmap(value, (0, None, None, None)))


def iterations(mu: float, most: int) -> tuple[float, dict[str, int], dict[str, np.ndarray]]:
    """The condition number, the steps of each method to a gap of 1e-10, and the gaps."""
    features, labels = problem()
    theta = (mu, features, labels)
    L = float(jnp.linalg.eigvalsh(features.T @ features / len(labels))[-1]) / 4 + mu
    start = jnp.zeros(features.shape[1])
    triple = opt.triple_momentum(mu=mu, L=L)
    best = opt.descend(triple, SLOPE, start, *theta, steps=most).final
    least = float(value(best, *theta))
    plain = {
        "GD": (opt.gradient_descent(mu=mu, L=L), None),
        "HB": (opt.heavy_ball(mu=mu, L=L), None),
        "NAG": (opt.nesterov(mu=mu, L=L), None),
        "NAG quadratic": (opt.nesterov_quadratic(mu=mu, L=L), None),
        "TMM": (triple, None),
        "NAG-C": (opt.nesterov_convex(L=L), None),
        "NAG-C, restarted": (opt.nesterov_convex(L=L), "gradient"),
    }
    outputs = {
        name: opt.descend(method, SLOPE, start, *theta, steps=most, restart=restart).output
        for name, (method, restart) in plain.items()
    }
    outputs["mu unknown"] = opt.descend_adaptively(SLOPE, start, *theta, L=L, steps=most).output
    gaps = {name: np.asarray(_VALUES(xs, *theta)) - least for name, xs in outputs.items()}
    counts = {
        name: int(np.argmax(gap < 1e-10)) if np.any(gap < 1e-10) else -1
        for name, gap in gaps.items()
    }
    return L / mu, counts, gaps
