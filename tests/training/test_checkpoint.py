"""Checkpoints: of which run they are, and that nothing costs what was trained."""

import errno
import os
import signal
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rootflow import InputError
from rootflow.training import metadata, run, store, train, train_adversarial

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (64, 3))
DATA = (X, X.sum(axis=1))


def squares(model, batch, key):
    return jnp.mean((batch[0] @ model["w"] - batch[1]) ** 2)


def absolute(model, batch, key):
    return jnp.mean(jnp.abs(batch[0] @ model["w"] - batch[1]))


def go(**changes):
    given = dict(
        loss=squares, model={"w": jnp.zeros(3)}, data=DATA, key=KEY, steps=4, batch_size=16,
        every=2, optimizer=optax.adam(1e-2), ema=0.9, progress=False,
        validation=(X[:8], X[:8, 0]),
    )  # fmt: skip
    given |= changes
    return train(given.pop("loss"), given.pop("model"), given.pop("data"), **given)


def scaled(factor):
    return lambda model, batch, key: factor * squares(model, batch, key)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run.npz"
    go(checkpoint=path)
    return path


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"loss": absolute}, "loss"),
        ({"loss": scaled(1.5)}, "loss"),
        ({"loss": scaled(jnp.array([1.5, 2.0])[0])}, "loss"),  # a number, not the program, differs
        ({"optimizer": optax.adam(2e-2)}, "optimizer"),
        ({"optimizer": optax.sgd(1e-2)}, "optimizer"),
        ({"batch_size": 8}, "loss and batch size"),
        ({"ema": 0.99}, "ema"),
        ({"model": {"w": jnp.ones(3)}}, "model"),
        ({"validation": (X[8:16], X[:8, 0])}, "validation"),
        ({"project": lambda m: jax.tree.map(jnp.tanh, m)}, "project"),
        ({"steps": 2}, r"number of steps \(4 made, steps=2 asked for\)"),
    ],
)
def test_what_differs_is_named(path, change, named):
    with pytest.raises(InputError, match=f"a run with another {named}: give"):
        go(checkpoint=path, **change)


def test_a_rate_that_is_a_number_in_the_state(tmp_path):
    file = tmp_path / "run.npz"
    rate = lambda r: optax.inject_hyperparams(optax.sgd)(r)
    go(checkpoint=file, optimizer=rate(0.1))
    with pytest.raises(InputError, match="another optimizer: give"):
        go(checkpoint=file, optimizer=rate(0.2))


def test_restart_and_continue_do_as_they_are_told(tmp_path):
    file, other = tmp_path / "run.npz", optax.adam(0.1)
    first = go(checkpoint=file)
    anew = go(checkpoint=file, optimizer=other, changed="restart")
    fresh = go(optimizer=other)
    np.testing.assert_array_equal(anew.model["w"], fresh.model["w"])
    assert metadata(file)["record"]["step"] == 4
    # From the end of the second run with the first one's rate: neither of the two.
    further = go(checkpoint=file, changed="continue", steps=6)
    assert further.steps == 6
    assert not np.allclose(further.model["w"], first.model["w"])
    with pytest.raises(InputError, match="changed must be"):
        go(changed="ignore")


def test_more_steps_and_more_patience_continue(tmp_path):
    whole, file = go(steps=8), tmp_path / "run.npz"
    go(steps=4, checkpoint=file)
    np.testing.assert_array_equal(go(steps=8, checkpoint=file).model["w"], whole.model["w"])
    file = tmp_path / "patience.npz"
    worse = iter(range(100))
    options = dict(steps=12, checkpoint=file, validation=lambda model: next(worse))
    assert go(patience=1, **options).steps == 4
    assert go(patience=1, **options).steps == 4
    later = go(patience=3, **options)
    assert (later.steps, later.stopped) == (8, "patience")
    assert go(**options).steps == 12


