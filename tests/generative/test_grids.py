"""Times that are not known when the program is made are checked when they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rootflow import generative as gen
from rootflow.generative import interpolants as ip

from .problems import NORMAL, START, VP


def sampled(**options):
    return gen.sample(NORMAL, start=START, sampler=gen.DDIM(), **options)


@pytest.mark.parametrize(
    ("function", "value", "message"),
    [
        (lambda t: NORMAL.noise(START, t), 1.5, "t lies outside the times 0.0 ... 1.0 of VPLinear"),
        (lambda t: sampled(steps=3, begin=t), 1.5, "begin lies outside"),
        (lambda t: sampled(steps=3, end=t), -0.5, "end lies outside"),
        (lambda t: sampled(steps=3, begin=t), 1e-4, "must decrease strictly"),
        (lambda t: sampled(grid=jnp.stack([1.0, t, 0.1])), 0.05, "must decrease strictly"),
        (lambda t: sampled(grid=jnp.stack([1.0, t, 0.1])), jnp.nan, "lies outside"),
        (lambda e: ip.Epsilon(e).value(0.5, None), -1.0, "epsilon must not be negative"),
    ],
)
def test_traced_values_are_checked(function, value, message):
    with pytest.raises(RuntimeError, match=message):
        jax.block_until_ready(jax.jit(function)(value))


def test_traced_values_inside_give_the_same():
    for function in (
        lambda t: NORMAL.noise(START, t),
        lambda t: sampled(steps=3, begin=t),
        lambda t: sampled(grid=jnp.stack([1.0, t, 0.1])),
    ):
        np.testing.assert_allclose(jax.jit(function)(0.8), function(0.8), rtol=1e-9)


def test_an_end_is_inside_in_the_precision_it_is_given_in():
    end = np.float32(np.pi / 2)
    assert float(end) > np.pi / 2
    assert gen.grids.check_inside(gen.flow_maps.TrigFlow(), end, "t") == end
    assert not isinstance(gen.grids.check_inside(VP, 1.0, "t"), jax.Array)
