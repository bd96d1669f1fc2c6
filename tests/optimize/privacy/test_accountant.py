"""The account against closed forms, decimal arithmetic and an independent package."""

import math
from decimal import Decimal, getcontext

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import gammaln, logsumexp
from scipy.stats import norm

from rootflow.errors import InputError
from rootflow.optimize import privacy as p
from rootflow.optimize.privacy import gaussian_dp, loss_distribution

DELTA = 1e-5


def decimal_normal(x: Decimal) -> Decimal:
    """Phi(x) from the series of the error function, in 80 digits."""
    getcontext().prec = 80
    term = total = x
    n = 0
    while abs(term) > Decimal(10) ** -75:
        n += 1
        term = -term * x * x / (2 * n)
        total += term / (2 * n + 1)
    # pi by Machin's formula.
    arctan = lambda k: sum(
        (-1) ** i * Decimal(1) / ((2 * i + 1) * Decimal(k) ** (2 * i + 1)) for i in range(60)
    )
    pi = 4 * (4 * arctan(5) - arctan(239))
    return Decimal("0.5") + total / (2 * pi).sqrt()


def decimal_delta(mu: float, epsilon: float) -> Decimal:
    m, e = Decimal(mu), Decimal(epsilon)
    return decimal_normal(m / 2 - e / m) - e.exp() * decimal_normal(-m / 2 - e / m)


@pytest.mark.parametrize(
    "mu, epsilon", [(0.1, 0.3), (1.0, 1.0), (0.7, 3.0), (2.0, 0.0), (0.05, 0.4), (3.0, 20.0)]
)
def test_delta_is_that_of_decimal_arithmetic(mu, epsilon):
    exact = decimal_delta(mu, epsilon)
    np.testing.assert_allclose(gaussian_dp.delta_of(mu, epsilon), float(exact), rtol=1e-11)
    log = gaussian_dp.log_delta_of(mu, epsilon)
    np.testing.assert_allclose(log, float(exact.ln()), rtol=1e-12, atol=1e-11)
    assert abs(gaussian_dp.epsilon_of(mu, float(exact)) - epsilon) < 1e-9


def test_a_large_mu_and_a_tiny_delta_are_not_lost():
    # Phi(5) - e^0 Phi(-5) at mu = 10; and a delta far below the smallest number.
    np.testing.assert_allclose(gaussian_dp.delta_of(10.0, 0.0), 1 - 2 * norm.cdf(-5), rtol=1e-14)
    assert gaussian_dp.delta_of(30.0, 1.0) == pytest.approx(1.0)
    tail = gaussian_dp.log_delta_of(0.1, 10.0)
    # The leading term of the tails: phi(near) (1/near - 1/far).
    near, far = 10 / 0.1 - 0.05, 10 / 0.1 + 0.05
    leading = norm.logpdf(near) + math.log(1 / near - 1 / near**3 - 1 / far + 1 / far**3)
    np.testing.assert_allclose(tail, leading, rtol=1e-6)


@pytest.mark.parametrize(
    "epsilon, mu, exact, rdp, classic",
    [
        (1.0, 0.26805, 3.7306, 4.0454, 4.9006),
        (3.0, 0.71912, 1.3906, 1.4932, 1.6977),
        (5.0, 1.12124, 0.8919, 0.9526, 1.0545),
    ],
)
def test_published_multipliers_of_a_single_release(epsilon, mu, exact, rdp, classic):
    budget = p.Budget(epsilon, DELTA)
    np.testing.assert_allclose(p.gdp_parameter(epsilon=epsilon, delta=DELTA), mu, atol=5e-6)
    for method, value in (("exact", exact), ("rdp", rdp), ("classic", classic)):
        found = p.noise_multiplier(budget, method=method)
        np.testing.assert_allclose(found, value, rtol=1.5e-4)
        spent = p.epsilon(p.gaussian(found), delta=DELTA, method=method)
        assert spent <= epsilon * (1 + 1e-9)


