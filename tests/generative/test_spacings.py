"""Shifted flows, beta quantiles and grids from noise levels, against their closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import generative as gen

FLOW = gen.RectifiedFlow()


def test_a_shift_multiplies_the_noise_level():
    plain = gen.times(FLOW, 10, grid="time", end=0.0)
    moved = gen.times(FLOW, 10, grid=gen.Shifted(3.0), end=0.0)
    assert moved[0] == 1 and moved[-1] == 0
    inner = slice(1, -1)
    np.testing.assert_allclose(moved, 3 * plain / (1 + 2 * plain), rtol=1e-14)
    level = moved[inner] / (1 - moved[inner])
    np.testing.assert_allclose(level, 3 * plain[inner] / (1 - plain[inner]), rtol=1e-12)
    np.testing.assert_allclose(gen.times(FLOW, 10, grid=gen.Shifted(1.0), end=0.0), plain)
    # The ends stay where they are asked for.
    some = gen.times(FLOW, 5, grid=gen.Shifted(3.0), begin=0.9, end=0.1)
    assert some[0] == 0.9 and some[-1] == 0.1


def test_the_shift_of_an_image():
    # FLUX: mu = 0.5 at 256 tokens, 1.15 at 4096, and 0.63 at 1024 (a picture of 512 x 512).
    for tokens, mu in ((256, 0.5), (4096, 1.15), (1024, 0.63)):
        np.testing.assert_allclose(gen.dynamic_shift(tokens), np.exp(mu), rtol=1e-12)
        np.testing.assert_allclose(gen.dynamic_shift(tokens, kind="linear"), mu, rtol=1e-12)


def test_beta_levels_by_the_arcsine_law():
    # Quantiles of the beta distribution with both parameters 1/2 are sin^2(pi q / 2).
    times = gen.times(gen.EDM(), 8, grid=gen.BetaLevels(0.5, 0.5), begin=10.0, end=0.1)
    quantiles = np.sin(0.5 * np.pi * (1 - np.arange(9) / 8)) ** 2
    np.testing.assert_allclose(times, 0.1 + quantiles * 9.9, rtol=1e-10)
    levels = gen.times(FLOW, 8, grid=gen.BetaLevels(), begin=0.99, end=0.01)
    assert (np.diff(levels) < 0).all()


def test_a_grid_from_noise_levels():
    levels = np.array([14.6, 5.0, 1.0, 0.1, 0.0])
    np.testing.assert_allclose(gen.times_from_levels(gen.EDM(), levels), levels, rtol=1e-14)
    np.testing.assert_allclose(
        gen.times_from_levels(FLOW, levels), levels / (1 + levels), rtol=1e-14
    )
    table = gen.DiscreteBetas(gen.scaled_linear_betas())
    times = gen.times_from_levels(table, levels)
    np.testing.assert_allclose(np.exp(-table.log_snr(times[:-1])), levels[:-1], rtol=1e-11)
    compiled = jax.jit(lambda levels: gen.times_from_levels(table, levels))
    np.testing.assert_allclose(compiled(jnp.asarray(levels)), times, rtol=1e-9)
    slope = jax.grad(lambda levels: gen.times_from_levels(FLOW, levels)[1])(jnp.asarray(levels))
    np.testing.assert_allclose(slope, [0, 1 / 36, 0, 0, 0], rtol=1e-12)
    # One level is the same as the grid by name.
    edm = gen.times(gen.EDM(), 6)
    np.testing.assert_allclose(gen.times_from_levels(gen.EDM(), edm), edm, rtol=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gen.Shifted(0.0), "shift=0.0"),
        (lambda: gen.times(gen.VPLinear(), 5, grid=gen.Shifted()), "RectifiedFlow.*VPLinear"),
        (lambda: gen.dynamic_shift(0), "tokens=0"),
        (lambda: gen.dynamic_shift(9, base_tokens=9, max_tokens=9), "in order"),
        (lambda: gen.dynamic_shift(9, kind="log"), "'log' is not known"),
        (lambda: gen.dynamic_shift(1, kind="linear", base_shift=-1.0), "mu=-1"),
        (lambda: gen.BetaLevels(0.0), "a=0.0"),
        (lambda: gen.times(FLOW, 5, grid=gen.BetaLevels()), "log_snr -inf"),
        (lambda: gen.times_from_levels(gen.EDM(), [1.0]), "shape"),
        (lambda: gen.times_from_levels(gen.EDM(), [1.0, 2.0]), "decrease"),
        (lambda: gen.times_from_levels(gen.EDM(), [1.0, -2.0]), "not be negative"),
        (lambda: gen.times_from_levels(gen.DiscreteBetas(gen.linear_betas()), [1e4, 1.0]),
         "outside the times"),
        (lambda: gen.DynamicThreshold(0.9, 1.0, 0.5), "most=0.5"),
    ],
)  # fmt: skip
def test_refused(call, message):
    with pytest.raises(rf.InputError, match=message):
        call()


def test_clipping_and_the_largest_value():
    x = jnp.asarray([[0.5, -3.0, 1.5, 0.2]])
    np.testing.assert_allclose(gen.DynamicThreshold(1.0, 1.0, 1.0).apply(x), [[0.5, -1, 1, 0.2]])
    found = gen.DynamicThreshold(1.0, 1.0, 2.0).apply(x)
    np.testing.assert_allclose(found, [[0.25, -1, 0.75, 0.1]])
