"""Conversions between predictions, guidance, thresholding, preconditioning."""

import itertools

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


def squared_distance(data):
    return 0.5 * jnp.sum((data - 1.0) ** 2, axis=1)


@pytest.mark.parametrize(("steps", "predicts"), [(1, "velocity"), (4, "noise")])
def test_guidance_by_a_loss_of_the_solved_data(steps, predicts):
    # Data N(0, s^2): the noise is sigma x / v, v = alpha^2 s^2 + sigma^2, so that a step from t to
    # t' multiplies x by alpha' alpha s^2 / v + sigma' sigma / v, and x_0 = c x.
    std, scale, t = 0.4, 0.7, 0.6
    data = gen.exact.GaussianMixture(jnp.zeros((1, 2)), std)
    times = [*(t + np.arange(steps) / steps * (VP.end - t)), None]
    c = 1.0
    for at, to in itertools.pairwise(times):
        alpha, sigma = float(VP.alpha(at)), float(VP.sigma(at))
        ahead = (1.0, 0.0) if to is None else (float(VP.alpha(to)), float(VP.sigma(to)))
        variance = alpha**2 * std**2 + sigma**2
        c *= (ahead[0] * alpha * std**2 + ahead[1] * sigma) / variance
    guidance = gen.LossGuidance(squared_distance, scale, steps)
    plain, guided = (data.denoiser(VP, predicts, guidance=g) for g in (None, guidance))
    expected = plain.noise(X, t) + scale * VP.sigma(t) * c * (c * X - 1.0)
    found = jax.jit(lambda x: guided.noise(x, t))(X)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    single = guided.noise(X.astype(jnp.float32), jnp.full(len(X), t))
    np.testing.assert_allclose(single, expected, rtol=1e-4, atol=1e-5)
    unit = data.denoiser(VP, guidance=gen.LossGuidance(squared_distance, 0.3, steps, True))
    added = jax.jit(lambda x: unit.noise(x, jnp.full(len(x), t)))(X) - plain.noise(X, t)
    np.testing.assert_allclose(jnp.sqrt(jnp.mean(added**2, axis=1)), 0.3, rtol=1e-10)


def test_many_steps_find_the_data_of_the_flow():
    data = gen.exact.GaussianMixture(jnp.zeros((1, 2)), 0.4)
    ratio = 0.4 / jnp.sqrt(VP.alpha(0.6) ** 2 * 0.16 + VP.sigma(0.6) ** 2)  # at t = 0
    plain = data.denoiser(VP)

    def slope(steps):
        guided = data.denoiser(VP, guidance=gen.LossGuidance(squared_distance, 1.0, steps))
        return jax.jit(lambda x: guided.noise(x, 0.6) - plain.noise(x, 0.6))(X) / VP.sigma(0.6)

    slopes = [slope(steps) for steps in (40, 80)]
    errors = [jnp.abs(s - ratio * (ratio * X - 1.0)).max() for s in slopes]
    assert 1.7 < errors[0] / errors[1] < 2.3  # Euler steps: of order one


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
            lambda: GAUSSIAN.denoiser(VP).noise(X, 1.5),
            r"t is 1\.5, outside the times 0\.0 \.\.\. 1",
        ),
        (lambda: GAUSSIAN.denoiser(VP).data(X, jnp.full(32, -0.1)), "t is -0.1, outside"),
        (lambda: GAUSSIAN.denoiser(VP).score(X, jnp.ones(3)), r"shape \(32,\); got shape \(3,\)"),
        (
            lambda: gen.Denoiser(conditional, VP, guidance=gen.ClassifierFree(2.0)).noise(X, T),
            "pass condition",
        ),
        (lambda: gen.ClassifierFree(float("nan")), "finite"),
        (lambda: gen.ClassifierFree(2.0, interval=(3.0, 1.0)), "lower first"),
        (lambda: gen.LossGuidance(squared_distance, steps=0), "steps=0"),
        (
            lambda: GAUSSIAN.denoiser(VP, guidance=gen.LossGuidance(jnp.sum)).noise(X, T),
            r"each of the 32 samples; got shape \(\)",
        ),
        (
            lambda: GAUSSIAN.denoiser(
                VP, guidance=gen.LossGuidance(squared_distance, inner=gen.ClassifierFree(2.0))
            ).noise(X, T),
            "ClassifierFree guides towards a condition",
        ),
        (lambda: gen.DynamicThreshold(0.0), "quantile=0.0"),
        (lambda: gen.DynamicThreshold(bound=-1.0), "bound=-1.0"),
        (lambda: gen.EDMPreconditioned(conditional, 0.0), "sigma_data=0.0"),
    ],
)
def test_refused(call, message):
    with pytest.raises(rf.InputError, match=message):
        call()


def test_predictions_and_likelihoods_have_the_precision_of_the_samples():
    for schedule in (VP, gen.DiscreteBetas(gen.linear_betas())):
        denoiser = GAUSSIAN.denoiser(schedule)
        x = X[:3].astype(jnp.float32)
        for kind in KINDS:
            assert denoiser.at(kind, x, T).dtype == jnp.float32
        assert gen.log_likelihood(denoiser, x).dtype == jnp.float32
