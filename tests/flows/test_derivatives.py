"""Derivatives of a solve: closed forms, finite differences, all modes and their compositions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow.ground import replay

TIGHT = {"rtol": 1e-10, "atol": 1e-10}


def decay(t, y, rate):
    return -rate * y


def final(rate, **options):
    return rf.solve_ode(decay, jnp.array(1.0), (0.0, 2.0), rate, **TIGHT, **options).ys[-1]


def lotka_volterra(t, y, p):
    return jnp.stack([p[0] * y[0] - p[1] * y[0] * y[1], p[3] * y[0] * y[1] - p[2] * y[1]])


P = jnp.array([0.55, 0.028, 0.84, 0.026])
Y0 = jnp.array([33.0, 6.0])


def test_closed_form_in_every_mode():
    exact = -2 * np.exp(-1.4)
    np.testing.assert_allclose(jax.grad(final)(0.7), exact, rtol=1e-8)
    np.testing.assert_allclose(jax.jvp(final, (0.7,), (1.0,))[1], exact, rtol=1e-8)
    np.testing.assert_allclose(jax.jit(jax.grad(final))(0.7), exact, rtol=1e-8)


@pytest.mark.parametrize(
    "outer", [jax.grad, jax.jacfwd, jax.jacrev], ids=["grad", "jacfwd", "jacrev"]
)
@pytest.mark.parametrize("inner", [jax.grad, jax.jacfwd], ids=["grad", "jacfwd"])
def test_second_derivatives(outer, inner):
    np.testing.assert_allclose(outer(inner(final))(0.7), 4 * np.exp(-1.4), rtol=1e-7)


def test_third_derivative():
    third = jax.grad(jax.grad(jax.grad(final)))(0.7)
    np.testing.assert_allclose(third, -8 * np.exp(-1.4), rtol=1e-6)


def test_derivatives_by_the_ends_of_the_span():
    def between(t0, t1):
        return rf.solve_ode(decay, jnp.array(1.0), (t0, t1), 1.5, **TIGHT).ys[-1]

    by_t0, by_t1 = jax.grad(between, (0, 1))(0.25, 1.0)
    value = np.exp(-1.5 * 0.75)
    np.testing.assert_allclose([by_t0, by_t1], [1.5 * value, -1.5 * value], rtol=1e-8)


@pytest.mark.parametrize("count", [5, 300])
def test_derivative_by_the_saved_times(count):
    ts = jnp.linspace(0.0, 1.0, count)

    def saved(ts):
        return rf.solve_ode(decay, jnp.array(1.0), (0.0, 1.0), 1.0, saveat=ts, **TIGHT).ys

    slope = jax.jvp(saved, (ts,), (jnp.ones_like(ts),))[1]
    np.testing.assert_allclose(slope, -np.exp(-ts), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda s: saved(s).sum())(ts), -np.exp(-ts), rtol=1e-6)


@pytest.mark.parametrize("saveat", [None, "dense", (3.0, 20.0, 11.5)])
def test_forward_is_reverse_to_round_off_and_both_are_finite_differences(saveat):
    saveat = jnp.array(saveat) if isinstance(saveat, tuple) else saveat

    def value(p, y0):
        sol = rf.solve_ode(lotka_volterra, y0, (0.0, 20.0), p, saveat=saveat, **TIGHT)
        return sol(jnp.array([2.0, 19.0])) if saveat == "dense" else sol.ys

    forward = jax.jacfwd(value, (0, 1))(P, Y0)
    backward = jax.jacrev(value, (0, 1))(P, Y0)
    for a, b in zip(forward, backward, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
    for i in range(4):
        step = 1e-5 * P[i]
        up, down = value(P.at[i].add(step), Y0), value(P.at[i].add(-step), Y0)
        np.testing.assert_allclose(forward[0][..., i], (up - down) / (2 * step), rtol=2e-4)


def test_derivative_is_exactly_that_of_the_steps_taken():
    """With the accepted steps held fixed, the derivative matches that of a plain Python loop."""
    tableau = rf.Tsit5()

    def adaptive(p):
        return rf.solve_ode(lotka_volterra, Y0, (0.0, 5.0), p, rtol=1e-3, atol=1e-3).ys[-1]

    steps = rf.solve_ode(lotka_volterra, Y0, (0.0, 5.0), P, rtol=1e-3, atol=1e-3, saveat="steps")
    n = int(steps.stats.accepted)
    ts = np.concatenate([[0.0], np.asarray(steps.ts[:n])])

    def replayed(p):
        y = Y0
        for t, h in zip(ts[:-1], np.diff(ts), strict=True):
            stages = []
            rows = [np.zeros(0), *tableau.matrix]
            for node, row in zip(tableau.nodes, rows, strict=True):
                at = y + h * sum((a * k for a, k in zip(row, stages, strict=True)), 0.0)
                stages.append(lotka_volterra(t + node * h, at, p))
            y = at
        return y

    np.testing.assert_allclose(adaptive(P), replayed(P), rtol=1e-12)
    np.testing.assert_allclose(jax.jacrev(adaptive)(P), jax.jacrev(replayed)(P), rtol=1e-10)
    np.testing.assert_allclose(jax.jacfwd(adaptive)(P), jax.jacfwd(replayed)(P), rtol=1e-10)


def test_both_ways_through_the_blocks_agree(monkeypatch):
    """Jacobians formed together, and products one after the other, are the same derivative."""

    def loss(p, y0):
        return jnp.sum(rf.solve_ode(lotka_volterra, y0, (0.0, 9.0), p).ys ** 2)

    together = jax.grad(loss, (0, 1))(P, Y0)
    monkeypatch.setattr(replay, "SMALL", 0)
    jax.clear_caches()
    in_turn = jax.grad(loss, (0, 1))(P, Y0)
    for a, b in zip(together, in_turn, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


def test_gradient_of_a_batch_is_the_batch_of_gradients():
    rates = jnp.array([0.1, 0.7, 2.0, 30.0])
    exact = -2 * np.exp(-2 * rates)
    np.testing.assert_allclose(jax.vmap(jax.grad(final))(rates), exact, rtol=1e-6, atol=1e-9)
    total = jax.grad(lambda r: jnp.sum(jax.vmap(final)(r)))(rates)
    np.testing.assert_allclose(total, exact, rtol=1e-6, atol=1e-9)
    pushed = jax.vmap(lambda r: jax.jvp(final, (r,), (1.0,))[1])(rates)
    np.testing.assert_allclose(pushed, exact, rtol=1e-6, atol=1e-9)
    hessian = jax.vmap(jax.hessian(final))(rates[:3])
    np.testing.assert_allclose(hessian, 4 * np.exp(-2 * rates[:3]), rtol=1e-6)


def test_gradients_under_nested_batches():
    rates, times = jnp.array([0.1, 0.7, 2.0]), jnp.array([1.0, 2.0])

    def at(rate, t1):
        return rf.solve_ode(decay, jnp.array(1.0), (0.0, t1), rate, **TIGHT).ys[-1]

    one = jax.value_and_grad(at)
    value, slope = jax.vmap(lambda r: jax.vmap(lambda t: one(r, t))(times))(rates)
    product = np.asarray(rates)[:, None] * np.asarray(times)
    np.testing.assert_allclose(value, np.exp(-product), rtol=1e-8)
    np.testing.assert_allclose(slope, -np.asarray(times) * np.exp(-product), rtol=1e-7)


def test_closed_over_arrays_have_a_derivative():
    def loss(rate):
        field = lambda t, y, args: -rate * y
        return rf.solve_ode(field, jnp.array(1.0), (0.0, 2.0), **TIGHT).ys[-1]

    for transform in (jax.grad, lambda g: jax.jit(jax.grad(g)), jax.jacfwd):
        np.testing.assert_allclose(transform(loss)(0.7), -2 * np.exp(-1.4), rtol=1e-8)
    batch = jax.vmap(jax.grad(loss))(jnp.array([0.7, 0.1]))
    np.testing.assert_allclose(batch, -2 * np.exp([-1.4, -0.2]), rtol=1e-8)


def test_integers_and_keys_among_the_arguments():
    def field(t, y, args):
        return -args["rate"][args["which"]] * y

    def loss(rate):
        args = {"rate": rate, "which": jnp.array(1), "name": "unused", "key": jax.random.key(0)}
        return rf.solve_ode(field, jnp.array(1.0), (0.0, 2.0), args, **TIGHT).ys[-1]

    np.testing.assert_allclose(
        jax.grad(loss)(jnp.array([5.0, 0.7])), [0.0, -2 * np.exp(-1.4)], rtol=1e-8
    )


def test_heuristics_are_differentiable():
    def stiffness(rate):
        return rf.solve_ode(decay, jnp.array(1.0), (0.0, 2.0), rate).heuristics.stiffness

    np.testing.assert_allclose(jax.grad(stiffness)(7.0), 2.0, rtol=1e-9)
    np.testing.assert_allclose(jax.jacfwd(stiffness)(7.0), 2.0, rtol=1e-9)

    def error(rate):  # with fixed steps, so that finite differences see the same steps
        return rf.solve_ode(decay, jnp.array(1.0), (0.0, 1.0), rate, dt=0.1).heuristics.error

    slope = (error(3.0 + 1e-5) - error(3.0 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(error)(3.0), slope, rtol=1e-5)


def test_derivative_does_not_depend_on_the_room_for_steps():
    few, many = jax.grad(final)(0.7), jax.grad(lambda r: final(r, max_steps=200))(0.7)
    assert few == many


@pytest.mark.parametrize("saveat", [None, (0.5, 2.0, 0.0)])
def test_forward_adjoint_is_the_same_derivative(saveat):
    def value(rate, adjoint):
        at = None if saveat is None else jnp.array(saveat)
        field = lambda t, y, a: -a * y
        return rf.solve_ode(
            field, jnp.array(1.0), (0.0, 2.0), rate, saveat=at, adjoint=adjoint, **TIGHT
        ).ys

    stored = jax.jacfwd(lambda r: value(r, rf.DiscreteAdjoint()))(0.7)
    carried = jax.jacfwd(lambda r: value(r, rf.ForwardAdjoint()))(0.7)
    np.testing.assert_allclose(carried, stored, rtol=1e-12)
    batched = jax.vmap(jax.jacfwd(lambda r: value(r, rf.ForwardAdjoint())))(jnp.array([0.7, 3.0]))
    np.testing.assert_allclose(batched[0], stored, rtol=1e-10)


def test_forward_adjoint_by_the_span():
    def between(t0, t1):
        sol = rf.solve_ode(
            decay, jnp.array(1.0), (t0, t1), 1.5, adjoint=rf.ForwardAdjoint(), **TIGHT
        )
        return sol.ys[-1]

    value = np.exp(-1.5 * 0.75)
    by_t0, by_t1 = jax.jacfwd(between, (0, 1))(0.25, 1.0)
    np.testing.assert_allclose([by_t0, by_t1], [1.5 * value, -1.5 * value], rtol=1e-8)


def test_many_parameters_take_the_other_way():
    """A small network as the vector field: more inputs than Jacobians are formed for."""
    keys = jax.random.split(jax.random.key(0), 2)
    weights = {
        "a": jax.random.normal(keys[0], (8, 3)) * 0.5,
        "b": jax.random.normal(keys[1], (3, 8)) * 0.5,
    }

    def field(t, y, w):
        return w["b"] @ jnp.tanh(w["a"] @ y)

    def loss(w):
        return jnp.sum(rf.solve_ode(field, jnp.arange(3.0), (0.0, 2.0), w, **TIGHT).ys ** 2)

    gradient = jax.grad(loss)(weights)
    direction = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size)).reshape(x.shape), weights)
    step = lambda e: jax.tree.map(lambda w, d: w + e * d, weights, direction)
    slope = (loss(step(1e-5)) - loss(step(-1e-5))) / 2e-5
    total = sum(jnp.sum(a * b) for a, b in zip(*map(jax.tree.leaves, (gradient, direction))))
    np.testing.assert_allclose(total, slope, rtol=1e-6)
    np.testing.assert_allclose(jax.jvp(loss, (weights,), (direction,))[1], total, rtol=1e-9)


@pytest.mark.parametrize(
    ("adjoint", "method"),
    [
        (rf.DiscreteAdjoint(), rf.Tsit5()),
        (rf.DiscreteAdjoint(), rf.Rodas5P()),
        (rf.CheckpointAdjoint(), rf.Tsit5()),
        (rf.ForwardAdjoint(), rf.Tsit5()),
        (rf.ReversibleAdjoint(), rf.Reversible(rf.Tsit5())),
        (rf.BacksolveAdjoint(), rf.Tsit5()),
    ],
)
def test_the_ends_of_a_span_of_no_length_move_the_state(adjoint, method):
    """y(t1) = y + f (t1 - t0) + ...: the derivatives are -f and f, though no step is taken."""

    def end(t0, t1):
        return rf.solve_ode(
            lambda t, y, args: 3 * y * jnp.cos(t), 1.0, (t0, t1), adjoint=adjoint, method=method
        ).ys[-1]

    mode = jax.jacfwd if isinstance(adjoint, rf.ForwardAdjoint) else jax.grad
    slopes = jax.jit(jax.vmap(mode(end, (0, 1))))
    at_t0, at_t1 = slopes(jnp.array([0.5, 0.5]), jnp.array([0.5, 1.0]))
    grown = np.exp(3 * (np.sin(1.0) - np.sin(0.5)))
    exact = 3 * np.cos([0.5, 1.0]) * [1.0, grown]
    np.testing.assert_allclose(at_t1, exact, rtol=1e-5)
    np.testing.assert_allclose(at_t0, -3 * np.cos(0.5) * np.array([1.0, grown]), rtol=1e-5)


@pytest.mark.parametrize(
    "method",
    [rf.Kvaerno3(), rf.Kvaerno5(), rf.AutoSwitch(rf.Tsit5(), rf.Kvaerno5())],
    ids=["Kvaerno3", "Kvaerno5", "auto"],
)
def test_the_first_slope_of_an_implicit_step_is_that_of_the_step_before(method):
    # Evaluated again at the state it has the error of Newton's method times the stiffness: the
    # gradient of Robertson's problem was wrong by all of itself.
    def robertson(t, y, k):
        a, b, c = y
        one, two, three = k[0] * a, k[1] * b * c, k[2] * b * b
        return jnp.stack([-one + two, one - two - three, three])

    def at_end(k, adjoint):
        return rf.solve_ode(
            robertson, jnp.array([1.0, 0.0, 0.0]), (0.0, 1e3), k, method=method, rtol=1e-4,
            atol=1e-8, adjoint=adjoint, max_steps=1024,
        ).ys[-1]  # fmt: skip

    k = jnp.array([0.04, 1e4, 3e7])
    steps = jax.jit(jax.jacfwd(lambda k: at_end(k, rf.ForwardAdjoint())))(k)
    for adjoint in (rf.DiscreteAdjoint(), rf.CheckpointAdjoint()):
        found = jax.jit(jax.jacrev(lambda k, adjoint=adjoint: at_end(k, adjoint)))(k)
        np.testing.assert_allclose(found, steps, rtol=1e-7)


def test_the_first_slope_of_an_implicit_step_after_a_stop():
    def jumps(t, y, k):
        return -k * (y - jnp.where(t < 0.5, 1.0, 3.0))

    def at_end(k, adjoint):
        return rf.solve_ode(
            jumps, 0.0, (0.0, 1.0), k, method=rf.Kvaerno3(), rtol=1e-8, atol=1e-8, stops=[0.5],
            adjoint=adjoint,
        ).ys[-1]  # fmt: skip

    # y = 3 + (1 - e^(-k/2) - 3) e^(-k/2), so that dy/dk = e^(-k/2) + e^(-k).
    exact = np.exp(-2.0) + np.exp(-4.0)
    for adjoint in (rf.DiscreteAdjoint(), rf.CheckpointAdjoint()):
        np.testing.assert_allclose(jax.grad(at_end)(4.0, adjoint), exact, rtol=1e-6)


@pytest.mark.parametrize(
    "method",
    [rf.Bosh3(), rf.Vern7(), rf.Rosenbrock23(), rf.Kvaerno5(), rf.BDF(), "auto"],
    ids=lambda m: m if isinstance(m, str) else type(m).__name__,
)
def test_gradients_in_a_batch_are_those_of_each_member_alone(method):
    # In a batch steps are repeated by h = 0, where others tried again or are still under way; and
    # whatever a method hands on from step to step must be had again.
    def one(y0, rate, adjoint):
        sol = rf.solve_ode(
            lambda t, y, r: r * jnp.stack([y[1], -jnp.sin(3 * y[0]) - 0.1 * y[1]]), y0, (0.0, 2.0),
            rate, method=method, rtol=1e-4, atol=1e-5, adjoint=adjoint, max_steps=256,
        )  # fmt: skip
        return jnp.sum(sol.ys**2), sol.stats.steps

    y0s, rates = jnp.array([[1.0, 0.0], [3.0, 0.5], [0.1, 4.0]]), jnp.array([0.3, 1.0, 3.0])
    alone = jax.jit(jax.jacfwd(lambda r, y0: one(y0, r, rf.ForwardAdjoint()), has_aux=True))
    expected, steps = zip(*(alone(r, y0) for y0, r in zip(y0s, rates, strict=True)), strict=True)
    assert len(set(map(int, steps))) > 1
    each = jax.grad(lambda r, y0: one(y0, r, rf.DiscreteAdjoint()), has_aux=True)
    found, together = jax.jit(jax.vmap(each))(rates, y0s)
    np.testing.assert_array_equal(together, steps)
    np.testing.assert_allclose(found, expected, rtol=1e-8)


@pytest.mark.parametrize("saveat", [None, (0.5, 1.7)], ids=["end", "saved"])
def test_gradients_in_a_batch_of_batches_are_those_of_each_member_alone(saveat):
    def one(rate, y0):
        sol = rf.solve_ode(
            lambda t, y, r: r * jnp.stack([y[1], -jnp.sin(3 * y[0])]), y0, (0.0, 2.0), rate,
            rtol=1e-4, atol=1e-5, max_steps=128,
            saveat=None if saveat is None else jnp.array(saveat),
        )  # fmt: skip
        return jnp.sum(sol.ys**2)

    rates = jnp.array([0.3, 1.0, 3.0])
    y0s = jnp.array([[1.0, 0.0], [0.1, 4.0]])
    by_both = jax.grad(one, (0, 1))
    alone = jax.jit(by_both)
    expected = [[alone(r, y0) for y0 in y0s] for r in rates]
    found = jax.jit(jax.vmap(jax.vmap(by_both, (None, 0)), (0, None)))(rates, y0s)
    for i, j in np.ndindex(3, 2):
        member = jax.tree.map(lambda v, at=(i, j): v[at], found)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), member, expected[i][j]
        )
    # And the gradient of a sum over both.
    summed = jax.grad(
        lambda rates: jnp.sum(jax.vmap(lambda r: jax.vmap(partial(one, r))(y0s))(rates))
    )
    np.testing.assert_allclose(jax.jit(summed)(rates), found[0].sum(1), rtol=1e-10)
