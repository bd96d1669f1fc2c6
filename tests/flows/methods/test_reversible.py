"""Reversible methods: exact inverses, orders, stability, estimates, counts of evaluations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st

import rootflow as rf
from rootflow.flows.methods.dormand_prince import Dopri8
from rootflow.flows.methods.reversible import AsynchronousLeapfrog, Reversible, ReversibleHeun
from rootflow.flows.methods.runge_kutta import Bosh3, Euler, Heun, Midpoint, Tsit5

from .common import SMOOTH_START, flat, slopes, smooth, smooth_solution

WRAPPED = [Reversible(m) for m in (Euler(), Midpoint(), Bosh3(), Tsit5())]
METHODS = [ReversibleHeun(), AsynchronousLeapfrog(), *WRAPPED, Reversible(Heun(), 0.9)]


def name(method):
    inner = getattr(method, "method", None)
    return type(method).__name__ + ("" if inner is None else f"-{type(inner).__name__}")


@pytest.mark.parametrize("method", METHODS, ids=name)
def test_order_of_the_solution_and_of_its_interpolant(method):
    times = jnp.linspace(0.0, 2.0, 41)

    @jax.jit
    def solved(dt):
        sol = rf.solve_ode(
            smooth, SMOOTH_START, (0.0, 2.0), method=method, dt=dt, saveat="dense", max_steps=170
        )
        return sol.ys[-1], sol(times)

    ends, between = [], []
    for n in (80, 160):
        end, inside = solved(2.0 / n)
        ends.append(np.abs(end - smooth_solution(2.0)).max())
        between.append(np.abs(inside - smooth_solution(times)).max())
    assert abs(slopes(ends)[-1] - method.order) < 0.4, slopes(ends)
    assert slopes(between)[-1] > method.order - 0.5, slopes(between)


def there_and_back(method, dtype, steps):
    """A compiled walk over steps of any sizes, out and back."""
    system, given, y0 = flat(smooth, SMOOTH_START.astype(dtype))

    @jax.jit
    def walk(sizes):
        def out(carry, h):
            t, z = carry
            z = method.step(system, t, z, h, given, method.init(system, t, z, given)).y
            return (t + h, z), t + h

        def back(z, row):
            return method.inverse(system, row[0], z, row[1], given), None

        t = jnp.zeros((), dtype)
        z0 = method.lift(system, t, y0, given)
        (_, far), ends = jax.lax.scan(out, (t, z0), sizes)
        return z0, far, jax.lax.scan(back, far, (ends, sizes), reverse=True)[0]

    return lambda sizes: walk(jnp.asarray(np.resize(sizes, steps), dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", METHODS, ids=name)
def test_inverse_returns_the_whole_lifted_state(method, dtype):
    z0, far, back = there_and_back(method, dtype, 1)([0.1])
    assert z0.size == 6 and np.abs(far - z0).max() > 0.05
    np.testing.assert_allclose(back, z0, atol=1e-5 if dtype == np.float32 else 1e-14)


_WALKS = {name(m): there_and_back(m, np.float64, 12) for m in METHODS}


@pytest.mark.parametrize("which", list(_WALKS))
@settings(max_examples=15)
@examples(sizes=st.lists(st.floats(0.001, 0.1), min_size=1, max_size=12))
def test_inverse_returns_over_random_steps(which, sizes):
    z0, _, back = _WALKS[which](sizes)
    # The coupling 0.9 divides by 0.9 in each of 12 steps: 3.5 times the round-off.
    np.testing.assert_allclose(back, z0, atol=2e-13)


def growth(method, z, steps):
    """|y| after so many steps by 1 of dy/dt = z y from 1."""
    system, given, y0 = flat(lambda t, y, a: z * y, np.array([1.0 + 0j]))

    @jax.jit
    def run():
        t, h = jnp.zeros(()), jnp.ones(())

        def body(carry, _):
            step = method.step(system, t, carry[0], h, given, carry[1])
            return (step.y, step.state), jnp.abs(method.project(step.y)[0])

        start = method.lift(system, t, y0, given)
        return jax.lax.scan(
            body, (start, method.init(system, t, start, given)), None, length=steps
        )[1]

    return np.asarray(run())


@pytest.mark.parametrize("method", METHODS[:2], ids=name)
def test_bounded_on_the_imaginary_axis_below_i_and_nowhere_else(method):
    assert growth(method, 0.99j, 2000).max() < 10
    assert growth(method, 1.01j, 400).max() > 1e6
    for decay in (-0.1, -0.5):
        grown = growth(method, decay, 400)
        assert grown.max() > 1e6


def test_reversible_heun_leaves_the_bounds_when_the_literature_says():
    # First step with |y| > 1e6: known values of the recursion for dy/dt = k y.
    for z, first in ((1.01j, 93), (-0.1, 258), (-0.5, 40)):
        grown = growth(ReversibleHeun(), z, 400)
        assert abs(int(np.argmax(grown > 1e6)) + 1 - first) <= 12


@pytest.mark.parametrize("coupling", [0.5, 0.9])
def test_coupling_makes_a_decay_stable(coupling):
    method = Reversible(Tsit5(), coupling)
    limit = -np.log(coupling)
    np.testing.assert_allclose(method.stability, limit)
    assert growth(method, -0.9 * limit, 1500)[-1] < 1e-3
    assert growth(method, -1.2 * limit, 1500).max() > 1e3


@pytest.mark.parametrize("method", METHODS, ids=name)
def test_order_of_the_error_estimate(method):
    if not method.adaptive:
        assert isinstance(method.method, Euler)
        with pytest.raises(rf.InputError):
            rf.solve_ode(smooth, SMOOTH_START, (0.0, 1.0), method=method)
        return
    system, given, y = flat(smooth, smooth_solution(1.0), t0=1.0)
    t = jnp.array(1.0)
    z = method.lift(system, t, y, given)
    state = method.init(system, t, z, given)
    sizes = [0.1, 0.05]
    errors = [np.linalg.norm(method.step(system, t, z, h, given, state).error) for h in sizes]
    assert abs(slopes(errors)[0] - method.error_order) < 0.3


@pytest.mark.parametrize("method", METHODS[:2], ids=name)
def test_error_estimate_is_that_of_euler(method):
    # From a state that has just begun, y1 - error is Euler's step.
    system, given, y = flat(smooth, SMOOTH_START)
    t, h = jnp.zeros(()), jnp.array(0.1)
    z = method.lift(system, t, y, given)
    step = method.step(system, t, z, h, given, method.init(system, t, z, given))
    euler = y + h * smooth(0.0, y, None)
    np.testing.assert_allclose(method.project(step.y) - step.error, euler, rtol=1e-14)


@pytest.mark.parametrize(
    "method", [ReversibleHeun(), AsynchronousLeapfrog(), Reversible(Tsit5())], ids=name
)
def test_adaptive_solve_with_a_gradient(method):
    tolerance = 1e-5 if method.order == 2 else 1e-8

    @jax.jit
    @jax.value_and_grad
    def final(w):
        sol = rf.solve_ode(
            lambda t, y, w: jnp.stack([y[1], -(w**2) * y[0]]), jnp.array([1.0, 0.0]), (0.0, 2.0),
            w, method=method, rtol=tolerance, atol=tolerance, max_steps=1500,
        )  # fmt: skip
        return sol.ys[-1, 0]

    value, slope = final(1.5)
    np.testing.assert_allclose(value, np.cos(3.0), atol=100 * tolerance)
    np.testing.assert_allclose(slope, -2 * np.sin(3.0), atol=300 * tolerance)


@pytest.mark.parametrize("method", METHODS, ids=name)
def test_evaluations_are_counted(method):
    calls = []

    def f(t, y, args):
        def count(x):
            calls.append(0)
            return x

        return -jax.pure_callback(count, jax.ShapeDtypeStruct(y.shape, y.dtype), y)

    sol = rf.solve_ode(f, jnp.ones(1), (0.0, 1.0), method=method, dt=0.25)
    jax.block_until_ready((sol.ys, sol.heuristics))
    assert len(calls) == method.start + 4 * method.evaluations


def test_keeps_the_order_of_a_high_order_method():
    errors = []
    method = Reversible(Dopri8())
    for n in (6, 12):
        sol = rf.solve_ode(smooth, SMOOTH_START, (0.0, 2.0), method=method, dt=2.0 / n)
        errors.append(np.abs(sol.ys[-1] - smooth_solution(2.0)).max())
    assert slopes(errors)[0] > 7.5


def test_refuses_what_it_cannot_wrap():
    with pytest.raises(rf.InputError, match="explicit Runge-Kutta"):
        Reversible(ReversibleHeun())
    for coupling in (0.0, 1.5):
        with pytest.raises(rf.InputError, match=f"got {coupling}"):
            Reversible(Tsit5(), coupling)
