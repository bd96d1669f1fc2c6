"""Stochastic sampling: the reverse-time equation and predictor-corrector steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import generative as gen

from .problems import GAUSSIAN, MEAN, NORMAL, START, STD, TRUTH, VP

KEY = jax.random.key(5)


def spread(samples):
    samples = np.asarray(samples)
    return samples.mean(0), samples.std(0)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_the_reverse_equation_ends_in_the_data(eta):
    out = gen.sample(NORMAL, shape=(4000, 2), key=KEY, sampler=gen.ReverseSDE(eta, steps=60))
    mean, std = spread(out)
    np.testing.assert_allclose(mean, MEAN, atol=0.02)
    np.testing.assert_allclose(std, STD, atol=0.012)


def test_without_noise_it_is_the_probability_flow():
    sampler = gen.ReverseSDE(0.0, steps=200)
    out = gen.sample(NORMAL, start=START, key=KEY, sampler=sampler)
    np.testing.assert_allclose(out, TRUTH, atol=1e-3)


def test_a_step_has_the_transition_of_a_linear_equation():
    # For normal data at 0 all is linear, and x_t given x_s is normal with known moments: forget
    # (eta = 1) is the reverse of adding noise. Here from one start: the posterior of x_t.
    data = gen.exact.GaussianMixture([[0.0]], 0.5)
    begin, end = 0.6, 0.3
    s, t = VP.level(np.array(begin)), VP.level(np.array(end))
    ratio = s.alpha / t.alpha
    before = t.alpha**2 * 0.25 + t.sigma**2  # variance of x_t
    after = s.alpha**2 * 0.25 + s.sigma**2
    gain = ratio * before / after
    rest = before * (1 - ratio**2 * before / after)
    start = jnp.full((4000, 1), 0.8)
    out = gen.sample(
        data.denoiser(VP), start=start, key=KEY, begin=begin, end=end,
        sampler=gen.ReverseSDE(steps=40),
    )  # fmt: skip
    np.testing.assert_allclose(out.mean(), gain * 0.8, atol=0.03)
    np.testing.assert_allclose(out.std(), np.sqrt(rest), rtol=0.03)


def test_adaptive_steps_and_a_repeatable_path():
    sampler = gen.ReverseSDE(steps=None, rtol=1e-2, atol=1e-2)
    options = {"start": START, "key": KEY, "sampler": sampler}
    found = gen.sample(NORMAL, full=True, **options)
    np.testing.assert_array_equal(found.value, gen.sample(NORMAL, **options))
    assert found.evaluations > 10
    np.testing.assert_allclose(found.value.mean(0), MEAN, atol=0.25)


def test_gradients_with_the_path_held_fixed():
    sampler = gen.ReverseSDE(method=rf.EulerMaruyama(), steps=8)

    def loss(start):
        out = gen.sample(NORMAL, start=start, key=KEY, sampler=sampler)
        return jnp.sum(out**2)

    step = jnp.zeros((4, 2)).at[0, 0].set(1e-5)
    both = jax.jit(jax.value_and_grad(loss))
    slope = both(START[:4])[1]
    numeric = (both(START[:4] + step)[0] - both(START[:4] - step)[0]) / 2e-5
    np.testing.assert_allclose(slope[0, 0], numeric, rtol=1e-6)


@pytest.mark.parametrize("corrections", [0, 1, 2])
def test_predictor_corrector_ends_in_the_data(corrections):
    sampler = gen.PredictorCorrector(corrections)
    found = gen.sample(
        NORMAL, shape=(4000, 2), key=KEY, sampler=sampler, steps=80, denoise=True, full=True
    )
    mean, std = spread(found.value)
    np.testing.assert_allclose(mean, MEAN, atol=0.03)
    np.testing.assert_allclose(std, STD, atol=0.03)
    # Clean data are not corrected.
    assert found.evaluations == 80 * (1 + corrections) + 1


def test_corrections_repair_coarse_steps():
    options = {"shape": (4000, 2), "key": KEY, "steps": 12}

    def error(corrections):
        out = gen.sample(NORMAL, sampler=gen.PredictorCorrector(corrections), **options)
        return np.abs(spread(out)[1] - STD).max()

    assert error(8) < error(0) / 2


def test_trajectories_have_one_sample_a_step():
    sampler = gen.PredictorCorrector(1)
    found = gen.sample(NORMAL, start=START, key=KEY, sampler=sampler, steps=5, trajectory=True)
    assert found.trajectory.shape == (6, *START.shape) and found.times.shape == (6,)


@pytest.mark.parametrize("predicts", ["flow", "noise"])
def test_from_pure_noise_without_any_signal(predicts):
    straight = GAUSSIAN.denoiser(gen.RectifiedFlow(), predicts)
    out = gen.sample(straight, shape=(4000, 2), key=KEY, sampler=gen.ReverseSDE())
    mean, std = spread(out)
    np.testing.assert_allclose(mean, MEAN, atol=0.02)
    np.testing.assert_allclose(std, STD, atol=0.012)
    with pytest.raises(rf.InputError, match=r"infinite at end=0.0: end a little away"):
        gen.sample(straight, start=START, key=KEY, end=0.0, sampler=gen.ReverseSDE())


def test_adaptive_steps_by_default_in_single_precision():
    ring = gen.exact.ring().denoiser(VP)
    start = jax.random.normal(KEY, (500, 2), jnp.float32)
    found = gen.sample(ring, start=start, key=KEY, sampler=gen.ReverseSDE(steps=None), full=True)
    assert found.evaluations < 1000
    radii = jnp.linalg.norm(found.value, axis=1)
    exact = jnp.linalg.norm(gen.exact.ring().draw(KEY, 4000), axis=1)
    np.testing.assert_allclose(radii.mean(), exact.mean(), atol=0.05)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gen.ReverseSDE(-1.0), "eta=-1.0"),
        (lambda: gen.ReverseSDE(steps=0), "steps=0"),
        (lambda: gen.PredictorCorrector(-1), "corrections=-1"),
        (lambda: gen.PredictorCorrector(snr=0.0), "snr=0.0"),
        (lambda: gen.sample(NORMAL, start=START, sampler=gen.ReverseSDE()), "draws noise"),
        (lambda: gen.invert(NORMAL, START, sampler=gen.ReverseSDE()), "draws noise"),
        (
            lambda: gen.sample(NORMAL, start=START, key=KEY, sampler=gen.ReverseSDE(), steps=5),
            "leave out steps=5",
        ),
    ],
)
def test_refused(make, message):
    with pytest.raises(rf.InputError, match=message):
        make()
