"""SAEM beside the maximum of the likelihood itself, which closed forms and quadrature give."""

import json
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from typer.testing import CliRunner

import rootflow as rf
from rootflow.cli.main import app
from rootflow.fitting import population
from rootflow.fitting.population import saem
from rootflow.fitting.population.assembly import Origin, _settled
from rootflow.fitting.population.fit import prepare
from rootflow.fitting.population.result import likelihood_at
from rootflow.fitting.solving import Solving
from rootflow.fitting.table import assemble
from tests.fitting.population.populations import WANG_TABLE, theophylline, wang


@pytest.fixture(scope="module")
def pairs():
    """Wang's ten subjects, measured twice: typical ke and its standard deviation are fitted."""
    return {
        kind: replace(wang(kind), random=rf.Population({"ke": 0.2}, method="saem"))
        for kind in ("normal", "proportional")
    }


#: The trapezoidal rule for a standard normal effect: exact to round-off for curves that are not
#: much narrower than its steps (Gauss-Hermite nodes are too few for subjects measured often).
GRID = np.linspace(-8.0, 8.0, 801)
WEIGHTS = 0.02 * np.exp(-0.5 * GRID**2) / np.sqrt(2 * np.pi)


def exact(kind, ke, sd):
    """-2 log L less n log 2 pi of Wang's pairs, by quadrature over the effect."""
    y = WANG_TABLE["y"].reshape(10, 2)
    f = 10 * np.exp(-ke * np.exp(sd * GRID)[:, None] * np.array([0.0, 1.0]))
    variance = 0.1 * (f**2 if kind == "proportional" else np.ones_like(f))
    log = -0.5 * ((y[:, None] - f) ** 2 / variance + np.log(variance)).sum(-1)
    top = log.max(1, keepdims=True)
    total = np.log(np.exp(log - top) @ WEIGHTS) + top[:, 0]
    return float(-2 * total.sum())


def by_search(model, table):
    """Where SAEM ends, without what is then computed about it."""
    dataset = assemble(model, table)
    with jax.enable_x64(True):
        lay, data = prepare(model, dataset)
        plan = saem.plan(lay, data, model.random.iterations, model.random.chains)
        return saem.search(plan, data, Solving().solvers(0.0), 0, None).u


def best(kind):
    return minimize(lambda v: exact(kind, *np.exp(v)), np.log([0.5, 0.2]), method="Nelder-Mead",
                    options={"xatol": 1e-7, "fatol": 1e-10})  # fmt: skip


def test_saem_finds_the_maximum_of_the_exact_likelihood_of_wangs_pairs(pairs):
    assert exact("proportional", 0.5, 0.2) == pytest.approx(39.355, abs=6e-4)  # printed, table 1
    most = best("normal")
    for seed in (0, 1):
        fit = rf.fit(pairs["normal"], WANG_TABLE, seed=seed)
        assert fit.converged and fit.approximation == "saem"
        # The importance-sampled value is the exact one there, and close to the least there is.
        here = exact("normal", fit["ke"], fit["sd(ke)"])
        assert abs(fit.objf - here) < 4 * fit.objf_error < 0.2
        assert here - most.fun < 0.02
        rows = {e.name: e for e in fit.estimates}
        for name, value in zip(("ke", "sd(ke)"), np.exp(most.x), strict=True):
            assert abs(rows[name].value - value) < 0.1 * rows[name].se
    again = rf.fit(pairs["normal"], WANG_TABLE, seed=1)
    assert again["ke"] == fit["ke"] and again.objf == fit.objf
    np.testing.assert_array_equal(again.trace.values, fit.trace.values)


def test_a_variance_that_is_nothing_does_not_hold_the_typical_value_back(pairs):
    """With proportional noise of that size the maximum is at no variance between subjects."""
    most = best("proportional")
    assert np.exp(most.x[1]) < 1e-3
    u = by_search(pairs["proportional"], WANG_TABLE)
    ke, sd = np.exp(u)
    assert sd < 0.05
    assert ke == pytest.approx(np.exp(most.x[0]), rel=0.03)  # its error is 25 %
    assert exact("proportional", ke, sd) - most.fun < 0.05


def test_one_program_serves_all_subjects_and_iterations(pairs):
    with jax.enable_x64(True):
        rf.fit(pairs["normal"], WANG_TABLE)
        before = saem._advance._cache_size()
        rf.fit(pairs["normal"], WANG_TABLE, seed=2)
        assert saem._advance._cache_size() == before


RNG = np.random.default_rng(4)
W = RNG.normal(size=20)
TIMES = np.array([0.0, 1.0, 2.0])
LINES = (1.0 + 0.6 * W + 0.5 * RNG.standard_normal(20))[:, None] + 0.8 * TIMES
LINES = LINES + 0.3 * RNG.standard_normal(LINES.shape)
LINEAR = {
    "id": np.repeat(np.arange(20), 3), "time": np.tile(TIMES, 20), "w": np.repeat(W, 3),
    "y": LINES.ravel(),
}  # fmt: skip


