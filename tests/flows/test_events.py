"""Events and stops: times, states, jumps, and their derivatives against closed forms."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf

G = 9.81
TIGHT = dict(rtol=1e-10, atol=1e-10)


def fall(t, y, args):
    return jnp.stack([y[1], -G * jnp.ones_like(y[1])])


def ground(t, y, args):
    return y[0]


def landing(height, **options):
    start = jnp.stack([height, jnp.zeros_like(height)])
    return rf.solve_ode(fall, start, (0.0, 10.0), event=rf.Event(ground), **TIGHT, **options)


ADJOINTS = [
    rf.DiscreteAdjoint(),
    rf.CheckpointAdjoint(),
    rf.BacksolveAdjoint(),
    rf.InterpolatingAdjoint(),
]


def test_time_and_state_of_a_terminal_event():
    sol = landing(jnp.array(2.0))
    assert sol.result == rf.Result.event_occurred and sol.event == 0
    np.testing.assert_allclose(sol.ts[-1], np.sqrt(4 / G), rtol=1e-12)
    np.testing.assert_allclose(sol.ys[-1], [0.0, -np.sqrt(4 * G)], atol=1e-11)


@pytest.mark.parametrize("adjoint", ADJOINTS, ids=lambda a: type(a).__name__)
def test_derivative_of_time_and_state_with_every_adjoint(adjoint):
    def time_and_speed(height):
        sol = landing(height, adjoint=adjoint)
        return jnp.stack([sol.ts[-1], sol.ys[-1, 1]])

    jacobian = jax.jacrev(time_and_speed)(jnp.array(2.0))
    np.testing.assert_allclose(jacobian, [0.5 * np.sqrt(1 / G), -np.sqrt(G / 4)], rtol=1e-8)


def test_forward_mode_second_order_and_batches():
    def time(height):
        return landing(height).ts[-1]

    heights = jnp.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(jax.vmap(time)(heights), np.sqrt(2 * heights / G), rtol=1e-12)
    first = 0.5 * np.sqrt(2 / G) * np.asarray(heights) ** -0.5
    np.testing.assert_allclose(jax.vmap(jax.grad(time))(heights), first, rtol=1e-10)
    np.testing.assert_allclose(jax.vmap(jax.jacfwd(time))(heights), first, rtol=1e-10)
    second = -0.25 * np.sqrt(2 / G) * 2.0**-1.5
    np.testing.assert_allclose(jax.grad(jax.grad(time))(2.0), second, rtol=1e-9)


def bounce(height, restitution, **options):
    event = rf.Event(
        ground, direction=-1, terminal=False,
        jump=lambda t, y, e: jnp.stack([jnp.zeros_like(y[0]), -e * y[1]]),
    )  # fmt: skip
    start = jnp.stack([height, jnp.zeros_like(height)])
    return rf.solve_ode(fall, start, (0.0, 3.0), restitution, event=event, **TIGHT, **options)


def bounced(height, restitution):
    """Times of the bounces before t = 3, and the height then."""
    time, speed = np.sqrt(2 * height / G), restitution * np.sqrt(2 * G * height)
    times = [time]
    while time + 2 * speed / G < 3.0:
        time, speed = time + 2 * speed / G, restitution * speed
        times.append(time)
    return times, speed * (3.0 - times[-1]) - 0.5 * G * (3.0 - times[-1]) ** 2


def test_bouncing_ball_and_its_derivatives():
    at = (jnp.array(2.0), jnp.array(0.8))
    sol = bounce(*at, max_events=5)
    times, height = bounced(2.0, 0.8)
    assert int(sol.events.count) == len(times) == 3
    np.testing.assert_allclose(sol.events.ts[:3], times, rtol=1e-10)
    assert np.isnan(sol.events.ts[3:]).all() and (sol.events.which[3:] == -1).all()
    np.testing.assert_allclose(sol.events.ys[:3, 0], 0.0, atol=1e-10)
    np.testing.assert_allclose(sol.ys[-1, 0], height, rtol=1e-8)
    assert sol.result == rf.Result.success

    eps = 1e-6
    expected = (
        (bounced(2 + eps, 0.8)[1] - bounced(2 - eps, 0.8)[1]) / (2 * eps),
        (bounced(2, 0.8 + eps)[1] - bounced(2, 0.8 - eps)[1]) / (2 * eps),
    )

    def final(height, restitution):
        return bounce(height, restitution).ys[-1, 0]

    gradient = jax.grad(final, (0, 1))(*at)
    np.testing.assert_allclose(gradient, expected, rtol=1e-7)
    np.testing.assert_allclose(gradient, jax.jacfwd(final, (0, 1))(*at), rtol=1e-11)

    def third(height):
        return bounce(height, at[1], max_events=5).events.ts[2]

    slope = (bounced(2 + eps, 0.8)[0][2] - bounced(2 - eps, 0.8)[0][2]) / (2 * eps)
    np.testing.assert_allclose(jax.grad(third)(at[0]), slope, rtol=1e-7)


def test_saved_times_and_dense_output_follow_the_bounces():
    ts = jnp.linspace(0.0, 3.0, 301)
    at = (jnp.array(2.0), jnp.array(0.8))
    first, _ = bounced(2.0, 0.8)
    fallen = np.asarray(ts) < first[0]
    expected = 2.0 - 0.5 * G * np.asarray(ts)[fallen] ** 2
    for options in (dict(saveat=ts[:200]), dict(saveat=ts), dict(saveat=ts, max_events=4)):
        saved = bounce(*at, **options).ys[:, 0]
        np.testing.assert_allclose(saved[: fallen.sum()], expected, atol=1e-9)
        assert (saved > -1e-9).all()
    dense = bounce(*at, saveat="dense")(ts)[:, 0]
    np.testing.assert_allclose(dense[1:], bounce(*at, saveat=ts).ys[1:, 0], atol=2e-9)


def test_times_after_a_terminal_event_hold_nan():
    ts = jnp.linspace(0.0, 2.0, 9)
    sol = landing(jnp.array(2.0), saveat=ts)
    reached = np.asarray(ts) <= np.sqrt(4 / G)
    assert np.isfinite(sol.ys[reached]).all() and np.isnan(sol.ys[~reached]).all()


def test_direction_and_the_first_of_several():
    circle = lambda t, y, a: jnp.stack([-y[1], y[0]])
    start = jnp.array([1.0, 0.0])

    def first(*events):
        sol = rf.solve_ode(circle, start, (0.0, 10.0), event=list(events), **TIGHT)
        return int(sol.event), float(sol.ts[-1])

    x = lambda t, y, a: y[0]
    assert first(rf.Event(x, direction=-1)) == (0, pytest.approx(np.pi / 2, rel=1e-9))
    assert first(rf.Event(x, direction=1)) == (0, pytest.approx(3 * np.pi / 2, rel=1e-9))
    y = rf.Event(lambda t, y, a: y[1] - 0.5)
    assert first(rf.Event(x), y) == (1, pytest.approx(np.pi / 6, rel=1e-9))
    # A condition that is zero at the start is not an event there.
    assert first(rf.Event(lambda t, y, a: y[1])) == (0, pytest.approx(np.pi, rel=1e-9))


def test_events_that_only_count():
    circle = lambda t, y, a: jnp.stack([-y[1], y[0]])
    sol = rf.solve_ode(
        circle, jnp.array([1.0, 0.0]), (0.0, 10.0), max_events=8, **TIGHT,
        event=rf.Event(lambda t, y, a: y[0], terminal=False),
    )  # fmt: skip
    np.testing.assert_allclose(sol.events.ts[:3], np.pi * np.array([0.5, 1.5, 2.5]), rtol=1e-9)
    np.testing.assert_allclose(sol.ys[-1], [np.cos(10.0), np.sin(10.0)], atol=1e-8)


def test_event_with_a_stiff_method_and_with_switching():
    relax = lambda t, y, a: -1000.0 * (y - jnp.cos(t)) - jnp.sin(t)
    event = rf.Event(lambda t, y, a: y - 0.5)
    for method in (rf.Rodas5P(), "auto"):
        sol = rf.solve_ode(relax, jnp.array(1.0), (0.0, 3.0), method=method, event=event, **TIGHT)
        np.testing.assert_allclose(sol.ts[-1], np.pi / 3, rtol=1e-8)


def step_at(t, y, a):
    return jnp.where(t >= a, 1.0, 0.0) * jnp.ones_like(y)


def test_a_stop_where_the_vector_field_jumps():
    sol = rf.solve_ode(step_at, jnp.array(0.0), (0.0, 2.0), 0.7, stops=[0.7, 5.0])
    assert int(sol.stats.rejected) == 0
    np.testing.assert_allclose(sol.ys[-1], 1.3, rtol=1e-14)

    def final(a):
        return rf.solve_ode(step_at, jnp.array(0.0), (0.0, 2.0), a, stops=a[None]).ys[-1]

    at = jnp.array(0.7)
    np.testing.assert_allclose([jax.grad(final)(at), jax.jacfwd(final)(at)], -1.0, rtol=1e-12)
    back = rf.solve_ode(step_at, jnp.array(1.3), (2.0, 0.0), 0.7, stops=[0.7])
    np.testing.assert_allclose(back.ys[-1], 0.0, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"event": 3}, "rf.Event"),
        ({"event": [ground]}, "write rf.Event"),
        ({"event": []}, "list of them"),
        ({"max_events": 3}, "without event"),
        ({"event": rf.Event(lambda t, y, a: y)}, "one real number"),
        ({"event": rf.Event(ground, jump=lambda t, y, a: y[0])}, "must return what y0 looks like"),
        ({"stops": [[0.1]]}, "one-dimensional"),
        ({"stops": [float("nan")]}, "finite"),
        ({"controller": 3}, "PIDController"),
        ({"controller": rf.PIDController(), "dt": 0.1}, "nothing to do"),
        (
            {"adjoint": rf.BacksolveAdjoint(), "event": rf.Event(ground, terminal=False)},
            "events that end the solve",
        ),
        ({"adjoint": rf.CheckpointAdjoint(), "saveat": "steps"}, "does not keep the steps"),
        ({"save": 3}, r"save\(t, y, args\)"),
        ({"save": ground, "saveat": "dense"}, "apply the function"),
    ],
)
def test_refused(change, message):
    with pytest.raises(rf.InputError, match=message):
        rf.solve_ode(fall, jnp.array([1.0, 0.0]), (0.0, 1.0), **change)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rf.Event(1.0), "condition must be a function"),
        (lambda: rf.Event(ground, direction=2), "-1, 0 or 1"),
        (lambda: rf.Event(ground, jump=1.0), "jump must be a function"),
        (lambda: rf.PIDController(safety=2.0), "safety"),
        (lambda: rf.PIDController(factor_min=2.0), "factor_min"),
        (lambda: rf.PIDController(icoeff=0.0), "icoeff"),
        (lambda: rf.PIDController(dt_max=-1.0), "dt_max must be positive"),
        (lambda: rf.PIDController(dt_min=1.0, dt_max=0.1), "larger than dt_max"),
        (lambda: rf.CheckpointAdjoint(2), "at least 4"),
        (lambda: rf.ReversibleAdjoint(0.0), "positive"),
        (lambda: rf.AutoSwitch(rf.ReversibleHeun(), rf.Rodas5P()), "cannot take turns"),
        (lambda: rf.AutoSwitch(rf.Euler(), rf.Rodas5P()), "no error estimate"),
    ],
)
def test_options_refused(make, message):
    with pytest.raises(rf.InputError, match=message):
        make()


def test_a_condition_that_is_not_a_number_is_no_silence():
    event = rf.Event(lambda t, y, a: jnp.sqrt(1.0 - y[0]) - 2.0)
    with pytest.raises(rf.SolveError, match="condition of an event is not a number"):
        rf.solve_ode(fall, jnp.array([2.0, 0.0]), (0.0, 0.3), event=event)


def test_step_limits():
    decay = lambda t, y, a: -y
    limited = rf.PIDController(dt_max=0.05)
    sol = rf.solve_ode(decay, jnp.array(1.0), (0.0, 1.0), controller=limited, saveat="steps")
    steps = np.diff(np.concatenate([[0.0], sol.ts[: int(sol.stats.accepted)]]))
    assert steps.max() <= 0.05 * (1 + 1e-6)
    with pytest.raises(rf.SolveError, match="underflow"):
        rf.solve_ode(
            lambda t, y, a: -1e6 * y, jnp.array(1.0), (0.0, 1.0),
            controller=rf.PIDController(dt_min=1e-3),
        )  # fmt: skip


def test_what_is_saved_may_be_a_function_of_the_state():
    ts = jnp.linspace(0.0, 0.3, 4)
    save = lambda t, y, args: {"energy": G * y[0] + 0.5 * y[1] ** 2, "time": t}
    start = jnp.array([2.0, 0.0])
    for saveat in (ts, jnp.linspace(0.0, 0.3, 300), None, "steps"):
        sol = rf.solve_ode(fall, start, (0.0, 0.3), saveat=saveat, save=save, **TIGHT)
        live = np.isfinite(sol.ts)
        np.testing.assert_allclose(sol.ys["energy"][live], 2 * G, rtol=1e-9)
        np.testing.assert_allclose(sol.ys["time"][live], sol.ts[live], rtol=1e-12)


def one(t, y, args):
    return jnp.ones_like(y)


def test_several_events_at_one_time_are_all_handled():
    first = rf.Event(lambda t, y, a: y - 0.5, terminal=False)
    ends = rf.Event(lambda t, y, a: 2 * y - 1)
    sol = rf.solve_ode(one, 0.0, (0.0, 1.0), event=[first, ends], max_events=4)
    assert sol.event == 1 and sol.events.count == 2
    np.testing.assert_allclose(sol.ts[-1], 0.5, rtol=1e-12)
    np.testing.assert_array_equal(sol.events.which, [0, 1, -1, -1])


def test_jumps_at_one_time_follow_one_another():
    """At y = a it is raised by one, then doubled: from (a + 1) 2 it goes on for 1 - a/2."""

    def final(a):
        events = [
            rf.Event(lambda t, y, a: y - a, terminal=False, jump=lambda t, y, a: y + 1),
            rf.Event(lambda t, y, a: 2 * (y - a), terminal=False, jump=lambda t, y, a: 2 * y),
        ]
        return rf.solve_ode(lambda t, y, a: 2.0 + 0 * y, 0.0, (0.0, 1.0), a, event=events).ys[-1]

    value, slope = jax.value_and_grad(final)(0.5)
    np.testing.assert_allclose([value, slope], [4.5, 1.0], rtol=1e-10)
    np.testing.assert_allclose(jax.jacfwd(final)(0.5), 1.0, rtol=1e-10)
    np.testing.assert_allclose(jax.vmap(final)(jnp.array([0.5, 0.7])), [4.5, 4.7], rtol=1e-10)


def test_an_event_beside_a_bounce_sees_every_bounce():
    bounce = rf.Event(ground, -1, False, lambda t, y, a: jnp.stack([y[0], -0.8 * y[1]]))
    count = rf.Event(ground, -1, False)
    sol = rf.solve_ode(fall, jnp.array([1.0, 0.0]), (0.0, 2.0), event=[bounce, count], max_events=8)
    first = np.sqrt(2 / G)
    np.testing.assert_array_equal(sol.events.which, [0, 1, 0, 1, 0, 1, -1, -1])
    bounces = first * np.array([1, 2.6, 3.88])
    np.testing.assert_allclose(sol.events.ts[:6], np.repeat(bounces, 2), rtol=1e-7)


def test_a_condition_that_is_a_step():
    jump = rf.Event(
        lambda t, y, a: jnp.where(t < 0.5, -1.0, 1.0), terminal=False, jump=lambda t, y, a: y + 1
    )
    sol = rf.solve_ode(one, 0.0, (0.0, 1.0), event=jump, max_events=3)
    np.testing.assert_allclose(sol.ys[-1], 2.0, rtol=1e-12)
    assert sol.events.count == 1


def test_an_event_exactly_at_the_end():
    for terminal in (True, False):
        event = rf.Event(lambda t, y, a: t - 1, terminal=terminal)
        sol = rf.solve_ode(one, 0.0, (0.0, 1.0), event=event, max_events=2)
        assert sol.event == (0 if terminal else -1) and sol.events.count == 1
    none = rf.Event(lambda t, y, a: t - 1.1)
    assert rf.solve_ode(one, 0.0, (0.0, 1.0), event=none).event == -1


def test_at_a_stop_the_event_that_happens_there():
    events = [rf.Event(lambda t, y, a: y - 100), rf.Event(lambda t, y, a: t - 1, terminal=False)]
    sol = rf.solve_ode(one, 0.0, (0.0, 2.0), event=events, stops=jnp.array([1.0]), max_events=3)
    assert sol.event == -1 and sol.ts[-1] == 2.0
    np.testing.assert_array_equal(sol.events.which, [1, -1, -1])


@pytest.mark.parametrize("stop", [True, False])
def test_a_field_that_jumps_where_the_event_is(stop):
    field = lambda t, y, c: jnp.where(t < c, 1.0, 0.0) + 0 * y

    def final(c):
        stops = c[None] if stop else None
        event = rf.Event(lambda t, y, c: t - c)
        return rf.solve_ode(field, 0.0, (0.0, 2.0), c, event=event, stops=stops).ys[-1]

    c = jnp.array(0.98)
    np.testing.assert_allclose(final(c), 0.98, rtol=1e-10)
    np.testing.assert_allclose([jax.grad(final)(c), jax.jacfwd(final)(c)], 1.0, rtol=1e-10)


@pytest.mark.parametrize("method", [rf.EulerMaruyama(), rf.Heun()])
def test_a_random_path_ends_on_the_surface(method):
    def off(key):
        noise = rf.BrownianMotion(key, ())
        sol = rf.solve_sde(
            lambda t, y, a: 0 * y, lambda t, y, a: 1 + 0 * y, 0.0, (0.0, 1.0), noise,
            method=method, dt=1 / 16, event=rf.Event(lambda t, y, a: y - 0.3),
        )  # fmt: skip
        return sol.event == 0, sol.ys[-1] - 0.3

    ended, distance = jax.vmap(off)(jax.random.split(jax.random.key(0), 64))
    assert 30 <= ended.sum() <= 62  # 2 (1 - Phi(0.3)) of them: 49
    assert np.abs(np.where(ended, distance, 0)).max() < 1e-6


def test_many_events_have_room_and_a_derivative():
    """cos(sqrt(a) t) passes zero 127 times before t = 400."""

    def solve(a, **options):
        field = lambda t, y, a: jnp.stack([y[1], -a * y[0]])
        event = rf.Event(lambda t, y, a: y[0], terminal=False)
        return rf.solve_ode(
            field, jnp.array([1.0, 0.0]), (0.0, 400.0), a, event=event, max_steps=8192, **options
        )

    sol = solve(1.0, max_events=130)
    assert sol.result == rf.Result.success and sol.events.count == 127
    slope = jax.grad(lambda a: solve(a).ys[-1, 0])(1.0)
    np.testing.assert_allclose(slope, -200 * np.sin(400.0), rtol=1e-3)


def test_a_record_without_room_says_so():
    event = rf.Event(lambda t, y, a: jnp.sin(40 * t), terminal=False)

    def solve(most):
        return rf.solve_ode(
            one,
            0.0,
            (0.0, 100.0),
            event=event,
            max_events=most,
            dt=0.05,
            max_steps=4096,
            throw=False,
        )

    assert solve(4).result == rf.Result.record_full
    assert solve(1300).result == rf.Result.success
    with pytest.raises(rf.InputError, match="max_events"):
        rf.solve_ode(one, 0.0, (0.0, 1.0), max_events=4)


def test_events_a_few_roundings_apart_happen_once_each():
    """Each is located a few roundings before its zero, where the other still has its old sign."""

    def field(t, y, args):
        return -0.3 * y

    def tripled(t, y, args):
        return 3 * y

    def end(times, span, jumps):
        events = [
            rf.Event(lambda t, y, p, i=i: t - p[i], terminal=False, jump=jump)
            for i, jump in enumerate(jumps)
        ]
        sol = rf.solve_ode(
            field, jnp.ones((), times.dtype), span, times, event=events, max_events=6,
            max_steps=200, throw=False,
        )  # fmt: skip
        return sol.ys[-1], sol.events.count, sol.result

    apart = np.array([0, 1, 2, 4, 16, 64, 256, 4096])
    for dtype in (np.float64, np.float32):
        first = np.asarray(0.7, dtype)
        second = (first + apart * np.spacing(first)).astype(dtype)
        pairs = np.stack([np.full_like(second, first), second], 1)
        times = jnp.asarray(np.concatenate([pairs, pairs[:, ::-1]]))
        for span, decay in (((0.0, 2.0), -0.6), ((2.0, 0.0), 0.6)):
            for jumps in ((tripled, tripled), (tripled, None), (None, None)):
                solve = jax.jit(jax.vmap(partial(end, span=span, jumps=jumps)))
                ys, counts, results = solve(times)
                np.testing.assert_array_equal(results, 0)
                np.testing.assert_array_equal(counts, 2)
                factor = 3.0 ** sum(jump is not None for jump in jumps)
                np.testing.assert_allclose(ys, factor * np.exp(decay), rtol=1e-3)
