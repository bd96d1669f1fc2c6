"""Predictions under other conditions, simulations, data frames."""

import numpy as np
import pytest
import scipy.stats

import rootflow as rf
from rootflow.fitting.forecast import asked_times
from rootflow.fitting.modelfile import model_from_text
from tests.fitting.results import decay as made_by_hand

pd = pytest.importorskip("pandas")

MODEL = """\
model = { name = "dosed", group = "who", covariates = ["dose"], t0 = 0.0 }
states = { x = "dose" }
parameters = { k = { guess = 0.5, lower = 0.01, upper = 10 } }
equations = { x = "-k*x" }
observed = { level = "x" }
"""
TIMES = np.array([1.0, 2.0, 3.0, 1.0, 2.0, 3.0])
DOSE = np.repeat([4.0, 8.0], 3)
LEVEL = DOSE * np.exp(-0.4 * TIMES) + np.array([0.05, -0.04, 0.02, 0.03, -0.05, 0.01])
COLUMNS = {"who": ["a"] * 3 + ["b"] * 3, "time": TIMES, "dose": DOSE, "level": LEVEL}


@pytest.fixture(scope="module")
def fit():
    # A data frame, as it is.
    return rf.fit(model_from_text(MODEL), pd.DataFrame(COLUMNS), starts=1)


def test_new_groups_covariates_and_times(fit):
    """The curve and its band by the chain rule, Student's t with n - p degrees of freedom."""
    table = {"who": ["z", "z", "z", "a"], "time": [0.0, 5.0, 1.0, 2.0], "dose": [10.0] * 3 + [1.0]}
    there = fit.under(data=pd.DataFrame(table))
    assert there.dataset.groups == ["z", "a"] and there.dataset.observations == 0
    ts, dose = np.array([[0.0, 1.0, 5.0], [2.0, 2.0, 2.0]]), np.array([[10.0], [1.0]])
    np.testing.assert_array_equal(there.dataset.ts, ts)
    k, se = fit["k"], fit.estimates[0].se
    exact = dose * np.exp(-k * ts)
    mean, low, high = there.predict(noise=False)["level"]
    np.testing.assert_allclose(mean, exact, rtol=1e-7)
    reach = scipy.stats.t.ppf(0.975, 5) * ts * exact * se
    np.testing.assert_allclose((high - low) / 2, reach, rtol=1e-5, atol=1e-9)
    wide = there.predict()["level"]
    s2 = fit.rss / 5
    both = scipy.stats.t.ppf(0.975, 5) * np.sqrt((ts * exact * se) ** 2 + s2)
    np.testing.assert_allclose((wide[2] - wide[1]) / 2, both, rtol=1e-5)
    other = fit.predict([5.0], data=table, noise=False)["level"][0]
    np.testing.assert_allclose(other, dose * np.exp(-5 * k), rtol=1e-7)
    frame = there.frame(noise=False)
    assert list(frame.columns) == ["who", "time", "column", "predicted", "lower", "upper"]
    np.testing.assert_allclose(frame["predicted"], exact.ravel(), rtol=1e-7)


def test_what_is_measured_in_a_new_table_is_kept(fit):
    table = {**COLUMNS, "level": [1.0, None, 3.0, None, None, None]}
    data = fit.under(data=table).dataset
    assert data.observations == 2 and np.nansum(data.values["level"]) == 4.0
    assert fit.under(data={**COLUMNS, "level": [None] * 6}).dataset.observations == 0


def test_groups_with_parameters_of_their_own_go_by_their_labels():
    def f(t, y, p):
        return {"x": -p["k"] * y["x"]}

    both = rf.fit(
        f, {"time": TIMES, "x": LEVEL / DOSE, "who": COLUMNS["who"]}, group="who", starts=1,
        states={"x": 1.0}, parameters={"k": rf.Parameter(0.5, 0.01, 10, per_group=True)},
    )  # fmt: skip
    # The fit started at t = 1, its first time, and so do the rows of the new table.
    mean = both.predict(data={"time": [4.0], "who": ["b"]}, noise=False)["x"][0]
    np.testing.assert_allclose(mean, [[np.exp(-3 * both["k[b]"])]], rtol=1e-7)
    with pytest.raises(rf.InputError, match=r"group 'c' was not in the fit.*its own k.*'a', 'b'"):
        both.predict(data={"time": [4.0], "who": ["c"]})
    # Other doses: one time unit later, half as much again.
    dosed = both.predict([1.5, 3.0], doses=[rf.Dose(2.0, "x", 0.5)], noise=False)["x"][0]
    k = np.array([[both["k[a]"]], [both["k[b]"]]])
    exact = np.exp(-k * [0.5, 2.0]) + np.array([0.0, 0.5]) * np.exp(-k)
    np.testing.assert_allclose(dosed, exact, rtol=1e-7)
    with pytest.raises(rf.InputError, match="dose into 'x' at time -1 lies before the start"):
        both.predict([1.0], doses=[rf.Dose(-1.0, "x", 0.5)])
    with pytest.raises(rf.InputError, match="doses holds 3"):
        both.predict([1.0], doses=3)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        ({}, "no times; give ts, or a table"),
        ({"data": {"who": ["z"], "time": [1.0]}}, "there is no column 'dose'"),
        ({"data": {"who": ["z"], "dose": [1.0]}}, "there is no column 'time'"),
        ({"data": [1.0]}, "give a dictionary"),
        ({"data": {"who": ["z"], "time": [1.0], "dose": [1], "level": ["x"]}}, "is not a number"),
    ],
)
def test_tables_that_cannot_be_used(fit, ask, said):
    with pytest.raises(rf.InputError, match=said):
        fit.predict(**ask)


