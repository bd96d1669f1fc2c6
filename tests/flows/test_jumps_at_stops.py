"""Equations that jump at a stop: every step that is taken again sees the side on which it lies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf

STOPS = jnp.array([0.5])
FEW, MANY = np.linspace(0, 1, 11), np.linspace(0, 1, 301)


def before(t, y, a):
    """At the stop itself already what comes after it."""
    return jnp.where(t < 0.5, a, -3.0 * a) * jnp.ones_like(y)


def until(t, y, a):
    return jnp.where(t <= 0.5, a, -3.0 * a) * jnp.ones_like(y)


def exact(t):
    return np.where(t < 0.5, t, 0.5 - 3 * (t - 0.5))


METHODS = [rf.Tsit5(), rf.Dopri8(), rf.Rodas5P(), rf.Kvaerno5(), rf.BDF(), "auto"]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m if m == "auto" else type(m).__name__)
def test_values_between_the_steps(method):
    tolerance = 3e-6 if isinstance(method, rf.BDF) else 1e-12
    for field in (before, until):
        for span in ((0.0, 1.0), (1.0, 0.0)):
            start = exact(span[0])
            solve = lambda saveat, f=field, span=span, start=start: rf.solve_ode(
                f, start, span, 1.0, stops=STOPS, saveat=saveat, method=method
            )
            np.testing.assert_allclose(solve("dense")(MANY), exact(MANY), atol=tolerance)
            np.testing.assert_allclose(solve(MANY).ys, exact(MANY), atol=tolerance)
            np.testing.assert_allclose(solve(FEW).ys, exact(FEW), atol=tolerance)


def test_fixed_steps_and_events():
    crosses = rf.Event(lambda t, y, a: y - 0.3, terminal=False)
    for field in (before, until):
        for options in ({}, {"method": rf.Euler(), "dt": 0.25}):
            sol = rf.solve_ode(
                field, 0.0, (0.0, 1.0), 1.0, stops=STOPS, saveat="dense", event=crosses,
                max_events=3, **options,
            )  # fmt: skip
            np.testing.assert_allclose(sol(MANY), exact(MANY), atol=1e-12)
            np.testing.assert_allclose(sol.events.ts[:2], [0.3, 0.5 + 0.2 / 3], rtol=1e-12)
            np.testing.assert_allclose(sol.events.ys[:2], 0.3, rtol=1e-12)


@pytest.mark.parametrize(
    "adjoint",
    [
        rf.DiscreteAdjoint(), rf.CheckpointAdjoint(), rf.ForwardAdjoint(),
        rf.InterpolatingAdjoint(), rf.BacksolveAdjoint(),
    ],
    ids=lambda a: type(a).__name__,
)  # fmt: skip
@pytest.mark.parametrize("field", [before, until])
def test_derivatives_of_what_is_saved(adjoint, field):
    jacobian = jax.jacfwd if isinstance(adjoint, rf.ForwardAdjoint) else jax.jacrev
    # Saved times at the stop (FEW) and beside it.
    for ts in (FEW, np.array([0.45, 0.55, 0.9])):
        solve = lambda a, ts=ts: (
            rf.solve_ode(field, 0.0, (0.0, 1.0), a, stops=STOPS, saveat=ts, adjoint=adjoint).ys
        )
        np.testing.assert_allclose(jax.jit(jacobian(solve))(1.0), exact(ts), atol=1e-12)


@pytest.mark.parametrize("adjoint", [rf.InterpolatingAdjoint(), rf.BacksolveAdjoint()])
def test_adjoint_equations_are_as_accurate_as_their_tolerance(adjoint):
    """y' = +-a y^2: 1/y = 1 - a (1/2 - 3/10) at t = 0.8."""

    def field(t, y, a):
        return jnp.where(t < 0.5, 1.0, -1.0) * a * y * y

    def end(a):
        sol = rf.solve_ode(
            field, 1.0, (0.0, 0.8), a, stops=STOPS, adjoint=adjoint, rtol=1e-10, atol=1e-10
        )
        return sol.ys[-1]

    np.testing.assert_allclose(jax.grad(end)(0.5), 0.2 / (1 - 0.2 * 0.5) ** 2, rtol=1e-8)


