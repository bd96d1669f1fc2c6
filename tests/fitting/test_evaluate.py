"""Evaluation at given values, and fits that are read again from their folders."""

import json
import shutil

import numpy as np
import pytest

import rootflow as rf
from rootflow.fitting.store import table_text
from rootflow.fitting.table import load_table
from tests.fitting.results import decay as made_by_hand

MODEL = """\
[model]
name = "decay"
group = "who"

[states]
x = { guess = 4.0, lower = 0.1, upper = 9 }

[parameters]
k = { guess = 0.7, lower = 0.01, upper = 10.0, scale = "log", per_group = true }
c = { guess = 1.0, fixed = true }

[equations]
x = "-k*x"

[observed]
x = "c*x"

[noise]
kind = "lognormal"
"""
DATA = """\
# a comment
who,time,x,note

a,0,4.1,"two
lines"
a,1,2.3,
a,2,1.6,
a,3,-,
# another
b,0,3.9,
b,2,2.4,
b,4,1.1,
"""
TIMES = np.array([0.0, 1.0, 2.0, 0.0, 2.0, 4.0])
LEVEL = np.array([4.1, 2.3, 1.6, 3.9, 2.4, 1.1])
GROUP = np.array([0, 0, 0, 1, 1, 1])


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    desk = tmp_path_factory.mktemp("desk")
    (desk / "model.toml").write_text(MODEL, encoding="utf-8")
    (desk / "data.csv").write_text(DATA, encoding="utf-8")
    table = load_table(desk / "data.csv", missing=("-",))
    fit = rf.fit(desk / "model.toml", table, starts=2, profile=True)
    fit.write(desk / "fit")
    return desk, fit


def nll(x, k):
    """Of lognormal data about x exp(-k t), the scale at its best."""
    r = np.log(LEVEL) - np.log(x) + np.asarray(k)[GROUP] * TIMES
    return 3 * (np.log(2 * np.pi * np.mean(r**2)) + 1) + np.log(LEVEL).sum()


def test_the_likelihood_at_given_values(desk):
    folder, _ = desk
    table = load_table(folder / "data.csv", missing=("-",))
    there = rf.evaluate(folder / "model.toml", table, values={"k": 0.4, "k[b]": 0.3, "c": 1.0})
    assert (there["x"], there["k[a]"], there["k[b]"]) == pytest.approx((4.0, 0.4, 0.3), rel=1e-12)
    assert there.nll == pytest.approx(nll(4.0, [0.4, 0.3]), abs=1e-6)
    assert (there.converged, there.outcome, there.starts) == (False, "evaluated", [])
    assert "not fitted" in there.warnings[0] and "evaluated" in there.method
    mean = there.predict([1.0], noise=False)["x"][0]
    np.testing.assert_allclose(mean[:, 0], 4 * np.exp([-0.4, -0.3]), rtol=1e-7)
    doubled = rf.evaluate(folder / "model.toml", table, values={"k": 0.4, "x": 2.0, "c": 2.0})
    assert doubled.nll == pytest.approx(nll(4.0, [0.4, 0.4]), abs=1e-6)
    assert rf.evaluate(folder / "model.toml", table).nll == pytest.approx(nll(4.0, [0.7, 0.7]))


def test_at_the_estimates_it_is_the_fit(desk):
    _, fit = desk
    values = {name: fit[name] for name in fit.free_names}
    there = rf.evaluate(fit.model, fit.dataset, values=values)
    assert there.nll == pytest.approx(fit.nll, abs=1e-9)
    np.testing.assert_allclose(there.covariance, fit.covariance, rtol=1e-5)
    assert (there.aic, there.bic) == pytest.approx((fit.aic, fit.bic))
    # Three rates and levels, one scale.
    assert fit.fitted_numbers == 4 and fit.aic == pytest.approx(2 * fit.nll + 8)
    assert fit.bic == pytest.approx(2 * fit.nll + 4 * np.log(6))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kk": 1.0}, "no parameter or fitted initial value. Did you mean 'k'"),
        ({"k[c]": 1.0}, r"'k\[c\]', which is no parameter"),
        ({"k": -1.0}, r"k = -1, outside of its bounds \[0.01, 10\]"),
        ({"k[a]": 11.0}, r"k\[a\] = 11, outside"),
        ({"x": "four"}, "values has 'x', and it is 'four'; give a number"),
        ({"c": np.inf}, "values has 'c'"),
        ([1.0], "dictionary from name to number"),
    ],
)
def test_values_that_cannot_be_used(desk, values, said):
    _, fit = desk
    with pytest.raises(rf.InputError, match=said):
        rf.evaluate(fit.model, fit.dataset, values=values)


