"""`saveat="steps"` with `save=`: of each step only what is asked for is kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf


def oscillator(t, y, w):
    q, p = y
    return p, -(w**2) * q


def _acceleration(t, q, w):
    return -(w**2) * q


def energy(t, y, w):
    q, p = y
    return {"energy": 0.5 * (p**2 + (w * q) ** 2), "twice": jnp.stack([t, 2 * q])}


START = (1.0, 0.0)


@pytest.mark.parametrize("options", [{"rtol": 1e-8, "max_steps": 128}, {"dt": 0.05}])
def test_what_is_saved_is_the_function_of_the_states(options):
    options |= {"saveat": "steps"}
    if "dt" in options:
        options |= {"max_steps": 60}
    states = rf.solve_ode(oscillator, START, (0.5, 3.5), 2.0, **options)
    seen = rf.solve_ode(oscillator, START, (0.5, 3.5), 2.0, save=energy, **options)
    np.testing.assert_array_equal(seen.ts, states.ts)
    n = int(states.stats.accepted)
    expected = jax.vmap(lambda t, y: energy(t, y, 2.0))(states.ts, states.ys)
    for name in ("energy", "twice"):
        np.testing.assert_allclose(seen.ys[name][:n], expected[name][:n], rtol=1e-14)
        assert np.all(np.isnan(seen.ys[name][n:]))


def _last(w, save):
    sol = rf.solve_ode(
        rf.SecondOrder(_acceleration), START, (0.0, 2.0), w, method=rf.LeapFrog(), dt=0.1,
        saveat="steps", save=save, max_steps=20,
    )  # fmt: skip
    seen = sol.ys if save is not None else jax.vmap(lambda t, y: energy(t, y, w))(sol.ts, sol.ys)
    return jnp.sum(seen["energy"] ** 2)


def test_derivatives_are_those_of_the_steps():
    found, expected = (jax.grad(_last)(1.5, save) for save in (energy, None))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    h = 1e-5
    slope = (_last(1.5 + h, energy) - _last(1.5 - h, energy)) / (2 * h)
    np.testing.assert_allclose(found, slope, rtol=1e-7)
    _, forward = jax.jvp(lambda w: _last(w, energy), (1.5,), (1.0,))
    np.testing.assert_allclose(forward, expected, rtol=1e-12)
    both = jax.vmap(jax.grad(lambda w: _last(w, energy)))(jnp.array([1.5, 2.0]))
    np.testing.assert_allclose(both[0], expected, rtol=1e-12)


def test_members_of_a_batch_keep_their_own_steps():
    def solve(w, save):
        return rf.solve_ode(
            oscillator, START, (0.0, 2.0), w, saveat="steps", save=save, max_steps=64
        )

    ws = jnp.array([1.0, 4.0])
    seen = jax.vmap(lambda w: solve(w, energy))(ws)
    states = jax.vmap(lambda w: solve(w, None))(ws)
    q, p = states.ys
    np.testing.assert_allclose(seen.ys["energy"], 0.5 * (p**2 + (ws[:, None] * q) ** 2), rtol=1e-13)
