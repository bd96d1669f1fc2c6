"""Information criteria and likelihood ratios, beside closed forms of linear regression."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

import rootflow as rf

T = np.arange(8.0)
X = 2.0 + 0.3 * T + np.array([0.1, -0.2, 0.15, 0.05, -0.1, 0.2, -0.15, 0.02])
DATA = {"time": T, "x": X}


def line(t, y, p):
    return {"x": p["b"] + 0.0 * y["x"]}


def fitted(slope, data=DATA, **more):
    b = rf.Parameter(0.1) if slope else rf.Parameter(0.0, fixed=True)
    return rf.fit(
        line, data, states={"x": rf.Parameter(1.0)}, parameters={"b": b}, starts=1, **more
    )


@pytest.fixture(scope="module")
def both():
    return fitted(False), fitted(True)


def test_a_likelihood_ratio_is_that_of_regression(both):
    """n log of the ratio of the sums of squares."""
    nested, full = both
    test = rf.likelihood_ratio(nested, full)
    rss = np.sum((X - X.mean()) ** 2), np.sum((X - np.polyval(np.polyfit(T, X, 1), T)) ** 2)
    statistic = 8 * np.log(rss[0] / rss[1])
    assert test.statistic == pytest.approx(statistic, rel=1e-6) and test.degrees == 1
    assert test.p == pytest.approx(scipy.stats.chi2.sf(statistic, 1), rel=1e-5)
    assert test.warnings == ()
    doubtful = rf.likelihood_ratio(replace(nested, converged=False, message="Stopped."), full)
    assert doubtful.warnings == ("The nested fit did not converge: Stopped.",)


def test_criteria_and_weights(both):
    nested, full = both
    table = rf.compare({"flat": nested, "line": full})
    assert [row.name for row in table] == ["line", "flat"] and len(table) == 2
    for fit, row, k in ((nested, table["flat"], 2), (full, table["line"], 3)):
        assert row.fitted == k and row.aic == pytest.approx(2 * fit.nll + 2 * k)
        assert row.bic == pytest.approx(2 * fit.nll + k * np.log(8))
        assert row.aicc == pytest.approx(row.aic + 2 * k * (k + 1) / (8 - k - 1))
    difference = nested.aic - full.aic
    assert table["flat"].difference == pytest.approx(difference)
    assert table["flat"].weight == pytest.approx(1 / (1 + np.exp(difference / 2)))
    assert table["line"].weight + table["flat"].weight == pytest.approx(1.0)
    pytest.importorskip("pandas")
    assert table.frame().loc["line", "difference"] == 0.0
    assert "<td>line</td>" in table._repr_html_()
    assert [row.name for row in rf.compare([nested, full])] == ["2", "1"]  # both called "model"
    with pytest.raises(KeyError, match="'cubic' is not among line, flat"):
        table["cubic"]


def test_fits_that_cannot_be_compared(both):
    nested, full = both
    with pytest.raises(
        rf.InputError, match=r"fits 3 numbers.*Give the nested fit first|must fit more"
    ):
        rf.likelihood_ratio(full, nested)
    other = fitted(True, {"time": T, "x": X + 0.01 * T})
    with pytest.raises(rf.InputError, match=r"different data .other measurements"):
        rf.likelihood_ratio(nested, other)
    with pytest.raises(rf.InputError, match="8 and 7 measurements"):
        rf.compare({"a": nested, "b": fitted(True, {"time": T[1:], "x": X[1:]})})
    with pytest.raises(rf.InputError, match="at least two"):
        rf.compare([full])
    with pytest.raises(rf.InputError, match=r"give results of rf.fit"):
        rf.compare({"a": full, "b": 3})  # pyright: ignore[reportArgumentType]
    log = fitted(False, noise="lognormal")
    with pytest.raises(rf.InputError, match=r"lognormal noise in the nested.*rf.compare"):
        rf.likelihood_ratio(log, full)
    with pytest.raises(rf.InputError, match=r"fits worse.*more starts"):
        rf.likelihood_ratio(nested, replace(full, nll=nested.nll + 1.0))
    prior = rf.Prior("normal", 0.0, 1.0)
    held = rf.fit(
        line, DATA, states={"x": rf.Parameter(1.0)}, starts=1,
        parameters={"b": rf.Parameter(0.1, prior=prior)},
    )  # fmt: skip
    with pytest.raises(rf.InputError, match="full model has priors"):
        rf.likelihood_ratio(nested, held)
    with pytest.raises(rf.InputError, match=r"different priors .of b.*without"):
        rf.compare({"flat": nested, "held": held})
    assert len(rf.compare({"one": held, "two": held})) == 2
    given = rf.evaluate(
        line, DATA, values={"b": 0.2}, states={"x": rf.Parameter(1.0)},
        parameters={"b": rf.Parameter(0.1)},
    )  # fmt: skip
    with pytest.raises(rf.InputError, match=r"'given' is from rf.evaluate.*result of rf.fit"):
        rf.compare({"line": full, "given": given})
    with pytest.raises(rf.InputError, match=r"'full' is from rf.evaluate"):
        rf.likelihood_ratio(nested, given)


@pytest.fixture(scope="module")
def population():
    """Levels about a mean of each subject: the likelihood is normal, and FOCEI has no error."""
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(8), 4)
    y = 5.0 + rng.normal(size=8)[who] + 0.5 * rng.normal(size=32)
    model = rf.Model(
        states={}, vector_field=lambda t, y, p, c: {}, parameters={"m": rf.Parameter(4.0)},
        noise={"y": "normal"}, group="who",
        observed={"y": lambda t, y, p, c: p["m"] + 0.0 * t},
        random=rf.Population({"m": 0.8}, approximation="focei"),
    )  # fmt: skip
    return rf.fit(model, {"time": np.tile(np.arange(4.0), 8), "who": who, "y": y}, starts=1)


def test_approximations_are_not_set_against_others(population):
    """As if the same estimates were SAEM's, whose likelihood is by importance sampling."""
    exact = population.likelihood("quadrature")
    n = population.observations
    nll = 0.5 * (exact.objf + n * np.log(2 * np.pi))
    saem = replace(population, approximation="saem", nll=nll, objf_error=0.3)
    fits = {"focei": population, "saem": saem}
    with pytest.raises(
        rf.InputError,
        match=r"'focei' is approximated by FOCEI, and that of 'saem' without.*'importance'",
    ):
        rf.compare(fits)
    table = rf.compare(fits, likelihood="quadrature")
    assert table["focei"].nll == pytest.approx(table["saem"].nll, abs=1e-9)
    assert rf.compare({"a": population, "b": population})["a"].weight == 0.5
    with pytest.raises(rf.InputError, match=r"approximated by FOCEI.*same estimation"):
        rf.likelihood_ratio(population, saem)


def test_a_ratio_of_drawn_likelihoods_tells_its_error(population):
    saem = replace(population, approximation="saem", objf_error=0.3)
    full = replace(saem, free_names=[*saem.free_names, "more"], nll=saem.nll + 0.1, objf_error=0.4)
    test = rf.likelihood_ratio(saem, full)
    assert test.statistic == 0.0 and "the statistic has an error of 0.5" in test.warnings[0]
