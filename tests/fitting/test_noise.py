"""Noise that is computed, heavy-tailed or censored: likelihoods beside SciPy's, and their fits."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

import rootflow as rf
from rootflow.fitting import problem
from rootflow.fitting.likelihood import likelihood
from rootflow.fitting.model import Model, Noise, Parameter
from rootflow.fitting.output import as_record
from rootflow.fitting.table import assemble

TIMES = np.linspace(0.0, 3.0, 9)
LINE = 2.0 + 0.5 * TIMES + 0.3 * np.sin(4 * TIMES)
WEIGHTS = np.array([1, 2, 1, 0.5, 1, 1, 3, 1, 1.0])


def line(t, y, p, c):
    return {"x": p["slope"] + 0 * y["x"]}


def seen(noise, data=LINE, **parameters):
    """The likelihood as a function of the model values and of the logarithms of the scales."""
    model = Model(
        vector_field=line, states={"x": 2.0}, observed={"x": lambda t, y, p, c: y["x"]},
        parameters={"slope": Parameter(0.5), **parameters}, noise={"x": noise},
    )  # fmt: skip
    dataset = assemble(model, {"time": TIMES, "x": data, "w": WEIGHTS})
    arrays = jax.tree.map(jnp.asarray, problem.group_data(model, dataset))
    return lambda eta: likelihood(model, eta, arrays)


def scale(t, y, p, c):
    return p["a"] + p["b"] * jnp.abs(y["x"])


MEAN = 2.03 + 0.55 * TIMES
SIGMA = 0.2 + 0.1 * MEAN


@pytest.mark.parametrize(
    ("kind", "density"),
    [
        ("normal", lambda x, m, s: scipy.stats.norm(m, s).logpdf(x)),
        ("laplace", lambda x, m, s: scipy.stats.laplace(m, s).logpdf(x)),
        ("lognormal", lambda x, m, s: scipy.stats.lognorm(s, scale=m).logpdf(x)),
        (
            "log10normal",
            lambda x, m, s: (
                scipy.stats.norm(np.log10(m), s).logpdf(np.log10(x)) - np.log(x * np.log(10))
            ),
        ),
        (
            "loglaplace",
            lambda x, m, s: scipy.stats.laplace(np.log(m), s).logpdf(np.log(x)) - np.log(x),
        ),
        (
            "log10laplace",
            lambda x, m, s: (
                scipy.stats.laplace(np.log10(m), s).logpdf(np.log10(x)) - np.log(x * np.log(10))
            ),
        ),
    ],
)
def test_computed_scales(kind, density):
    """Values beside SciPy's densities; the information is what simulated scores scatter by."""
    of = seen(Noise(kind, scale, "w"))
    unit = np.log(10) if kind.startswith("log10") else 1.0
    eta = np.log(MEAN) / unit if kind.startswith("log") else MEAN
    rows = jnp.stack([jnp.asarray(eta), jnp.log(SIGMA)])[None]
    found = of(rows)
    expected = -density(LINE, MEAN, SIGMA / np.sqrt(WEIGHTS)).sum()
    np.testing.assert_allclose(found.value, expected, rtol=1e-10)
    steps = 1e-6 * np.eye(18).reshape(18, 1, 2, 9)
    slopes = [(of(rows + h).value - of(rows - h).value) / 2e-6 for h in steps]
    np.testing.assert_allclose(found.slope.ravel(), slopes, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.information[0, 0], WEIGHTS / SIGMA**2, rtol=1e-12)
    assert found.of_scales is not None
    np.testing.assert_allclose(found.of_scales[0][0, 0], 1.0 if "laplace" in kind else 2.0)


