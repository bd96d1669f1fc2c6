"""Coefficients, exact rates, certificates and guarantees."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rootflow import optimize as opt
from rootflow.errors import InputError, SolveError
from rootflow.optimize.momentum import rates

MAKERS = {
    "gd": opt.gradient_descent,
    "hb": opt.heavy_ball,
    "nag": opt.nesterov,
    "nag quadratic": opt.nesterov_quadratic,
    "tmm": opt.triple_momentum,
}


@pytest.mark.parametrize(
    ("name", "rate"),
    [("gd", 0.980198), ("hb", 0.818182), ("nag", 0.9), ("nag quadratic", 0.884722), ("tmm", 0.9)],
)
def test_the_rate_on_quadratics_is_the_largest_eigenvalue_of_the_iteration(name, rate):
    method = MAKERS[name](mu=1.0, L=100.0)
    assert isinstance(method.alpha, float)
    np.testing.assert_allclose(method.quadratic_rate(), rate, atol=1e-4)
    a, b, g = method.alpha, method.beta, method.gamma
    worst = max(
        np.max(np.abs(np.linalg.eigvals([[1 + b - a * w * (1 + g), a * w * g - b], [1.0, 0.0]])))
        for w in np.linspace(1.0, 100.0, 991)
    )
    np.testing.assert_allclose(method.quadratic_rate(), worst, atol=1e-4)


def test_the_rate_of_any_coefficients_is_a_maximum_over_a_fine_grid():
    rng = np.random.default_rng(0)
    lam = np.linspace(1.0, 10.0, 20_001)
    for alpha, beta, gamma in rng.uniform([0.01, -0.5, -0.5], [0.25, 1.1, 1.1], (60, 3)):
        values = rates.modulus(alpha * lam, beta, gamma)
        found = rates.quadratic_rate(alpha, beta, gamma, 1.0, 10.0)
        assert found >= values.max() - 1e-12
        np.testing.assert_allclose(found, values.max(), atol=2e-3)  # square roots near doubles


def test_the_rate_is_differentiable_and_the_same_when_traced():
    def rate(mu, step):
        return opt.heavy_ball(mu=mu, L=10.0, step=step, momentum=0.3).quadratic_rate()

    value, slope = jax.jit(jax.value_and_grad(rate, (0, 1)))(1.0, 0.05)
    np.testing.assert_allclose(value, rate(1.0, 0.05), rtol=1e-12)
    np.testing.assert_allclose(slope[0], (rate(1.001, 0.05) - rate(0.999, 0.05)) / 2e-3, rtol=1e-4)
    np.testing.assert_allclose(slope[1], (rate(1, 0.0501) - rate(1, 0.0499)) / 2e-4, rtol=1e-4)
    many = jax.vmap(lambda mu: opt.triple_momentum(mu=mu, L=100.0).quadratic_rate())
    np.testing.assert_allclose(many(jnp.array([1.0, 4.0, 100.0])), [0.9, 0.8, 0.0], atol=1e-7)


@pytest.mark.parametrize(
    ("name", "kappa", "rate"),
    [
        ("gd", 10.0, 9 / 11),
        ("gd", 100.0, 99 / 101),
        ("hb", 2.0, 0.33616),
        ("hb", 5.0, 0.66161),
        ("hb", 10.0, 0.86041),
        ("nag quadratic", 10.0, 0.71572),
        ("nag quadratic", 25.0, 0.82617),
        ("nag quadratic", 100.0, 0.91644),
        ("tmm", 25.0, 0.8),
        ("tmm", 100.0, 0.9),
        ("hb", 18.0, None),
    ],
)
def test_certified_rates_are_those_of_a_semidefinite_programme(name, kappa, rate):
    found = MAKERS[name](mu=2.0, L=2.0 * kappa).iqc_rate()
    assert (found is None) if rate is None else abs(found - rate) < 6e-5


def test_nesterov_is_certified_between_its_rate_on_quadratics_and_the_known_bound():
    for kappa in (2.0, 25.0, 1000.0):
        rate = opt.nesterov(mu=1.0, L=kappa).iqc_rate()
        assert 1 - kappa**-0.5 <= rate <= np.sqrt(1 - kappa**-0.5)


@pytest.mark.parametrize("name", list(MAKERS))
def test_certificates_satisfy_the_matrix_inequality(name):
    mu, L = 1.0, 12.0
    method = MAKERS[name](mu=mu, L=L)
    found = method.iqc_certificate()
    a, b, g, rho = method.alpha, method.beta, method.gamma, found.rate
    y = np.array([1 + g, -g, 0.0])
    A = np.array([[1 + b, -b, 0.0], [1.0, 0.0, 0.0], -L * y])
    B = np.array([-a, 0.0, 1.0])
    C = np.array([found.weight * rho**2 * np.array([0, 0, 1.0]) + L * y, -mu * y])
    D = np.array([-1.0, 1.0])
    AB, CD = np.column_stack([A, B]), np.column_stack([C, D])
    M = np.array([[0.0, 1.0], [1.0, 0.0]])
    form = AB.T @ found.P @ AB + CD.T @ M @ CD
    form[:3, :3] -= rho**2 * found.P
    assert np.linalg.eigvalsh(found.P)[0] > 0
    assert np.linalg.eigvalsh(form)[-1] <= 1e-9 * np.max(np.abs(form))
    assert 0 <= found.weight <= 1 and method.iqc_rate() <= rho < 1
    with pytest.raises(SolveError, match="smallest rate"):
        method.iqc_certificate(rate=0.5 * rho)


def test_the_heavy_ball_is_certified_up_to_a_limit_and_refused_above():
    limit = (2 + 5**0.5) ** 2
    assert opt.heavy_ball(mu=1.0, L=limit - 1e-3).guarantee("strongly convex").rate < 1
    for kappa in (limit + 1e-3, 25.0, 1e4):
        with pytest.raises(opt.NoGuarantee, match=r"17\.9"):
            opt.heavy_ball(mu=1.0, L=kappa).guarantee("strongly convex")
    assert opt.heavy_ball(mu=1.0, L=25.0).guarantee("quadratic").rate == pytest.approx(2 / 3)


def test_guarantees_and_what_has_none():
    k = {"mu": 1.0, "L": 25.0}
    tmm = opt.triple_momentum(**k).guarantee("strongly convex")
    assert tmm.rate == 0.8 and "z" in tmm.quantity
    assert opt.nesterov(**k).guarantee("strongly convex").rate == 0.8
    assert opt.gradient_descent(**k).guarantee("strongly convex").rate == pytest.approx(24 / 26)
    quadratic = opt.nesterov_quadratic(**k).guarantee("strongly convex").rate
    assert 0.82617 <= quadratic < 0.827
    assert opt.nesterov_convex(L=25.0).guarantee("convex").rate is None
    step = opt.gradient_descent(L=25.0, step=0.04)
    assert step.guarantee("convex").bound(10, 1.0, None) == pytest.approx(25 / 20)
    refused = [
        (opt.nesterov(**k), "convex"),
        (opt.triple_momentum(**k), "convex"),
        (opt.nesterov_convex(L=1.0), "strongly convex"),
        (opt.nesterov_convex(L=1.0), "quadratic"),
        (opt.gradient_descent(**k), "convex"),
        (opt.gradient_descent(mu=1.0, L=25.0, step=0.1), "strongly convex"),
        (opt.gradient_descent(mu=1.0, L=25.0, step=0.1), "quadratic"),
        (opt.Momentum(0.05, 0.9, mu=1.0, L=25.0), "strongly convex"),
    ]
    for method, problem in refused:
        with pytest.raises(opt.NoGuarantee):
            method.guarantee(problem)
    with pytest.raises(InputError, match="problem"):
        opt.nesterov(**k).guarantee("nonconvex")


def test_bounds_hold_for_the_exact_worst_cases():
    k = {"mu": 1.0, "L": 12.0}
    for name, steps in itertools.product(("gd", "hb", "tmm"), (1, 3)):
        method = MAKERS[name](**k)
        bound = method.guarantee("strongly convex").bound(steps, 1.0, None)
        assert opt.worst_case(method, steps).value <= bound**2 * (1 + 1e-6)
    convex = opt.nesterov_convex(L=3.0)
    worst = opt.worst_case(convex, 4, quantity="gap").value
    assert worst <= convex.guarantee("convex").bound(4, 1.0, None)
    nesterov = opt.nesterov(**k)
    # The gap of the start is at most L/2 for a start at distance 1.
    bound = nesterov.guarantee("strongly convex").bound(3, 1.0, 6.0)
    assert opt.worst_case(nesterov, 3, quantity="gap").value <= bound


def test_the_certified_choice_switches_where_the_triple_momentum_method_gets_better():
    assert opt.certified("quadratic", mu=1.0, L=100.0).name == "heavy_ball"
    assert opt.certified("convex", L=100.0).name == "nesterov_convex"
    assert opt.certified("strongly convex", mu=1.0, L=100.0).name == "triple_momentum"
    for kappa in (1.5, 3.0, 17.0):
        chosen = opt.certified("strongly convex", mu=1.0, L=kappa)
        best = min(opt.heavy_ball(mu=1.0, L=kappa).iqc_rate() or 1.0, 1 - kappa**-0.5)
        assert chosen.guarantee("strongly convex").rate == pytest.approx(best, abs=1e-3)


def test_robust_momentum_goes_from_triple_momentum_to_gradient_descent():
    mu, L = 1.0, 25.0
    fast = opt.robust_momentum(mu=mu, L=L, rate=0.8)
    tmm = opt.triple_momentum(mu=mu, L=L)
    for name in ("alpha", "beta", "gamma", "delta"):
        np.testing.assert_allclose(getattr(fast, name), getattr(tmm, name), rtol=1e-12)
    slow = opt.robust_momentum(mu=mu, L=L, rate=0.96)
    assert slow.iqc_rate() <= 0.96 + 1e-9
    with pytest.raises(InputError, match="rate must lie between"):
        opt.robust_momentum(mu=mu, L=L, rate=0.7)


@pytest.mark.parametrize("make", list(MAKERS.values()))
@pytest.mark.parametrize(
    ("mu", "L", "message"),
    [
        (0.0, 1.0, "nesterov_convex"),
        (-1.0, 1.0, "positive"),
        (2.0, 1.0, "exchanged"),
        (1.0, float("nan"), "finite"),
        (1.0, float("inf"), "finite"),
        (1.0, 0.0, "positive"),
        (jnp.ones(2), 1.0, "vmap"),
        (1j, 1.0, "real"),
        ("1", 1.0, "real"),
    ],
)
def test_bad_constants_are_refused(make, mu, L, message):
    with pytest.raises(ValueError, match=message):
        make(mu=mu, L=L)


def test_bad_constants_are_refused_where_they_are_traced():
    with pytest.raises(Exception, match="exchanged"):
        jax.block_until_ready(
            jax.jit(lambda mu: opt.nesterov(mu=mu, L=1.0).beta * opt.nesterov(mu=mu, L=1.0).L)(2.0)
        )


def test_what_is_missing_or_out_of_range_is_named():
    for call, message in (
        (lambda: opt.nesterov(mu=1.0), "needs mu, and L"),
        (lambda: opt.heavy_ball(mu=1.0), "needs mu and L"),
        (lambda: opt.gradient_descent(mu=1.0), "needs mu and L"),
        (lambda: opt.nesterov_convex(), "needs L"),
        (lambda: opt.nesterov(mu=1.0, L=10.0, step=0.2), "at most 1/L"),
        (lambda: opt.nesterov_convex(L=10.0, step=0.2), "at most 1/L"),
        (lambda: opt.nesterov_convex(L=1.0, friction=2.0), "at least 3"),
        (lambda: opt.Momentum(0.0), "alpha must be positive"),
        (lambda: opt.Momentum(0.1, 0.5).quadratic_rate(), "make it with mu and L"),
        (lambda: opt.nesterov_convex(L=1.0).quadratic_rate(), "power of k"),
        (lambda: opt.worst_case(opt.nesterov(mu=1.0, L=2.0), 0), "steps"),
        (lambda: opt.worst_case(opt.Momentum(0.1), 3), "needs L"),
        (lambda: opt.worst_case(opt.nesterov(mu=1.0, L=1.0), 3), "one function"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_mu_equal_to_L_is_solved_in_a_step():
    for make in MAKERS.values():
        method = make(mu=3.0, L=3.0)
        run = opt.descend(method, lambda x: 3.0 * x, jnp.ones(2), steps=2)
        np.testing.assert_allclose(run.final, 0.0, atol=1e-12)
        assert method.quadratic_rate() < 1e-7
