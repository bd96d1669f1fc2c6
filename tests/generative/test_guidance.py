"""Guidance scales are data and not a part of the program."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import generative as gen

from .problems import START, VP


def model(x, t, condition):
    return 0.5 * x + condition


def test_scales_share_one_compiled_program():
    traced = []

    @eqx.filter_jit
    def guided(denoiser, x):
        traced.append(1)
        return denoiser.noise(x, 0.5, 1.0)

    for scale in (1.0, 2.0, 3):
        guide = gen.ClassifierFree(scale, unconditional=0.0)
        for dtype in (jnp.float32, jnp.float64):
            x = START.astype(dtype)
            found = guided(gen.Denoiser(model, VP, guidance=guide), x)
            assert found.dtype == dtype
            np.testing.assert_allclose(found, 0.5 * x + scale, rtol=1e-6)
    # An integer is its own kind of number.
    assert len(traced) <= 4


def test_scales_are_checked_where_they_are_known():
    for make in (
        gen.ClassifierFree,
        gen.LossGuidance,
        lambda scale: gen.AutoGuidance(model, scale),
        lambda scale: gen.Classifier(model, scale),
        lambda scale: jax.jit(lambda x: gen.ClassifierFree(scale).scale * x)(1.0),
    ):
        args = (lambda x: x, float("nan")) if make is gen.LossGuidance else (float("nan"),)
        with pytest.raises(rf.InputError, match="must be finite; got nan"):
            make(*args)


def test_a_scale_that_depends_on_the_time():
    x, low, high = START, jnp.asarray(0.2), jnp.asarray(0.8)
    free = gen.Denoiser(model, VP, guidance=gen.ClassifierFree(lambda t: 1 + t, unconditional=0.0))
    for t in (low, high):
        np.testing.assert_allclose(free.noise(x, t, 1.0), 0.5 * x + 1 + t, rtol=1e-12)
    each = jnp.linspace(0.1, 0.9, len(x))  # a time, and so a scale, for each sample
    np.testing.assert_allclose(free.noise(x, each, 1.0), 0.5 * x + 1 + each[:, None], rtol=1e-12)
    auto = gen.AutoGuidance(lambda x, t, c: 0.5 * x, lambda t: 1 + t)
    found = gen.Denoiser(model, VP, guidance=auto).noise(x, high, 1.0)
    np.testing.assert_allclose(found, 0.5 * x + 1.8, rtol=1e-12)
    # Guidance by a gradient of one: the change of the noise is -scale sigma.
    ones = lambda x, t, c: jnp.sum(x, axis=-1)
    for scale in (lambda t: 2 * t, 1.6):
        guide = gen.Classifier(ones, scale, conditional=True)
        found = gen.Denoiser(model, VP, guidance=guide).noise(x, high, 1.0)
        np.testing.assert_allclose(found, 0.5 * x + 1 - 1.6 * VP.sigma(high), rtol=1e-12)
    with pytest.raises(rf.InputError, match=r"a function of the time, and must return"):
        gen.Denoiser(model, VP, guidance=gen.ClassifierFree(lambda t: "2")).noise(x, low, 1.0)
    with pytest.raises(rf.InputError, match=r"shape \(3,\), and there are 32"):
        wrong = gen.ClassifierFree(lambda t: jnp.ones(3), unconditional=0.0)
        gen.Denoiser(model, VP, guidance=wrong).noise(x, low, 1.0)


def counted(guidance, **options):
    calls = []

    def watched(x, t, condition):
        jax.debug.callback(lambda c: calls.append(float(c)), condition)
        return model(x, t, condition)

    options = dict(start=START, sampler=gen.DDIM(), steps=10) | options
    out = gen.sample(gen.Denoiser(watched, VP, guidance=guidance), 1.0, **options)
    jax.block_until_ready(out)
    jax.effects_barrier()
    return out, calls.count(1.0), calls.count(0.0)


def test_outside_the_interval_the_model_is_called_once():
    times = gen.times(VP, 10)[:-1]
    level = VP.sigma(times) / VP.alpha(times)
    interval = (float(level[6]) * 1.01, float(level[2]) * 1.01)  # of the steps 2 to 5
    free = gen.ClassifierFree(3.0, unconditional=0.0, interval=interval)
    out, with_it, without = counted(free)
    assert (with_it, without) == (10, 4)
    assert counted(gen.ClassifierFree(3.0, unconditional=0.0))[1:] == (10, 10)
    # The same samples as with a scale that is 1 outside of it, and the same derivative.
    inside = lambda t: jnp.where((t < times[1]) & (t > times[6]), 3.0, 1.0)
    scaled = gen.ClassifierFree(inside, unconditional=0.0)
    np.testing.assert_allclose(out, counted(scaled)[0], rtol=1e-12)

    def loss(condition, guide):
        denoiser = gen.Denoiser(model, VP, guidance=guide)
        options = dict(start=START, steps=10, sampler=gen.DDIM(), gradient="checkpoint")
        return jnp.sum(gen.sample(denoiser, condition, **options) ** 2)

    slopes = [jax.grad(loss)(1.0, guide) for guide in (free, scaled)]
    np.testing.assert_allclose(*slopes, rtol=1e-10)
    # With levels of its own for each sample both are evaluated, and one is used.
    denoiser = gen.Denoiser(model, VP, guidance=free)
    pair = denoiser.noise(START[:2], jnp.asarray(times[[1, 3]]), 1.0)
    np.testing.assert_allclose(pair, 0.5 * START[:2] + jnp.array([[1.0], [3.0]]), rtol=1e-12)
    bad = gen.AutoGuidance(lambda x, t, c: model(x, t, 0 * c), 3.0, interval=interval)
    np.testing.assert_allclose(counted(bad)[0], out, rtol=1e-12)


def test_rescaled_guidance_is_that_of_diffusers():
    # `rescale_noise_cfg(none + 3 (text - none), text, 0.7)` of diffusers 0.42 on these numbers.
    text, none = np.random.default_rng(0).normal(size=(2, 3, 4))
    guide = gen.ClassifierFree(3.0, unconditional=none, rescale=0.7)
    denoiser = gen.Denoiser(lambda x, t, c: c, VP, guidance=guide)
    found = denoiser.noise(jnp.zeros((3, 4)), 0.5, text)
    expected = [
        [2.0009182643412, 0.016425547814491, 1.7564728605926, 0.70816099517547],
        [-0.34685386635648, 1.1488777338471, 2.0662708409341, 0.50588520089808],
        [-0.80125380996226, -2.821550507644, -0.23311315423726, -0.2502295813933],
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    # Wholly rescaled it has the standard deviation of the conditional prediction.
    whole = gen.Denoiser(
        lambda x, t, c: c, VP, guidance=gen.ClassifierFree(3.0, unconditional=none, rescale=1.0)
    ).noise(jnp.zeros((3, 4)), 0.5, text)
    np.testing.assert_allclose(whole.std(1), text.std(1), rtol=1e-12)
    # A constant prediction has none to compare with, and stays.
    flat = gen.Denoiser(model, VP, guidance=gen.ClassifierFree(3.0, 0.0, rescale=1.0))
    np.testing.assert_allclose(flat.noise(jnp.zeros((2, 4)), 0.5, 1.0), 3.0)
    with pytest.raises(rf.InputError, match=r"rescale=2\.0"):
        gen.ClassifierFree(3.0, rescale=2.0)


class Towards(gen.Guidance):
    """A guidance of one's own: the predicted noise moved by a multiple of the condition."""

    strength: float

    def apply(self, denoiser, x, level, condition):
        value = denoiser.evaluate(x, level, condition, False)
        return value - self.strength * level.sigma * condition


def test_a_guidance_of_ones_own():
    denoiser = gen.Denoiser(lambda x, t: 0.5 * x, VP, guidance=Towards(0.3))
    found = gen.sample(denoiser, jnp.ones(2), start=START, steps=4)
    by_hand = gen.Denoiser(lambda x, t: 0.5 * x - 0.3 * VP.sigma(t), VP)
    np.testing.assert_allclose(found, gen.sample(by_hand, start=START, steps=4), rtol=1e-10)
    with pytest.raises(rf.InputError, match="Towards guides towards a condition"):
        gen.sample(denoiser, start=START, steps=4)
