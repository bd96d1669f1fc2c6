"""Closed forms of paths between mixtures against quadrature, identities and the equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import rootflow as rf
from rootflow import generative as gen
from rootflow.generative import interpolants as ip
from rootflow.generative.exact import GaussianMixture, Interpolated

from .interpolant_problems import (
    BASE,
    DATA,
    LINE_BASE,
    LINE_DATA,
    PATHS,
    POINTS,
    TIMES,
    law_of,
)  # fmt: skip

KINDS = ("b", "v", "s", "eta", "eta0", "eta1")


def test_against_quadrature():
    path = ip.Linear(ip.Brownian(0.8))
    law = Interpolated(path, LINE_DATA, LINE_BASE)
    t = 0.3
    gamma, rate = np.sqrt(0.8 * t * (1 - t)), 0.4 * (1 - 2 * t) / np.sqrt(0.8 * t * (1 - t))
    a, b = np.meshgrid(np.linspace(-7, 7, 1401), np.linspace(-12, 12, 1921), indexing="ij")
    weight = sum(0.5 * norm.pdf(a, m, 0.5) for m in (-3, 3))
    weight = weight * sum(
        norm.pdf(b, m, s) / 3 for m, s in zip((-6, 0, 6), np.sqrt([0.5, 0.33, 0.5]))
    )
    places = (-4.0, 0.5, 2.3)

    @jax.jit
    def everything(x):
        return law.log_density(x, t), {kind: law.at(kind, x, t)[:, 0] for kind in KINDS}

    log_density, fields = everything(jnp.array(places)[:, None])
    for i, x in enumerate(places):
        z = (x - (1 - t) * a - t * b) / gamma
        joint = weight * norm.pdf(z) / gamma * (0.01 * 0.0125)
        density = joint.sum()
        np.testing.assert_allclose(log_density[i], np.log(density), rtol=1e-9)
        expected = {
            "eta": z, "v": b - a, "b": b - a + rate * z, "s": -z / gamma, "eta0": a, "eta1": b,
        }  # fmt: skip
        for kind, value in expected.items():
            mean = (joint * value).sum() / density
            np.testing.assert_allclose(fields[kind][i], mean, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    "name", sorted(set(PATHS) - {"linear-sine", "linear-sigmoid", "one-sided-custom"})
)
def test_score_continuity_and_identities(name):
    path = PATHS[name]
    law = law_of(path)

    @jax.jit
    @jax.vmap
    def everything(x, t):
        rate = jax.grad(lambda t: law.log_density(x, t))(t)
        slope = jax.grad(law.log_density)(x, t)
        divergence = jnp.trace(jax.jacfwd(law.b)(x, t))
        kinds = ["b", "v", "s", "eta", "eta1"] + ["eta0"] * (path.sides == "two")
        return slope, rate + divergence, {k: law.at(k, x, t) for k in kinds}, path.coefficients(t)

    slope, flux, f, c = everything(POINTS, TIMES)
    np.testing.assert_allclose(f["s"], slope, rtol=1e-9, atol=1e-10)
    # The continuity equation, in the logarithm of the density.
    np.testing.assert_allclose(flux, -jnp.sum(f["b"] * f["s"], axis=1), rtol=1e-8, atol=1e-8)
    c = jax.tree.map(lambda w: w[:, None], c)
    np.testing.assert_allclose(f["b"], f["v"] - c.product * f["s"], rtol=1e-9, atol=1e-9)
    mean0 = f.get("eta0", 0.0)
    np.testing.assert_allclose(
        c.alpha * mean0 + c.beta * f["eta1"] + c.gamma * f["eta"], POINTS, atol=1e-9
    )
    np.testing.assert_allclose(
        c.alpha_rate * mean0 + c.beta_rate * f["eta1"] + c.gamma_rate * f["eta"], f["b"],
        rtol=1e-8, atol=1e-8,
    )  # fmt: skip


def test_the_drift_knows_the_scores_at_the_ends():
    a = 0.8
    law, plain = law_of(ip.Linear(ip.Brownian(a))), law_of(ip.Linear())
    for t, sign in ((0.0, -0.5), (1.0, 0.5)):
        expected = plain.v(POINTS, t) + sign * a * plain.score(POINTS, t)
        np.testing.assert_allclose(law.b(POINTS, t), expected, rtol=1e-9)


def test_ends_are_the_given_laws():
    law = law_of(ip.Trigonometric(ip.Brownian(0.8)))
    schedule = gen.EDM()  # alpha = 1, sigma = t
    for mixture, t in ((BASE, 0.0), (DATA, 1.0)):
        expected = mixture.log_density(schedule, POINTS, 0.0)
        np.testing.assert_allclose(law.log_density(POINTS, t), expected, rtol=1e-9)
    draws = law_of(ip.Linear(ip.Brownian(0.8))).draw(jax.random.key(0), 40000, 0.3)
    mean = 0.7 * jnp.array([0.2, 0.2]) + 0.3 * jnp.array([0.7, 0.6])  # of the two mixtures
    error = draws.std(0) / np.sqrt(40000)
    np.testing.assert_array_less(np.abs(draws.mean(0) - mean), 5 * error)


def test_noise_of_each_axis_its_own():
    path = ip.Linear(ip.Brownian(jnp.array([0.5, 2.0])))
    data = GaussianMixture(DATA.means, 0.4)
    full = GaussianMixture(DATA.means, 0.4, axes=np.broadcast_to(np.eye(2), (3, 2, 2)))
    plain, dense = Interpolated(path, data, BASE), Interpolated(path, full, BASE)
    for kind in ("b", "s", "v", "eta0"):
        np.testing.assert_allclose(
            plain.at(kind, POINTS, TIMES), dense.at(kind, POINTS, TIMES), rtol=1e-9
        )


def test_far_from_everything_nothing_underflows():
    law = Interpolated(ip.Linear(ip.Brownian(1.0)), LINE_DATA, LINE_BASE)
    far = jnp.array([[300.0]])
    variance = 0.25 * 0.25 + 0.25 * 0.5 + 0.25
    expected = -(300.0 - 4.5) / variance  # of the component that is nearest
    np.testing.assert_allclose(law.score(far, 0.5), [[expected]], rtol=1e-3)
    assert np.isfinite(law.log_density(far.astype(jnp.float32), 0.5)).all()


def test_flow_map():
    law = Interpolated(ip.Linear(ip.Brownian(1.0)), LINE_DATA, LINE_BASE)
    x = LINE_BASE.draw(jax.random.key(0), 50)
    there = law.flow_map(x, 0.0, 1.0)
    np.testing.assert_allclose(law.flow_map(there, 1.0, 0.0), x, atol=1e-9)

    # It keeps the order, and carries one distribution function into the other.
    def below(z, means, stds):
        return np.mean([norm.cdf(np.asarray(z), m, s) for m, s in zip(means, stds)], axis=0)

    np.testing.assert_allclose(
        below(x, (-3, 3), (0.5, 0.5)), below(there, (-6, 0, 6), np.sqrt([0.5, 0.33, 0.5])),
        atol=1e-12,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Interpolated(ip.Linear(), DATA), "give base="),
        (lambda: Interpolated(ip.OneSidedLinear(), DATA, BASE), "leave out the base"),
        (lambda: Interpolated(ip.Linear(), DATA, LINE_BASE), "one dimension; got 1 and 2"),
        (lambda: Interpolated("linear", DATA, BASE), "linear in space; got 'linear'"),
        (
            lambda: Interpolated(ip.Bent(ip.Linear(), lambda t, a, b: a), DATA, BASE),
            "linear in space",
        ),
        (lambda: law_of(ip.Linear()).at("w", POINTS, 0.5), "'w' is not a field"),
        (lambda: law_of(ip.OneSidedLinear()).at("eta0", POINTS, 0.5), "'eta0' is not a field"),
        (lambda: law_of(ip.Linear()).flow_map(POINTS, 0.0, 1.0), "one dimension"),
        (
            lambda: Interpolated(ip.Trigonometric(ip.Brownian(jnp.array([0.5, 1.0]))), DATA, BASE),
            "differ between the axes",
        ),
    ],
)
def test_refused(call, message):
    with pytest.raises(rf.InputError, match=message):
        call()
