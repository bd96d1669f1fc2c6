"""PFGM++: the noise law, the exact field, the loss, sampling and likelihood."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import rootflow as rf
from rootflow import generative as gen
from rootflow.generative import pfgm

INF = math.inf
POINTS, WEIGHTS = np.array([[-2.0], [0.0], [3.0]]), np.array([0.3, 0.2, 0.5])
RING = 2 * np.stack([np.cos(np.pi * np.arange(8) / 4), np.sin(np.pi * np.arange(8) / 4)], axis=1)
KEY = jax.random.key(3)


@pytest.mark.parametrize(("size", "d"), [(2, 1.0), (2, 64.0), (64, 16.0), (64, 2048.0)])
def test_the_radius_has_the_law_of_the_paper(size, d):
    """|w|^2 / N has the F law with N and D degrees of freedom; B = R^2 / (r^2 + R^2) the beta."""
    w = pfgm.PoissonNoise(d).draw(jax.random.key(1), (20_000, size))
    squares = np.sum(np.asarray(w) ** 2, axis=1)
    assert stats.kstest(squares / size, stats.f(size, d).cdf).pvalue > 0.01
    share = squares / (d + squares)
    assert stats.kstest(share, stats.beta(size / 2, d / 2).cdf).pvalue > 0.01


def test_the_direction_is_uniform_and_one_scale_serves_all_numbers_of_a_sample():
    w = np.asarray(pfgm.PoissonNoise(1.0).draw(KEY, (20_000, 2)))
    angle = np.arctan2(w[:, 1], w[:, 0])
    assert stats.kstest(angle, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 0.01


@pytest.mark.parametrize("d", [1.0, 2.0, 3.5, 128.0, 3_072_000.0, 1e12, INF])
def test_single_precision_keeps_the_law(d):
    """The moments of the paper: E|w|^2 = N D / (D - 2); the same draws as in double precision."""
    noise = pfgm.PoissonNoise(d)
    w = noise.draw(KEY, (4000, 64), jnp.float32)
    assert w.dtype == jnp.float32 and bool(jnp.isfinite(w).all())
    if d > 100:
        mean = float(jnp.mean(jnp.sum(w.astype(float) ** 2, axis=1)))
        factor = 1.0 if d == INF else d / (d - 2)
        np.testing.assert_allclose(mean, 64 * factor, rtol=0.01)
    single = noise.log_density(w[:50], 0.3)
    double = noise.log_density(w[:50].astype(float), 0.3)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, double, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("d", [1.0, 7.3, 63.0, 65.0, 5000.0])
def test_log_density_is_that_of_students_t(d):
    x = np.random.default_rng(0).normal(size=(5, 3)) * 4
    found = pfgm.PoissonNoise(d).log_density(x, 0.7)
    expected = stats.multivariate_t(np.zeros(3), 0.49 * np.eye(3), df=d).logpdf(x)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_radius_and_noise_level():
    noise = pfgm.PoissonNoise(2048.0)
    np.testing.assert_allclose(noise.radius(80.0), 80 * math.sqrt(2048))
    np.testing.assert_allclose(noise.sigma(noise.radius(0.3)), 0.3)


def direct(x, sigma, d):
    """D* from its definition, in the augmented coordinates."""
    r, size = sigma * math.sqrt(d), x.shape[1]
    weights = WEIGHTS if size == 1 else np.ones(8)
    points = POINTS if size == 1 else RING
    distance = ((x[:, None] - points) ** 2).sum(-1) + r**2
    share = weights * distance ** (-(size + d) / 2)
    return (share / share.sum(1, keepdims=True)) @ points


@pytest.mark.parametrize("d", [1.0, 6.0, 40.0])
def test_the_field_of_charges(d):
    x = np.linspace(-5, 6, 12)[:, None]
    field = pfgm.Charges(POINTS, pfgm.PoissonNoise(d), WEIGHTS)
    np.testing.assert_allclose(field.mean(x, 0.8), direct(x, 0.8, d), rtol=1e-10, atol=1e-12)
    radius = 0.8 * math.sqrt(d)
    np.testing.assert_allclose(field.slope(x, radius), (x - direct(x, 0.8, d)) / radius, rtol=1e-10)
    mixture = sum(w * stats.t(d, p, 0.8).pdf(x) for w, p in zip(WEIGHTS, POINTS[:, 0]))
    np.testing.assert_allclose(field.log_density(x, 0.8), np.log(mixture[:, 0]), rtol=1e-9)


def test_far_from_the_charges_and_in_other_frames():
    field = pfgm.Charges(RING, pfgm.PoissonNoise(5.0))
    x = np.array([[1.0, 0.3], [-0.4, 2.0]])
    np.testing.assert_allclose(field.mean(x, 1e6), np.zeros((2, 2)), atol=1e-5)
    turn, shift = np.array([[0.6, -0.8], [0.8, 0.6]]), np.array([3.0, -1.0])
    other = pfgm.Charges(RING @ turn.T + shift, pfgm.PoissonNoise(5.0))
    np.testing.assert_allclose(
        other.mean(x @ turn.T + shift, 0.6), field.mean(x, 0.6) @ turn.T + shift, rtol=1e-10
    )


def test_the_distance_to_diffusion_falls_like_one_over_d():
    """Slope -1; at D = 128 the root mean square is 5.42e-3, measured apart."""
    normal = RING[jax.random.randint(jax.random.key(5), (4000,), 0, 8)]
    x = normal + jax.random.normal(jax.random.key(6), (4000, 2))
    limit = pfgm.Charges(RING, pfgm.PoissonNoise(INF)).mean(x, 1.0)
    sizes = np.array([128.0, 256.0, 512.0, 1024.0, 2048.0])
    gaps = []
    for d in sizes:
        gap = pfgm.Charges(RING, pfgm.PoissonNoise(float(d))).mean(x, 1.0) - limit
        gaps.append(float(jnp.sqrt(jnp.mean(jnp.sum(gap**2, axis=1)))))
    slope = np.polyfit(np.log(sizes), np.log(gaps), 1)[0]
    assert abs(slope + 1) < 0.03
    np.testing.assert_allclose(gaps[0], 5.42e-3, rtol=0.05)


@pytest.mark.parametrize("d", [1.0, 3.0, 30.0, 1000.0])
def test_the_quadrature_for_mixtures(d):
    """Components without width are charges; the density of wide ones against an integral."""
    noise = pfgm.PoissonNoise(d)
    x = np.array([[-5.0], [-1.0], [0.2], [2.0], [30.0]])
    narrow = gen.exact.GaussianMixture(POINTS, 0.0, WEIGHTS)
    charges = pfgm.Charges(POINTS, noise, WEIGHTS)
    for sigma in (0.3, 4.0):
        found = pfgm.MixtureCharges(narrow, noise)
        np.testing.assert_allclose(found.mean(x, sigma), charges.mean(x, sigma), atol=1e-9)
        np.testing.assert_allclose(
            found.log_density(x, sigma), charges.log_density(x, sigma), rtol=1e-9
        )
    wide = pfgm.MixtureCharges(gen.exact.GaussianMixture(POINTS, 0.5, WEIGHTS), noise)
    u = np.linspace(-11, 11, 8001)  # standard deviations of the component
    near = x[:3]
    y = POINTS[:, 0, None] + 0.5 * u
    share = WEIGHTS[:, None] * stats.norm.pdf(u) * (u[1] - u[0])
    kernel = stats.t(d, scale=0.7).pdf(near[:, :, None] - y)
    density = (share * kernel).sum((1, 2))
    np.testing.assert_allclose(wide.log_density(near, 0.7), np.log(density), rtol=1e-7)
    mean = (share * kernel * y).sum((1, 2)) / density
    np.testing.assert_allclose(wide.mean(near, 0.7)[:, 0], mean, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("d", [2.0, 3_072_000.0])
def test_the_quadrature_in_single_precision(d):
    mixture = gen.exact.GaussianMixture(POINTS, 0.5)
    single = eqx.tree_at(
        lambda m: (m.means, m.variances, m.log_weights),
        mixture,
        replace_fn=lambda leaf: leaf.astype(jnp.float32),
    )
    x = jnp.array([[-1.0], [0.2], [4.0]])
    noise = pfgm.PoissonNoise(d)
    found, expected = (
        pfgm.MixtureCharges(data, noise).log_density(x.astype(data.means.dtype), 0.7)
        for data in (single, mixture)
    )
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_infinite_dimension_is_diffusion_to_round_off():
    mixture = gen.exact.GaussianMixture(POINTS, 0.4, WEIGHTS)
    noise = pfgm.PoissonNoise(INF)
    x = jnp.linspace(-4, 5, 7)[:, None]
    limit = pfgm.MixtureCharges(mixture, noise)
    np.testing.assert_array_equal(limit.mean(x, 0.6), mixture.mean(gen.EDM(), x, 0.6))
    # The same draw of normal numbers for every D; for huge D the scale is 1 to round-off.
    drawn = [pfgm.PoissonNoise(d).draw(KEY, (6, 2)) for d in (1e15, INF)]
    np.testing.assert_allclose(*drawn, rtol=1e-6)

    loss = pfgm.poisson_loss(noise)
    plain = gen.losses.DiffusionLoss(
        gen.EDM(), "data", gen.losses.EDMWeight(), gen.losses.LogNormal()
    )
    model = gen.EDMPreconditioned(lambda x, t: jnp.tanh(x) * jnp.cos(t)[:, None])
    key = jax.random.key(0)
    data = mixture.draw(key, 4000)
    mine, theirs = (eqx.filter_jit(f)(model, data, key) for f in (loss, plain))
    np.testing.assert_allclose(mine, theirs, rtol=0.1)  # other random numbers, the same law
    huge = pfgm.poisson_loss(pfgm.PoissonNoise(1e13))(model, data, key)
    np.testing.assert_allclose(huge, mine, rtol=1e-5)

    # The same start: the samples of the diffusion sampler, digit by digit.
    denoiser = limit.denoiser()
    start = 80.0 * noise.draw(jax.random.split(KEY)[0], (5, 1))
    expected = gen.sample(denoiser, start=start, sampler=gen.EDMSampler(), steps=17, denoise=True)
    found = pfgm.sample(denoiser, noise, shape=(5, 1), key=KEY)
    np.testing.assert_array_equal(found, expected)


def quantile(probability, sigma, d):
    """The quantiles of the perturbed charges, by bisection on SciPy's Student t."""
    cdf = lambda x: sum(w * stats.t(d, p, sigma).cdf(x) for w, p in zip(WEIGHTS, POINTS[:, 0]))
    low, high = np.full(len(probability), -1e4), np.full(len(probability), 1e4)
    for _ in range(90):
        middle = 0.5 * (low + high)
        left = cdf(middle) < probability
        low, high = np.where(left, middle, low), np.where(left, high, middle)
    return low


