"""Errors of values that are known only when a program runs, and functions traced once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rootflow.errors import SolveError
from rootflow.ground.tracing import raise_if, traced_once

TREE = {
    "real": jnp.asarray([1.5, -0.0, jnp.inf, jnp.nan]),
    "complex": jnp.asarray([complex(np.inf, 1.0), complex(-2.0, -np.inf), 1 - 1j]),
    "whole": jnp.asarray([3, -4], jnp.int32),
}


def test_a_check_changes_no_value_in_a_compiled_program():
    """Not even infinite complex numbers, which times a complex one are not numbers."""
    checked = jax.jit(lambda tree, bad: raise_if(tree, bad, "wrong", SolveError))
    found = checked(TREE, False)
    for name, value in TREE.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)
    np.testing.assert_array_equal(np.signbit(found["real"][1]), True)
    for name, value in TREE.items():
        with pytest.raises(Exception, match="wrong"):
            jax.block_until_ready(checked({name: value}, True))
    with pytest.raises(SolveError, match="wrong"):
        raise_if(TREE, np.True_, "wrong", SolveError)


def test_a_function_is_traced_once_for_its_shapes_and_itself():
    traced = []

    def step(carry, x):
        traced.append(x)
        return {"sum": carry["sum"] + x}, (x > 0, 2 * x)

    def run(xs):
        once, (carry, (flag, double)) = traced_once(step, {"sum": xs[0]}, xs[0])
        assert carry["sum"].shape == double.shape == () and flag.dtype == bool
        return jax.lax.scan(once, {"sum": jnp.zeros(())}, xs)

    xs = jnp.asarray([1.0, -2.0, 4.0])
    carry, (flags, doubles) = jax.jit(run)(xs)
    assert len(traced) == 1
    np.testing.assert_array_equal(carry["sum"], 3.0)
    np.testing.assert_array_equal(flags, [True, False, True])
    np.testing.assert_array_equal(doubles, 2 * xs)
