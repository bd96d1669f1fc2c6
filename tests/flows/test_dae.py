"""`rf.solve_dae`: mass matrices, consistent initial states, derivatives, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf

RATES = jnp.array([0.04, 3e7, 1e4])
# Hairer & Wanner's test set, at t = 40.
ROBERTSON_40 = [0.7158270688, 9.185534764e-6, 0.2841637457]
MASS = jnp.diag(jnp.array([1.0, 1.0, 0.0]))
ONE = jnp.array([1.0, 0.0, 0.0])
TIGHT = dict(rtol=1e-9, atol=1e-9)


def robertson(t, y, k):
    slow, pair, fast = k[0] * y[0], k[2] * y[1] * y[2], k[1] * y[1] ** 2
    return jnp.stack([pair - slow, slow - pair - fast, y.sum() - 1.0])


@pytest.mark.parametrize("mass", [MASS, jnp.array([1.0, 1.0, 0.0])], ids=["matrix", "diagonal"])
def test_robertson_with_its_conservation_law(mass):
    sol = rf.solve_dae(robertson, ONE, (0.0, 40.0), RATES, mass=mass, rtol=1e-7, atol=1e-11)
    np.testing.assert_allclose(sol.ys[-1], ROBERTSON_40, rtol=1e-5)
    np.testing.assert_allclose(sol.ys[-1].sum(), 1.0, rtol=1e-12)


def circuit(t, y, a):
    """y' = z, 0 = z + a y: y = y0 exp(-a t)."""
    return {"y": y["z"], "z": y["z"] + a * y["y"]}


def test_the_algebraic_variable_is_made_consistent_and_differentiated():
    mass = {"y": jnp.array(1.0), "z": jnp.array(0.0)}

    def final(y0, a):
        start = {"y": y0, "z": jnp.array(123.0)}
        sol = rf.solve_dae(circuit, start, (0.0, 1.0), a, mass=mass, **TIGHT)
        return sol.ys["y"][-1], sol.ys["z"][-1]

    value = final(2.0, 1.5)
    np.testing.assert_allclose(value, [2 * np.exp(-1.5), -3 * np.exp(-1.5)], rtol=1e-7)
    gradient = jax.grad(lambda *x: final(*x)[1], (0, 1))(2.0, 1.5)
    expected = (-1.5 * np.exp(-1.5), -2 * np.exp(-1.5) + 3 * np.exp(-1.5))
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


def test_a_mass_matrix_that_is_not_diagonal():
    # M y' = -y with M = [[2, 1], [1, 1]]: y = expm(-t inv(M)) y0.
    from scipy.linalg import expm

    mass = np.array([[2.0, 1.0], [1.0, 1.0]])
    sol = rf.solve_dae(lambda t, y, a: -y, jnp.array([1.0, 2.0]), (0.0, 1.0), mass=mass, **TIGHT)
    np.testing.assert_allclose(sol.ys[-1], expm(-np.linalg.inv(mass)) @ [1.0, 2.0], rtol=1e-7)


def test_pendulum_reduced_to_index_1():
    """Positions, velocities and the tension, which the twice differentiated constraint gives."""

    def pendulum(t, s, g):
        x, y, u, v, tension = s
        return jnp.stack(
            [u, v, -tension * x, -tension * y - g, u**2 + v**2 - tension * (x**2 + y**2) - g * y]
        )

    start = jnp.array([1.0, 0.0, 0.0, 0.0, 5.0])
    sol = rf.solve_dae(
        pendulum, start, (0.0, 2.0), 9.81, mass=jnp.array([1.0, 1.0, 1.0, 1.0, 0.0]), **TIGHT
    )
    # The same pendulum by its angle.
    angle = rf.solve_ode(
        lambda t, s, g: jnp.stack([s[1], -g * jnp.sin(s[0])]), jnp.array([np.pi / 2, 0.0]),
        (0.0, 2.0), 9.81, rtol=1e-11, atol=1e-11,
    ).ys[-1, 0]  # fmt: skip
    expected = np.array([np.sin(angle), -np.cos(angle)])
    np.testing.assert_allclose(sol.ys[-1, :2], expected, atol=1e-6)


