"""Inversion: there and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import generative as gen

from .problems import END, GAUSSIAN, NORMAL, RING, START, TRUTH, VP, apply, network

PARAMETERS = network(jax.random.key(7))
UNTRAINED = gen.Denoiser(lambda x, t: apply(PARAMETERS, x, t), VP)
DATA = gen.exact.ring().draw(jax.random.key(8), 16)


def round_trip(denoiser, data, sampler, **options):
    start = gen.invert(denoiser, data, sampler=sampler, **options)
    back = gen.sample(denoiser, start=start, sampler=sampler, **options)
    return start, float(jnp.abs(back - data).max())


@pytest.mark.parametrize(
    ("sampler", "bound"),
    [
        (gen.BDIA(), 1e-13),
        (gen.BDIA(0.96), 1e-12),
        (gen.BDIA(0.9), 1e-11),
        (gen.BDIA(base="edm"), 1e-11),
        (gen.BDIA(base="dpm_solver++"), 1e-12),
        (gen.EDICT(), 1e-9),
    ],
    ids=repr,
)
def test_exact_inversion(sampler, bound):
    start, error = round_trip(RING, DATA, sampler, steps=20)
    assert error < bound * max(1.0, float(jnp.abs(start.latent).max()))


@pytest.mark.parametrize("sampler", [gen.BDIA(), gen.BDIA(0.96), gen.EDICT()], ids=repr)
def test_exact_inversion_whatever_the_network(sampler):
    # An untrained one: its flow is no flow to data and amplifies what it is given.
    _, error = round_trip(UNTRAINED, DATA, sampler, steps=20)
    there = gen.invert(UNTRAINED, DATA, sampler=gen.DDIM(), steps=20)
    back = gen.sample(UNTRAINED, start=there, sampler=gen.DDIM(), steps=20)
    assert error < 1e-7 and float(jnp.abs(back - DATA).max()) > 1e-2


def test_exact_inversion_in_single_precision():
    data = DATA.astype(jnp.float32)
    start, error = round_trip(RING, data, gen.BDIA(), steps=50)
    # At gamma = 1 at most 20 units of round-off of the largest state.
    assert error < 20 * 2**-23 * float(jnp.abs(start.latent).max())
    assert start.latent.dtype == jnp.float32


def test_rounding_errors_grow_as_gamma_says():
    single = DATA.astype(jnp.float32)

    def rounding(steps):
        options = dict(sampler=gen.BDIA(0.5), steps=steps)
        exact = gen.invert(RING, single.astype(float), **options).latent
        return float(jnp.abs(gen.invert(RING, single, **options).latent - exact).max())

    assert abs(np.log2(rounding(20) / rounding(12)) / 8 - 1) < 0.2
    with pytest.raises(rf.InputError, match="multiplies rounding errors"):
        gen.invert(RING, DATA, sampler=gen.BDIA(0.5), steps=60)


def test_half_of_the_state_is_not_enough():
    start = gen.invert(RING, DATA, sampler=gen.BDIA(), steps=20)
    from_noise_alone = gen.sample(RING, start=start.latent, sampler=gen.BDIA(), steps=20)
    assert float(jnp.abs(from_noise_alone - DATA).max()) > 1e-4


def test_other_inversions_err_as_their_order():
    forth = GAUSSIAN.flow_map(VP, TRUTH, END, 1.0)
    np.testing.assert_allclose(forth, START, atol=1e-10)

    def error(sampler, steps, **options):
        found = gen.invert(NORMAL, TRUTH, sampler=sampler, steps=steps, end=END, **options)
        return float(jnp.abs(found - forth).max())

    assert abs(np.log2(error(gen.DDIM(), 100) / error(gen.DDIM(), 200)) - 1) < 0.2
    solver = gen.DPMSolverPlusPlus(lower_order_final=False)
    assert abs(np.log2(error(solver, 100) / error(solver, 200)) - 2) < 0.3
    flow = gen.invert(NORMAL, TRUTH, sampler=gen.ProbabilityFlow(rtol=1e-9, atol=1e-9), end=END)
    np.testing.assert_allclose(flow, forth, atol=1e-6)


def test_fixed_point_inversion_of_ddim():
    found = gen.invert(RING, DATA, sampler=gen.DDIM(), steps=20, method="fixed_point")
    back = gen.sample(RING, start=found, sampler=gen.DDIM(), steps=20)
    np.testing.assert_allclose(back, DATA, atol=1e-6)
    plain = gen.invert(RING, DATA, sampler=gen.DDIM(), steps=20)
    rough = gen.sample(RING, start=plain, sampler=gen.DDIM(), steps=20)
    assert float(jnp.abs(rough - DATA).max()) > 1e-2


def test_part_of_the_way_and_another_condition():
    centres = jnp.array([[2.0, 0.0], [-2.0, 0.0]])

    def model(x, t, c):
        parts = [gen.exact.GaussianMixture(m[None], 0.3) for m in centres]
        values = [p.predict("noise", VP, x, t) for p in parts]
        return jnp.where(c == 0, values[0], values[1])

    denoiser = gen.Denoiser(model, VP)
    data = centres[0] + 0.2 * DATA
    options = dict(sampler=gen.BDIA(), steps=25)
    half = gen.invert(denoiser, data, 0, strength=0.6, **options)
    same = gen.sample(denoiser, 0, start=half, **options)
    np.testing.assert_allclose(same, data, atol=1e-12)
    whole = gen.invert(denoiser, data, 0, **options)
    edited = gen.sample(denoiser, 1, start=whole, **options)
    # The class changes, the place within the class stays.
    np.testing.assert_allclose(edited - centres[1], data - centres[0], atol=0.05)


@pytest.mark.parametrize("strength", [0.04, 1.0])
def test_differentiable_there_and_back(strength):
    def both(data):
        start = gen.invert(RING, data, sampler=gen.BDIA(), steps=25, strength=strength)
        return gen.sample(RING, start=start, sampler=gen.BDIA(), steps=25)

    np.testing.assert_allclose(both(DATA), DATA, atol=1e-12)
    slope = jax.jit(jax.grad(lambda d: jnp.sum(both(d) ** 2)))(DATA)
    np.testing.assert_allclose(slope, 2 * DATA, rtol=1e-8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampler": gen.DDPM()}, "draws noise"),
        ({"sampler": gen.DDIM}, r"write DDIM\(\)"),
        ({"strength": 0.0}, "strength=0.0"),
        ({"method": "newton"}, "'newton' is not known"),
        ({"method": "fixed_point"}, r"for DDIM\(\)"),
        ({"steps": 0}, "positive integer"),
        ({"grid": [0.1, 0.9]}, "decrease strictly"),
    ],
)
def test_refused(change, message):
    with pytest.raises(rf.InputError, match=message):
        gen.invert(RING, DATA, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strength": 0.5}, "leave out strength=0.5: say how far with begin"),
        ({"steps": 3}, "leave out steps=3"),
        ({"grid": "karras"}, "leave out grid='karras'"),
        ({"method": "steps"}, "leave out method='steps'"),
        ({"begin": 5.0}, "begin is 5.0, outside the times"),
        ({"begin": 0.1, "end": 0.5}, "begin=0.1 must be later than end=0.5"),
    ],
)
def test_refused_of_what_chooses_its_own_steps(change, message):
    with pytest.raises(rf.InputError, match=message):
        gen.invert(RING, DATA, sampler=gen.ProbabilityFlow(), **change)


def test_fixed_points_that_are_not_found():
    options = {"sampler": gen.DDIM(), "method": "fixed_point", "steps": 5}
    broken = gen.Denoiser(lambda x, t: jnp.where(t > 0.5, jnp.nan, 0.1 * x), VP)
    times = gen.grids.times(VP, 5)
    step = 1 + int(np.argmax(times[::-1][1:] > 0.5))
    with pytest.raises(rf.SolveError, match=f"step {step} of 5, to t = {times[5 - step]:.6g}"):
        gen.invert(broken, DATA, **options)
    with pytest.raises(RuntimeError, match=f"step {step} of 5"):
        jax.block_until_ready(jax.jit(lambda x: gen.invert(broken, x, **options))(DATA))
    assert gen.invert(broken, DATA, throw=False, **options).shape == DATA.shape
    straight = gen.exact.ring().denoiser(gen.RectifiedFlow())
    with pytest.raises(rf.InputError, match=r"no finite coefficients.*begin=1 alpha is 0"):
        gen.invert(straight, DATA, **options)


def test_a_flow_that_is_not_solved_is_named():
    sampler = gen.ProbabilityFlow(max_steps=2)
    with pytest.raises(rf.SolveError, match=r"ProbabilityFlow from t = 0.001 to t = 1 was not"):
        gen.invert(RING, DATA, sampler=sampler)
    with pytest.raises(rf.SolveError, match=r"ProbabilityFlow from t = 1 to t = 0.001 was not"):
        gen.sample(RING, start=START, sampler=sampler)


def test_the_way_back_must_be_the_way_there():
    start = gen.invert(RING, DATA, sampler=gen.BDIA(), steps=20)
    with pytest.raises(rf.InputError, match="found on a grid of 20 steps"):
        gen.sample(RING, start=start, sampler=gen.BDIA(), steps=21)
    with pytest.raises(rf.InputError, match="only with the same one"):
        gen.sample(RING, start=start, sampler=gen.BDIA(0.9), steps=20)
    clipped = GAUSSIAN.denoiser(VP, threshold=gen.DynamicThreshold())
    with pytest.raises(rf.InputError, match="forgets what it clips"):
        gen.invert(clipped, DATA)
    broken = gen.Denoiser(lambda x, t: jnp.where(t > 0.5, jnp.nan, x), VP)
    with pytest.raises(rf.SolveError, match="NaN"):
        gen.invert(broken, DATA, steps=20)
