import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rootflow as rf
from rootflow import curvature as cv

from .problems import clusters, cross_entropy, network, smooth, squared

KEY = jax.random.key(0)
INPUTS, LABELS, PARAMS = clusters()
DATA = (INPUTS, LABELS)


def test_the_path_between_the_two_minima_of_a_double_well():
    """(w^2 - 1)^2 has minima at -1 and 1 and a barrier of 1 between them."""

    def well(w, x):
        return w**2 - x

    def square(z, y):
        return z**2 + 0 * y

    data = (jnp.array([1.0, 1.0]), jnp.zeros(2))
    h = cv.hessian(well, square, jnp.asarray(-1.0), data)
    found = cv.path(h, jnp.asarray(1.0))
    np.testing.assert_allclose(found.barrier, 1.0, rtol=1e-12)
    w = 2 * np.asarray(found.ts) - 1
    np.testing.assert_allclose(found.losses, (w**2 - 1) ** 2, atol=1e-12)
    assert found.ts[0] == -0.5 and found.ts[-1] == 1.5 and 0.0 in found.ts and 1.0 in found.ts
    np.testing.assert_allclose(found.barrier_error, 0, atol=1e-14)  # the examples are equal
    mixed = (jnp.array([0.8, 1.2]), jnp.zeros(2))
    h = cv.hessian(well, square, jnp.asarray(-1.0), mixed)
    found = cv.path(h, jnp.asarray(1.0))
    # Rises of (x^2 - (1 - x)^2) = 0.6 and 1.4: their mean and its standard error.
    np.testing.assert_allclose([found.barrier, found.barrier_error], [1.0, 0.4 / 2**0.5], rtol=1e-9)


def test_a_convex_loss_has_no_barrier():
    w = jax.random.normal(KEY, (2, 6, 4))
    h = cv.hessian(lambda w, x: x @ w, cross_entropy, w[0], DATA, batch=7)
    found = cv.path(h, w[1], points=9)
    assert found.barrier == 0
    ends = [jnp.mean(jax.vmap(lambda x, y, v=v: cross_entropy(x @ v, y))(*DATA)) for v in w]
    np.testing.assert_allclose(
        [found.losses[found.ts == 0][0], found.losses[found.ts == 1][0]], ends, rtol=1e-12
    )


def rescaled(params, unit, factor):
    a, b, c = (params[name] for name in "abc")
    return {
        "a": a.at[:, unit].mul(factor), "b": b.at[unit].mul(factor),
        "c": c.at[unit].divide(factor), "d": params["d"],
    }  # fmt: skip


def test_sharpness_ignores_the_scale_of_relu_units():
    before = cv.hessian(network, cross_entropy, PARAMS, DATA)
    after = cv.hessian(network, cross_entropy, rescaled(PARAMS, 2, 30.0), DATA)
    np.testing.assert_allclose(before.losses(), after.losses(), rtol=1e-12)
    one, two = (cv.sharpness(h, key=KEY) for h in (before, after))
    np.testing.assert_allclose(two.largest, one.largest, rtol=1e-9)
    np.testing.assert_allclose(two.trace.value, one.trace.value, rtol=1e-9)
    assert two.raw > 5 * one.raw
    size = np.concatenate([np.abs(PARAMS[name]).ravel() for name in "abcd"])
    dense = np.asarray(cv.matrix(before)) * np.outer(size, size)
    np.testing.assert_allclose(one.largest, np.linalg.eigvalsh(dense)[-1], rtol=1e-9)
    # By leaf: a rescaling of the whole layer.
    whole = PARAMS
    for unit in range(5):
        whole = rescaled(whole, unit, 7.0)
    layer = [
        cv.sharpness(cv.hessian(network, cross_entropy, p, DATA), key=KEY, scale="leaf").largest
        for p in (PARAMS, whole)
    ]
    np.testing.assert_allclose(layer[0], layer[1], rtol=1e-9)


def test_the_split_exact_and_estimated():
    h = cv.hessian(smooth, cross_entropy, PARAMS, DATA)
    dense, left = (np.asarray(cv.matrix(h.of_kind(kind))) for kind in ("hessian", "residual"))
    values = np.linalg.eigvalsh(dense)
    ratio = np.linalg.norm(left) / np.linalg.norm(dense)
    share = -values[values < 0].sum() / np.abs(values).sum()
    exact = cv.split(h, key=KEY)
    np.testing.assert_allclose(exact.norm_ratio.value, ratio, rtol=1e-9)
    np.testing.assert_allclose(exact.negative_share.value, share, rtol=1e-9)
    np.testing.assert_allclose(exact.negative_count.value, np.mean(values < -1e-13), rtol=1e-9)
    assert exact.norm_ratio.standard_error == 0
    drawn = cv.split(h, key=KEY, exact=0, probes=160)
    assert abs(drawn.norm_ratio.value - ratio) < 3 * drawn.norm_ratio.standard_error
    assert abs(drawn.negative_share.value - share) < 3 * drawn.negative_share.standard_error
    assert 0 < drawn.norm_ratio.standard_error < 0.2 * ratio
    # At zero residual nothing is left and nothing is negative.
    fitted = (INPUTS, jax.vmap(lambda x: smooth(PARAMS, x))(INPUTS))
    ended = cv.hessian(smooth, squared, PARAMS, fitted)
    none = cv.split(ended, key=KEY)
    assert none.norm_ratio.value == 0 and none.negative_share.value < 1e-13
    v = jnp.ones(h.size)
    np.testing.assert_allclose(none.gauss_newton @ v, ended @ v, rtol=1e-9, atol=1e-13)