@pytest.mark.parametrize("kind", ["normal", "laplace"])
def test_censored_measurements(kind):
    cells = [f"<{LINE[0]}", *LINE[1:-1], f">{LINE[-1]}"]
    of = seen(Noise(kind, scale, censored=True), cells)
    law = scipy.stats.norm if kind == "normal" else scipy.stats.laplace
    rows = jnp.stack([jnp.asarray(MEAN), jnp.log(SIGMA)])[None]
    found = of(rows)
    expected = law(MEAN[1:-1], SIGMA[1:-1]).logpdf(LINE[1:-1]).sum()
    expected += law(MEAN[0], SIGMA[0]).logcdf(LINE[0]) + law(MEAN[-1], SIGMA[-1]).logsf(LINE[-1])
    np.testing.assert_allclose(found.value, -expected, rtol=1e-10)
    # Of a censored measurement the information is the second derivative, along what it sees.
    assert found.of_scales is not None
    own, both = found.of_scales
    for i in (0, 8):
        block = np.array([[found.information[0, 0, i], both[0, 0, i]],
                          [both[0, 0, i], own[0, 0, i]]])  # fmt: skip
        assert np.linalg.eigvalsh(block).min() > -1e-12
        at = lambda m, i=i: of(rows.at[0, 0, i].set(m)).value
        bend = (at(MEAN[i] + 1e-3) - 2 * at(MEAN[i]) + at(MEAN[i] - 1e-3)) / 1e-6
        if not (kind == "laplace" and bend < 1e-3):
            np.testing.assert_allclose(block[0, 0], bend, rtol=1e-3, atol=1e-4)


def test_a_tail_of_censored_measurements_stays_finite():
    of = seen(Noise("normal", 0.01, below=LINE.max() + 1))
    rows = jnp.stack([jnp.full(9, 50.0), jnp.full(9, np.log(0.01))])[None]
    found = of(rows)
    assert np.isfinite(found.value) and np.isfinite(found.slope).all()
    assert np.all((found.information > 0) & (found.information <= 1.0001e4))


def test_fit_of_a_noise_formula_is_the_maximum_of_its_likelihood():
    data = LINE.copy()
    result = rf.fit(
        lambda t, y, p: {"x": p["slope"] + 0 * y["x"]}, {"time": TIMES, "x": data},
        states={"x": rf.Parameter(2.0)}, starts=1,
        parameters={
            "slope": rf.Parameter(0.4), "a": rf.Parameter(0.2, 1e-3, 2.0, scale="log"),
        },
        noise={"x": rf.Noise(scale=lambda t, y, p: p["a"] * (1 + t))},
    )  # fmt: skip

    def nll(v):
        return -scipy.stats.norm(v[0] + v[1] * TIMES, v[2] * (1 + TIMES)).logpdf(data).sum()

    best = scipy.optimize.minimize(nll, [2, 0.5, 0.2], method="Nelder-Mead",
                                   options=dict(xatol=1e-9, fatol=1e-12, maxiter=4000))  # fmt: skip
    found = [result["x"], result["slope"], result["a"]]
    np.testing.assert_allclose(found, best.x, rtol=1e-5)
    np.testing.assert_allclose(result.nll, best.fun, rtol=1e-9)
    _, low, high = result.predict([0.0, 3.0])["x"]
    assert (high - low)[0, 1] > 2.5 * (high - low)[0, 0]  # the band widens as the noise does
    noise = as_record(result)["model"]["noise"]["x"]
    assert noise["scale"] == "computed" and noise["kind"] == "normal"
    assert json.dumps(noise) and not any(e.kind == "scale" for e in result.estimates)
    residuals = [r.residual for r in result.residuals]
    np.testing.assert_allclose(np.mean(np.square(residuals)), 1.0, rtol=1e-3)


def test_a_fitted_laplace_scale_is_the_mean_size_of_a_residual():
    of = seen(Noise("laplace"))
    found = of(jnp.asarray(MEAN)[None, None])
    np.testing.assert_allclose(found.scales[0], np.mean(np.abs(LINE - MEAN)), rtol=1e-8)
    expected = -scipy.stats.laplace(MEAN, found.scales[0]).logpdf(LINE).sum()
    np.testing.assert_allclose(found.value, expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Noise(below=0.1), "give the scale"),
        (lambda: Noise(censored=True), "give the scale"),
        (lambda: Noise(scale=1.0, below=2.0, above=1.0), "swap them"),
        (lambda: Noise("lognormal", 1.0, below=0.0), "not positive"),
        (lambda: Noise("laplac"), "Did you mean 'laplace'"),  # type: ignore[arg-type]
        (lambda: seen(Noise(scale=1.0, censored=True), ["<"] * 9), "a limit has no number"),
        (lambda: seen(Noise(scale=1.0), ["<1.0"] * 9), "'<1.0' is not a number"),
        (lambda: seen(Noise("log10normal"), -LINE), "cannot occur under log10normal"),
    ],
)
def test_what_is_refused(make, said):
    with pytest.raises(rf.InputError, match=said):
        make()
