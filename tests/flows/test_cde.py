"""Controlled equations: closed forms, the recurrent network they contain, the log-ODE."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow.flows.cde import solve_cde
from rootflow.flows.methods.runge_kutta import Euler
from rootflow.flows.paths import CubicHermite, CubicNatural, Linear, LogSignature, Rectilinear

RNG = np.random.default_rng(1)
TS = np.linspace(0.0, 1.0, 11)
WAVE = np.sin(2 * TS)[:, None]
TIGHT = {"rtol": 1e-9, "atol": 1e-9}


def grow(t, y, a):
    return y[:, None]


@pytest.mark.parametrize("kind", [Linear, CubicNatural, CubicHermite])
def test_growth_with_the_control(kind):
    """dy = y dX has y = y0 exp(X(t1) - X(t0)) on every path."""
    sol = solve_cde(grow, jnp.array([2.0]), kind(TS, WAVE), **TIGHT)
    np.testing.assert_allclose(sol.ys[-1], 2 * np.exp(np.sin(2.0)), rtol=1e-7)
    part = solve_cde(grow, jnp.array([2.0]), kind(TS, WAVE), span=(0.2, 0.6), **TIGHT)
    np.testing.assert_allclose(part.ys[-1], 2 * np.exp(np.sin(1.2) - np.sin(0.4)), rtol=1e-7)


@pytest.mark.parametrize("kind", [Linear, CubicHermite])
def test_steps_end_at_the_kinks(kind):
    sol = solve_cde(grow, jnp.array([2.0]), kind(TS, WAVE), rtol=1e-5, atol=1e-5)
    assert sol.stats.rejected == 0
    assert sol.stats.accepted <= 2 * len(TS)
    np.testing.assert_allclose(sol.ys[-1], 2 * np.exp(np.sin(2.0)), rtol=1e-5)
    free = solve_cde(grow, jnp.array([2.0]), kind(TS, WAVE), stops=None, **TIGHT)
    np.testing.assert_allclose(free.ys[-1], 2 * np.exp(np.sin(2.0)), rtol=1e-6)


def test_linear_path_and_euler_steps_are_a_recurrent_network():
    xs = RNG.normal(size=(11, 3))
    weights = RNG.normal(size=(12, 4))

    def f(t, y, w):
        return jnp.tanh(w @ y).reshape(4, 3)

    h = np.array([0.1, -0.2, 0.3, 0.0])
    start = h
    for dx in np.diff(xs, axis=0):
        h = h + np.tanh(weights @ h).reshape(4, 3) @ dx
    ts = np.arange(11.0)
    sol = solve_cde(f, start, Linear(ts, xs), jnp.asarray(weights), method=Euler(), dt=1.0)
    np.testing.assert_allclose(sol.ys[-1], h, rtol=1e-12)


def field(t, y, a):
    return jnp.stack(
        [
            jnp.stack([y[1], jnp.sin(y[0])]),
            jnp.stack([jnp.cos(y[1]), 0.5 * y[0]]),
        ],
        axis=1,
    )


def test_the_speed_of_the_path_does_not_matter():
    xs = RNG.normal(size=(11, 2))
    y0 = jnp.array([0.3, 0.2])
    slow = solve_cde(field, y0, Linear(TS, xs), **TIGHT).ys[-1]
    other = solve_cde(field, y0, Linear(TS**2 + TS, xs), **TIGHT).ys[-1]
    np.testing.assert_allclose(slow, other, atol=1e-7)


def test_the_rectilinear_path_is_online():
    """At an observation time the solution knows the data up to there, and not what follows."""
    xs = RNG.normal(size=(11, 1))
    other = xs.copy()
    other[6:] = np.nan
    y0 = jnp.array([0.3, 0.2])
    run = lambda data: solve_cde(field, y0, Rectilinear(TS, data), saveat=TS, **TIGHT).ys
    first, second = run(xs), run(other)
    np.testing.assert_allclose(first[:6], second[:6], atol=1e-12)
    assert float(jnp.abs(first[7] - second[7]).max()) > 1e-3


def test_gradient_in_the_data_and_batches():
    ts = jnp.asarray(TS[:5])

    @jax.jit
    def final(xs):
        sol = solve_cde(field, jnp.array([0.3, 0.2]), CubicHermite(ts, xs), dt=0.05)
        return sol.ys[-1, 0]

    xs = jnp.asarray(RNG.normal(size=(5, 2)))
    gradient = jax.grad(final)(xs)
    e = jnp.zeros_like(xs).at[2, 1].set(1e-6)
    difference = (final(xs + e) - final(xs - e)) / 2e-6
    np.testing.assert_allclose(gradient[2, 1], difference, rtol=1e-6)
    batch = jax.vmap(final)(jnp.stack([xs, 2 * xs]))
    np.testing.assert_allclose(batch, [final(xs), final(2 * xs)], rtol=1e-12)


def test_order_of_the_log_ode():
    """2 at depth 1, 4 at depth 2 in the windows, on a smooth path."""
    t = np.linspace(0, 1, 513)
    xs = np.stack([np.cos(4 * t) * t, np.sin(4 * t)], axis=1)
    y0 = jnp.array([0.3, 0.2])
    exact = solve_cde(field, y0, Linear(t, xs), rtol=1e-11, atol=1e-11).ys[-1]

    def error(window, depth):
        control = LogSignature(t, xs, window=window, depth=depth)
        return float(jnp.abs(solve_cde(field, y0, control, **TIGHT).ys[-1] - exact).max())

    for depth, order in ((1, 2), (2, 4), (3, 4)):
        found = np.log2(error(64, depth) / error(32, depth))
        assert abs(found - order) < 0.4, (depth, found)
    assert error(32, 2) < error(32, 1) / 50
    assert error(32, 3) < error(32, 2)


def test_the_log_ode_is_exact_for_the_heisenberg_group():
    """dx = dX1, dy = dX2, dz = (x dX2 - y dX1) / 2: brackets beyond the second vanish."""

    def heisenberg(t, y, a):
        x, v, _ = y
        one, zero = jnp.ones(()), jnp.zeros(())
        columns = [jnp.stack([one, zero, -v / 2]), jnp.stack([zero, one, x / 2])]
        return jnp.stack(columns, axis=1)

    xs = RNG.normal(size=(21, 2))
    ts = np.arange(21.0)
    d = np.diff(xs, axis=0)
    x = xs[:-1] - xs[0]
    area = 0.5 * np.sum(x[:, 0] * d[:, 1] - x[:, 1] * d[:, 0])
    sol = solve_cde(heisenberg, jnp.zeros(3), LogSignature(ts, xs, window=20), **TIGHT)
    np.testing.assert_allclose(sol.ys[-1], [*(xs[-1] - xs[0]), area], atol=1e-9)


def test_a_field_as_wide_as_the_log_signature():
    """A neural rough differential equation: the entries drive the state directly."""
    xs = RNG.normal(size=(11, 2))
    control = LogSignature(TS, xs, window=5)
    sol = solve_cde(lambda t, y, a: jnp.eye(3), jnp.zeros(3), control, **TIGHT)
    np.testing.assert_allclose(sol.ys[-1], control.entries.sum(0), atol=1e-9)


def test_refused():
    control = Linear(TS, WAVE)
    y0 = jnp.array([2.0])
    with pytest.raises(rf.InputError, match="control must be a path"):
        solve_cde(grow, y0, WAVE)  # pyright: ignore
    with pytest.raises(rf.InputError, match=r"one more axis at its end, of length 1 \(channels\)"):
        solve_cde(lambda t, y, a: y, y0, control)
    with pytest.raises(rf.InputError, match=r"span \(0, 2\) leaves that of the control, \(0, 1\)"):
        solve_cde(grow, y0, control, span=(0.0, 2.0))
    with pytest.raises(rf.InputError, match='stops must be "kinks"'):
        solve_cde(grow, y0, control, stops="knots")  # pyright: ignore
    with pytest.raises(rf.InputError, match="must be a function"):
        solve_cde(3, y0, control)  # pyright: ignore
    with pytest.raises(rf.InputError, match="entries of the log-signature"):
        solve_cde(grow, y0, LogSignature(TS, np.repeat(WAVE, 3, 1), window=2))
