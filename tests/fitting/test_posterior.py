"""Sampling: a straight line, whose posterior is Student's t; densities with bounds and priors."""

import csv
import json
import struct
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import rootflow as rf
from rootflow.fitting import sampling

T = np.arange(8.0)
X = 2.0 + 0.3 * T + np.array([0.1, -0.2, 0.15, 0.05, -0.1, 0.2, -0.15, 0.02])


def line(t, y, p):
    return {"x": p["b"] + 0.0 * y["x"]}


def fitted(start=None, slope=None, **more):
    return rf.fit(
        line, {"time": T, "x": X}, starts=1,
        states={"x": rf.Parameter(1.0) if start is None else start},
        parameters={"b": rf.Parameter(0.1) if slope is None else slope}, **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def fit():
    return fitted()


@pytest.fixture(scope="module")
def posterior(fit):
    pytest.importorskip("blackjax")
    pytest.importorskip("arviz")
    return fit.sample(1500, warmup=300, chains=4, seed=1)


def least_squares():
    """Estimates, their covariance over the variance, the sum of squares."""
    a = np.stack([T, np.ones(8)], 1)
    inverse = np.linalg.inv(a.T @ a)
    best = inverse @ a.T @ X
    return best, inverse, np.sum((X - a @ best) ** 2)


def test_the_posterior_of_a_line_is_students(posterior):
    """With flat coefficients and 1/s for the scale, t with n - p = 6 degrees of freedom."""
    best, inverse, rss = least_squares()
    for i, name in enumerate(("b", "x")):
        exact = scipy.stats.t(6, best[i], np.sqrt(rss / 6 * inverse[i, i]))
        found = next(m for m in posterior.summary if m.name == name)
        error = exact.std() / np.sqrt(found.ess_bulk)
        assert abs(found.mean - exact.mean()) < 4 * error
        assert found.sd == pytest.approx(exact.std(), rel=0.1)
        # The quantiles' error, from the density there.
        for level, end in ((0.025, found.lower), (0.975, found.upper)):
            off = np.sqrt(0.025 * 0.975 / found.ess_tail) / exact.pdf(exact.ppf(level))
            assert abs(end - exact.ppf(level)) < 4 * off
        assert found.rhat < 1.01 and found.ess_bulk > 1000
    both = posterior.values.reshape(-1, 2)
    exact = inverse[0, 1] / np.sqrt(inverse[0, 0] * inverse[1, 1])
    assert np.corrcoef(both.T)[0, 1] == pytest.approx(exact, abs=0.04)
    # RSS / s^2 is chi-square with n - p degrees of freedom, whatever the coefficients are.
    s2 = rss / posterior["noise of x"].ravel() ** 2
    assert s2.mean() == pytest.approx(6.0, rel=0.05)
    assert scipy.stats.kstest(s2[::4], scipy.stats.chi2(6).cdf).pvalue > 1e-3
    assert posterior.trusted and posterior.warnings == [] and not posterior.divergent.any()


def test_bands_of_the_posterior(fit, posterior):
    """Both bands are those of the fit, which are exact for a line."""
    for noise in (False, True):
        exact = fit.predict([3.0, 12.0], noise=noise)["x"]
        drawn = posterior.predict([3.0, 12.0], noise=noise, count=3000)["x"]
        width = (exact[2] - exact[1])[0]
        for one, other in zip(exact, drawn, strict=True):
            assert (np.abs(one - other)[0] < 0.08 * width).all()


def test_the_folder_of_a_posterior(posterior, tmp_path):
    posterior.write(tmp_path / "p")
    names = sorted(path.name for path in (tmp_path / "p").iterdir())
    assert names == ["pairs.png", "posterior.csv", "posterior.json", "trace.png"]
    rows = list(csv.DictReader((tmp_path / "p" / "posterior.csv").open()))
    assert len(rows) == 6000 and set(rows[0]) == {"chain", "draw", "divergent", "b", "x",
                                                  "noise of x"}  # fmt: skip
    assert float(rows[1]["b"]) == pytest.approx(posterior["b"][0, 1], rel=1e-9)
    record = json.loads((tmp_path / "p" / "posterior.json").read_text("utf-8"))
    assert record["trusted"] and record["summary"][0]["rhat"] < 1.01
    for name in ("trace.png", "pairs.png"):
        width, height = struct.unpack(">II", (tmp_path / "p" / name).read_bytes()[16:24])
        assert 400 < width < 2000 and 400 < height < 2000
    with pytest.raises(rf.InputError, match="no earlier posterior"):
        (tmp_path / "q").mkdir()
        (tmp_path / "q" / "mine").touch()
        posterior.write(tmp_path / "q")
    data = posterior.to_arviz()
    assert data.posterior["b"].shape == (4, 1500) and not data.sample_stats["diverging"].any()
    assert "R-hat" in posterior._repr_html_()
    with pytest.raises(KeyError, match="'a' is not drawn; there are: b, x, noise of x"):
        posterior["a"]


def test_an_ensemble_is_the_normal_distribution_of_the_errors(fit):
    drawn = fit.ensemble(4000, seed=2)
    assert len(drawn) == 4000
    np.testing.assert_allclose(np.cov(drawn.values.T), fit.covariance, rtol=0.12)
    assert drawn["b"].mean() == pytest.approx(fit["b"], abs=0.1 * fit.covariance[0, 0] ** 0.5)
    curves = fit.ensemble(300).predict([0.0, 5.0])["x"]
    few = fit.ensemble(300)
    np.testing.assert_allclose(curves[:, 0, 1], few["x"] + 5 * few["b"], rtol=1e-6)
    bounded = fitted(slope=rf.Parameter(0.3, 0.29, 0.4))
    inside = bounded.ensemble(500)["b"]
    assert inside.min() >= 0.29 and inside.max() <= 0.4
    with pytest.raises(rf.InputError, match="count must be an integer"):
        fit.ensemble(0)
    with pytest.raises(KeyError, match="'c' is not drawn"):
        drawn["c"]


def test_what_is_open_has_no_ensemble():
    def two(t, y, p):
        return {"x": p["b"] + p["c"] + 0.0 * y["x"]}

    open_ = rf.fit(
        two, {"time": T, "x": X}, states={"x": 2.0}, starts=1,
        parameters={"b": rf.Parameter(0.1, -5, 5), "c": rf.Parameter(0.1, -5, 5)},
    )  # fmt: skip
    with pytest.raises(rf.InputError, match=r"do not determine b, c.*result.sample"):
        open_.ensemble(10)


NORMAL, LOGNORMAL = rf.Prior("normal", 0.4, 0.2), rf.Prior("lognormal", -1.0, 0.5)
OF_LOG = rf.Prior("normal", -1.0, 0.5, of="log")
LAWS = {
    NORMAL: lambda b: scipy.stats.norm(0.4, 0.2).logpdf(b),
    LOGNORMAL: lambda b: scipy.stats.lognorm(0.5, scale=np.exp(-1.0)).logpdf(b),
    OF_LOG: lambda b: scipy.stats.norm(-1.0, 0.5).logpdf(np.log(b)) - np.log(b),
}


@pytest.mark.parametrize(
    ("bounds", "scale", "prior"),
    [
        ((None, None), "linear", NORMAL),
        ((0.05, 0.9), "linear", OF_LOG),
        ((0.05, None), "log", NORMAL),
        ((None, 0.9), "linear", None),
        ((0.05, 0.9), "log", None),
        ((0.05, 0.9), "log", LOGNORMAL),
        ((None, None), "log", OF_LOG),
    ],
)
def test_the_density_is_that_of_likelihood_prior_and_bounds(bounds, scale, prior):
    """Against the density of the parameter itself, written out, between two points.

    A prior is a density of what it is stated for; without one, the search's coordinate is flat.
    """
    fit = rf.evaluate(
        line, {"time": T, "x": X}, states={"x": 2.0}, noise=rf.Noise("normal", 0.4),
        parameters={"b": rf.Parameter(0.3, *bounds, scale=scale, prior=prior)},
    )  # fmt: skip
    p = fit._predict
    frame = sampling.frame_of(p)
    density = jax.jit(
        jax.value_and_grad(
            lambda w: sampling.log_density(p.model, p.lay, p.solvers[0], frame, p.data)(w[None])
        )
    )

    def natural(w):
        u = sampling.inside(frame, w[None])[0][0]
        return jnp.exp(u) if scale == "log" else u

    def exact(w):
        b, slope = map(float, jax.value_and_grad(natural)(w))
        value = -0.5 * np.sum((X - 2.0 - b * T) ** 2) / 0.16 + np.log(abs(slope))
        if prior is None:
            return value - (np.log(b) if scale == "log" else 0.0)
        return value + LAWS[prior](b)

    first, second, off = jnp.array(-1.2), jnp.array(0.7), 1e-4
    difference = float(density(first)[0] - density(second)[0])
    assert difference == pytest.approx(exact(first) - exact(second), abs=1e-5)
    rise = float(density(second + off)[0] - density(second - off)[0]) / (2 * off)
    assert float(density(second)[1]) == pytest.approx(rise, rel=1e-4, abs=1e-5)
    low, high = bounds
    ends = natural(jnp.array(-20.0)), natural(jnp.array(20.0))
    assert low is None or min(ends) >= low * (1 - 1e-12)
    assert high is None or max(ends) <= high * (1 + 1e-12)


def test_sampling_beside_a_bound_and_priors():
    """One parameter against quadrature: half of its likelihood lies beyond a bound."""
    pytest.importorskip("blackjax")
    best = float(T @ (X - 2.0) / (T @ T))
    fit = fitted(2.0, rf.Parameter(best + 0.05, best, 2.0), noise=rf.Noise("normal", 0.4))
    assert fit.model.parameters["b"].lower == best
    drawn = fit.sample(1000, warmup=300, chains=2)
    sd = 0.4 / np.sqrt(T @ T)
    exact = scipy.stats.truncnorm(0, np.inf, best, sd)
    found = drawn.summary[0]
    assert abs(found.mean - exact.mean()) < 5 * exact.std() / np.sqrt(found.ess_bulk)
    assert found.sd == pytest.approx(exact.std(), rel=0.12) and drawn.scales == {}
    assert drawn.values.min() > best


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"draws": 2}, "draws must be an integer, at least 4"),
        ({"warmup": 1}, "warmup must be"),
        ({"chains": 0}, "chains must be"),
        ({"seed": -1}, "seed must be"),
        ({"target": 1.0}, "target must be a number from 0.5 to below 1"),
    ],
)
def test_options_that_cannot_be_used(fit, options, said):
    with pytest.raises(rf.InputError, match=said):
        fit.sample(**options)


def test_without_the_extra_it_says_so(fit, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(rf.InputError, match=r"rootflow\[sample\]"):
        fit.sample(10, warmup=20)
    by_hand = replace(fit, _predict=lambda ts, noise: {})
    with pytest.raises(rf.InputError, match="random effects cannot be sampled"):
        by_hand.sample(10, warmup=20)