def test_parameters_without_effects_move_by_their_score():
    """y = a + q w + b t, a alone varies: the data are normal, their likelihood is known."""
    model = rf.Model(
        lambda t, y, p, c: {},
        states={},
        parameters={"a": rf.Parameter(0.3), "q": rf.Parameter(0.0), "b": rf.Parameter(0.2)},
        observed={"y": lambda t, y, p, c: p["a"] + p["q"] * c["w"] + p["b"] * t},
        group="id",
        covariates=("w",),
        random=rf.Population({"a": 1.0}, method="saem"),
    )

    def minus_twice(v):
        a, q, b, sd, s = *v[:3], *np.exp(v[3:])
        law = multivariate_normal(np.zeros(3), sd**2 + s**2 * np.eye(3))
        return -2 * law.logpdf(LINES - (a + q * W)[:, None] - b * TIMES).sum()

    best = minimize(minus_twice, [1.0, 0.6, 0.8, -0.7, -1.2], method="BFGS")
    fit = rf.fit(model, LINEAR)
    assert fit.converged
    least = best.fun - 60 * np.log(2 * np.pi)
    # Importance sampling about a mode, where the law of the effects is normal, is nearly exact.
    assert fit.objf == pytest.approx(least, abs=0.05 + 4 * fit.objf_error)
    found = {e.name: e for e in fit.estimates}
    expected = [*best.x[:3], *np.exp(best.x[3:])]
    for name, value in zip(("a", "q", "b", "sd(a)", "y"), expected, strict=True):
        assert abs(found[name].value - value) < 0.1 * found[name].se, name
    errors = np.sqrt(np.diagonal(best.hess_inv) * 2)[:3]
    np.testing.assert_allclose([found[n].se for n in "aqb"], errors, rtol=0.1)


#: The maximum of FOCEI, objective function 116.8034: ka, cl, v, their sds, sd of the noise.
FOCEI = [1.590238, 2.751532, 31.808877, 0.634316, 0.262859, 0.138419, 0.694409]


#: What nlmixr2est prints of its SAEM for this model and these data (its README): logarithms of
#: ka, cl and v, their standard errors, coefficients of variation in per cent, sd of the noise.
NLMIXR = [0.464, 1.01, 3.46], [0.195, 0.085, 0.0447], [71.1, 27.4, 13.1], 0.696


def test_theophylline_by_saem_beside_focei_and_nlmixr():
    """Of the likelihood itself SAEM finds the larger one, and a maximum in every direction."""
    model, table = theophylline(rf.Population({"ka": 0.6, "cl": 0.3, "v": 0.2}, method="saem"))
    fit = rf.fit(model, table)
    assert fit.converged and fit.trace.values.shape == (500, 7)
    typical = np.array([fit[name] for name in fit.effects])
    values, errors = np.log(typical), np.sqrt(np.diagonal(fit.covariance))[:3] / typical
    assert np.all(np.abs(values - NLMIXR[0]) < 0.3 * np.array(NLMIXR[1]))
    np.testing.assert_allclose(errors, NLMIXR[1], rtol=0.04)
    cv = 100 * np.sqrt(np.expm1([fit[f"sd({name})"] ** 2 for name in fit.effects]))
    np.testing.assert_allclose(cv, NLMIXR[2], rtol=0.04)
    assert fit.scales["concentration_mg_per_l"] == pytest.approx(NLMIXR[3], rel=0.01)
    assert 0.2 < fit.trace.accepted[2:].mean() < 0.6

    p = fit._predict
    of = lambda u: likelihood_at(replace(p, u=u), 0.0, "importance", 3000, 0, 9).objf
    # The same draws for all: differences are known far better than values.
    here = of(p.u)
    assert here == pytest.approx(fit.objf, abs=1e-9) and fit.objf < 118.35
    assert here < of(np.log(FOCEI))
    errors = np.sqrt(np.diagonal(p.covariance))
    for step in 0.5 * np.diag(errors):
        rises = [of(p.u + step) - here, of(p.u - step) - here]
        assert min(rises) > 0 and max(rises) < 1.0


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        ({"method": "sem"}, {}, "Did you mean"),
        ({"approximation": "saem"}, {}, "method = 'saem'"),
        ({"method": "saem", "iterations": 300}, {}, "give two numbers"),
        ({"method": "saem", "iterations": (300, 0)}, {}, "iterations must be an integer, from 10"),
        ({"method": "saem", "chains": 0}, {}, "chains must be"),
        ({"method": "saem"}, {"starts": 3}, "SAEM goes once from the guess"),
        ({"method": "saem"}, {"max_iterations": 10}, "iterations of SAEM are those"),
    ],
)
def test_what_saem_cannot_use(given, options, said):
    with pytest.raises(rf.InputError, match=said):
        random = rf.Population({"ke": 0.2}, **given)
        rf.fit(replace(wang("proportional"), random=random), WANG_TABLE, **options)


