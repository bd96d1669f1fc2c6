"""Penalties made of the solver's own estimates, against closed forms and a solver in NumPy."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diffrax import Tsit5 as PeerTsit5

import rootflow as rf
from rootflow.flows.heuristics import StepPenalty

TABLEAU = PeerTsit5.tableau
NODES = np.concatenate([[0.0], TABLEAU.c])
ROWS = [np.asarray(row) for row in TABLEAU.a_lower]
ERROR = np.asarray(TABLEAU.b_error)
RTOL, ATOL = 1e-6, 1e-8

VARIANTS = {
    f"{which}, {'scaled' if scaled else 'raw'}, {'h' if by_h else 'no h'}, {reduce}": StepPenalty(
        which, scaled, by_h, reduce, 0.3
    )
    for which in ("error", "error_squared", "stiffness", "both")
    for scaled in (True, False)
    for by_h in (True, False)
    for reduce in ("sum", "mean", "max")
}
ONE = StepPenalty("error")


def network(t, y, p):
    return p["out"] @ jnp.tanh(p["in"] @ y + p["rate"] * t)


NET = {
    "in": jnp.array([[1.5, -0.7], [0.3, 2.1], [-1.2, 0.4]]),
    "out": jnp.array([[0.4, 1.1, -2.0], [-1.6, 0.5, 0.9]]),
    "rate": jnp.array([0.5, -2.0, 3.0]),
}
Y0 = jnp.array([1.0, -0.5])
SPAN = (0.0, 2.0)


def net_in_numpy(t, y, p):
    return p["out"] @ np.tanh(p["in"] @ y + p["rate"] * t)


def steps_in_numpy(f, y, ts, p):
    """E (a vector), S, the scale of the tolerance and h of each step between the times."""
    found = []
    for t, end in itertools.pairwise(ts):
        h, k, g = end - t, [f(t, y, p)], [y]
        for node, row in zip(NODES[1:], ROWS, strict=True):
            g.append(y + h * (row @ np.stack(k)))
            k.append(f(t + node * h, g[-1], p))
        stiffness = np.linalg.norm(k[-1] - k[-2]) / np.linalg.norm(g[-1] - g[-2])
        unit = ATOL + RTOL * np.maximum(np.abs(y), np.abs(g[-1]))
        found.append((h * (ERROR @ np.stack(k)), stiffness, unit, h))
        y = g[-1]
    return found


def penalty_in_numpy(penalty, found, top=None):
    """The penalty; with `top`, the number of that step instead of the largest."""
    values = []
    for error, stiffness, unit, h in found:
        e = np.sqrt(np.mean((error / unit) ** 2)) if penalty.scaled else np.linalg.norm(error)
        s = stiffness / 3.5068 if penalty.scaled else stiffness
        both = e + penalty.stiffness_weight * s
        value = {"error": e, "error_squared": e**2, "stiffness": s, "both": both}[penalty.which]
        values.append(value * h if penalty.weight_by_h else value)
    if penalty.reduce == "max":
        return values[np.argmax(values) if top is None else top]
    return {"sum": np.sum, "mean": np.mean, None: np.array}[penalty.reduce](values)


def solve(p, y0=Y0, penalty=None, **options):
    options = {"rtol": RTOL, "atol": ATOL, "max_steps": 256} | options
    return rf.solve_ode(network, y0, SPAN, p, penalty=penalty, **options)


@pytest.fixture(scope="module")
def steps():
    """The times of the accepted steps of a solve that rejected some: its first one is too long."""
    sol = solve(NET, saveat="steps", dt0=1.0)
    assert int(sol.stats.rejected) > 0
    return np.concatenate([[0.0], np.asarray(sol.ts)[: int(sol.stats.accepted)]])


def as_numpy(tree):
    return jax.tree.map(np.asarray, tree)


def test_every_variant_is_what_numpy_finds_on_the_accepted_steps(steps):
    found = steps_in_numpy(net_in_numpy, np.asarray(Y0), steps, as_numpy(NET))
    values = solve(NET, penalty=VARIANTS, dt0=1.0).heuristics.penalty
    for name, penalty in VARIANTS.items():
        np.testing.assert_allclose(
            values[name], penalty_in_numpy(penalty, found), rtol=1e-6, err_msg=name
        )


def test_derivatives_are_central_differences_with_the_steps_held_fixed(steps):
    rng = np.random.default_rng(7)
    direction = {name: rng.normal(size=value.shape) for name, value in NET.items()}

    def values(p):
        return solve(p, penalty=VARIANTS, dt0=1.0).heuristics.penalty

    slopes = jax.jit(lambda p, d: jax.jvp(values, (p,), (d,))[1])(NET, direction)

    def moved(size):
        p = {name: np.asarray(value) + size * direction[name] for name, value in NET.items()}
        return steps_in_numpy(net_in_numpy, np.asarray(Y0), steps, p)

    # Five points: with a step this wide rounding, which the estimates amplify, does not show.
    size = 1e-3
    around = {k: moved(k * size) for k in (-2, -1, 0, 1, 2)}
    for name, penalty in VARIANTS.items():
        each = dataclasses.replace(penalty, reduce=None)
        top = np.argmax(penalty_in_numpy(each, around[0]))
        v = {k: penalty_in_numpy(penalty, steps, top) for k, steps in around.items()}
        difference = (8 * (v[1] - v[-1]) - (v[2] - v[-2])) / (12 * size)
        np.testing.assert_allclose(slopes[name], difference, rtol=1e-4, err_msg=name)


FEW = {
    "mean": ONE,
    "largest": StepPenalty("stiffness", weight_by_h=False, reduce="max"),
    "squares": StepPenalty("error_squared", reduce="sum"),
}


def total(p, **options):
    values = solve(p, penalty=FEW, **options).heuristics.penalty
    return values["mean"] + values["largest"] + values["squares"]


@pytest.fixture(scope="module")
def gradient():
    return jax.jit(jax.value_and_grad(total))(NET)


def assert_same(found, expected, rtol=1e-9):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol), found, expected)


@pytest.mark.parametrize(
    "adjoint", [rf.CheckpointAdjoint(), rf.ForwardAdjoint()], ids=lambda a: type(a).__name__
)
def test_the_other_discrete_adjoints_agree(adjoint, gradient):
    found = jax.jit(lambda p: total(p, adjoint=adjoint))
    mode = jax.jacfwd if isinstance(adjoint, rf.ForwardAdjoint) else jax.grad
    assert_same(jax.jit(lambda p: (found(p), mode(found)(p)))(NET), gradient)


def test_forward_mode_agrees(gradient):
    tangents = jax.tree.map(jnp.ones_like, NET)
    slope = jax.jit(lambda p: jax.jvp(total, (p,), (tangents,))[1])(NET)
    summed = sum(np.sum(g) for g in gradient[1].values())
    np.testing.assert_allclose(slope, summed, rtol=1e-9)


def test_the_reversible_adjoint_agrees():
    method = rf.Reversible(rf.Tsit5())

    @jax.jit
    def both(p):
        exact = jax.grad(lambda p: total(p, method=method))(p)
        return jax.grad(lambda p: total(p, method=method, adjoint=rf.ReversibleAdjoint()))(p), exact

    assert_same(*both(NET), rtol=1e-6)


def test_the_room_for_steps_changes_nothing(gradient):
    assert_same(jax.jit(jax.value_and_grad(lambda p: total(p, max_steps=64)))(NET), gradient, 1e-12)


def test_a_weight_of_zero_leaves_the_gradient_bit_for_bit():
    @jax.jit
    def gradients(p, weight):
        def loss(p, weight):
            sol = solve(p, penalty=ONE)
            return jnp.sum(sol.ys**2) + weight * sol.heuristics.penalty

        plain = jax.grad(lambda p: jnp.sum(solve(p).ys ** 2))(p)
        return plain, jax.grad(loss)(p, weight)

    plain, penalised = gradients(NET, 0.0)
    for name in NET:
        np.testing.assert_array_equal(plain[name], penalised[name])
    assert not np.array_equal(plain["in"], gradients(NET, 1.0)[1]["in"])


def test_the_numbers_of_the_steps():
    pair = {"E": StepPenalty(scaled=False, weight_by_h=False, reduce=None), "mean": ONE}
    sol = solve(NET, penalty=pair, saveat="steps")
    n = int(sol.stats.accepted)
    ts = np.concatenate([[0.0], np.asarray(sol.ts)[:n]])
    found = steps_in_numpy(net_in_numpy, np.asarray(Y0), ts, as_numpy(NET))
    traces = sol.heuristics.penalty["E"]
    assert traces.shape == (256,) and np.all(traces[n:] == 0)
    np.testing.assert_allclose(traces[:n], [np.linalg.norm(f[0]) for f in found], rtol=1e-6)
    np.testing.assert_allclose(np.sum(traces[:n] * np.diff(ts)), sol.heuristics.error, rtol=1e-10)


def test_the_largest_is_differentiated_as_the_largest_of_the_steps():
    def of_steps(p):
        penalty = StepPenalty("error", weight_by_h=False, reduce=None)
        return jnp.max(solve(p, penalty=penalty).heuristics.penalty)

    def at_once(p):
        return solve(p, penalty=StepPenalty("error", True, False, "max")).heuristics.penalty

    found = jax.jit(lambda p: (jax.value_and_grad(of_steps)(p), jax.value_and_grad(at_once)(p)))
    assert_same(*found(NET))


def test_each_member_of_a_batch_has_its_own_penalty():
    starts = jnp.array([[1.0, -0.5], [0.0, 0.01], [-3.0, 2.0]])
    pair = {"mean": ONE, "top": StepPenalty("both", reduce="max"), "E": StepPenalty(reduce=None)}

    def values(y0):
        found = solve(NET, y0, pair).heuristics.penalty
        return found | {"E": found["E"][:64]}

    def of_all(starts):
        return jnp.sum(jax.vmap(values)(starts)["top"])

    batch, slopes = jax.jit(lambda s: (jax.vmap(values)(s), jax.grad(of_all)(s)))(starts)
    assert batch["mean"].shape == (3,) and batch["E"].shape == (3, 64)
    alone = jax.jit(lambda y0: (values(y0), jax.grad(lambda y: values(y)["top"])(y0)))
    for i, start in enumerate(starts):
        expected, slope = alone(start)
        assert_same(jax.tree.map(lambda v, i=i: v[i], batch), expected, 1e-8)
        np.testing.assert_allclose(slopes[i], slope, rtol=1e-8)


def linear(t, y, rate):
    return rate * y


def test_closed_forms_of_a_linear_equation():
    rate, h = -3.0, 0.2
    a = np.zeros((7, 7))
    for i, row in enumerate(ROWS):
        a[i + 1, : len(row)] = row
    k = rate * np.linalg.solve(np.eye(7) - rate * h * a, np.ones(7))
    growth = 1 + h * ROWS[-1] @ k[:6]
    np.testing.assert_allclose(abs(h * ERROR @ k), 4.1046e-5, rtol=1e-4)
    expected = np.abs(h * ERROR @ k) * growth ** np.arange(5)
    traces = {
        "E": StepPenalty(scaled=False, weight_by_h=False, reduce=None),
        "S": StepPenalty("stiffness", scaled=False, weight_by_h=False, reduce=None),
    }
    sol = rf.solve_ode(linear, 1.0, (0.0, 1.0), rate, dt=h, penalty=traces, max_steps=8)
    np.testing.assert_allclose(sol.heuristics.penalty["E"][:5], expected, rtol=1e-10)
    np.testing.assert_allclose(sol.heuristics.penalty["S"][:5], 3.0, rtol=1e-12)


def test_the_stiffness_of_a_linear_equation_is_its_rate_on_every_step():
    kinds = {
        "mean": StepPenalty("stiffness", scaled=False, weight_by_h=False),
        "max": StepPenalty("stiffness", scaled=False, weight_by_h=False, reduce="max"),
        "R_S": StepPenalty("stiffness", scaled=False, reduce="sum"),
        "limit": StepPenalty("stiffness", weight_by_h=False),
    }

    def values(rate):
        return rf.solve_ode(linear, 1.0, (0.0, 2.0), rate, penalty=kinds).heuristics.penalty

    found, slopes = jax.jit(lambda r: (values(r), jax.jacrev(values)(r)))(-7.0)
    expected = {"mean": 7.0, "max": 7.0, "R_S": 14.0, "limit": 7 / 3.5068}
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9)
        np.testing.assert_allclose(slopes[name], value / -7.0, rtol=1e-6)


def test_complex_states_and_backwards_in_time():
    penalty = StepPenalty("stiffness", scaled=False, reduce="sum")

    def total(y0, span, rate):
        return rf.solve_ode(linear, y0, span, rate, penalty=penalty).heuristics.penalty

    rate = -2.0 + 3.0j
    turning = total(jnp.array([1.0, 2.0j]), (0.0, 2.0), rate)
    np.testing.assert_allclose(turning, 2 * abs(rate), rtol=1e-9)
    np.testing.assert_allclose(total(1.0, (2.0, 0.0), -3.0), 6.0, rtol=1e-9)


def test_the_stiffness_is_between_the_eigenvalues_and_below_the_lipschitz_constant():
    trace = StepPenalty("stiffness", scaled=False, weight_by_h=False, reduce=None)
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    matrix = turn @ np.diag([-1.0, -4.0, -9.0]) @ turn.T
    sol = rf.solve_ode(
        lambda t, y, m: m @ y, jnp.ones(3), (0.0, 2.0), jnp.asarray(matrix), penalty=trace
    )
    s = np.asarray(sol.heuristics.penalty)[: int(sol.stats.accepted)]
    assert s.min() >= 1.0 - 1e-6 and s.max() <= 9.0 + 1e-6
    sol = solve(NET, penalty=trace)
    bound = np.linalg.norm(NET["out"], 2) * np.linalg.norm(NET["in"], 2)
    s = np.asarray(sol.heuristics.penalty)[: int(sol.stats.accepted)]
    assert s.min() > 0 and s.max() <= bound


def test_polynomials_in_time():
    trace = StepPenalty(scaled=False, weight_by_h=False, reduce=None)

    def errors(power, h):
        sol = rf.solve_ode(
            lambda t, y, c: c * t**power, 0.0, (0.0, h), 1.0, dt=h, penalty=trace, max_steps=2
        )
        return sol.heuristics.penalty[0]

    for power in range(4):
        assert abs(errors(power, 0.5)) < 1e-16
    for h in (0.5, 0.25):
        np.testing.assert_allclose(errors(4, h), 5.8222e-4 * h**5, rtol=1e-4)


def test_the_gradient_is_finite_where_the_error_is_exactly_zero():
    kinds = {name: penalty for name, penalty in VARIANTS.items() if "mean" in name}

    def values(y0):
        still = rf.solve_ode(lambda t, y, args: 0.0 * y, y0, (0.0, 1.0), penalty=kinds)
        return still.heuristics.penalty

    found = jax.jacrev(values)(jnp.array([1.0, 0.0]))
    for name, slope in found.items():
        np.testing.assert_array_equal(slope, 0.0, err_msg=name)
    assert all(float(v) == 0.0 for v in values(jnp.array([1.0, 0.0])).values())


def test_no_step_no_penalty():
    pair = {"mean": ONE, "E": StepPenalty(reduce=None)}
    sol = rf.solve_ode(network, Y0, (1.0, 1.0), NET, penalty=pair, max_steps=8)
    np.testing.assert_array_equal(sol.heuristics.penalty["mean"], 0.0)
    np.testing.assert_array_equal(sol.heuristics.penalty["E"], np.zeros(8))


def test_in_single_precision():
    with jax.enable_x64(False):
        values = solve(
            jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), NET),
            jnp.asarray(Y0, jnp.float32), FEW, rtol=1e-4, atol=1e-5, dt=0.2,
        ).heuristics.penalty  # fmt: skip
    double = solve(NET, penalty=FEW, rtol=1e-4, atol=1e-5, dt=0.2).heuristics.penalty
    for name, value in values.items():
        assert value.dtype == "float32"
        np.testing.assert_allclose(value, double[name], rtol=3e-3)


STIFF = {
    "Rodas5P": rf.Rodas5P(),
    "Kvaerno3": rf.Kvaerno3(),
    "AutoSwitch": rf.AutoSwitch(rf.Tsit5(), rf.Rodas5P()),
}


@pytest.mark.parametrize("name", STIFF)
def test_stiff_methods(name):
    """Fixed steps: the derivative is that of the function, without anything held fixed."""

    def field(t, y, p):
        return jnp.stack([p * (jnp.cos(t) - y[0]) + y[1] ** 2, -y[1] * y[0]])

    kinds = {
        "E": StepPenalty(reduce="sum"),
        "S": StepPenalty("stiffness", scaled=False, weight_by_h=False, reduce="max"),
    }
    chosen: Any = {"dt0": 0.1} if name == "AutoSwitch" else {"dt": 0.1}

    @jax.jit
    def values(p):
        return rf.solve_ode(
            field, jnp.array([0.0, 1.0]), (0.0, 1.0), p, method=STIFF[name], penalty=kinds,
            rtol=1e-5, max_steps=512, **chosen,
        ).heuristics.penalty  # fmt: skip

    slopes = jax.jit(jax.jacrev(values))(20.0)
    found = values(20.0)
    assert float(found["E"]) > 0 and float(found["S"]) > 10
    if "dt" in chosen:
        low, high = values(20.0 - 1e-3), values(20.0 + 1e-3)
        for key, slope in slopes.items():
            np.testing.assert_allclose(slope, (high[key] - low[key]) / 2e-3, rtol=1e-4)
    else:
        assert all(np.isfinite(v) for v in slopes.values())


def test_stops_events_and_saved_times():
    options: Any = {
        "penalty": FEW | {"raw": StepPenalty(scaled=False, reduce="sum")},
        "stops": jnp.array([0.3, 0.9]),
        "event": rf.Event(lambda t, y, p: t - 1.4, terminal=True),
        "saveat": jnp.array([0.5, 1.0]),
        "rtol": jnp.array(RTOL),
    }

    def both(p):
        return solve(p, **options).heuristics

    found, slopes = jax.jit(lambda p: (both(p), jax.jacrev(both)(p)))(NET)
    # Without the options the same quantities exist under another name.
    np.testing.assert_allclose(found.penalty["raw"], found.error, rtol=1e-12)
    for name in NET:
        np.testing.assert_allclose(slopes.penalty["raw"][name], slopes.error[name], rtol=1e-9)
    ends = solve(NET, **(options | {"saveat": "steps"}))
    ts = np.concatenate([[0.0], np.asarray(ends.ts)[: int(ends.stats.accepted)]])
    steps = steps_in_numpy(net_in_numpy, np.asarray(Y0), ts, as_numpy(NET))
    for name, penalty in FEW.items():
        expected = penalty_in_numpy(penalty, steps)
        np.testing.assert_allclose(found.penalty[name], expected, rtol=1e-6)


@pytest.mark.parametrize(
    "adjoint",
    [rf.BacksolveAdjoint(), rf.InterpolatingAdjoint(), rf.ImplicitAdjoint()],
    ids=lambda a: type(a).__name__,
)
def test_adjoints_without_the_steps_refuse(adjoint):
    with pytest.raises(rf.InputError, match="DiscreteAdjoint"):
        solve(NET, penalty=ONE, adjoint=adjoint)


def test_the_numbers_of_the_steps_need_the_steps():
    with pytest.raises(rf.InputError, match="reduce=None"):
        solve(NET, penalty=StepPenalty(reduce=None), adjoint=rf.CheckpointAdjoint())


def test_methods_without_the_estimate_refuse():
    with pytest.raises(rf.InputError, match="Euler has no error estimate"):
        solve(NET, penalty=ONE, method=rf.Euler(), dt=0.1)
    with pytest.raises(rf.InputError, match="ExponentialEuler has no"):
        field = rf.SemiLinear(jnp.diag(jnp.array([-1.0, -2.0])), lambda t, y, p: y * y)
        rf.solve_ode(
            field, Y0, SPAN, method=rf.ExponentialEuler(), dt=0.1, penalty=StepPenalty("stiffness")
        )
    with pytest.raises(rf.InputError, match="Kvaerno3 has no stiffness estimate"):
        method = rf.Kvaerno3(linear_solver="gmres")
        solve(NET, penalty=StepPenalty("both"), method=method)
    with pytest.raises(rf.InputError, match=r"Rodas5P has no stability limit.*scaled=False"):
        solve(NET, penalty=StepPenalty("stiffness"), method=rf.Rodas5P())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StepPenalty("errors"), "which must be one of .*'errors'"),  # pyright: ignore
        (lambda: StepPenalty(reduce="last"), "reduce must be .*'last'"),  # pyright: ignore
        (lambda: StepPenalty(scaled="yes"), "scaled must be True or False; got 'yes'"),  # pyright: ignore
        (lambda: StepPenalty(stiffness_weight=-1.0), "stiffness_weight must be positive.*-1"),
        (lambda: solve(NET, penalty=StepPenalty), r"write StepPenalty\(\)"),
        (lambda: solve(NET, penalty=0.1), "penalty must be a rf.StepPenalty.*0.1"),
    ],
)
def test_what_a_penalty_cannot_be(make, message):
    with pytest.raises(rf.InputError, match=message):
        make()