@pytest.mark.parametrize("d", [1.0, 3.0, 16.0])
def test_field_lines_on_a_line_keep_quantiles(d):
    """In one dimension the exact map is F_end^-1(F_begin(x))."""
    p = np.array([0.03, 0.2, 0.4, 0.6, 0.9, 0.97])
    start, expected = quantile(p, 20.0, d), quantile(p, 0.3, d)
    denoiser = pfgm.Charges(POINTS, pfgm.PoissonNoise(d), WEIGHTS).denoiser()
    flow = gen.ProbabilityFlow(rtol=1e-10, atol=1e-10)
    found = gen.sample(denoiser, start=start[:, None], sampler=flow, begin=20.0, end=0.3)
    np.testing.assert_allclose(found[:, 0], expected, atol=2e-8)


def test_one_charge_is_reached_exactly_by_heun_steps():
    """Field lines of one charge are straight: x(sigma) = y + sigma / sigma_0 (x_0 - y)."""
    noise = pfgm.PoissonNoise(7.0)
    denoiser = pfgm.Charges([[1.0, -2.0]], noise).denoiser()
    found = pfgm.sample(denoiser, noise, shape=(9, 2), key=KEY, denoise=False)
    start = noise.draw(jax.random.split(KEY)[0], (9, 2)) * 80
    y = jnp.array([1.0, -2.0])
    np.testing.assert_allclose(found, y + 0.002 / 80 * (start - y), rtol=1e-10)


