"""Step control: what the controller is told of an error, and which solves have a span at all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow.flows import control
from rootflow.flows.system import Tolerances


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_logarithm_of_an_error_is_that_of_its_root_mean_square(dtype):
    sizes = np.concatenate([np.logspace(-9, 15, 200), 1 + np.linspace(-1e-3, 1e-3, 41)])
    parts = np.array([3.0, -4.0, 0.0, 1.0])
    parts /= np.sqrt(np.mean(parts**2))

    def judged(size):
        tolerances = Tolerances(jnp.zeros((), dtype), jnp.ones((), dtype))
        state = jnp.zeros(4, dtype)
        return control.judged(size * jnp.asarray(parts, dtype), state, state, tolerances)

    keep, found = jax.jit(jax.vmap(judged))(jnp.asarray(sizes, dtype))
    # Half of 2 artanh's share: the quotient of polynomials is exact to 2e-5.
    np.testing.assert_allclose(found, np.log(sizes), rtol=0, atol=2e-5)
    clear = np.abs(sizes - 1) > 1e-6
    np.testing.assert_array_equal(keep[clear], (sizes <= 1)[clear])


@pytest.mark.parametrize("error", [np.nan, np.inf, 1e200])
def test_what_is_not_finite_is_neither_kept_nor_told_apart(error):
    tolerances = Tolerances(jnp.asarray(1e-6), jnp.asarray(1e-6))
    keep, found = control.judged(jnp.asarray([error, 0.0]), jnp.ones(2), jnp.ones(2), tolerances)
    assert not keep and float(found) >= control.LOST


def test_only_a_span_that_may_be_empty_has_the_derivative_of_one():
    """Where t0 = t1 no step gives the state at the end a derivative in t1; elsewhere none asks."""

    def decay(t, y, rate):
        return -rate * y * jnp.cos(0 * y)

    def end(y0, span, rate):
        return rf.solve_ode(decay, y0, span, rate, method=rf.Tsit5()).ys[-1]

    at = (jnp.asarray(2.0), 0.7)
    slope = jax.jit(jax.grad(lambda t1: end(at[0], (1.0, t1), at[1])))(1.0)
    np.testing.assert_allclose(slope, -1.4, rtol=1e-12)
    known = jax.jit(jax.grad(lambda rate: end(at[0], (0.0, 1.0), rate)))
    given = jax.jit(jax.grad(lambda rate, t1: end(at[0], (0.0, t1), rate)))
    evaluated = [
        f.lower(*x).as_text().count("cosine") for f, x in ((known, (0.7,)), (given, (0.7, 1.0)))
    ]
    assert 0 < evaluated[0] < evaluated[1]
    np.testing.assert_allclose(given(0.7, 1.0), -2 * np.exp(-0.7), rtol=1e-4)


@pytest.mark.parametrize("saveat", [None, np.array([0.0, 0.5, 1.0])])
def test_times_that_are_numbers_leave_nothing_in_the_program(saveat):
    """Neither their derivatives nor their checks; and what is wrong with them is told at once."""

    def decay(t, y, rate):
        return -rate * y * jnp.cos(0 * y)

    def last(rate, t0, t1):
        sol = rf.solve_ode(decay, 2.0, (t0, t1), rate, method=rf.Tsit5(), saveat=saveat)
        return jnp.sum(sol.ys[-1])

    numbers = jax.jit(jax.grad(lambda rate: last(rate, 0.0, 1.0)))
    arrays = jax.jit(jax.grad(last))
    text = numbers.lower(0.7).as_text(), arrays.lower(0.7, 0.0, 1.0).as_text()
    assert text[0].count("cosine") <= text[1].count("cosine")
    assert text[0].count("custom_call") < text[1].count("custom_call")
    np.testing.assert_allclose(numbers(0.7), arrays(0.7, 0.0, 1.0), rtol=1e-12)
    # Where one of them is differentiated they are not numbers, at any level.
    mixed = jax.grad(lambda t1: jax.grad(last)(0.7, 0.0, t1))(1.0)
    expected = -2 * np.exp(-0.7) * (1 - 0.7) if saveat is None else 0.0  # what is saved stays
    np.testing.assert_allclose(mixed, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(rf.errors.InputError, match="shorter than float32"):
        jax.jit(lambda y: rf.solve_ode(decay, y, (0.0, 1e-60), 1.0, method=rf.Tsit5()).ys)(
            jnp.float32(1)
        )


def test_times_outside_a_span_are_told_while_a_program_is_traced():
    run = jax.jit(lambda y: rf.solve_ode(
        lambda t, y, args: -y, y, (0.0, 1.0), method=rf.Tsit5(), saveat=[0.5, 1.5]
    ).ys)  # fmt: skip
    with pytest.raises(rf.errors.InputError, match=r"saveat holds 1\.5"):
        run(1.0)