def test_a_multiplier_of_one_and_a_mixed_schedule():
    one = p.gaussian(1.0)
    spent = [p.epsilon(one, delta=DELTA, method=m) for m in ("exact", "rdp", "classic")]
    np.testing.assert_allclose(spent, [4.3772, 4.7285, 5.2985], rtol=5e-5)
    mixed = 4 * p.gaussian(4.0) + 396 * p.gaussian(40.0)
    assert mixed == p.compose([p.gaussian(4.0)] * 4 + [p.gaussian(40.0)] * 396)
    np.testing.assert_allclose(mixed.mu, math.sqrt(4 / 16 + 396 / 1600), rtol=1e-15)
    np.testing.assert_allclose(p.epsilon(mixed, delta=DELTA), 2.93487, rtol=1e-5)
    np.testing.assert_allclose(p.epsilon(mixed, delta=DELTA, method="rdp"), 3.17999, rtol=1e-5)
    np.testing.assert_allclose(p.delta(mixed, epsilon=2.934873562), DELTA, rtol=1e-6)
    # The numerical way agrees with the closed form, also far out in the tail.
    for delta in (1e-5, 1e-12, 1e-40):
        exact = p.epsilon(mixed, delta=delta)
        np.testing.assert_allclose(loss_distribution.epsilon_of(mixed, delta), exact, rtol=1e-6)


def test_poisson_minibatches():
    event = 1000 * p.subsampled(1.0, 0.01)
    np.testing.assert_allclose(p.epsilon(event, delta=DELTA), 1.8282, rtol=1e-4)
    np.testing.assert_allclose(p.epsilon(event, delta=DELTA, method="rdp"), 2.1014, rtol=1e-4)
    # One release has a closed form in each order of the neighbours.
    z, q, epsilon = 0.8, 0.2, 0.7
    x = z**2 * math.log((math.exp(epsilon) - 1 + q) / q) + 0.5
    mixed = lambda t: (1 - q) * norm.sf(t / z) + q * norm.sf((t - 1) / z)
    remove = mixed(x) - math.exp(epsilon) * norm.sf(x / z)
    found = p.delta(p.subsampled(z, q), epsilon=epsilon)
    np.testing.assert_allclose(found, remove, rtol=1e-6)
    # At a rate of one it is the plain release.
    whole = 4 * p.subsampled(4.0, 1.0)
    assert whole == 4 * p.gaussian(4.0)
    nearly = p.epsilon(4 * p.subsampled(4.0, 1 - 1e-12), delta=DELTA)
    np.testing.assert_allclose(nearly, p.epsilon(whole, delta=DELTA), rtol=1e-6)


def test_minibatches_of_fixed_size():
    z, q, epsilon = 0.8, 0.2, 0.7
    x = z**2 * math.log((math.exp(epsilon) - 1 + q) / q) + 0.5
    mixed = (1 - q) * norm.sf(x / z) + q * norm.sf((x - 1) / z)
    closed = mixed - math.exp(epsilon) * norm.sf(x / z)
    found = p.delta(p.subsampled(z, q, sampling="fixed"), epsilon=epsilon)
    np.testing.assert_allclose(found, closed, rtol=1e-6)
    nearly = p.epsilon(4 * p.subsampled(4.0, 1 - 1e-12, sampling="fixed"), delta=DELTA)
    np.testing.assert_allclose(nearly, p.epsilon(4 * p.gaussian(4.0), delta=DELTA), rtol=1e-6)
    # Replacing includes removing and adding, so it costs more at the same rate and multiplier.
    fixed = p.epsilon(100 * p.subsampled(1.0, 0.1, sampling="fixed"), delta=DELTA)
    assert fixed > p.epsilon(100 * p.subsampled(1.0, 0.1), delta=DELTA)


