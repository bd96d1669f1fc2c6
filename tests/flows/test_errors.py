"""Whatever can be asked wrongly of `rf.solve_ode` is refused with the value and the way out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf


def decay(t, y, args):
    return -y


ONE = jnp.array(1.0)


def blow_up(t, y, args):
    return y**2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"f": 3}, "function f"),
        ({"y0": {}}, "no arrays"),
        ({"y0": "text"}, "floating-point"),
        ({"y0": jnp.array([True])}, "floating-point"),
        ({"span": (0.0,)}, r"pair \(t0, t1\)"),
        ({"span": (0.0, jnp.ones(2))}, "one real number"),
        ({"span": (0.0, np.inf)}, "finite"),
        ({"span": (float("nan"), 1.0)}, "finite"),
        ({"method": "euler"}, "Tsit5"),
        ({"method": rf.Tsit5}, r"write Tsit5\(\)"),
        ({"saveat": "all"}, '"steps"'),
        ({"saveat": [0.5, 1.5]}, r"1\.5.*outside the span"),
        ({"saveat": [float("nan")]}, "outside the span"),
        ({"saveat": 0.5}, "one-dimensional"),
        ({"saveat": []}, "at least one time"),
        ({"rtol": -1e-3}, "not negative"),
        ({"atol": float("nan")}, "finite"),
        ({"rtol": 0.0, "atol": 0.0}, "both zero"),
        ({"atol": {"a": 1.0}}, "structure of y0"),
        ({"dt": 0.0}, "positive"),
        ({"dt": -0.1}, "reversed span"),
        ({"dt": 0.1, "dt0": 0.1}, "one of them"),
        ({"dt0": jnp.ones(2)}, "one positive number"),
        ({"max_steps": 0}, "positive integer"),
        ({"max_steps": 10.0}, "positive integer"),
        ({"adjoint": "backsolve"}, "DiscreteAdjoint"),
        ({"adjoint": rf.ForwardAdjoint(), "saveat": "dense"}, "keeps no steps"),
        ({"f": lambda t, y, a: jnp.ones(2)}, "must return what y0 looks like"),
        ({"f": lambda t, y, a: (y, y)}, "must return what y0 looks like"),
        ({"f": lambda t, y, a: 1j * y}, "make y0 complex"),
    ],
)
def test_refused(change, message):
    call = {"f": decay, "y0": ONE, "span": (0.0, 1.0)} | change
    with pytest.raises(rf.InputError, match=message):
        rf.solve_ode(call.pop("f"), call.pop("y0"), call.pop("span"), **call)


def test_too_many_steps():
    with pytest.raises(rf.SolveError, match=r"maximum number of steps.*20 steps tried"):
        rf.solve_ode(blow_up, ONE, (0.0, 2.0), max_steps=20)
    sol = rf.solve_ode(blow_up, ONE, (0.0, 2.0), max_steps=20, throw=False)
    assert sol.result == rf.Result.max_steps and sol.stats.steps == 20
    assert 0.5 < sol.ts[-1] < 1.01  # what there is: the solution is 1 / (1 - t)
    np.testing.assert_allclose(sol.ys[-1], 1 / (1 - sol.ts[-1]), rtol=1e-3)


def test_saved_times_that_were_not_reached_hold_nan():
    for count in (5, 300):
        ts = jnp.linspace(0.0, 2.0, count)
        sol = rf.solve_ode(blow_up, ONE, (0.0, 2.0), max_steps=20, throw=False, saveat=ts)
        reached = np.asarray(ts) < 0.5
        np.testing.assert_allclose(sol.ys[reached], 1 / (1 - ts[reached]), rtol=1e-4)
        assert np.isnan(sol.ys[np.asarray(ts) > 1.1]).all()


def test_step_underflow_names_a_singularity():
    sol = rf.solve_ode(
        lambda t, y, a: jnp.where(t < 1, 0.0, jnp.sign(jnp.sin(1e20 * t)) * 1e30), ONE, (0.0, 2.0),
        throw=False, max_steps=100_000,
    )  # fmt: skip
    assert sol.result == rf.Result.step_underflow
    assert "singularity" in sol.message


@pytest.mark.parametrize("y0", [jnp.array(jnp.nan), jnp.array(jnp.inf)])
def test_initial_state_not_finite(y0):
    with pytest.raises(rf.SolveError, match="not finite"):
        rf.solve_ode(decay, y0, (0.0, 1.0))


def test_vector_field_not_finite_after_a_while():
    def root(t, y, args):
        return -jnp.sqrt(0.5 - t)

    with pytest.raises(rf.SolveError, match="not finite"):
        rf.solve_ode(root, ONE, (0.0, 1.0))
    with pytest.raises(rf.SolveError, match="not finite"):
        rf.solve_ode(root, ONE, (0.0, 1.0), dt=0.1)


def test_errors_reach_through_jit_and_batches():
    def final(y0):
        return rf.solve_ode(blow_up, y0, (0.0, 2.0), max_steps=64).ys[-1]

    with pytest.raises(Exception, match="maximum number of steps"):
        jax.block_until_ready(jax.jit(final)(ONE))
    with pytest.raises(Exception, match="maximum number of steps"):
        jax.vmap(final)(jnp.array([0.1, 1.0]))
    np.testing.assert_allclose(final(0.1 * ONE), 0.125, rtol=1e-5)


@pytest.mark.parametrize("saveat", [[0.5], np.linspace(0.0, 2.0, 300), "dense"])
def test_saved_values_of_a_failed_solve_are_refused(saveat):
    @jax.jit
    def values(y0):
        sol = rf.solve_ode(blow_up, y0, (0.0, 2.0), max_steps=64, saveat=saveat)
        return sol(0.5) if isinstance(saveat, str) else sol.ys

    with pytest.raises(Exception, match="maximum number of steps"):
        jax.block_until_ready(values(ONE))
    with pytest.raises(Exception, match="maximum number of steps"):
        jax.block_until_ready(jax.jit(jax.jacfwd(values))(ONE))


@pytest.mark.parametrize("transform", [jax.grad, jax.jacfwd, jax.value_and_grad])
@pytest.mark.parametrize("compiled", [False, True])
def test_derivative_of_a_failed_solve_is_refused_too(transform, compiled):
    def final(y0):
        return rf.solve_ode(blow_up, y0, (0.0, 2.0), max_steps=64).ys[-1]

    call = jax.jit(transform(final)) if compiled else transform(final)
    with pytest.raises(Exception, match="maximum number of steps"):
        jax.block_until_ready(call(ONE))


def test_one_failure_in_a_batch_leaves_the_others():
    sol = jax.vmap(
        lambda y: rf.solve_ode(blow_up, y, (0.0, 2.0), max_steps=64, throw=False)
    )(jnp.array([0.1, 1.0, 0.2]))  # fmt: skip
    np.testing.assert_array_equal(sol.result == rf.Result.success, [True, False, True])
    np.testing.assert_allclose(sol.ys[[0, 2], -1], [0.125, 1 / 3], rtol=1e-5)


def test_every_result_has_a_message():
    for result in rf.Result:
        assert result.message.endswith(".")


def test_forward_mode_only_is_said_in_words():
    def final(rate):
        f = lambda t, y, rate: -rate * y
        return rf.solve_ode(f, ONE, (0.0, 1.0), rate, adjoint=rf.ForwardAdjoint()).ys[-1]

    for transform in (jax.grad, jax.jacrev, jax.hessian):
        for change in (lambda f: f, jax.jit, lambda f: lambda r: jax.vmap(f)(jnp.array([r]))[0]):
            with pytest.raises(rf.DerivativeError, match="forward mode only"):
                transform(change(final))(1.5)
    slopes = jax.jit(jax.vmap(jax.jacfwd(jax.jacfwd(final))))(jnp.array([1.0, 1.5]))
    np.testing.assert_allclose(slopes, np.exp([-1.0, -1.5]), rtol=1e-4)


def test_checkpoints_that_have_no_room_for_events():
    def when(rate, checkpoints):
        event = rf.Event(lambda t, y, a: y - 0.5)
        return rf.solve_ode(
            lambda t, y, a: -a * y, ONE, (0.0, 1.0), rate, dt=0.5, event=event,
            adjoint=rf.CheckpointAdjoint(checkpoints),
        ).ts[-1]  # fmt: skip

    with pytest.raises(rf.InputError, match="at least 6 checkpoints"):
        jax.grad(when)(1.0, 4)
    np.testing.assert_allclose(jax.grad(when)(1.0, 6), -np.log(2), rtol=1e-3)


@pytest.mark.parametrize("method", [rf.KenCarp4(), rf.LeapFrog(), rf.ETDRK4()])
def test_delay_equations_have_no_parts(method):
    with pytest.raises(rf.InputError, match="pass"):
        rf.solve_dde(
            lambda t, y, d, a: -d[0], lambda t: ONE, (1.0,), (0.0, 1.0), method=method, dt=0.1
        )


def test_paths_at_known_times_inside_jit():
    ts = jnp.array([0.3, 0.5])
    for path in (rf.BrownianMotion, lambda key: rf.FractionalBrownianMotion(key, 0.7)):
        inside = jax.jit(lambda key, path=path: path(key)(ts))(jax.random.key(0))
        np.testing.assert_allclose(inside, path(jax.random.key(0))(ts), rtol=1e-6)
    late = jnp.array([0.5, 1.5])
    with pytest.raises(rf.InputError, match=r"asked for time 1\.5"):
        jax.jit(lambda key: rf.BrownianMotion(key)(late))(jax.random.key(0))
