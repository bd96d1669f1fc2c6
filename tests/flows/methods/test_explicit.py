"""Explicit Runge-Kutta methods: orders as solved, error estimates, counts of evaluations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

import rootflow as rf
from rootflow.flows.methods.dormand_prince import Dopri5, Dopri8
from rootflow.flows.methods.runge_kutta import Bosh3, Euler, Heun, Midpoint, Ralston, Tsit5
from rootflow.flows.methods.verner import Vern7

from .common import SMOOTH_START, flat, slopes, smooth, smooth_solution

METHODS = [Euler(), Heun(), Midpoint(), Ralston(), Bosh3(), Tsit5(), Dopri5(), Dopri8(), Vern7()]
ADAPTIVE = [m for m in METHODS if m.adaptive]
INTERPOLANT_ORDER = {Tsit5: 4, Dopri5: 4, Dopri8: 7, Vern7: 7, Bosh3: 3}


def name(method):
    return type(method).__name__


@pytest.mark.parametrize("method", METHODS, ids=name)
def test_order_of_the_solution_and_of_its_interpolant(method):
    @jax.jit
    def errors(dt):
        sol = rf.solve_ode(
            smooth, SMOOTH_START, (0.0, 4.0), method=method, dt=dt, saveat="dense", max_steps=160
        )
        return sol.ys[-1], sol(times)

    times = np.linspace(0.0, 4.0, 101)

    final, between = [], []
    for n in (12, 24) if method.order >= 7 else (80, 160):
        end, inside = errors(4.0 / n)
        final.append(np.abs(end - smooth_solution(4.0)).max())
        between.append(np.abs(inside - smooth_solution(times)).max())
    assert abs(slopes(final)[-1] - method.order) < 0.45, slopes(final)
    order = INTERPOLANT_ORDER.get(type(method), method.order)
    # Its local error is of one order more; the solution's own error is the other bound.
    assert slopes(between)[-1] > min(order + 1, method.order) - 0.5, slopes(between)


def one_step(method, dtype=float, start=0.0, **kwargs):
    system, given, y = flat(smooth, smooth_solution(start).astype(dtype), **kwargs)

    @jax.jit
    def step(h):
        t = jnp.full_like(h, start)
        return method.step(system, t, y, h, given, method.init(system, t, y, given))

    return step


@pytest.mark.parametrize("method", ADAPTIVE, ids=name)
def test_order_of_the_error_estimate(method):
    step = one_step(method, start=1.0)
    sizes = [0.2, 0.1]
    estimates = [np.linalg.norm(step(h).error) for h in sizes]
    assert abs(slopes(estimates)[-1] - method.error_order) < 0.4, slopes(estimates)


@pytest.mark.parametrize("method", [m for m in ADAPTIVE if not isinstance(m, Dopri8)], ids=name)
def test_error_estimate_is_that_of_the_lower_order_formula(method):
    # y1 - error is the embedded formula's result, whose error is about what was estimated.
    step = one_step(method, start=1.0)(0.1)
    actual = (step.y - step.error) - smooth_solution(1.1)
    np.testing.assert_allclose(-step.error, actual, atol=0.25 * np.abs(actual).max())


def test_norm_of_the_error_of_dopri8_is_that_of_dop853():
    rtol, atol, h = 1e-5, 1e-8, 0.3
    step = one_step(Dopri8(), rtol=rtol, atol=atol)(h)
    stages = np.stack(step.stages.values)
    units = atol + rtol * np.maximum(np.abs(SMOOTH_START), np.abs(step.y))
    from scipy.integrate._ivp.rk import DOP853

    solver = DOP853(lambda t, y: np.asarray(smooth(t, y, None)), 0.0, SMOOTH_START, 1.0)
    expected = solver._estimate_error_norm(stages, h, units)
    norm = np.sqrt(np.mean((step.error / units) ** 2))
    np.testing.assert_allclose(norm, expected, rtol=1e-9)


def test_dopri8_solves_what_dop853_solves_with_its_steps():
    # SciPy's DOP853 is the same formula with another controller: the same dense output in a step.
    reference = scipy.integrate.DOP853(
        lambda t, y: np.asarray(smooth(t, y, None)), 0.0, SMOOTH_START, 2.0, first_step=0.3
    )
    reference.step()
    assert reference.t == 0.3
    dense = reference.dense_output()
    method = Dopri8()
    step = one_step(method)(0.3)
    np.testing.assert_allclose(step.y, reference.y, rtol=1e-14)
    coefficients = method.coefficients(jnp.asarray(0.3), jnp.asarray(SMOOTH_START), step)
    for s in (0.1, 0.5, 0.9):
        value = SMOOTH_START + s ** np.arange(1, 8) @ np.asarray(coefficients)
        np.testing.assert_allclose(value, dense(0.3 * s), rtol=1e-13)


def test_dopri5_interpolant_is_that_of_scipy():
    method = Dopri5()
    reference = scipy.integrate.RK45
    np.testing.assert_allclose(method.interpolation, reference.P, atol=1e-12)
    np.testing.assert_allclose(np.abs(method.error_weights), np.abs(reference.E), atol=1e-15)


@pytest.mark.parametrize("method", METHODS, ids=name)
@pytest.mark.parametrize("dense", [False, True])
def test_evaluations_are_counted(method, dense):
    calls = []

    def f(t, y, args):
        def count(x):
            calls.append(0)
            return x

        return -jax.pure_callback(count, jax.ShapeDtypeStruct(y.shape, y.dtype), y)

    system, given, y = flat(f, np.array([1.0]))
    n = 3

    @jax.jit
    def steps(y):
        state = method.init(system, jnp.array(0.0), y, given)
        more = jnp.zeros(1)
        for i in range(n):
            h = jnp.array(0.1)
            before, step = y, method.step(system, 0.1 * i, y, h, given, state)
            y, state = step.y, step.state
            more = more + (0.0 if step.error is None else step.error)
            if dense:
                more = more + method.coefficients(h, before, step).sum(axis=0)
        return y, state, more

    jax.block_until_ready(steps(y))
    extra = len(method.extra_matrix) * n if dense else 0
    assert len(calls) == method.start + method.evaluations * n + extra
    assert method.evaluations == len(method.matrix)


@pytest.mark.parametrize("method", [Dopri8(), Vern7()], ids=name)
def test_extra_stages_are_not_in_the_step(method):
    system, given, y = flat(lambda t, y, a: jnp.tanh(y), np.ones(2))

    def step(h):
        t = jnp.zeros(())
        return method.step(system, t, y, h, given, method.init(system, t, y, given)).y

    text = str(jax.make_jaxpr(step)(0.1))
    assert text.count("name=field") == 1 + len(method.matrix)


@pytest.mark.parametrize("method", [Heun(), Tsit5(), Dopri5(), Dopri8(), Vern7()], ids=name)
def test_stiffness_of_a_linear_equation_is_its_rate(method):
    # These have two stages at one time, so that a term that depends on time does not show.
    def f(t, y, args):
        return -7.0 * y + 50 * jnp.cos(30 * t)

    system, given, y = flat(f, np.array([1.0, 2.0]))
    t = jnp.array(0.3)
    step = method.step(system, t, y, jnp.array(0.1), given, f(t, y, None))
    np.testing.assert_allclose(step.stiffness, 7.0, rtol=1e-6)


@pytest.mark.parametrize("method", [Midpoint(), Ralston(), Bosh3()], ids=name)
def test_stiffness_lies_between_the_eigenvalues_of_a_symmetric_system(method):
    rates = np.array([1.0, 9.0])
    system, given, y = flat(lambda t, y, a: -rates * y, np.array([1.0, 0.1]))
    step = method.step(system, jnp.array(0.0), y, jnp.array(0.1), given, -rates * y)
    assert 1.0 <= step.stiffness <= 9.0
    assert Euler().step(system, jnp.array(0.0), y, jnp.array(0.1), given, y).stiffness is None


@pytest.mark.parametrize("method", ADAPTIVE, ids=name)
def test_adaptive_solve_of_a_complex_equation(method):
    low = method.order < 3
    tolerance = 1e-5 if low else 1e-9
    y0 = {"a": jnp.array([1.0 + 0j, 1j]), "b": jnp.array(2.0 + 1j)}
    rates = {"a": jnp.array([2j, -1.0 + 1j]), "b": jnp.array(-3j)}

    def f(t, y, args):
        return jax.tree.map(lambda k, y: k * y, rates, y)

    sol = rf.solve_ode(f, y0, (0.0, 1.5), method=method, rtol=tolerance, atol=tolerance)
    for key in y0:
        exact = y0[key] * np.exp(1.5 * rates[key])
        np.testing.assert_allclose(sol.ys[key][-1], exact, atol=50 * tolerance)


@pytest.mark.parametrize("method", [Bosh3(), Dopri8()], ids=name)
def test_gradients_and_batches(method):
    def final(rate):
        sol = rf.solve_ode(
            lambda t, y, k: -k * y * jnp.cos(t), 1.0, (0.0, 1.0), rate,
            method=method, rtol=1e-6, atol=1e-6, max_steps=512,
        )  # fmt: skip
        return sol.ys[-1]

    rates = jnp.array([0.5, 1.5])
    values, slope = jax.jit(jax.vmap(jax.value_and_grad(final)))(rates)
    exact = np.exp(-rates * np.sin(1.0))
    np.testing.assert_allclose(values, exact, rtol=2e-4)
    np.testing.assert_allclose(slope, -np.sin(1.0) * exact, rtol=2e-3)
    forward = jax.jit(lambda k: jax.jvp(final, (k,), (1.0,))[1])(0.5)
    np.testing.assert_allclose(forward, slope[0], rtol=1e-9)


@pytest.mark.parametrize("method", METHODS, ids=name)
def test_single_precision_stays_single(method):
    step = one_step(method, np.float32)
    new = step(jnp.float32(0.05))
    assert new.y.dtype == np.float32
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(new))
    np.testing.assert_allclose(new.y, smooth_solution(0.05), rtol=3e-3)


def test_derivative_of_the_error_of_dopri8_at_zero_error():
    # A constant field: both estimates vanish, and so must the derivative of their quotient.
    system, given, y = flat(lambda t, y, a: jnp.ones_like(y), np.array([1.0]))
    method = Dopri8()

    def total(h):
        t = jnp.zeros(())
        return method.step(system, t, y, h, given, jnp.ones(1)).error.sum()

    assert abs(float(jax.grad(total)(0.1))) < 1e-14