def test_against_dp_accounting():
    dp = pytest.importorskip("dp_accounting")
    pld = pytest.importorskip("dp_accounting.pld")
    rdp = pytest.importorskip("dp_accounting.rdp")
    gaussian = dp.GaussianDpEvent
    schedules = [
        ([(gaussian(4.0), 4), (gaussian(40.0), 396)], 4 * p.gaussian(4.0) + 396 * p.gaussian(40.0)),
        (
            [(dp.PoissonSampledDpEvent(0.02, gaussian(0.7)), 300)],
            300 * p.subsampled(0.7, 0.02),
        ),
        (
            [(dp.PoissonSampledDpEvent(0.1, gaussian(2.0)), 200), (gaussian(8.0), 3)],
            200 * p.subsampled(2.0, 0.1) + 3 * p.gaussian(8.0),
        ),
    ]
    for theirs, ours in schedules:
        for accountant, method, rtol in (
            (pld.PLDAccountant(), "exact", 1e-3),
            (rdp.RdpAccountant(), "rdp", 2e-3),
        ):
            for event, count in theirs:
                accountant.compose(event, count)
            expected = accountant.get_epsilon(DELTA)
            np.testing.assert_allclose(
                p.epsilon(ours, delta=DELTA, method=method), expected, rtol=rtol
            )


def test_budgets_of_subsampled_releases_are_kept():
    budget = p.Budget(2.0, 1e-6)
    z = p.noise_multiplier(budget, releases=500, rate=0.02)
    spent = p.epsilon(500 * p.subsampled(z, 0.02), delta=1e-6)
    assert 2.0 * (1 - 1e-4) < spent <= 2.0
    # What may fail costs delta.
    failing = p.subsampled(z, 0.02, failure=1e-11) * 500
    assert spent < p.epsilon(failing, delta=1e-6) < 2.05
    assert p.epsilon(p.subsampled(z, 0.02, failure=1e-3), delta=1e-6) == math.inf
    assert p.delta(failing, epsilon=2.0) > p.delta(500 * p.subsampled(z, 0.02), epsilon=2.0)


def test_renyi_divergences():
    assert p.rdp(3 * p.gaussian(2.0), 5.0) == pytest.approx(5.0 * 3 / (2 * 4.0))
    # Of order 2 and a Poisson minibatch: log(1 + q^2 (e^(1/z^2) - 1)).
    z, q = 1.3, 0.05
    expected = math.log1p(q**2 * math.expm1(z**-2))
    np.testing.assert_allclose(p.rdp(p.subsampled(z, q), 2.0), expected, rtol=1e-9)


@pytest.mark.parametrize("z, q", [(1.0, 0.01), (0.5, 0.01), (0.3, 0.1), (10.0, 0.05), (1.0, 0.999)])
def test_renyi_divergences_of_whole_orders_are_the_binomial_sums(z, q):
    # Mironov, Talwar and Zhang (2019), section 3.3; orders beyond what the noise reaches included.
    for order in (2, 16, 64, 256, 20_000):
        k = np.arange(order + 1)
        choices = gammaln(order + 1) - gammaln(k + 1) - gammaln(order - k + 1)
        terms = choices + (order - k) * np.log1p(-q) + k * np.log(q) + k * (k - 1) / (2 * z**2)
        exact = logsumexp(terms) / (order - 1)
        np.testing.assert_allclose(p.rdp(p.subsampled(z, q), order), exact, rtol=1e-8)
        mixed = p.rdp(3 * p.subsampled(z, q) + p.gaussian(0.7), order)
        np.testing.assert_allclose(mixed, 3 * exact + order / (2 * 0.49), rtol=1e-8)


def test_renyi_divergence_of_minibatches_of_fixed_size():
    # Large losses and their inverses beyond x = 1/2, and none before it.
    z, q, order = 1.0, 0.01, 1.1
    ratio = lambda x: 1 - q + q * math.exp((2 * x - 1) / (2 * z**2))
    beyond = lambda power: quad(
        lambda x: norm.pdf(x, 0, z) * ratio(x) ** power, 0.5, 15.0, epsabs=1e-15, epsrel=1e-13
    )[0]
    none = (1 - q) * (norm.cdf(0.5 / z) - norm.cdf(-0.5 / z))
    exact = math.log(beyond(order) + beyond(1 - order) + none) / (order - 1)
    found = p.rdp(p.subsampled(z, q, sampling="fixed"), order)
    np.testing.assert_allclose(found, exact, rtol=1e-7)