def test_samples_and_the_radius_to_begin_at():
    noise = pfgm.PoissonNoise(3.0)
    field = pfgm.Charges(POINTS, noise, WEIGHTS)
    found = pfgm.sample(field.denoiser(), noise, shape=(2000, 1), key=KEY)
    shares = [float(jnp.mean(abs(found[:, 0] - p) < 0.1)) for p in POINTS[:, 0]]
    np.testing.assert_allclose(shares, WEIGHTS, atol=0.04)
    other = pfgm.sample(field.denoiser(), noise, shape=(2000, 1), key=KEY, radius=80 * math.sqrt(3))
    np.testing.assert_allclose(other, found, atol=1e-8)
    whole = pfgm.sample(
        field.denoiser(), noise, shape=(5, 1), key=KEY, full=True, radius=noise.radius(10.0)
    )
    np.testing.assert_allclose(whole.times[0], 10.0, rtol=1e-12)
    assert whole.evaluations == 35  # of the 18 levels
    by_ode = pfgm.sample(
        field.denoiser(), noise, shape=(4, 1), key=KEY, sampler=gen.ProbabilityFlow()
    )
    assert by_ode.shape == (4, 1)


def test_likelihood():
    """With the exact prior the flow gives the exact density; Student's t at 0 is close to it."""
    noise = pfgm.PoissonNoise(6.0)
    field = pfgm.Charges(POINTS, noise, WEIGHTS)
    x = jnp.array([[-2.3], [0.1], [1.5], [3.4]])
    expected = field.log_density(x, 0.3)
    options = dict(begin=200.0, end=0.3, rtol=1e-9, atol=1e-9)
    found = pfgm.log_likelihood(
        field.denoiser(), noise, x, prior=lambda x: field.log_density(x, 200.0), **options
    )
    np.testing.assert_allclose(found, expected, atol=2e-7)
    rough = pfgm.log_likelihood(field.denoiser(), noise, x, **options)
    assert 1e-5 < float(jnp.max(abs(rough - expected))) < 2e-2


