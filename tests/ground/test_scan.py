"""`lean_scan` against JAX's own scan and its derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rootflow.ground.scan import lean_scan

X0 = jnp.array([0.4, -1.2])
ROWS = (jnp.asarray(np.random.default_rng(3).standard_normal((13, 2))), jnp.arange(13))
CONSTS = (jnp.array([[1.1, 0.3], [-0.2, 0.9]]), jnp.tanh)  # a function among them is fixed


def step(consts, x, row):
    (matrix, function), (u, i) = consts, row
    new = jnp.stack([x[1] + function(matrix[0] @ u), x[0]])
    return new, {"even": i % 2 == 0, "x": new * matrix[1, 1]}


def undo(consts, x, row):
    (matrix, function), (u, _) = consts, row
    return jnp.stack([x[1], x[0] - function(matrix[0] @ u)])


WAYS = {"blocks": {"block": 4}, "one block": {"block": 13}, "undone": {"undo": undo}}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_values_and_derivatives_are_those_of_a_scan(way):
    def run(x, u, matrix, scan):
        end, outs = scan(x, (u, ROWS[1]), (matrix, CONSTS[1]))
        weights = jnp.cos(jnp.arange(26.0)).reshape(13, 2)
        return jnp.sum(jnp.sin(end)) + jnp.sum(weights * outs["x"] ** 2), outs["even"]

    def lean(x, rows, consts):
        return lean_scan(step, x, rows, consts, **way)

    def plain(x, rows, consts):
        return jax.lax.scan(lambda x, row: step(consts, x, row), x, rows)

    def everything(scan):
        alone = lambda x, u, matrix: run(x, u, matrix, scan)
        gradient = jax.grad(alone, (0, 1, 2), has_aux=True)
        first = lambda x, u, matrix: gradient(x, u, matrix)[0]
        batch = jax.vmap(first, (0, None, None))(jnp.stack([X0, 2 * X0]), ROWS[0], CONSTS[0])
        second = jax.jacfwd(first, 2)(X0, ROWS[0], CONSTS[0])
        return alone(X0, ROWS[0], CONSTS[0]), gradient(X0, ROWS[0], CONSTS[0]), batch, second

    found, expected = (jax.jit(everything, static_argnums=0)(scan) for scan in (lean, plain))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