def test_along_a_run_from_the_checkpoints_of_rf_train(tmp_path):
    def loss(p, batch, key):
        inputs, labels = batch
        return jnp.mean(jax.vmap(lambda x, y: cross_entropy(smooth(p, x), y))(inputs, labels))

    kept, models = [], []
    for steps in (5, 20):
        trained = rf.train(
            loss, PARAMS, DATA, key=KEY, steps=steps, optimizer=optax.adam(0.05), batch_size=10,
            every=5, checkpoint=tmp_path / "run.npz", progress=False, ema=0.9, validation=DATA,
        )  # fmt: skip
        kept.append((tmp_path / "run.npz").rename(tmp_path / f"run-{steps}.npz"))
        models.append(trained.model)
        (tmp_path / "run.npz").write_bytes(kept[-1].read_bytes())
    rf.save(tmp_path / "plain.npz", PARAMS)
    h = cv.hessian(smooth, cross_entropy, PARAMS, DATA, batch=16)
    found = cv.along(h, [tmp_path / "plain.npz", *kept], key=KEY, count=2, points=5)
    assert found.steps.tolist() == [0, 5, 20]
    for row, params in enumerate((PARAMS, *models)):
        here = cv.hessian(smooth, cross_entropy, params, DATA)
        values = np.asarray(cv.eigenvalues(here))
        np.testing.assert_allclose(found.largest[row], values[:-3:-1], rtol=1e-6)
        np.testing.assert_allclose(found.smallest[row], values[:2], atol=1e-6)
        np.testing.assert_allclose(found.losses[row], np.mean(here.losses()), rtol=1e-10)
        np.testing.assert_allclose(
            found.gradient_norms[row], np.linalg.norm(here.gradient()), rtol=1e-8
        )
        assert abs(found.trace[row] - values.sum()) < 4 * found.trace_error[row]
        share = -values[values < 0].sum() / np.abs(values).sum()
        np.testing.assert_allclose(found.negative_share[row], share, rtol=1e-9)
    want = cv.path(h, models[0], points=5, span=(0.0, 1.0)).barrier
    np.testing.assert_allclose(found.barriers[0], want, atol=1e-12)
    assert found.losses[2] < found.losses[0]
    named = cv.along(h, {7: PARAMS}, key=KEY, count=2, points=5)
    np.testing.assert_allclose(named.largest[0], found.largest[0], rtol=1e-12)
    assert named.steps.tolist() == [7] and named.barriers.shape == (0,)
    with pytest.raises(ValueError, match="structure and shapes"):
        cv.along(h, [{**PARAMS, "a": jnp.ones((2, 2))}], key=KEY)
    with pytest.raises(ValueError, match="no snapshots"):
        cv.along(h, [], key=KEY)
    with pytest.raises(ValueError, match="there is no file"):
        cv.along(h, [tmp_path / "missing.npz"], key=KEY)


def test_losses_and_data_that_do_not_fit():
    def bad(message, call):
        with pytest.raises(ValueError, match=message):
            call()

    def make(model=smooth, objective=cross_entropy, params=PARAMS, data=DATA, **options):
        return lambda: cv.hessian(model, objective, params, data, **options)

    bad("loss of one example", make(objective=lambda z, y: z))
    bad("one real number", make(objective=lambda z, y: y))
    bad("common first axis", make(data=(INPUTS, LABELS[:-1])))
    bad("no examples", make(data=(INPUTS[:0], LABELS[:0])))
    bad("inputs, labels", make(data=INPUTS))
    bad("one number", make(data=(INPUTS, 3)))
    bad("batch", make(batch=0))
    bad("weights", make(weights=jnp.ones(3)))
    bad("not finite", make(params={**PARAMS, "b": jnp.full(5, jnp.nan)}))
    bad("no parameters", make(mask=lambda name: False))
    bad("does not fit", make(mask={"a": True}))
    bad("tree of True and False", make(mask={**dict.fromkeys("abc", True), "d": 3}))
    bad("must be a function", make(model=3))
    bad("params=None", make(params=None))
    h = make(mask=lambda name: name == "a")()
    bad("does not differentiate", lambda: h.block(lambda name: name == "c"))
    bad("structure and shapes", lambda: cv.path(make()(), {"a": jnp.ones(3)}))
    for tool in (cv.split, cv.sharpness):
        bad("operator of a loss", lambda t=tool: t(cv.operator(lambda v: v, size=3), key=KEY))
    bad("operator of a loss", lambda: cv.path(cv.operator(lambda v: v, size=3), jnp.ones(3)))
    bad("span", lambda: cv.path(make()(), PARAMS, span=(1.0, 0.0)))
    bad("scale", lambda: cv.sharpness(make()(), key=KEY, scale="unit"))  # type: ignore
    fisher = lambda **o: lambda: cv.fisher(smooth, cross_entropy, PARAMS, DATA, **o)
    bad("kind", fisher(kind="exact"))
    bad("needs a key", fisher(kind="sampled"))
    bad("sums to", lambda: cv.fisher(smooth, lambda z, y: z[y], PARAMS, DATA, kind="model"))
    bad(
        "one logit for each class",
        lambda: cv.fisher(lambda p, x: smooth(p, x)[0], lambda z, y: z, PARAMS, DATA, kind="model"),
    )