def test_continuity_of_the_density():
    """d p / d sigma + div(p (x - D*) / sigma) = 0."""
    field = pfgm.Charges(RING, pfgm.PoissonNoise(4.0))
    density = lambda x, s: jnp.exp(field.log_density(x[None], s)[0])
    flux = lambda x, s: density(x, s) * (x - field.mean(x[None], s)[0]) / s
    for x in (jnp.array([0.5, 1.0]), jnp.array([-2.0, 0.4])):
        rate = jax.grad(density, 1)(x, 0.8)
        divergence = jnp.trace(jax.jacfwd(flux)(x, 0.8))
        np.testing.assert_allclose(rate, -divergence, rtol=1e-9)


LOSS = pfgm.poisson_loss(pfgm.PoissonNoise(6.0), begin=4.0, end=0.4)


class Tilted(eqx.Module):
    """The best denoiser of the charges, made wrong by a factor and an offset."""

    factor: jax.Array
    offset: jax.Array
    law: pfgm.PoissonNoise = pfgm.PoissonNoise(6.0)

    def __call__(self, x, sigma):
        field = pfgm.Charges(POINTS, self.law, WEIGHTS, together=4096)
        return self.factor * field.mean(x, sigma) + self.offset


@pytest.mark.parametrize("stable", [False, True])
def test_the_exact_denoiser_is_the_minimum_of_the_loss(stable):
    loss = eqx.tree_at(lambda l: l.weight, LOSS, "data")
    loss = pfgm.PoissonLoss(
        gen.EDM(), "data", "data", loss.times, 4.0, 0.4, law=LOSS.law, stable=stable
    )
    data = jnp.asarray(np.repeat(POINTS, [300, 200, 500], axis=0))
    value = eqx.filter_jit(eqx.filter_value_and_grad(lambda m, key: loss(m, data, key)))
    keys = jax.random.split(KEY, 20)
    model = Tilted(jnp.asarray(1.0), jnp.asarray(0.0))
    slopes = [value(model, key)[1] for key in keys]
    for name in ("factor", "offset"):
        found = np.array([float(getattr(s, name)) for s in slopes])
        assert abs(found.mean()) < 3.5 * found.std() / math.sqrt(len(found)) + 1e-12
    # A wrong noise law is seen: the same test for the denoiser of another D.
    other = eqx.tree_at(lambda m: m.law, model, pfgm.PoissonNoise(1.0))
    best = np.mean([float(value(model, key)[0]) for key in keys])
    assert np.mean([float(value(other, key)[0]) for key in keys]) > best
    if stable:
        # The batch is all of the data: its posterior mean is the exact one, and no error is left.
        assert best < 1e-20


