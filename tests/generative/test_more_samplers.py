"""Samplers of diffusers and k-diffusion, beside kept numbers of theirs and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import generative as gen
from rootflow.generative.grids import knots

from .problems import END, GAUSSIAN, MEAN, NORMAL, START, STD, TRUTH, VP, by_hand

TABLE = gen.DiscreteBetas(gen.scaled_linear_betas())
KEY = jax.random.key(5)
TWO = jnp.array([[1.3, -0.4], [-0.7, 0.9]])
TRAILING = [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]
FOUR = [999, 759, 499, 259]  # LCMScheduler and TCDScheduler, original_inference_steps=50


def network(x, t):
    return 0.6 * x + 0.3 * jnp.sin(2 * x)


NETWORK = gen.Denoiser(network, TABLE, time=TABLE.label)
WIDE = gen.Denoiser(
    lambda x, t: jnp.concatenate([network(x, t), jnp.cos(x)], axis=1),
    TABLE,
    time=TABLE.label,
    variance_axis=1,
)

# The last sample of the named scheduler of diffusers 0.42 with the same network, its tables in
# double precision, betas "scaled_linear" from 0.00085 to 0.012, ten steps of "trailing" spacing
# (four for LCM and TCD, "leading" for DDPM), and our random numbers in the place of its own: the
# i-th is normal(split(split(KEY)[1], turns)[i]). Sampler, labels, whether to end on clean data.
KEPT = {
    "LMSDiscreteScheduler": (
        gen.LMS(), TRAILING, True,
        [[2.7633370916088, -0.10920041082773], [-0.27603510084386, 0.6889278826996]],
    ),
    "PNDMScheduler, skip_prk_steps=True, set_alpha_to_one=True": (
        gen.PNDM(), [*TRAILING, -1], False,
        [[2.7139300240737, -0.11288219373714], [-0.27441696872376, 0.65102809377895]],
    ),
    "PNDMScheduler, set_alpha_to_one=True": (
        gen.PNDM(runge_kutta=True), [*TRAILING, -1], False,
        [[2.7065755302932, -0.11260130677971], [-0.27440723169314, 0.6547605414797]],
    ),
    "KDPM2DiscreteScheduler": (
        gen.KDPM2(), TRAILING, True,
        [[2.6600866459777, -0.10904912826992], [-0.2636766267261, 0.64269039053652]],
    ),
    "KDPM2AncestralDiscreteScheduler": (
        gen.KDPM2(eta=1.0), TRAILING, True,
        [[-0.88698984340253, 0.10160136784095], [0.50987409727017, 0.070196619955322]],
    ),
    "DPMSolverSDEScheduler": (
        gen.DPMSolverSDE(), TRAILING, True,
        [[1.2659718759338, 0.084189412444477], [-0.74405256497829, 0.70159528093354]],
    ),
    "SASolverScheduler 1 1, tau=1": (
        gen.SASolver(1, 1, 1.0), [*TRAILING, 0], False,
        [[0.5789479923877, 0.11585621609541], [-0.46343343115923, 0.31429973410173]],
    ),
    "SASolverScheduler 2 2, tau=1": (
        gen.SASolver(), [*TRAILING, 0], False,
        [[0.63813101789844, 0.3262366608384], [-0.63688917394174, 0.3483175386926]],
    ),
    "SASolverScheduler 3 3, tau=0.6": (
        gen.SASolver(3, 3, 0.6), [*TRAILING, 0], False,
        [[2.2520848153997, 0.058500991511921], [-0.41976002738037, 0.24373795906065]],
    ),
    "SASolverScheduler 3 1, tau=0": (
        gen.SASolver(3, 1, 0.0), [*TRAILING, 0], False,
        [[2.6594416841894, -0.12824363072078], [-0.29351582271709, 0.65321354367526]],
    ),
    "LCMScheduler": (
        gen.LCM(), FOUR, True,
        [[1.3866207238242, 0.12815491007377], [0.11307413499461, -0.18234765799347]],
    ),
    "TCDScheduler, eta=0.3": (
        gen.TCD(), [*FOUR, 0], False,
        [[2.6249031565237, 0.027248079920745], [-0.021576639839701, -0.25113662634517]],
    ),
    "TCDScheduler, eta=1": (
        gen.TCD(eta=1.0), [*FOUR, 0], False,
        [[1.4897150658458, 0.13544335805313], [0.12402764327803, -0.2111682146482]],
    ),
    'DDPMScheduler, variance_type="learned_range"': (
        gen.DDPM("learned_range"), range(900, -1, -100), True,
        [[0.8188531460268, 0.096367289957837], [-0.60506109435828, 0.56558736438603]],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_the_numbers_of_diffusers(name):
    sampler, labels, denoise, expected = KEPT[name]
    denoiser = WIDE if sampler == gen.DDPM("learned_range") else NETWORK
    grid = TABLE.time(np.asarray(labels, float))
    found = by_hand(denoiser, sampler, TWO, grid, denoise=denoise, key=KEY)
    # The scalings of LCM are in single precision there.
    np.testing.assert_allclose(found, expected, rtol=1e-6 if name == "LCMScheduler" else 1e-10)


def test_by_hand_is_what_sample_does():
    options = dict(start=TWO, sampler=gen.DPMSolverSDE(), key=KEY)
    grid = TABLE.time(np.asarray(TRAILING, float))
    found = gen.sample(NETWORK, grid=grid, denoise=True, **options)
    np.testing.assert_allclose(found, KEPT["DPMSolverSDEScheduler"][3], rtol=1e-10)


SPAN_TRUTH = GAUSSIAN.flow_map(VP, START, 0.9, 0.1)


def error(sampler, steps, grid="log_snr"):
    times = gen.times(VP, steps, grid=grid, begin=0.9, end=0.1)
    out = by_hand(NORMAL, sampler, START, times)
    return float(jnp.median(jnp.linalg.norm(out - SPAN_TRUTH, axis=-1)))


@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        (gen.DPMSolverSDE(eta=0.0, r=0.3), 2),
        (gen.SASolver(1, 0, 0.0), 1),
        (gen.SASolver(2, 0, 0.0), 2),
        (gen.SASolver(2, 3, 0.0, lower_order_final=False), 3),
    ],
    ids=repr,
)
def test_order_of_convergence(sampler, order):
    def error(steps):
        out = by_hand(NORMAL, sampler, START, gen.times(VP, steps, end=END))
        return float(jnp.median(jnp.linalg.norm(out - TRUTH, axis=-1)))

    assert abs(np.log2(error(80) / error(160)) - order) < 0.2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (gen.KDPM2(), gen.DPMSolver(2)),
        (gen.DPMSolverSDE(eta=0.0), gen.DPMSolver(2, form="data")),
        (gen.LMS(3), gen.DEIS(3, basis="noise_level", lower_order_final=False)),
        (gen.SASolver(1, 0, 1.0), gen.DPMSolverPlusPlus(1, eta=1.0)),
        (gen.SASolver(3, 0, lambda t: 1.0, lower_order_final=False),
         gen.SASolver(3, 0, 1.0, lower_order_final=False)),
        (gen.TCD(eta=0.0), gen.DDIM()),
    ],
)  # fmt: skip
def test_methods_that_are_the_same(one, other):
    times = gen.times(TABLE, 12)
    a, b = (by_hand(NETWORK, sampler, TWO, times, key=KEY) for sampler in (one, other))
    np.testing.assert_allclose(a, b, atol=1e-9)


@pytest.mark.parametrize(
    "sampler",
    [
        gen.KDPM2(eta=1.0),
        gen.DPMSolverSDE(),
        gen.SASolver(3, 3, lambda t: jnp.where((t > 0.2) & (t < 0.8), 1.0, 0.0)),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_stochastic_samplers_keep_the_mean_and_variance(sampler):
    start = jax.random.normal(jax.random.key(6), (4000, 2))
    out = by_hand(NORMAL, sampler, start, gen.times(VP, 120), key=KEY)
    spread = np.sqrt(VP.alpha(END) ** 2 * STD**2 + VP.sigma(END) ** 2)
    # Four standard errors of 4000 draws, and 2 per cent for the steps.
    np.testing.assert_allclose(out.mean(0), MEAN, atol=4 * spread / np.sqrt(4000) + 0.006)
    np.testing.assert_allclose(out.std(0), spread, rtol=4 / np.sqrt(8000) + 0.02)


POINT = gen.Denoiser(lambda x, t: jnp.broadcast_to(MEAN, x.shape), VP, "data")
ALL = [
    gen.LMS(),
    gen.PNDM(runge_kutta=True),
    gen.KDPM2(eta=0.5),
    gen.DPMSolverSDE(),
    gen.SASolver(3, 3, 0.5),
]


@pytest.mark.parametrize("sampler", ALL, ids=repr)
def test_a_last_step_to_clean_data_whether_the_grid_is_known_or_traced(sampler):
    grid = np.append(np.linspace(1, 0.2, 6), 0.0)
    options = dict(start=START[:3], sampler=sampler, key=KEY)
    denoiser = gen.Denoiser(lambda x, t: jnp.tanh(x) + t, VP, "data")

    def loss(first, times):
        times = times.at[0].set(first)
        return jnp.sum(gen.sample(denoiser, grid=times, **options) ** 2)

    # Inside `jit` the times are traced, so that only the program knows where they end.
    value, slope = jax.jit(jax.value_and_grad(loss))(0.95, jnp.asarray(grid))
    by = lambda denoiser, x, first: by_hand(
        denoiser, sampler, x, np.append(first, grid[1:]), key=KEY
    )
    known = by(POINT, START[:3], 1.0)
    beside = [jnp.sum(by(denoiser, START[:3], t) ** 2) for t in (0.95, 0.95 + 1e-5, 0.95 - 1e-5)]
    np.testing.assert_allclose(known, jnp.broadcast_to(MEAN, known.shape), rtol=1e-12)
    np.testing.assert_allclose(value, beside[0], rtol=1e-9)
    np.testing.assert_allclose(slope, (beside[1] - beside[2]) / 2e-5, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "sampler", [gen.SASolver(3, 3, 0.5), gen.LCM(scaling=None), gen.TCD()], ids=repr
)
def test_straight_flows_begin_where_there_is_no_signal(sampler):
    schedule = gen.RectifiedFlow()
    denoiser = GAUSSIAN.denoiser(schedule, "flow")
    start = jax.random.normal(jax.random.key(6), (2000, 2))
    out = by_hand(denoiser, sampler, start, gen.times(schedule, 60), key=KEY)
    np.testing.assert_allclose(out.mean(0), MEAN, atol=0.05)


def test_pndm_on_equal_steps_in_time():
    # Both warm-ups converge, and err less than DDIM by far.
    samplers = (gen.PNDM(), gen.PNDM(runge_kutta=True), gen.DDIM())
    plms, runge_kutta, ddim = ([error(s, n, "time") for n in (40, 80)] for s in samplers)
    for found in (plms, runge_kutta):
        assert found[0] / found[1] > 2 and found[1] < ddim[1] / 10


@pytest.mark.parametrize(
    ("sampler", "count"),
    [
        (gen.PNDM(), 8),
        (gen.PNDM(runge_kutta=True), 16),
        (gen.KDPM2(), 14),
        (gen.DPMSolverSDE(), 14),
        (gen.SASolver(), 7),
        (gen.LMS(), 7),
    ],
    ids=repr,
)
def test_the_number_of_evaluations(sampler, count):
    calls = []
    watched = gen.Denoiser(lambda x, t: calls.append(t) or x, VP)
    by_hand(watched, sampler, TWO, gen.times(VP, 7), key=KEY)
    assert len(calls) == count
    assert sampler.plan(VP, knots(VP, gen.times(VP, 7)), None).evaluations == count
    assert sampler.budget(count, True) == (7, None)


def learned(said, axis=-1):
    """A model of normal data with this constant beside its prediction."""

    def model(x, t):
        noise = GAUSSIAN.predict("noise", VP, x, t)
        return jnp.concatenate([noise, jnp.full_like(x, said)], axis=axis)

    return gen.Denoiser(model, VP, variance_axis=axis)


def test_learned_variances_at_both_ends_of_their_range():
    times = gen.times(VP, 6)
    for said, variance in ((-1.0, "posterior"), (1.0, "large")):
        for clean in (False, True):
            options = dict(key=KEY, denoise=clean)
            found = by_hand(learned(said), gen.DDPM("learned_range"), START, times, **options)
            expected = by_hand(NORMAL, gen.DDPM(variance), START, times, **options)
            np.testing.assert_allclose(found, expected, rtol=1e-9)
    # e^w itself, seen in one step.
    some, none = (
        by_hand(learned(w), gen.DDPM("learned"), START, times[:2], key=KEY)
        for w in (np.log(0.04), -400.0)
    )
    drawn = jax.random.normal(jax.random.split(jax.random.split(KEY)[1], 1)[0], START.shape)
    np.testing.assert_allclose(some - none, 0.2 * drawn, rtol=1e-9)


def test_other_samplers_leave_the_variance_out_when_told():
    plain = gen.sample(NORMAL, start=START, steps=5)
    np.testing.assert_array_equal(gen.sample(learned(0.3), start=START, steps=5), plain)
    with pytest.raises(rf.InputError, match=r"Denoiser\(\.\.\., variance_axis=1\)"):
        gen.sample(gen.Denoiser(learned(0.0).model, VP), start=START, steps=5)
    with pytest.raises(rf.InputError, match="asks for a learned variance"):
        gen.sample(NORMAL, start=START, steps=5, sampler=gen.DDPM("learned"), key=KEY)
    with pytest.raises(rf.InputError, match=r"one array of shape \(32, 4\); got \(32, 2\)"):
        narrow = gen.Denoiser(NORMAL.model, VP, variance_axis=1)
        gen.sample(narrow, start=START, steps=5)
    with pytest.raises(rf.InputError, match="variance_axis=0"):
        gen.Denoiser(NORMAL.model, VP, variance_axis=0)


def test_learned_variance_beside_guidance_and_a_callback():
    def model(x, t, c):
        noise = 0.5 * x + c
        return jnp.concatenate([noise, jnp.full_like(x, 1.0) * (2 * (c > 0) - 1)], axis=-1)

    guide = gen.ClassifierFree(2.0, unconditional=0.0)
    denoiser = gen.Denoiser(model, VP, guidance=guide, variance_axis=-1)
    seen = []
    watch = lambda step, t, x, data: jax.debug.callback(lambda d: seen.append(d), data)
    options = dict(start=START, steps=3, key=KEY)
    found = gen.sample(denoiser, 1.0, sampler=gen.DDPM("learned_range"), callback=watch, **options)
    guided = gen.Denoiser(lambda x, t: 0.5 * x + 2.0, VP)
    expected = gen.sample(guided, sampler=gen.DDPM("large"), **options)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    jax.effects_barrier()
    assert len(seen) == 3 and seen[0].shape == START.shape


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gen.LMS(5), "order=5"),
        (lambda: gen.KDPM2(eta=1.5), "eta=1.5"),
        (lambda: gen.DPMSolverSDE(eta=-1.0), "eta=-1.0"),
        (lambda: gen.DPMSolverSDE(r=1.0), "r=1.0"),
        (lambda: gen.SASolver(4), "order=4"),
        (lambda: gen.SASolver(2, 4), "corrector=4"),
        (lambda: gen.SASolver(tau=-1.0), "tau=-1.0"),
        (lambda: gen.LCM(sigma_data=0.0), "sigma_data=0.0"),
        (lambda: sampled(gen.LCM()), r"VPLinear has not: use LCM\(scaling=None\)"),
        (lambda: gen.LCM(scaling=-1.0), "scaling=-1.0"),
        (lambda: gen.TCD(eta=2.0), "eta=2.0"),
        (lambda: sampled(gen.PNDM(runge_kutta=True), steps=3), "3 steps are fewer than the 4"),
        (lambda: sampled(gen.PNDM(), evaluations=1), "takes 1 more than steps"),
        (lambda: sampled(gen.SASolver(tau=lambda t: -t)), r"tau returned -1\.0 at t=1"),
    ],
)
def test_refused(make, message):
    with pytest.raises(rf.InputError, match=message):
        make()


def sampled(sampler, **options):
    return gen.sample(NORMAL, start=START, sampler=sampler, key=KEY, **options)
