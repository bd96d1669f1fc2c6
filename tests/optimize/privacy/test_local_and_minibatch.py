"""Local steps, minibatches, dense networks, devices."""

import math
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import binom, chi2

from rootflow.errors import InputError
from rootflow.optimize import privacy as p
from rootflow.optimize.privacy import sampling

RANDOM = np.random.default_rng(3)
KEY = jax.random.key(4)
INF = (jnp.inf, jnp.inf)


def loss(w, record):
    a, y = record
    return 0.5 * (a @ w - y) ** 2


def client_data(sizes=(9, 6)):
    return [(RANDOM.normal(size=(n, 3)), RANDOM.normal(size=n)) for n in sizes]


def gradient(w, part):
    a, y = part
    return a.T @ (a @ w - y) / len(y)


def test_local_steps_are_those_of_the_algorithm():
    # With whole clients as minibatches and no noise, algorithm 4 is a recursion written out here.
    parts = client_data((6, 6))
    clients = p.Clients.of(parts)
    start, step, rounds, local = np.array([0.5, -1.0, 2.0]), 0.05, 7, 4
    found = p.diff2(
        loss, jnp.asarray(start), clients, rounds=rounds, period=3, step=step, key=KEY, clip=INF,
        noise=(0.0, 0.0), routine=p.BVRLSGD(steps=local, batch=6, clip=math.inf, noise=0.0),
    )  # fmt: skip
    order = np.asarray(jax.random.randint(jax.random.fold_in(KEY, rounds + 1), (rounds,), 0, 2))
    assert set(order) == {0, 1}
    x = start
    for client in order:
        # Without noise the recursive estimate of the server is the gradient itself.
        before, v = x, np.mean([gradient(x, part) for part in parts], axis=0)
        x = x - step * v
        for _ in range(local - 1):
            v = v + gradient(x, parts[client]) - gradient(before, parts[client])
            before, x = x, x - step * v
    np.testing.assert_allclose(found.params, x, rtol=1e-11)


@pytest.mark.parametrize("adjacency", ["replace", "add-remove"])
def test_the_account_of_local_steps(adjacency):
    clients = p.Clients.of(client_data((40, 25)))
    options = dict(rounds=6, period=3, step=0.05, key=KEY, clip=(1.0, 1.0), adjacency=adjacency)
    routine = p.BVRLSGD(steps=3, batch=5, clip=1.0)
    found = p.diff2(
        loss, jnp.zeros(3), clients, routine=routine, budget=p.Budget(4.0, 1e-5), **options
    ).privacy
    assert 4.0 * (1 - 1e-4) < found.epsilon <= 4.0
    order = np.asarray(jax.random.randint(jax.random.fold_in(KEY, 7), (6,), 0, 2))
    factor, sampled = (2, "fixed") if adjacency == "replace" else (1, "poisson")
    np.testing.assert_allclose(found.sensitivity, (factor / 50, factor / 50, factor / 5))
    z = found.multipliers
    spent = []
    for client, n in enumerate((40, 25)):
        turns = int(np.sum(order == client))
        local = 2 * turns * p.subsampled(z[2], 5 / n, sampling=sampled)
        events = [2 * p.gaussian(z[0]), 4 * p.gaussian(z[1]), local]
        spent.append(p.epsilon(p.compose(events), delta=1e-5))
    np.testing.assert_allclose(found.epsilon, max(spent), rtol=1e-5)


