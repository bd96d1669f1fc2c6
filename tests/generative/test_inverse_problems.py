"""Guidance by a measurement, against the posterior of normal data, which is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import generative as gen

from .problems import START, VP

T = 0.4
DATA = gen.exact.GaussianMixture([[0.5, -0.3]], [[1.0, 1.0]])
MODEL = DATA.denoiser(VP)
NOISE, MEASURED = 0.3, jnp.array([1.2])
X = START + 0.2


def first(x):
    """The first of the two numbers."""
    return x[:, :1]


def posterior_score(x, std, mean):
    """grad log p(x_t | y) of normal data of variance std^2 where y = x_0 + noise."""
    variance = 1 / (1 / std**2 + 1 / NOISE**2)
    centre = variance * (mean / std**2 + 1.2 / NOISE**2)
    a, s = VP.alpha(T), VP.sigma(T)
    return -(x - a * centre) / (a**2 * variance + s**2)


@pytest.mark.parametrize("kind", ["noise", "data", "flow"])
def test_moment_matching_is_exact_for_normal_data(kind):
    guidance = gen.MomentMatching(first, MEASURED, NOISE)
    guided = gen.Denoiser(DATA.denoiser(VP, kind).model, VP, kind, guidance=guidance)
    found = jax.jit(lambda x: guided.score(x, T))(X)
    np.testing.assert_allclose(found[:, 0], posterior_score(X[:, 0], 1.0, 0.5), rtol=1e-6)
    np.testing.assert_allclose(found[:, 1], MODEL.score(X, T)[:, 1], rtol=1e-9)


def test_pigdm_is_exact_for_normal_data_of_its_variance():
    for std in (1.0, 0.4):
        data = gen.exact.GaussianMixture([[0.5, -0.3]], std)
        guidance = gen.PiGDM(first, MEASURED, NOISE, data_std=std)
        guided = gen.Denoiser(data.denoiser(VP).model, VP, guidance=guidance)
        found = jax.jit(lambda x, g=guided: g.score(x, T))(X)[:, 0]
        np.testing.assert_allclose(found, posterior_score(X[:, 0], std, 0.5), rtol=1e-6)


@pytest.mark.parametrize("kind", ["PiGDM", "Classifier"])
def test_on_straight_paths_from_where_there_is_no_signal(kind):
    schedule = gen.RectifiedFlow()

    def log_probability(x, t, _):
        # The measurement given x_t of normal data of variance 1 about 0.5.
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        size = alpha**2 + sigma**2
        centre = 0.5 + alpha / size * (x[:, 0] - 0.5 * alpha)
        return -0.5 * (1.2 - centre) ** 2 / (sigma**2 / size + NOISE**2)

    guides = {
        "PiGDM": gen.PiGDM(first, MEASURED, NOISE),
        "Classifier": gen.Classifier(log_probability),
    }
    denoiser = DATA.denoiser(schedule, "flow", guidance=guides[kind])
    condition = jnp.zeros(()) if kind == "Classifier" else None
    found = gen.sample(denoiser, condition, start=START, steps=200)[:, 0]
    # The flow carries standard normal noise to the posterior, which is normal.
    variance = 1 / (1 + 1 / NOISE**2)
    exact = variance * (0.5 + 1.2 / NOISE**2) + jnp.sqrt(variance) * START[:, 0]
    np.testing.assert_allclose(found, exact, atol=0.02)


def test_dps_follows_the_gradient_of_the_misfit():
    def misfit(x):
        return jnp.sum((MEASURED - jnp.sin(first(MODEL.data(x, T)))) ** 2)

    operator = lambda x: jnp.sin(first(x))
    slope = jax.jit(jax.grad(misfit))(X)
    for normalized in (False, True):
        guidance = gen.DPS(operator, MEASURED, 0.7, normalized=normalized)
        guided = gen.Denoiser(MODEL.model, VP, guidance=guidance)
        size = jnp.abs(MEASURED - operator(MODEL.data(X, T))) if normalized else 1.0
        expected = MODEL.score(X, T) - 0.7 * slope / size
        found = jax.jit(lambda x, g=guided: g.score(x, T))(X)
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


def test_it_wraps_other_guidance():
    def conditional(x, t, c):
        return jnp.where(c == 1, 1.0, 0.5) * MODEL.noise(x, t)

    free = gen.ClassifierFree(2.0, unconditional=0)
    guidance = gen.PiGDM(first, MEASURED, NOISE, inner=free)
    both = gen.Denoiser(conditional, VP, guidance=guidance)
    alone = gen.Denoiser(lambda x, t: 1.5 * MODEL.noise(x, t), VP)
    expected = gen.Denoiser(alone.model, VP, guidance=gen.PiGDM(first, MEASURED, NOISE))
    np.testing.assert_allclose(both.score(X, T, 1), expected.score(X, T), rtol=1e-9)
    with pytest.raises(rf.InputError, match="pass condition"):
        both.score(X, T)


def test_samples_follow_the_posterior_and_its_gradient_in_the_measurement():
    def sampled(measured):
        guidance = gen.MomentMatching(first, measured[None], NOISE)
        denoiser = gen.Denoiser(MODEL.model, VP, guidance=guidance)
        return gen.sample(denoiser, start=jnp.tile(START, (8, 1)), steps=40)

    out = jax.jit(sampled)(1.2)
    variance = 1 / (1 + 1 / NOISE**2)
    np.testing.assert_allclose(out[:, 0].mean(), variance * (0.5 + 1.2 / NOISE**2), atol=0.06)
    np.testing.assert_allclose(out[:, 0].std(), np.sqrt(variance), atol=0.05)
    slope = jax.jit(jax.grad(lambda y: sampled(y)[:, 0].mean()))(1.2)
    np.testing.assert_allclose(slope, variance / NOISE**2, atol=0.02)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gen.PiGDM(first, MEASURED, 0.0), "noise=0.0"),
        (lambda: gen.PiGDM(first, MEASURED, 0.1, data_std=-1.0), "data_std=-1.0"),
        (lambda: gen.MomentMatching(first, MEASURED, -0.1), "noise=-0.1"),
        (lambda: gen.DPS(first, MEASURED, 0.0), "scale=0.0"),
        (
            lambda: gen.Denoiser(MODEL.model, VP, guidance=gen.DPS(first, jnp.ones(3))).score(X, T),
            r"\(3,\)",
        ),
    ],
)
def test_refused(make, message):
    with pytest.raises(rf.InputError, match=message):
        make()
