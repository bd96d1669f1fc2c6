"""Sampling in parts, from a picture, with a callback that steers, with a key for each sample."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import generative as gen

from .problems import MEAN, NORMAL, START, STD, VP, by_hand

KEY = jax.random.key(1)
X = START[:3]
CHEAP = gen.Denoiser(lambda x, t: 0.6 * x + 0.3 * jnp.sin(2 * x + t), VP)

FORGETFUL = (gen.DDIM, gen.DPMSolver, gen.EDMSampler, gen.PredictorCorrector, gen.DPMSolverSDE)
ALL = [
    gen.DDIM(eta=1.0),
    gen.DPMSolver(2, form="data"),
    gen.DPMSolverPlusPlus(3),
    gen.UniPC(3),
    gen.EDMSampler(churn=3.0, churn_to=3.0),
    gen.PredictorCorrector(),
    gen.BDIA(),
    gen.EDICT(),
    gen.PNDM(runge_kutta=True),
    gen.DPMSolverSDE(),
    gen.SASolver(3, 3),
]


@pytest.mark.parametrize("sampler", ALL, ids=repr)
def test_parts_add_up_to_the_whole(sampler):
    options = dict(sampler=sampler, steps=7, key=KEY)

    @jax.jit
    def both(x):
        half = gen.sample(CHEAP, start=x, stop=3, **options)
        assert isinstance(half, gen.Paused) and half.remaining == 4
        after = gen.sample(CHEAP, start=half, key=KEY, full=True)
        return after.value, half.value, after.times

    after, half, times = both(X)
    whole = by_hand(CHEAP, sampler, X, gen.times(VP, 7), key=KEY)
    np.testing.assert_allclose(after, whole, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(times, gen.times(VP, 7)[3:])
    assert sampler.forgetful == (type(sampler) in FORGETFUL) and np.isfinite(half).all()


def test_one_step_at_a_time_with_a_last_step_to_clean_data(tmp_path):
    options = dict(sampler=gen.SASolver(), steps=4, denoise=True, key=KEY)
    whole = gen.sample(CHEAP, start=X, full=True, **options)
    state = gen.sample(CHEAP, start=X, stop=0, **options)
    assert state.remaining == 5
    np.testing.assert_array_equal(state.value, X)
    rf.save(tmp_path / "state.npz", state)
    state = rf.load(tmp_path / "state.npz", state)
    while state.remaining:
        state = gen.sample(CHEAP, start=state, key=KEY, stop=1)
    np.testing.assert_allclose(state.value, whole.value, rtol=1e-12)
    run = jax.jit(lambda s: gen.sample(CHEAP, start=s, key=KEY))
    half = gen.sample(CHEAP, start=X, stop=2, **options)
    np.testing.assert_allclose(run(half), whole.value, rtol=1e-10)


def test_the_gradient_of_parts_is_that_of_the_whole():
    options = dict(sampler=gen.DPMSolverPlusPlus(), steps=6)

    def parts(x):
        half = gen.sample(CHEAP, start=x, stop=2, gradient="checkpoint", **options)
        return jnp.sum(gen.sample(CHEAP, start=half, gradient="checkpoint") ** 2)

    whole = jax.grad(lambda x: jnp.sum(gen.sample(CHEAP, start=x, **options) ** 2))(X)
    np.testing.assert_allclose(jax.grad(parts)(X), whole, rtol=1e-10)


def test_the_adjoint_gradient_of_a_part():
    # Normal data: the flow from t to the end is linear, with this slope.
    options = dict(sampler=gen.DPMSolverPlusPlus(2), steps=40)
    half = gen.sample(NORMAL, start=X, stop=15, **options)

    def rest(x):
        state = half.sampler.put(half.state, x)
        start = dataclasses.replace(half, state=state)
        return jnp.sum(gen.sample(NORMAL, start=start, gradient="adjoint"))

    spread = [np.sqrt(VP.alpha(t) ** 2 * STD**2 + VP.sigma(t) ** 2) for t in half.times[[15, -1]]]
    np.testing.assert_allclose(jax.grad(rest)(half.value), spread[1] / spread[0], rtol=1e-2)


def test_mixed_orders_are_resumed_and_their_times_are_where_steps_end():
    options = dict(sampler=gen.DPMSolver(3), evaluations=7, grid="time")
    whole = gen.sample(CHEAP, start=X, trajectory=True, **options)
    times = gen.times(VP, 7, grid="time")
    np.testing.assert_allclose(whole.times, times[[0, 3, 6, 7]])  # of orders 3, 3 and 1
    half = gen.sample(CHEAP, start=X, stop=1, **options)
    np.testing.assert_allclose(half.value, whole.trajectory[1], rtol=1e-12)
    after = gen.sample(CHEAP, start=half, full=True)
    np.testing.assert_allclose(after.value, whole.value, rtol=1e-12)
    assert after.evaluations == 4
    with pytest.raises(rf.InputError, match=r"orders \(3, 3, 1\)"):
        gen.sample(CHEAP, start=half, grid=half.times)


def test_resuming_refused():
    half = gen.sample(CHEAP, start=X, steps=4, stop=2)
    for change, message in (
        ({"sampler": gen.DDIM()}, "right only with the same one"),
        ({"steps": 5}, "found on a grid of 4 steps"),
        ({"denoise": True}, "denoise=False, and denoise=True now"),
        ({"strength": 0.5}, "on its way already"),
        ({"shape": (2, 2)}, "leave out shape"),
        ({"stop": 3}, "more than the 2 steps"),
        ({"stop": -1}, "stop=-1"),
        ({"stop": 1, "full": True}, "leave out full=True"),
    ):
        with pytest.raises(rf.InputError, match=message):
            gen.sample(CHEAP, start=half, **change)
    with pytest.raises(rf.InputError, match="where to stop with end"):
        gen.sample(CHEAP, start=X, sampler=gen.ProbabilityFlow(), stop=2)


def test_strength_begins_with_noised_data():
    # Data of the model's own law stay of it: mean and spread are those of the end.
    data = MEAN + STD * jax.random.normal(jax.random.key(2), (4000, 2))
    out = gen.sample(NORMAL, start=data, strength=0.5, steps=40, key=KEY, full=True)
    assert out.evaluations == 20 and len(out.times) == 21
    times = gen.times(VP, 40)
    np.testing.assert_allclose(out.times, times[20:])
    np.testing.assert_allclose(out.value.mean(0), MEAN, atol=4 * STD / np.sqrt(4000) + 0.006)
    np.testing.assert_allclose(out.value.std(0), STD, rtol=4 / np.sqrt(8000) + 0.02)
    key = jax.random.split(KEY)[0]
    alpha, sigma = VP.alpha(times[20]), VP.sigma(times[20])
    noised = alpha * data + sigma * jax.random.normal(key, data.shape)
    by_hand = gen.sample(NORMAL, start=noised, grid=times[20:])
    np.testing.assert_allclose(out.value, by_hand, rtol=1e-10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strength": 0.0}, "strength=0.0 must be above 0"),
        ({"strength": 0.5, "key": None}, r"needed for strength="),
        ({"strength": 0.5, "evaluations": 9}, "leave out evaluations=9"),
        ({"strength": 0.5, "start": None, "shape": (3, 2)}, "begins with data"),
        ({"strength": 0.5, "sampler": gen.ProbabilityFlow()}, "say where with begin"),
        ({"key": jax.random.split(KEY, 2), "sampler": gen.DDPM()}, "2 keys, and there are 3"),
        ({"key": jax.random.split(KEY, 3), "sampler": gen.ReverseSDE()}, "one path for the whole"),
        ({"callback": 3}, "must be a function"),
        ({"callback": lambda x: None}, r"\(step, t, x, data\)"),
        ({"callback": lambda step, t, x, data: x[0]}, r"of shape \(3, 2\); got \(2,\)"),
        ({"callback": lambda s, t, x, d: x, "gradient": "adjoint"}, "changes the samples between"),
    ],
)
def test_refused(change, message):
    with pytest.raises(rf.InputError, match=message):
        gen.sample(CHEAP, **({"start": X, "key": KEY} | change))


@pytest.mark.parametrize("sampler", [gen.DDPM()], ids=repr)
def test_a_key_for_each_sample(sampler):
    keys = jax.random.split(KEY, 4)
    options = dict(sampler=sampler, steps=5)
    together = gen.sample(CHEAP, shape=(4, 2), key=keys, **options)
    alone = gen.sample(CHEAP, shape=(1, 2), key=keys[2:3], **options)
    np.testing.assert_allclose(alone[0], together[2], rtol=1e-12)
    one = gen.sample(CHEAP, shape=(1, 2), key=keys[2], **options)  # one key is that of the sample
    np.testing.assert_allclose(one, alone, rtol=1e-12)
    old = gen.sample(CHEAP, shape=(4, 2), key=jax.random.key_data(keys), **options)
    np.testing.assert_array_equal(old, together)
    half = gen.sample(CHEAP, shape=(4, 2), key=keys, stop=2, **options)
    np.testing.assert_allclose(gen.sample(CHEAP, start=half, key=keys), together, rtol=1e-12)


def towards(target):
    """A callback that moves x by a tenth towards where the data are predicted to be missing."""

    def change(step, t, x, data):
        return x + 0.1 * VP.alpha(t) * (target - data)

    return change


@pytest.mark.parametrize("sampler", [gen.DPMSolverPlusPlus(2), gen.UniPC(2), gen.EDICT()], ids=repr)
def test_a_callback_sees_the_predicted_data_and_changes_the_samples(sampler):
    seen = []

    def watch(step, t, x, data):
        jax.debug.callback(
            lambda *a: seen.append([np.asarray(part) for part in a]), step, t, x, data
        )

    options = dict(start=X, sampler=sampler, steps=5)
    out = gen.sample(CHEAP, callback=watch, trajectory=True, **options)
    plain = gen.sample(CHEAP, trajectory=True, **options)
    np.testing.assert_array_equal(out.value, plain.value)
    jax.effects_barrier()
    seen.sort(key=lambda part: part[0])
    assert [int(step) for step, *_ in seen] == [0, 1, 2, 3, 4]
    np.testing.assert_allclose([t for _, t, *_ in seen], plain.times[1:])
    np.testing.assert_allclose([x for _, _, x, _ in seen], plain.trajectory[1:], rtol=1e-12)
    # The data that the model predicts at the beginning of the first step.
    np.testing.assert_allclose(seen[0][3], CHEAP.data(X, VP.begin), rtol=1e-9)
    moved = gen.sample(CHEAP, callback=lambda s, t, x, data: x + 0.01, **options)
    assert 1e-4 < np.abs(moved - plain.value).max() < 1.0


def test_a_change_is_gone_on_from():
    # What a sampler without memory makes of a change is what it makes of a new start.
    options = dict(sampler=gen.DPMSolver(2), grid=gen.times(VP, 4))
    change = lambda step, t, x, data: jnp.where(step == 1, x + 0.3, x)
    out = gen.sample(CHEAP, start=X, callback=change, **options)
    half = gen.sample(CHEAP, start=X, stop=2, **options).value + 0.3
    again = gen.sample(CHEAP, start=half, sampler=gen.DPMSolver(2), grid=options["grid"][2:])
    np.testing.assert_allclose(out, again, rtol=1e-12)
    # A corrector does not take it back: at the last step UniPC has nothing left to correct.
    unipc = dict(start=X, sampler=gen.UniPC(2), steps=6)
    late = lambda step, t, x, data: jnp.where(step == 4, x + 0.3, x)
    difference = gen.sample(CHEAP, callback=late, **unipc) - gen.sample(CHEAP, **unipc)
    assert np.abs(difference).min() > 1e-3


def test_a_callback_is_differentiated():
    def loss(target, gradient):
        out = gen.sample(
            CHEAP, start=X, steps=5, callback=towards(target), gradient=gradient
        )  # fmt: skip
        return jnp.sum(out**2)

    target = jnp.array([1.0, 0.5])
    slope = jax.jit(jax.grad(loss), static_argnums=1)(target, "direct")
    number = (loss(target + 1e-5, "direct") - loss(target - 1e-5, "direct")) / 2e-5
    np.testing.assert_allclose(slope.sum(), number, rtol=1e-6)
    for other in ("checkpoint", gen.Truncated(5)):
        found = jax.jit(jax.grad(loss), static_argnums=1)(target, other)
        np.testing.assert_allclose(found, slope, rtol=1e-10)
