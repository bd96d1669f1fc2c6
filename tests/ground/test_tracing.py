"""Errors of values that are known only when a program runs, and functions traced once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rootflow.errors import InputError, SolveError
from rootflow.ground import tracing
from rootflow.ground.tracing import raise_if, traced_once

TREE = {
    "real": jnp.asarray([1.5, -0.0, jnp.inf, jnp.nan]),
    "complex": jnp.asarray([complex(np.inf, 1.0), complex(-2.0, -np.inf), 1 - 1j]),
    "whole": jnp.asarray([3, -4], jnp.int32),
    "flags": jnp.asarray([True, False]),
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


def test_a_check_in_a_batch_and_what_it_says():
    messages = ["low", "high", "higher"]

    def checked(x, key):
        which = jnp.where(x > 8, 2, 1)
        return raise_if((x, key, "name"), x > 4, messages, InputError, which)[:2]

    keys = jax.random.split(jax.random.key(0), 3)
    for program in (jax.jit(jax.vmap(checked)), jax.vmap(checked), jax.vmap(jax.jit(checked))):
        x, same = program(jnp.arange(3.0), keys)
        np.testing.assert_array_equal(x, [0, 1, 2])
        np.testing.assert_array_equal(jax.random.key_data(same), jax.random.key_data(keys))
        for values, message in (([1.0, 5.0, 2.0], "high"), ([9.0, 1.0, 5.0], "higher")):
            with pytest.raises(Exception, match=rf"(^|InputError: ){message}(\n|$)"):
                jax.block_until_ready(program(jnp.asarray(values), keys))
    with pytest.raises(InputError, match=r"^higher"):
        jax.vmap(checked)(jnp.asarray([9.0, 1.0, 5.0]), keys)
    slopes = jax.jit(jax.grad(lambda x: checked(x, keys[0])[0] ** 3))(2.0)
    np.testing.assert_allclose(slopes, 12.0)


@pytest.mark.parametrize(
    "transformed",
    [lambda f: jax.vmap(f, axis_name="i")(jnp.ones(2)), lambda f: jax.jit(f)(1.0)],
    ids=["named", "jit"],
)
def test_where_the_first_call_comes_from_does_not_matter(monkeypatch, transformed):
    monkeypatch.setattr(tracing, "_top", None)
    seen = []

    def inside(x):
        seen.append(tracing.is_at_top())
        return x

    transformed(inside)
    assert not seen[0] and tracing.is_at_top()
