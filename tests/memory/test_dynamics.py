import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from rootflow import memory as mem
from rootflow.errors import InputError

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def small():
    """Six neurons, so that all 64 configurations can be counted."""
    rows = np.random.default_rng(1).normal(size=(2, 6))
    return mem.DenseHebbian(rows, 4)


def test_long_runs_follow_the_law_of_gibbs(small):
    every = np.array([[1 - 2 * (k >> i & 1) for i in range(6)] for k in range(64)], dtype=float)
    energies = jax.vmap(small.energy)(jnp.asarray(every))
    T = 0.5
    weights = np.exp(-np.asarray(energies) / T)
    weights /= weights.sum()
    keys = jax.random.split(KEY, 4)
    run = eqx.filter_jit(
        lambda keys, spin: jax.vmap(
            lambda key: mem.glauber(key, small, spin, temperature=T, sweeps=4000, discard=100)
        )(keys)
    )(keys, every[0])
    # The energy of each sweep is recorded, so that its mean is that of the law.
    energy = np.asarray(run.energies[:, 100:])
    spread = np.std(energy.mean(axis=1)) / 2
    np.testing.assert_allclose(energy.mean(), weights @ energies, atol=0.01 + 4 * spread)
    assert np.all(run.sweeps == 4000)
    # By symmetry no neuron prefers a sign.
    assert np.all(np.abs(np.mean(run.mean, axis=0)) < 0.35)


@pytest.fixture(scope="module")
def noisy():
    data = mem.examples(KEY, neurons=40, archetypes=60, quality=0.7, quantity=5)
    return data, mem.DenseHebbian.supervised(data.examples, 4, quality=0.7)


def test_at_zero_temperature_the_energy_never_rises_and_runs_come_to_rest(noisy):
    data, net = noisy
    flips = jax.random.bernoulli(jax.random.key(3), 0.3, (40,))
    start = jnp.where(flips, -data.archetypes[0], data.archetypes[0])
    for each in (net, mem.DenseHebbian(net.rows, 4, distinct=False)):
        run = mem.glauber(KEY, each, start, temperature=0.0, sweeps=50)
        energies = np.concatenate([[each.energy(start)], run.energies])
        assert np.all(np.diff(energies) <= 1e-9 * np.abs(energies[0]))
        np.testing.assert_allclose(run.energies[-1], each.energy(run.sigma), rtol=1e-9)
        assert run.sweeps < 50 and np.all(each.flip_cost(run.sigma) >= 0)
        np.testing.assert_array_equal(run.mean, run.sigma)
    mirrored = mem.glauber(KEY, net, -start, temperature=0.0, sweeps=50)
    run = mem.glauber(KEY, net, start, temperature=0.0, sweeps=50)
    np.testing.assert_array_equal(mirrored.sigma, -run.sigma)


def test_single_precision_and_batches_take_the_same_steps(noisy):
    data, net = noisy
    single = jax.tree.map(lambda x: x.astype(jnp.float32), net)
    both = [mem.glauber(KEY, n, data.archetypes[0], temperature=0.0) for n in (net, single)]
    assert both[1].sigma.dtype == both[1].energies.dtype == jnp.float32
    np.testing.assert_array_equal(both[0].sigma, both[1].sigma)
    np.testing.assert_allclose(both[1].energies[-1], both[0].energies[-1], rtol=1e-5)
    batch = jax.vmap(lambda s: mem.glauber(KEY, net, s, temperature=0.0))(data.archetypes[:2])
    np.testing.assert_array_equal(batch.sigma[0], both[0].sigma)


def test_parallel_updates_may_cycle_and_a_step_is_the_sign_of_the_fields():
    # Two neurons that want to differ, both updated at once, change places for ever.
    net = mem.DenseHebbian(np.array([[1.0, -1.0]]), 2)
    run = mem.glauber(KEY, net, np.ones(2), temperature=0.0, sweeps=7, update="parallel")
    assert run.sweeps == 7 and np.all(np.asarray(run.sigma) == -1)
    np.testing.assert_array_equal(mem.one_parallel_step(net, np.ones(2)), [-1.0, -1.0])
    run = mem.glauber(KEY, net, np.ones(2), temperature=0.0, sweeps=7)
    assert run.sweeps == 2 and np.sum(run.sigma) == 0


def test_simulations_agree_with_the_theory():
    data = {"quality": 0.5, "quantity": 30}
    mc = mem.simulate(KEY, neurons=100, order=4, load=0.1, repeats=3, **data)
    assert mc.archetypes == 8333 and mc.m.shape == (3,)
    rs = mem.replica_symmetric(order=4, load=0.1, temperature=0.0, **data)
    assert abs(float(jnp.mean(mc.m)) - float(rs.m)) < 0.05
    assert abs(float(jnp.mean(mc.n)) - float(rs.n)) < 0.05
    step = mem.one_step(order=4, load=0.1, **data)
    assert abs(float(jnp.mean(mc.one_step)) - float(step)) < 0.05


