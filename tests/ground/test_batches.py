"""Members computed in batches: the same as all at once, by one program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rootflow.ground.batches import in_batches


@pytest.mark.parametrize(("count", "most"), [(1, 4), (4, 4), (5, 4), (7, 3), (200, 64)])
def test_batches_are_what_vmap_gives_and_trace_the_function_once(count, most):
    xs = {"a": jnp.arange(count, dtype=float), "b": jnp.arange(2.0 * count).reshape(count, 2)}
    traced = []

    def function(x):
        traced.append(x)
        return x["a"] + jnp.sin(x["b"]), x["a"] ** 2

    found = jax.jit(lambda xs: in_batches(function, xs, most))(xs)
    assert len(traced) == 1
    expected = jax.vmap(function)(xs)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
        assert one.shape == other.shape