def test_minibatches_are_what_the_accountant_takes_them_for():
    n, batch, draws = 30, 6, 4000
    keys = jax.random.split(KEY, draws)
    for kind in ("poisson", "fixed"):
        sampler = sampling.Sampler.of(batch, kind, (n,))
        draw = lambda k, s=sampler: s(k, 0, n, jnp.float64)
        places, weights = jax.vmap(draw)(keys)
        held = np.zeros((draws, n))
        for row, where, weight in zip(held, np.asarray(places), np.asarray(weights)):
            np.add.at(row, where[weight > 0], 1)
        assert held.max() == 1, "no record twice"
        np.testing.assert_array_equal(np.unique(np.asarray(weights)[weights > 0]), 1 / batch)
        # Every record with probability batch / n, within four standard deviations.
        rate = batch / n
        assert np.abs(held.mean(axis=0) - rate).max() < 4 * math.sqrt(rate * (1 - rate) / draws)
        sizes = held.sum(axis=1).astype(int)
        if kind == "fixed":
            assert set(sizes) == {batch}
            pairs = held[:, 0] @ held[:, 1] / draws
            assert abs(pairs - rate * (batch - 1) / (n - 1)) < 0.015
            continue
        counts = np.bincount(np.clip(sizes, 2, 10), minlength=11)[2:]
        expected = binom.pmf(np.arange(n + 1), n, rate)
        expected = np.array([expected[:3].sum(), *expected[3:10], expected[10:].sum()]) * draws
        assert np.sum((counts - expected) ** 2 / expected) < chi2.isf(1e-3, 8)
    # Unequal clients: padding is never drawn.
    sampler = sampling.Sampler.of(4, "fixed", (5, 9))
    places, _ = jax.vmap(lambda k: sampler(k, 0, 5, jnp.float64))(keys[:200])
    assert np.asarray(places).max() == 4


def test_the_room_of_a_poisson_minibatch():
    for n, batch in ((1000, 10), (50_000, 256), (12, 6)):
        sampler = sampling.Sampler.of(batch, "poisson", (n,))
        assert binom.sf(sampler.room, n, batch / n) < 1e-30 or sampler.room == n
        assert sampler.room < batch + 16 * math.sqrt(batch) + 60


def test_dp_sgd_without_noise_is_sgd_and_keeps_budgets():
    a, y = RANDOM.normal(size=(200, 3)), RANDOM.normal(size=200)
    y = 0.3 * y + a @ np.array([1.0, -1.0, 0.5])
    options = dict(rounds=60, step=0.1, key=KEY)
    whole = p.dp_sgd(loss, jnp.zeros(3), (a, y), batch=200, clip=math.inf, noise=0.0, **options)
    x = np.zeros(3)
    for _ in range(60):
        x = x - 0.1 * gradient(x, (a, y))
    np.testing.assert_allclose(whole.params, x, rtol=1e-11)
    for adjacency, kind, factor in (("add-remove", "poisson", 1), ("replace", "fixed", 2)):
        private = p.dp_sgd(
            loss, jnp.zeros(3), (a, y), batch=20, clip=2.0, budget=p.Budget(5.0, 1e-5),
            adjacency=adjacency, diagnose=True, **options,
        )  # fmt: skip
        assert private.privacy.releases == (60,)
        z = private.privacy.multipliers[0]
        np.testing.assert_allclose(private.privacy.noise, (z * factor * 2.0 / 20,), rtol=1e-6)
        event = 60 * p.subsampled(z, 0.1, sampling=kind)
        assert 5.0 * (1 - 1e-4) < p.epsilon(event, delta=1e-5) <= 5.0
        assert private.losses[-1] < private.losses[0]
        assert np.linalg.norm(private.params - x) < 0.5
    # All of the data in every batch: DP-GD's account.
    full = p.dp_sgd(
        loss, jnp.zeros(3), (a, y), batch=200, clip=2.0, budget=p.Budget(5.0, 1e-5), **options
    ).privacy
    np.testing.assert_allclose(full.multipliers[0], math.sqrt(60) / p.Budget(5, 1e-5).mu, rtol=1e-5)
    for bad, words in ((dict(batch=201), "more than the 200 records"), (dict(batch=0), "batch")):
        with pytest.raises(InputError, match=words):
            p.dp_sgd(loss, jnp.zeros(3), (a, y), clip=1.0, noise=0.1, **options, **bad)


def test_local_steps_refuse_what_they_cannot_account():
    clients = p.Clients.of(client_data((40, 25)))

    def attempt(routine, **options):
        given = dict(rounds=2, period=1, step=0.1, key=KEY, clip=(1.0, 1.0), noise=(0.1, 0.1))
        return p.diff2(loss, jnp.zeros(3), clients, routine=routine, **(given | options))

    with pytest.raises(InputError, match="more than the 25 records"):
        attempt(p.BVRLSGD(steps=2, batch=26, clip=1.0, noise=0.1))
    with pytest.raises(InputError, match="go together"):
        attempt(p.BVRLSGD(steps=2, batch=5, clip=1.0))
    for bad in (dict(steps=1), dict(clip=0.0), dict(noise=-1.0), dict(share=1.0), dict(batch=0)):
        with pytest.raises(InputError):
            p.BVRLSGD(**(dict(steps=2, batch=5, clip=1.0) | bad))