def test_mean_fields_agree_with_the_theory_and_the_exact_dynamics():
    options = {"neurons": 60, "order": 4, "load": 0.1, "temperature": 0.55, "repeats": 2}
    rs = mem.replica_symmetric(order=4, entropy=0.0, load=0.1, temperature=0.55)
    exact = mem.simulate(KEY, sweeps=100, **options)
    tap = mem.simulate(KEY, dynamics="tap", **options)
    naive = mem.simulate(KEY, dynamics="naive", **options)
    for found in (exact, tap, naive):
        assert abs(float(jnp.mean(found.m)) - float(rs.m)) < 0.03
    np.testing.assert_allclose(jnp.mean(tap.m), jnp.mean(exact.m), atol=0.02)
    assert np.all(tap.m <= naive.m + 1e-9)  # the reaction takes away


def test_mean_fields_solve_their_equations_and_have_derivatives(noisy):
    data, net = noisy
    T = 0.6
    field = mem.plefka(net, data.archetypes[0], temperature=T, rtol=1e-12)
    m = np.asarray(field.magnetisation)
    q = np.mean(m**2)
    reaction = float(net.load) * 6 * q**2 * (1 - q) / T
    expected = np.tanh((np.asarray(net.fields(m)) - reaction * m) / T)
    np.testing.assert_allclose(m, expected, atol=1e-8)
    assert field.converged

    def overlap(T):
        found = mem.plefka(net, data.archetypes[0], temperature=T, rtol=1e-12).magnetisation
        return jnp.mean(found * data.archetypes[0])

    difference = (overlap(T + 1e-4) - overlap(T - 1e-4)) / 2e-4
    np.testing.assert_allclose(jax.grad(overlap)(T), difference, rtol=1e-5)
    # A single clean pattern: m = tanh(2 m^3 / T) for many neurons.
    alone = mem.DenseHebbian(np.ones((1, 400)), 4)
    found = mem.plefka(alone, np.ones(400), temperature=0.5, second_order=False).magnetisation
    rs = mem.replica_symmetric(order=4, entropy=0.0, load=0.0, temperature=0.5)
    np.testing.assert_allclose(found, rs.m, atol=1e-3)


def test_ultra_detection_survives_noise_on_every_coupling():
    found = mem.simulate_detection(KEY, neurons=60, load=0.1, noise=0.5, repeats=2)
    theory = mem.detection_one_step(order=4, load=0.1, noise=0.5)
    assert found.archetypes == 6 and found.noise == pytest.approx(0.5 * 60**0.5)
    assert abs(float(jnp.mean(found.one_step)) - float(theory)) < 0.05
    assert float(jnp.mean(found.m)) > 0.9
    pair = mem.simulate_detection(KEY, neurons=400, order=2, load=0.01, noise=0.3, repeats=2)
    v = 2 * (0.09 + 0.04 * 0.0081) + 2 * 0.01
    assert abs(float(jnp.mean(pair.one_step)) - erf(1 / np.sqrt(v))) < 0.05


def test_bad_input(noisy):
    data, net = noisy
    spin = data.archetypes[0]
    for change, message in (
        ({"temperature": -1.0}, "temperature must be finite and at least 0; got -1"),
        ({"sweeps": 0}, "sweeps must be a whole number of at least 1; got 0"),
        ({"discard": 100}, "discard=100 leaves none of 100 sweeps"),
        ({"update": "random"}, "update='random' is not known; use 'sequential' or 'parallel'"),
        ({"sigma": spin[:3]}, r"sigma must have shape \(40,\)"),
        ({"sigma": np.zeros(40)}, r"\+1 and -1 only; got 0"),
        ({"net": net.rows}, "net must be a DenseHebbian"),
    ):
        with pytest.raises(InputError, match=message):
            mem.glauber(KEY, **{"net": net, "sigma": spin, "temperature": 0.0, **change})
    plain = mem.DenseHebbian(net.rows, 4, distinct=False)
    with pytest.raises(InputError, match="plefka needs couplings of distinct neurons"):
        mem.plefka(plain, spin, temperature=0.5)
    with pytest.raises(InputError, match="temperature must be positive for mean fields"):
        mem.plefka(net, spin, temperature=0.0)
    good = {"neurons": 20, "order": 4}
    for change, message in (
        ({}, "give one of load= and archetypes="),
        ({"load": 0.1, "archetypes": 3}, "give one of load= and archetypes="),
        ({"load": -0.1}, r"load must be finite and at least 0; got -0\.1"),
        ({"load": 0.1, "quality": 0.0}, r"quality must lie in \(0, 1\]; got 0"),
        ({"load": 0.1, "quality": 1.5}, r"quality must lie in \(0, 1\]; got 1\.5"),
        ({"load": 0.1, "temperature": -0.1}, "temperature must be finite and at least 0"),
        ({"load": 0.1, "dynamics": "mcmc"}, "dynamics='mcmc' is not known"),
        ({"load": 0.1, "order": 171}, "171! overflows"),
    ):
        with pytest.raises(InputError, match=message):
            mem.simulate(KEY, **{**good, **change})
