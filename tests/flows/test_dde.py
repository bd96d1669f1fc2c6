"""`rf.solve_dde`: delay equations with known solutions, their derivatives, and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf


def minus_past(t, y, delayed, rate):
    return -rate * delayed[0]


def one(t):
    return jnp.array(1.0)


def exact(t, rate, delay):
    """y' = -r y(t - d), y = 1 before: the sum of (-r)^k (t - (k - 1) d)^k / k! over its terms."""
    terms = [1.0]
    k = 1
    factorial = 1.0
    while t - (k - 1) * delay > 0:
        factorial *= k
        terms.append((-rate) ** k * (t - (k - 1) * delay) ** k / factorial)
        k += 1
    return sum(terms)


@pytest.mark.parametrize("method", [rf.Tsit5(), rf.Rodas5P()])
def test_piecewise_polynomial(method):
    ts = jnp.array([0.5, 1.0, 2.0, 3.0, 4.75])
    sol = rf.solve_dde(
        minus_past, one, (1.0,), (0.0, 5.0), 0.8, saveat=ts, method=method, rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(sol.ys, [exact(float(t), 0.8, 1.0) for t in ts], atol=2e-8)


def test_the_order_is_not_spoilt_by_the_jumps_in_the_derivatives():
    errors = []
    for n in (4, 8, 16):
        sol = rf.solve_dde(
            lambda t, y, d, a: -d[0] * jnp.cos(y), one, (1.0,), (0.0, 3.0), dt=1.0 / n, max_steps=64
        )
        errors.append(sol.ys[-1])
    differences = np.abs(np.diff(errors))
    assert np.log2(differences[0] / differences[1]) > 4.2


def test_derivatives_in_the_rate_the_delay_and_the_history():
    def final(rate, delay, level):
        sol = rf.solve_dde(
            minus_past, lambda t: level * jnp.ones(()), (delay,), (0.0, 2.5), rate,
            rtol=1e-10, atol=1e-10, max_steps=256,
        )  # fmt: skip
        return sol.ys[-1]

    at = (0.8, 1.0, 1.0)
    gradient = jax.grad(final, (0, 1, 2))(*at)
    eps = 1e-6
    expected = (
        (exact(2.5, 0.8 + eps, 1.0) - exact(2.5, 0.8 - eps, 1.0)) / (2 * eps),
        (exact(2.5, 0.8, 1.0 + eps) - exact(2.5, 0.8, 1.0 - eps)) / (2 * eps),
        exact(2.5, 0.8, 1.0),
    )
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)
    forward = [jax.jacfwd(final, i)(*at) for i in range(3)]
    np.testing.assert_allclose(gradient, forward, rtol=1e-11)


def test_delay_that_depends_on_the_state():
    # y' = y(t - (1 + y^2 / 10))... with a history that makes it exp: constructed from y = exp(-t).
    def delay(t, y, args):
        return 0.5 + 0.1 * y**2

    def field(t, y, delayed, args):
        d = 0.5 + 0.1 * jnp.exp(-2 * t)
        return -delayed[0] * jnp.exp(-d)

    sol = rf.solve_dde(
        field, lambda t: jnp.exp(-t), (delay,), (0.0, 3.0), rtol=1e-9, atol=1e-9,
        saveat=[1.0, 3.0], max_steps=256,
    )  # fmt: skip
    np.testing.assert_allclose(sol.ys, np.exp([-1.0, -3.0]), rtol=1e-6)


def test_two_delays_a_pytree_and_a_reversed_span():
    # x' = y(t - 1), y' = -x(t - pi / 2 + ...): with y = cos, x = sin shifted so that all is exact.
    def field(t, s, delayed, args):
        first, second = delayed
        return {
            "x": jnp.cos(1.0) * first["x"] - jnp.sin(1.0) * first["y"] + 2 * s["y"] - s["y"],
            "y": -(jnp.cos(2.0) * second["x"] + jnp.sin(2.0) * second["y"]) - s["x"] + s["x"],
        }

    # With x = sin t, y = cos t: sin(t - 1) cos 1 - cos(t - 1) sin 1 = sin(t - 2), and
    # sin(t - 2) cos 2 + cos(t - 2) sin 2 = sin t.
    def exact_field(t, s, delayed, args):
        out = field(t, s, delayed, args)
        return {"x": out["x"] - jnp.sin(t - 2.0), "y": out["y"]}

    def history(t):
        return {"x": jnp.sin(t), "y": jnp.cos(t)}

    sol = rf.solve_dde(
        exact_field, history, (1.0, 2.0), (0.0, 4.0), rtol=1e-9, atol=1e-9, max_steps=256
    )
    np.testing.assert_allclose(sol.ys["x"][-1], np.sin(4.0), atol=1e-6)
    np.testing.assert_allclose(sol.ys["y"][-1], np.cos(4.0), atol=1e-6)

    back = rf.solve_dde(
        lambda t, y, d, a: d[0] * jnp.exp(-1.0), lambda t: jnp.exp(t), (1.0,), (0.0, -3.0),
        rtol=1e-9, atol=1e-9, max_steps=256,
    )  # fmt: skip
    # Backwards the delayed time is t + 1: y' = y(t + 1) / e has the solution exp(t).
    np.testing.assert_allclose(back.ys[-1], np.exp(-3.0), rtol=1e-7)


