"""`rf.train`: least squares and other losses whose minimum is known."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rootflow.errors import InputError, SolveError
from rootflow.training import load, metadata, run, running_mean, save, train

KEY = jax.random.key(0)


class Line(eqx.Module):
    weights: jax.Array
    offset: jax.Array
    name: str = "line"

    def __call__(self, x):
        return x @ self.weights + self.offset


def squares(model, batch, key):
    del key
    x, y = batch
    return jnp.mean((model(x) - y) ** 2)


def fresh(size=3):
    return Line(jnp.zeros(size), jnp.zeros(()))


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(200, 3))
    y = x @ np.array([1.0, -2.0, 0.5]) + 0.3 + 0.1 * generator.normal(size=200)
    return x, y


ADAM = optax.adam(0.05)


def test_the_minimum_of_least_squares(data):
    x, y = data
    trained = train(squares, fresh(), data, key=KEY, steps=2000, optimizer=ADAM, every=500)
    design = np.column_stack([x, np.ones(200)])
    exact, residual, *_ = np.linalg.lstsq(design, y)
    found = np.append(trained.model.weights, trained.model.offset)
    np.testing.assert_allclose(found, exact, atol=1e-8)
    assert trained.model.name == "line"
    np.testing.assert_array_equal(trained.history["step"], [500, 1000, 1500, 2000])
    np.testing.assert_allclose(trained.history["loss"][-1], residual[0] / 200, rtol=1e-10)
    assert trained.history["gradient_norm"][-1] < 1e-6
    assert (trained.steps, trained.stopped, trained.skipped) == (2000, "steps", 0)
    assert trained.best is trained.model and trained.ema is None


def test_one_step_of_gradient_descent_is_the_formula(data):
    x, y = data
    trained = train(squares, fresh(), data, key=KEY, steps=1, optimizer=optax.sgd(0.1), every=1)
    np.testing.assert_allclose(trained.model.weights, 0.1 * 2 * x.T @ y / 200, rtol=1e-12)
    np.testing.assert_allclose(trained.history["loss"], np.mean(y**2), rtol=1e-12)


def record_rows(state, batch, key):
    seen, n = state
    return (seen.at[n].set(batch[0]), n + 1), {"x": 0.0 * batch[0][0]}


def test_every_epoch_is_a_permutation_of_the_examples():
    rows = jnp.arange(10.0)
    start = (jnp.zeros((9, 3)), jnp.zeros((), int))
    ended = run(record_rows, start, (rows,), key=KEY, steps=9, batch_size=3, every=4)
    epochs = np.asarray(ended.state[0]).reshape(3, 9)
    for epoch in epochs:  # nine of the ten, none twice
        assert len(set(epoch)) == 9 and set(epoch) <= set(range(10))
    assert not np.array_equal(epochs[0], epochs[1])


def test_the_stretches_between_reports_do_not_matter(data):
    ends = [
        train(squares, fresh(), data, key=KEY, steps=30, batch_size=32, every=every, optimizer=ADAM)
        for every in (1, 7, 30)
    ]
    for other in ends[1:]:
        np.testing.assert_array_equal(ends[0].model.weights, other.model.weights)
    means = ends[0].history["loss"].reshape(1, 30).mean(1)
    np.testing.assert_allclose(ends[2].history["loss"], means, rtol=1e-12)


def test_a_resumed_run_ends_with_the_same_numbers(data, tmp_path):
    options = dict(
        key=KEY, batch_size=32, every=10, optimizer=ADAM, ema=0.9, validation=data, patience=50
    )
    whole = train(squares, fresh(), data, steps=60, **options)
    path = tmp_path / "run.npz"
    train(squares, fresh(), data, steps=25, checkpoint=path, **options)
    rest = train(squares, fresh(), data, steps=60, checkpoint=path, **options)
    for name in ("model", "ema", "best"):
        a, b = getattr(whole, name), getattr(rest, name)
        np.testing.assert_array_equal(a.weights, b.weights)
        np.testing.assert_array_equal(a.offset, b.offset)
    again = train(squares, fresh(), data, steps=60, checkpoint=path, **options)
    np.testing.assert_array_equal(again.model.weights, whole.model.weights)
    assert list(again.history["step"]) == list(rest.history["step"])
    assert not list(tmp_path.glob(".*"))  # no drafts are left


class Interruption(Exception):
    pass


def test_an_interrupted_run_is_kept(data, tmp_path):
    def interrupt(step, metrics):
        if step == 20:
            raise Interruption

    options = dict(key=KEY, batch_size=32, every=10, optimizer=ADAM, steps=40)
    path = tmp_path / "run.npz"
    with pytest.raises(Interruption):
        train(squares, fresh(), data, checkpoint=path, progress=interrupt, **options)
    assert metadata(path)["record"]["step"] == 20
    rest = train(squares, fresh(), data, checkpoint=path, **options)
    whole = train(squares, fresh(), data, **options)
    np.testing.assert_array_equal(rest.model.weights, whole.model.weights)


def test_a_checkpoint_of_another_run_is_refused(data, tmp_path):
    path = tmp_path / "run.npz"
    options = dict(steps=2, every=1, checkpoint=path, optimizer=ADAM)
    train(squares, fresh(), data, key=KEY, **options)
    x, y = data
    with pytest.raises(InputError, match="a run with another key"):
        train(squares, fresh(), data, key=jax.random.key(1), **options)
    with pytest.raises(InputError, match="another data"):
        train(squares, fresh(), (x, y + 1), key=KEY, **options)
    with pytest.raises(InputError, match="another loss, optimizer and model"):
        train(lambda m, b, k: jnp.sum(m.weights**2), fresh(4), data, key=KEY, **options)
    save(path, fresh())
    with pytest.raises(InputError, match="not the checkpoint of a run"):
        train(squares, fresh(), data, key=KEY, **options)
    options["checkpoint"] = tmp_path / "nowhere" / "run.npz"
    with pytest.raises(InputError, match="there is no folder"):
        train(squares, fresh(), data, key=KEY, **options)


def test_early_stop_returns_the_best(data):
    x, y = data
    # A rate that diverges: the first validation is the best one.
    trained = train(
        squares,
        fresh(),
        data,
        key=KEY,
        steps=100,
        every=1,
        optimizer=optax.sgd(1.5),
        validation=data,
        patience=3,
    )
    assert (trained.stopped, trained.steps) == ("patience", 4)
    validation = trained.history["validation"]
    np.testing.assert_allclose(squares(trained.best, (x, y), KEY), validation.min(), rtol=1e-12)
    assert validation.argmin() == 0


def test_averages_of_parameters():
    def gradient_one(model, batch, key):
        return model["x"] + 0 * batch[0][0]

    options = dict(key=KEY, steps=6, every=2, optimizer=optax.sgd(1.0))
    x = {"x": jnp.zeros(())}  # after step n it is -n
    mean = train(gradient_one, x, (jnp.zeros(4),), ema=running_mean(2), **options)
    np.testing.assert_allclose(mean.ema["x"], -np.mean([3, 4, 5, 6]))
    trained = train(gradient_one, x, (jnp.zeros(4),), ema=0.5, **options)
    average = 0.0
    for n in range(6):
        decay = min(0.5, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * -(n + 1)
    np.testing.assert_allclose(trained.ema["x"], average, rtol=1e-12)
    assert trained.best is trained.ema
    with pytest.raises(InputError, match=r"ema=1\.5"):
        train(gradient_one, x, (jnp.zeros(4),), ema=1.5, **options)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_averages_of_half_precision_do_not_freeze(dtype):
    """The parameter is 1 from the first step on, and the average begins at 0."""
    steps, decay = 2000, 0.999
    options = dict(key=KEY, steps=steps, every=steps, project=lambda m: {"w": jnp.ones((), dtype)})
    loss = lambda m, b, k: jnp.float32(0.25) * b[0][0] + 0 * m["w"].astype(jnp.float32)
    start, data = {"w": jnp.zeros((), dtype)}, (jnp.ones(1, jnp.float32),)
    decays = np.minimum(decay, (1 + np.arange(steps)) / (10 + np.arange(steps)))
    found = train(loss, start, data, ema=decay, **options)
    assert found.model["w"].dtype == dtype and found.ema["w"].dtype == jnp.float32
    np.testing.assert_allclose(found.ema["w"], 1 - np.prod(decays), rtol=1e-4)
    mean = train(loss, start, data, ema=running_mean(500), **options)
    np.testing.assert_allclose(mean.ema["w"], 1.0, rtol=1e-4)


def test_metrics_of_half_precision_are_summed_in_single():
    """The mean of 3,000 losses of 1, and the norm of a gradient whose square is beyond float16."""
    ones = lambda m, b, k: jnp.float16(1) + 0 * m["w"]
    steep = lambda m, b, k: 300 * m["w"]
    options = dict(key=KEY, steps=3000, every=3000, optimizer=optax.sgd(0.0))
    start, data = {"w": jnp.zeros((), jnp.float16)}, (jnp.ones(1),)
    assert train(ones, start, data, **options).history["loss"][0] == 1.0
    assert train(steep, start, data, **options).history["gradient_norm"][0] == 300.0


def test_projection_and_what_is_trained():
    def distance(model, batch, key):
        return jnp.sum((model["a"] + 1) ** 2) + jnp.sum((model["b"] + 1) ** 2) + 0 * batch[0][0]

    trained = train(
        distance,
        {"a": jnp.ones(2), "b": jnp.ones(2)},
        (jnp.zeros(1),),
        key=KEY,
        steps=200,
        optimizer=optax.sgd(0.1),
        project=lambda m: jax.tree.map(lambda x: jnp.maximum(x, 0.25), m),
        trainable={"a": True, "b": False},
    )
    np.testing.assert_array_equal(trained.model["a"], 0.25)
    np.testing.assert_array_equal(trained.model["b"], 1.0)


def test_batches_from_a_function_and_from_an_iterator():
    def noisy_mean(model, batch, key):
        return jnp.mean((model["m"] - batch) ** 2), {"spread": jnp.var(batch)}

    start = {"m": jnp.zeros(())}
    options = dict(key=KEY, every=100)
    rate = optax.sgd(optax.polynomial_schedule(0.5, 0.0, 1, 400))
    drawn = train(
        noisy_mean, start, lambda k: 3 + jax.random.normal(k, (50,)), steps=400, optimizer=rate,
        **options,
    )  # fmt: skip
    assert abs(drawn.model["m"] - 3) < 0.05
    np.testing.assert_allclose(drawn.history["spread"], 1.0, atol=0.1)
    batches = itertools.cycle([np.full(2, 1.0), np.full(2, 5.0)])
    half = optax.sgd(lambda n: 1 / (2 * (n + 1)))  # the mean of all batches so far
    streamed = train(noisy_mean, start, batches, steps=10, optimizer=half, key=KEY, every=3)
    np.testing.assert_allclose(streamed.model["m"], 3.0, rtol=1e-7)  # rates are single
    with pytest.raises(InputError, match="ended after 2 steps"):
        train(noisy_mean, start, iter([np.zeros(2)] * 2), steps=3, **options)


def test_an_iterator_is_resumed_at_its_place(tmp_path):
    def loss(model, batch, key):
        return jnp.mean((model["m"] - batch) ** 2)

    def numbers():
        return (np.full(2, float(n)) for n in itertools.count())

    options = dict(key=KEY, every=2, optimizer=optax.sgd(0.3))
    start, path = {"m": jnp.zeros(())}, tmp_path / "run.npz"
    whole = train(loss, start, numbers(), steps=8, **options)
    train(loss, start, numbers(), steps=4, checkpoint=path, **options)
    rest = train(loss, start, numbers(), steps=8, checkpoint=path, **options)
    np.testing.assert_array_equal(whole.model["m"], rest.model["m"])


def breaks_at(step):
    def loss(model, batch, key):
        # The gradient is 1 until the parameter has come to -step.
        return model["x"] + jnp.where(model["x"] <= -step, jnp.nan, 0.0) + 0 * batch[0][0]

    return loss


def test_a_loss_that_is_not_finite(tmp_path):
    options = dict(key=KEY, steps=10, every=4, optimizer=optax.sgd(1.0))
    start, data = {"x": jnp.zeros(())}, (jnp.zeros(3),)
    path = tmp_path / "run.npz"
    with pytest.raises(SolveError, match=r"step 6 was not finite.*run\.npz"):
        train(breaks_at(5), start, data, checkpoint=path, **options)
    assert metadata(path)["record"]["step"] == 5
    kept = train(breaks_at(5), start, data, nonfinite="stop", **options)
    assert (kept.stopped, kept.steps, float(kept.model["x"])) == ("nonfinite", 5, -5.0)
    skipped = train(breaks_at(5), start, data, nonfinite="skip", **options)
    assert (skipped.steps, skipped.skipped, float(skipped.model["x"])) == (10, 5, -5.0)
    assert np.all(np.isfinite(skipped.history["loss"]))


def test_a_saved_tree_comes_back(tmp_path):
    tree = {
        "module": fresh(),
        "half": jnp.arange(3, dtype=jnp.bfloat16),
        "key": jax.random.key(7),
        "numbers": [1, 2.5, True, 1 + 2j],
        "numpy": np.arange(4, dtype=np.int8),
        "text": "kept from the tree that is given",
    }
    path = tmp_path / "tree.npz"
    save(path, tree, note="hello", sizes=[1, 2])
    back = load(path, jax.tree.map(lambda x: x, tree))
    assert eqx.tree_equal(tree, back, typematch=True)
    assert metadata(path) == {"note": "hello", "sizes": [1, 2]}
    shapes = eqx.filter_eval_shape(fresh)
    save(path, fresh())
    assert eqx.tree_equal(load(path, shapes), fresh())


def test_files_that_do_not_fit(tmp_path):
    path = tmp_path / "tree.npz"
    save(path, {"a": jnp.zeros(2), "b": 1})
    with pytest.raises(InputError, match="lacks 'c'"):
        load(path, {"a": jnp.zeros(2), "b": 1, "c": 2.0})
    with pytest.raises(InputError, match="has 'b', which the tree lacks"):
        load(path, {"a": jnp.zeros(2)})
    with pytest.raises(InputError, match=r"'a' has shape \(2,\).*\(3,\)"):
        load(path, {"a": jnp.zeros(3), "b": 1})
    with pytest.raises(InputError, match=r"'a' has type float64.*float32"):
        load(path, {"a": jnp.zeros(2, jnp.float32), "b": 1})
    with pytest.raises(InputError, match="'b' has the type"):
        load(path, {"a": jnp.zeros(2), "b": 1.5})
    with pytest.raises(InputError, match="there is no file"):
        load(tmp_path / "nothing.npz", {})
    for content in (b"nonsense", path.read_bytes()[:100]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a file written by"):
            load(path, {"a": jnp.zeros(2), "b": 1})
    np.savez(path, a=np.zeros(2))
    with pytest.raises(InputError, match="not a file written by"):
        load(path, {"a": jnp.zeros(2)})
    with pytest.raises(InputError, match="JSON"):
        save(path, {"a": 1}, note=object())


def good(model, batch, key):
    return jnp.mean(model["w"] * batch[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(steps=0), "steps must be a positive whole number, got 0"),
        (dict(every=2.5), "every must be a positive whole number, got 2.5"),
        (dict(patience=2), "patience=2 needs something to wait for"),
        (dict(nonfinite="ignore"), "got 'ignore'"),
        (dict(key=0), r"key=0 is a number: give one key, key=jax\.random\.key\(0\)"),
        (dict(key=[1, 2]), "key is a list of 2"),
        (dict(optimizer=optax.adam), r"call it, optax\.adam\(1e-3\)"),
        (dict(data=[(jnp.ones(8),), (jnp.ones(8),)]), r"list of 2 batches.*itertools\.cycle"),
        (dict(checkpoint="/"), "is a folder: name a file in it"),
        (dict(batch_size=9), "batch_size=9 is more than the 8 examples"),
        (dict(batch_size=0), "batch_size must be a positive whole number"),
        (dict(data=(jnp.zeros(8), jnp.zeros(7))), "first axes of the data differ"),
        (dict(data=(1.0,)), r"data\[0\] is 1.0"),
        (dict(data=()), "holds no arrays"),
        (dict(data=(jnp.zeros((0, 2)),)), "holds no examples"),
        (dict(data=lambda key: (jnp.ones(2),), batch_size=2), "data that is a function of a key"),
        (dict(model={"w": 1.0}), "nothing to train"),
        (dict(loss=lambda m, b, k: m["w"] * b[0]), r"got shape \(8,\)"),
        (dict(loss=lambda m, b, k: (m["w"], 3)), "must be a dictionary of metrics, got int"),
        (dict(project=lambda m: {"w": jnp.zeros(2)}), r"'model.w' of the state.*\[2\]"),
        (dict(project=lambda m: {"v": m["w"]}), "changed the structure of the state"),
    ],
)  # fmt: skip
def test_bad_input(changes, message):
    given = dict(loss=good, model={"w": jnp.ones(())}, data=(jnp.ones(8),), key=KEY, steps=2)
    given |= changes
    with pytest.raises(InputError, match=message):
        train(given.pop("loss"), given.pop("model"), given.pop("data"), **given)


def test_an_update_must_return_metrics():
    with pytest.raises(InputError, match="its metrics as a dictionary"):
        run(lambda s, b, k: s, jnp.zeros(()), (jnp.zeros(2),), key=KEY, steps=1)
    with pytest.raises(InputError, match=r"metric 'a' must be one number, got shape \(2,\)"):
        run(lambda s, b, k: (s, {"a": b[0]}), jnp.zeros(()), (jnp.zeros(2),), key=KEY, steps=1)


def test_what_is_not_trained_is_renewed_between_reports():
    """The goal moves by one at each report: after 10 steps there were five."""
    model = {"x": jnp.zeros(()), "goal": jnp.zeros(())}
    loss = lambda m, batch, key: (m["x"] - m["goal"]) ** 2
    found = train(
        loss, model, jnp.zeros((1, 1)), key=jax.random.key(0), steps=10, every=2,
        trainable={"x": True, "goal": False}, progress=False, optimizer=optax.sgd(0.5),
        refresh=lambda m, key: m | {"goal": m["goal"] + 1},
    )  # fmt: skip
    assert float(found.model["goal"]) == 5 and float(found.model["x"]) == 4