@pytest.mark.parametrize(("score", "done"), [([0.05, -0.08], True), ([0.0, 0.3], False)])
def test_saem_has_converged_where_the_likelihood_rises_no_more(score, done):
    """With errors of 1 and 2 a Newton step of 0.05 and 0.16 standard errors, or of 0.6."""
    known = SimpleNamespace(covariance=np.diag([1.0, 4.0]), lost=np.zeros(2, bool))
    trace = saem.Trace(np.zeros((20, 2)), 10, np.zeros(3))
    origin = Origin(lambda *x: ("", ""), True, [], 0, {}, "", "", trace)
    found = _settled(origin, SimpleNamespace(known=known), 1.0, np.array(score), "Tsit5")
    ended, message = found.ending(False, False)
    assert found.converged is done and found.starts[0].iterations == 20
    assert ended == ("converged" if done else "out of iterations")
    assert done or "over 0.6 standard errors" in message and "more iterations" in message


def test_noise_with_two_parts_moves_by_its_score():
    """Beside the maximum of the likelihood by quadrature."""
    rng = np.random.default_rng(7)
    hours = np.linspace(0.25, 6, 10)
    rates = 0.4 * np.exp(0.3 * rng.standard_normal(12))
    level = 10 * np.exp(-rates[:, None] * hours)
    level += np.sqrt(0.2**2 + (0.1 * level) ** 2) * rng.standard_normal(level.shape)
    data = {"id": np.repeat(np.arange(12), 10), "time": np.tile(hours, 12), "y": level.ravel()}
    model = rf.Model(
        lambda t, y, p, c: {},
        states={},
        parameters={"k": rf.Parameter(0.5, scale="log")},
        observed={"y": lambda t, y, p, c: 10 * jnp.exp(-p["k"] * t)},
        group="id",
        random=rf.Population({"k": 0.4}, method="saem", combined=["y"]),
    )

    def minus(v):
        k, sd, a, b = np.exp(v)
        f = 10 * np.exp(-k * np.exp(sd * GRID)[:, None] * hours)
        variance = a**2 + (b * f) ** 2
        log = -0.5 * ((level[:, None] - f) ** 2 / variance + np.log(variance)).sum(-1)
        top = log.max(1, keepdims=True)
        return -(np.log(np.exp(log - top) @ WEIGHTS) + top[:, 0]).sum()

    most = minimize(minus, np.log([0.4, 0.3, 0.2, 0.1]), method="BFGS")
    u = by_search(model, data)
    assert np.all(np.abs(u - most.x) < 0.15 * np.sqrt(np.diagonal(most.hess_inv)))
    assert minus(u) - most.fun < 0.03


def test_the_folder_of_saem_is_read_again(pairs, tmp_path):
    fit = rf.fit(pairs["normal"], WANG_TABLE)
    fit.write(tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"trace.png", "fit.json", "data.csv"} <= names
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "How SAEM came to rest" in page and f"{fit.objf:.4f} ±" in page
    record = json.loads((tmp_path / "out" / "fit.json").read_text("utf-8"))["population"]
    assert record["approximation"] == "saem" and record["description"]["method"] == "saem"
    back = rf.load_fit(tmp_path / "out", model=pairs["normal"])
    assert (back.objf, back.objf_error, back.message) == (fit.objf, fit.objf_error, fit.message)
    np.testing.assert_array_equal(back.trace.values, fit.trace.values)
    np.testing.assert_array_equal(back.sandwich, fit.sandwich)


def test_the_estimation_by_the_command_line(tmp_path):
    model = population.estimated(wang("normal"), "saem")
    assert (model.random.method, model.random.approximation) == ("saem", "focei")
    model = population.estimated(model, "foce")
    assert (model.random.method, model.random.approximation) == ("approximation", "foce")
    text = '[parameters]\nk = { guess = 0.7 }\n[states]\nx = 1.0\n[equations]\nx = "-k*x"\n'
    text += '[observed]\nx = "x"\n'
    (tmp_path / "model.toml").write_text(text, encoding="utf-8")
    (tmp_path / "data.csv").write_text("time,x\n0,1\n1,0.5\n", encoding="utf-8")
    for how, said in (("saem", "the model has none"), ("sem", "Did you mean 'saem'")):
        files = [str(tmp_path / name) for name in ("model.toml", "data.csv", "out")]
        done = CliRunner().invoke(app, ["fit", *files[:2], "--estimation", how, "--out", files[2]])
        assert done.exit_code == 2 and said in " ".join(done.stderr.split())
        assert not (tmp_path / "out").exists()