def test_batch_and_event():
    def first_zero(rate):
        sol = rf.solve_dde(
            minus_past, one, (1.0,), (0.0, 5.0), rate, rtol=1e-9, atol=1e-9, max_steps=128,
            event=rf.Event(lambda t, y, a: y),
        )  # fmt: skip
        return sol.ts[-1]

    rates = jnp.array([1.0, 1.25])
    # Within the first delay y = 1 - r t, so that y = 0 at 1 / r.
    np.testing.assert_allclose(jax.vmap(first_zero)(rates), 1 / rates, rtol=1e-8)
    np.testing.assert_allclose(jax.grad(first_zero)(1.25), -1 / 1.25**2, rtol=1e-8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"delays": ()}, "rf.solve_ode"),
        ({"delays": 1.0}, "sequence"),
        ({"delays": (0.0,)}, "must be positive"),
        ({"delays": (-1.0,)}, "must be positive"),
        ({"delays": (jnp.ones(2),)}, "one positive number"),
        ({"history": 1.0}, r"history\(t\)"),
        ({"history": lambda t: jnp.ones((), complex)}, "real states"),
        ({"f": lambda t, y, d, a: jnp.ones(3)}, "must return what y0 looks like"),
        ({"method": "auto"}, "one method"),
        ({"method": rf.Tsit5}, r"write Tsit5\(\)"),
        ({"method": rf.ReversibleHeun()}, "more than the state"),
    ],
)
def test_refused(change, message):
    call = dict(f=minus_past, history=one, delays=(1.0,), span=(0.0, 2.0), args=1.0) | change
    with pytest.raises(rf.InputError, match=message):
        rf.solve_dde(**call)


def test_a_delay_has_no_derivative_where_a_jump_comes_back():
    """The jump returns after the delay, at a time that is no end of a step: refused."""
    event = rf.Event(lambda t, y, a: t - 0.5, terminal=False, jump=lambda t, y, a: y + 1)

    def final(delay, rate):
        return rf.solve_dde(minus_past, one, (delay,), (0.0, 1.2), rate, event=event).ys[-1]

    with pytest.raises(rf.DerivativeError, match="constant delay"):
        jax.grad(final)(1.0, 1.0)
    # y = 1 - r t, raised by one at 1/2, until 1; then y' = -r (1 - r (t - 1)).
    exact = lambda r: 2 - r * 1.2 + r**2 * 0.2**2 / 2
    value, slope = jax.value_and_grad(final, 1)(1.0, 1.0)
    np.testing.assert_allclose([value, slope], [exact(1.0), -1.2 + 0.04], rtol=1e-5)


def test_only_the_events_that_were_asked_for_are_listed():
    """A lag that depends on the state watches for its own first look back."""
    lag = lambda t, y, a: 1.0 + 0 * y
    event = rf.Event(lambda t, y, a: t - 1.5, terminal=False)
    sol = rf.solve_dde(
        minus_past, one, (lag,), (0.0, 2.0), 1.0, event=event, max_events=4, max_steps=128
    )
    assert sol.events.count == 1
    np.testing.assert_array_equal(sol.events.which, [0, -1, -1, -1])
    np.testing.assert_allclose(sol.events.ts[0], 1.5, rtol=1e-9)


def test_a_jump_whose_time_moves_is_refused_when_differentiated():
    """y grows at the rate a, jumps by a, and z grows as y did one unit of time ago."""

    def end(a, y0, condition):
        field = lambda t, y, past, a: jnp.stack([a, past[0][0]])
        jump = lambda t, y, a: y + jnp.stack([a, 0.0])
        event = rf.Event(condition, terminal=False, jump=jump)
        start = lambda t: jnp.stack([y0, 0.0])
        sol = rf.solve_dde(field, start, [1.0], (0.0, 2.5), a, event=event)
        return sol.ys[-1][1]

    # At a fixed time: z = (1.5**2 / 2 + 1) a.
    fixed = lambda t, y, a: t - 0.5
    value, slope = jax.value_and_grad(lambda a: end(a, 0.0, fixed))(2.0)
    np.testing.assert_allclose((value, slope), (2.125 * 2.0, 2.125), rtol=1e-5)
    moving = {
        "state": lambda t, y, a: y[0] - 0.5,
        "args": lambda t, y, a: a * t - 0.5,
    }
    for name, condition in moving.items():
        assert np.isfinite(end(1.0, 0.0, condition)), name
        for derivative in (jax.grad, jax.jacfwd):
            with pytest.raises(rf.errors.DerivativeError, match="time that depends on the state"):
                derivative(lambda a, c=condition: end(a, 0.0, c))(1.0)
    closed = lambda a: end(1.0, 0.0, lambda t, y, _: a * t - 0.5)
    with pytest.raises(rf.errors.DerivativeError, match="time that depends on the state"):
        jax.grad(closed)(1.0)
    with pytest.raises(rf.errors.DerivativeError, match="time that depends on the state"):
        jax.jit(jax.grad(lambda y0: end(1.0, y0, moving["state"])))(0.0)
