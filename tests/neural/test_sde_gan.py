import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rootflow as rf
from rootflow import training
from rootflow.errors import InputError
from rootflow.neural import (
    CDECritic,
    SDEGenerator,
    Solver,
    clip,
    energy_score,
    scale_initial,
    wasserstein,
)
from rootflow.neural.sde_gan import ControlledNoise

KEY = jax.random.key(5)
TS = np.linspace(0.0, 1.0, 5)
SOLVER = Solver(rf.ReversibleHeun(), dt=0.25)


@pytest.fixture(scope="module")
def generator():
    return SDEGenerator(2, 3, noise=2, width=4, solver=SOLVER, key=KEY)


@pytest.fixture(scope="module")
def critic():
    return CDECritic(2, 3, width=4, solver=SOLVER, key=KEY)


def layers(model):
    leaves = jax.tree.leaves(model, is_leaf=lambda x: isinstance(x, eqx.nn.Linear))
    return [x for x in leaves if isinstance(x, eqx.nn.Linear)]


def test_the_increments_of_a_path_drive_as_its_slope_does():
    # With a fine grid the equation driven by increments is the one with the slope of the path.
    path = rf.CubicHermite(TS, np.stack([np.sin(3 * TS), TS**2], axis=1))
    g = lambda t, y, args: jnp.stack([jnp.cos(y), jnp.sin(t) * y], axis=1)
    still = lambda t, y, args: jnp.zeros_like(y)
    noise, start = ControlledNoise(path), jnp.array([1.0, -0.5])
    found = rf.solve_sde(still, g, start, (0.0, 1.0), noise, method=rf.Heun(), dt=1 / 1024)
    exact = rf.solve_cde(g, start, path, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(found.ys, exact.ys, rtol=1e-5)


def test_the_derivative_of_a_score_in_the_series_is_that_of_finite_differences(critic):
    score = jax.jit(lambda ys: critic(TS, ys))
    ys = jax.random.normal(KEY, (5, 2))
    slope = (score(ys.at[2, 1].add(1e-5)) - score(ys.at[2, 1].add(-1e-5))) / 2e-5
    np.testing.assert_allclose(jax.grad(score)(ys)[2, 1], slope, rtol=1e-6)
    gap = ys.at[2, 1].set(jnp.nan)
    between = ys.at[2, 1].set(0.5 * (ys[1, 1] + ys[3, 1]))
    np.testing.assert_allclose(score(gap), score(between), rtol=1e-12)


def test_clipped_layers_are_lipschitz_in_the_sum_of_absolute_values(critic):
    big = jax.tree.map(lambda x: 10 * x if eqx.is_inexact_array(x) else x, critic)
    x, y = jax.random.normal(KEY, (2, 50, 30))
    for before, layer in zip(layers(big), layers(clip(big)), strict=True):
        size = layer.weight.shape[1]
        moved = jnp.sum(jnp.abs((x - y)[:, :size] @ layer.weight.T), axis=1)
        assert np.all(moved <= jnp.sum(jnp.abs((x - y)[:, :size]), axis=1) * (1 + 1e-12))
        assert np.max(np.abs(before.weight)) > 1 / layer.weight.shape[0]
        if layer.bias is not None:
            np.testing.assert_array_equal(layer.bias, before.bias)


def test_players_train_with_clipped_critic(generator, critic):
    data = jax.random.normal(KEY, (16, 5, 2))
    played = training.train_adversarial(
        *wasserstein(TS), generator, critic, data, key=KEY, steps=3, batch_size=4, project=clip,
        optimizers=(optax.rmsprop(1e-3), optax.rmsprop(1e-3)), progress=False,
    )  # fmt: skip
    assert np.all(np.isfinite(played.history["critic"]))
    for layer in layers(played.critic):
        assert np.max(np.abs(layer.weight)) <= 1 / layer.weight.shape[0]
    assert np.any(played.generator.readout.weight != generator.readout.weight)


@pytest.mark.parametrize("kind", [SDEGenerator, CDECritic])
def test_scales_are_factors_of_the_first_weights(kind, generator, critic):
    options = {"noise": 2} if kind is SDEGenerator else {}
    plain = generator if kind is SDEGenerator else critic
    scaled = kind(
        2, 3, width=4, solver=SOLVER, key=KEY, initial_scale=3.0, field_scale=0.5, **options
    )
    for part, factor in (("initial", 3.0), ("drift", 0.5), ("diffusion", 0.5), ("readout", 1.0)):
        pairs = zip(layers(getattr(scaled, part)), layers(getattr(plain, part)), strict=True)
        for found, before in pairs:
            np.testing.assert_allclose(found.weight, factor * before.weight, rtol=1e-12)
            if before.bias is not None:
                np.testing.assert_allclose(found.bias, factor * before.bias, rtol=1e-12)
    if kind is SDEGenerator:
        assert scaled.drift.scale == scaled.diffusion.scale == 1.0


def test_the_network_of_the_first_state_learns_at_its_own_rate(generator):
    optimizer = optax.chain(optax.sgd(0.1), scale_initial(10.0))
    weights = eqx.filter(generator, eqx.is_inexact_array)
    gradient = jax.tree.map(jnp.ones_like, weights)
    changes, _ = optimizer.update(gradient, optimizer.init(weights), weights)
    for x in jax.tree.leaves(changes.initial):
        np.testing.assert_allclose(x, -1.0, rtol=1e-12)
    for x in jax.tree.leaves((changes.drift, changes.diffusion, changes.readout)):
        np.testing.assert_allclose(x, -0.1, rtol=1e-12)
    with pytest.raises(InputError, match=r"a part `initial`.*; got Linear"):
        optimizer.update(gradient.readout, optimizer.init(gradient.readout))


def test_the_losses_are_differences_of_mean_scores(generator, critic):
    real = jax.random.normal(KEY, (4, 5, 2))

    @eqx.filter_jit
    def values(generator, critic):
        losses = [loss(generator, critic, real, KEY) for loss in wasserstein(TS)]
        fake = jax.vmap(lambda key: generator(TS, key))(jax.random.split(KEY, 4))
        scores = [jnp.mean(jax.vmap(lambda ys: critic(TS, ys))(ys)) for ys in (fake, real)]
        return losses, scores

    losses, (fake, real_ones) = values(generator, critic)
    np.testing.assert_allclose(losses, [-fake, fake - real_ones], rtol=1e-9)


def test_the_energy_score_is_its_double_sum():
    x, y = jax.random.normal(KEY, (6, 4, 2)), 1 + jax.random.normal(jax.random.key(8), (5, 4, 2))
    total = 0.0
    for f in (
        lambda s: s,
        lambda s: np.diff(s, axis=1),
        lambda s: np.cumsum(np.diff(s, axis=1) ** 2, axis=1),
    ):
        a, b = f(np.asarray(x)).reshape(6, -1), f(np.asarray(y)).reshape(5, -1)
        cross = np.mean([[np.linalg.norm(p - q) for q in b] for p in a])
        own = np.sum([[np.linalg.norm(p - q) for q in a] for p in a]) / 30
        total += (2 * cross - own) / np.sqrt(np.mean(np.sum((b - b.mean(0)) ** 2, axis=1)))
    np.testing.assert_allclose(jax.jit(energy_score)(x, y), total, rtol=1e-9)
    assert np.all(np.isfinite(jax.grad(energy_score)(x, y)))


def test_the_energy_score_is_least_for_the_right_law():
    draw = lambda key, scale: scale * jnp.cumsum(jax.random.normal(key, (400, 6, 1)), axis=1)
    real = draw(jax.random.key(1), 1.0)
    score = {s: float(energy_score(draw(jax.random.key(2), s), real)) for s in (0.7, 1.0, 1.4)}
    assert score[1.0] < score[0.7] and score[1.0] < score[1.4]


def test_bad_input(generator, critic):
    with pytest.raises(InputError, match="Sort them"):
        generator(TS[::-1], KEY)
    with pytest.raises(InputError, match=r"2 channels: .* \(5, 2\); got \(5, 1\)"):
        critic(TS, np.zeros((5, 1)))
    with pytest.raises(InputError, match=r"m >= 2; got \(1, 5, 2\)"):
        energy_score(jnp.zeros((1, 5, 2)), jnp.zeros((4, 5, 2)))
    with pytest.raises(InputError, match="noise must be a whole number"):
        SDEGenerator(1, 2, noise=0, solver=SOLVER, key=KEY)
    with pytest.raises(InputError, match=r"n >= 2; got shape \(1,\)"):
        wasserstein([0.0])
    with pytest.raises(InputError, match="initial_scale must be positive; got 0"):
        SDEGenerator(1, 2, initial_scale=0, solver=SOLVER, key=KEY)
    with pytest.raises(InputError, match="field_scale must be positive; got -1"):
        CDECritic(1, 2, field_scale=-1, solver=SOLVER, key=KEY)
    with pytest.raises(InputError, match="factor must be positive; got nan"):
        scale_initial(np.nan)


def test_the_energy_score_has_no_unit():
    fake = jax.random.normal(jax.random.key(0), (16, 10, 1))
    real = 1.5 * jax.random.normal(jax.random.key(1), (16, 10, 1)) + 0.3
    score = jax.jit(jax.value_and_grad(energy_score))
    value, slope = score(fake, real)
    for unit in (1e-8, 1e-4, 1e6):
        scaled, slopes = score(unit * fake, unit * real)
        np.testing.assert_allclose(scaled, value, rtol=1e-9)
        np.testing.assert_allclose(unit * slopes, slope, rtol=1e-6, atol=1e-12)
    far = [jnp.asarray(x + 1e4, jnp.float32) for x in (fake, real)]
    np.testing.assert_allclose(score(*far)[0], value, rtol=1e-2)
