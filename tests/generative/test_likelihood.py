"""Log-densities against closed forms; the closed forms of `exact` against quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import rootflow as rf
from rootflow import generative as gen

from .problems import END, START, VP

MIXTURE = gen.exact.GaussianMixture(
    [[1.0, 0.5], [-1.0, 0.0], [0.0, -1.5]], [[0.3, 0.5], [0.4, 0.4], [0.2, 0.6]], [0.5, 0.3, 0.2]
)
DATA = MIXTURE.draw(jax.random.key(1), 12)


@pytest.mark.parametrize("schedule", [gen.VE(), gen.RectifiedFlow()])
def test_exact_likelihood(schedule):
    end = schedule.end
    # The density that is carried: the mixture's own at the noisy end, so that nothing is left out.
    kind = "flow" if isinstance(schedule, gen.RectifiedFlow) else "noise"
    found = gen.log_likelihood(
        MIXTURE.denoiser(schedule, kind), DATA, rtol=1e-8, atol=1e-8,
        prior=lambda x: MIXTURE.log_density(schedule, x, schedule.begin),
    )  # fmt: skip
    np.testing.assert_allclose(found, MIXTURE.log_density(schedule, DATA, end), atol=1e-5)


def test_the_default_prior():
    found = gen.log_likelihood(MIXTURE.denoiser(VP), DATA)
    gap = np.abs(found - MIXTURE.log_density(VP, DATA, END))
    assert gap.max() < 0.03 and gap.mean() < 5e-3  # the prior itself is not quite reached at t = 1


def test_hutchinson_is_unbiased():
    options = dict(trace="hutchinson", probes=64)
    exact = gen.log_likelihood(MIXTURE.denoiser(VP), DATA)
    estimates = jnp.stack([
        gen.log_likelihood(MIXTURE.denoiser(VP), DATA, key=jax.random.key(k), **options)
        for k in range(3)
    ])  # fmt: skip
    error = estimates.mean(0) - exact
    spread = estimates.std(0, ddof=1) / np.sqrt(3)
    assert (np.abs(error) < 6 * spread + 1e-3).all() and float(spread.max()) > 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trace": "full"}, "'full'"),
        ({"trace": "hutchinson"}, "key="),
        ({"trace": "hutchinson", "key": jax.random.key(0), "probes": 0}, "positive integer"),
        ({"end": -1.0}, "outside the times"),
        ({"variable": "log_snr", "end": 0.0}, 'variable="time"'),
    ],
)
def test_refused(change, message):
    with pytest.raises(rf.InputError, match=message):
        gen.log_likelihood(MIXTURE.denoiser(VP), DATA, **change)


def test_closed_forms_against_quadrature():
    line = gen.exact.GaussianMixture([[-2.0], [1.0]], [0.5, 0.3], [0.3, 0.7])
    t = 0.35
    a, s = float(VP.alpha(t)), float(VP.sigma(t))
    x0 = np.linspace(-6, 6, 20001)
    prior = 0.3 * norm.pdf(x0, -2, 0.5) + 0.7 * norm.pdf(x0, 1, 0.3)
    found = jax.jit(
        lambda x: (line.log_density(VP, x, t), line.mean(VP, x, t), line.predict("data", VP, x, t))
    )
    for x in (-1.5, 0.2, 1.3):
        joint = prior * norm.pdf(x, a * x0, s)
        density = np.trapezoid(joint, x0)
        mean = np.trapezoid(joint * x0, x0) / density
        log_density, *means = found(jnp.array([[x]]))
        np.testing.assert_allclose(log_density, np.log(density), rtol=1e-8)
        for each in means:
            np.testing.assert_allclose(each, mean, rtol=1e-8)
    slope = jax.jit(jax.vmap(jax.grad(lambda x: line.log_density(VP, x, t))))(START[:, :1])
    np.testing.assert_allclose(line.score(VP, START[:, :1], t), slope, rtol=1e-9)


def test_principal_axes():
    turn = jnp.array([[0.6, -0.8], [0.8, 0.6]])
    turned = gen.exact.GaussianMixture(MIXTURE.means @ turn.T, MIXTURE.variances**0.5,
        jnp.exp(MIXTURE.log_weights), axes=jnp.broadcast_to(turn, (3, 2, 2)))  # fmt: skip
    x = START @ turn.T
    for name in ("log_density", "score", "mean"):
        plain = getattr(MIXTURE, name)(VP, START, 0.3)
        expected = plain if plain.ndim == 1 else plain @ turn.T
        np.testing.assert_allclose(getattr(turned, name)(VP, x, 0.3), expected, rtol=1e-10)
    draws = turned.draw(jax.random.key(0), 20000)
    back = MIXTURE.draw(jax.random.key(0), 20000) @ turn.T
    np.testing.assert_allclose(jnp.cov(draws.T), jnp.cov(back.T), atol=1e-10)


def test_the_exact_flow_of_a_mixture_in_one_dimension():
    line = gen.exact.GaussianMixture([[-2.0], [1.0]], [0.5, 0.3], [0.3, 0.7])
    start = START[:, :1]
    flow = jax.jit(lambda x, begin, end: line.flow_map(VP, x, begin, end))
    exact = flow(start, 1.0, END)
    solved = gen.sample(
        line.denoiser(VP), start=start, sampler=gen.ProbabilityFlow(rtol=1e-9, atol=1e-9)
    )
    np.testing.assert_allclose(solved, exact, atol=1e-6)
    there_and_back = flow(exact, END, 1.0)
    np.testing.assert_allclose(there_and_back, start, atol=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gen.exact.GaussianMixture([1.0, 2.0]), r"shape \(k, d\)"),
        (lambda: gen.exact.GaussianMixture([[1.0]], [1.0, 2.0]), "std must be"),
        (lambda: gen.exact.GaussianMixture([[1.0]], weights=[0.0]), "positive"),
        (lambda: gen.exact.GaussianMixture([[1.0]], weights=[1.0, 1.0]), "one a mean"),
        (lambda: gen.exact.GaussianMixture([[1.0]], axes=[1.0]), "axes must"),
        (lambda: MIXTURE.flow_map(VP, START, 1.0, END), "one component or one dimension"),
        (lambda: MIXTURE.predict("epsilon", VP, START, 0.5), "'epsilon'"),
    ],
)
def test_closed_forms_refused(call, message):
    with pytest.raises(rf.InputError, match=message):
        call()
