"""Population fits beside the answers of NONMEM's and nlme's users, and what they leave behind."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

import rootflow as rf
from rootflow.cli.main import app
from rootflow.fitting import population
from rootflow.fitting.population.figures import predictive_check
from tests.fitting.population.populations import by_rate_constants, theophylline


@pytest.fixture(scope="module")
def fit():
    model, table = theophylline({"ka": 0.6, "cl": 0.3, "v": 0.2})
    return rf.fit(model, table)


def test_theophylline_by_focei(fit):
    assert fit.converged and fit.outcome == "converged"
    assert fit.observations == 132
    assert fit.objf == pytest.approx(116.8034, abs=5e-4)
    assert 2 * fit.nll == pytest.approx(fit.objf + 132 * np.log(2 * np.pi), rel=1e-12)
    assert fit.aic == pytest.approx(2 * fit.nll + 14, rel=1e-12)
    assert fit.bic == pytest.approx(2 * fit.nll + 7 * np.log(132), rel=1e-12)
    assert fit.subject_nll.sum() + 66 * np.log(2 * np.pi) == pytest.approx(fit.nll)
    assert np.log(fit["ka"]) == pytest.approx(0.4655, abs=2e-3)
    assert np.log(fit["cl"]) == pytest.approx(1.012, abs=1e-3)
    assert np.log(fit["v"]) == pytest.approx(3.460, abs=1e-3)
    cv = 100 * np.sqrt(np.expm1([fit[f"sd({name})"] ** 2 for name in fit.effects]))
    np.testing.assert_allclose(cv, [70.4, 26.8, 13.9], atol=0.1)
    assert fit.scales["concentration_mg_per_l"] == pytest.approx(0.694, abs=1e-3)


def test_errors_and_intervals(fit):
    rows = {e.name: e for e in fit.estimates}
    assert len(fit.free_names) == 7 == len(fit.covariance)
    for name in fit.effects:
        e = rows[name]
        assert e.lower * e.upper == pytest.approx(e.value**2)
        assert np.log(e.upper / e.value) == pytest.approx(1.959964 * e.se / e.value, rel=1e-5)
    sandwich = np.sqrt(np.diagonal(fit.sandwich))
    plain = np.sqrt(np.diagonal(fit.covariance))
    assert (
        np.all(sandwich > 0) and np.all(sandwich / plain < 3) and np.all(sandwich / plain > 1 / 3)
    )


def test_subjects(fit):
    assert fit.etas.shape == (12, 3)
    np.testing.assert_allclose(
        fit.individuals["ka"], fit["ka"] * np.exp(fit.etas[:, 0]), rtol=1e-12
    )
    assert np.abs(fit.etas.mean(0)).max() < 0.05
    for k, name in enumerate(fit.effects):
        sd = np.sqrt(fit.omega[k, k])
        assert fit.eta_shrinkage[name] == pytest.approx(1 - fit.etas[:, k].std(ddof=1) / sd)
        assert 0 < fit.eta_shrinkage[name] < 0.25
    assert all(abs(x) < 0.15 for x in fit.epsilon_shrinkage.values())
    r = fit.residuals
    assert len(r) == 132
    s = fit.scales["concentration_mg_per_l"]
    assert r[5].residual == pytest.approx((r[5].observed - r[5].predicted) / s)


def test_predictions_of_subjects_and_of_the_typical_one(fit):
    ts = [1.0, 8.0]
    (mean, low, high) = fit.predict(ts, noise=False)["concentration_mg_per_l"]
    ka, cl, v = (fit.individuals[name] for name in ("ka", "cl", "v"))
    c = fit.dataset.covariates
    dose, ke = c["dose_mg_per_kg"] * c["weight_kg"], cl / v
    for k, t in enumerate(ts):
        value = dose * ka / (v * (ka - ke)) * (np.exp(-ke * t) - np.exp(-ka * t))
        np.testing.assert_allclose(mean[:, k], value, rtol=1e-10)
    assert np.all(low < mean) and np.all(mean < high)
    wide = fit.predict(ts)["concentration_mg_per_l"]
    assert np.all(wide[2] - wide[1] > high - low)
    typical = fit.predict_typical([0.0])["concentration_mg_per_l"]
    assert typical.shape == (12, 1) and np.abs(typical).max() < 1e-12


def test_the_exact_likelihood_and_simulated_populations(fit):
    exact = fit.likelihood(samples=2000)
    assert exact.error < 0.3 and abs(exact.objf - fit.objf) < 2.0
    with pytest.raises(rf.InputError, match="one or two"):
        fit.likelihood("quadrature")
    with pytest.raises(rf.InputError, match="importance"):
        fit.likelihood("sampling")
    with pytest.raises(rf.InputError, match="positive integer"):
        fit.simulate(0)
    drawn = fit.simulate(300, seed=1)["concentration_mg_per_l"]
    assert drawn.shape == (300, 12, 11)
    # at time 0 there is nothing but noise
    assert np.std(drawn[:, :, 0]) == pytest.approx(fit.scales["concentration_mg_per_l"], rel=0.05)
    check = predictive_check(fit, 100, 0)["concentration_mg_per_l"]
    inside = (check.lower[1] <= check.observed[1]) & (check.observed[1] <= check.upper[1])
    assert inside.mean() > 0.7


def test_the_folder(fit, tmp_path):
    fit.write(tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "fit.json", "predictions.csv", "individuals.csv", "fit.png", "observed.png", "vpc.png",
        "residuals.png", "report.html", "data.csv",
    }  # fmt: skip
    record = json.loads((tmp_path / "out" / "fit.json").read_text())
    assert record["population"]["objective_function"] == pytest.approx(fit.objf)
    assert len(record["population"]["individuals"]) == 12
    lines = (tmp_path / "out" / "individuals.csv").read_text().splitlines()
    assert lines[0] == "subject,ka,cl,v,eta_ka,eta_cl,eta_v" and len(lines) == 13
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Visual predictive check" in page and "116.8034" in page


# What nlme of R (Pinheiro and Bates) finds for these data with Omega full, by its SSfol: logarithms
# of the typical ke, ka and cl; standard deviations of their effects; sigma; log-likelihood.
NLME = [-2.433, 0.451, -3.214], [0.131, 0.638, 0.251], 0.6818, -173


def test_theophylline_with_a_full_omega_beside_nlme():
    """nlme maximises, in turn, over the modes and over a linear mixed model about them.

    Where that ends need not be the maximum of the likelihood that it prints, which is that of FOCE
    (Lindstrom and Bates 1990): its derivative through the modes is left out. So ours is the larger
    one, and the estimates differ by a fraction of their standard errors.
    """
    names, (fixed, sd, sigma, printed) = ("ke", "ka", "cl"), NLME
    random = dict(zip(names, (0.2, 0.6, 0.3), strict=True))
    model, table = by_rate_constants(rf.Population(random, correlated="all", approximation="foce"))
    fit = rf.fit(model, table)
    assert fit.converged
    # nlme prints three digits; the maximum of FOCE lies 0.07 above FOCE at nlme's estimates.
    assert -fit.nll == pytest.approx(printed, abs=0.5)
    typical = np.log([fit[name] for name in names])
    # a third of a standard error: these are 0.06, 0.2 and 0.08
    np.testing.assert_allclose(typical, fixed, atol=0.025)
    # of 12 subjects a standard deviation has an error of a fifth; 3 % is far inside
    np.testing.assert_allclose(np.sqrt(np.diagonal(fit.omega)), sd, rtol=0.03)
    assert fit.scales["concentration_mg_per_l"] == pytest.approx(sigma, rel=0.005)

    # FOCE at what nlme found is what nlme prints, and less than what we found.
    correlation = fit.omega / np.sqrt(np.outer(np.diagonal(fit.omega), np.diagonal(fit.omega)))
    omega = correlation * np.outer(sd, sd) + 1e-5 * np.eye(3)
    there, _ = by_rate_constants(
        rf.Population(dict.fromkeys(names), omega=omega, approximation="foce"),
        noise={"concentration_mg_per_l": rf.Noise(scale=sigma)},
        guess=np.exp(fixed).tolist(),
    )
    theirs = -(population.objf(there, table).objf + 132 * np.log(2 * np.pi)) / 2
    assert theirs == pytest.approx(printed, abs=0.5) and theirs < -fit.nll

    # The effect of cl follows from those of ke and ka; its standard deviation is not nothing.
    assert correlation[0, 2] > 0.98
    assert any("cl follows from that of ke and ka" in warning for warning in fit.warnings)
    assert not any("went to nothing" in warning for warning in fit.warnings)


MODEL = """\
[model]
name = "decline"
group = "id"
{head}
[parameters]
ke = {{ guess = 0.5, lower = 0.01, upper = 5.0, scale = "log"{more} }}
a = {{ guess = 10.0, fixed = true }}

