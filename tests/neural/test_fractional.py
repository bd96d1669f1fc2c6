"""Inference with fractional noise against the exact solution of the linear Gaussian case."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow.flows.noise import BrownianMotion, MarkovFractional, MarkovLaw
from rootflow.flows.noise.linear import LinearFractional
from rootflow.neural.fractional import (
    FractionalSDE,
    MovingHurst,
    ObservationControl,
    controlled_path,
    in_order,
    log_normal,
    normal_kl,
)

SEEN, ERROR = np.array([0.5]), 0.3


def still(t, y, args):
    return 0.0 * y


def one(t, y, args):
    return jnp.ones_like(y)


def bound(noise_of, law, method, steps=128, paths=48):
    """Evidence, and for every path the bound with and without the integral of u dW."""
    model = LinearFractional(law, error=ERROR)
    ts = np.array([1.0])
    later = model.backward(ts, SEEN)
    # The control is linear in the state: its coefficients on the grid of steps.
    grid = jnp.arange(steps + 1) / steps

    def gains(t):
        of = lambda z: model.control(later, t, z[0], z[1:])[0]
        return of(jnp.zeros(1 + law.rates.size)), jax.grad(of)(jnp.zeros(1 + law.rates.size))

    free, slopes = jax.jit(jax.vmap(gains))(grid)

    def control(t, y, memory, args):
        i = jnp.round(t * steps).astype(int)
        if not memory.size:
            memory = jnp.zeros(1)
        return free[i] + slopes[i] @ jnp.concatenate([y[None], memory])

    @jax.jit
    @jax.vmap
    def each(key):
        p = controlled_path(
            still, one, control, 0.0, (0.0, 1.0), noise_of(key), dt=1 / steps, method=method,
            martingale=True,
        )  # fmt: skip
        value = log_normal(SEEN, p.ys, ERROR) - p.cost[-1]
        return value, value - p.martingale[-1]

    return float(model.log_likelihood(ts, SEEN)), *each(jax.random.split(jax.random.key(1), paths))


@pytest.mark.parametrize("method", [rf.EulerMaruyama(), rf.Heun()], ids=["ito", "stratonovich"])
def test_with_the_optimal_control_every_path_gives_the_log_evidence(method):
    law = MarkovLaw(0.7)
    evidence, plain, exact = bound(lambda key: MarkovFractional(key, 0.7), law, method)
    # To the error of the steps, which is smaller in the second case; and in the mean without.
    assert np.std(exact) < 0.25 and abs(np.mean(exact) - evidence) < 0.1
    assert np.std(plain) > 3 * np.std(exact)
    assert abs(np.mean(plain) - evidence) < 4 * np.std(plain) / np.sqrt(48)


def test_white_noise_is_the_same_with_one_term_of_rate_zero():
    key = jax.random.key(1)
    law = MarkovLaw(None)
    made = lambda key: MarkovFractional(key, None)
    evidence, _, exact = bound(made, law, rf.EulerMaruyama())
    np.testing.assert_allclose(evidence, -0.5 * np.log(2 * np.pi * 1.09) - 0.125 / 1.09, rtol=1e-10)
    assert np.std(exact) < 0.25 and abs(np.mean(exact) - evidence) < 0.1
    motion = made(key).motion
    _, _, plain = bound(lambda key: BrownianMotion(motion_key(key)), law, rf.EulerMaruyama())
    np.testing.assert_allclose(plain, exact, rtol=1e-9)
    assert isinstance(motion, BrownianMotion)


def motion_key(key):
    """The key that a MarkovFractional gives to its motion."""
    return jax.random.split(key)[0]


def model_of(hurst=0.6, **options):
    control = ObservationControl(jax.random.key(3), 5, 2, width=8, depth=1)
    return FractionalSDE(still, one, control, np.zeros(2), hurst=hurst, **options)


TS = np.array([0.25, 0.5, 1.0])
YS = np.array([[0.1, 0.2], [np.nan, np.nan], [0.5, -0.3]])


@eqx.filter_jit
def elbo(model, ts, ys):
    return model.elbo(jax.random.key(4), ts, ys, 0.2, steps=32)


def test_the_bound_is_differentiable_in_the_index_and_in_the_control():
    model = model_of()
    last = lambda m: m.control.network.layers[-1].bias
    model = eqx.tree_at(last, model, jnp.array([0.3, -0.2]))
    gradient = eqx.filter_jit(eqx.filter_grad(elbo))(model, TS, YS)
    for where, i in ((lambda m: m.logit, ()), (last, (1,))):
        ends = [
            elbo(eqx.tree_at(where, model, jnp.asarray(where(model)).at[i].add(e)), TS, YS)
            for e in (1e-5, -1e-5)
        ]
        np.testing.assert_allclose(where(gradient)[i], (ends[0] - ends[1]) / 2e-5, rtol=1e-6)
    held = model_of(learn_hurst=False)
    assert eqx.filter_jit(eqx.filter_grad(elbo))(held, TS, YS).logit == 0


def test_an_index_that_changes_is_learned_through_the_bound():
    moving = model_of(MovingHurst(jax.random.key(7), start=0.7))
    np.testing.assert_allclose(elbo(moving, TS, YS), elbo(model_of(0.7), TS, YS), rtol=1e-10)
    last = lambda m: m.moving.network.layers[-1].weight
    where = lambda model, e: eqx.tree_at(last, model, last(model).at[0, 3].add(e))
    # (The weights solve an ill-conditioned system: a shorter step would show its rounding.)
    slope = (elbo(where(moving, 1e-3), TS, YS) - elbo(where(moving, -1e-3), TS, YS)) / 2e-3
    gradient = eqx.filter_jit(eqx.filter_grad(elbo))
    np.testing.assert_allclose(last(gradient(moving, TS, YS))[0, 3], slope, rtol=1e-5)
    held = model_of(MovingHurst(jax.random.key(7), start=0.7), learn_hurst=False)
    assert not np.any(last(gradient(held, TS, YS)))
    with pytest.raises(rf.InputError, match=r"between 0 and 1; got 1\.0"):
        MovingHurst(jax.random.key(7), start=1.0)


def test_an_untrained_posterior_is_the_prior_and_missing_observations_say_nothing():
    model = model_of()
    path = eqx.filter_jit(
        lambda m, posterior: m.path(
            jax.random.key(0), steps=32, saveat=TS, posterior=posterior, context=in_order(TS, YS)
        )
    )
    np.testing.assert_array_equal(path(model, True).ys, path(model, False).ys)
    assert path(model, True).cost[-1] == 0
    assert elbo(model, TS, np.full((3, 2), np.nan)) == 0
    # A trained control looks past what is missing.
    last = lambda m: m.control.network.layers[-1].weight
    model = eqx.tree_at(last, model, jnp.ones_like(last(model)))
    # (the key is the same, and the observations that are there)
    np.testing.assert_allclose(
        elbo(model, TS, YS), elbo(model, TS[[0, 2, 2]], YS[[0, 2, 1]]), rtol=1e-12
    )


def test_a_random_start_costs_its_divergence():
    model = model_of(spread=0.5)
    prior = (jnp.zeros(2), 0.5 * jnp.ones(2))
    away = (jnp.ones(2), 0.5 * jnp.ones(2))
    none = np.full((3, 2), np.nan)
    call = eqx.filter_jit(lambda m, s: m.elbo(jax.random.key(4), TS, none, 0.2, steps=32, start=s))
    assert call(model, prior) == 0
    np.testing.assert_allclose(call(model, away), -2 * 0.5 * 4, rtol=1e-12)
    np.testing.assert_allclose(
        normal_kl(jnp.array(0.3), jnp.array(0.2), 0.0, 0.5),
        np.log(2.5) + (0.04 + 0.09) / 0.5 - 0.5, rtol=1e-12,
    )  # fmt: skip


def test_diffusion_that_depends_on_the_state_in_single_precision():
    """dX = X o dB has X = exp(B), also under a control: dB + sum of the weights times u."""
    noise = MarkovFractional(jax.random.key(2), 0.7, (2,), steps=256)
    call = lambda g, x0: controlled_path(
        still, g, lambda t, y, memory, args: jnp.array([0.5, -0.2]), x0, (0.0, 1.0), noise,
        dt=1 / 256, method=rf.Heun(),
    )  # fmt: skip
    x = call(lambda t, y, a: y, jnp.ones(2, jnp.float32))
    b = call(one, jnp.zeros(2, jnp.float32))
    assert x.ys.dtype == jnp.float32
    np.testing.assert_allclose(x.ys, np.exp(b.ys), rtol=2e-3)
    np.testing.assert_allclose(x.cost, [0.5 * (0.25 + 0.04)], rtol=1e-4)


def test_refused():
    noise = MarkovFractional(jax.random.key(2), 0.7)
    call = lambda g=one, u=0.0, noise=noise: controlled_path(
        still, g, lambda t, y, memory, args: u, 1.0, (0.0, 1.0), noise, dt=0.1
    )
    with pytest.raises(rf.InputError, match="Stratonovich sense, and EulerMaruyama"):
        call(lambda t, y, a: y)
    with pytest.raises(rf.InputError, match=r"shape of the noise, \(\); got \(3,\)"):
        call(u=jnp.ones(3))
    with pytest.raises(rf.InputError, match="MarkovFractional or a BrownianMotion; got int"):
        call(noise=3)  # pyright: ignore
    with pytest.raises(rf.InputError, match=r"between 0 and 1; got 1\.5"):
        model_of(1.5)
    with pytest.raises(rf.InputError, match="horizon must be a positive number; got -1"):
        model_of(horizon=-1)
    with pytest.raises(rf.InputError, match=r"spread of X\(0\)"):
        model_of().elbo(jax.random.key(0), TS, YS, 0.2, steps=8, start=(jnp.zeros(2), jnp.ones(2)))


def test_observations_and_errors_meet_number_by_number():
    """The same data in other shapes, and a density by hand."""
    model = FractionalSDE(
        lambda t, y, a: -y, lambda t, y, a: jnp.ones_like(y),
        ObservationControl(jax.random.key(1), terms=5), start=np.zeros(1), hurst=0.6,
    )  # fmt: skip
    ts, key = np.linspace(0.1, 1.0, 5), jax.random.key(0)
    bound = lambda ys, error: model.elbo(key, ts, ys, error, steps=20)
    series = np.sin(ts)
    value = bound(series[:, None], 0.2)
    for ys, error in (
        (series, 0.2), (series[:, None], np.full(5, 0.2)), (series, np.full((5, 1), 0.2))
    ):  # fmt: skip
        np.testing.assert_allclose(bound(ys, error), value, rtol=1e-12)
    with pytest.raises(rf.InputError, match=r"ys must have shape \(5, 1\)"):
        bound(np.ones((5, 2)), 0.2)
    each = -0.5 * 4.0**2 - np.log(0.5) - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(log_normal(np.ones(3), -np.ones(3), 0.5), 3 * each)
    for shapes in (((3,), (3, 1), ()), ((3, 1), (3, 1), (3,)), ((1,), (3,), ())):
        with pytest.raises(rf.InputError, match="must have one shape"):
            log_normal(*(np.ones(shape) for shape in shapes))
