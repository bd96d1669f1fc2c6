"""Calls outside `jit`: one compiled program for what is the same, another for what is not."""

import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rootflow as rf
from rootflow import optimize
from rootflow.ground import programs
from rootflow.ground.programs import Behaviour, compiled_once

RATE = 1.0
START = jnp.ones(2)


def compiled():
    return programs._run._cache_size()


def test_equal_programs_are_compiled_once_whoever_asks():
    def double(x):
        return compiled_once(lambda: {"twice": 2 * x, "name": "x", "count": 3})

    out = double(jnp.arange(3.0))
    before = compiled()
    again = double(jnp.ones(3))
    assert compiled() == before
    np.testing.assert_array_equal(out["twice"], [0, 2, 4])
    np.testing.assert_array_equal(again["twice"], [2, 2, 2])
    # What is no array stays what it is.
    assert again["name"] == "x" and again["count"] == 3 and type(again["count"]) is int
    double(jnp.ones(4))
    assert compiled() == before + 1  # another shape


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda x: x + 0.0, lambda x: x + (-0.0)),
        (lambda x: x * 2.0, lambda x: x * 3.0),
        (lambda x: jnp.sum(x, axis=0), lambda x: jnp.sum(x, axis=1)),
        (lambda x: x @ np.eye(2), lambda x: x @ np.ones((2, 2))),
        (lambda x: x.at[0].set(1.0), lambda x: x.at[1].set(1.0)),
        (lambda x: jax.lax.fori_loop(0, 3, lambda i, v: v * x, x),
         lambda x: jax.lax.fori_loop(0, 4, lambda i, v: v * x, x)),
        (lambda x: jnp.where(x > 0, x, 1), lambda x: jnp.where(x > 0, 1, x)),
        (jax.jit(jnp.sin), jax.jit(jnp.cos)),
    ],
)  # fmt: skip
def test_different_programs_are_told_apart(one, other):
    x = jnp.arange(4.0).reshape(2, 2)
    assert Behaviour((one, (x,))) == Behaviour((lambda x: one(x), (x,)))
    assert Behaviour((one, (x,))) != Behaviour((other, (x,)))
    for f in (one, other, one):
        np.testing.assert_array_equal(compiled_once(lambda f=f: f(x)), f(x))


def objective(w, weight):
    # (Its derivative is a rule of JAX's own, made anew at each trace.)
    return jnp.sum(jnp.logaddexp(0.0, -w)) + 0.5 * weight * w @ w


VERBS = {
    "newton": lambda w: rf.argmin(lambda w, p: objective(w, p), START, w),
    "lbfgs": lambda w: rf.argmin(lambda w, p: objective(w, p), START, w, method="lbfgs"),
    "box": lambda w: rf.argmin(
        lambda w, p: objective(w, p), START, w, constraint=rf.sets.Box(0.0, 9.0)
    ),
    "inequality": lambda w: rf.argmin(
        lambda w, p: objective(w, p), START, w, inequality=lambda w, p: -w
    ),
    "root": lambda w: rf.root(lambda x, p: p * x - jax.nn.sigmoid(-x), START, w),
    "fixed_point": lambda w: rf.fixed_point(lambda x, p: jax.nn.sigmoid(-x) / p, START, w),
    "steady_state": lambda w: rf.steady_state(lambda t, x, p: jax.nn.sigmoid(-x) - p * x, START, w),
}


@pytest.mark.parametrize("verb", VERBS)
def test_verbs_compile_once_though_their_functions_are_new_ones(verb):
    solve = VERBS[verb]
    solve(2.0)
    before = compiled()
    x = solve(3.0)
    assert compiled() == before
    # The unique solution of 3 x = 1 / (1 + exp(x)).
    np.testing.assert_allclose(3 * x, 1 / (1 + np.exp(x)), rtol=1e-6)
    np.testing.assert_allclose(x, jax.jit(solve)(3.0), rtol=1e-9)


def test_a_function_may_look_at_a_number_among_its_parameters():
    def norm(w, power):
        return jnp.sum((w - 2.0) ** 2) if power > 1 else jnp.sum((w + 2.0) ** 2)

    np.testing.assert_allclose(rf.argmin(norm, START, 1.5), 2.0)
    np.testing.assert_allclose(rf.argmin(norm, START, 0.5), -2.0)
    single = rf.argmin(lambda w, p: jnp.sum((w - p) ** 2), START.astype(np.float32), 0.1)
    assert single.dtype == np.float32


