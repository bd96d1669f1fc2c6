"""States of many numbers: by default nothing grows with the square of their count."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import generative as gen
from rootflow.flows import jacobian as jac

SIDE = 52  # 2704 unknowns
N = SIDE * SIDE
DEFAULT = {
    "Tsit5": rf.Tsit5(), "auto": "auto", "Rosenbrock23": rf.Rosenbrock23(), "Rodas5P": rf.Rodas5P(),
    "ImplicitEuler": rf.ImplicitEuler(), "Kvaerno5": rf.Kvaerno5(), "BDF": rf.BDF(),
}  # fmt: skip


def heat(t, u, rate):
    """The heat equation on a periodic square, by second differences."""
    p = jnp.pad(u, 1, mode="wrap")
    near = p[2:, 1:-1] + p[:-2, 1:-1] + p[1:-1, 2:] + p[1:-1, :-2]
    return rate * u.shape[0] ** 2 * (near - 4 * u)


def wave(side):
    """A product of cosines, and by what rate it decays for `rate=1`."""
    x = np.cos(2 * np.pi * np.arange(side) / side)
    return np.outer(x, x), 2 * side**2 * (2 - 2 * np.cos(2 * np.pi / side))


def largest(function, *arguments):
    """The most numbers in any array of the program that is handed to the compiler."""
    program = jax.jit(function).lower(*arguments).as_text()
    shapes = re.findall(r"tensor<((?:\d+x)+)[a-z]", program)
    return max(math.prod(map(int, shape.split("x")[:-1])) for shape in set(shapes))


def final(u, rate, method):
    # (The record for the derivative has some part of so many states.)
    options = dict(method=method, rtol=1e-7, atol=1e-9, max_steps=64)
    return rf.solve_ode(heat, u, (0.0, 0.5), rate, **options).ys[-1]


@pytest.mark.parametrize("name", DEFAULT)
def test_no_array_has_as_many_numbers_as_a_matrix(name):
    u0 = jnp.asarray(wave(SIDE)[0])

    def loss(u, rate):
        return jnp.sum(final(u, rate, DEFAULT[name]) ** 2)

    assert largest(jax.value_and_grad(loss, (0, 1)), u0, 0.02) < N**2 / 4


@pytest.mark.parametrize("name", ["Rodas5P", "Kvaerno5", "BDF"])
def test_products_alone_solve_what_matrices_solve(name, monkeypatch):
    """Values and derivatives, and the estimate of the largest eigenvalue, of a closed form."""
    side, rate = 12, 0.05
    u0, decay = wave(side)
    span = 0.1
    expected = np.exp(-decay * rate * span)

    def run(rate):
        sol = rf.solve_ode(
            heat, jnp.asarray(u0), (0.0, span), rate, method=DEFAULT[name], dt=span / 20,
            rtol=1e-9, atol=1e-11,
        )  # fmt: skip
        return sol.ys[-1][0, 0], sol.heuristics.stiffness / span

    def everything(rate):
        (value, stiffness), (dot, its_dot) = jax.jvp(run, (rate,), (1.0,))
        return value, dot, jax.grad(lambda r: run(r)[0])(rate), stiffness, its_dot

    by_matrix = jax.jit(everything)(rate)
    monkeypatch.setattr(jac, "_DENSE", 50)
    value, dot, slope, stiffness, its_dot = jax.jit(lambda r: everything(r))(rate)
    np.testing.assert_allclose([value, dot, slope], by_matrix[:3], rtol=1e-6)
    tolerance = 5e-3 if name == "BDF" else 1e-5  # which begins with order 1
    np.testing.assert_allclose(value, expected, rtol=tolerance)
    np.testing.assert_allclose(slope, -decay * span * expected, rtol=tolerance)
    # The largest eigenvalue is 8 rate side**2; it is estimated from below.
    top = 8 * rate * side**2
    assert 0.6 * top < stiffness <= top * (1 + 1e-9)
    np.testing.assert_allclose(its_dot, stiffness / rate, rtol=1e-6)


def test_auto_goes_to_the_stiff_method_and_back_without_a_matrix(monkeypatch):
    """A rate that falls from stiff to slow, and a source with which the solution is exp(-t)."""
    monkeypatch.setattr(jac, "_DENSE", 50)
    side = 12
    u0, decay = wave(side)

    def fading(t, u, args):
        rate = 40.0 * jnp.exp(-8 * t)
        return heat(t, u, rate) + decay * rate * jnp.exp(-t) * u0 - u

    sol = rf.solve_ode(fading, jnp.asarray(u0), (0.0, 3.0), method="auto", rtol=1e-6)
    np.testing.assert_allclose(sol.ys[-1], np.exp(-3.0) * u0, atol=1e-6)
    assert 0 < sol.stats.jacobians < sol.stats.accepted < 200


def test_what_is_asked_for_is_formed():
    u0 = jnp.asarray(wave(SIDE)[0])
    method = rf.Kvaerno5(linear_solver="direct")
    assert largest(lambda u: final(u, 0.02, method), u0) >= N**2


def test_a_steady_state_of_many_unknowns():
    """Of a reaction that stands still at one, wherever it starts."""
    u0 = jnp.asarray(1 + 0.3 * wave(SIDE)[0])

    def steady(source):
        def f(t, u, s):
            return heat(t, u, 0.02) + s - u - u**3

        return rf.steady_state(f, u0, source)

    value, slope = jax.jvp(steady, (2.0,), (1.0,))
    np.testing.assert_allclose(value, 1.0, rtol=1e-9)
    np.testing.assert_allclose(slope, 0.25, rtol=1e-7)  # 1 / (1 + 3 u**2)
    gradient = jax.grad(lambda s: jnp.sum(steady(s)))
    np.testing.assert_allclose(gradient(2.0), 0.25 * N, rtol=1e-7)
    assert largest(gradient, 2.0) < N**2 / 4


def test_samples_and_likelihoods_of_many_numbers():
    schedule = gen.VPLinear()

    def clean(x, t):
        """The best prediction of standard normal data."""
        return schedule.alpha(t) * x / (schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2)

    denoiser = gen.Denoiser(clean, schedule, "data")
    x, key = jnp.ones((1, N)), jax.random.key(0)

    def density(x):
        return jnp.sum(gen.log_likelihood(denoiser, x, trace="hutchinson", key=key))

    flow = gen.ProbabilityFlow()
    sample = lambda x: gen.sample(denoiser, start=x, sampler=flow, throw=False)
    for function in (density, jax.grad(density), sample):
        assert largest(function, x) < N**2 / 4
    # Normal data stay normal all the way, so that no probe errs: the density is known.
    expected = -0.5 * N * (1 + np.log(2 * np.pi))
    np.testing.assert_allclose(density(x), expected, rtol=1e-4)