def test_where_the_model_cannot_be_solved_it_says_so():
    with pytest.raises(rf.InputError, match="at these values"):
        rf.evaluate(
            lambda t, y, p: {"x": p["k"] * y["x"] ** 2}, {"time": [0.0, 2.0], "x": [1.0, 2.0]},
            states={"x": 1.0}, parameters={"k": rf.Parameter(0.1)}, values={"k": 1.0},
        )  # fmt: skip


def test_a_written_fit_is_read_again(desk):
    folder, fit = desk
    shutil.copytree(folder / "fit", folder / "moved", dirs_exist_ok=True)
    other = rf.load_fit(folder / "moved")
    for mine, theirs in zip(fit.estimates, other.estimates, strict=True):
        assert (mine.name, mine.group, mine.kind) == (theirs.name, theirs.group, theirs.kind)
        for name in ("value", "se", "lower", "upper"):
            assert getattr(theirs, name) == pytest.approx(getattr(mine, name), rel=1e-6)
        assert theirs.profile == mine.profile
    for name in ("outcome", "warnings", "seed", "method", "starts", "solver", "model_text"):
        assert getattr(other, name) == getattr(fit, name), name
    assert other.converged and other.observations == 6
    ts = [0.5, 7.0]
    np.testing.assert_allclose(other.predict(ts)["x"], fit.predict(ts)["x"], rtol=1e-6)
    # Rows keep the lines that they had in the file of the user, a cell of two lines before them.
    assert [r.row for r in other.residuals] == [r.row for r in fit.residuals]
    assert [r.row for r in other.residuals][:2] == [4, 6]
    other.write(folder / "again")
    text = (folder / "again" / "data.csv").read_text("utf-8")
    assert text == (folder / "fit" / "data.csv").read_text("utf-8")


def test_what_has_changed_since_the_fit_is_noticed(desk):
    folder, _ = desk
    shutil.copytree(folder / "fit", folder / "changed", dirs_exist_ok=True)
    data = (folder / "fit" / "data.csv").read_text("utf-8")
    (folder / "changed" / "data.csv").write_text(data.replace('"2.3"', '"2.8"'), "utf-8")
    with pytest.raises(rf.InputError, match="changed after the fit"):
        rf.load_fit(folder / "changed")
    (folder / "changed" / "model.toml").unlink()
    with pytest.raises(rf.InputError, match=r"model.toml"):
        rf.load_fit(folder / "changed")


def test_folders_that_hold_no_fit_to_read(tmp_path):
    with pytest.raises(rf.InputError, match="holds no fit; give the folder"):
        rf.load_fit(tmp_path)
    made_by_hand(("low",)).write(tmp_path / "python")
    with pytest.raises(rf.InputError, match=r"model from Python.*model=.*pickle"):
        rf.load_fit(tmp_path / "python")
    record = json.loads((tmp_path / "python" / "fit.json").read_text("utf-8"))
    del record["files"]
    (tmp_path / "python" / "fit.json").write_text(json.dumps(record), "utf-8")
    with pytest.raises(rf.InputError, match="kept too little"):
        rf.load_fit(tmp_path / "python")


def test_tables_are_written_as_they_are_read(tmp_path):
    """Numbers with all digits; labels, blanks, quotes, a cell that looks like a comment."""
    columns = {"#who": ["# 1", 'say "a"', "c,d"], "x": [0.1 + 0.2, np.nan, 3.0], "n": [1, 2, None]}
    from rootflow.tables.table import table_from_columns

    (tmp_path / "t.csv").write_text(table_text(table_from_columns(columns)), "utf-8")
    other = load_table(tmp_path / "t.csv")
    assert other.columns["#who"] == columns["#who"]
    np.testing.assert_array_equal(other.numbers("x"), [0.1 + 0.2, np.nan, 3.0])
    np.testing.assert_array_equal(other.numbers("n"), [1.0, 2.0, np.nan])
