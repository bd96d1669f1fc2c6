import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rootflow import memory as mem
from rootflow.errors import InputError

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(3, 8))
SIGMA = RNG.choice([-1.0, 1.0], size=8)


@eqx.filter_jit
def look(net, sigma):
    return net.energy(sigma), net.flip_cost(sigma)


def brute_force(rows, sigma, order):
    u = rows * sigma
    tuples = [list(indices) for indices in itertools.permutations(range(8), order)]
    return -np.sum(np.prod(u[:, tuples], axis=-1)) / (2 * 8 ** (order - 1))


@pytest.mark.parametrize("order", [2, 3, 4, 6])
def test_energies_are_sums_over_distinct_neurons_and_flips_change_them_as_told(order):
    for distinct in (True, False):
        net = mem.DenseHebbian(ROWS, order, normalise=False, distinct=distinct)
        energy, cost = look(net, SIGMA)
        plain = -np.sum((ROWS @ SIGMA) ** order) / (2 * 8 ** (order - 1))
        expected = brute_force(ROWS, SIGMA, order) if distinct else plain
        np.testing.assert_allclose(energy, expected, rtol=1e-10)
        for i in (0, 3):
            flipped = SIGMA.copy()
            flipped[i] *= -1
            np.testing.assert_allclose(cost[i], look(net, flipped)[0] - energy, rtol=1e-8)
        if order % 2 == 0:
            np.testing.assert_allclose(look(net, -SIGMA)[0], energy, rtol=1e-12)


def test_orders_up_to_all_neurons_and_single_precision():
    # All eight neurons: 8! times the product of all.
    net = mem.DenseHebbian(ROWS, 8, normalise=False)
    expected = -math.factorial(8) * np.sum(np.prod(ROWS * SIGMA, axis=1)) / (2 * 8**7)
    np.testing.assert_allclose(net.energy(SIGMA), expected, rtol=1e-6)
    # Thirty of a thousand: the archetype itself has N! / (N - P)!, beyond float32 as it stands.
    ones = jnp.ones((1, 1000), jnp.float32)
    energy = mem.DenseHebbian(ones, 30).energy(ones[0])
    assert energy.dtype == jnp.float32
    expected = -0.5 * 1000 * np.prod(1 - np.arange(30) / 1000)
    np.testing.assert_allclose(energy, expected, rtol=1e-4)


def test_the_energy_is_linear_in_each_magnetisation():
    net = mem.DenseHebbian(ROWS, 4, normalise=False)
    m = jnp.asarray(RNG.uniform(-1, 1, 8))
    fields = net.fields(m)
    # The mean energy of independent spins, by all 256 configurations.
    every = np.array(list(itertools.product([-1.0, 1.0], repeat=8)))
    energies = jax.vmap(lambda s: look(net, s)[0])(jnp.asarray(every))

    def mean_energy(m):
        return jnp.sum(jnp.prod((1 + m * every) / 2, axis=1) * energies)

    np.testing.assert_allclose(fields, -jax.grad(mean_energy)(m), rtol=1e-9)


def test_supervised_and_unsupervised_memories_are_made_of_their_examples():
    data = mem.examples(jax.random.key(0), neurons=30, archetypes=2, quality=0.6, quantity=3)
    assert data.examples.shape == (2, 3, 30)
    sigma = data.archetypes[0]
    R = 0.36 + 0.64 / 3
    net = mem.DenseHebbian.supervised(data.examples, 4, quality=0.6)
    by_hand = mem.DenseHebbian(jnp.mean(data.examples, axis=1), 4, normalise=False)
    np.testing.assert_allclose(net.energy(sigma), by_hand.energy(sigma) / R**2, rtol=1e-10)
    net = mem.DenseHebbian.unsupervised(data.examples, 4, quality=0.6)
    single = [mem.DenseHebbian(e[None], 4).energy(sigma) for e in data.examples.reshape(-1, 30)]
    np.testing.assert_allclose(net.energy(sigma), sum(single) / (3 * R**2), rtol=1e-10)
    # With one example of each archetype the two learn the same.
    one = data.examples[:, :1]
    alike = [
        make(one, 4, quality=0.6).energy(sigma)
        for make in (mem.DenseHebbian.supervised, mem.DenseHebbian.unsupervised)
    ]
    np.testing.assert_allclose(alike[0], alike[1], rtol=1e-10)
    # Normalised rows count as archetypes of the load.
    net = mem.DenseHebbian(RNG.normal(size=(5, 30)), 3)
    np.testing.assert_allclose(net.load, mem.load(archetypes=5, neurons=30, order=3), rtol=1e-12)


def test_bad_input():
    with pytest.raises(InputError, match=r"rows must have shape .* got \(8,\)"):
        mem.DenseHebbian(ROWS[0], 3)
    with pytest.raises(InputError, match="order=9 distinct neurons cannot be had of 8"):
        mem.DenseHebbian(ROWS, 9)
    with pytest.raises(InputError, match="order must be a whole number of at least 2; got 1"):
        mem.DenseHebbian(ROWS, 1)
    with pytest.raises(InputError, match=r"order=171: 171! overflows float64.*170!"):
        mem.DenseHebbian(np.ones((1, 200)), 171)
    with pytest.raises(InputError, match=r"order=35: 35! overflows float32.*or float64"):
        mem.DenseHebbian(np.ones((1, 200), np.float32), 35)
    with pytest.raises(InputError, match="with 100000 neurons overflows float32"):
        mem.DenseHebbian(np.ones((1, 100_000), np.float32), 32)
    with pytest.raises(InputError, match="row 1 is zero everywhere"):
        mem.DenseHebbian(np.array([[1.0, 1.0], [0.0, 0.0]]), 2)
    with pytest.raises(InputError, match="rows must be finite; got nan"):
        mem.DenseHebbian(np.full((1, 4), np.nan), 2)
    with pytest.raises(InputError, match=r"weights must have shape \(3,\)"):
        mem.DenseHebbian(ROWS, 2, weights=np.ones(2))
    net = mem.DenseHebbian(ROWS, 4)
    with pytest.raises(InputError, match=r"sigma must have shape \(8,\)"):
        net.energy(SIGMA[:5])
    with pytest.raises(InputError, match=r"\+1 and -1 only; got -?0\.5"):
        net.flip_cost(0.5 * SIGMA)
    with pytest.raises(InputError, match=r"sigma must be finite and between -1 and 1; got -?2"):
        net.fields(2 * SIGMA)
    with pytest.raises(InputError, match=r"examples must have shape \(K, M, N\)"):
        mem.DenseHebbian.supervised(ROWS, 2)