def test_the_field_form_is_the_denoiser_form():
    """f = (x - D) / sigma: the same loss but for the weight 1 / sigma^2."""
    data = jnp.asarray(POINTS)
    field = pfgm.Charges(POINTS, pfgm.PoissonNoise(3.0))
    as_data = pfgm.poisson_loss(field.noise, weight="noise", begin=5.0, end=0.1)
    as_field = pfgm.poisson_loss(field.noise, predicts="noise", weight="noise", begin=5.0, end=0.1)
    slope = lambda x, s: (x - field.mean(x, s)) / s[:, None]
    np.testing.assert_allclose(
        as_data(field.mean, data, KEY), as_field(slope, data, KEY), rtol=1e-10
    )


def test_conditions_of_the_loss():
    """They reach the model with their samples; some are dropped where that is asked for."""
    data, labels = jnp.asarray(POINTS), jnp.arange(3)
    offset = lambda x, s, c: POINTS[c] + 1.0  # the data of the label, off by one
    plain = pfgm.poisson_loss(pfgm.PoissonNoise(4.0), weight="data")
    np.testing.assert_allclose(plain(offset, (data, labels), KEY), 1.0, rtol=1e-12)
    dropped = pfgm.poisson_loss(
        pfgm.PoissonNoise(4.0), weight="data", dropout=0.5, unconditional=jnp.asarray(-1)
    )
    seen = []
    model = lambda x, s, c: seen.append(c) or x
    dropped(model, (jnp.zeros((400, 1)), jnp.full(400, 7)), KEY)
    assert set(np.unique(seen[0])) == {-1, 7} and 150 < int(jnp.sum(seen[0] == -1)) < 250


def test_the_path_of_a_variance_preserving_schedule():
    """x / alpha has the noise level sigma / alpha: the same denoiser in other units."""
    noise = pfgm.PoissonNoise(5.0)
    field = pfgm.Charges(POINTS, noise, WEIGHTS)
    vp = gen.VPLinear()

    def model(x, t):
        return field.mean(x / vp.alpha(t), vp.sigma(t) / vp.alpha(t))

    denoiser = gen.Denoiser(model, vp, "data")
    rho = vp.sigma(1.0) / vp.alpha(1.0)
    options = dict(shape=(6, 1), key=KEY, steps=60, grid="log_snr", denoise=False)
    end = float(vp.sigma(1e-3) / vp.alpha(1e-3))
    there = pfgm.sample(denoiser, noise, **options)
    here = pfgm.sample(field.denoiser(), noise, begin=float(rho), end=end, **options)
    np.testing.assert_allclose(there / vp.alpha(1e-3), here, rtol=1e-8, atol=1e-8)


def test_preconditioning_for_tails():
    network = lambda x, t: jnp.sin(x) + t[:, None]
    x = 3.0 * jax.random.normal(KEY, (5, 2))
    plain = gen.EDMPreconditioned(network)(x, jnp.full(5, 0.7))
    for d in (INF, 1e14):
        tail = pfgm.TailPreconditioned(network, noise=pfgm.PoissonNoise(d))
        np.testing.assert_allclose(tail(x, 0.7), plain, rtol=1e-10)
    # With D = 1 there is no variance; what the network sees stays bounded all the same.
    seen = []
    tail = pfgm.TailPreconditioned(lambda x, t: seen.append(x) or x, noise=pfgm.PoissonNoise(1.0))
    tail(1e8 * x, 0.7)
    assert float(pfgm.poisson_loss(tail.noise)(tail, jnp.asarray(x), KEY)) > 0
    assert float(jnp.max(jnp.linalg.norm(jnp.concatenate(seen), axis=1))) <= math.sqrt(3.0) + 1e-9
    # The level it shows is unbiased where it should be: E[1 / shown^2 | x] for a charge at 0.
    noise = pfgm.PoissonNoise(4.0)
    x = jnp.array([[1.5, -0.2]])
    scales = stats.gamma(2.0 + 1.0, scale=1 / (2.0 + float(jnp.sum(x**2)) / 2))  # s given x
    tail = pfgm.TailPreconditioned(network, noise=noise)
    np.testing.assert_allclose(1 / tail.shown(x, 1.0) ** 2, scales.mean(), rtol=1e-12)