[observed]
y = "a*exp(-ke*t)"

[noise]
kind = "proportional"

[random]
{random}
"""
ROWS = ["1,0,10.68", "1,1,3.6837", "2,0,10.4", "2,1,6.45", "3,0,9.9", "3,1,5.86", "4,0,9.3",
        "4,1,5.6"]  # fmt: skip


def run(folder, random="ke = 0.2", rows=ROWS, header="id,time,y", head="", more=""):
    text = MODEL.format(random=random, head=head, more=more)
    (folder / "model.toml").write_text(text, encoding="utf-8")
    (folder / "data.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    out = folder / "out"
    arguments = ["fit", str(folder / "model.toml"), str(folder / "data.csv"), "--out", str(out)]
    return CliRunner().invoke(app, arguments), out


def test_a_population_from_files_without_equations(tmp_path):
    done, out = run(tmp_path)
    assert done.exit_code == 0, done.output
    assert "sd(ke)" in done.stdout and "objective function" in done.stdout
    record = json.loads((out / "fit.json").read_text())
    assert [e["name"] for e in record["estimates"]] == ["ke", "sd(ke)", "y", "a"]
    assert record["population"]["effects"] == ["ke"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"random": "a = 0.2"}, "fixed at 10"),
        ({"random": "kel = 0.2"}, "Did you mean"),
        ({"random": "ke = -0.2"}, "positive number"),
        ({"random": 'ke = { sd = 0.2, distribution = "gamma" }'}, "must be one of"),
        ({"random": "ke = { fixed = true }"}, "give the value to hold"),
        ({"random": "ke = 0.2\n[population]\nomega = [[-0.1]]"}, "the sd of 'ke' too"),
        ({"random": "ke = {}\n[population]\nomega = [[-0.1]]"}, "not positive definite"),
        ({"random": "ke = {}\n[population]\nomega = [[0.1, 0.0]]"}, "must be 1 x 1"),
        ({"random": 'ke = 0.2\n[population]\napproximation = "saem"'}, "focei"),
        ({"random": 'ke = 0.2\n[population]\ncorrelated = [["ke", "v"]]'}, "no random effect"),
        ({"random": 'ke = 0.2\n[population]\ncombined = ["y"]'}, "combined noise adds"),
        ({"more": ", per_group = true"}, "take per_group away"),
        ({"rows": ROWS[:2]}, "one id only"),
        ({"rows": [*ROWS, "5,0,"]}, "id '5' has no measurements"),
        (
            {"head": 'covariates = ["w"]', "header": "id,time,y,w",
             "rows": [f"{row},{'' if row[0] == '3' else 70}" for row in ROWS]},
            "covariate 'w' of group '3' has no value",
        ),
    ],
)  # fmt: skip
def test_what_a_population_cannot_be_is_refused_with_exit_code_2(tmp_path, change, message):
    done, out = run(tmp_path, **change)
    assert done.exit_code == 2, done.output
    assert message in " ".join(done.stderr.split())
    assert done.stdout == "" and not out.exists()


def test_what_python_may_not_ask():
    model, table = theophylline({"ka": 0.5, "cl": 0.3})
    with pytest.raises(rf.InputError, match="devices are not there"):
        rf.fit(model, table, devices=[])
    with pytest.raises(rf.InputError, match="profile"):
        rf.fit(model, table, profile=True)
    with pytest.raises(rf.InputError, match="dictionary"):
        rf.fit(model, table, random={})
    with pytest.raises(rf.InputError, match="not positive definite"):
        rf.Population({"ka": None, "cl": None}, omega=[[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(rf.InputError, match="symmetric"):
        rf.Population({"ka": None, "cl": None}, omega=[[1.0, 0.5], [0.2, 1.0]])
    with pytest.raises(rf.InputError, match="must stand alone"):
        rf.Population({"ka": rf.RandomEffect(0.5, fixed=True), "cl": 0.3}, correlated="all")
    with pytest.raises(rf.InputError, match="lists of names"):
        rf.Population({"ka": 0.5, "cl": 0.3}, correlated=["ka", "cl"])
    still = lambda t, y, p, c: {"s": 0.0}
    noise = {"concentration_mg_per_l": "laplace"}
    laplace = replace(model, random=None, states={"s": 0.0}, vector_field=still, noise=noise)
    with pytest.raises(rf.InputError, match="is laplace; with random effects"):
        rf.fit(laplace, table, random={"ka": 0.5})
    with pytest.raises(rf.InputError, match="no states"):
        replace(model, random=None)
    with pytest.raises(rf.InputError, match="one of them is missing"):
        rf.fit(model, table, random={"ka": rf.RandomEffect(0.5, "logitnormal")})