def test_derivatives_and_batches_of_calls_outside_jit():
    solve = VERBS["newton"]
    slope = jax.grad(lambda w: solve(w).sum())
    weights = jnp.asarray([2.0, 3.0])
    np.testing.assert_allclose(slope(2.0), jax.jit(slope)(2.0), rtol=1e-9)
    np.testing.assert_allclose(jax.vmap(solve)(weights), jax.jit(jax.vmap(solve))(weights))
    np.testing.assert_allclose(jax.vmap(slope)(weights), jax.jit(jax.vmap(slope))(weights))
    second = jax.hessian(lambda w: solve(w).sum())
    step = 1e-5
    difference = (slope(2.0 + step) - slope(2.0 - step)) / (2 * step)
    np.testing.assert_allclose(second(2.0), difference, rtol=1e-7)


def test_outside_jit_errors_are_still_our_own():
    with pytest.raises(rf.errors.SolveError, match="not converged after 2 steps"):
        rf.argmin(lambda w: jnp.sum(w**4), START, method="newton", max_steps=2)
    with pytest.raises(rf.errors.SolveError, match="infeasible"):
        rf.argmin(lambda w: w @ w, START, inequality=lambda w: jnp.stack([w[0], 1 - w[0]]))
    with jax.disable_jit():
        np.testing.assert_allclose(rf.root(lambda x: x**2 - 4.0, START), 2.0)


def field(t, y, args):
    return -RATE * y


def test_a_changed_global_is_seen_by_every_solve_outside_jit(monkeypatch):
    noise = rf.BrownianMotion(jax.random.key(0), (2,), 0.0, 1.0)
    none = lambda t, y, args: jnp.zeros(2)
    event = rf.Event(lambda t, y, args: y[0] - np.exp(-0.5 * RATE))
    solves = {
        "ode": lambda: rf.solve_ode(field, START, (0.0, 1.0)).ys[-1],
        "stiff": lambda: rf.solve_ode(field, START, (0.0, 1.0), method=rf.Rodas5P()).ys[-1],
        "save": lambda: rf.solve_ode(
            none, START, (0.0, 1.0), save=saved
        ).ys[-1],
        "event": lambda: rf.solve_ode(decay, START, (0.0, 1.0), event=event).ys[-1] ** 2,
        "sde": lambda: rf.solve_sde(field, none, START, (0.0, 1.0), noise, dt=1e-3).ys[-1],
        "ensemble": lambda: rf.ensemble(member, START[None])[0],
    }  # fmt: skip
    for rate in (1.0, 2.0, 1.0):
        monkeypatch.setitem(globals(), "RATE", rate)
        for name, solve in solves.items():
            exact = np.exp(-rate) * np.ones(2)
            tolerance = 3e-3 if name == "sde" else 1e-4
            np.testing.assert_allclose(solve(), exact, rtol=tolerance, err_msg=name)


def saved(t, y, args):
    return jnp.exp(-RATE) * y


def decay(t, y, args):
    return -y


def member(y):
    return rf.solve_ode(field, y, (0.0, 1.0)).ys[-1]


def test_an_array_that_is_changed_in_place_is_seen():
    rates = np.ones(2)
    f = lambda t, y, args: -rates * y
    solve = lambda: rf.solve_ode(f, START, (0.0, 1.0)).ys[-1]
    np.testing.assert_allclose(solve(), np.exp([-1.0, -1.0]), rtol=1e-4)
    rates[1] = 3.0
    np.testing.assert_allclose(solve(), np.exp([-1.0, -3.0]), rtol=1e-4)


def test_a_changed_global_is_seen_by_sampling(monkeypatch):
    gen = rf.generative
    # The exact denoiser of normal data of variance RATE ** 2.
    schedule = gen.EDM()
    model = gen.Denoiser(
        lambda x, t: RATE**2 / (RATE**2 + t**2) * x, schedule, predicts="data"
    )  # fmt: skip
    jump = lambda: gen.sample(model, steps=40, start=80.0 * jnp.ones((1, 2)))[0]
    ends = {}
    for rate in (1.0, 0.5, 1.0):
        monkeypatch.setitem(globals(), "RATE", rate)
        ends[rate] = jump()
        # The flow scales x by the standard deviation that is left.
        exact = 80.0 * rate / np.hypot(rate, 80.0)
        np.testing.assert_allclose(ends[rate], exact, rtol=0.05)