def test_batch_of_daes():
    def final(k0):
        k = RATES.at[0].set(k0)
        return rf.solve_dae(robertson, ONE, (0.0, 1.0), k, mass=MASS, max_steps=256).ys[-1]

    many = jax.vmap(final)(jnp.array([0.04, 0.1]))
    np.testing.assert_allclose(many[0], final(0.04), rtol=1e-6)
    np.testing.assert_allclose(many.sum(axis=1), 1.0, rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(mass=jnp.eye(2)), r"shape \(3, 3\)"),
        (dict(mass=MASS, method=rf.Tsit5()), "does not solve M dy/dt"),
        (dict(mass=MASS, initial="free"), "consistent"),
        (dict(mass=MASS, adjoint=rf.BacksolveAdjoint()), "mass matrices"),
    ],
)
def test_refused(options, message):
    with pytest.raises(rf.InputError, match=message):
        rf.solve_dae(robertson, ONE, (0.0, 1.0), RATES, **options)


def test_higher_index_is_refused():
    # 0 = y[0] says nothing about y[1].
    with pytest.raises(rf.SolveError, match=r"No consistent initial state.*index is higher"):
        rf.solve_dae(
            lambda t, y, a: jnp.stack([y[1], y[0] - 1.0]), jnp.array([0.0, 0.0]), (0.0, 1.0),
            mass=jnp.array([1.0, 0.0]),
        )  # fmt: skip


def switched(t, y, args):
    return jnp.stack([-y[0] + y[1], y[1] - jnp.where(t < 1, 1.0, 3.0)])


@pytest.mark.parametrize("method", [rf.Rodas5P(), rf.Rosenbrock23(), rf.Kvaerno5(), rf.BDF()])
def test_algebraic_variables_are_found_again_after_a_stop(method):
    """z jumps from 1 to 3 at t = 1, and x = 1 - e**-t goes over to 3 - 2 e**-(t - 1) + ..."""

    def solve(rate):
        field = lambda t, y, r: switched(t, y, None) * jnp.stack([r, jnp.ones_like(r)])
        return rf.solve_dae(
            field, jnp.array([0.0, 1.0]), (0.0, 2.0), rate, mass=jnp.array([1.0, 0.0]),
            stops=jnp.array([1.0]), saveat=jnp.array([1.01, 2.0]), method=method,
        ).ys  # fmt: skip

    exact = lambda r: 3 + (1 - jnp.exp(-r) - 3) * jnp.exp(-r)
    ys = solve(1.0)
    np.testing.assert_allclose(ys[:, 1], 3.0, rtol=1e-9)
    np.testing.assert_allclose(ys[-1, 0], exact(1.0), rtol=1e-4)
    slope = jax.grad(lambda r: solve(r)[-1, 0])(1.0)
    np.testing.assert_allclose(slope, jax.grad(exact)(1.0), rtol=1e-3)


@pytest.mark.parametrize("method", [rf.Rodas5P(), rf.Kvaerno5()])
def test_algebraic_variables_are_found_again_after_a_jump(method):
    """x doubles at t = 0.5; z = x^2 must follow at once."""
    field = lambda t, y, a: jnp.stack([-y[0], y[1] - y[0] ** 2])
    event = rf.Event(
        lambda t, y, a: t - 0.5, terminal=False, jump=lambda t, y, a: jnp.stack([2 * y[0], y[1]])
    )
    sol = rf.solve_dae(
        field, jnp.array([1.0, 1.0]), (0.0, 1.0), mass=jnp.array([1.0, 0.0]), event=event,
        saveat=jnp.array([0.501, 1.0]), method=method,
    )  # fmt: skip
    x = 2 * np.exp([-0.501, -1.0])
    np.testing.assert_allclose(sol.ys, np.stack([x, x**2], axis=1), rtol=1e-4)


def test_a_given_state_that_does_not_fit_is_refused():
    field = lambda t, y, a: jnp.stack([-y[0], y[1] - y[0]])
    mass = jnp.array([1.0, 0.0])
    options = dict(mass=mass, initial="given")
    with pytest.raises(rf.SolveError, match="given"):
        rf.solve_dae(field, jnp.array([1.0, 5.0]), (0.0, 1.0), **options)
    sol = rf.solve_dae(field, jnp.array([1.0, 1.0]), (0.0, 1.0), **options)
    np.testing.assert_allclose(sol.ys[-1], np.exp(-1), rtol=1e-4)
