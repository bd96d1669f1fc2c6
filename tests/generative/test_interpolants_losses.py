"""Losses: their minima, their excess, their variance at the ends, and training."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import generative as gen
from rootflow.generative import couplings
from rootflow.generative import interpolants as ip

from .interpolant_problems import LINE_BASE, LINE_DATA, PATHS, law_of, standard_error

N = 8000
BATCH = ip.Pairs(LINE_BASE.draw(jax.random.key(0), N), LINE_DATA.draw(jax.random.key(1), N))
LOSSES = {"b": ip.L_b, "v": ip.L_v, "s": ip.L_s, "eta": ip.L_eta}


def wave(x, t):
    return 0.5 * jnp.sin(x + t[:, None])


@pytest.mark.parametrize("name", ["linear", "linear-brownian", "one-sided-linear", "mirror"])
def test_the_exact_field_is_the_minimum(name):
    path = PATHS[name]
    law = law_of(path, LINE_DATA, LINE_BASE)
    batch = BATCH if path.sides == "two" else BATCH.x1
    kinds = ["b", "v", "s", "eta"]
    if not path.noisy:
        kinds = ["b"]
    if path.sides == "mirror":
        kinds.remove("v")

    @jax.jit
    def both(key):
        found = {}
        for kind in kinds:
            loss = LOSSES[kind](path, times=(1e-3, 1 - 1e-3))

            def exact(x, t, kind=kind):
                return law.at(kind, x, t)

            def wrong(x, t, kind=kind):
                return law.at(kind, x, t) + wave(x, t)

            least = loss.terms(exact, batch, key)[0]
            t, x = jax.random.uniform(key, (N,), minval=1e-3, maxval=1 - 1e-3), None
            pairs = batch if path.sides == "two" else ip.Pairs(None, batch)
            x = path.at(t, pairs.x0, pairs.x1, jax.random.normal(key, (N, 1))).x
            squares = jnp.sum(exact(x, t) ** 2, axis=1), jnp.sum(wave(x, t) ** 2, axis=1)
            found[kind] = least, loss.terms(wrong, batch, key)[0] - least, *squares
        return found

    for kind, (least, above, exact, wave_squares) in both(jax.random.key(2)).items():
        gap = float(least.mean() + 0.5 * exact.mean())
        assert abs(gap) < 5 * (standard_error(least) + standard_error(0.5 * exact)), kind
        gap = float(above.mean() - 0.5 * wave_squares.mean())
        assert abs(gap) < 5 * (standard_error(above) + standard_error(wave_squares)), kind


def test_excess_is_half_the_mean_square_of_the_error():
    path = PATHS["linear-brownian"]
    law = law_of(path, LINE_DATA, LINE_BASE)
    model = {
        "b": lambda x, t: law.b(x, t) + 0.5 * jnp.sin(2 * x),
        "s": lambda x, t: law.score(x, t) + 0.25 * jnp.cos(2 * x),
    }
    loss = ip.Regression(path, ("b", "s"), weights=(1.0, 4.0))
    found = eqx.filter_jit(ip.excess)(loss, model, law.fields(), BATCH, jax.random.key(0))
    # Half of 0.25 E sin^2 + 4 * 0.0625 E cos^2.
    np.testing.assert_allclose(found.value, 0.125, rtol=1e-9)
    assert float(found.error) < 1e-9


def test_antithetic_pairs_tame_the_ends():
    def model(x, t):
        return jnp.tanh(x)

    def spread(loss, t):
        at = jnp.full(N, t)
        return float(jnp.std(loss.terms(model, BATCH, jax.random.key(3), t=at)[0]))

    path = ip.Linear(ip.Brownian(1.0))
    plain, paired = ip.L_s(path, antithetic=False), ip.L_s(path)
    # Albergo et al. (2023), sec. 6: 31 against 0.04 at 1e-3 in our measure.
    assert spread(plain, 1e-3) > 500 * spread(paired, 1e-3)
    assert spread(ip.L_b(path, antithetic=False), 1e-4) > 5 * spread(ip.L_b(path), 1e-4)
    assert spread(ip.L_eta(path), 1e-4) < 1.5
    assert not ip.L_eta(path).paired and not ip.L_b(ip.Linear()).paired
    assert ip.L_b(path).interval == (1e-4, 1 - 1e-4) and ip.L_v(path).interval == (0.0, 1.0)


def test_flow_matching_has_the_gradient_of_the_squares():
    def squares(slope, key):
        key_pairs, key_t, _ = jax.random.split(key, 3)
        x0 = jax.random.normal(jax.random.split(key_pairs)[0], BATCH.x1.shape)
        t = jax.random.uniform(key_t, (N,))[:, None]
        x = (1 - t) * x0 + t * BATCH.x1
        return jnp.mean(0.5 * jnp.sum((slope * x * t - (BATCH.x1 - x0)) ** 2, axis=1))

    def loss(slope, key):
        return ip.flow_matching()(lambda x, t: slope * x * t[:, None], BATCH.x1, key)

    key = jax.random.key(5)
    np.testing.assert_allclose(jax.grad(loss)(0.3, key), jax.grad(squares)(0.3, key), rtol=1e-9)


@pytest.mark.parametrize(
    "loss",
    [ip.optimal_transport_matching(), ip.schrodinger_matching(1.0)],
    ids=["exact", "sinkhorn"],
)
def test_couplings_pair_the_batch(loss):
    batch = ip.Pairs(BATCH.x0[:64], BATCH.x1[:64])
    x0, x1, _ = jax.jit(loss.pairs)(batch, jax.random.key(0))
    paired, given = (float(jnp.mean((b - a) ** 2)) for a, b in ((x0, x1), batch[:2]))
    best = float(jnp.mean((jnp.sort(batch.x0, 0) - jnp.sort(batch.x1, 0)) ** 2))
    assert paired < 0.6 * given
    if isinstance(loss.coupling, couplings.ExactOT):
        np.testing.assert_allclose(paired, best, rtol=1e-9)


@pytest.mark.parametrize("coupling", [couplings.ExactOT(), couplings.Sinkhorn(0.5)], ids=repr)
def test_conditions_stay_with_their_samples(coupling):
    keys = jax.random.split(KEY)
    x0, x1 = (jax.random.normal(key, (64, 2)) for key in keys)
    condition = {"sign": jnp.sign(x1[:, 0]), "copy": x1}
    loss = ip.flow_matching(coupling)
    first, second, told = loss.pairs(ip.Pairs(x0, x1, condition), KEY)
    np.testing.assert_array_equal(first, x0)
    np.testing.assert_array_equal(told["copy"], second)
    np.testing.assert_array_equal(told["sign"], jnp.sign(second[:, 0]))
    np.testing.assert_array_equal(second, loss.pairs(ip.Pairs(x0, x1), KEY).x1)
    assert bool((second != x1).any())


def test_schrodinger_matching_with_little_noise():
    """The regularisation, 0.02, is a 2,000th of the largest squared distance."""
    data = gen.exact.ring().draw(jax.random.key(0), 256)
    value, _ = ip.schrodinger_matching(sigma=0.1)(lambda x, t: {"b": x, "s": x}, data, KEY)
    assert bool(jnp.isfinite(value))


class Affine(eqx.Module):
    """Fields that are linear in x and polynomial in t: exact enough between normal laws."""

    b: jax.Array
    eta: jax.Array

    def __call__(self, x, t):
        powers = jnp.stack([t**k for k in range(6)], axis=-1)
        at = powers[..., None, :]  # for each x
        return {
            kind: jnp.sum(at * w[0], -1) + jnp.sum(at * w[1], -1) * x
            for kind, w in (("b", self.b), ("eta", self.eta))
        }


def test_training_finds_the_fields():
    path = ip.Linear(ip.Quadratic())
    base = ip.Pairs(
        -1 + jax.random.normal(jax.random.key(0), (20000, 1)),
        1 + 0.5 * jax.random.normal(jax.random.key(1), (20000, 1)),
    )
    model = Affine(jnp.zeros((2, 6)), jnp.zeros((2, 6)))
    import optax

    trained = rf.train(
        ip.Regression(path, ("b", "eta")), model, base, key=jax.random.key(2), steps=1500,
        batch_size=512, optimizer=optax.adam(optax.cosine_decay_schedule(0.05, 1500)),
        every=1500, progress=False,
    )  # fmt: skip
    assert set(trained.history) >= {"loss", "L_b", "L_eta"}
    t = np.array([0.1, 0.5, 0.9])
    mean, variance = 2 * t - 1, (1 - t) ** 2 + 0.25 * t**2 + (t * (1 - t)) ** 2
    half_rate = -(1 - t) + 0.25 * t + t * (1 - t) * (1 - 2 * t)
    for x in (-1.0, 0.5, 2.0):
        found = trained.model(jnp.full((3, 1), x), jnp.asarray(t))
        expected = 2 + half_rate / variance * (x - mean)
        np.testing.assert_allclose(found["b"][:, 0], expected, atol=0.15)
        np.testing.assert_allclose(
            found["eta"][:, 0], t * (1 - t) / variance * (x - mean), atol=0.15
        )


def zero(x, t):
    return jnp.zeros_like(x)


KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ip.L_s(ip.Linear()), "no field 's' to learn"),
        (lambda: ip.L_v(ip.Mirror(ip.Brownian())), "no field 'v' to learn: it is zero"),
        (lambda: ip.Regression("linear"), "path must be a path"),
        (lambda: ip.Regression(ip.Linear(), "drift"), "'drift' is not a field"),
        (lambda: ip.L_b(ip.Linear(), weights=(1.0, 2.0)), "one number for each"),
        (lambda: ip.L_b(ip.Linear(), times=(-0.1, 1.0)), "two times in"),
        (lambda: ip.L_b(ip.OneSidedLinear(), coupling=couplings.ExactOT()), "leave out the coup"),
        (lambda: ip.L_b(ip.OneSidedLinear())(zero, BATCH, KEY), "has no x0 to be paired"),
        (lambda: ip.schrodinger_matching(0.0), "sigma=0.0"),
        (lambda: ip.L_b(ip.Linear())(zero, (BATCH.x0, BATCH.x1[:5]), KEY), "8000.* and x1 has 5"),
        (lambda: ip.L_b(ip.Linear())(zero, BATCH.x1[:, 0], KEY), "such as .batch, 1."),
        (lambda: ip.L_b(ip.Linear())(zero, "data", KEY), "one array of samples"),
        (lambda: ip.L_b(ip.Linear())(zero, (1, 2, 3, 4), KEY), "got 4 parts"),
        (lambda: ip.L_b(ip.Linear())(lambda x, t: x[0], BATCH, KEY), r"one array of shape"),
        (
            lambda: ip.L_b(ip.Linear(), coupling=couplings.ExactOT())(
                lambda x, t, c: x, ip.Pairs(*BATCH[:2], jnp.ones(3)), KEY
            ),
            "batch of 8000",
        ),
        (lambda: ip.straightness(ip.Fields(zero, ip.Linear()), BATCH.x1, KEY), "needs pairs"),
        (lambda: ip.straightness(ip.Fields(zero, ip.Linear()), BATCH, KEY, 0), "draws must be"),
    ],
)
def test_refused(call, message):
    with pytest.raises(rf.InputError, match=message):
        call()