def test_a_first_solve_imports_no_more_than_it_needs():
    program = """
import sys, rootflow as rf
rf.solve_ode, rf.Tsit5, rf.solve_sde
slow = {"scipy.sparse", "scipy.stats", "scipy.optimize", "optax", "optimistix", "matplotlib"}
assert not slow & set(sys.modules), slow & set(sys.modules)
rf.generative
assert not {"scipy.stats", "scipy.optimize", "matplotlib"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_changed_global_is_seen_by_training(monkeypatch):
    def loss(model, batch, key):
        return jnp.mean((model - RATE * batch) ** 2)

    for rate in (1.0, 2.0, 1.0):
        monkeypatch.setitem(globals(), "RATE", rate)
        done = rf.training.train(
            loss, jnp.zeros(()), jnp.ones(8), key=jax.random.key(0), optimizer=optax.sgd(0.2),
            steps=60,
        )  # fmt: skip
        np.testing.assert_allclose(done.model, rate, rtol=1e-6)


def test_a_changed_global_is_seen_by_a_fit(monkeypatch):
    def slope(t, y, p):
        return {"x": -RATE * p["a"] * y["x"]}

    ts = np.linspace(0.0, 2.0, 9)
    data = {"time": ts, "x": np.exp(-ts)}
    for rate in (1.0, 2.0, 1.0):
        monkeypatch.setitem(globals(), "RATE", rate)
        found = rf.fit(
            slope, data, states={"x": 1.0}, parameters={"a": rf.Parameter(0.4, 0.01, 10.0)},
            starts=1,
        )  # fmt: skip
        np.testing.assert_allclose(found["a"], 1 / rate, rtol=1e-6)


def test_a_changed_global_is_seen_by_descents(monkeypatch):
    slope = lambda x: RATE * x
    for rate in (1.0, 0.5, 1.0):
        monkeypatch.setitem(globals(), "RATE", rate)
        run = optimize.descend(optimize.gradient_descent(step=0.1), slope, jnp.ones(1), steps=3)
        np.testing.assert_allclose(run.x[-1], (1 - 0.1 * rate) ** 3, rtol=1e-9)


def test_delay_equations_compile_once_and_see_what_has_changed(monkeypatch):
    history = lambda t: jnp.ones(1)
    solve = lambda: rf.solve_dde(
        lambda t, y, past, args: -RATE * past[0], history, [1.0], (0.0, 2.0)
    )
    # By the method of steps: 1 - r t up to t = 1, then 1 - r t + r^2 (t - 1)^2 / 2.
    exact = lambda r: 1 - 2 * r + r**2 / 2
    np.testing.assert_allclose(solve().ys[-1], exact(1.0), atol=1e-6)
    before = compiled()
    np.testing.assert_allclose(solve().ys[-1], exact(1.0), atol=1e-6)
    assert compiled() == before
    monkeypatch.setitem(globals(), "RATE", 0.5)
    np.testing.assert_allclose(solve().ys[-1], exact(0.5), atol=1e-6)


@pytest.mark.parametrize("method", ["auto", "fixed_point"])
def test_a_changed_global_is_seen_by_inversion(monkeypatch, method):
    gen = rf.generative
    model = gen.Denoiser(lambda x, t: RATE**2 / (RATE**2 + t**2) * x, gen.EDM(), predicts="data")
    sampler = gen.BDIA() if method == "auto" else gen.DDIM()
    invert = lambda: gen.invert(
        model, jnp.ones((1, 2)), steps=20, sampler=sampler, method=method
    )  # fmt: skip
    fresh = {}
    for rate in (1.0, 0.5, 1.0):
        monkeypatch.setitem(globals(), "RATE", rate)
        found = jax.tree.leaves(eqx.filter(invert(), eqx.is_inexact_array))
        exact = jax.jit(lambda: jax.tree.leaves(eqx.filter(invert(), eqx.is_inexact_array)))()
        for a, b in zip(found, exact, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9)
        fresh[rate] = np.asarray(found[0])
    assert not np.allclose(fresh[1.0], fresh[0.5])


def test_a_changed_global_is_seen_by_energies_and_private_descents(monkeypatch):
    energy = rf.pde.Energy(
        lambda x, u, p: 0.5 * RATE * p @ p, lambda x: 1.0 + 0 * x[0], ellipticity=(0.5, 2)
    )
    grid = rf.pde.SineGrid(1, 16)
    loss = lambda x, record: 0.5 * RATE * jnp.sum((x - record) ** 2)
    values, ends = {}, {}
    for rate in (1.0, 2.0, 1.0):
        monkeypatch.setitem(globals(), "RATE", rate)
        values[rate] = rf.pde.minimise(energy, grid).u
        run = optimize.dp_gradient_descent(
            loss, jnp.zeros(1), jnp.ones((4, 1)), rounds=3, step=0.1, key=jax.random.key(0),
            noise=0.0, clip=100.0,
        )  # fmt: skip
        ends[rate] = float(run.params[0])
    # -r u'' = 1 has half the solution for r = 2.
    np.testing.assert_allclose(values[1.0], 2 * values[2.0], rtol=1e-4)
    np.testing.assert_allclose(ends[1.0], 1 - 0.9**3, rtol=1e-6)
    np.testing.assert_allclose(ends[2.0], 1 - 0.8**3, rtol=1e-6)