def test_jolted_steps():
    """Without a jolt the deterministic sampler; with one, its noise before the last step too."""
    noise = pfgm.PoissonNoise(3.0)
    denoiser = pfgm.Charges([[0.0, 0.0]], noise).denoiser()
    options = dict(shape=(4000, 2), key=KEY, steps=3)
    calm = pfgm.sample(denoiser, noise, denoise=False, **options)
    still = pfgm.sample(denoiser, noise, sampler=pfgm.Jolted(), denoise=False, **options)
    np.testing.assert_allclose(still, calm, rtol=1e-12)
    # Towards one charge a jolt of standard deviation 0.5 sigma_i shrinks like sigma: at the end
    # each of the three adds the same variance.
    found = pfgm.sample(denoiser, noise, sampler=pfgm.Jolted(jolt=0.5), denoise=False, **options)
    spread = float(jnp.std(found - calm))
    np.testing.assert_allclose(spread, 0.002 * 0.5 * math.sqrt(3), rtol=0.03)


def test_so_many_evaluations():
    """35 are those of the paper's 17 Heun steps and the last one to clean data."""
    noise = pfgm.PoissonNoise(2.0)
    denoiser = pfgm.Charges(POINTS, noise).denoiser()
    options = dict(shape=(3, 1), key=KEY, full=True)
    found = pfgm.sample(denoiser, noise, evaluations=35, **options)
    assert found.evaluations == 35
    np.testing.assert_array_equal(found.value, pfgm.sample(denoiser, noise, **options).value)


def test_transforms_of_jax():
    noise = pfgm.PoissonNoise(3.0)
    field = pfgm.Charges(POINTS, noise, WEIGHTS)
    x = jnp.array([[0.3], [1.0]])
    eager = field.mean(x, 0.5)
    np.testing.assert_allclose(jax.jit(lambda x, s: field.mean(x, s))(x, 0.5), eager, rtol=1e-12)
    each = jax.vmap(lambda x, s: field.mean(x[None], s)[0])(x, jnp.array([0.5, 0.5]))
    np.testing.assert_allclose(each, eager, rtol=1e-12)
    # The dimension itself can be traced and differentiated.
    gap = lambda d: jnp.sum(pfgm.Charges(POINTS, pfgm.PoissonNoise(d)).mean(x, 0.5))
    step = 1e-5
    slope = (gap(3.0 + step) - gap(3.0 - step)) / (2 * step)
    np.testing.assert_allclose(jax.jit(jax.grad(gap))(3.0), slope, rtol=1e-6)
    draw = lambda d: pfgm.PoissonNoise(d).draw(KEY, (3, 2))
    assert bool(jnp.isfinite(jax.jit(jax.jacfwd(draw))(3.0)).all())


@pytest.mark.parametrize("d", [0.5, 0, -3.0, math.nan, "2", True, 1j])
def test_a_dimension_below_one_is_refused(d):
    with pytest.raises(rf.InputError, match=r"dimension=.*at least 1"):
        pfgm.PoissonNoise(d)


