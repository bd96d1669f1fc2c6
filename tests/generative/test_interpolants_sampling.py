"""Transport, likelihoods, bounds and bridges, against closed forms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import kstest, norm

import rootflow as rf
from rootflow.generative import interpolants as ip
from rootflow.generative.exact import GaussianMixture, Interpolated

from .interpolant_problems import LINE_BASE, LINE_DATA, law_of, standard_error

N = 4000
KEY = jax.random.key(0)
NORMAL0, NORMAL1 = GaussianMixture([[-1.0]], 0.8), GaussianMixture([[1.5]], 0.5)
START0, START1 = NORMAL0.draw(jax.random.key(1), N), NORMAL1.draw(jax.random.key(2), N)
BROWNIAN = ip.Linear(ip.Brownian(1.0))
LAW = law_of(BROWNIAN, NORMAL1, NORMAL0)


def check_normal(x, mean, std):
    """Mean and variance within five standard errors, and 0.02 for the steps."""
    x = np.asarray(x)[:, 0]
    assert abs(x.mean() - mean) < 5 * std / np.sqrt(N) + 0.02
    assert abs(x.var() - std**2) < 5 * std**2 * np.sqrt(2 / N) + 0.02


@pytest.mark.parametrize("path", [ip.Linear(), BROWNIAN, ip.EncodingDecoding(ip.SineSquared())],
                         ids=["linear", "brownian", "encoding-decoding"])  # fmt: skip
def test_the_flow_is_the_exact_map(path):
    law = law_of(path, LINE_DATA, LINE_BASE)
    x = LINE_BASE.draw(KEY, 64)
    exact = law.flow_map(x, 0.0, 1.0)
    fields = law.fields("b") if not path.noisy else law.fields(("v", "s"))
    found = ip.transport(fields, x, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found, exact, atol=1e-6)
    back = ip.transport(fields, found, backward=True, rtol=1e-8, atol=1e-8, saveat=[0.4, 0.0])
    np.testing.assert_allclose(back[0], law.flow_map(exact, 1.0, 0.4), atol=1e-6)
    np.testing.assert_allclose(back[1], x, atol=1e-6)


@pytest.mark.parametrize(
    ("predicts", "epsilon"),
    [
        (("b", "s"), 1.0),
        (("b", "eta"), ip.Proportional(2.0)),
        (("v", "eta"), lambda t: 2.0 * t),
        (("v", "s"), 3.0),
    ],
)
def test_any_noise_keeps_the_law_in_both_directions(predicts, epsilon):
    fields = LAW.fields(predicts)
    there = ip.transport(fields, START0, epsilon=epsilon, key=KEY, steps=200)
    check_normal(there, 1.5, 0.5)
    # The same key draws other noise on the way back.
    back = ip.transport(fields, there, epsilon=epsilon, key=KEY, steps=200, backward=True)
    check_normal(back, -1.0, 0.8)


def test_one_sided_ends_are_reached_and_denoised():
    law = law_of(ip.OneSidedLinear(), NORMAL1)
    noise = jax.random.normal(KEY, (N, 1))
    fields = law.fields("eta")
    x = ip.transport(fields, noise, epsilon=ip.Proportional(2.0), key=KEY, steps=200)
    check_normal(x, 1.5, 0.5)
    # The mean of the data given x_t, from the exact field, at the end of a flow that stops early.
    early = ip.transport(fields, noise, begin=0.01, end=0.9)
    clean = ip.transport(fields, noise, begin=0.01, end=0.9, denoise=True)
    np.testing.assert_allclose(clean, law.at("eta1", early, 0.9), rtol=1e-9)


def test_mirror_moves_and_keeps_the_law():
    law = law_of(ip.Mirror(ip.Brownian(4.0)), NORMAL1)
    x = ip.transport(law.fields("s"), START1, epsilon=4.0, key=KEY, steps=300)
    check_normal(x, 1.5, 0.5)
    assert np.corrcoef(np.asarray(x)[:, 0], np.asarray(START1)[:, 0])[0, 1] < 0.7
    # Without noise, and with a symmetric gamma, everything returns to where it was.
    still = ip.transport(law.fields("s"), START1[:50], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(still, START1[:50], atol=1e-6)


def test_derivatives_precision_and_transformations():
    fields = law_of(ip.Linear(ip.Quadratic()), NORMAL1, NORMAL0).fields(("v", "s"))

    def end(x):
        return ip.transport(fields, x[None, None], rtol=1e-9, atol=1e-9)[0, 0]

    # x -> m1 + (x - m0) s1 / s0.
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(end)))(jnp.array([-1.8, 0.6]))
    np.testing.assert_allclose(value, [1.0, 2.5], rtol=1e-7)
    np.testing.assert_allclose(slope, 0.625, rtol=1e-6)
    forward = jax.jvp(end, (0.6,), (1.0,))[1]
    np.testing.assert_allclose(forward, 0.625, rtol=1e-6)
    single = ip.transport(fields, jnp.array([[0.6]], jnp.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, 2.5, rtol=5e-4)  # its tolerance is 1e-4 a step
    noisy = jax.jit(lambda x, key: ip.transport(fields, x, epsilon=1.0, key=key, steps=10))
    assert noisy(START0[:4].astype(jnp.float32), KEY).dtype == jnp.float32


def test_the_level_of_the_noise_has_a_derivative_where_it_vanishes():
    fields = law_of(ip.Linear(ip.Quadratic()), NORMAL1, NORMAL0).fields(("v", "s"))

    @jax.jit
    def mean(level):
        x = ip.transport(fields, START0[:4], epsilon=ip.Proportional(level), key=KEY, steps=10)
        return jnp.mean(x**2)

    h = 1e-6
    expected = (mean(1.0 + h) - mean(1.0 - h)) / (2 * h)
    np.testing.assert_allclose(jax.grad(mean)(1.0), expected, rtol=1e-6)


def test_parameters_of_the_path_have_derivatives():
    def spread(a):
        law = law_of(ip.Linear(ip.Brownian(a)), NORMAL1, NORMAL0)
        x = ip.transport(law.fields(), START0[:20], epsilon=a, key=KEY, steps=20)
        return jnp.mean(x**2)

    slope = (spread(0.8 + 1e-5) - spread(0.8 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.jit(jax.grad(spread))(0.8), slope, rtol=1e-7)


def test_conditions_reach_the_model():
    fields = ip.Fields(lambda x, t, shift: shift + 0 * x, ip.Linear())
    shift = jnp.array([[1.0], [2.0]])
    np.testing.assert_allclose(ip.transport(fields, jnp.zeros((2, 1)), shift), shift, rtol=1e-6)


def test_reflow_straightens():
    law = law_of(ip.Linear(), LINE_DATA, LINE_BASE)
    fields = law.fields("b")
    pairs = ip.Pairs(LINE_BASE.draw(KEY, 500), LINE_DATA.draw(jax.random.key(1), 500))
    curved = ip.straightness(fields, pairs, KEY)
    joined = ip.reflow(fields, pairs.x0, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(joined.x1, law.flow_map(pairs.x0, 0.0, 1.0), atol=1e-5)
    # On a line the second flow is straight: x moves at the speed of its quantile.
    t, x0 = 0.4, pairs.x0
    x1 = law.flow_map(x0, 0.0, 1.0)
    grid = jnp.sort(x0[:, 0]), jnp.sort(x1[:, 0])
    where = (1 - t) * grid[0] + t * grid[1]
    speed = jnp.interp(((1 - t) * x0 + t * x1)[:, 0], where, grid[1] - grid[0])
    np.testing.assert_allclose(speed, (x1 - x0)[:, 0], atol=1e-6)
    # And the first one is as curved as the law of total variance says, at each pair.
    energy = float(jnp.mean((pairs.x1 - pairs.x0) ** 2))
    assert 0 < float(curved) < energy


def prior(x):
    return LAW.log_density(x, 0.0)


POINTS = jnp.array([[0.6], [1.5], [2.4]])


def test_likelihood_of_the_flow():
    found = ip.log_likelihood(LAW.fields(), POINTS, prior=prior, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found, LAW.log_density(POINTS, 1.0), atol=1e-6)
    probed = ip.log_likelihood(
        LAW.fields(), POINTS, prior=prior, trace="hutchinson", key=KEY, rtol=1e-8, atol=1e-8
    )
    np.testing.assert_allclose(probed, found, atol=1e-6)  # exact in one dimension
    one = law_of(ip.OneSidedTrigonometric(), NORMAL1)
    np.testing.assert_allclose(
        ip.log_likelihood(one.fields("b"), POINTS), one.log_density(POINTS, 1.0), atol=1e-5
    )
    entropy = ip.cross_entropy(LAW.fields(), START1[:500], prior=prior)
    exact = -norm.logpdf(np.asarray(START1[:500, 0]), 1.5, 0.5)
    np.testing.assert_allclose(entropy.value, exact.mean(), atol=1e-5)
    np.testing.assert_allclose(entropy.error, standard_error(exact), rtol=1e-3)


def test_likelihoods_of_the_diffusion():
    options = dict(prior=prior, key=KEY, epsilon=0.5, paths=600, steps=150)
    exact = LAW.log_density(POINTS, 1.0)
    mean = ip.sde_log_likelihood(LAW.fields(), POINTS, **options)
    bound = ip.sde_log_likelihood(LAW.fields(), POINTS, form="entropy", **options)
    for found in (mean, bound):
        assert (np.abs(found.value - exact) < 5 * found.error + 0.02).all(), found
        assert (found.error < 0.15).all()
    assert (mean.effective > 20).all() and (mean.effective < 600).all()


def test_the_entropy_form_is_a_lower_bound():
    # A score with an error, and the drift of the model moved so that b_F is still exact: the
    # diffusion has the right law, so the Feynman-Kac form stays and the other falls below it by
    # E int eps |error|^2 dt, along paths of constant error 0.5.
    def model(x, t):
        return {"b": LAW.b(x, t) - 0.25, "s": LAW.score(x, t) + 0.5}

    fields = ip.Fields(model, BROWNIAN, ("b", "s"))
    options = dict(prior=prior, key=KEY, epsilon=0.5, paths=600, steps=150)
    exact = LAW.log_density(POINTS, 1.0)
    mean = ip.sde_log_likelihood(fields, POINTS, **options)
    bound = ip.sde_log_likelihood(fields, POINTS, form="entropy", **options)
    assert (np.abs(mean.value - exact) < 5 * mean.error + 0.02).all()
    gap = exact - bound.value
    np.testing.assert_allclose(gap, 0.125, atol=float(5 * bound.error.max() + 0.02))


def test_bounds():
    # Errors 0.5 sin 2x in b and 0.25 cos 2x in s, each of mean square about a half.
    law = law_of(BROWNIAN, LINE_DATA, LINE_BASE)
    np.testing.assert_allclose(ip.kl_bound(0.0625, 0.015625, 2.0), 0.0625)
    np.testing.assert_allclose(ip.best_epsilon(0.0625, 0.015625), 2.0)

    def model(x, t):
        return {
            "b": law.b(x, t) + 0.5 * jnp.sin(2 * x),
            "s": law.score(x, t) + 0.25 * jnp.cos(2 * x),
        }

    fields = ip.Fields(model, BROWNIAN, ("b", "s"))
    batch = ip.Pairs(LINE_BASE.draw(KEY, N), LINE_DATA.draw(jax.random.key(1), N))
    measure = eqx.filter_jit(
        lambda epsilon: ip.measured_bound(fields, law.fields(), epsilon, batch, KEY)
    )
    found = {epsilon: float(measure(epsilon).value) for epsilon in (1.0, 2.0, 4.0)}
    # E (0.5 sin 2x + eps 0.25 cos 2x)^2 / (4 eps), the sheet's .039, .0312, .039.
    for epsilon, expected in ((1.0, 0.039), (2.0, 0.03125), (4.0, 0.039)):
        np.testing.assert_allclose(found[epsilon], expected, rtol=0.03)


def energy(path, epsilon):
    """E int |b + eps s|^2 dt between normal laws, by quadrature."""

    def speed(t):
        c = path.coefficients(t)
        mean_rate = 2.5
        variance = (1 - t) ** 2 * 0.5 + t**2 * 2 + float(c.gamma) ** 2
        half_rate = -(1 - t) * 0.5 + t * 2 + float(c.product)
        return mean_rate**2 + (half_rate - epsilon) ** 2 / variance

    return quad(speed, 0.0, 1.0, epsabs=1e-10)[0]


@pytest.mark.parametrize(
    ("epsilon", "bridge", "plain"),
    [(0.1, 6.6200, 7.055), (0.5, 6.3007, 6.877), (2.0, 7.2783, 10.687)],
)
def test_gaussian_bridge(epsilon, bridge, plain):
    path = ip.gaussian_bridge(epsilon, 0.5, 2.0)
    a = float(path.gamma.a)
    least = energy(path, epsilon)
    # The least energy over all sizes of the noise; and numbers found independently.
    for change in (0.95, 1.05):
        assert energy(ip.Linear(ip.Brownian(change * a)), epsilon) > least
    np.testing.assert_allclose(least, bridge, rtol=3e-4)
    np.testing.assert_allclose(energy(ip.Linear(), epsilon), plain, rtol=3e-4)


def test_the_objective_of_the_bridge():
    epsilon = 0.5
    base, data = GaussianMixture([[-1.0]], 0.5**0.5), GaussianMixture([[1.5]], 2**0.5)
    bridge = ip.SchrodingerBridge(epsilon)
    path = ip.gaussian_bridge(epsilon, 0.5, 2.0)
    law = Interpolated(path, data, base)

    def drift(x, t):
        return law.b(x, t) + epsilon * law.score(x, t)

    def of_size(a, batch, key):
        # The drift is the best one for this path, held fixed: the envelope theorem.
        return bridge.path_loss(ip.Linear(ip.Brownian(a)), drift, batch, key)

    @jax.jit
    @jax.vmap
    def measured(key):
        keys = jax.random.split(key, 3)
        batch = ip.Pairs(base.draw(keys[0], 2000), data.draw(keys[1], 2000))
        spent, _ = ip.kinetic_energy(path, drift, batch, keys[2], draws=1)
        value = bridge.drift_loss(path, drift, batch, keys[2])
        return spent, value, jax.grad(of_size)(path.gamma.a, batch, keys[2])

    for found, expected in zip(measured(jax.random.split(KEY, 64)), (6.302, -3.151, 0.0)):
        assert abs(found.mean() - expected) < 5 * standard_error(found) + 2e-3


FIELDS = LAW.fields()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ip.transport(FIELDS, START0, epsilon=-1.0, key=KEY), "must not be negative.*-1"),
        (
            lambda: ip.transport(FIELDS, START0, epsilon=lambda t: t - 0.5, key=KEY),
            "negative.*-0.5",
        ),
        (lambda: ip.transport(FIELDS, START0, epsilon="much", key=KEY), "'much'"),
        (lambda: ip.Proportional(lambda t: t), "takes a number"),
        (lambda: ip.transport(FIELDS, START0, epsilon=1.0), "give key="),
        (lambda: ip.transport(FIELDS, START0, begin=-0.1), "begin=-0.1 must lie between 0"),
        (lambda: ip.transport(FIELDS, START0, end=1.5), "end=1.5 must lie between"),
        (lambda: ip.transport(FIELDS, START0, begin=0.5, end=0.2), "begin must be below end"),
        (
            lambda: ip.transport(FIELDS, START0, begin=0.2, end=0.5, backward=True),
            "end must be bel",
        ),
        (lambda: ip.transport(FIELDS, START0, steps=0), "steps must be a positive integer"),
        (lambda: ip.transport(FIELDS, START0, saveat=[0.5], denoise=True), "leave out saveat"),
        (lambda: ip.transport(FIELDS, START0, epsilon=1.0, key=KEY, rtol=1e-3), "leave out rtol"),
        (lambda: ip.transport(LAW, START0), "first argument must be Fields"),
        (lambda: ip.transport(FIELDS, "x"), "one array of samples"),
        (
            lambda: ip.transport(
                ip.Fields(lambda x, t: x, ip.Linear()), START0, epsilon=1.0, key=KEY
            ),
            "Noise needs the score",
        ),
        (lambda: ip.transport(ip.Fields(lambda x, t: x[1:], ip.Linear()), START0), "one array of"),
        (lambda: ip.log_likelihood(FIELDS, POINTS), "give prior="),
        (lambda: ip.log_likelihood(FIELDS, POINTS, prior=1.0), "prior must be a function"),
        (lambda: ip.log_likelihood(FIELDS, POINTS, prior=lambda x: x), "one log-density for each"),
        (lambda: ip.log_likelihood(FIELDS, POINTS, prior=prior, trace="full"), "'full'"),
        (
            lambda: ip.sde_log_likelihood(FIELDS, POINTS, key=KEY, epsilon=0.0, prior=prior),
            "no random paths",
        ),
        (
            lambda: ip.sde_log_likelihood(
                FIELDS, POINTS, key=KEY, epsilon=1.0, prior=prior, form="girsanov"
            ),
            "'girsanov'",
        ),
        (
            lambda: ip.sde_log_likelihood(
                FIELDS, POINTS, key=KEY, epsilon=1.0, prior=prior, paths=1
            ),
            "at least 2",
        ),
        (lambda: ip.cross_entropy(FIELDS, POINTS[:1], prior=prior), "at least two samples"),
        (lambda: ip.kl_bound(0.1, 0.1, 0.0), "must be positive"),
        (lambda: ip.best_epsilon(-0.1, 0.1), "not negative; got -0.1"),
        (lambda: ip.measured_bound(FIELDS, FIELDS, 0.0, (START0, START1), KEY), "has no bound"),
        (lambda: ip.gaussian_bridge(0.1, -1.0, 1.0), "variance0=-1.0"),
        (lambda: ip.SchrodingerBridge(0.0), "epsilon=0.0"),
        (
            lambda: ip.SchrodingerBridge(1.0).value(
                ip.Linear(), lambda x, t: x, (START0, START1), KEY
            ),
            "latent noise",
        ),
    ],
)
def test_refused(call, message):
    with pytest.raises(rf.InputError, match=message):
        call()


def test_samples_of_a_mixture_follow_its_distribution():
    law = law_of(BROWNIAN, LINE_DATA, LINE_BASE)
    x = ip.transport(law.fields(), LINE_BASE.draw(KEY, N), epsilon=2.0, key=KEY, steps=200)

    def below(z):
        return np.mean(
            [norm.cdf(z, m, s) for m, s in zip((-6, 0, 6), np.sqrt([0.5, 0.33, 0.5]))], 0
        )

    # At the one per cent level for so many samples, and 0.01 for the steps.
    assert kstest(np.asarray(x)[:, 0], below).statistic < 1.63 / np.sqrt(N) + 0.01


def test_a_transport_that_is_not_solved_is_named():
    fields = ip.Fields(lambda x, t: x, ip.Linear())
    message = r"transport by the flow from t = 0 to t = 1 was not solved"
    with pytest.raises(rf.SolveError, match=message):
        ip.transport(fields, jnp.ones((2, 1)), max_steps=1)


def test_reflow_keeps_conditions_and_makes_pairs():
    by = ip.Fields(lambda x, t, c: c[:, None] * jnp.ones_like(x), ip.Linear(), "b")
    classes = jnp.array([1.0, 2.0, 3.0])
    pairs = ip.reflow(by, jnp.zeros((3, 1)), classes)
    np.testing.assert_allclose(pairs.x1[:, 0], classes, rtol=1e-6)
    np.testing.assert_array_equal(pairs.condition, classes)
    np.testing.assert_allclose(ip.straightness(by, pairs, jax.random.key(0)), 0.0, atol=1e-9)
    for option in ({"backward": True}, {"saveat": jnp.array([0.5, 1.0])}):
        with pytest.raises(rf.InputError, match="leads to no pairs"):
            ip.reflow(by, jnp.zeros((3, 1)), classes, **option)
