"""How far a solve has got is told on the host, at most once for each hundredth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow.errors import InputError
from rootflow.flows.progress import report


def marched(tell, h):
    """Goes from 0 to 1 by `h`; returns the number of iterations."""

    def body(s):
        t, count = s
        after = jnp.minimum(t + h, 1.0)
        return after + report(tell, t, after, t < 1), count + 1

    return jax.lax.while_loop(lambda s: s[0] < 1, body, (jnp.zeros(()), 0))[1]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("batched", [False, True])
def test_one_call_for_each_hundredth_that_the_slowest_passes(compiled, batched):
    seen = []

    def run(h):
        return marched(seen.append, h)

    run = jax.vmap(run) if batched else run
    run = jax.jit(run) if compiled else run
    counts = jax.block_until_ready(run(jnp.array([0.1, 0.0007, 0.003]) if batched else 0.0007))
    jax.effects_barrier()
    assert np.max(counts) == 1429
    assert len(seen) == 100 and all(isinstance(x, float) for x in seen)
    assert np.all(np.abs(np.array(seen) - np.arange(1, 101) / 100) < 0.0008)


def test_it_has_no_derivative():
    def value(x):
        return x**2 + report(lambda fraction: None, 0.0, x)

    np.testing.assert_allclose(jax.grad(value)(0.5), 1.0)
    np.testing.assert_allclose(jax.jvp(value, (0.5,), (1.0,))[1], 1.0)


def test_a_solve_tells_how_far_it_has_got():
    seen = []
    sol = rf.solve_ode(
        lambda t, y, args: -y, 1.0, (2.0, -1.0), method=rf.Tsit5(), dt=1e-3, progress=seen.append
    )
    jax.effects_barrier()
    np.testing.assert_allclose(sol.ys[-1], np.exp(3.0), rtol=1e-9)
    assert len(seen) == 100
    np.testing.assert_allclose(np.sort(seen), np.arange(1, 101) / 100, atol=1e-3)


def test_the_answer_and_its_gradient_do_not_change():
    def value(k, progress=None):
        return rf.solve_ode(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), k, progress=progress).ys[-1]

    told = jax.value_and_grad(lambda k: value(k, lambda done: None))(2.0)
    assert told == jax.value_and_grad(value)(2.0)
    batch = jax.vmap(lambda k: value(k, lambda done: None))(jnp.array([1.0, 2.0]))
    np.testing.assert_array_equal(batch, jax.vmap(value)(jnp.array([1.0, 2.0])))
    with pytest.raises(InputError, match=r"progress must be a function progress\(fraction\)"):
        value(2.0, "bar")
