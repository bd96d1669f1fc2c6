"""Underdamped Langevin dynamics: orders on a path, stationary law, limits."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow.flows.methods.sde import ShARK
from rootflow.flows.methods.sde_langevin import ALIGN, BAOAB, Langevin, _phi
from rootflow.flows.noise import BrownianMotion
from rootflow.flows.sde import solve_sde

QUARTIC = Langevin(lambda t, q, a: -q - q**3, friction=1.5, temperature=0.7, mass=1.2)
Y0 = (jnp.array([1.0, -0.5]), jnp.array([0.0, 0.3]))


def solve(langevin, y0, path, method, span=(0.0, 1.0), args=None, **options):
    return solve_sde(langevin, langevin.diffusion, y0, span, path, args, method=method, **options)


def test_strong_orders_against_a_method_for_any_additive_noise():
    """BAOAB converges with order 1 and ALIGN with order 2, on the same paths."""

    @partial(jax.jit, static_argnums=2)
    @partial(jax.vmap, in_axes=(0, None, None))
    def final(key, dt, method):
        path = BrownianMotion(key, (2,), levy_area=True)
        return solve(QUARTIC, Y0, path, method, dt=dt, max_steps=256).ys

    keys = jax.random.split(jax.random.key(0), 64)
    exact = final(keys, 1 / 256, ShARK())
    for method, order in ((BAOAB(), 1.0), (ALIGN(), 2.0)):
        errors = [
            [
                float(jnp.sqrt(jnp.mean((a - b) ** 2)))
                for a, b in zip(final(keys, dt, method), exact)
            ]
            for dt in (1 / 8, 1 / 32)
        ]
        slopes = np.log2(np.array(errors[0]) / np.array(errors[1])) / 2
        np.testing.assert_allclose(slopes, order, atol=0.2)


@pytest.mark.parametrize("method", [BAOAB(), ALIGN()])
def test_the_stationary_law_of_an_oscillator(method):
    """Variance of q is temperature / stiffness, that of v temperature / mass."""
    langevin = Langevin(lambda t, q, a: -a * q, friction=2.0, temperature=0.5, mass=0.8)
    stiffness, h = 1.5, 0.25
    steps = 80
    q0, v0 = np.sqrt(0.5 / stiffness), np.sqrt(0.5 / 0.8)

    @jax.jit
    @jax.vmap
    def final(key):
        first, second = jax.random.split(key)
        start = jax.random.normal(first, (2,)) * jnp.array([q0, v0])
        path = BrownianMotion(second, (), 0.0, steps * h, steps=steps)
        sol = solve(langevin, (start[0], start[1]), path, method, (0.0, steps * h), stiffness, dt=h)
        return jnp.stack([x[-1] for x in sol.ys])

    q, v = np.asarray(final(jax.random.split(jax.random.key(1), 8000))).T
    # BAOAB has the law of q exactly, and that of v to second order.
    np.testing.assert_allclose(q.var(), 0.5 / stiffness, rtol=0.05)
    np.testing.assert_allclose(v.var(), 0.5 / 0.8, rtol=0.08)
    assert abs(np.corrcoef(q, v)[0, 1]) < 0.05


def test_without_a_force_velocities_decay_exactly_and_ALIGN_knows_the_noise_to_high_order():
    """Cold: v = exp(-friction t) v0, for both. Warm: against many small steps."""
    free = Langevin(lambda t, q, a: 0.0 * q, friction=3.0, temperature=0.0)
    path = BrownianMotion(jax.random.key(2), (2,), levy_area=True)
    for method in (BAOAB(), ALIGN()):
        q, v = solve(free, Y0, path, method, dt=0.5).ys
        np.testing.assert_allclose(v[-1], np.exp(-3.0) * Y0[1], rtol=1e-12)
    q, _ = solve(free, Y0, path, ALIGN(), dt=0.5).ys
    np.testing.assert_allclose(q[-1], Y0[0] - np.expm1(-3.0) / 3 * Y0[1], rtol=1e-12)


def test_adaptive_steps_saved_times_pytrees_and_gradients():
    langevin = lambda friction: Langevin(
        lambda t, q, a: jax.tree.map(lambda x: -a * x, q), friction=friction, temperature=0.3
    )
    y0 = ({"a": jnp.ones(2), "b": jnp.array(0.5)}, {"a": jnp.zeros(2), "b": jnp.array(0.1)})
    path = BrownianMotion(jax.random.key(3), (3,), levy_area=True)
    ts = jnp.array([0.5, 1.0])

    @jax.jit
    def final(friction):
        sol = solve(
            langevin(friction), y0, path, ALIGN(), args=2.0, rtol=1e-4, atol=1e-4, saveat=ts
        )
        return sol.ys[0]["b"][-1], sol.ys

    @jax.jit
    def fixed(friction, dt):
        sol = solve(langevin(friction), y0, path, BAOAB(), args=2.0, dt=dt, max_steps=2048)
        return sol.ys[0]["b"][-1]

    np.testing.assert_allclose(final(1.2)[0], fixed(1.2, 1 / 2048), atol=2e-3)
    slope = (fixed(1.2 + 1e-6, 1 / 16) - fixed(1.2 - 1e-6, 1 / 16)) / 2e-6
    np.testing.assert_allclose(jax.jit(jax.grad(fixed))(1.2, 1 / 16), slope, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_coefficients_near_zero_and_far_from_it(dtype):
    z = np.array([0.0, 1e-6, 0.1, 0.999, 1.001, 8.0])
    found = np.stack(_phi(jnp.asarray(z, dtype)))
    s = (np.arange(20_000) + 0.5) / 20_000
    weights = np.stack([np.ones_like(s), 1 - s, 0.5 * (1 - s) ** 2])
    decay = np.exp(-z[:, None] * s)
    exact = np.concatenate([np.exp(-z)[None], weights @ decay.T / s.size])
    np.testing.assert_allclose(found, exact, rtol=1e-7 if dtype == np.float64 else 1e-5)


def test_refused():
    with pytest.raises(rf.InputError, match=r"friction must be finite and positive; got 0\.0"):
        Langevin(lambda t, q, a: -q, friction=0.0)
    with pytest.raises(rf.InputError, match="temperature must be finite and not negative"):
        Langevin(lambda t, q, a: -q, temperature=-1.0)
    with pytest.raises(rf.InputError, match="force must be a function"):
        Langevin(3.0)  # pyright: ignore
    path = BrownianMotion(jax.random.key(2), (2,))
    with pytest.raises(rf.InputError, match=r"BAOAB\(\) is for Langevin dynamics"):
        solve_sde(
            lambda t, y, a: -y, lambda t, y, a: jnp.ones(2), jnp.ones(2), (0.0, 1.0), path,
            method=BAOAB(), dt=0.1,
        )  # fmt: skip
    with pytest.raises(rf.InputError, match=r"ALIGN\(\) needs the space-time Levy area"):
        solve(QUARTIC, Y0, path, ALIGN(), dt=0.1)
    with pytest.raises(rf.InputError, match=r"pass y0 = \(q, v\)"):
        bad = lambda t, y, a: jnp.zeros((2, 2))
        solve_sde(
            eqx_pair(QUARTIC), bad, jnp.ones(2), (0.0, 1.0), path, method=rf.EulerHeun(), dt=0.1
        )


def eqx_pair(langevin):
    """The same equation with a drift that accepts a state which is not a pair."""

    class Loose(Langevin):
        def __call__(self, t, y, args):
            return -y

    return Loose(langevin.force)