def test_one_release_of_rare_records_has_the_closed_form():
    z, q, delta = 0.5, 1e-6, 1e-8
    mixed = lambda t: (1 - q) * norm.sf(t / z) + q * norm.sf((t - 1) / z)

    def excess(epsilon):
        x = z**2 * math.log((math.expm1(epsilon) + q) / q) + 0.5
        return mixed(x) - math.exp(epsilon) * norm.sf(x / z) - delta

    exact = brentq(excess, 1e-6, 1e-2, xtol=1e-12)
    found = p.epsilon(p.subsampled(z, q), delta=delta)
    assert exact * (1 - 1e-6) < found < exact * (1 + 1e-3)


@pytest.mark.parametrize("z, q, count, delta", [(1.0, 1e-4, 2000, 1e-9), (0.8, 1e-5, 1000, 1e-8)])
def test_many_releases_of_rare_records_lie_between_losses_rounded_up_and_down(z, q, count, delta):
    h, cells = 2e-7, 1 << 20
    x, width = np.linspace(-12 * z, 1 + 12 * z, 1 << 19, retstep=True)
    mass = ((1 - q) * norm.pdf(x, 0, z) + q * norm.pdf(x, 1, z)) * width
    places = np.log1p(q * np.expm1((2 * x - 1) / (2 * z**2))) / h
    event = count * p.subsampled(z, q)
    found = p.epsilon(event, delta=delta)
    bounds = []
    for whole in (np.floor, np.ceil):
        at = whole(places).astype(int)
        inside = at < cells // 2
        one = np.bincount(at[inside] % cells, mass[inside], cells)
        masses = np.fft.irfft(np.fft.rfft(one) ** count, cells)[: cells // 2]
        loss = h * np.arange(cells // 2)
        above = loss > found
        bounds.append(masses[above] @ -np.expm1(found - loss[above]))
    bounds[1] += count * mass[~inside].sum()
    assert bounds[0] < delta < bounds[1] < 1.25 * bounds[0]
    np.testing.assert_allclose(p.delta(event, epsilon=found), delta, rtol=1e-3)


def test_without_noise_nothing_is_private():
    assert p.epsilon(p.gaussian(0.0), delta=DELTA) == math.inf
    assert p.delta(p.gaussian(0.0) + p.gaussian(1.0), epsilon=1.0) == 1.0
    assert p.epsilon(0 * p.gaussian(1.0), delta=DELTA) == 0.0


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: p.Budget(0.0, 1e-5), "epsilon must be positive"),
        (lambda: p.Budget(-1.0, 1e-5), "epsilon must be positive"),
        (lambda: p.Budget(math.inf, 1e-5), "epsilon must be positive and finite"),
        (lambda: p.Budget(math.nan, 1e-5), "epsilon"),
        (lambda: p.Budget(1.0, 0.0), "delta must be positive"),
        (lambda: p.Budget(1.0, 1.0), "delta must be above 0 and below 1"),
        (lambda: p.Budget("one", 1e-5), "epsilon must be one number"),
        (lambda: p.gaussian(-1.0), "noise_multiplier"),
        (lambda: p.gaussian(math.inf), "noise_multiplier"),
        (lambda: p.subsampled(1.0, 0.0), "rate"),
        (lambda: p.subsampled(1.0, 1.5), "rate must be above 0 and at most 1"),
        (lambda: p.subsampled(1.0, 0.5, sampling="shuffled"), "sampling must be one of"),
        (lambda: p.subsampled(1.0, 0.5, failure=2.0), "failure"),
        (lambda: p.compose([1.0]), "compose takes events"),
        (lambda: p.epsilon(1.0, delta=1e-5), "an event is asked for"),
        (lambda: p.epsilon(p.gaussian(1.0), delta=2.0), "delta"),
        (lambda: p.epsilon(p.gaussian(1.0), delta=1e-5, method="moments"), "method must be one of"),
        (lambda: p.epsilon(p.subsampled(1.0, 0.1), delta=1e-5, method="classic"), "subsampling"),
        (lambda: p.rdp(p.gaussian(1.0), 1.0), "order must be above 1"),
        (lambda: p.subsampled(1.0, 0.1) + p.subsampled(1.0, 0.1, sampling="fixed"), "use one kind"),
    ],
)
def test_numbers_outside_their_ranges(call, words):
    with pytest.raises(InputError, match=words):
        call()
