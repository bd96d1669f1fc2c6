"""Every adjoint against the exact derivative of the steps; memory; what each refuses."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf

START = jnp.array([1.0, 0.5])
PARAMETERS = {"w": jnp.array(2.0), "b": jnp.array(1.3)}
TIMES = jnp.array([3.0, 1.7, 0.4, 0.0])
TIGHT = dict(rtol=1e-9, atol=1e-9)
LOOSE = dict(rtol=1e-6, atol=1e-6)


def forced(t, y, p):
    return jnp.stack([p["b"] * y[1], -(p["w"] ** 2) * y[0] + jnp.sin(t) - 0.1 * y[1]])


def loss(y0, p, t0, t1, ts, adjoint, **options):
    sol = rf.solve_ode(forced, y0, (t0, t1), p, saveat=ts, adjoint=adjoint, **options)
    return jnp.sum(sol.ys**2 * jnp.arange(1.0, 1.0 + sol.ys.shape[0])[:, None])


def gradient(adjoint, ts, **options):
    which = (0, 1, 2, 3) if ts is None else (0, 1, 4)
    call = jax.grad(lambda *a: loss(*a, adjoint, **options), which)
    return jax.tree.leaves(call(START, PARAMETERS, 0.0, 3.0, ts))


@pytest.fixture(scope="module")
def exact():
    return {
        name: gradient(rf.DiscreteAdjoint(), ts, **TIGHT)
        for name, ts in (("end", None), ("times", TIMES))
    }


@pytest.mark.parametrize("saved", ["end", "times"])
@pytest.mark.parametrize(
    ("adjoint", "tolerance"),
    [
        (rf.CheckpointAdjoint(), 1e-12),
        (rf.CheckpointAdjoint(26), 1e-12),
        (rf.BacksolveAdjoint(), 1e-6),
        (rf.BacksolveAdjoint(seminorm=False), 1e-6),
        (rf.InterpolatingAdjoint(), 1e-6),
    ],
    ids=["checkpoint", "checkpoint-26", "backsolve", "backsolve-full-norm", "interpolating"],
)
def test_gradient_is_that_of_the_discrete_adjoint(adjoint, tolerance, saved, exact):
    ours = gradient(adjoint, None if saved == "end" else TIMES, **TIGHT)
    for a, b in zip(ours, exact[saved], strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * 10)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (rf.ReversibleHeun(), dict(dt=0.05)),
        (rf.AsynchronousLeapfrog(), dict(dt=0.05)),
        (rf.ReversibleHeun(), dict(rtol=1e-3, atol=1e-3)),
    ],
    ids=["heun", "leapfrog", "heun-adaptive"],
)
@pytest.mark.parametrize("saved", ["end", "times"])
def test_reversible_adjoint_is_exact_to_round_off(method, options, saved):
    ts = None if saved == "end" else TIMES
    reference = gradient(rf.DiscreteAdjoint(), ts, method=method, **options)
    ours = gradient(rf.ReversibleAdjoint(), ts, method=method, **options)
    for a, b in zip(ours, reference, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("method", "options", "saved"),
    [
        (rf.ReversibleHeun(), dict(dt=0.05), "times"),
        (rf.Reversible(rf.Bosh3()), dict(rtol=1e-4), "end"),
    ],
    ids=["fixed", "adaptive"],
)
def test_reversible_adjoint_for_batches_that_share_some_of_it(method, options, saved):
    # Of different lengths: in adaptive steps they take different ones.
    weights = {"w": jnp.array([2.0, 0.5]), "c": 0.3}
    y0s, ends = jnp.array([[1.0, 0.0], [0.5, 0.2], [3.0, -1.0]]), jnp.array([0.7, 1.0, 2.0])
    ts = None if saved == "end" else jnp.array([0.0, 0.3, 0.65])

    def one(weights, y0, end, adjoint):
        f = lambda t, y, p: jnp.tanh(p["w"] * y[::-1]) - p["c"] * y + jnp.sin(t)
        span = (0.0, end)
        sol = rf.solve_ode(
            f,
            y0,
            span,
            weights,
            method=method,
            saveat=ts,
            adjoint=adjoint,
            max_steps=256,
            **options,
        )
        return jnp.sum(sol.ys**2) + 0.1 * sol.heuristics.error

    def both(function):
        ours, exact = (function(a) for a in (rf.ReversibleAdjoint(), rf.DiscreteAdjoint()))
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(exact), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)

    def total(weights, y0s, ends, adjoint):
        return jnp.sum(jax.vmap(one, (None, 0, 0, None))(weights, y0s, ends, adjoint))

    # What is shared has one gradient, the sum; inside, a gradient for each.
    both(lambda a: jax.jit(jax.grad(partial(total, adjoint=a), (0, 1, 2)))(weights, y0s, ends))
    each = lambda a: jax.grad(partial(one, adjoint=a), (0, 1))
    both(lambda a: jax.jit(jax.vmap(each(a), (None, 0, 0)))(weights, y0s, ends))
    # Of vectors: cotangents are batched where nothing else is; and forwards.
    rows = lambda a, mode: mode(lambda w: jax.vmap(one, (None, 0, 0, None))(w, y0s, ends, a))
    both(lambda a: jax.jit(rows(a, jax.jacrev))(weights))
    both(lambda a: jax.jit(rows(a, jax.jacfwd))(weights))
    # Only some of a shared tree, and batches of batches.
    twice = lambda c, a: total(weights | {"c": c}, y0s, ends, a)
    both(
        lambda a: jax.jit(jax.grad(lambda cs: jnp.sum(jax.vmap(lambda c: twice(c, a))(cs))))(
            jnp.array([0.1, 0.4])
        )
    )


@pytest.mark.parametrize("adjoint", [rf.DiscreteAdjoint(), rf.CheckpointAdjoint()])
@pytest.mark.parametrize(
    "method",
    [rf.Reversible(rf.Bosh3(), coupling=0.9), rf.ReversibleHeun(), rf.AsynchronousLeapfrog()],
    ids=lambda m: type(m).__name__,
)
def test_idle_repetitions_leave_a_pair_as_it_is(method, adjoint):
    # A step by h = 0 would exchange the two states: at the end of a block of steps, and in a batch
    # where the others try again.
    def one(y0, rate, adjoint):
        sol = rf.solve_ode(
            lambda t, y, rate: rate * jnp.stack([y[1], -jnp.sin(3 * y[0])]), y0, (0.0, 1.0), rate,
            method=method, rtol=1e-3, atol=1e-3, adjoint=adjoint, max_steps=512,
        )  # fmt: skip
        return jnp.sum(sol.ys**2) + 0.0 * sol.stats.rejected

    def exact(y0, rate):
        return jax.jacfwd(lambda rate: one(y0, rate, rf.ForwardAdjoint()))(rate)

    y0s, rates = jnp.array([[1.0, 0.0], [3.0, 0.5], [0.1, 4.0]]), jnp.array([0.3, 1.0, 2.0])
    alone = [exact(y0, rate) for y0, rate in zip(y0s, rates, strict=True)]
    together = jax.vmap(jax.grad(lambda y0, r: one(y0, r, adjoint), 1))(y0s, rates)
    np.testing.assert_allclose(together, alone, rtol=1e-9)


def test_reversible_adjoint_refuses_what_it_cannot_recover():
    # Every step halves the difference of the two states: undoing 300 of them multiplies rounding.
    method = rf.Reversible(rf.Tsit5(), coupling=0.5)

    def final(y0, rate):
        return rf.solve_ode(
            lambda t, y, rate: -rate * y, y0, (0.0, 3.0), rate, method=method, dt=0.01,
            adjoint=rf.ReversibleAdjoint(),
        ).ys.sum()  # fmt: skip

    for which in (0, 1):
        with pytest.raises(Exception, match="contracts too strongly"):
            jax.block_until_ready(jax.grad(final, which)(START, 1.0))


def test_second_derivatives_of_the_reversible_adjoint_are_right_or_refused():
    def final(w, adjoint):
        return jnp.sum(
            rf.solve_ode(
                forced, START, (0.0, 1.0), PARAMETERS | {"w": w}, adjoint=adjoint,
                method=rf.Reversible(rf.Tsit5()), dt=0.1,
            ).ys ** 2
        )  # fmt: skip

    kinds = (rf.ReversibleAdjoint(), rf.DiscreteAdjoint())
    forward = (jax.jacfwd(jax.grad(final))(2.0, adjoint) for adjoint in kinds)
    np.testing.assert_allclose(*forward, rtol=1e-9)
    with pytest.raises(rf.DerivativeError, match="first order"):
        jax.grad(jax.grad(final))(2.0, rf.ReversibleAdjoint())


def one(w, adjoint):
    sol = rf.solve_ode(
        forced, START, (0.0, 1.0), PARAMETERS | {"w": w}, adjoint=adjoint, max_steps=256
    )
    return jnp.sum(sol.ys**2)


@pytest.mark.parametrize("derivative", [jax.grad, jax.jacfwd])
def test_checkpoints_in_both_modes_under_vmap(derivative):
    ws = jnp.array([0.5, 2.0])
    ours = jax.vmap(derivative(lambda w: one(w, rf.CheckpointAdjoint(26))))(ws)
    exact = jax.vmap(derivative(lambda w: one(w, rf.DiscreteAdjoint())))(ws)
    np.testing.assert_allclose(ours, exact, rtol=1e-10)


def test_checkpoints_for_few_steps():
    # Fewer rows in an outer block than the record keeps together.
    def final(w, adjoint):
        sol = rf.solve_ode(
            forced, START, (0.0, 3.0), PARAMETERS | {"w": w}, adjoint=adjoint, max_steps=64, **LOOSE
        )
        return jnp.sum(sol.ys**2)

    exact = jax.grad(final)(2.0, rf.DiscreteAdjoint())
    for adjoint in (rf.CheckpointAdjoint(), rf.CheckpointAdjoint(17)):
        np.testing.assert_allclose(jax.grad(final)(2.0, adjoint), exact, rtol=1e-11)


def test_checkpoints_to_second_order():
    ours = jax.jacfwd(jax.grad(lambda w: one(w, rf.CheckpointAdjoint())))(2.0)
    exact = jax.jacfwd(jax.grad(lambda w: one(w, rf.DiscreteAdjoint())))(2.0)
    np.testing.assert_allclose(ours, exact, rtol=1e-10)


def test_batch_of_backsolves():
    y0s = jnp.stack([START, 2 * START])

    def final(y, adjoint):
        return loss(y, PARAMETERS, 0.0, 1.0, None, adjoint, **TIGHT)

    ours = jax.vmap(jax.grad(lambda y: final(y, rf.BacksolveAdjoint())))(y0s)
    exact = jax.vmap(jax.grad(lambda y: final(y, rf.DiscreteAdjoint())))(y0s)
    np.testing.assert_allclose(ours, exact, rtol=1e-6)


def temporaries(adjoint, max_steps, method=rf.ReversibleHeun()):
    """Temporary memory of the gradient of a large nonlinear system, in states."""
    n = 2000

    def final(y0):
        sol = rf.solve_ode(
            lambda t, y, a: jnp.sin(jnp.roll(y, 1)) - y, y0, (0.0, 1.0), method=method,
            dt=1 / max_steps, adjoint=adjoint, max_steps=max_steps,
        )  # fmt: skip
        return jnp.sum(sol.ys**2)

    analysis = jax.jit(jax.grad(final)).lower(jnp.ones(n)).compile().memory_analysis()
    return analysis.temp_size_in_bytes / (8 * n)


def test_memory_in_states_of_the_gradient():
    # Reversible: the same for any number of steps, but for two numbers a step.
    few, many = (temporaries(rf.ReversibleAdjoint(), steps) for steps in (256, 4096))
    assert many < few + 3 * 4096 / 2000 + 1
    # Checkpoints: at most those allowed (each of a lifted state, twice the size here), and what one
    # step needs; storing every state would take thousands.
    assert temporaries(rf.CheckpointAdjoint(32), 4096, rf.Tsit5()) < 32 + 60
    assert temporaries(rf.DiscreteAdjoint(), 4096, rf.Tsit5()) > 150


def test_implicit_adjoint_at_a_steady_state():
    def settled(k):
        sol = rf.solve_ode(
            lambda t, y, k: k - y**3, START, (0.0, 40.0), k, adjoint=rf.ImplicitAdjoint()
        )
        return sol.ys[-1, 0]

    # y^3 = k, so that dy/dk = 1 / (3 y^2).
    np.testing.assert_allclose(jax.grad(settled)(8.0), 1 / 12, rtol=1e-6)
    np.testing.assert_allclose(jax.jacfwd(settled)(8.0), 1 / 12, rtol=1e-6)


@pytest.mark.parametrize("adjoint", [rf.BacksolveAdjoint(), rf.InterpolatingAdjoint()])
def test_adjoint_equations_have_no_derivative_of_heuristics(adjoint):
    def error(y0):
        return rf.solve_ode(forced, y0, (0.0, 1.0), PARAMETERS, adjoint=adjoint).heuristics.error

    with pytest.raises(Exception, match="only in the discretisation"):
        jax.block_until_ready(jax.grad(error)(START))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(adjoint=rf.ReversibleAdjoint()), r"Reversible\(rf.Tsit5\(\)\)"),
        (dict(adjoint=rf.ReversibleAdjoint(), saveat="dense"), "does not keep the states"),
        (
            dict(adjoint=rf.ReversibleAdjoint(), stops=[0.5], method=rf.ReversibleHeun()),
            "does not handle events and stops",
        ),
        (dict(adjoint=rf.BacksolveAdjoint(), saveat="steps"), "does not differentiate the steps"),
        (dict(adjoint=rf.ImplicitAdjoint(), saveat=[0.5]), "leave saveat out"),
        (dict(adjoint=rf.DiscreteAdjoint), r"write rf.DiscreteAdjoint\(\)"),
    ],
)
def test_refused(options, message):
    with pytest.raises(rf.InputError, match=message):
        rf.solve_ode(forced, START, (0.0, 1.0), PARAMETERS, **options)


def test_complex_states_are_refused_by_adjoint_equations():
    with pytest.raises(rf.InputError, match="real states"):
        rf.solve_ode(
            lambda t, y, a: 1j * y, 1.0 + 0j, (0.0, 1.0), adjoint=rf.BacksolveAdjoint()
        )  # fmt: skip


def test_few_checkpoints_hold_as_many_steps_as_they_can():
    """The budget counts the steps that there are; where it does not hold them, it says so."""
    field = lambda t, y, p: -p * y * y

    def value(p, checkpoints, **options):
        adjoint = rf.CheckpointAdjoint(checkpoints)
        return rf.solve_ode(field, 1.0, (0.0, 1.0), p, adjoint=adjoint, **options).ys[-1]

    for checkpoints in (6, 8, 20):
        slope = jax.grad(value)(1.2, checkpoints, rtol=1e-6)
        np.testing.assert_allclose(slope, -1 / 2.2**2, rtol=1e-4)
    with pytest.raises(Exception, match=r"raise max_events .*checkpoints"):
        jax.grad(value)(1.2, 4, dt=0.05)
