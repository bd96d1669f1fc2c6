"""Two players: games whose equilibrium is known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rootflow.errors import InputError
from rootflow.training import train_adversarial

KEY = jax.random.key(0)


def mean_game(generator, critic, batch, key):
    # The critic measures the difference of the means; its weight is clipped to [-1, 1].
    return critic["w"] * (jnp.mean(batch) - jnp.mean(generator["m"]))


def critic_loss(generator, critic, batch, key):
    return -mean_game(generator, critic, batch, key)


def clipped(critic):
    return {"w": jnp.clip(critic["w"], -1, 1)}


def test_a_wasserstein_game_of_two_means():
    data = 2.0 + np.random.default_rng(0).normal(size=400)
    played = train_adversarial(
        mean_game,
        critic_loss,
        {"m": jnp.zeros(())},
        {"w": jnp.zeros(())},
        data,
        key=KEY,
        steps=800,
        optimizers=(optax.sgd(0.02), optax.sgd(5.0)),
        batch_size=100,
        critic_steps=4,
        project=clipped,
        ema=0.98,
        every=200,
    )
    assert abs(played.ema["m"] - data.mean()) < 0.05
    assert abs(played.critic["w"]) <= 1
    assert played.best is played.ema
    assert set(played.history) == {"step", "generator", "critic", "seconds"}


def test_the_players_move_in_turn():
    batch = jnp.full((2, 1), 3.0)
    played = train_adversarial(
        mean_game,
        critic_loss,
        {"m": jnp.zeros(())},
        {"w": jnp.zeros(())},
        batch,
        key=KEY,
        steps=1,
        optimizers=(optax.sgd(1.0), optax.sgd(0.1)),
        critic_steps=2,
        batch_size=1,
        every=1,
    )
    # Twice w <- w + 0.1 * (3 - 0), then m <- m + w.
    np.testing.assert_allclose(played.critic["w"], 0.6, rtol=1e-12)
    np.testing.assert_allclose(played.generator["m"], 0.6, rtol=1e-12)


def test_the_batch_is_divided_among_the_steps_of_the_critic():
    given = (mean_game, critic_loss, {"m": jnp.zeros(())}, {"w": jnp.zeros(())})
    options = dict(key=KEY, steps=1, optimizers=(optax.sgd(1.0), optax.sgd(0.1)))
    with pytest.raises(InputError, match="batch of 3 examples cannot be divided"):
        train_adversarial(*given, lambda key: jnp.ones(3), critic_steps=2, **options)
    with pytest.raises(InputError, match=r"batch_size=3 \(2 of them a step\)"):
        train_adversarial(*given, jnp.ones(4), batch_size=3, critic_steps=2, **options)
    with pytest.raises(InputError, match="critic_steps must be"):
        train_adversarial(*given, jnp.ones(4), critic_steps=0, **options)
