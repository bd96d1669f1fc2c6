"""A path drives only the solves that it fits: refused where known, never a number where traced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow.flows.noise import MarkovLaw
from rootflow.flows.noise.linear import LinearFractional

KEY = jax.random.key(0)


def still(t, y, args):
    return 0.0 * y


def one(t, y, args):
    return jnp.ones_like(y)


def itself(t, y, args):
    return y


def solve(path, t1=1.0, dt: float | None = 0.05, **options):
    return rf.solve_sde(still, one, 0.0, (0.0, t1), path, dt=dt, **options)


def paths(t1=1.0, steps=20):
    return {
        "tree": rf.BrownianMotion(KEY, t1=t1),
        "area": rf.BrownianMotion(KEY, t1=t1, levy_area=True),
        "grid": rf.BrownianMotion(KEY, t1=t1, steps=steps),
        "fractional": rf.FractionalBrownianMotion(KEY, 0.7, t1=t1, steps=steps),
        "markov": rf.MarkovFractional(KEY, 0.4, t1=t1),
        "markov grid": rf.MarkovFractional(KEY, 0.4, t1=t1, steps=steps),
    }


@pytest.mark.parametrize("name", list(paths()))
def test_a_span_beyond_that_of_the_path(name):
    path = paths()[name]
    with pytest.raises(rf.InputError, match=r"\(0, 4\) leaves that of the noise, \(0, 1\)"):
        solve(path, 4.0)
    run = jax.jit(lambda t1: solve(path, t1, throw=False))
    bad, good = run(4.0), run(1.0)
    assert np.isnan(bad.ys[-1]) and bad.result == rf.Result.non_finite
    assert np.isfinite(good.ys[-1]) and good.result == rf.Result.success
    np.testing.assert_allclose(good.ys, solve(path).ys, rtol=1e-12)


def test_a_traced_misfit_raises_or_ends_the_member():
    path = paths()["tree"]
    with pytest.raises(Exception, match="leaves that of the noise"):
        jax.block_until_ready(jax.jit(lambda t1: solve(path, t1).ys)(4.0))
    with pytest.raises(Exception, match="leaves that of the noise"):
        jax.grad(lambda t1: solve(path, t1).ys[-1])(4.0)
    ends = jnp.array([0.5, 4.0, 1.0])
    ends_of = rf.ensemble(lambda t1: solve(path, t1, throw=False).ys[-1], ends)
    np.testing.assert_array_equal(np.isnan(ends_of), [False, True, False])
    np.testing.assert_allclose(ends_of[2], path(1.0), rtol=1e-10)


def test_a_path_with_steps_has_no_others():
    path = rf.BrownianMotion(KEY, steps=100)
    for options in ({"dt": 0.05}, {"dt": None, "method": rf.Heun()}):
        with pytest.raises(rf.InputError, match=r"Pass dt=0\.01"):
            solve(path, **options)
    for dt, t1, fits in ((0.05, 1.0, False), (0.01, 0.995, False), (0.01, 0.5, True)):
        run = jax.jit(lambda t1, dt: solve(path, t1, dt, throw=False).ys[-1])
        value = run(t1, dt)
        assert np.isfinite(value) == fits
        if fits:
            np.testing.assert_allclose(value, path(t1), rtol=1e-10)
    with pytest.raises(rf.InputError, match="got events"):
        solve(path, dt=0.01, event=rf.Event(lambda t, y, args: y - 0.3))
    with pytest.raises(rf.InputError, match=r"stops=.0\.333"):
        solve(path, dt=0.01, stops=jnp.array([0.333]))
    value = solve(path, dt=0.01, stops=jnp.array([0.33])).ys[-1]
    np.testing.assert_allclose(value, path(1.0), rtol=1e-10)
    # In float32 the clock is rounded, but a step of the grid remains one.
    path = rf.BrownianMotion(KEY, steps=1000, dtype=jnp.float32)
    zero = jnp.float32(0)
    run = jax.jit(lambda t1, dt: rf.solve_sde(still, one, zero, (0.0, t1), path, dt=dt).ys[-1])
    np.testing.assert_allclose(run(jnp.float32(1), jnp.float32(1e-3)), path(1.0), rtol=1e-4)


@pytest.mark.parametrize("area", [False, True])
def test_steps_below_the_resolution_of_the_tree(area):
    make = lambda depth=16, t1=4096.0: rf.BrownianMotion(KEY, t1=t1, levy_area=area, depth=depth)
    path = make()
    go = lambda path, dt, **more: rf.solve_sde(still, itself, 1.0, (0.0, 1.0), path, dt=dt, **more)
    with pytest.raises(rf.InputError, match=r"dt = 0\.00390625 is below 0\.0625.*depth=20"):
        go(path, 1 / 256)
    ended = jax.jit(lambda path, dt: go(path, dt, throw=False))
    results = [int(ended(p, 1 / 256).result) for p in (path, make(t1=1.0))]
    assert results == [rf.Result.non_finite, rf.Result.success]
    # With depth enough the geometric mean of the solution is exp(-1/2).
    keys = jax.random.split(KEY, 2000)
    deep = lambda key: rf.BrownianMotion(key, t1=4096.0, levy_area=area, depth=20)
    logs = jax.jit(jax.vmap(lambda key: jnp.log(jnp.abs(go(deep(key), 1 / 256).ys[-1]))))(keys)
    assert abs(np.mean(logs) + 0.5) < 4 / np.sqrt(2000)
    with pytest.raises(rf.InputError, match=r"gap between two stops = 0\.001 is below"):
        go(path, 0.1, stops=jnp.array([0.3, 0.301]))


def test_adaptive_steps_do_not_go_below_the_resolution():
    options: dict = dict(method=rf.Heun(), rtol=1e-3, atol=1e-3)
    coarse, fine = (rf.BrownianMotion(KEY, t1=t1) for t1 in (4096.0, 1.0))
    go = lambda path, **more: rf.solve_sde(
        still, itself, 1.0, (0.0, 1.0), path, throw=False, **options, **more
    )
    assert go(coarse).result == rf.Result.step_underflow
    steps = go(fine, saveat="steps").ts
    sizes = np.diff(steps[np.isfinite(steps)])
    assert sizes[:-1].min() > 0.99 / 2**16
    traced = jax.jit(go)
    assert traced(coarse).result == rf.Result.non_finite
    done = traced(fine)
    assert done.result == rf.Result.success
    np.testing.assert_allclose(done.ys[-1], np.exp(fine(1.0)), rtol=1e-2)
    with pytest.raises(rf.InputError, match=r"dt_max = 0\.001 is below 0\.0625"):
        go(coarse, controller=rf.PIDController(dt_max=0.001))


def test_what_cannot_be_is_nan_where_it_is_traced():
    late, early = jnp.array([0.3, 0.5, 0.8]), jnp.array([0.5, 0.3, 0.8])
    model, seen = LinearFractional(MarkovLaw(0.7, terms=2)), jnp.ones(3)

    @jax.jit
    def values(hurst, horizon, end, ts):
        path = lambda **options: rf.BrownianMotion(KEY, t1=end, **options)
        fractional = rf.FractionalBrownianMotion(KEY, hurst, steps=4)
        t, h = jnp.asarray(0.25), jnp.asarray(0.25)
        return (
            MarkovLaw(hurst).weights, MarkovLaw(0.7, horizon).error,
            fractional.advance(t, h, fractional.start(t))[0].w,
            model.transition(ts[1] - ts[0])[0], MarkovLaw(0.7).sample(KEY, ts)[1],
            *(p.advance(t, h, p.start(t))[0].w for p in (
                path(), path(levy_area=True), path(steps=4)
            )),
        )  # fmt: skip

    good = values(0.7, 1.0, 1.0, late)
    bad = values(1.5, -1.0, -1.0, early)
    assert all(np.isfinite(v).all() for v in good)
    assert all(np.isnan(v).all() for v in bad)
    with pytest.raises(rf.InputError, match="X begins at t0=0"):
        model.smooth(late, seen, jnp.array([-0.1]))
