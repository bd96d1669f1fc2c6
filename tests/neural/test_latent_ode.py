import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import neural
from rootflow.errors import InputError
from rootflow.neural import LatentODE, Solver

KEY = jax.random.key(2)
TS = np.array([0.0, 0.2, 0.7, 1.0])
XS = np.stack([np.cos(TS), np.sin(TS)], axis=1)


@pytest.fixture(scope="module")
def model():
    return LatentODE(2, 3, 5, noise=0.5, solver=Solver(rf.Heun(), dt=0.1), key=KEY)


@pytest.fixture(scope="module")
def loss(model):
    return eqx.filter_jit(lambda xs: model.loss(TS, xs, KEY))


def test_a_posterior_that_is_the_prior_costs_nothing(model):
    linear = model.inferred
    ignorant = eqx.tree_at(
        lambda m: (m.inferred.weight, m.inferred.bias),
        model,
        (0 * linear.weight, 0 * linear.bias),
    )
    value, parts = ignorant.loss(TS, XS, KEY)
    assert parts["kl"] == 0.0
    # z is then a draw of the prior, and the loss that of the series decoded from it.
    z = jax.random.normal(KEY, (3,))
    miss = XS - model.decode(z, TS)
    np.testing.assert_allclose(value, 0.5 * np.sum(miss**2) / 0.25, rtol=1e-10)


def test_the_divergence_is_that_of_two_normal_laws(model, loss):
    mean, log_std = model.encode(TS, XS)
    value, parts = loss(XS)
    by_hand = 0.5 * np.sum(mean**2 + np.exp(2 * log_std) - 2 * log_std - 1)
    np.testing.assert_allclose(parts["kl"], by_hand, rtol=1e-10)
    np.testing.assert_allclose(value, parts["fit"] + parts["kl"], rtol=1e-12)


def test_what_is_missing_is_left_out_and_has_no_gradient(loss):
    gap = XS.copy()
    gap[1, 0] = gap[3, 1] = np.nan
    slope = jax.grad(lambda xs: loss(xs)[0])(jnp.asarray(gap))
    assert np.isfinite(loss(gap)[0]) and loss(gap)[1]["fit"] < loss(XS)[1]["fit"]
    assert slope[1, 0] == 0 and slope[3, 1] == 0 and np.all(slope[0] != 0)


def test_a_series_that_begins_later_is_the_same_series(model):
    z = jnp.array([0.3, -0.2, 1.0])
    np.testing.assert_allclose(model.decode(z, TS + 5.0), model.decode(z, TS), rtol=1e-9)
    np.testing.assert_allclose(
        model.predict(TS + 5.0, XS, TS[1:] + 5.0), model.predict(TS, XS, TS[1:]), rtol=1e-9
    )
    assert model.sample(TS, KEY).shape == (4, 2)
    assert not np.allclose(model.predict(TS, XS, TS, KEY), model.predict(TS, XS, TS))


def test_an_encoder_reads_backwards():
    encoder = neural.GRUEncoder(2, 4, key=KEY)
    states = encoder.along(TS, XS)
    changed = encoder.along(TS, np.where(np.arange(4)[:, None] == 1, XS + 1, XS))
    np.testing.assert_array_equal(states[2:], changed[2:])
    assert np.all(states[:2] != changed[:2])
    np.testing.assert_array_equal(encoder(TS, XS), states[0])
    forwards = neural.GRUEncoder(2, 4, backwards=False, key=KEY)
    np.testing.assert_array_equal(forwards(TS, XS), forwards.along(TS, XS)[-1])


def test_a_flow_that_stands_still_is_a_plain_recurrent_unit():
    flowing = neural.ODERNN(2, 4, key=KEY)
    plain = eqx.tree_at(lambda g: g.cell, neural.GRUEncoder(2, 4, key=KEY), flowing.cell)
    still = jax.tree.map(lambda x: 0 * x if eqx.is_array(x) else x, flowing.field)
    still = eqx.tree_at(lambda e: e.field, flowing, still)
    np.testing.assert_allclose(still(TS, XS), plain(TS, XS), rtol=1e-12)
    assert not np.allclose(flowing(TS, XS), plain(TS, XS), rtol=1e-3)
    model = LatentODE(2, 3, 4, encoder=flowing, solver=Solver(rf.Heun(), dt=0.2), key=KEY)
    assert np.isfinite(model.loss(TS, XS, KEY)[0])


def test_bad_input(model):
    with pytest.raises(InputError, match=r"2 channels: .* \(4, 2\); got \(4, 1\)"):
        model.loss(TS, XS[:, :1], KEY)
    with pytest.raises(InputError, match="Sort them"):
        model.encode(TS[::-1], XS)
    with pytest.raises(InputError, match=r"latent vector must have shape \(3,\); got \(2,\)"):
        model.decode(jnp.ones(2), TS)
    with pytest.raises(InputError, match="noise must be positive; got -1"):
        LatentODE(2, 3, 5, noise=-1, key=KEY)
    with pytest.raises(InputError, match="latent must be a whole number"):
        LatentODE(2, 0, 5, key=KEY)
    with pytest.raises(InputError, match=r"channel 0, of LatentODE is inf"):
        model.encode(TS, np.where(XS == 1, np.inf, XS))
