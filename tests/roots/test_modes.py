"""JAX's strict modes, several devices, and types of numbers."""

import os
import subprocess
import sys
import textwrap
from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import prox, sets

DATA = jnp.array([1.0, 4.0])
HALF = jnp.full(2, 0.5)


def distance(x, a):
    return jnp.sum((x - jnp.sqrt(a)) ** 2)


# What each returns is the square root of its argument.
VERBS = {
    "root": lambda a: rf.root(lambda x, a: x**2 - a, HALF, a),
    "closure": lambda a: rf.root(lambda x: x**2 - a, HALF),
    "fixed_point": lambda a: rf.fixed_point(lambda x, a: (x + a / x) / 2, HALF, a),
    "newton": lambda a: rf.argmin(distance, HALF, a),
    "lbfgs": lambda a: rf.argmin(distance, HALF, a, method="lbfgs"),
    "box": lambda a: rf.argmin(distance, HALF, a, constraint=sets.Box(0.0, 9.0)),
    "accelerated": lambda a: rf.argmin(
        distance, HALF, a, prox=prox.non_negative, method="accelerated"
    ),
    "interior_point": lambda a: rf.argmin(
        lambda x, a: distance(x, a) + jnp.sum(x), HALF, a, inequality=lambda x, a: jnp.sqrt(a) - x
    ),
    "implicit": lambda a: rf.implicit(lambda x, a: x**2 - a)(lambda _, a: jnp.sqrt(a))(None, a),
    "polyhedron": lambda a: sets.Polyhedron(
        np.eye(2), jnp.full(2, 9.0), np.ones((1, 2)), jnp.sum(jnp.sqrt(a))[None]
    ).project(jnp.sqrt(a)),
    "simplex": lambda a: sets.Simplex(jnp.sum(jnp.sqrt(a))).project(jnp.sqrt(a)),
    "steady_state": lambda a: rf.steady_state(lambda t, y, a: a - y**2, HALF, a),
}


def check(value, gradient, a=DATA, rtol=1e-6):
    np.testing.assert_allclose(value, np.sqrt(a), rtol=rtol)
    np.testing.assert_allclose(gradient, 0.5 / np.sqrt(a), rtol=rtol)


@pytest.mark.parametrize("verb", VERBS)
def test_strict_modes(verb):
    # Looking for leaks takes long: JAX then traces everything anew.
    leaks = jax.checking_leaks() if verb in ("closure", "box") else nullcontext()
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"), leaks:
        value, pull = jax.vjp(VERBS[verb], DATA)
        (gradient,) = pull(jnp.ones(2))
    check(value, gradient)


SHARDED = """
    import os, sys
    import jax, jax.numpy as jnp, numpy as np, rootflow as rf
    from jax.sharding import PartitionSpec as P

    jax.config.update("jax_enable_x64", True)
    sys.path.insert(0, os.environ["HERE"])
    from test_modes import VERBS, check

    mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    data = jnp.array([1.0, 2.0, 3.0, 4.0])

    def consistent(a):
        field = lambda t, y, a: jnp.stack([0 * y[0], y[1] ** 2 - a[0]])
        solve = rf.solve_dae(field, jnp.ones(2), (0.0, 1.0), a, mass=jnp.array([1.0, 0.0]))
        return solve.ys[-1, 1] * jnp.sqrt(a / a[0])

    def large(a):
        weight = jnp.ones(300)
        return rf.root(lambda x: x**2 - weight * a[0], weight)[:2] * jnp.sqrt(a / a[0])

    for name, verb in {**VERBS, "consistent": consistent, "large": large}.items():
        def both(a):
            value, pull = jax.vjp(verb, a)
            return value, pull(1 + 0 * value)[0]

        each = jax.shard_map(both, mesh=mesh, in_specs=P("i"), out_specs=P("i"))
        try:
            check(*jax.jit(each)(data), data, rtol=1e-5)
        except Exception as error:
            raise AssertionError(name) from error
    print("held")
"""


def test_every_device_by_itself():
    environment = {
        **os.environ,
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "HERE": os.path.dirname(__file__),
    }
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SHARDED)],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert done.stdout.strip().endswith("held"), done.stderr[-3000:]


def test_single_precision_guess_with_double_data():
    single = jnp.float32(1.0)
    data = jnp.asarray(2.0, jnp.float64)
    for answer in (
        rf.root(lambda x: x**2 - data, single),
        rf.fixed_point(lambda x: (x + data / x) / 2, single),
        rf.argmin(lambda x: (x - jnp.sqrt(data)) ** 2, single),
        rf.argmin(lambda x: (x - jnp.sqrt(data)) ** 2, single, constraint=sets.Box(0.0, 9.0)),
        rf.argmin(lambda x: (x - jnp.sqrt(data)) ** 2, single, inequality=lambda x: x - 9 * data),
    ):
        assert answer.dtype == jnp.float32
        np.testing.assert_allclose(answer, np.sqrt(2.0), rtol=1e-4)


def test_leaves_of_several_types():
    start = {"a": jnp.float32(1.0), "b": jnp.asarray(1.0, jnp.float64)}
    found = rf.root(lambda x: {"a": x["a"] ** 2 - 2, "b": x["b"] * x["a"] - 2}, start)
    assert (found["a"].dtype, found["b"].dtype) == (jnp.float32, jnp.float64)
    np.testing.assert_allclose(found["a"], np.sqrt(2.0), rtol=1e-5)
    np.testing.assert_allclose(found["b"], np.sqrt(2.0), rtol=1e-5)


def test_empty_arrays():
    none = jnp.zeros(0)
    for call in (
        lambda: rf.root(lambda x: x, none),
        lambda: rf.fixed_point(lambda x: x, none),
        lambda: rf.argmin(lambda x: jnp.sum(x**2), none),
    ):
        with pytest.raises(rf.InputError, match="no numbers"):
            call()
