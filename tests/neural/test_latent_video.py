"""Videos drawn from a latent path: what the bound is made of, forecasts, and what is refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow.neural import LatentVideo

KEY = jax.random.key(0)
VIDEO = np.random.default_rng(0).uniform(size=(4, 1, 8, 8))


def model_of(hurst=0.7, **options):
    return LatentVideo(
        4, 8, latent=2, content=3, features=4, width=8, hurst=hurst, key=KEY, **options
    )


@pytest.fixture(scope="module")
def model():
    """With a control that does something, as after training."""
    made = model_of()
    last = lambda m: m.process.control.network.layers[-1].bias
    return eqx.tree_at(last, made, jnp.array([0.5, -0.3]))


bound = eqx.filter_jit(lambda m, video: m.bound(video, jax.random.key(1)))
infer = eqx.filter_jit(lambda m, video: m.infer(video, jax.random.key(1)))


def test_the_parts_of_the_bound(model):
    """The control is constant: half of |u|^2 over a time of 0.3. The fit is that of the frames."""
    found = bound(model, VIDEO)
    np.testing.assert_allclose(found.path, 0.5 * (0.25 + 0.09) * 0.3, rtol=1e-12)
    drawn = infer(model, VIDEO)
    log = -0.5 * ((VIDEO - drawn) / 0.1) ** 2 - np.log(0.1) - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(found.fit, np.sum(log), rtol=1e-12)
    assert drawn.shape == (4, 1, 8, 8) and np.all((drawn > 0) & (drawn < 1)) and found.start > 0
    assert bound(model_of(), VIDEO).path == 0  # before training the posterior is the prior
    assert bound(model_of(None), VIDEO).path == 0


def test_a_forecast_follows_the_prior(model):
    """After the last frame there is no control, and nothing of the frames to come is known."""
    seen = bound(model, VIDEO[:3])
    # The control ends at t = 0.2, within a step of the solve.
    np.testing.assert_allclose(seen.path, 0.5 * (0.25 + 0.09) * 0.2, rtol=0.1)
    assert infer(model, VIDEO[:3]).shape == (4, 1, 8, 8)


def test_a_missing_pixel_says_nothing(model):
    video = VIDEO.copy()
    video[2, 0, 3, 3] = np.nan
    found = bound(model, video)
    video[2] = np.nan  # the encoder passes over the frame in both
    less = bound(model, video)
    assert found.path == less.path and found.start == less.start and less.fit != found.fit
    assert np.isfinite(found.fit)


def test_gradient(model):
    loss = lambda m: m.loss(VIDEO, jax.random.key(1), 0.5)[0]
    gradient = eqx.filter_jit(eqx.filter_grad(loss))(model)
    value = eqx.filter_jit(loss)
    for where, i in (
        (lambda m: m.process.logit, ()),
        (lambda m: m.process.drift.network.layers[0].weight, (1, 0)),
        (lambda m: m.encoder.convolutions[0].weight, (0, 0, 1, 1)),
        (lambda m: m.process.log_spread, (1,)),
    ):
        at = lambda e, where=where, i=i: value(eqx.tree_at(where, model, where(model).at[i].add(e)))
        slope = (at(1e-4) - at(-1e-4)) / 2e-4
        np.testing.assert_allclose(where(gradient)[i], slope, rtol=1e-4, atol=1e-6)


def test_single_precision_and_samples_of_the_prior():
    model = model_of(dtype=jnp.float32)
    content = eqx.filter_jit(lambda m: m.content_of(VIDEO))(model)
    draw = eqx.filter_jit(eqx.filter_vmap(lambda m, c, k: m.sample(c, k), in_axes=(None, None, 0)))
    drawn = draw(model, content, jax.random.split(KEY, 3))
    assert drawn.shape == (3, 4, 1, 8, 8) and drawn.dtype == jnp.float32
    assert len(np.unique(np.asarray(drawn)[:, -1, 0, 0, 0])) == 3


def test_refused(model):
    for options, message in (
        (dict(frames=2, side=8), "three frames or more; got frames=2"),
        (dict(frames=4, side=12), "side must be a power of 2, 8 or more; got 12"),
        (dict(frames=4, side=8, features=6), "features must be a multiple of 4; got 6"),
        (dict(frames=4, side=8, spacing=0.0), r"spacing must be positive; got 0\.0"),
        (dict(frames=4, side=8, noise=-1.0), r"noise must be positive; got -1\.0"),
        (dict(frames=4, side=8, hurst=1.5), r"between 0 and 1; got 1\.5"),
        (dict(frames=4, side=8, latent=0), "latent must be a whole number"),
    ):
        with pytest.raises(rf.InputError, match=message):
            LatentVideo(key=KEY, **options)
    for video in (VIDEO[:2], VIDEO[:, 0], np.concatenate([VIDEO, VIDEO])):
        with pytest.raises(rf.InputError, match=r"shape \(n, 1, 8, 8\), n being 3 to 4; got"):
            model.bound(video, KEY)
