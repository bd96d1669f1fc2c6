"""Newmark's and the generalised-α method: orders, energy, damping, derivatives, messages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse import bmat, eye

import rootflow as rf

METHODS = [rf.Newmark(), rf.GeneralizedAlpha(1.0), rf.GeneralizedAlpha(0.5), rf.GeneralizedAlpha(0)]


def pendulum(t, q, args):
    return -jnp.sin(q) + 0.3 * jnp.cos(2 * t)


def damped(t, q, p, c):
    return -4 * q - 2 * c * p


def solved(method, f, y0, end, steps, args=None, **options):
    return rf.solve_ode(
        f, y0, (0.0, end), args, method=method, dt=end / steps, max_steps=steps, **options
    )


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_second_order_for_a_driven_pendulum(method):
    exact = rf.solve_ode(
        rf.SecondOrder(pendulum), (1.0, 0.0), (0.0, 2.0), method=rf.Dopri8(), rtol=1e-12,
        atol=1e-12,
    ).ys  # fmt: skip
    errors = []
    for n in (40, 80):
        sol = solved(method, rf.SecondOrder(pendulum), (1.0, 0.0), 2.0, n, rtol=1e-10, atol=1e-12)
        errors.append(np.hypot(*(np.asarray(a - b)[-1] for a, b in zip(sol.ys, exact))))
    assert 1.8 < np.log2(errors[0] / errors[1]) < 2.3


def test_damped_oscillator_has_its_closed_form():
    c = 0.5
    w = np.sqrt(4 - c**2)
    q = solved(rf.Newmark(), rf.Damped(damped), (1.0, 0.0), 2.0, 400, c).ys[0][-1]
    exact = np.exp(-c * 2) * (np.cos(2 * w) + c / w * np.sin(2 * w))
    np.testing.assert_allclose(q, exact, atol=2e-5)


# A chain with a frequency far above what the step resolves.
STIFFNESS = np.array([[2.0, -1.0, 0.0], [-1.0, 1e4, -1.0], [0.0, -1.0, 3.0]])


def chain(t, q, args):
    return -jnp.asarray(STIFFNESS) @ q


def energies(method, steps=60):
    y0 = (jnp.array([1.0, 0.3, -0.5]), jnp.array([0.0, 1.0, 0.2]))
    sol = solved(method, rf.SecondOrder(chain), y0, 12.0, steps, saveat="steps")
    q, p = map(np.asarray, sol.ys)
    return 0.5 * np.sum(p**2, axis=1) + 0.5 * np.einsum("ti,ij,tj->t", q, STIFFNESS, q)


def test_the_trapezoidal_rule_keeps_the_energy_and_damping_takes_it():
    kept = energies(rf.Newmark())
    np.testing.assert_allclose(kept, kept[0], rtol=1e-10)
    lost = energies(rf.GeneralizedAlpha(0.0))
    # What is left is the slow motion, whose share of the energy is far below a hundredth.
    assert lost[-1] < 0.02 * lost[0]


def test_what_is_left_of_a_fast_oscillation_is_rho():
    f = rf.SecondOrder(lambda t, q, args: -1e10 * q)
    for rho in (0.3, 0.8):
        sol = solved(rf.GeneralizedAlpha(rho), f, (1.0, 0.0), 20.0, 150, saveat="steps")
        size = np.abs(np.asarray(sol.ys[0]))[-8:]
        rates = np.exp(np.polyfit(np.arange(8), np.log(size), 1)[0])
        assert abs(rates - rho) < 0.02 * rho  # times a polynomial in the number of steps


def end_of_chain(k, method, **options):
    def f(t, q, args):
        return -k * q**3 + jnp.sin(t)

    return solved(method, rf.SecondOrder(f), (jnp.ones(2), jnp.zeros(2)), 1.0, 10, **options).ys[0]


def test_derivatives():
    method = rf.GeneralizedAlpha(0.7)

    def loss(k):
        return jnp.sum(end_of_chain(k, method, rtol=1e-12, atol=1e-13) ** 2)

    k, h = jnp.array([2.0, 1.0]), 1e-5
    found = jax.grad(loss)(k)
    for i in range(2):
        step = h * jnp.eye(2)[i]
        slope = (loss(k + step) - loss(k - step)) / (2 * h)
        np.testing.assert_allclose(found[i], slope, rtol=1e-7)
    np.testing.assert_allclose(jax.jvp(loss, (k,), (k,))[1], jnp.dot(found, k), rtol=1e-10)


def test_a_band_gives_what_the_full_matrix_gives():
    n = 60
    stiffness = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)

    def f(t, q, args):
        return -jnp.asarray(stiffness) @ q

    y0 = (jnp.sin(jnp.arange(n)), jnp.zeros(n))
    pattern = bmat([[None, eye(n)], [stiffness != 0, None]])
    plain, banded = (
        solved(rf.GeneralizedAlpha(), rf.SecondOrder(f), y0, 1.0, 5, **options).ys[0]
        for options in ({}, {"jac_sparsity": pattern})
    )
    np.testing.assert_allclose(banded, plain, rtol=1e-9, atol=1e-11)


def test_messages():
    with pytest.raises(rf.InputError, match=r"rho must lie in \[0, 1\].*got 1.5"):
        rf.GeneralizedAlpha(1.5)
    with pytest.raises(rf.InputError, match=r"beta=0\.1"):
        rf.Newmark(0.1)
    with pytest.raises(rf.InputError, match="SecondOrder"):
        rf.solve_ode(lambda t, y, args: y, 1.0, (0.0, 1.0), method=rf.Newmark(), dt=0.1)
    with pytest.raises(rf.InputError, match="is a pair"):
        rf.solve_ode(rf.Damped(damped), 1.0, (0.0, 1.0), 1.0, method=rf.Newmark(), dt=0.1)
