"""Classes as rows of a table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import generative as gen

NETWORK = gen.MLP((2,), 8, 1, key=jax.random.key(0), classes=3)
X = jnp.ones((4, 2))


def test_classes_of_every_kind_find_their_own_rows():
    of = {c: NETWORK(X, 0.5, c)[0] for c in (-1, 0, 1, 2)}
    np.testing.assert_array_equal(NETWORK(X, 0.5, None)[0], of[-1])
    mixed = [0, 1, -1, 2]
    for dtype in (np.int8, np.int32, np.int64):
        found = NETWORK(X, 0.5, np.array(mixed, dtype))
        np.testing.assert_allclose(found, jnp.stack([of[c] for c in mixed]), rtol=1e-6)
    # Booleans are the classes 0 and 1, and no mask over the rows.
    yes = np.array([True, False, True, True])
    for found in (NETWORK(X, 0.5, yes), jax.jit(lambda c: NETWORK(X, 0.5, c))(yes)):
        np.testing.assert_allclose(found, jnp.stack([of[int(c)] for c in yes]), rtol=1e-6)


def test_classes_that_are_not_in_the_table():
    for wrong in (3, -2, [0, 1, 7, 2]):
        with pytest.raises(rf.InputError, match=r"from 0 to 2, or -1 for none; got (3|-2|7)"):
            NETWORK(X, 0.5, jnp.asarray(wrong))
    known = jnp.asarray([0, 1, 2, -1])  # also known inside of `jit`
    np.testing.assert_allclose(
        jax.jit(lambda x: NETWORK(x, 0.5, known))(X), NETWORK(X, 0.5, known), rtol=1e-6
    )
    found = jax.jit(lambda c: NETWORK(X, 0.5, c))(jnp.asarray([0, 3, -1, -2]))
    np.testing.assert_array_equal(np.isnan(found).all(1), [False, True, False, True])
