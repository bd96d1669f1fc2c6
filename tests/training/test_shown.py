"""What a training run says of itself."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rootflow as rf
from rootflow.training import train_adversarial

DATA = (jnp.linspace(-1.0, 1.0, 16), jnp.linspace(-2.0, 2.0, 16))


def loss(model, batch, key):
    x, y = batch
    return jnp.mean((model["slope"] * x - y) ** 2), {"slope": model["slope"]}


@pytest.fixture(scope="module")
def trained():
    return rf.train(
        loss, {"slope": jnp.zeros(())}, DATA, key=jax.random.key(0), steps=40, every=10,
        optimizer=optax.sgd(0.5), validation=DATA, ema=0.5,
    )  # fmt: skip


def test_a_run_in_about_ten_lines(trained):
    said = repr(trained)
    assert "all 40 steps were made" in said and len(said.splitlines()) <= 10
    assert "dict, 1 numbers in 1 arrays (float64)" in said and "recorded" in said
    history = trained.history
    best = history["step"][np.argmin(history["validation"])]
    assert f"the best {history['validation'].min():.4g}"[:14] in said
    assert f"that of step {best}" in said and ".ema (the average" in said
    html = trained._repr_html_()
    assert "data:image/png" in html and "slope" in html


def test_the_history_as_a_table_and_a_picture(trained):
    axes = rf.plot(trained).axes[0]
    assert axes.get_yscale() == "log"
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), trained.history["loss"])
    np.testing.assert_array_equal(axes.lines[1].get_xdata(), trained.history["step"])
    with pytest.raises(rf.InputError, match="axes: 2 were given for 1 panels"):
        rf.plot(trained, axes=[axes, axes])
    pytest.importorskip("pandas")
    frame = trained.to_pandas()
    assert frame.index.tolist() == [10, 20, 30, 40] and "slope" in frame
    np.testing.assert_array_equal(frame["loss"], trained.history["loss"])


def test_how_a_run_ended():
    breaks = lambda model, batch, key: jnp.where(model["x"] > -2, model["x"], jnp.nan)
    options = {"key": jax.random.key(0), "steps": 5, "every": 1, "optimizer": optax.sgd(1.0)}
    start = {"x": jnp.zeros(())}
    stopped = rf.train(breaks, start, lambda key: 0.0, nonfinite="stop", **options)
    assert "stopped after" in repr(stopped) and "was not finite" in repr(stopped)
    skipped = rf.train(breaks, start, lambda key: 0.0, nonfinite="skip", **options)
    assert f"{skipped.skipped} steps whose loss was not finite" in repr(skipped)
    assert rf.plot(skipped).axes[0].get_yscale() == "linear"  # losses below zero


def test_two_players():
    critic = lambda g, c, batch, key: jnp.sum((c["w"] - g["w"]) ** 2)
    player = {"w": jnp.ones(2)}
    ended = train_adversarial(
        lambda g, c, batch, key: jnp.sum(g["w"] ** 2), critic,
        player, player, lambda key: jnp.zeros(1), key=jax.random.key(0), steps=4, every=2,
        optimizers=(optax.sgd(0.1), optax.sgd(0.1)),
    )  # fmt: skip
    said = repr(ended)
    assert said.startswith("A trained generator") and "generator loss" in said
    assert "dict, 2 numbers" in said and len(rf.plot(ended).axes[0].lines) == 2


def test_a_model_of_functions_and_halves_is_counted():
    model = eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0), dtype=jnp.bfloat16)
    ended = rf.train(
        lambda m, batch, key: jnp.mean(jax.vmap(m)(batch) ** 2).astype(jnp.float32),
        model, jnp.ones((4, 2), jnp.bfloat16), key=jax.random.key(0), steps=1,
    )  # fmt: skip
    # 2 * 4 + 4 + 4 + 1
    assert "MLP, 17 numbers in 4 arrays (bfloat16)" in repr(ended)
    assert "data:image/png" in ended._repr_html_()
