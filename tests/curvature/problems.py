"""Small losses whose curvature is known, shared by these tests."""

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from rootflow import curvature as cv


class Dense(eqx.Module):
    """The product with a matrix, which is compiled once for all matrices of a shape."""

    matrix: jax.Array

    def __call__(self, v):
        return self.matrix @ v


def of(matrix, dtype=None):
    """The operator of a matrix."""
    return cv.operator(Dense(jnp.asarray(matrix, dtype)), size=len(matrix), dtype=dtype)


def cross_entropy(z, y):
    return -jax.nn.log_softmax(z)[y]


def squared(z, y):
    return 0.5 * jnp.sum((z - y) ** 2)


def network(p, x):
    return jax.nn.relu(x @ p["a"] + p["b"]) @ p["c"] + p["d"]


def smooth(p, x):
    return jnp.tanh(x @ p["a"] + p["b"]) @ p["c"] + p["d"]


def clusters(n=30, classes=4, width=5, dtype=float):
    """Inputs, labels, and parameters of a network with one hidden layer."""
    keys = jax.random.split(jax.random.key(0), 5)
    labels = jnp.arange(n) % classes
    centres = 2.0 * jax.random.normal(keys[0], (classes, 6), dtype)
    inputs = centres[labels] + jax.random.normal(keys[1], (n, 6), dtype)
    params = {
        "a": 0.5 * jax.random.normal(keys[2], (6, width), dtype),
        "b": jnp.full(width, 0.1, dtype),
        "c": 0.5 * jax.random.normal(keys[3], (width, classes), dtype),
        "d": jnp.zeros(classes, dtype),
    }
    return inputs, labels, params


def dense_hessian(model, objective, params, data):
    flat, unravel = jax.flatten_util.ravel_pytree(params)

    def loss(v):
        return jnp.mean(jax.vmap(lambda x, y: objective(model(unravel(v), x), y))(*data))

    return np.asarray(jax.hessian(loss)(flat))


def symmetric(eigenvalues, seed=0):
    """A random symmetric matrix with these eigenvalues."""
    n = len(eigenvalues)
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    return jnp.asarray((q * np.asarray(eigenvalues)) @ q.T)