def test_other_sources_and_other_updates(tmp_path):
    draw = lambda scale: lambda key: scale * jax.random.normal(key, (4, 3))
    loss = lambda model, batch, key: jnp.mean((batch @ model["w"] - 1) ** 2)
    options = dict(loss=loss, validation=None, batch_size=None)
    file = tmp_path / "drawn.npz"
    go(data=draw(1.0), checkpoint=file, **options)
    with pytest.raises(InputError, match="another data"):
        go(data=draw(2.0), checkpoint=file, **options)
    file = tmp_path / "streamed.npz"
    batches = lambda: iter(np.ones((100, 4, 3)) * np.arange(100)[:, None, None])
    whole = go(data=batches(), steps=8, **options)
    go(data=batches(), checkpoint=file, **options)
    np.testing.assert_array_equal(
        go(data=batches(), steps=8, checkpoint=file, **options).model["w"], whole.model["w"]
    )
    file = tmp_path / "update.npz"
    add = lambda by: lambda state, batch, key: (state + by, {"state": state})
    run(add(1.0), jnp.zeros(()), DATA, key=KEY, steps=3, checkpoint=file)
    with pytest.raises(InputError, match="another update"):
        run(add(2.0), jnp.zeros(()), DATA, key=KEY, steps=3, checkpoint=file)


def test_two_players(tmp_path):
    file = tmp_path / "players.npz"

    def play(rate, start=0.0):
        return train_adversarial(
            lambda g, c, batch, key: jnp.mean(g * c * batch),
            lambda g, c, batch, key: jnp.mean((c - g) ** 2),
            jnp.asarray(start), jnp.ones(()), jnp.ones(8), key=KEY, steps=2,
            optimizers=(optax.sgd(rate), optax.sgd(0.1)), checkpoint=file, progress=False,
        )  # fmt: skip

    play(0.1)
    with pytest.raises(InputError, match="another losses and optimizers: give"):
        play(0.2)
    with pytest.raises(InputError, match="another players: give"):
        play(0.1, start=1.0)


def test_a_full_disk_does_not_cost_the_model(tmp_path, monkeypatch):
    file = tmp_path / "run.npz"

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(store, "save", full)
        with pytest.warns(RuntimeWarning, match=r"run\.npz was not written .*No space left"):
            kept = go(checkpoint=file)
    np.testing.assert_array_equal(kept.model["w"], go().model["w"])
    assert not file.exists() and not list(tmp_path.iterdir())


def test_two_runs_on_one_file_and_what_killed_ones_leave(tmp_path):
    file = tmp_path / "run.npz"
    for left in (".run.npz.0123456789ab.part", ".other.npz.0123456789ab.part"):
        (tmp_path / left).write_text("half")
    seen = []

    def second(step, metrics):
        with pytest.raises(InputError, match="another run is writing the checkpoint"):
            go(checkpoint=file)
        seen.append(step)

    go(checkpoint=file, progress=second)
    assert seen == [2, 4]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        ".other.npz.0123456789ab.part", "run.npz",
    ]  # fmt: skip


SCRIPT = """
import sys, time
import jax, jax.numpy as jnp, optax
from rootflow import generative as gen
from rootflow.training import train

loss = gen.DiffusionLoss(gen.DiscreteBetas(gen.linear_betas(20)), "noise", weight=gen.MinSNR())
model = gen.MLP((2,), 4, 1, key=jax.random.key(1))

def report(step, metrics):
    if step == 4 and sys.argv[2] == "slow":
        print("ready", flush=True)
        time.sleep(60)

out = train(loss, model, jnp.ones((8, 2)), key=jax.random.key(0), steps=8, every=2, ema=0.9,
            checkpoint=sys.argv[1], progress=report, optimizer=optax.adam(1e-2))
print(out.steps, flush=True)
"""


def test_a_request_to_end_writes_the_file_and_another_process_goes_on(tmp_path):
    """The fingerprint of the same run is the same in another process."""
    file = tmp_path / "run.npz"

    def start(how, seed):
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SCRIPT), str(file), how],
            stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONHASHSEED": seed},
        )  # fmt: skip

    with start("slow", "1") as slow:
        assert slow.stdout is not None and slow.stdout.readline() == "ready\n"
        slow.send_signal(signal.SIGTERM)
        assert slow.wait(timeout=60) == 128 + signal.SIGTERM
    assert metadata(file)["record"]["step"] == 4
    with start("quick", "2") as quick:
        assert quick.communicate(timeout=120)[0] == "8\n"
    assert quick.returncode == 0
