"""JAX's strict modes, what cannot be traced or hashed, and several devices."""

import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf


def decay(t, y, args):
    return -y


START = jnp.array([1.0, 2.0])
GOES = [0.36787944117, 0.73575888234]


def strictly(function):
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        return function()


VERBS = {
    "plain": lambda y: rf.solve_ode(decay, y, (0.0, 1.0)).ys[-1],
    "saved": lambda y: rf.solve_ode(decay, y, (0.0, 1.0), saveat=jnp.array([0.5, 1.0])).ys[-1],
    "stops": lambda y: rf.solve_ode(decay, y, (0.0, 1.0), stops=jnp.array([0.3])).ys[-1],
    "event": lambda y: rf.solve_ode(
        decay, y, (0.0, 1.0), event=rf.Event(lambda t, y, a: y[0] - 0.5, terminal=False)
    ).ys[-1],
    "stiff": lambda y: rf.solve_ode(decay, y, (0.0, 1.0), method=rf.Rodas5P()).ys[-1],
    "implicit": lambda y: rf.solve_ode(decay, y, (0.0, 1.0), method=rf.Kvaerno5()).ys[-1],
    "bdf": lambda y: rf.solve_ode(decay, y, (0.0, 1.0), method=rf.BDF()).ys[-1],
    "continuous": lambda y: rf.solve_ode(
        decay, y, (0.0, 1.0), adjoint=rf.BacksolveAdjoint()
    ).ys[-1],
    "algebraic": lambda y: rf.solve_dae(
        lambda t, y, a: jnp.stack([-y[0], y[1] - 2 * y[0]]), y, (0.0, 1.0), mass=jnp.array([1.0, 0])
    ).ys[-1],
    "delayed": lambda y: rf.solve_dde(
        lambda t, y, past, a: -y + 0 * past[0], lambda t: y, (0.7,), (0.0, 1.0)
    ).ys[-1],
    "stochastic": lambda y: rf.solve_sde(
        decay, lambda t, y, a: 0 * y, y, (0.0, 1.0), rf.BrownianMotion(jax.random.key(0), (2,)),
        method=rf.Heun(), dt=1 / 256,
    ).ys[-1],
}  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_strict_promotion(verb):
    def both():
        solve = VERBS[verb]
        return solve(START), jax.grad(lambda y: jnp.sum(solve(y)))(START)

    value, gradient = strictly(both)
    np.testing.assert_allclose(value, GOES, rtol=2e-5)
    np.testing.assert_allclose(jnp.sum(gradient * START), np.sum(GOES), rtol=2e-5)


def test_leaks_are_looked_for():
    with jax.checking_leaks():
        value = jax.grad(lambda y: rf.solve_ode(decay, y, (0.0, 1.0)).ys[-1])(1.0)
    np.testing.assert_allclose(value, np.exp(-1), rtol=1e-6)


def test_padding_is_announced_where_nan_stops_the_program():
    with jax.debug_nans(True):
        with pytest.raises(rf.InputError, match="debug_nans"):
            rf.solve_ode(decay, 1.0, (0.0, 1.0), saveat="steps")
        np.testing.assert_allclose(rf.solve_ode(decay, 1.0, (0.0, 1.0)).ys[-1], GOES[0], rtol=1e-6)


class Unhashable:
    __hash__ = None

    def __call__(self, t, y, args):
        return -y


def test_what_a_solve_cannot_take_is_named():
    with pytest.raises(rf.InputError, match="float16"):
        rf.solve_ode(decay, jnp.float16(1.0), (0.0, 1.0))
    with pytest.raises(rf.InputError, match="no numbers"):
        rf.solve_ode(decay, jnp.zeros(0), (0.0, 1.0))
    with pytest.raises(rf.InputError, match="of type set"):
        rf.solve_ode(decay, 1.0, (0.0, 1.0), {1, 2})
    with pytest.raises(rf.InputError, match="of type Unhashable"):
        rf.solve_ode(Unhashable(), 1.0, (0.0, 1.0))


def test_no_absolute_tolerance_for_what_stays_zero():
    field = lambda t, y, a: jnp.stack([-y[0], 0 * y[1]])
    sol = rf.solve_ode(field, jnp.array([1.0, 0.0]), (0.0, 1.0), atol=0.0)
    np.testing.assert_allclose(sol.ys[-1], [GOES[0], 0.0], rtol=1e-6)


def test_a_rule_of_reverse_mode_only():
    @jax.custom_vjp
    def square(x):
        return x * x

    square.defvjp(lambda x: (x * x, x), lambda x, bar: (2 * x * bar,))
    for adjoint in (rf.DiscreteAdjoint(), rf.CheckpointAdjoint()):
        for size in (1, 30):
            field = lambda t, y, a: -a * square(y)

            def total(a, field=field, size=size, adjoint=adjoint):
                sol = rf.solve_ode(field, jnp.ones(size), (0.0, 1.0), a, rtol=1e-8, adjoint=adjoint)
                return sol.ys[-1].mean()

            np.testing.assert_allclose(jax.grad(total)(1.3), -1 / 2.3**2, rtol=1e-5)


SHARDED = """
    import jax, jax.numpy as jnp, numpy as np, rootflow as rf
    from jax.sharding import PartitionSpec as P

    jax.config.update("jax_enable_x64", True)
    mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    start = jnp.array([1.0, 2.0])

    def each(function):
        return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=P("i"), out_specs=P("i")))(start)

    def solves(**options):
        def solve(y, p):
            return rf.solve_ode(lambda t, y, p: -p * y, y, (0.0, 1.0), p, **options).ys[-1]

        value = each(lambda y: solve(y, y))
        np.testing.assert_allclose(value, start * np.exp(-start), rtol=1e-4)
        gradient = each(lambda y: jax.grad(lambda p: solve(y, p).sum())(y))
        np.testing.assert_allclose(gradient, -start * np.exp(-start), rtol=1e-4)

    solves()
    solves(adjoint=rf.CheckpointAdjoint())
    solves(method="auto")
    solves(method=rf.Kvaerno5())
    solves(event=rf.Event(lambda t, y, p: y[0] - 0.6, terminal=False))
    failed = each(lambda y: rf.solve_ode(lambda t, y, a: y**2, y, (0.0, 0.7)).ys[-1])
    np.testing.assert_allclose(failed[0], 1 / 0.3, rtol=1e-4)
    assert np.isnan(failed[1])  # it blows up at t = 1/2
    print("held")
"""


def test_every_device_by_itself():
    environment = {
        **os.environ,
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2",
    }
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SHARDED)],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert done.stdout.strip().endswith("held"), done.stderr[-2000:]
