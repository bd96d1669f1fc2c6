"""`rootflow generate`: what it writes, how it goes on after an interrupt, what it refuses."""

import json
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import rootflow as rf
from rootflow.cli.main import app
from rootflow.generative import digits

SHORT = ["--quick", "--train-steps", "40", "--count", "2", "--steps", "4"]


def run(*arguments):
    return CliRunner().invoke(app, ["generate", *arguments])


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generate")
    out = folder / "out"
    return run(*SHORT, "--classes", "3,8", "--out", str(out), "--json"), out


def test_what_it_writes(done):
    from matplotlib import image

    result, out = done
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record == json.loads((out / "record.json").read_text(encoding="utf-8"))
    assert (record["train_steps"], record["evaluations"], record["classes"]) == (40, 4, [3, 8])
    assert {path.name for path in out.iterdir()} == set(record["files"])
    with np.load(out / "samples.npz", allow_pickle=False) as file:
        images, classes = file["images"], file["classes"]
    assert images.shape == (4, 8, 8) and classes.tolist() == [3, 3, 8, 8]
    assert np.isfinite(images).all() and np.abs(images).max() < 5
    # Two rows of two pictures of 48 pixels, with a line between them.
    assert image.imread(out / "samples.png").shape[:2] == (97, 97)


def test_a_model_is_sampled_again(done, tmp_path):
    _, trained = done
    out = tmp_path / "again"
    model = ["--model", str(trained / "model.npz"), "--out", str(out), "--count", "1"]
    for name in ("ddim", "reverse-sde"):
        result = run(*model, "--sampler", name, "--steps", "3", "--guidance", "1")
        assert result.exit_code == 0, result.output
        assert "Sampled 10 pictures" in result.output and "Trained" not in result.output
    assert not (out / "model.npz").exists()
    recipe, model = digits.load_model(trained / "model.npz")
    assert recipe == digits.Recipe("mlp", "vp-linear", "velocity", 96)
    assert recipe.denoiser(model).predicts == "velocity"


def test_an_interrupted_training_goes_on_where_it_was(tmp_path, done, monkeypatch):
    whole = done[1]

    def interrupted(step, metrics):
        if step >= 20:
            raise KeyboardInterrupt

    train = digits.train_digits
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(
            digits, "train_digits",
            lambda *args, **options: train(*args, **options | {"progress": interrupted}),
        )  # fmt: skip
        result = run(*SHORT, "--classes", "3,8", "--out", str(out))
    assert result.exit_code == 130 and "Run the same command" in result.stderr
    assert (out / "checkpoint.npz").exists() and not (out / "model.npz").exists()
    result = run(*SHORT, "--classes", "3,8", "--out", str(out), "--quiet")
    assert result.exit_code == 0 and result.stdout == "", result.output
    assert not (out / "checkpoint.npz").exists()
    with np.load(out / "samples.npz") as a, np.load(whole / "samples.npz") as b:
        np.testing.assert_array_equal(a["images"], b["images"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--network", "transformer"], "'transformer' is not known; use 'mlp' or 'unet'"),
        (["--schedule", "cosine"], "'cosine' is not known"),
        (["--predicts", "flow"], "does not go with schedule='vp-linear'"),
        (["--sampler", "euler"], "--sampler euler is not known; use dpm++"),
        (["--sampler", "probability-flow", "--steps", "3"], "leave out --steps 3"),
        (["--classes", "3;8"], "--classes 3;8"),
        (["--classes", ""], "must be digits"),
        (["--guidance", "nan"], "--guidance nan"),
        (["--model", "none.npz", "--quick"], "leave out --train-steps and --quick"),
        (["--model", "none.npz", "--network", "unet"], "leave out --network"),
        (["--model", "none.npz"], "there is no file none.npz"),
        (["--count", "0"], "--count"),
        (["--sampler", "deis", "--steps", "2"], "2 steps are fewer than the order 3"),
        (["--schedule", "rectified-flow", "--sampler", "heun"], "no finite coefficients"),
        (["--steps", "1", "--network", "unet"], "1 steps are fewer than the order 2"),
    ],
)
def test_refused_and_nothing_written(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert said in result.stderr and "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_files_of_something_else(tmp_path):
    path = tmp_path / "other.npz"
    rf.save(path, {"a": np.zeros(2)}, kind="other")
    assert "holds no model of the digits" in run("--model", str(path)).stderr
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert "cannot be written" in run(*SHORT, "--out", str(blocked)).stderr


def test_the_digits_are_those_of_scikit_learn_and_need_it_not(monkeypatch):
    from sklearn.datasets import load_digits

    images, classes = load_digits(return_X_y=True)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    ours = digits.digits()
    np.testing.assert_array_equal(8 * (np.asarray(ours.images) + 1), images.reshape(-1, 8, 8))
    np.testing.assert_array_equal(ours.classes, classes)
    assert ours.images.dtype == np.float32 and ours.classes.dtype.kind == "i"


@pytest.mark.parametrize("schedule", ["vp-cosine", "rectified-flow", "edm"])
def test_every_schedule_has_a_loss_and_a_denoiser_that_are_finite(schedule):
    import jax

    recipe = digits.Recipe("mlp", schedule, width=8)
    model = recipe.model(jax.random.key(0))
    data = digits.digits()
    images, classes = data.images[:16], data.classes[:16]

    @jax.jit
    def both(key):
        denoiser = recipe.denoiser(model, 2.0)
        begin = denoiser.schedule.begin
        return recipe.loss()(model, (images, classes), key), denoiser.data(images, begin, classes)

    assert all(np.isfinite(value).all() for value in both(jax.random.key(1)))
