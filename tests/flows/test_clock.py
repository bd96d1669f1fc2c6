"""The clock of a solve: late starts, many stops, saved times beside the ends, singular times."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf


def decay(t, y, args):
    return -y


def oscillator(t, y, args):
    return jnp.stack([y[1], -y[0]])


def one(t, y, args):
    return jnp.ones_like(y)


def test_single_precision_long_after_zero():
    sol = rf.solve_ode(decay, jnp.float32(1), (1.7e9, 1.7e9 + 10))
    np.testing.assert_allclose(sol.ys[-1], np.exp(-10), rtol=2e-3)


def test_stops_long_after_zero_cost_nothing():
    t0 = 1.7e9
    stops = t0 + jnp.arange(1.0, 100.0)
    sol = rf.solve_ode(
        oscillator, jnp.array([1.0, 0.0]), (t0, t0 + 100), stops=stops, rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(sol.ys[-1], [np.cos(100), -np.sin(100)], atol=1e-6)
    assert sol.ts[-1] == t0 + 100


def test_stops_in_single_precision_lose_no_time():
    sol = rf.solve_ode(one, jnp.float32(0), (0.0, 1000.0), stops=jnp.arange(1.0, 1000.0))
    assert sol.ys[-1] == 1000.0


def test_a_field_that_jumps_at_stops_long_after_zero():
    t0 = 1.7e9
    field = lambda t, y, a: jnp.where(t < t0 + 1, 1.0, jnp.where(t < t0 + 2, -3.0, 0.5)) + 0 * y
    sol = rf.solve_ode(field, 0.0, (t0, t0 + 3), stops=t0 + jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(sol.ys[-1], 1 - 3 + 0.5, atol=1e-12)


def test_times_as_they_were_given():
    t0, ts = 1e6, 1e6 + np.array([0.0, 0.3, 1.0])
    sol = rf.solve_ode(decay, 1.0, (t0, t0 + 1), saveat=ts)
    np.testing.assert_array_equal(sol.ts, ts)
    np.testing.assert_allclose(sol.ys, np.exp(t0 - ts), rtol=1e-5)
    steps = rf.solve_ode(decay, 1.0, (t0, t0 + 1), saveat="steps")
    assert np.nanmax(steps.ts) == t0 + 1 and np.nanmin(steps.ts) > t0
    dense = rf.solve_ode(decay, 1.0, (t0, t0 + 1), saveat="dense")
    np.testing.assert_allclose(dense(t0 + 0.3), np.exp(-0.3), rtol=1e-5)
    np.testing.assert_allclose(dense(t0 + 1.0), np.exp(-1.0), rtol=1e-5)
    event = rf.Event(lambda t, y, a: y - 0.5, terminal=False)
    sol = rf.solve_ode(decay, 1.0, (t0, t0 + 1), event=event, max_events=2, rtol=1e-9)
    np.testing.assert_allclose(sol.events.ts[0] - t0, np.log(2), atol=1e-6)


def test_derivatives_in_the_span_and_in_stops():
    """y' = t y from t0 to t1, with the exponent changed at a stop."""

    def value(v):
        t0, stop, t1 = v
        field = lambda t, y, c: jnp.where(t < c, t, 2 * t) * y
        return rf.solve_ode(field, 1.0, (t0, t1), stop, stops=stop[None], rtol=1e-10).ys[-1]

    def exact(v):
        t0, stop, t1 = v
        return jnp.exp((stop**2 - t0**2) / 2 + t1**2 - stop**2)

    v = jnp.array([0.2, 0.5, 1.1])
    np.testing.assert_allclose(value(v), exact(v), rtol=1e-8)
    np.testing.assert_allclose(jax.grad(value)(v), jax.grad(exact)(v), rtol=1e-6)
    np.testing.assert_allclose(jax.jacfwd(value)(v), jax.grad(exact)(v), rtol=1e-6)


def test_hessian_where_the_span_is_empty():
    def value(v):
        return rf.solve_ode(lambda t, y, a: a * t * y, 1.0, (v[0], v[1]), v[2]).ys[-1]

    exact = lambda v: jnp.exp(v[2] * (v[1] ** 2 - v[0] ** 2) / 2)
    v = jnp.array([0.7, 0.7, 1.5])
    np.testing.assert_allclose(jax.grad(value)(v), jax.grad(exact)(v), atol=1e-12)
    np.testing.assert_allclose(jax.hessian(value)(v), jax.hessian(exact)(v), atol=1e-12)


