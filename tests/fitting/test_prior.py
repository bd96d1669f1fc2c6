"""Priors: densities beside SciPy's, the mode of a posterior in closed form, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import rootflow as rf
from rootflow.fitting.prior import Prior

LN10 = np.log(10.0)


@pytest.mark.parametrize(
    ("prior", "density", "log"),
    [
        (Prior("normal", 0.3, 0.4), scipy.stats.norm(0.3, 0.4).logpdf, False),
        (Prior("normal", 0.3, 0.4), lambda x: scipy.stats.norm(0.3, 0.4).logpdf(x), True),
        (Prior("laplace", 0.3, 0.4), scipy.stats.laplace(0.3, 0.4).logpdf, True),
        (Prior("lognormal", 0.3, 0.4), scipy.stats.lognorm(0.4, scale=np.exp(0.3)).logpdf, True),
        (Prior("lognormal", 0.3, 0.4), scipy.stats.lognorm(0.4, scale=np.exp(0.3)).logpdf, False),
        (
            Prior("loglaplace", 0.3, 0.4),
            lambda x: scipy.stats.laplace(0.3, 0.4).logpdf(np.log(x)) - np.log(x),
            True,
        ),
        (
            Prior("normal", 0.3, 0.4, of="log10"),
            lambda x: scipy.stats.norm(0.3, 0.4).logpdf(np.log10(x)),
            False,
        ),
        (
            Prior("laplace", 0.3, 0.4, of="log"),
            lambda x: scipy.stats.laplace(0.3, 0.4).logpdf(np.log(x)),
            True,
        ),
        (Prior("uniform", 0.5, 4.0), scipy.stats.uniform(0.5, 3.5).logpdf, False),
    ],
)
def test_density_and_derivative(prior, density, log):
    for x in (0.8, 1.7):
        u = jnp.asarray(np.log(x) if log else x)
        found = prior.local(u, log)
        np.testing.assert_allclose(found.value, -density(x), rtol=1e-12)
        slope = jax.grad(lambda u: prior.local(u, log).value)(u)
        np.testing.assert_allclose(found.gradient, slope, rtol=1e-12, atol=1e-14)
        assert found.curvature >= 0


def line(t, y, p):
    return {"x": p["slope"] + 0 * y["x"]}


def test_the_posterior_of_a_line_is_the_one_of_bayes():
    """Normal noise and normal priors: precision-weighted means."""
    t = np.linspace(0, 3, 7)
    x = 1.0 + 0.6 * t + 0.2 * np.cos(5 * t)
    prior = Prior("normal", 0.9, 0.05)
    result = rf.fit(
        line, {"time": t, "x": x}, states={"x": rf.Parameter(1.0)}, starts=1,
        parameters={"slope": rf.Parameter(0.5, prior=prior)},
        noise={"x": rf.Noise(scale=0.3)},
    )  # fmt: skip
    design = np.stack([np.ones_like(t), t], 1) / 0.3
    precision = design.T @ design + np.diag([0, 1 / 0.05**2])
    mode = np.linalg.solve(precision, design.T @ x / 0.3 + [0, 0.9 / 0.05**2])
    np.testing.assert_allclose([result["x"], result["slope"]], mode, rtol=1e-7)
    order = [result.free_names.index(n) for n in ("x", "slope")]
    covariance = np.linalg.inv(precision)
    np.testing.assert_allclose(result.covariance[np.ix_(order, order)], covariance, rtol=1e-6)
    density = scipy.stats.norm(mode[0] + mode[1] * t, 0.3).logpdf(x).sum()
    density += scipy.stats.norm(0.9, 0.05).logpdf(mode[1])
    np.testing.assert_allclose(result.nll, -density, rtol=1e-9)


def test_a_uniform_prior_narrows_the_bounds():
    narrow = rf.Parameter(1.0, 0.1, 10.0, prior=Prior("uniform", 0.5, 2.0))
    assert narrow.limits == (0.5, 2.0)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: rf.Parameter(1.0, 0.1, 2.0, prior=Prior("normal", 3.0, 1.0)),
            "outside the bounds",
        ),
        (
            lambda: rf.Parameter(1.0, 0.1, 2.0, prior=Prior("uniform", 3.0, 4.0)),
            "outside the bound",
        ),
        (
            lambda: rf.Parameter(1.0, 0.1, 2.0, prior=Prior("uniform", 1.5, 4.0)),
            "excludes the guess",
        ),
        (lambda: rf.Parameter(1.0, prior=0.5), r"give rf\.Prior"),  # type: ignore[arg-type]
        (lambda: Prior("norml", 0.0, 1.0), "Did you mean 'normal'"),  # type: ignore[arg-type]
        (lambda: Prior("normal", 0.0, 0.0), "positive number"),
        (lambda: Prior("normal", np.nan, 1.0), "give a number"),
        (lambda: Prior("uniform", 2.0, 1.0), "wrong order"),
        (lambda: Prior("normal", 0.0, 1.0, of="log2"), "'of' of a prior"),  # type: ignore[arg-type]
        (lambda: Prior("lognormal", 0.0, 1.0, of="log"), "logarithm of a logarithm"),
    ],
)
def test_what_is_refused(make, said):
    with pytest.raises(rf.InputError, match=said):
        make()
