"""Representations and generators: what they keep, what they draw, and what they refuse."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rootflow as rf
from rootflow import uncertainty as uq
from rootflow.uncertainty.wasserstein_gan import CriticLoss, spectral_norms

TIMES, NODES = 17, 3
T = np.linspace(0, 1, TIMES)


def traces_of(a, b):
    """Two modes of rather different size, from rest."""
    first = np.sin(np.pi * T / 2) ** 2
    second = 0.2 * np.sin(2 * np.pi * T) ** 2
    out = np.zeros((len(a), TIMES, NODES, 2))
    out[..., 0] = (a[:, None] * first)[:, :, None] * np.array([1.0, 1.1, 1.2])
    out[..., 1] = (b[:, None] * second)[:, :, None]
    return out


@pytest.fixture(scope="module")
def two_humps():
    rng = np.random.default_rng(0)
    side = rng.choice([-1.0, 1.0], 600)
    a = side * 1.5 + 0.2 * rng.normal(size=600)
    return traces_of(a, side * a + 0.2 * rng.normal(size=600)), a


@pytest.fixture(scope="module")
def normal():
    rng = np.random.default_rng(1)
    a, b = rng.multivariate_normal([0.3, -0.1], [[1.0, 0.6], [0.6, 0.8]], 800).T
    return traces_of(a, b)


def test_pod_keeps_what_is_there_and_scales_all_modes_alike(normal):
    pod = uq.POD(2).fit(normal)
    codes = pod.encode(normal)
    np.testing.assert_allclose(pod.decode(codes), normal, atol=1e-12)
    np.testing.assert_allclose(codes[:, 0].std(ddof=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(codes[:, 1].std(ddof=1), pod.spectrum[1] / pod.spectrum[0])
    assert pod.captured == pytest.approx(1.0, abs=1e-12)
    flat = normal.reshape(len(normal), -1)
    values = np.linalg.eigvalsh(np.cov(flat.T))[::-1][:2]
    np.testing.assert_allclose(pod.spectrum**2, values, rtol=1e-10)
    one = uq.POD(1).fit(normal)
    np.testing.assert_allclose(one.captured, values[0] / values.sum(), rtol=1e-10)


def test_large_sets_are_decomposed_as_small_ones(normal):
    rng = np.random.default_rng(3)
    many = np.einsum("ij,jtnc->itnc", rng.normal(size=(800, 8)), rng.normal(size=(8, 33, 5, 2)))
    many = many * np.linspace(0, 1, 33)[:, None, None]
    pod = uq.POD(8).fit(many)  # by Lanczos' iteration
    values = np.linalg.svd((many - many.mean(0)).reshape(800, -1), compute_uv=False)[:8]
    np.testing.assert_allclose(pod.spectrum, values / np.sqrt(799), rtol=1e-9)
    np.testing.assert_allclose(pod.decode(pod.encode(many)), many, atol=1e-9)


def test_thinned_time_and_whole_fields(normal):
    pod = uq.POD(2, every=2).fit(normal)
    np.testing.assert_allclose(pod.decode(pod.encode(normal[:5])), normal[:5], atol=2e-2)
    field = uq.WholeField(2, interface=2).fit(normal)
    np.testing.assert_allclose(field.decode(field.encode(normal)), normal[:, :, :2], atol=1e-12)
    image = uq.Image().fit(normal)
    assert image.encode(normal).shape == (800, 2, TIMES, NODES) == (800, *image.size)
    np.testing.assert_allclose(image.decode(image.encode(normal)), normal, atol=1e-12)


def quantity(traces):
    return np.abs(traces).max(axis=(1, 2, 3))


def test_linear_generators_have_their_moments(normal):
    flat = normal.reshape(len(normal), -1)
    for recipe in (uq.GaussianPCA(2), uq.GaussianMixture(2, components=1), uq.Bootstrap(2)):
        drawn = recipe.fit(normal).sample(jax.random.key(1), 4000).reshape(4000, -1)
        np.testing.assert_allclose(drawn.mean(0), flat.mean(0), atol=0.06)
        np.testing.assert_allclose(np.cov(drawn.T), np.cov(flat.T), atol=0.1)
    marginal = uq.MarginalPCA(2).fit(normal)
    codes = np.asarray(marginal.sample_codes(jax.random.key(2), 4000))
    for i in range(2):
        assert uq.wasserstein(codes[:, i], marginal.codes[:, i]) < 0.05
    assert abs(np.corrcoef(codes.T)[0, 1]) < 0.05


def test_only_what_is_not_linear_tells_two_humps(two_humps):
    true, _ = two_humps
    truth = quantity(true)
    distance = {}
    for recipe in (uq.GaussianPCA(2), uq.Bootstrap(2), uq.GaussianMixture(2, components=2)):
        drawn = recipe.fit(true).sample(jax.random.key(1), 2000)
        distance[type(recipe).__name__] = uq.wasserstein(quantity(drawn), truth) / truth.std()
    assert distance["GaussianPCA"] > 1.0
    assert distance["Bootstrap"] < 0.1 and distance["GaussianMixture"] < 0.15


TRAINED = [
    (uq.WassersteinGAN(2, width=32, depth=2, ema=0.99), {"steps": 1000, "rate": 1e-3}),
    (uq.FlowMatching(2, width=64, depth=2, ema=0.99), {"steps": 800}),
    (uq.SlicedWasserstein(2, width=32, depth=2, ema=0.99), {"steps": 600}),
]


@pytest.mark.parametrize(("recipe", "options"), TRAINED, ids=lambda x: type(x).__name__)
def test_networks_learn_what_is_not_linear(two_humps, recipe, options):
    true, _ = two_humps
    fitted = recipe.fit(true, key=jax.random.key(4), progress=False, **options)
    drawn = fitted.sample(jax.random.key(1), 2000)
    assert drawn.shape == (2000, TIMES, NODES, 2)
    linear = uq.GaussianPCA(2).fit(true).sample_codes(jax.random.key(1), 2000)
    far, near = (
        uq.energy_distance(codes, fitted.codes)
        for codes in (linear, fitted.sample_codes(jax.random.key(1), 2000))
    )
    assert near < 0.5 * far
    assert uq.memorisation(fitted.sample_codes(jax.random.key(2), 300), fitted.codes) > 0.3
    again = fitted.sample(jax.random.key(1), 2000)
    np.testing.assert_array_equal(again, drawn)


def test_conditions_are_followed(two_humps):
    true, a = two_humps
    wanted = np.array([1.5, -1.5])
    linear = uq.GaussianPCA(2).fit(true, conditions=a)
    for value in wanted:
        drawn = linear.sample(jax.random.key(0), 500, conditions=np.array([value]))
        # The largest displacement along x is 1.2 a.
        np.testing.assert_allclose(drawn[:, -1, 2, 0].mean(), 1.2 * value, atol=0.05)
    options = {"key": jax.random.key(3), "conditions": a, "progress": False}
    for recipe, steps in (
        (uq.WassersteinGAN(2, width=64, depth=2, ema=0.99), {"steps": 800, "rate": 1e-3}),
        (uq.FlowMatching(2, width=64, depth=2, ema=0.99), {"steps": 600}),
    ):
        fitted = recipe.fit(true, **options, **steps)
        high, low = (
            fitted.sample(jax.random.key(0), 300, conditions=np.array([v]))[:, -1, 2, 0].mean()
            for v in wanted
        )
        assert abs(high - 1.8) < 0.45 and abs(low + 1.8) < 0.45


def test_images_are_generated_at_rest(normal):
    recipe = uq.WassersteinGAN(representation=uq.Image(), width=16, latent=4)
    fitted = recipe.fit(
        normal, key=jax.random.key(0), steps=2, batch_size=8, critic_steps=1, progress=False
    )
    drawn = fitted.sample(jax.random.key(1), 5)
    assert drawn.shape == (5, TIMES, NODES, 2) and np.all(drawn[:, 0] == 0)
    assert np.all(np.isfinite(drawn)) and drawn.std() > 0


def test_a_converged_critic_returns_the_distance_of_two_normal_laws():
    # W1 of equal laws that are apart by D is D. With a penalty of weight w the best critic has
    # slope s where D s - w (s - 1)^2 is largest, at 1 + D / 2 w.
    recipe = uq.WassersteinGAN(1, width=16, depth=1)
    _, critic = recipe.players((1,), 0, jax.random.key(0))

    class Shift(eqx.Module):
        by: jax.Array

        def __call__(self, z, told):
            return z + jax.lax.stop_gradient(self.by)

    loss = CriticLoss(1, 10.0, "two")
    real = jnp.asarray(np.random.default_rng(0).normal(size=(2000, 1)), jnp.float32)
    generator = Shift(jnp.full((1,), 2.0, jnp.float32))
    done = rf.train(
        lambda c, batch, key: loss(generator, c, (batch, None), key), critic, real,
        key=jax.random.key(1), steps=500, batch_size=256, optimizer=optax.adam(3e-3),
        progress=False,
    )  # fmt: skip
    np.testing.assert_allclose(done.history["distance"][-1], 2.0 * 1.1, atol=0.08)


def test_penalty_is_of_each_sample_by_itself():
    loss = CriticLoss(1, 1.0, "two")
    one_sided = CriticLoss(1, 1.0, "one")
    real = jnp.arange(8.0, dtype=jnp.float32)[:, None]
    for slope in (0.5, 3.0):

        def critic(x, told, slope=slope):
            return slope * x

        (cost, seen), (half, _) = (
            each(lambda z, told: z, critic, (real, None), jax.random.key(0))
            for each in (loss, one_sided)
        )
        np.testing.assert_allclose(cost, -seen["distance"] + (slope - 1) ** 2, rtol=1e-5)
        np.testing.assert_allclose(
            half + seen["distance"], max(slope - 1, 0) ** 2, rtol=1e-5, atol=1e-5
        )


def test_spectral_norms_are_at_most_one():
    critic = uq.WassersteinGAN(4, width=8).players((4,), 0, jax.random.key(0))[1]
    big = jax.tree.map(lambda w: 5 * w if hasattr(w, "ndim") else w, critic)
    for w in jax.tree.leaves(spectral_norms(big)):
        if getattr(w, "ndim", 0) == 2:
            assert np.linalg.norm(w, 2) < 1 + 1e-5


def test_extrapolation_is_flagged(normal):
    fitted = uq.Bootstrap(2).fit(normal)
    assert not fitted.extrapolates(normal).any()
    assert fitted.extrapolates(3 * normal[[np.argmax(quantity(normal))]]).all()
    smooth = uq.Bootstrap(2, bandwidth=0.1).fit(normal)
    assert uq.memorisation(fitted.sample_codes(jax.random.key(0), 200), fitted.codes) == 0
    assert uq.memorisation(smooth.sample_codes(jax.random.key(0), 200), smooth.codes) > 0.5


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda x: uq.POD(0), "rank must be a whole number of at least 1; got 0"),
        (lambda x: uq.GaussianPCA(16).fit(x[:10]), "rank=16 needs more than 16 samples.*got 10"),
        (lambda x: uq.GaussianPCA(2).fit(x[0]), r"\(samples, times, nodes, components\); got"),
        (lambda x: uq.GaussianPCA(2).fit(x + 0.5), "must start at rest.*subtract"),
        (lambda x: uq.GaussianPCA(2).fit(np.where(x > 1, np.nan, x)), "must be finite; got nan"),
        (lambda x: uq.GaussianPCA(2).fit(x.astype(complex)), "real numbers; got complex"),
        (lambda x: uq.GaussianPCA(2).fit(0 * x), "all the same"),
        (lambda x: uq.Image().fit(0 * x), "all zero"),
        (lambda x: uq.Bootstrap(2).fit(x, conditions=x[:, 1, 1, 1]), "takes no conditions"),
        (lambda x: uq.GaussianPCA(2).fit(x, conditions=np.ones(3)), r"conditions must have shape"),
        (lambda x: uq.GaussianPCA(2).fit(x, conditions=np.ones(len(x))), "the same for all"),
        (lambda x: uq.GaussianPCA(2).fit(x).sample(jax.random.key(0), 0), "count must be"),
        (
            lambda x: uq.GaussianPCA(2).fit(x).sample(jax.random.key(0), 2, conditions=1.0),
            "fitted without conditions",
        ),
        (
            lambda x: uq.GaussianPCA(2).fit(x, conditions=x[:, 5, 0, 0]).sample(
                jax.random.key(0), 2
            ),
            r"give conditions of shape \(2, 1\)",
        ),
        (
            lambda x: uq.GaussianPCA(2).fit(x, conditions=x[:, 5, 0, 0]).sample(
                jax.random.key(0), 2, conditions=np.ones((3, 1))
            ),
            r"got \(3, 1\)",
        ),
        (lambda x: uq.POD(2, every=3).fit(x), "every=3 must divide the 16 steps"),
        (lambda x: uq.WholeField(2, interface=9).fit(x), "interface=9 nodes, but the field has 3"),
        (lambda x: uq.GaussianPCA(representation=uq.Image()).fit(x), "works on coefficients"),
        (lambda x: uq.GaussianMixture(2, components=9).fit(x[:10]), "needs at least 18 samples"),
        (lambda x: uq.Bootstrap(2, bandwidth=-1.0), "bandwidth must not be negative; got -1.0"),
        (lambda x: uq.WassersteinGAN(2, sides="both"), "sides must be one of 'two', 'one'"),
        (lambda x: uq.WassersteinGAN(2, width=0), "width must be a whole number"),
        (lambda x: uq.POD(2).fit(x).encode(x[:, :5]), r"must have shape \(samples, 17, 3, 2\)"),
    ],
)  # fmt: skip
def test_messages(normal, act, message):
    with pytest.raises(rf.InputError, match=message):
        act(normal)


def test_sensitivities_of_a_conditional_generator(two_humps):
    true, a = two_humps
    told = uq.GaussianPCA(2).fit(true, conditions=a)
    keys = jax.random.split(jax.random.key(1), 3)
    first, again = (told.sample_each(keys, conditions=np.array([v])) for v in (0.5, 0.5))
    np.testing.assert_array_equal(first, again)

    def end(traces):
        return traces[:, -1, 2, 0]

    # Along x a trace is a times a mode, and a little else: variance 1.2^2 of 1, and the noise.
    found = uq.sensitivities(
        told, end, {"a": lambda key, n: jax.random.normal(key, (n,))}, key=jax.random.key(2),
        count=2000,
    )  # fmt: skip
    assert found["a"].first.value > 0.9 and found["noise"].total.value < 0.1
    with pytest.raises(rf.InputError, match="fitted with 1 conditions"):
        uq.sensitivities(told, end, {}, key=jax.random.key(0), count=8)