def test_saved_times_computed_beside_the_ends():
    @jax.jit
    @jax.vmap
    def last(t0, t1):
        ts = jnp.linspace(t0, t1, 7)
        return rf.solve_ode(decay, 1.0, (t0, t1), saveat=ts).ys[-1] * jnp.exp(t1 - t0)

    rng = np.random.default_rng(0)
    t0 = rng.normal(size=600)
    np.testing.assert_allclose(last(t0, t0 + rng.uniform(0.1, 2, 600)), 1.0, rtol=1e-4)


def test_a_saved_time_beyond_a_traced_end():
    def solve(t1, throw):
        return rf.solve_ode(decay, 1.0, (0.0, t1), saveat=jnp.array([0.5, 2.0]), throw=throw)

    sol = jax.jit(lambda t1: solve(t1, False))(1.0)
    assert sol.result == rf.Result.outside_span
    with pytest.raises(Exception, match="outside the span"):
        jax.block_until_ready(jax.jit(lambda t1: solve(t1, True).ys)(1.0))
    with pytest.raises(rf.SolveError, match="outside the span"):
        jax.grad(lambda t1: solve(t1, True).ys[0])(1.0)
    with pytest.raises(rf.InputError, match="outside the span"):
        solve(1.0, True)


def test_an_end_that_is_not_a_number():
    solve = jax.jit(lambda t1: rf.solve_ode(decay, 1.0, (0.0, t1), throw=False))
    assert solve(jnp.nan).result == rf.Result.bad_span
    assert solve(jnp.inf).result == rf.Result.bad_span
    assert solve(1.0).result == rf.Result.success


def test_a_span_below_the_resolution_of_its_type():
    with pytest.raises(rf.InputError, match="shorter than float32"):
        rf.solve_ode(decay, jnp.float32(1), (0.0, 1e-60))


def test_a_fast_rate_over_a_short_span_in_single_precision():
    sol = rf.solve_ode(lambda t, y, a: a * y, jnp.float32(1), (0.0, 1e-16), jnp.float32(1e16))
    np.testing.assert_allclose(sol.ys[-1], np.e, rtol=1e-3)


SINGULAR = [
    dict(),
    dict(adjoint=rf.CheckpointAdjoint()),
    dict(saveat=jnp.linspace(1.0, 2.0, 5)),
    dict(saveat="steps"),
    dict(method="auto"),
    dict(method=rf.Kvaerno5()),
    dict(method=rf.BDF()),
]


@pytest.mark.parametrize("options", SINGULAR)
def test_a_field_that_is_singular_at_zero(options):
    """y' = -p y / t from 1 to 2 is 2**-p; rows that hold no step must not be at t = 0."""

    def value(p):
        ys = rf.solve_ode(lambda t, y, p: -p * y / t, 1.0, (1.0, 2.0), p, **options).ys
        return jnp.nanmin(ys) if options.get("saveat") is not None else ys[-1]

    right = -np.log(2) * 2**-1.5
    np.testing.assert_allclose(jax.grad(value)(1.5), right, rtol=1e-3)
    np.testing.assert_allclose(jax.jacfwd(value)(1.5), right, rtol=1e-3)
    both = jax.vmap(jax.grad(value))(jnp.array([1.5, 2.5]))
    np.testing.assert_allclose(both, [right, right / 2], rtol=1e-3)


def test_an_infinite_derivative_in_time_where_no_time_moves():
    """y' = p sqrt(t): df/dt is infinite at 0, where neither a stop nor an event moves anything."""

    def value(p, **options):
        return rf.solve_ode(lambda t, y, p: p * t**0.5, 0.0, (0.0, 1.0), p, **options).ys[-1]

    event = rf.Event(lambda t, y, p: y - 0.2, terminal=False)
    for options in (dict(stops=jnp.array([0.5])), dict(event=event)):
        for derivative in (jax.grad, jax.jacfwd):
            got = derivative(lambda p, options=options: value(p, **options))(1.3)
            np.testing.assert_allclose(got, 2 / 3, rtol=1e-6)
    in_t1 = jax.grad(lambda t1: rf.solve_ode(lambda t, y, p: t**0.5, 0.0, (0.0, t1)).ys[-1])(1.0)
    np.testing.assert_allclose(in_t1, 1.0, rtol=1e-6)
