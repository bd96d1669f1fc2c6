"""`rf.solve_ode`: values against closed forms, every way of saving, precision, transformations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

import rootflow as rf
from rootflow.flows import checks


def oscillator(t, y, w):
    return jnp.stack([y[1], -(w**2) * y[0]])


def decay(t, y, rate):
    return -rate * y


START = jnp.array([1.0, 0.0])


def test_pytree_state_and_final_value():
    def f(t, y, args):
        return {"a": -y["a"], "b": (args * y["b"][0], jnp.cos(t))}

    y0 = {"a": jnp.ones((2, 3)), "b": (jnp.array(2.0), 0)}
    sol = rf.solve_ode(f, y0, (0.0, 1.0), 0.5, rtol=1e-9, atol=1e-9)
    assert sol.ys["a"].shape == (1, 2, 3)
    np.testing.assert_allclose(sol.ys["a"][-1], np.full((2, 3), np.exp(-1.0)), rtol=1e-8)
    np.testing.assert_allclose(sol.ys["b"][0][-1], 2 * np.exp(0.5), rtol=1e-8)
    np.testing.assert_allclose(sol.ys["b"][1][-1], np.sin(1.0), rtol=1e-8)
    assert sol.ts.shape == (1,) and sol.ts[0] == 1.0 and sol.result == rf.Result.success


@pytest.mark.parametrize("count", [11, 400])  # filled in on the way; found afterwards
def test_saved_times_in_any_order(count):
    ts = np.random.default_rng(0).permutation(np.linspace(0.0, 10.0, count))
    sol = rf.solve_ode(oscillator, START, (0.0, 10.0), 2.0, saveat=ts, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(sol.ys[:, 0], np.cos(2 * ts), atol=2e-7)
    np.testing.assert_allclose(sol.ys[:, 1], -2 * np.sin(2 * ts), atol=4e-7)
    np.testing.assert_array_equal(sol.ts, ts)


def test_dense_output_is_the_solution_everywhere():
    sol = rf.solve_ode(oscillator, START, (0.0, 5.0), 2.0, saveat="dense", rtol=1e-9, atol=1e-9)
    ts = np.linspace(0.0, 5.0, 1001)
    np.testing.assert_allclose(sol(ts)[:, 0], np.cos(2 * ts), atol=2e-7)
    np.testing.assert_allclose(sol(1.25)[1], -2 * np.sin(2.5), atol=2e-7)
    np.testing.assert_allclose(sol(5.0), sol.ys[-1], rtol=1e-14)
    assert np.isnan(sol(5.1)).all() and np.isnan(sol(-0.1)).all()


def test_dense_output_needs_to_be_asked_for():
    sol = rf.solve_ode(oscillator, START, (0.0, 1.0), 2.0)
    with pytest.raises(ValueError, match='saveat="dense"'):
        sol(0.5)


def test_steps():
    sol = rf.solve_ode(oscillator, START, (0.0, 3.0), 2.0, saveat="steps", rtol=1e-8, atol=1e-8)
    n = int(sol.stats.accepted)
    assert np.isfinite(sol.ts[:n]).all() and np.isnan(sol.ts[n:]).all()
    assert (np.diff(sol.ts[:n]) > 0).all() and sol.ts[n - 1] == 3.0
    np.testing.assert_allclose(sol.ys[:n, 0], np.cos(2 * sol.ts[:n]), atol=1e-6)


def test_steps_under_vmap_are_those_of_each_alone():
    def steps(w):
        sol = rf.solve_ode(oscillator, START, (0.0, 3.0), w, saveat="steps", max_steps=128)
        return sol.ts, sol.ys

    ws = jnp.array([0.5, 4.0, 1.0])
    ts, ys = jax.vmap(steps)(ws)
    for i, w in enumerate(ws):
        alone = steps(w)
        np.testing.assert_allclose(ts[i], alone[0], rtol=1e-9)
        np.testing.assert_allclose(ys[i], alone[1], rtol=1e-6, atol=1e-9)


def test_reversed_span_returns():
    there = rf.solve_ode(oscillator, START, (0.0, 10.0), 2.0, rtol=1e-10, atol=1e-10)
    ts = np.linspace(10.0, 0.0, 21)
    back = rf.solve_ode(
        oscillator, there.ys[-1], (10.0, 0.0), 2.0, saveat=ts, rtol=1e-10, atol=1e-10
    )
    np.testing.assert_allclose(back.ys[:, 0], np.cos(2 * ts), atol=1e-7)
    dense = rf.solve_ode(
        oscillator, there.ys[-1], (10.0, 0.0), 2.0, saveat="dense", rtol=1e-10, atol=1e-10
    )
    np.testing.assert_allclose(dense(3.3)[0], np.cos(6.6), atol=1e-7)


@pytest.mark.parametrize("saveat", [None, [1.0, 1.0], "dense", "steps"])
def test_empty_span_is_the_initial_state(saveat):
    sol = rf.solve_ode(oscillator, START, (1.0, 1.0), 2.0, saveat=saveat)
    assert sol.result == rf.Result.success
    if saveat == "dense":
        np.testing.assert_array_equal(sol(1.0), START)
    elif saveat == "steps":
        assert np.isnan(sol.ts).all()
    else:
        np.testing.assert_array_equal(sol.ys, np.broadcast_to(START, sol.ys.shape))


def test_order_of_convergence_is_five():
    errors = []
    for n in (20, 40, 80):
        sol = rf.solve_ode(oscillator, START, (0.0, 2.0), 2.0, dt=2.0 / n)
        assert int(sol.stats.steps) == n
        errors.append(np.linalg.norm(sol.ys[-1] - np.array([np.cos(4.0), -2 * np.sin(4.0)])))
    slopes = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    np.testing.assert_allclose(slopes, 5.0, atol=0.25)


def test_interpolant_is_of_order_four():
    errors = []
    for n in (16, 32, 64):
        sol = rf.solve_ode(oscillator, START, (0.0, 2.0), 2.0, dt=2.0 / n, saveat="dense")
        ts = np.linspace(0.0, 2.0, 501)
        errors.append(np.abs(sol(ts)[:, 0] - np.cos(2 * ts)).max())
    slopes = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert (slopes > 3.7).all(), slopes


def test_local_error_of_one_step_in_closed_form():
    # Stability functions of the pair at z = -0.6, from the tableau's published coefficients.
    sol = rf.solve_ode(decay, jnp.array(1.0), (0.0, 0.2), 3.0, dt=0.2)
    np.testing.assert_allclose(sol.heuristics.error, 4.1046e-5 * 0.2, rtol=1e-4)


def test_polynomial_of_degree_four_is_integrated_exactly():
    sol = rf.solve_ode(lambda t, y, a: 5 * t**4 - t, jnp.array(0.0), (0.0, 2.0), dt=1.0)
    np.testing.assert_allclose(sol.ys[-1], 30.0, rtol=1e-13)


def test_last_fixed_step_is_cut_to_end_at_t1():
    sol = rf.solve_ode(decay, jnp.array(1.0), (0.0, 1.0), 1.0, dt=0.3)
    assert int(sol.stats.steps) == 4 and sol.ts[-1] == 1.0
    sol = rf.solve_ode(decay, jnp.array(1.0), (0.0, 1.0), 1.0, dt=0.1)
    assert int(sol.stats.steps) == 10


@pytest.mark.parametrize("count", [100, 1000, 3000])
def test_fixed_steps_in_single_precision_are_as_many_as_asked_for(count):
    # Neither 1 / count nor the sum of the steps is exact.
    @jax.jit
    def solve(end):
        options = {"method": rf.Euler(), "dt": 1 / count, "max_steps": 2 * count}
        f = lambda t, y, args: jnp.stack([-y[0], t])
        sol = rf.solve_ode(f, jnp.ones(2, jnp.float32), (0.0, end), saveat="steps", **options)
        return sol.stats.steps, sol.ts

    for end in (1.0, -1.0):
        steps, ts = solve(end)
        assert steps == count
        expected = np.linspace(0.0, end, count + 1)[1:]
        # One rounding each, and one of the size of the step.
        np.testing.assert_allclose(ts[:count], expected, rtol=2e-7)
    stopped = rf.solve_ode(
        decay, jnp.ones((), jnp.float32), (0.0, 1.0), 1.0, method=rf.Euler(), dt=1 / count,
        stops=[0.5], max_steps=2 * count,
    )  # fmt: skip
    assert stopped.stats.steps == count


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 100, 128, 1000, 1024])
def test_room_for_the_steps_that_are_known(count, dtype):
    # Without the steps nothing is kept for more than there are: as many must be enough.
    @jax.jit
    def solve(y0):
        return rf.solve_ode(decay, y0, (0.3, 1.3), 1.0, method=rf.Euler(), dt=1 / count).stats.steps

    assert solve(jnp.ones((), dtype)) == count
    room = checks.enough((0.3, 1.3), 1 / count, dtype, 4096)
    assert room // 2 < count <= room
    assert checks.enough((0.0, 1.0), None, dtype, 4096) == 4096


def test_memory_of_fixed_steps_is_for_those_there_are():
    def memory(max_steps):
        def final(y0):
            options = {"dt": 1 / 64, "max_steps": max_steps}
            return jnp.sum(rf.solve_ode(lambda t, y, a: jnp.sin(y), y0, (0.0, 1.0), **options).ys)

        compiled = jax.jit(jax.grad(final)).lower(jnp.ones(100)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert memory(64) == memory(4096)
    with pytest.raises(rf.SolveError, match="max_steps"):
        rf.solve_ode(decay, 1.0, (0.0, 1.0), 1.0, method=rf.Euler(), dt=1 / 64, max_steps=63)


def test_achieved_error_follows_the_tolerance():
    def pleiades_like(t, y, a):  # an eccentric two-body orbit
        r3 = (y[0] ** 2 + y[1] ** 2) ** 1.5
        return jnp.stack([y[2], y[3], -y[0] / r3, -y[1] / r3])

    y0 = np.array([0.4, 0.0, 0.0, 2.0])
    exact = scipy.integrate.solve_ivp(
        lambda t, y: np.array(pleiades_like(t, y, None)), (0, 6), y0, method="DOP853",
        rtol=1e-12, atol=1e-12,
    ).y[:, -1]  # fmt: skip
    for tolerance in (1e-4, 1e-6, 1e-8):
        sol = rf.solve_ode(pleiades_like, y0, (0.0, 6.0), rtol=tolerance, atol=tolerance)
        error = np.abs(sol.ys[-1] - exact).max()
        assert error < 300 * tolerance and sol.stats.rejected < 0.4 * sol.stats.steps


def test_tolerance_for_each_component():
    def f(t, y, args):
        return {"big": -y["big"], "small": jnp.cos(40 * t)}

    y0 = {"big": jnp.array(1e6), "small": jnp.array(0.0)}
    loose = rf.solve_ode(f, y0, (0.0, 1.0), rtol=0.0, atol={"big": 1e3, "small": 1e3})
    tight = rf.solve_ode(f, y0, (0.0, 1.0), rtol=0.0, atol={"big": 1e3, "small": 1e-9})
    assert tight.stats.steps > 2 * loose.stats.steps
    np.testing.assert_allclose(tight.ys["small"][-1], np.sin(40) / 40, atol=1e-7)


def test_complex_state():
    sol = rf.solve_ode(lambda t, y, w: 1j * w * y, jnp.array(1.0 + 0j), (0.0, 1.0), 3.0, rtol=1e-9)
    np.testing.assert_allclose(sol.ys[-1], np.exp(3j), rtol=1e-7)


def test_single_precision_stays_single():
    y0 = jnp.array([1.0, 0.0], jnp.float32)
    ts = np.linspace(0, 1, 5)
    sol = rf.solve_ode(oscillator, y0, (0.0, 1.0), 2.0, saveat=ts)
    assert sol.ys.dtype == sol.ts.dtype == jnp.float32
    np.testing.assert_allclose(sol.ys[:, 0], np.cos(2 * ts), atol=2e-4)
    gradient = jax.grad(lambda y: rf.solve_ode(oscillator, y, (0.0, 1.0), 2.0).ys[-1, 0])(y0)
    assert gradient.dtype == jnp.float32
    np.testing.assert_allclose(gradient, [np.cos(2.0), np.sin(2.0) / 2], atol=1e-3)


def test_integers_and_numpy_are_accepted():
    sol = rf.solve_ode(lambda t, y, a: -y * a["k"], 1, (0, 1), {"k": np.float64(1.0)}, rtol=1e-9)
    np.testing.assert_allclose(sol.ys[-1], np.exp(-1), rtol=1e-7)


def test_jit_and_vmap_agree_with_one_at_a_time():
    def final(y0, w):
        return rf.solve_ode(oscillator, y0, (0.0, 2.0), w, rtol=1e-8, atol=1e-8).ys[-1]

    ws = jnp.array([0.5, 1.0, 3.0])
    y0s = jnp.stack([START, 2 * START, -START])
    batched = jax.jit(jax.vmap(final))(y0s, ws)
    nested = jax.vmap(lambda y: jax.vmap(lambda w: final(y, w))(ws))(y0s)
    for i in range(3):
        np.testing.assert_allclose(batched[i], final(y0s[i], ws[i]), rtol=1e-10)
        np.testing.assert_allclose(nested[i, i], batched[i], rtol=1e-10)


def test_stats_count_evaluations():
    calls = []

    def counted(t, y, args):
        jax.debug.callback(lambda: calls.append(1))
        return -y

    sol = rf.solve_ode(counted, jnp.array(1.0), (0.0, 1.0))
    jax.effects_barrier()
    # The first slope enters the first step size too; the compiler is free to merge the two.
    assert int(sol.stats.evaluations) <= len(calls) <= int(sol.stats.evaluations) + 1
    assert int(sol.stats.evaluations) == 2 + 6 * int(sol.stats.steps)
    assert int(sol.stats.steps) == int(sol.stats.accepted + sol.stats.rejected)


def test_stiffness_estimate_is_exact_for_a_linear_equation():
    sol = rf.solve_ode(decay, jnp.array(1.0), (0.0, 2.0), 7.0)
    np.testing.assert_allclose(sol.heuristics.stiffness, 14.0, rtol=1e-9)


@pytest.mark.parametrize("rate", [1e18, 1e25, 1e30])
def test_speeds_whose_squares_are_no_numbers(rate):
    """In single precision, from the first step on."""
    for method in (rf.Tsit5(), rf.Rodas5P()):
        k = jnp.float32(rate)
        sol = rf.solve_ode(decay_at, jnp.ones(3, jnp.float32), (0.0, 3 / rate), k, method=method)
        np.testing.assert_allclose(sol.ys[-1], np.exp(-3.0), rtol=2e-4)
        assert sol.stats.steps < 12


def decay_at(t, y, rate):
    return -rate * y