@pytest.mark.parametrize("kind", [rf.Linear, rf.Rectilinear])
def test_controlled_equations_between_the_observations(kind):
    """dy = y dX: y follows exp(X - X(0)) of the first channel."""
    knots, data = jnp.arange(5.0), jnp.array([0.0, 1.0, -1.0, 2.0, 0.0])
    path = kind(knots, data[:, None])
    span = (float(path.knots[0]), float(path.knots[-1]))
    value = jax.vmap(path.evaluate)
    last = value(jnp.zeros(1)).shape[-1] - 1  # (a rectilinear path begins with the time)
    f = lambda t, y, a: a * y[:, None] * jnp.eye(last + 1)[last][None]
    channel = lambda t: np.asarray(value(jnp.asarray(t))[:, last])
    few, many = np.linspace(*span, 33), np.linspace(*span, 401)
    expected = np.exp(channel(many) - channel(many[:1]))
    solve = lambda a, ts: rf.solve_cde(
        f, jnp.ones(1), path, a, span=span, saveat=ts, rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(solve(1.0, many).ys[:, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(solve(1.0, "dense")(many)[:, 0], expected, rtol=1e-6)
    slope = jax.jit(jax.jacfwd(lambda a: solve(a, few).ys[:, 0]))(1.0)
    moved = channel(few) - channel(few[:1])
    np.testing.assert_allclose(slope, moved * np.exp(moved), rtol=1e-5, atol=1e-7)


def test_delay_and_stochastic_equations_and_fits():
    sol = rf.solve_dde(
        lambda t, y, past, a: before(t, y, a), lambda t: jnp.zeros(()), [2.0], (0.0, 1.0), 1.0,
        stops=STOPS, saveat="dense",
    )  # fmt: skip
    np.testing.assert_allclose(sol(MANY), exact(MANY), atol=1e-12)
    noise = rf.BrownianMotion(jax.random.key(0), (), 0.0, 1.0)
    sol = rf.solve_sde(
        before, lambda t, y, a: 0.0 * y, 0.0, (0.0, 1.0), noise, 1.0, dt=0.125, stops=STOPS,
        method=rf.Heun(), saveat="dense",
    )  # fmt: skip
    np.testing.assert_allclose(sol(MANY), exact(MANY), atol=1e-12)
    model = rf.Model(
        lambda t, y, p, c: {"x": p["a"] * jnp.where(t < 0.5, 1.0, -3.0)}, states={"x": 0.0},
        parameters={"a": rf.Parameter(1.5, 0.1, 10.0)},
        observed={"x": lambda t, y, p, c: y["x"]}, stops=(0.5,), t0=0.0,
    )  # fmt: skip
    noise = 0.01 * np.random.default_rng(0).normal(size=300)
    result = rf.fit(model, {"time": MANY[1:], "x": 2 * exact(MANY[1:]) + noise}, starts=1)
    np.testing.assert_allclose(result["a"], 2.0, rtol=5e-3)


@pytest.mark.parametrize("method", [rf.BDF(), rf.Kvaerno5(), rf.Rodas5P()])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_constant_rate_into_an_empty_state(method, dtype):
    """The first guess of an implicit stage is exact but for round-off, of which y says nothing."""
    for rate in (1.0, 2e-7):
        field = lambda t, y, a: a * jnp.ones_like(y)
        sol = rf.solve_ode(field, jnp.zeros(2, dtype), (0.0, 1.0), rate, method=method)
        np.testing.assert_allclose(sol.ys[-1], rate, rtol=1e-4)
        assert sol.stats.rejected == 0
    fixed = rf.solve_ode(field, jnp.zeros(2, dtype), (0.0, 1.0), 1.0, method=method, dt=0.1)
    np.testing.assert_allclose(fixed.ys[-1], 1.0, rtol=1e-4)


def test_the_time_of_an_event_on_a_random_path_has_no_derivative():
    noise = rf.BrownianMotion(jax.random.key(3), (), 0.0, 1.0)

    def end(a, condition):
        return rf.solve_sde(
            lambda t, y, a: a + 0 * y, lambda t, y, a: 0.3 * jnp.ones_like(y), 0.0, (0.0, 1.0),
            noise, a, dt=1 / 64, event=rf.Event(condition),
        ).ys[-1]  # fmt: skip

    assert jax.grad(lambda a: end(a, lambda t, y, a: t - 0.5))(1.5) == pytest.approx(0.5)
    for condition in (lambda t, y, a: y - 0.5, lambda t, y, a: a * t - 0.5):
        assert np.isfinite(end(1.5, condition))
        with pytest.raises(rf.errors.DerivativeError, match="random path"):
            jax.grad(lambda a, c=condition: end(a, c))(1.5)


def test_a_stop_at_the_end_moves_nothing_and_the_end_moves_all():
    decay = lambda t, y, a: -y
    for adjoint in (rf.DiscreteAdjoint(), rf.CheckpointAdjoint(), rf.BacksolveAdjoint()):

        def final(t1, stop, adjoint=adjoint):
            return rf.solve_ode(
                decay, 1.0, (0.0, t1), stops=jnp.array([0.3, stop]), adjoint=adjoint
            ).ys[-1]

        slopes = jax.jit(jax.grad(final, (0, 1)))(1.0, 1.0)
        np.testing.assert_allclose(slopes, [-np.exp(-1.0), 0.0], rtol=1e-4)
    # y' = -y(t - tau) from 1 by steps: y(3) = 1 - 3 + (3 - tau)²/2 - (3 - 2 tau)³/6 for tau >= 1.
    lag = lambda t1, tau: rf.solve_dde(
        lambda t, y, d, a: -d[0], lambda t: jnp.array(1.0), (tau,), (0.0, t1), max_steps=64
    ).ys[-1]
    np.testing.assert_allclose(jax.grad(lag, (0, 1))(3.0, 1.0), [0.5, -1.0], rtol=1e-9)


def test_adjoint_equations_follow_stops_that_move():
    """y' = y before s and 3 y after it."""
    field = lambda t, y, s: jnp.where(t < s, 1.0, 3.0) * y
    for adjoint in (rf.InterpolatingAdjoint(), rf.BacksolveAdjoint()):

        def both(s, adjoint=adjoint):
            options = {"stops": jnp.array([s, 2.0, s]), "adjoint": adjoint, "rtol": 1e-9}
            there = rf.solve_ode(
                field, 1.0, (0.0, 1.0), s, saveat=jnp.array([0.2, 0.5, 1.0]), **options
            )
            back = rf.solve_ode(lambda t, y, s: field(t, y, s), 1.0, (1.0, 0.0), s, **options)
            return there.ys.sum(), back.ys[-1]

        forwards, backwards = jax.jit(jax.jacrev(both))(0.4)
        np.testing.assert_allclose(forwards, -2 * (np.exp(0.7) + np.exp(2.2)), rtol=1e-6)
        np.testing.assert_allclose(backwards, 2 * np.exp(-2.2), rtol=1e-6)


def test_times_of_data_have_derivatives_by_every_adjoint():
    xs = jnp.array([[0.0], [1.0], [0.2], [0.9]])

    def final(ts, adjoint=rf.DiscreteAdjoint()):
        return rf.solve_cde(
            lambda t, y, a: (jnp.sin(y) + t)[:, None], jnp.array([1.0]), rf.Linear(ts, xs),
            rtol=1e-9, atol=1e-9, adjoint=adjoint,
        ).ys[-1, 0]  # fmt: skip

    ts = jnp.array([0.0, 0.4, 0.7, 1.0])
    value = jax.jit(final)
    steps = 1e-5 * jnp.eye(4)
    slopes = [float(value(ts + step) - value(ts - step)) / 2e-5 for step in steps]
    for adjoint in (rf.DiscreteAdjoint(), rf.InterpolatingAdjoint(), rf.BacksolveAdjoint()):
        found = jax.jit(jax.grad(final), static_argnums=1)(ts, adjoint)
        np.testing.assert_allclose(found, slopes, atol=1e-6)


def test_derivatives_in_a_span_of_no_length():
    lag = lambda t1: rf.solve_dde(
        lambda t, y, d, a: -d[0], lambda t: jnp.array(1.0), (1.0,), (0.0, t1), max_steps=16
    ).ys[-1]
    np.testing.assert_allclose(jax.jacfwd(lag)(0.0), -1.0)

    def massive(t1, mass):
        f = lambda t, y, a: jnp.stack([-2 * y[0], y[1] - y[0] ** 2])
        return rf.solve_dae(f, jnp.array([1.0, 1.0]), (0.0, t1), mass=jnp.array(mass)).ys[-1]

    np.testing.assert_allclose(jax.jacfwd(massive)(0.0, [2.0, 4.0]), [-1.0, 0.0])
    # (Of what is algebraic it would take a derivative of the equations by the time.)
    np.testing.assert_allclose(jax.jacfwd(massive)(0.0, [1.0, 0.0]), [-2.0, np.nan])


def test_an_event_after_a_stop_moves_with_it():
    """y' = 1 before s and 3 after it reaches 2 at s + (2 - s) / 3."""
    field = lambda t, y, s: jnp.where(t < s, 1.0, 3.0) + 0 * y
    for adjoint in (rf.DiscreteAdjoint(), rf.InterpolatingAdjoint(), rf.BacksolveAdjoint()):

        def when(s, adjoint=adjoint):
            return rf.solve_ode(
                field, 0.0, (0.0, 5.0), s, stops=jnp.array([s, 4.0]), adjoint=adjoint,
                event=rf.Event(lambda t, y, p: y - 2.0),
            ).ts[-1]  # fmt: skip

        slopes = jax.jit(jax.vmap(jax.grad(when)))(jnp.array([0.4, 0.5]))
        np.testing.assert_allclose(slopes, 2 / 3, rtol=1e-6)
