"""Diffusion losses: their minimisers, their weights, their times, and training with them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import generative as gen

from .problems import GAUSSIAN, MEAN, STD, VP

KINDS = ("noise", "data", "score", "velocity", "flow")
STRAIGHT = gen.RectifiedFlow()
DATA = GAUSSIAN.draw(jax.random.key(0), 512)
KEY = jax.random.key(1)
value = eqx.filter_jit(lambda loss, model, batch, key: loss(model, batch, key))


class Off(eqx.Module):
    """The perfect prediction of a Gaussian, with an error of this size in the data."""

    kind: str = eqx.field(static=True)
    size: float
    schedule: gen.Schedule = VP

    def __call__(self, x, t):
        perfect = GAUSSIAN.denoiser(self.schedule, "data")
        shifted = gen.Denoiser(lambda x, t: perfect.data(x, t) + self.size, self.schedule, "data")
        return shifted.at(self.kind, x, t)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_measures_the_same_error_in_the_same_units(kind):
    # With the error of the data as the weight the loss does not depend on what is predicted.
    of = {
        k: value(gen.DiffusionLoss(VP, k, weight="data"), Off(k, 0.5), DATA, KEY)
        for k in (kind, "data")
    }
    np.testing.assert_allclose(of[kind], of["data"], rtol=1e-8)


def test_the_least_loss_is_the_variance_of_the_data_given_the_sample():
    # For normal data it is s^2 sigma^2 / (alpha^2 s^2 + sigma^2) at every x.
    loss = gen.DiffusionLoss(VP, "data", begin=0.401, end=0.4)
    a, s = VP.alpha(0.4), VP.sigma(0.4)
    least = STD**2 * s**2 / (a**2 * STD**2 + s**2)
    keys = jax.random.split(KEY, 20)
    found = [
        value(loss, Off("data", 0.0), GAUSSIAN.draw(jax.random.fold_in(k, 1), 512), k) for k in keys
    ]
    np.testing.assert_allclose(np.mean(found), least, rtol=0.03)
    off = value(loss, Off("data", 0.5), DATA, KEY) - value(loss, Off("data", 0.0), DATA, KEY)
    np.testing.assert_allclose(off, 0.25, rtol=0.25)  # the cross term has mean zero


def test_weights_are_those_of_the_papers():
    level = VP.level(np.array([0.1, 0.5, 0.9]))
    snr = (level.alpha / level.sigma) ** 2
    np.testing.assert_allclose(gen.MinSNR(5.0)(level, None), np.minimum(snr, 5.0), rtol=1e-12)
    h = 1e-6
    slope = [np.exp(2 * VP.log_snr(level.t + d)) for d in (-h, h)]
    np.testing.assert_allclose(gen.ELBO()(level, None), (slope[0] - slope[1]) / (4 * h), rtol=1e-6)
    level = gen.EDM().level(np.array([0.1, 2.0]))
    model = gen.EDMPreconditioned(lambda x, t: x, 0.5)
    expected = (level.sigma**2 + 0.25) / (level.sigma * 0.5) ** 2
    np.testing.assert_allclose(gen.EDMWeight()(level, model), expected, rtol=1e-12)


def test_edm_weighting_makes_the_loss_that_of_the_network_inside():
    # lambda(sigma) c_out^2 = 1: a network F that is off by 0.3 everywhere costs 0.09 more.
    class Constant(eqx.Module):
        off: jax.Array

        def __call__(self, x, t):
            return jnp.zeros_like(x) + self.off

    def model(off):
        return gen.EDMPreconditioned(Constant(jnp.asarray(off)), 0.5)

    data = jnp.zeros((64, 2))
    loss = gen.DiffusionLoss(gen.EDM(), "data", gen.EDMWeight(), gen.LogNormal())
    # For data at 0, D = c_skip y and the target of F is -c_skip / c_out y, of mean zero.
    found = [
        value(loss, model(0.3), data, k) + value(loss, model(-0.3), data, k)
        - 2 * value(loss, model(0.0), data, k) for k in jax.random.split(KEY, 3)
    ]  # fmt: skip
    np.testing.assert_allclose(found, 2 * 0.09, rtol=1e-6)


def test_times_are_distributed_as_they_say():
    def drawn(schedule, times, **options):
        loss = gen.DiffusionLoss(schedule, times=times, **options)
        return np.asarray(jax.jit(lambda key: loss.draw_times(key, 20_000))(jax.random.key(3)))

    t = drawn(VP, "time")
    np.testing.assert_allclose(np.quantile(t, [0.25, 0.5]), [0.25075, 0.5005], atol=1e-3)
    log_snr = VP.log_snr(drawn(VP, "log_snr"))
    ends = VP.log_snr(np.array([1.0, 1e-3]))
    np.testing.assert_allclose(np.mean(log_snr), ends.mean(), atol=0.01)
    levels = np.log(drawn(gen.EDM(), gen.LogNormal(-1.2, 1.2)))
    np.testing.assert_allclose([levels.mean(), levels.std()], [-1.2, 1.2], atol=0.01)
    t = drawn(STRAIGHT, gen.LogitNormal(0.5, 1.0))
    logits = np.log(t / (1 - t))
    np.testing.assert_allclose([logits.mean(), logits.std()], [0.5, 1.0], atol=0.01)
    apart = drawn(STRAIGHT, "time", stratified=False)
    assert np.std(np.diff(np.sort(apart))) > 3 * np.std(np.diff(np.sort(drawn(STRAIGHT, "time"))))


def test_single_precision_stays_inside_the_schedule():
    loss = gen.DiffusionLoss(gen.EDM(), times=gen.LogNormal(0.0, 3.0))
    t = jax.jit(lambda key: loss.draw_times(key, 4096, jnp.float32))(KEY)
    assert t.dtype == jnp.float32 and t.min() >= 0.002 and t.max() <= 80.0


def test_conditions_are_dropped_at_their_rate():
    seen = []

    def model(x, t, condition):
        jax.debug.callback(lambda c: seen.append(np.asarray(c)), condition["digit"])
        return x

    loss = gen.DiffusionLoss(VP, dropout=0.25, unconditional={"digit": -1, "row": 0.0})
    condition = {"digit": jnp.arange(512) % 10, "row": jnp.ones((512, 3))}
    loss(model, (DATA, condition), KEY)
    jax.effects_barrier()
    assert abs(np.mean(seen[0] == -1) - 0.25) < 0.06
    assert (seen[0][seen[0] >= 0] == (np.arange(512) % 10)[seen[0] >= 0]).all()


class Affine(eqx.Module):
    """Predicts data = a + b x at one noise level; the best of these is known."""

    a: jax.Array
    b: jax.Array

    def __call__(self, x, t):
        return self.a + self.b * x


def test_training_finds_the_conditional_mean():
    loss = gen.DiffusionLoss(VP, "data", begin=0.5, end=0.4999)
    start = Affine(jnp.zeros(2), jnp.zeros(()))
    import optax

    trained = rf.train(
        loss, start, lambda key: GAUSSIAN.draw(key, 1024), key=KEY, steps=600, every=300,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.05, 600)), progress=False,
    )  # fmt: skip
    a, s = VP.alpha(0.5), VP.sigma(0.5)
    slope = a * STD**2 / (a**2 * STD**2 + s**2)
    np.testing.assert_allclose(trained.model.b, slope, atol=0.01)
    np.testing.assert_allclose(trained.model.a, MEAN * (1 - slope * a), atol=0.02)
    denoiser = loss.denoiser(trained.model)
    x = a * MEAN[None]
    np.testing.assert_allclose(denoiser.data(x, 0.5), MEAN[None], atol=0.02)


PRECONDITIONED = gen.EDMPreconditioned(lambda x, t: x, 0.5)


def test_preconditioning_on_a_schedule_whose_time_is_not_the_noise_level():
    schedule, x = gen.VE(), DATA[:4]
    there = gen.Denoiser(PRECONDITIONED, schedule, "data", time=schedule.sigma)
    here = gen.Denoiser(PRECONDITIONED, gen.EDM(), "data")
    np.testing.assert_allclose(there.data(x, 0.6), here.data(x, schedule.sigma(0.6)), rtol=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gen.DiffusionLoss(VP, "epsilon"), "'epsilon' is not known"),
        (lambda: gen.DiffusionLoss(VP, weight="snr"), "'snr' is not known.*MinSNR"),
        (lambda: gen.DiffusionLoss(VP, times="late"), "'late' is not known"),
        (lambda: gen.DiffusionLoss(VP, dropout=1.0, unconditional=0), "dropout=1.0"),
        (lambda: gen.DiffusionLoss(VP, dropout=0.1), "give unconditional"),
        (lambda: gen.DiffusionLoss(VP, begin=0.1, end=0.5), "later than end=0.5"),
        (lambda: gen.DiffusionLoss(VP, begin=2.0), "outside the times"),
        (lambda: gen.DiffusionLoss(VP)(lambda x, t: x, jnp.arange(3), KEY), "int"),
        (lambda: gen.DiffusionLoss(VP)(lambda x, t: x[:, 0], DATA, KEY), r"shape \(512, 2\)"),
        (
            lambda: gen.DiffusionLoss(VP, dropout=0.5, unconditional=-1)(
                lambda x, t, c: x, (DATA, jnp.arange(3)), KEY
            ),
            "batch of 512",
        ),
        (
            lambda: gen.DiffusionLoss(VP, dropout=0.5, unconditional=(-1, 0))(
                lambda x, t, c: x, (DATA, jnp.arange(512)), KEY
            ),
            "structure of a condition",
        ),
        (
            lambda: gen.DiffusionLoss(gen.EDM(), "data", gen.EDMWeight())(
                lambda x, t: x, DATA, KEY
            ),
            "EDMPreconditioned",
        ),
        (
            lambda: gen.DiffusionLoss(gen.EDM(), times=gen.LogitNormal()).draw_times(KEY, 3),
            r"use LogNormal\(\)",
        ),
        (lambda: gen.DiffusionLoss(VP, "data")(PRECONDITIONED, DATA, KEY), "alpha = 1, and VPL"),
        (lambda: gen.Denoiser(PRECONDITIONED, VP, "data"), "use the schedule EDM"),
        (lambda: gen.Denoiser(PRECONDITIONED, gen.VE(), "data"), "give time=schedule.sigma"),
        (lambda: gen.Denoiser(PRECONDITIONED, gen.EDM()), 'use "data"'),
        (lambda: gen.LogNormal(std=0.0), "std=0.0"),
        (lambda: gen.LogitNormal(std=-1.0), "std=-1.0"),
        (lambda: gen.MinSNR(0.0), "gamma=0.0"),
    ],
)
def test_refused(make, message):
    with pytest.raises(rf.InputError, match=message):
        make()


class AtAnEnd(gen.Grid):
    """Every time is one of the two ends, as in single precision one in ten million is."""

    noisy: bool

    def times(self, schedule, fractions, begin, end):
        return 0 * fractions + (begin if self.noisy else end)


@pytest.mark.parametrize("weight", [gen.ELBO(), gen.MinSNR(), "data", "noise"], ids=repr)
def test_a_time_without_signal_or_noise_is_not_met(weight):
    lines, data = gen.RectifiedFlow(), jnp.ones((4, 2), jnp.float32)
    model = lambda scale: lambda x, t: scale * x * jnp.tanh(t)[:, None]

    @jax.jit
    def all_of_them(scale):
        return jnp.stack([
            gen.DiffusionLoss(
                lines, kind, weight=weight, end=0.0, times=AtAnEnd(noisy), time=lines.log_snr
            )(model(scale), data, jax.random.key(0))
            for kind in ("noise", "data", "velocity", "flow")
            for noisy in (True, False)
        ])  # fmt: skip

    scale = jnp.float32(0.3)
    assert np.isfinite(all_of_them(scale)).all()
    assert np.isfinite(jax.jacfwd(all_of_them)(scale)).all()
    draw = gen.DiffusionLoss(lines, "flow", end=0.0, times=AtAnEnd(True)).draw_times
    assert (draw(jax.random.key(0), 8, jnp.float32) < 1).all()


def test_weights_where_there_is_no_signal():
    """-SNR'/2 = (1 - t) / t^3 on straight lines."""
    t = jnp.array([0.2, 0.5, 1.0])
    level = gen.RectifiedFlow().level(t)
    np.testing.assert_allclose(gen.ELBO()(level, None), (1 - t) / t**3, atol=1e-14)
    np.testing.assert_allclose(gen.MinSNR(2.0)(level, None), [2.0, 1.0, 0.0], atol=1e-14)


def test_a_grid_of_times_that_cannot_reach_an_end_is_refused():
    with pytest.raises(rf.InputError, match='grid="time"'):
        gen.DiffusionLoss(gen.RectifiedFlow(), "flow", times="log_snr")
