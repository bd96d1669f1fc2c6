"""Conversions between predictions, guidance, thresholding, preconditioning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import generative as gen

from .problems import GAUSSIAN, START, VP

KINDS = ("noise", "data", "score", "velocity", "flow")
X, T = START + 0.5, jnp.asarray(0.4)


@pytest.mark.parametrize("schedule", [VP, gen.VE(), gen.RectifiedFlow(), gen.SubVP()])
@pytest.mark.parametrize("source", KINDS)
def test_conversions_agree_whatever_the_model_predicts(schedule, source):
    denoiser = GAUSSIAN.denoiser(schedule, predicts=source)
    for kind in KINDS:
        expected = GAUSSIAN.predict(kind, schedule, X, T)
        np.testing.assert_allclose(getattr(denoiser, kind)(X, T), expected, rtol=1e-10, atol=1e-12)


def test_conversions_against_the_definitions():
    denoiser = GAUSSIAN.denoiser(VP)
    a, s = VP.alpha(T), VP.sigma(T)
    data, noise = denoiser.data(X, T), denoiser.noise(X, T)
    np.testing.assert_allclose(a * data + s * noise, X, rtol=1e-12)
    np.testing.assert_allclose(denoiser.velocity(X, T), a * noise - s * data, rtol=1e-12)
    # On straight lines the flow is the noise minus the data, also where no signal is left.
    straight = GAUSSIAN.denoiser(gen.RectifiedFlow(), "flow")
    t = jnp.asarray(0.4)
    np.testing.assert_allclose(
        straight.flow(X, t), straight.noise(X, t) - straight.data(X, t), rtol=1e-12
    )
    at_noise = gen.Denoiser(lambda x, t: x - 1.0, gen.RectifiedFlow(), "flow")
    np.testing.assert_allclose(at_noise.data(X, 1.0), jnp.ones_like(X), rtol=1e-12)


def test_one_time_a_sample():
    times = jnp.linspace(0.1, 0.9, len(X))
    denoiser = GAUSSIAN.denoiser(VP)
    together = denoiser.data(X, times)
    alone = jnp.concatenate([denoiser.data(x[None], t) for x, t in zip(X, times)])
    np.testing.assert_allclose(together, alone, rtol=1e-12)


def test_the_model_is_told_its_own_time():
    schedule = gen.DiscreteBetas(gen.linear_betas())
    seen = []
    model = lambda x, t: seen.append(t) or x
    gen.Denoiser(model, schedule, time=schedule.label).noise(X, schedule.time(jnp.array(17.0)))
    np.testing.assert_allclose(seen[0], 17.0, rtol=1e-12)


# Classes at +1 and -1 in one dimension; the unconditional model is their mixture.
CLASSES = [gen.exact.GaussianMixture([[m]], 0.5) for m in (1.0, -1.0)]
BOTH = gen.exact.GaussianMixture([[1.0], [-1.0]], 0.5)
LINE = jnp.linspace(-2.0, 2.0, 9)[:, None]


def conditional(x, t, c):
    """Noise given the class: 0, 1, or -1 for none."""
    given = [g.predict("noise", VP, x, t) for g in (*CLASSES, BOTH)]
    return jnp.where(c == 0, given[0], jnp.where(c == 1, given[1], given[2]))


def test_classifier_free_guidance():
    def at(scale, **options):
        guidance = gen.ClassifierFree(scale, unconditional=-1, **options)
        return gen.Denoiser(conditional, VP, guidance=guidance).score(LINE, T, 0)

    one, none = (CLASSES[0].score(VP, LINE, T), BOTH.score(VP, LINE, T))
    np.testing.assert_allclose(at(1.0), one, rtol=1e-10)
    np.testing.assert_allclose(at(0.0), none, rtol=1e-10)
    np.testing.assert_allclose(at(3.0), none + 3.0 * (one - none), rtol=1e-10)
    level = float(VP.sigma(T) / VP.alpha(T))
    np.testing.assert_allclose(at(3.0, interval=(0.0, level / 2)), one, rtol=1e-10)
    np.testing.assert_allclose(at(3.0, interval=(level / 2, 2 * level)), at(3.0), rtol=1e-12)


def test_classifier_guidance_is_bayes_rule():
    def log_probability(x, t, c):
        parts = jnp.stack([g.log_density(VP, x, t) for g in CLASSES])
        return jax.nn.log_softmax(parts, axis=0)[c]

    unconditional = lambda x, t: BOTH.predict("noise", VP, x, t)
    guided = gen.Denoiser(unconditional, VP, guidance=gen.Classifier(log_probability))
    np.testing.assert_allclose(guided.score(LINE, T, 0), CLASSES[0].score(VP, LINE, T), rtol=1e-9)


def test_autoguidance_extrapolates_from_the_worse_model():
    bad = lambda x, t: BOTH.predict("data", VP, x, t)
    good = lambda x, t: CLASSES[0].predict("data", VP, x, t)
    guided = gen.Denoiser(good, VP, "data", guidance=gen.AutoGuidance(bad, 2.0))
    np.testing.assert_allclose(guided.data(LINE, T), 2 * good(LINE, T) - bad(LINE, T), rtol=1e-12)


def test_dynamic_thresholding():
    values = jnp.asarray(np.random.default_rng(0).normal(size=(5, 8, 8)) * 2)
    denoiser = gen.Denoiser(
        lambda x, t: values, VP, "data", threshold=gen.DynamicThreshold(0.9, bound=1.0)
    )
    x = jnp.zeros_like(values)
    found = np.asarray(denoiser.data(x, T))
    for got, value in zip(found, np.asarray(values)):  # sample by sample, with NumPy's quantile
        most = max(np.quantile(np.abs(value), 0.9), 1.0)
        np.testing.assert_allclose(got, np.clip(value, -most, most) / most, rtol=1e-12)
    # The noise is that of the clipped data, not of the data before.
    rebuilt = VP.alpha(T) * denoiser.data(x, T) + VP.sigma(T) * denoiser.noise(x, T)
    np.testing.assert_allclose(rebuilt, x, atol=1e-12)


def test_edm_preconditioning():
    # A network of zero is the best linear denoiser of data of variance sigma_data^2.
    zero = gen.EDMPreconditioned(lambda x, t: jnp.zeros_like(x), sigma_data=0.5)
    denoiser = gen.Denoiser(zero, gen.EDM(), "data")
    for sigma in (0.002, 0.5, 80.0):
        best = 0.25 / (0.25 + sigma**2) * X
        np.testing.assert_allclose(denoiser.data(X, sigma), best, rtol=1e-10)
    seen = []
    watch = gen.EDMPreconditioned(lambda x, t: seen.append((x, t)) or x)
    watch(X, jnp.asarray(2.0))
    np.testing.assert_allclose(seen[0][0], X / np.sqrt(4.25), rtol=1e-12)
    np.testing.assert_allclose(seen[0][1], np.log(2.0) / 4, rtol=1e-12)


def test_half_precision_models_do_not_pull_samples_down():
    model = lambda x, t: x.astype(jnp.bfloat16)
    out = gen.sample(gen.Denoiser(model, VP), start=START.astype(jnp.bfloat16), steps=3)
    assert out.dtype == jnp.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gen.Denoiser(3, VP), "model must be a function"),
        (lambda: gen.Denoiser(conditional, "vp"), "schedule must be"),
        (lambda: gen.Denoiser(conditional, VP, "epsilon"), "'epsilon' is not known"),
        (lambda: gen.Denoiser(conditional, VP, guidance=2.0), "guidance must be"),
        (
            lambda: gen.Denoiser(lambda x, t: x[:, :1], VP).noise(X, T),
            r"shape \(32, 2\).*\(32, 1\)",
        ),
        (lambda: gen.Denoiser(lambda x, t: (x, x), VP).noise(X, T), "one array"),
        (
            lambda: gen.Denoiser(conditional, VP, guidance=gen.ClassifierFree(2.0)).noise(X, T),
            "pass condition",
        ),
        (lambda: gen.ClassifierFree(float("nan")), "finite"),
        (lambda: gen.ClassifierFree(2.0, interval=(3.0, 1.0)), "lower first"),
        (lambda: gen.DynamicThreshold(0.0), "quantile=0.0"),
        (lambda: gen.DynamicThreshold(bound=-1.0), "bound=-1.0"),
        (lambda: gen.EDMPreconditioned(conditional, 0.0), "sigma_data=0.0"),
    ],
)
def test_refused(call, message):
    with pytest.raises(rf.InputError, match=message):
        call()