def test_simulations():
    model = model_from_text(MODEL)
    table = {"who": ["z", "y"], "time": [2.0, 1.0], "dose": [10.0, 2.0]}
    there = rf.simulate(model, [1.0, 3.0], data=table, values={"k": 0.2})
    assert there.values == {"k": pytest.approx(0.2)} and there.dataset.groups == ["z", "y"]
    exact = np.array([[10.0], [2.0]]) * np.exp(-0.2 * np.array([1.0, 3.0]))
    np.testing.assert_allclose(there["level"], exact, rtol=1e-7)
    with pytest.raises(rf.InputError, match="takes dose from a table: give one by data"):
        rf.simulate(model, [1.0])
    with pytest.raises(rf.InputError, match="k = 11, outside of its bounds"):
        rf.simulate(model, data=table, values={"k": 11.0})


def test_a_function_is_simulated_from_its_first_time():
    def f(t, y, p):
        return {"x": y["v"], "v": -(p["w"] ** 2) * y["x"]}

    made = {"states": {"x": 1.0, "v": 0.0}, "parameters": {"w": rf.Parameter(2.0, 0.1, 9.0)}}
    ts = np.array([0.0, 0.5, 1.5])
    there = rf.simulate(f, ts, **made)
    np.testing.assert_allclose(there["x"][0], np.cos(2 * ts), atol=1e-6)
    np.testing.assert_allclose(there["v"][0], -2 * np.sin(2 * ts), atol=1e-6)
    with pytest.raises(rf.InputError, match="There are no times"):
        rf.simulate(f, **made)
    explode = {"states": {"x": 1.0}, "parameters": {"w": rf.Parameter(2.0)}}
    with pytest.raises(rf.SolveError, match="could not be solved over the times"):
        rf.simulate(lambda t, y, p: {"x": p["w"] * y["x"] ** 2}, [0.0, 1.0], **explode)


def test_times_of_the_command_line(tmp_path):
    model = model_from_text(MODEL)
    np.testing.assert_allclose(asked_times("0:48:5", model), [0, 12, 24, 36, 48])
    np.testing.assert_allclose(asked_times("3,1,1e1", model), [1, 3, 10])
    (tmp_path / "t.csv").write_text("time,other\n2,a\n1,b\n2,c\n", "utf-8")
    np.testing.assert_allclose(asked_times(str(tmp_path / "t.csv"), model), [1, 2])
    (tmp_path / "u.csv").write_text("hours\n4\n", "utf-8")
    np.testing.assert_allclose(asked_times(str(tmp_path / "u.csv"), model), [4])
    for text in ("soon", "0:1", "1:0:5", "0:1:1", "0:inf:5", "0:1:2.5", "0:1:999999999", "nan"):
        with pytest.raises(rf.InputError, match="START:STOP:COUNT"):
            asked_times(text, model)
    with pytest.raises(rf.InputError, match=r"no such file|does not exist|not there"):
        asked_times(str(tmp_path / "none.csv"), model)


def test_frames_and_notebooks(fit):
    frame = fit.frame()
    assert frame.loc["k", "value"] == fit["k"] and frame.loc["noise of level", "kind"] == "scale"
    assert fit.frame("residuals")["observed"].tolist() == pytest.approx(LEVEL.tolist())
    with pytest.raises(rf.InputError, match="'estimates' and 'residuals'"):
        fit.frame("all")  # pyright: ignore[reportArgumentType]
    shown = made_by_hand(("low", "high"))._repr_html_()
    assert "The data do not determine x &lt;at all&gt;." in shown and "on its upper bound" in shown
    assert "<td>0.500</td>" in shown and "<script" not in shown
    assert "converged" in fit._repr_html_()


def test_without_pandas_it_says_so(fit, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(rf.InputError, match="needs pandas"):
        fit.frame()


def test_a_fit_is_simulated_at_what_was_fitted():
    """Groups that the fit did not have need values of their own."""
    ts = np.arange(4.0)
    table = {
        "time": np.tile(ts, 2), "who": np.repeat(["a", "b"], 4),
        "x": np.concatenate([3 * np.exp(-0.5 * ts), 3 * np.exp(-0.2 * ts)]),
    }  # fmt: skip
    fit = rf.fit(
        lambda t, y, p: {"x": -p["k"] * y["x"]}, table, group="who", starts=1, noise="lognormal",
        states={"x": rf.Parameter(2.0, scale="log")},
        parameters={"k": rf.Parameter(0.3, scale="log", per_group=True)},
    )  # fmt: skip
    curves = rf.simulate(fit)["x"]
    np.testing.assert_allclose(curves, table["x"].reshape(2, 4), rtol=1e-5)
    one = rf.simulate(fit, [2.0], data={"time": [0.0], "who": ["b"]}, values={"x": 1.0})["x"]
    np.testing.assert_allclose(one, [[np.exp(-0.4)]], rtol=1e-5)
    other = {"time": [0.0], "who": ["c"]}
    with pytest.raises(rf.InputError, match=r"'c' was not in the fit.*--set k\[c\]=VALUE"):
        rf.simulate(fit, [2.0], data=other)
    np.testing.assert_allclose(
        rf.simulate(fit, [2.0], data=other, values={"k": 0.5, "x": 1.0})["x"], [[np.exp(-1.0)]],
        rtol=1e-6,
    )  # fmt: skip
