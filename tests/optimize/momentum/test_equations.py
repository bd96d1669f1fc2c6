"""Equations, flows, design both ways, slow manifolds, passivity and the monitor."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import j1

import rootflow as rf
from rootflow import optimize as opt
from rootflow.errors import InputError

LAM = jnp.array([0.01, 0.1, 0.5, 1.0])


def slope(x, lam):
    return lam * x


def test_the_table_of_equations():
    mu, s = 0.04, 0.01
    q = (mu * s) ** 0.5
    low, high = opt.equations.nesterov_low(mu), opt.equations.nesterov_high(mu, s)
    ball = opt.equations.heavy_ball_high(mu, s)
    np.testing.assert_allclose([low.a, low.b, low.c], [0.4, 0.0, 1.0])
    np.testing.assert_allclose([high.a, high.b, high.c], [0.4, 0.1, 1 + q])
    np.testing.assert_allclose([ball.a, ball.b, ball.c], [0.4, 0.0, 1 + q])
    # The general row: exactly Shi's a and c for nesterov, and b up to the order of the step.
    own = opt.nesterov(mu=mu, step=s).equation()
    np.testing.assert_allclose([own.a, own.b, own.c], [0.4, 0.1 * (1 - q), 1 + q], rtol=1e-12)
    own = opt.heavy_ball(mu=mu, step=s).equation()
    np.testing.assert_allclose([own.a, own.b, own.c], [0.4, 0.0, 1 + q], rtol=1e-12)
    own = opt.nesterov(mu=mu, step=s).equation("low")
    np.testing.assert_allclose([own.a, own.b, own.c], [0.4, 0.0, 1.0], rtol=1e-12)
    for kappa, most in ((1e4, 0.02), (1e8, 2e-4)):
        lead = opt.equations.triple_momentum_leading(1.0, kappa)
        own = opt.triple_momentum(mu=1.0, L=kappa).equation(step=kappa**-0.5)
        found = [getattr(own, name) / getattr(lead, name) for name in "abc"]
        np.testing.assert_allclose(found, 1.0, atol=most)


def test_design_goes_both_ways_and_is_differentiable():
    rng = np.random.default_rng(0)
    for alpha, beta, gamma, step in rng.uniform([0.01, 0.0, -0.3, 0.05], [1, 1, 1, 2], (20, 4)):
        ode = opt.Momentum(alpha, beta, gamma).equation(step=step)
        back = opt.from_equation(ode.a, ode.b, ode.c, step=ode.step)
        np.testing.assert_allclose(
            [back.alpha, back.beta, back.gamma], [alpha, beta, gamma], rtol=1e-10
        )

    def rate(a):
        return opt.from_equation(a, 0.1, 1.0, step=0.1, mu=1.0, L=50.0).quadratic_rate()

    change = (rate(3.001) - rate(2.999)) / 2e-3
    np.testing.assert_allclose(jax.grad(rate)(3.0), change, rtol=1e-4)
    # Friction chosen by descent on the rate is the resonant one, up to the order of the step.
    best = min(np.linspace(0.5, 4, 351), key=rate)
    assert abs(best - opt.resonant_friction(1.0, b=0.1)) < 0.15


def test_modes_are_as_designed_and_iterates_have_them():
    mu, h = 0.04, 0.01
    design = opt.from_modes((0.2, 0.4), at=mu, b=0.1, step=h)
    np.testing.assert_allclose(np.real(design.modes(mu)), [0.2, 0.4], rtol=1e-12)
    double = opt.from_modes((mu**0.5, mu**0.5), at=mu)
    assert double.a == pytest.approx(opt.resonant_friction(mu)) and double.c == pytest.approx(1.0)
    triple = opt.from_modes((0.2, 0.4), at=mu, b=1.0)
    np.testing.assert_allclose([triple.a, triple.c], [0.6 - mu, 2.0])
    method = opt.from_equation(design.a, design.b, design.c, step=h, mu=mu, L=mu)
    np.testing.assert_allclose(-np.log(method.quadratic_rate()) / h, 0.2, rtol=1e-2)
    with pytest.raises(InputError, match="smaller b"):
        opt.from_modes((0.1, 0.1), at=1.0, b=3.0)


def test_slow_manifolds():
    ode = opt.Equation(2.0, 0.1, 1.0)
    lam = np.array([1e-4, 0.01, 0.5, 1.0, 3.0])
    slow = np.asarray(ode.slow_rate(lam))
    both = [np.roots([1, -(2 + 0.1 * w), w]) for w in lam]
    expected = [min(r.real) if np.all(np.abs(r.imag) < 1e-12) else np.nan for r in both]
    np.testing.assert_allclose(slow, expected, rtol=1e-10)
    np.testing.assert_allclose(slow[0], lam[0] / 2, rtol=1e-3)  # Fenichel: c lambda / a
    assert np.isnan(slow[-1])
    np.testing.assert_allclose(np.abs(ode.modes(3.0)[0]), 3.0**0.5, rtol=1e-12)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    H = turn @ np.diag([0.05, 0.3, 0.8]) @ turn.T
    S = ode.slow_operator(H)
    np.testing.assert_allclose(S @ S - (2 * np.eye(3) + 0.1 * H) @ S + H, 0, atol=1e-12)
    sol = rf.solve_ode(ode.riccati(H), jnp.zeros((3, 3)), (0.0, 60.0), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(sol.ys[-1], S, atol=1e-8)
    np.testing.assert_allclose(jax.grad(ode.slow_rate)(0.3), 1 / (2 + 0.03 - 2 * ode.slow_rate(0.3))
                               * (1 - 0.1 * ode.slow_rate(0.3)), rtol=1e-10)  # fmt: skip
    flow = ode.flow(lambda x: jnp.asarray(H) @ x)
    x = jnp.array([1.0, 2.0, -1.0])
    errors = [
        float(jnp.max(jnp.abs(opt.slow_velocity(flow, x, order=order) + S @ x))) for order in (0, 1)
    ]
    assert errors[1] < 0.4 * errors[0]


def test_flows_have_closed_forms_on_quadratics():
    mu = 0.25
    flow = opt.equations.nesterov_low(mu).flow(slope, mu)
    ts = jnp.linspace(0.0, 10.0, 21)
    tight = {"rtol": 1e-9, "atol": 1e-11}
    x = flow.solve(jnp.array(2.0), 10.0, saveat=ts, **tight).ys.x
    np.testing.assert_allclose(x, 2 * (1 + 0.5 * ts) * np.exp(-0.5 * ts), atol=1e-8)
    lam = 4.0
    flow = opt.equations.nesterov_convex_low().flow(slope, lam)
    ts = jnp.linspace(0.5, 12.0, 24)
    x = flow.solve(jnp.array(1.5), 12.0, saveat=ts, **tight).ys.x
    np.testing.assert_allclose(x, 2 * 1.5 * j1(2.0 * ts) / (2.0 * ts), atol=1e-7)
    # Su, Boyd and Candès: f <= 2 |x_0|^2 / t^2.
    assert np.all(0.5 * lam * np.asarray(x) ** 2 <= 2 * 1.5**2 / np.asarray(ts) ** 2)


def test_any_flow_with_a_moving_correction_solves_its_second_order_equation():
    ode = opt.Equation(lambda t: 1 + t, lambda t: 0.3 * jnp.sin(t), 2.0)
    sol = ode.flow(slope, 0.7).solve(1.0, 3.0, velocity=0.5, rtol=1e-10, atol=1e-12)

    def second(t, y, args):
        x, v = y
        a, b, c, _ = ode.coefficients(t)
        return v, -a * v - b * 0.7 * v - c * 0.7 * x

    other = rf.solve_ode(second, (1.0, 0.5), (0.0, 3.0), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(sol.ys.x[-1], other.ys[0][-1], rtol=1e-8)


@pytest.fixture(scope="module")
def gaps():
    found = {}
    for name, make in (("nag", opt.nesterov), ("hb", opt.heavy_ball)):
        for s in (0.04, 0.01):
            method = make(mu=0.01, step=s)
            run = opt.descend(
                method, slope, jnp.ones(4), LAM, steps=int(20 / s**0.5), start="matched"
            )
            for resolution in ("low", "high"):
                follow = method.flow(slope, LAM, resolution=resolution).follow(run)
                found[name, resolution, s] = float(jnp.max(jnp.abs(follow - run.x)))
    return found


def test_high_resolution_equations_follow_the_iterates_to_a_higher_order(gaps):
    published = {
        ("nag", "low"): (0.262, 0.148), ("nag", "high"): (0.0199, 0.0070),
        ("hb", "low"): (0.0425, 0.0197), ("hb", "high"): (0.0065, 0.0016),
    }  # fmt: skip
    for (name, resolution), values in published.items():
        for s, value in zip((0.04, 0.01), values):
            np.testing.assert_allclose(gaps[name, resolution, s], value, rtol=0.04)
    assert abs(np.log(gaps["hb", "high", 0.04] / gaps["hb", "high", 0.01]) / np.log(4) - 1) < 0.05


def test_the_vanishing_friction_follows_the_convex_method():
    method = opt.nesterov_convex(step=1e-4)
    run = opt.descend(method, slope, jnp.ones(2), jnp.array([1.0, 4.0]), steps=400)
    found = {
        resolution: float(
            jnp.max(jnp.abs(method.flow(slope, jnp.array([1.0, 4.0]), resolution=resolution)
                            .follow(run) - run.x))
        )
        for resolution in ("low", "high")
    }  # fmt: skip
    assert found["low"] < 0.05 and found["high"] < 0.6 * found["low"]


def test_flows_are_differentiable_and_have_events():
    def end(lam, a):
        flow = opt.Equation(a, 0.1, 1.0).flow(slope, lam)
        return flow.solve(1.0, 2.0, rtol=1e-10, atol=1e-12).ys.x[-1]

    slopes = jax.grad(end, (0, 1))(1.3, 0.7)
    for i in range(2):
        up, down = (
            [v + sign * 1e-5 * (j == i) for j, v in enumerate((1.3, 0.7))] for sign in (1, -1)
        )
        np.testing.assert_allclose(slopes[i], (end(*up) - end(*down)) / 2e-5, rtol=1e-5)
    many = jax.jit(jax.vmap(end, (0, None)))(jnp.array([1.3, 2.0]), 0.7)
    np.testing.assert_allclose(many[0], end(1.3, 0.7), rtol=1e-9)
    # x'' + x = 0 from rest crosses zero at pi/2.
    flow = opt.Equation(0.0, 0.0, 1.0).flow(slope, 1.0)
    event = rf.Event(lambda t, y, args: y.x)
    sol = flow.solve(1.0, 5.0, event=event, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(sol.ts[-1], np.pi / 2, rtol=1e-8)
    single = flow.solve(jnp.float32(1.0), 1.0)
    assert single.ys.x.dtype == jnp.float32
    np.testing.assert_allclose(single.ys.x[-1], np.cos(1.0), atol=1e-3)


def test_passivity_and_immersion_is_the_same_motion_and_alone_does_not_accelerate():
    ode = opt.equations.nesterov_high(0.25, 0.04)
    lam = jnp.array([0.25, 2.0])
    tight = {"rtol": 1e-9, "atol": 1e-11}
    plant = opt.immersion(ode, slope, lam)
    start = opt.Plant(jnp.ones(2), jnp.array([0.3, -0.2]))
    sol = rf.solve_ode(plant, start, (0.0, 3.0), **tight)
    other = ode.flow(slope, lam).solve(start.x, 3.0, velocity=start.xi, **tight)
    np.testing.assert_allclose(sol.ys.x[-1], other.ys.x[-1], rtol=1e-7)
    # The state psi of the flow is the passive output.
    end = jax.tree.map(lambda leaf: leaf[-1], sol.ys)
    np.testing.assert_allclose(plant.passive_output(end), other.ys.psi[-1], rtol=1e-6)
    # A tangent vector splits into its parts, and only one of them is seen by d psi.
    tangent = opt.Plant(jnp.array([1.0, 2.0]), jnp.array([-1.0, 0.5]))
    level, vertical = plant.split(end, tangent)
    np.testing.assert_allclose(level.xi + vertical.xi, tangent.xi, rtol=1e-12)
    seen = jax.jvp(plant.passive_output, (end,), (level,))[1]
    np.testing.assert_allclose(seen, 0.0, atol=1e-12)
    # Without a drive S falls as exp(-2 a t), and the rates are a and b lambda.
    pure = opt.Equation(ode.a, ode.b, ode.a * ode.b)
    np.testing.assert_allclose(np.sort(np.real(pure.modes(0.25))), [ode.b * 0.25, ode.a])
    plain = opt.immersion(pure, slope, lam)
    sol = rf.solve_ode(plain, start, (0.0, 3.0), **tight)
    storage = plain.storage(jax.tree.map(lambda leaf: leaf[-1], sol.ys))
    np.testing.assert_allclose(storage, plain.storage(start) * np.exp(-6 * ode.a), rtol=1e-6)
    assert np.real(ode.modes(0.25)[0]) > 9 * ode.b * 0.25


def test_the_monitor_balances_the_storage_and_says_when_a_run_leaves_the_slow_manifold():
    lam = jnp.array([0.02, 0.2])
    flow = opt.Equation(2.0, 0.3, 1.0).flow(slope, lam)
    ts = jnp.linspace(0.0, 6.0, 601)
    sol = flow.solve(jnp.ones(2), 6.0, saveat=ts, rtol=1e-9, atol=1e-11)
    report = opt.monitor(flow, sol)
    change = np.gradient(np.asarray(report.storage), 0.01)
    balance = -2 * 2.0 * report.storage + report.supplied
    np.testing.assert_allclose(change[1:-1], balance[1:-1], atol=1e-3)
    # From rest it is off the manifold, falls onto it at the rate a, and stays.
    assert not report.inside[0] and report.inside[-1] and int(report.left) == -1
    assert 0 < int(report.entered) < 300 and report.departure[-1] < 0.05
    # A heavy ball that oscillates comes by and leaves again.
    method = opt.heavy_ball(mu=0.02, step=0.04)
    run = opt.descend(method, lambda x: 4.0 * x, jnp.ones(1), steps=60)
    loose = opt.monitor(method.flow(lambda x: 4.0 * x), run, threshold=1.0)
    assert int(loose.left) > int(loose.entered) >= 0


def test_equations_refuse_what_does_not_fit():
    flow = opt.equations.nesterov_low(1.0).flow(slope, 1.0)
    run = opt.descend(opt.nesterov(mu=1.0, L=2.0), slope, jnp.ones(1), 1.0, steps=3)
    for call, message in (
        (lambda: opt.Equation(float("nan"), 0.0, 1.0), "a must be finite"),
        (lambda: opt.Equation(1.0, 0.0, 1.0, step=0.0), "step must be positive"),
        (lambda: opt.from_equation(-1.0, 0.0, 1.0, step=0.1), "a must be at least zero"),
        (lambda: opt.from_equation(1.0, 0.0, 0.0, step=0.1), "c must be positive"),
        (lambda: opt.from_modes((1.0,), at=1.0), "two rates"),
        (lambda: opt.equations.nesterov_low(0.0), "nesterov_convex"),
        (lambda: flow.follow(run), "no step"),
        (lambda: flow.start(1.0, "natural"), "step"),
        (lambda: flow.start(1.0, "fast"), "velocity"),
        (lambda: opt.equations.nesterov_convex_low().modes(1.0), "do not depend on time"),
        (lambda: opt.Equation(1.0, 0.0, 1.0).slow_operator(jnp.ones((2, 3))), "square"),
        (lambda: opt.Equation(1.0, 0.0, 1.0).slow_operator([[1.0, 2.0], [0.0, 1.0]]), "symmetric"),
        (lambda: opt.slow_velocity(flow, 1.0, order=2), "order"),
        (lambda: opt.monitor(flow, 3.0), "Solution or a Run"),
        (lambda: opt.nesterov(mu=1.0, L=2.0).equation("medium"), "resolution"),
    ):
        with pytest.raises(InputError, match=message):
            call()
