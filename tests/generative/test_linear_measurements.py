"""Guidance by linear measurements: what a normal distribution says exactly, sample by sample."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import generative as gen

A = jnp.array([[1.0, 0.3, 0.2], [0.0, 1.0, 0.5]])
B = jnp.array([0.5, -2.0])
Y = jnp.array([0.2, 0.4])
X = jax.random.normal(jax.random.key(0), (4, 3))
BASE = gen.exact.GaussianMixture([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]], 0.7).denoiser(gen.VPLinear())


def noise(guidance, x=X):
    model = eqx.tree_at(lambda d: d.guidance, BASE, guidance, is_leaf=lambda v: v is None)
    return model.noise(x, jnp.asarray(0.5), None)


@pytest.mark.parametrize("kind", [gen.PiGDM, gen.MomentMatching])
def test_constants_noise_by_sample_and_lost_samples(kind):
    linear = noise(kind(lambda x: x @ A.T, Y, 0.3))
    np.testing.assert_allclose(noise(kind(lambda x: x @ A.T + B, Y + B, 0.3)), linear, atol=1e-12)
    levels = jnp.array([0.1, 2.0, 0.3, 0.5])
    together = noise(kind(lambda x: x @ A.T, Y, levels))
    for i in range(4):
        alone = noise(kind(lambda x: x @ A.T, Y, levels[i]), X[i : i + 1])
        np.testing.assert_allclose(together[i], alone[0], atol=1e-12)
    lost = noise(kind(lambda x: x @ A.T, Y, 0.3), X.at[2].set(jnp.nan))
    assert np.isnan(lost[2]).all()
    np.testing.assert_allclose(np.delete(lost, 2, 0), np.delete(linear, 2, 0), atol=1e-12)
    for bent in (jnp.abs, jnp.sin, lambda x: x * x, lambda x: jnp.where(x > 0, x, 0.0)):
        with pytest.raises(rf.InputError, match="operator is not linear"):
            noise(kind(lambda x, bent=bent: bent(x) @ A.T, Y, 0.3))