def test_errors():
    noise = pfgm.PoissonNoise(2.0)
    denoiser = pfgm.Charges(POINTS, noise).denoiser()
    options = dict(shape=(3, 1), key=KEY)
    with pytest.raises(rf.InputError, match="infinite: use sigma"):
        pfgm.PoissonNoise(INF).radius(1.0)
    with pytest.raises(rf.InputError, match="batch axis"):
        noise.draw(KEY, ())
    with pytest.raises(rf.InputError, match="EDMSampler adds normal noise"):
        pfgm.sample(denoiser, noise, sampler=gen.EDMSampler(churn=5.0), **options)
    with pytest.raises(rf.InputError, match="ReverseSDE adds normal noise"):
        pfgm.sample(denoiser, noise, sampler=gen.ReverseSDE(), **options)
    with pytest.raises(rf.InputError, match="grid of times says how many"):
        pfgm.sample(denoiser, noise, evaluations=5, grid=[2.0, 1.0], **options)
    with pytest.raises(rf.InputError, match="steps=3 and evaluations=5"):
        pfgm.sample(denoiser, noise, evaluations=5, steps=3, **options)
    with pytest.raises(RuntimeError, match="dimension must be at least 1"):
        jax.block_until_ready(jax.jit(lambda d: pfgm.PoissonNoise(d).draw(KEY, (3, 1)))(0.5))
    with pytest.raises(rf.InputError, match="two ways"):
        pfgm.sample(denoiser, noise, radius=3.0, begin=2.0, **options)
    with pytest.raises(rf.InputError, match="must be a Denoiser"):
        pfgm.sample(lambda x, t: x, noise, **options)
    with pytest.raises(rf.InputError, match="an instance"):
        pfgm.sample(denoiser, noise, sampler=gen.DDIM, **options)
    with pytest.raises(rf.InputError, match=r"points must have shape \(k, ...\)"):
        pfgm.Charges([1.0, 2.0], noise)
    with pytest.raises(rf.InputError, match="noise must be PoissonNoise"):
        pfgm.Charges(POINTS, 2.0)
    with pytest.raises(rf.InputError, match="noise must be PoissonNoise"):
        pfgm.TailPreconditioned(lambda x, t: x, noise=2.0)
    with pytest.raises(rf.InputError, match="weights must be positive"):
        pfgm.Charges(POINTS, noise, [1.0, 0.0, 1.0])
    with pytest.raises(rf.InputError, match="one a point"):
        pfgm.Charges(POINTS, noise, [1.0, 1.0])
    with pytest.raises(rf.InputError, match="together=0"):
        pfgm.Charges(POINTS, noise, together=0)
    with pytest.raises(rf.InputError, match=r"samples like the points, \(1,\)"):
        pfgm.Charges(POINTS, noise).mean(jnp.zeros((2, 3)), 1.0)
    mixture = gen.exact.GaussianMixture(POINTS, 0.4)
    with pytest.raises(rf.InputError, match="data must be a GaussianMixture"):
        pfgm.MixtureCharges(POINTS, noise)
    with pytest.raises(rf.InputError, match="at least 8"):
        pfgm.MixtureCharges(mixture, noise, nodes=3)
    with pytest.raises(rf.InputError, match=r"x must have shape \(batch, 1\)"):
        pfgm.MixtureCharges(mixture, noise).mean(jnp.zeros((2, 3)), 1.0)
    with pytest.raises(rf.InputError, match="jolt=-1"):
        pfgm.Jolted(jolt=-1.0)
    with pytest.raises(rf.InputError, match="leave churn out"):
        pfgm.Jolted(churn=1.0)
    with pytest.raises(rf.InputError, match="law must be PoissonNoise"):
        pfgm.poisson_loss(2.0)
    with pytest.raises(rf.InputError, match="averages over the batch"):
        pfgm.poisson_loss(noise, predicts="score", weight="score", stable=True)
    with pytest.raises(rf.InputError, match="A batch must be data"):
        pfgm.poisson_loss(noise)(lambda x, t: x, jnp.arange(3), KEY)
    with pytest.raises(rf.InputError, match=r"one array of shape \(3, 1\)"):
        pfgm.poisson_loss(noise, weight="data")(lambda x, t: x[:, 0], jnp.asarray(POINTS), KEY)


def test_the_mean_over_a_batch_knows_no_conditions():
    data = jnp.ones((4, 1))
    loss = pfgm.PoissonLoss(gen.EDM(), "data", law=pfgm.PoissonNoise(64.0), stable=True)
    assert np.isfinite(loss(lambda x, t: x, data, jax.random.key(0)))
    with pytest.raises(rf.InputError, match="whatever their condition"):
        loss(lambda x, t, c: x, (data, jnp.zeros(4, int)), jax.random.key(0))
