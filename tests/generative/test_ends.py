"""Grids that begin without signal or end without noise, whether their times are known or traced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import generative as gen
from rootflow.generative.grids import check_inside, knots
from rootflow.generative.samplers.multistep import orders_of_steps

from .problems import VP

LINES = gen.RectifiedFlow()
START = jax.random.normal(jax.random.key(0), (4, 2))
KEY = jax.random.key(1)
POINT = gen.Denoiser(lambda x, t: jnp.full_like(x, 1.5), VP, "data")
FLOW = gen.Denoiser(lambda x, t: jnp.sin(2 * x) - t * x, LINES, "flow")  # no closed form is needed
TO_CLEAN = np.append(np.linspace(1, 0.2, 12), 0.0)

TO_DATA = [
    gen.DDIM(),
    gen.DDIM(eta=1.0),
    gen.DDPM("large"),
    gen.DEIS(),
    gen.DPMSolver(3),
    gen.DPMSolver(2, form="data"),
    gen.DPMSolverPlusPlus(3),
    gen.DPMSolverPlusPlus(2, lower_order_final=False),
    gen.DPMSolverPlusPlus(2, eta=1.0, form="noise"),
    gen.UniPC(3),
    gen.UniPC(2, variant="bh1"),
    gen.EDMSampler(),
    gen.EDMSampler(churn=4.0, churn_to=3.0),
    gen.PredictorCorrector(),
]


def run(sampler, grid, denoiser=POINT, **options):
    return gen.sample(denoiser, start=START, sampler=sampler, grid=grid, key=KEY, **options)


@pytest.mark.parametrize("sampler", TO_DATA, ids=repr)
def test_a_grid_that_ends_at_zero_noise_ends_on_the_predicted_data(sampler):
    known = run(sampler, TO_CLEAN, full=True)
    np.testing.assert_allclose(known.value, 1.5, rtol=1e-12)
    asked = run(sampler, TO_CLEAN[:-1], full=True, denoise=True)
    np.testing.assert_allclose(known.value, asked.value, rtol=1e-12)
    assert known.evaluations == asked.evaluations
    # Where only the compiled program knows the times, and with a model that is not exact.
    denoiser = gen.Denoiser(lambda x, t: jnp.tanh(x) + t, VP, "data")
    traced = jax.jit(lambda grid: run(sampler, grid, denoiser))(TO_CLEAN)
    np.testing.assert_allclose(traced, run(sampler, TO_CLEAN, denoiser), rtol=1e-10)


def test_going_on_from_clean_data_is_refused():
    with pytest.raises(rf.InputError, match="leave out denoise=True"):
        run(gen.DDIM(), TO_CLEAN, denoise=True)
    with pytest.raises(Exception, match="leave out denoise=True"):
        jax.block_until_ready(jax.jit(lambda g: run(gen.DDIM(), g, denoise=True))(TO_CLEAN))
    with pytest.raises(rf.InputError, match="no way back"):
        run(gen.BDIA(), TO_CLEAN)
    with pytest.raises(Exception, match="no way back"):
        jax.block_until_ready(jax.jit(lambda g: run(gen.BDIA(), g))(TO_CLEAN))


def test_edict_takes_a_step_to_clean_data_back():
    model = gen.Denoiser(lambda x, t: jnp.tanh(x), LINES)
    options = dict(sampler=gen.EDICT(), steps=6, begin=0.9, end=0.0)
    noise = gen.invert(model, START, **options)
    np.testing.assert_allclose(gen.sample(model, start=noise, **options), START, rtol=1e-9)


def test_a_budget_counts_the_last_step_to_clean_data_once():
    options = dict(grid="time", full=True, end=0.0)
    for sampler, n in ((gen.DDIM(), 1), (gen.EDMSampler(), 5), (gen.DPMSolver(3), 6)):
        found = gen.sample(POINT, start=START, sampler=sampler, evaluations=n, **options)
        assert found.evaluations == n
        np.testing.assert_allclose(found.value, 1.5, rtol=1e-12)


WITHOUT_SIGNAL = [
    gen.DDIM(),
    gen.DDIM(eta=1.0),
    gen.DPMSolverPlusPlus(2),
    gen.DPMSolverPlusPlus(3, strict=True),
    gen.UniPC(2),
    gen.UniPC(3),
    gen.UniPC(2, variant="bh1"),
    gen.BDIA(),
]


@pytest.mark.parametrize("sampler", WITHOUT_SIGNAL, ids=repr)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_known_and_traced_grids_give_the_same_samples(sampler, dtype):
    grid = np.linspace(1, 0.02, 13)
    start = START.astype(dtype)
    solve = lambda grid: gen.sample(FLOW, start=start, sampler=sampler, grid=grid, key=KEY)
    known, traced = solve(grid), jax.jit(solve)(jnp.asarray(grid, dtype))
    slack = 1e-11 if dtype == np.float64 else 2e-4
    np.testing.assert_allclose(traced, known, rtol=slack, atol=slack)


@pytest.mark.parametrize("steps", [4, 13])
def test_orders_are_those_of_the_steps_and_the_ends(steps):
    for end in (0.02, 0.0):
        grid = np.linspace(1, end, steps + 1)
        for final in (None, True, False):
            rule = lambda g, f=final: orders_of_steps(3, knots(LINES, g), f)
            known = rule(grid)
            np.testing.assert_array_equal(jax.jit(rule)(grid), known)
            assert steps == 4 or list(known[:4]) == [1, 1, 2, 3]
            assert known[-1] == 1 or end


@pytest.mark.parametrize("end", [0.02, 0.0])
@pytest.mark.parametrize(
    "sampler",
    [gen.DPMSolverPlusPlus(), gen.DDIM(), gen.DDIM(eta=1.0), gen.UniPC(3), gen.BDIA()],
    ids=repr,
)
def test_the_derivative_in_the_grid_from_pure_noise(sampler, end):
    if isinstance(sampler, gen.BDIA) and not end:
        return  # refused, see above
    grid = jnp.linspace(1, end, 9)
    total = jax.jit(lambda grid: jnp.sum(jnp.sin(run(sampler, grid, FLOW))))
    slope = jax.jit(jax.grad(total))(grid)
    assert np.isfinite(slope).all()
    ahead = jax.jit(jax.jvp, static_argnums=0)(total, (grid,), (jnp.cos(grid),))[1]
    np.testing.assert_allclose(ahead, slope @ jnp.cos(grid), rtol=1e-9)
    inner = [1, 4, 7] + ([0] if sampler in (gen.DDIM(), gen.DDIM(eta=1.0)) else [])
    for i in inner:  # the orders of the others change where the first time leaves 1
        step = 1e-6 * jnp.eye(9)[i]
        if i:
            difference = (total(grid + step) - total(grid - step)) / 2e-6
        else:
            difference = (3 * total(grid) - 4 * total(grid - step) + total(grid - 2 * step)) / 2e-6
        np.testing.assert_allclose(slope[i], difference, rtol=2e-5, atol=1e-7)


def test_the_derivative_in_a_grid_on_other_schedules_that_end_on_clean_data():
    # sigma is the root of t there: only the last time, where it ends, has no derivative.
    net = lambda x, t: jnp.tanh(x) + t
    for schedule, times in ((VP, TO_CLEAN), (gen.VPCosine(), np.linspace(1, 0, 9))):
        denoiser = gen.Denoiser(net, schedule, "data")
        total = jax.jit(lambda grid, d=denoiser: run(gen.DPMSolverPlusPlus(), grid, d).sum())
        slope = jax.grad(total)(times)
        assert np.isfinite(slope[:-1]).all()
        step = 1e-6 * np.eye(len(times))[3]
        difference = (total(times + step) - total(times - step)) / 2e-6
        np.testing.assert_allclose(slope[3], difference, rtol=1e-5)


def test_the_cosine_schedule_without_signal():
    """alpha = cos(a) / cos(a_0), a = pi/2 (t + s) / (1 + s): finite where log alpha is not."""
    level = gen.VPCosine().level(np.asarray(1.0))
    turn = 0.5 * np.pi / 1.008
    rate = -turn / np.cos(turn * 0.008)
    np.testing.assert_allclose(level[1:], (0.0, 1.0, rate, 0.0), atol=1e-15)


def test_straight_lines_are_inverted_to_pure_noise():
    one = gen.invert(FLOW, START, sampler=gen.DDIM(), steps=50)
    other = gen.invert(FLOW, START, sampler=gen.DPMSolverPlusPlus(1), steps=50)
    np.testing.assert_allclose(one, other, rtol=1e-12)
    exact = gen.invert(FLOW, START, sampler=gen.ProbabilityFlow(rtol=1e-9, atol=1e-9))
    for sampler in (gen.DPMSolverPlusPlus(2), gen.UniPC(2), gen.DEIS(2), gen.DPMSolver(2)):
        found = gen.invert(FLOW, START, sampler=sampler, steps=200)
        np.testing.assert_allclose(found, exact, atol=2e-3)
        assert jnp.abs(found - exact).max() < 0.2 * jnp.abs(one - exact).max()


def test_a_batch_has_no_influence_on_its_samples():
    alone = run(gen.PredictorCorrector(), np.linspace(1, 0.1, 6))
    many = jnp.concatenate([START, 30 + START])
    denoiser = gen.Denoiser(lambda x, t: jnp.tanh(x), VP)
    solve = lambda x: gen.sample(denoiser, start=x, sampler=gen.PredictorCorrector(), key=KEY)
    np.testing.assert_allclose(solve(many)[:4], solve(START), rtol=1e-12)
    np.testing.assert_allclose(solve(START)[:1], solve(START[:1]), rtol=1e-12)
    assert np.isfinite(alone).all()
    # A model that says there is no noise at all has a derivative too.
    still = gen.Denoiser(lambda x, t: 0 * x, VP)
    options = dict(sampler=gen.PredictorCorrector(), steps=3, key=KEY)
    slope = jax.grad(lambda x: gen.sample(still, start=x, **options).sum())(START)
    assert np.isfinite(slope).all()


def test_traced_ends_of_the_equations():
    options = dict(start=START, key=KEY)
    for sampler in (gen.ProbabilityFlow(), gen.ReverseSDE(steps=8)):
        solve = lambda begin, s=sampler: gen.sample(FLOW, sampler=s, begin=begin, **options)
        np.testing.assert_allclose(jax.jit(solve)(1.0), solve(1.0), rtol=1e-9)
    bad = lambda begin: gen.sample(
        FLOW, sampler=gen.ProbabilityFlow(variable="log_snr"), begin=begin, **options
    )
    with pytest.raises(Exception, match="log_snr is infinite"):
        jax.block_until_ready(jax.jit(bad)(1.0))


def memory(function):
    pictures = jax.ShapeDtypeStruct((16, 32, 32, 3), jnp.float32)
    return jax.jit(function).lower(pictures).compile().memory_analysis().temp_size_in_bytes


def test_the_equations_take_the_memory_of_a_few_batches():
    """16 pictures of 32 x 32 x 3 are 0.2 MB; a matrix in their size is 9.7 GB."""
    denoiser = gen.Denoiser(lambda x, t: jnp.tanh(x) * t, VP)
    batch = 16 * 32 * 32 * 3 * 4
    flow = lambda x: gen.sample(denoiser, start=x, sampler=gen.ProbabilityFlow(), throw=False)
    assert memory(flow) < 30 * batch
    for trace in ("exact", "hutchinson"):
        found = lambda x, t=trace: gen.log_likelihood(denoiser, x, trace=t, key=KEY)
        assert memory(found) < 100 * batch


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": 0}, r"key=0 is a number: give one key, key=jax\.random\.key\(0\)"),
        ({"key": list(jax.random.split(KEY, 3))}, "key is a list of 3"),
        ({"key": jax.random.split(KEY, 4)}, "4 keys, and there are 3 samples"),
        ({"key": 0, "sampler": gen.ProbabilityFlow()}, "key=0 is a number"),
        ({"denoiser": gen.Denoiser(lambda x, t: x, LINES)}, r"no signal.*begin=0\.999"),
        (
            {
                "denoiser": gen.Denoiser(lambda x, t: x, LINES, "score"),
                "sampler": gen.ProbabilityFlow(),
            },
            "prediction of the score says nothing",
        ),
    ],
)
def test_refused(change, message):
    given = {"denoiser": POINT, "shape": (3, 2), "key": KEY} | change
    with pytest.raises(rf.InputError, match=message):
        gen.sample(given.pop("denoiser"), **given)


def test_a_blow_up_does_not_recommend_the_sampler_in_use():
    broken = gen.Denoiser(lambda x, t: x * jnp.nan, VP)
    for sampler, advised in ((gen.DPMSolverPlusPlus(), False), (gen.DPMSolver(), True)):
        with pytest.raises(rf.SolveError) as caught:
            gen.sample(broken, start=START, sampler=sampler, steps=4)
        assert ("DPMSolverPlusPlus" in str(caught.value)) == advised


def test_scales_of_guidance():
    def guided(scale, kind=gen.ClassifierFree):
        guidance = kind(scale, unconditional=jnp.zeros(4))
        model = lambda x, t, c: jnp.tanh(x) + c[:, None]
        return gen.sample(
            gen.Denoiser(model, VP, "data", guidance), jnp.ones(4), start=START, steps=2
        )

    by_sample = guided(jnp.array([1.0, 2.0, 3.0, 4.0]))
    np.testing.assert_allclose(by_sample[2], guided(3.0)[2], rtol=1e-12)
    with pytest.raises(rf.InputError, match=r"shape \(3,\), and there are 4 samples"):
        guided(jnp.ones(3))
    with pytest.raises(
        rf.InputError, match="or a function of the time that returns them; got 'strong'"
    ):
        guided("strong")
    slope = gen.DPS(lambda x: x, START, scale=jnp.ones(2))
    with pytest.raises(rf.InputError, match=r"shape \(2,\), and there are 4 samples"):
        gen.sample(gen.Denoiser(lambda x, t: x, VP, "data", slope), start=START, steps=2)


def test_noise_levels_a_hair_beyond_the_schedule():
    """Stable Diffusion's largest noise level is published as 14.6146, and is 14.61464..."""
    table = gen.DiscreteBetas(gen.scaled_linear_betas())
    times = table.log_snr_inverse(-np.log([14.6147, 2.0, 0.0292]))
    assert times[0] > 1
    assert check_inside(table, times, "grid")[0] == 1.0
    assert jax.jit(lambda t: check_inside(table, t, "grid"))(times)[0] == 1.0
    with pytest.raises(rf.InputError, match="outside the times"):
        check_inside(table, table.log_snr_inverse(-np.log([15.0])), "grid")
