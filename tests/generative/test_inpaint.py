"""Painting in a part of the samples, beside the conditional law of normal data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import generative as gen

from .problems import START, VP

KEY = jax.random.key(3)
X = START[:4]
CHEAP = gen.Denoiser(lambda x, t: 0.6 * x + 0.3 * jnp.sin(2 * x + t), VP)
# Two coordinates with correlation 0.8 and unit variances.
AXES = jnp.array([[[1.0, 1.0], [1.0, -1.0]]]) / np.sqrt(2)
PAIR = gen.exact.GaussianMixture(jnp.zeros((1, 2)), jnp.sqrt(jnp.array([[1.8, 0.2]])), axes=AXES)
MASK, KNOWN = jnp.array([0.0, 1.0]), jnp.array([1.0, jnp.nan])  # the first coordinate is known


def filled(denoiser, count=4000, **options):
    inpaint = gen.Inpaint(KNOWN, MASK, **options.pop("how", {}))
    return gen.sample(denoiser, shape=(count, 2), key=KEY, inpaint=inpaint, **options)


def test_what_is_known_stays_and_the_rest_has_its_own_law():
    # Without correlation the second coordinate knows nothing of the first.
    apart = gen.exact.GaussianMixture(jnp.array([[3.0, -1.0]]), 0.5).denoiser(VP)
    out = filled(apart, steps=20)
    np.testing.assert_array_equal(out[:, 0], 1.0)
    np.testing.assert_allclose(out[:, 1].mean(), -1.0, atol=4 * 0.5 / np.sqrt(4000) + 0.01)
    np.testing.assert_allclose(out[:, 1].std(), 0.5, rtol=4 / np.sqrt(8000) + 0.02)


def test_resampling_brings_the_conditional_law():
    denoiser = PAIR.denoiser(VP)
    options = dict(sampler=gen.DDPM("large"), steps=25, count=2000)
    once = filled(denoiser, **options)[:, 1]
    often = filled(denoiser, how={"resamplings": 8, "jump": 3}, **options)[:, 1]
    # The law of the second given the first: mean 0.8, standard deviation 0.6.
    assert abs(float(often.mean()) - 0.8) < 0.15 < abs(float(once.mean()) - 0.8)
    assert abs(float(often.std()) - 0.6) < 0.08


def test_the_steps_of_resampling_are_those_of_the_published_schedule():
    # T = 20, jump_length = 5, jump_n_sample = 3 in the code of Lugmayr et al. (2022): 50 steps.
    visits = gen.Inpaint(KNOWN, MASK, resamplings=3, jump=5).visits(20)
    steps = [visit.step for visit in visits]
    assert len(steps) == 50 and steps[:10] == [*range(9), 4]
    assert sum(visit.origin is not None for visit in visits) == 6
    assert all(visit.origin == visit.step + 5 for visit in visits if visit.origin is not None)
    assert steps[-1] == 19 and sorted(set(steps)) == list(range(20))
    found = filled(CHEAP, 4, how={"resamplings": 3, "jump": 5}, steps=20, sampler=gen.DDIM(),
                   full=True)  # fmt: skip
    assert found.evaluations == 50 and len(found.times) == 51


@pytest.mark.parametrize(
    "sampler",
    [gen.DPMSolverPlusPlus(), gen.UniPC(), gen.DPMSolver(2)],
    ids=repr,
)
def test_every_sampler_pastes_and_resumes(sampler):
    inpaint = gen.Inpaint(jnp.array([1.0, 7.0]), MASK)
    options = dict(sampler=sampler, steps=5, key=KEY, inpaint=inpaint)
    whole = gen.sample(CHEAP, start=X, **options)
    np.testing.assert_array_equal(whole[:, 0], 1.0)
    half = gen.sample(CHEAP, start=X, stop=2, **options)
    # The known part stands at the level that was reached: alpha known + sigma z.
    t = half.times[2]
    assert np.abs(half.value[:, 0] - VP.alpha(t)).max() < 5 * VP.sigma(t)
    rest = jax.jit(lambda s: gen.sample(CHEAP, start=s, key=KEY, inpaint=inpaint))(half)
    np.testing.assert_allclose(rest, whole, rtol=1e-10)


def test_resampling_is_resumed_with_steps_of_several_evaluations():
    inpaint = gen.Inpaint(KNOWN, MASK, resamplings=2, jump=2)
    options = dict(sampler=gen.EDMSampler(), steps=6, key=KEY, inpaint=inpaint)
    whole = gen.sample(CHEAP, start=X, **options)
    half = gen.sample(CHEAP, start=X, stop=3, **options)
    np.testing.assert_allclose(
        gen.sample(CHEAP, start=half, key=KEY, inpaint=inpaint), whole, rtol=1e-12
    )
    with pytest.raises(rf.InputError, match="same inpaint"):
        gen.sample(CHEAP, start=half, key=KEY)


def test_a_soft_mask_blends_and_is_differentiated():
    def loss(mask):
        inpaint = gen.Inpaint(jnp.array([1.0, -1.0]), mask)
        return jnp.sum(gen.sample(CHEAP, start=X, steps=4, key=KEY, inpaint=inpaint) ** 2)

    mask = jnp.array([0.25, 0.75])
    slope = jax.grad(loss)(mask)
    numbers = [(loss(mask + 1e-5 * e) - loss(mask - 1e-5 * e)) / 2e-5 for e in jnp.eye(2)]
    np.testing.assert_allclose(slope, numbers, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gen.Inpaint("cat", MASK), "known must be an array"),
        (lambda: gen.Inpaint(KNOWN, 2 * MASK), "from 0.0 to 2.0"),
        (lambda: gen.Inpaint(KNOWN, MASK, resamplings=0), "resamplings=0"),
        (lambda: gen.Inpaint(KNOWN, MASK, jump=1.5), "jump=1.5"),
    ],
)
def test_refused_at_once(make, message):
    with pytest.raises(rf.InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": None}, "needed for inpaint"),
        ({"inpaint": (KNOWN, MASK)}, "must be an Inpaint"),
        ({"inpaint": gen.Inpaint(jnp.zeros(3), MASK)}, r"known has shape \(3,\)"),
        ({"inpaint": gen.Inpaint(KNOWN, MASK, resamplings=2, jump=1)}, "remembers the steps"),
        ({"gradient": "reversible", "sampler": gen.BDIA()}, "inpaint changes the samples"),
        ({"sampler": gen.ProbabilityFlow(), "steps": None}, "leave out inpaint"),
    ],
)
def test_refused(change, message):
    inpaint = gen.Inpaint(KNOWN, MASK)
    with pytest.raises(rf.InputError, match=message):
        gen.sample(CHEAP, **({"start": X, "key": KEY, "steps": 5, "inpaint": inpaint} | change))
