"""Guidance scales are data and not a part of the program."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import generative as gen

from .problems import START, VP


def model(x, t, condition):
    return 0.5 * x + condition


def test_scales_share_one_compiled_program():
    traced = []

    @eqx.filter_jit
    def guided(denoiser, x):
        traced.append(1)
        return denoiser.noise(x, 0.5, 1.0)

    for scale in (1.0, 2.0, 3):
        guide = gen.ClassifierFree(scale, unconditional=0.0)
        for dtype in (jnp.float32, jnp.float64):
            x = START.astype(dtype)
            found = guided(gen.Denoiser(model, VP, guidance=guide), x)
            assert found.dtype == dtype
            np.testing.assert_allclose(found, 0.5 * x + scale, rtol=1e-6)
    # An integer is its own kind of number.
    assert len(traced) <= 4


def test_scales_are_checked_where_they_are_known():
    for make in (
        gen.ClassifierFree,
        gen.LossGuidance,
        lambda scale: gen.AutoGuidance(model, scale),
        lambda scale: gen.Classifier(model, scale),
        lambda scale: jax.jit(lambda x: gen.ClassifierFree(scale).scale * x)(1.0),
    ):
        args = (lambda x: x, float("nan")) if make is gen.LossGuidance else (float("nan"),)
        with pytest.raises(rf.InputError, match="must be finite; got nan"):
            make(*args)