@pytest.mark.parametrize("apart", [None, 1.0, 1e-7])
def test_dense_networks_are_clipped_without_their_gradients(apart):
    net = p.DenseLoss(lambda out, target: 0.5 * jnp.sum((out - target) ** 2))
    params = net.init(jax.random.key(0), (4, 7, 3, 2))
    data = tuple(jnp.asarray(RANDOM.normal(size=(2, 20, m))) for m in (4, 2))
    plain = lambda params, record: net(params, record)
    points = (params,)
    if apart is not None:
        move = lambda x: x + apart * RANDOM.normal(size=x.shape)
        points = (params, jax.tree.map(move, params))
    for clip in (0.3, 1e3):
        ghost, each = (p.message(f, data, *points, clip=clip) for f in (net, plain))
        for a, b in zip(jax.tree.leaves(ghost), jax.tree.leaves(each)):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-9 * float(jnp.abs(b).max()))
    with pytest.raises(InputError, match="sequence of"):
        p.message(net, data, params[0][0], clip=1.0)


def test_clips_of_dense_networks_hold_in_single_precision():
    # Points so close that norms as differences of squares would come out as zero.
    net = p.DenseLoss(lambda out, target: 0.5 * jnp.sum((out - target) ** 2))
    params = jax.tree.map(lambda x: x.astype(jnp.float32), net.init(KEY, (3, 50, 1)))
    near = jax.tree.map(lambda x: x * (1 + 1e-6), params)
    record = (10 * jnp.ones((1, 1, 3), jnp.float32), jnp.ones((1, 1, 1), jnp.float32))
    flat = lambda tree: np.concatenate([np.ravel(x).astype(float) for x in jax.tree.leaves(tree)])
    moved = np.linalg.norm(flat(params) - flat(near))
    message = flat(p.message(net, record, params, near, clip=1e-2))
    np.testing.assert_allclose(np.linalg.norm(message), 1e-2 * moved, rtol=1e-4)
    assert np.linalg.norm(message) <= 1e-2 * moved * (1 + 1e-5)


DEVICES = """
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_enable_x64", True)
from rootflow.optimize import privacy as p

assert len(jax.devices()) == 4
random = np.random.default_rng(0)
data = (jnp.asarray(random.normal(size=(8, 6, 3))), jnp.asarray(random.normal(size=(8, 6))))
clients = p.Clients(data, (6, 5, 4, 6, 6, 3, 6, 6))
loss = lambda w, record: jnp.log1p((record[0] @ w - record[1]) ** 2)

def final(step, routine, devices):
    return p.diff2(
        loss, jnp.ones(3), clients, rounds=6, period=3, step=step, key=jax.random.key(1),
        clip=(0.5, 1.0), noise=(0.01, 0.02), routine=routine, devices=devices, grid=False,
    ).params

for routine in (p.GradientStep(), p.BVRLSGD(steps=3, batch=2, clip=1.0, noise=0.01)):
    apart, alone = (final(0.1, routine, d) for d in (jax.devices(), None))
    np.testing.assert_allclose(apart, alone, rtol=1e-12)
slopes = [
    jax.grad(lambda s: jnp.sum(final(s, p.GradientStep(), d)))(0.1) for d in (jax.devices(), None)
]
np.testing.assert_allclose(*slopes, rtol=1e-11)
try:
    final(0.1, p.GradientStep(), jax.devices()[:3])
except ValueError as error:
    assert "8 clients cannot be divided among 3 devices" in str(error)
else:
    raise AssertionError("three devices for eight clients")
print("alike")
"""


def test_clients_on_several_devices():
    flags = "--xla_force_host_platform_device_count=4 --xla_cpu_use_fusion_emitters=false"
    result = subprocess.run(
        [sys.executable, "-c", DEVICES],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "alike"
