"""Predictions and simulations of populations beside laws that are known in closed form."""

import csv
import json
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm
from typer.testing import CliRunner

import rootflow as rf
from rootflow.cli.main import app
from rootflow.fitting.modelfile import model_from_text

SD, NOISE = np.array([0.5, 0.4]), 0.3
TABLE = {
    "id": np.repeat(["a", "b", "c", "d"], [4, 4, 3, 2]),
    "time": np.array([0.0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 0, 3]),
    "w": np.repeat([1.0, 2.0, 1.5, 1.0], [4, 4, 3, 2]),
    "y": np.array([1.1, 1.9, 3.2, 3.8, 1.4, 2.1, 3.2, 2.9, 2.4, 4.3, 6.0, 0.9, 3.5]),
}


def line():
    """y = w a + b t; a and b normal with known standard deviations: everything is normal."""
    return rf.Model(
        lambda t, y, p, c: {},
        states={},
        parameters={"a": rf.Parameter(1.0), "b": rf.Parameter(0.8)},
        observed={"y": lambda t, y, p, c: p["a"] * c["w"] + p["b"] * t},
        noise={"y": rf.Noise(scale=NOISE)},
        group="id",
        covariates=("w",),
        random={name: rf.RandomEffect(sd, fixed=True)
                for name, sd in zip("ab", SD, strict=True)},
    )  # fmt: skip


@pytest.fixture(scope="module")
def fit():
    return rf.fit(line(), TABLE)


def mixed_model_equations():
    """Solution and prediction error covariance of typical values and effects (Henderson 1975).

    Coordinates: a, b, then the effects of each subject in turn.
    """
    labels = list(dict.fromkeys(TABLE["id"]))
    design = np.stack([TABLE["w"], TABLE["time"]], 1)
    own = np.zeros((len(design), 2 * len(labels)))
    for row, label in enumerate(TABLE["id"]):
        k = labels.index(label)
        own[row, 2 * k : 2 * k + 2] = design[row]
    both = np.concatenate([design, own], 1) / NOISE
    penalty = np.diag(np.concatenate([[0, 0], np.tile(1 / SD**2, len(labels))]))
    covariance = np.linalg.inv(both.T @ both + penalty)
    return covariance @ (both.T @ TABLE["y"] / NOISE), covariance


def test_subjects_and_typical_ones_are_those_of_hendersons_equations(fit):
    found, covariance = mixed_model_equations()
    assert [fit["a"], fit["b"]] == pytest.approx(found[:2], rel=1e-6)
    ts = np.array([0.5, 5.0])
    mean, _, high = fit.predict(ts, noise=False)["y"]
    measured = fit.predict(ts)["y"]
    typical = fit.under().predict_typical(ts)["y"]
    for g, w in enumerate([1.0, 2.0, 1.5, 1.0]):
        for k, t in enumerate(ts):
            way = np.zeros(10)
            way[:2] = w, t
            assert typical[0][g, k] == pytest.approx(way @ found, rel=1e-6)
            half = 1.959964 * np.sqrt(way @ covariance @ way)
            assert typical[2][g, k] - typical[0][g, k] == pytest.approx(half, rel=1e-5)
            way[2 + 2 * g : 4 + 2 * g] = w, t
            assert mean[g, k] == pytest.approx(way @ found, rel=1e-6)
            variance = way @ covariance @ way
            assert high[g, k] - mean[g, k] == pytest.approx(1.959964 * np.sqrt(variance), rel=1e-5)
            half = 1.959964 * np.sqrt(variance + NOISE**2)
            assert measured[0][g, k] - measured[1][g, k] == pytest.approx(half, rel=1e-5)


def test_drawn_subjects_differ_as_the_population_and_its_errors_say(fit):
    found, covariance = mixed_model_equations()
    table = {"id": ["b", "new"], "time": [4.0, 4.0], "w": [2.0, 3.0]}
    there = fit.under(data=table)
    assert there.new == ("new",)
    drawn = there.predict_population(draws=20_000, seed=3)["y"]
    way = np.array([[2.0, 4.0], [3.0, 4.0]])
    middle = way @ found[:2]
    spread = np.einsum("ga,ab,gb->g", way, covariance[:2, :2] + np.diag(SD**2), way)
    for interval, more in ((drawn.curve, 0.0), (drawn.measured, NOISE**2)):
        reach = norm.ppf(0.975) * np.sqrt(spread + more)
        # the 97.5 % quantile of 20,000 normal draws has a standard error of 1 % of the reach
        for found_end, end in zip(interval, (middle, middle - reach, middle + reach), strict=True):
            np.testing.assert_allclose(found_end[:, 0], end, atol=0.04 * reach.max())
    again = there.predict_population(draws=20_000, seed=3)["y"]
    np.testing.assert_array_equal(again.measured, drawn.measured)
    mean, low, high = there.predict(noise=False, draws=20_000, seed=3)["y"]
    # The known subject is that of the fit; the new one is drawn.
    own = fit.predict([4.0], noise=False)["y"]
    for mine, theirs, ours in zip((mean, low, high), own, drawn.curve, strict=True):
        assert mine[0, 0] == pytest.approx(theirs[1, 0], rel=1e-9) and mine[1, 0] == ours[1, 0]
    assert [x.shape for x in fit.under(subjects=["d", "a"]).predict([1.0, 2.0])["y"]] == [
        (2, 2)
    ] * 3
    np.testing.assert_allclose(
        fit.under(subjects=["d"]).predict([1.0])["y"][0], fit.predict([1.0])["y"][0][3:]
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"subjects": ["z"]}, "no subject 'z'; there are a, b, c, d"),
        ({"subjects": []}, "list of labels"),
        ({"data": {"id": ["n"], "time": [1.0]}}, "'w'"),
        ({"data": {"id": ["n"], "time": [1.0], "w": [np.nan]}}, "'w' of group 'n' has no value"),
        ({"data": {"id": ["n"], "time": [-1.0], "w": [1.0]}}, "before the start"),
    ],
)
def test_what_cannot_be_predicted_is_said(fit, given, said):
    with pytest.raises(rf.InputError, match=said):
        fit.under(**given)


def test_times_and_draws_that_cannot_be_used(fit):
    there = fit.under()
    with pytest.raises(rf.InputError, match="finite"):
        there.predict([np.inf])
    with pytest.raises(rf.InputError, match="draws must be an integer, from 20"):
        there.predict_population([1.0], draws=3)
    with pytest.raises(rf.InputError, match="seed must be"):
        there.predict_population([1.0], seed=-1)


def test_simulated_subjects_are_lognormal():
    """a exp(-k t), k lognormal: quantiles of the curve are the curve of the quantiles of k."""
    model = rf.Model(
        lambda t, y, p, c: {},
        states={},
        parameters={"k": rf.Parameter(0.5, 0.01, 10.0, scale="log"),
                    "a": rf.Parameter(10.0, fixed=True)},
        observed={"y": lambda t, y, p, c: p["a"] * jnp.exp(-p["k"] * t)},
        noise={"y": "proportional"},
        group="id",
        random={"k": 0.2},
    )  # fmt: skip
    ts, values = np.array([1.0, 4.0]), {"k": 0.4, "sd(k)": 0.3, "a": 20.0}
    made = rf.simulate(model, ts, values=values, draws=20_000, seed=1)
    assert made.values == {"k": pytest.approx(0.4), "sd(k)": pytest.approx(0.3), "a": 20.0}
    np.testing.assert_allclose(made["y"][0], 20 * np.exp(-0.4 * ts))
    median, low, high = made.subjects["y"]
    np.testing.assert_allclose(median[0], 20 * np.exp(-0.4 * ts), rtol=0.01)
    for end, side in ((low, 1), (high, -1)):
        k = 0.4 * np.exp(side * 0.3 * norm.ppf(0.975))
        np.testing.assert_allclose(end[0], 20 * np.exp(-k * ts), rtol=0.05)
    assert made.drawn["y"].shape == (20_000, 1, 2) and not made.measured
    noisy = rf.simulate(model, ts, values={**values, "noise of y": 0.1}, draws=20_000, seed=1)
    ratio = noisy.drawn_measured["y"] / noisy.drawn["y"] - 1
    assert np.std(ratio) == pytest.approx(0.1, rel=0.03) and abs(np.mean(ratio)) < 0.003
    np.testing.assert_array_equal(noisy.drawn["y"], made.drawn["y"])
    for wrong, said in (
        ({"sd(ke)": 1.0}, "Did you mean"),
        ({"sd(k)": 0.0}, "must be positive"),
        ({"k": 20.0}, "outside of its bounds"),
        ({"k": "fast"}, "number"),
    ):
        with pytest.raises(rf.InputError, match=said):
            rf.simulate(model, ts, values=wrong)
    with pytest.raises(rf.InputError, match="draws"):
        rf.simulate(model, ts, draws=0)


def test_doses_of_a_table_are_those_of_nonmem():
    """Two doses of 20, two hours apart, into a volume of 2; one of 40 to another subject."""
    model = model_from_text(DOSED)
    table = {"ID": ["1", "1", "2", "2"], "TIME": [0.0, 6, 0, 6], "AMT": [20.0, 0, 40, 0],
             "ADDL": [1, 0, 0, 0], "II": [2.0, 0, 0, 0]}  # fmt: skip
    ts = np.array([1.0, 2.0, 4.0])
    made = rf.simulate(model, ts, data=table, draws=8000, seed=2)
    curve = lambda k: np.stack(
        [10 * sum(np.exp(-k * (ts - s)) * (ts >= s) for s in (0, 2)), 20 * np.exp(-k * ts)]
    )
    np.testing.assert_allclose(made["DV"], curve(0.5), rtol=1e-6)
    median, low, _ = made.subjects["DV"]
    np.testing.assert_allclose(median, curve(0.5), rtol=0.03)
    np.testing.assert_allclose(low, curve(0.5 * np.exp(0.3 * norm.ppf(0.975))), rtol=0.1)


def test_correlations_that_do_not_go_together_are_refused():
    model = replace(line(), random=rf.Population({"a": 0.5, "b": 0.4}, correlated="all"))
    made = rf.simulate(
        model, [1.0], data={"id": ["s"], "time": [1.0], "w": [1.0]}, draws=20_000,
        values={"corr(a, b)": -0.9},
    )  # fmt: skip
    expected = np.sqrt(0.25 + 0.16 - 2 * 0.9 * 0.2)
    assert np.std(made.drawn["y"]) == pytest.approx(expected, rel=0.03)
    with pytest.raises(rf.InputError, match="not positive definite"):
        rf.simulate(model, [1.0], data={"id": ["s"], "time": [1.0], "w": [1.0]},
                    values={"corr(a, b)": 1.1})  # fmt: skip


DOSED = """\
[model]
group = "ID"
time = "TIME"
[states]
x = 0.0
[parameters]
k = { guess = 0.5, scale = "log" }
v = { guess = 2.0, fixed = true }
[equations]
x = "-k*x"
[observed]
DV = "x/v"
[random]
k = 0.3
[dosing]
amount = "AMT"
state = "x"
interval = "II"
additional = "ADDL"
"""
MODEL = """\
[model]
name = "wash"
group = "ID"
time = "TIME"
covariates = ["dose"]
[parameters]
k = { guess = 0.5, lower = 0.01, upper = 10.0, scale = "log" }
v = { guess = 2.0, fixed = true }
[observed]
DV = "dose/v*exp(-k*t)"
[noise]
kind = "proportional"
scale = 0.1
[random]
k = { sd = 0.3, fixed = true }
"""


def run(*arguments):
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with a population fit by the command line."""
    folder = tmp_path_factory.mktemp("population")
    (folder / "model.toml").write_text(MODEL, encoding="utf-8")
    rows = ["ID,TIME,dose,DV"]
    for name, k in (("1", 0.4), ("2", 0.6), ("3", 0.5)):
        rows += [f"{name},{t},20,{10 * np.exp(-k * t) * (1 + s):.5f}"
                 for t, s in ((1, 0.05), (2, -0.05), (4, 0.05))]  # fmt: skip
    (folder / "data.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    new = "ID,TIME,dose\n2,1,30\n2,6,30\n9,1,40\n9,6,40\n"
    (folder / "new.csv").write_text(new, encoding="utf-8")
    done = run(
        "fit", folder / "model.toml", folder / "data.csv", "--out", folder / "fit", "--quiet"
    )
    assert done.exit_code == 0, done.output
    return folder


def test_predictions_by_the_command_line(desk, monkeypatch):
    monkeypatch.chdir(desk)
    arguments = ["predict", "fit", "--data", "new.csv", "--times", "0:6:4", "--draws", "200"]
    for out, more in (("p", ["--seed", "5"]), ("q", ["--seed", "6", "--subjects", "9, 2"])):
        done = run(*arguments, *more, "--out", out, "--quiet")
        assert done.exit_code == 0, done.output
    assert {path.name for path in (desk / "p").iterdir()} == {
        "predictions.csv", "predictions.json", "predictions.png"
    }  # fmt: skip
    read = lambda path: list(csv.DictReader((desk / path).read_text("utf-8").splitlines()))
    rows, other = read("p/predictions.csv"), read("q/predictions.csv")
    assert [(r["ID"], r["kind"]) for r in rows[::4]] == [("2", "fitted"), ("9", "new")]
    assert [r["ID"] for r in other[::4]] == ["9", "2"]
    assert [r["lower"] for r in rows[:4]] == [r["lower"] for r in other[4:]]  # nothing is drawn
    assert rows[6]["population_lower"] != other[2]["population_lower"]
    subject = read("fit/individuals.csv")[1]
    assert subject["ID"] == "2"
    exact = 15 * np.exp(-float(subject["k"]) * np.array([0, 2, 4, 6]))
    np.testing.assert_allclose([float(r["predicted"]) for r in rows[:4]], exact, rtol=1e-6)
    record = json.loads((desk / "fit" / "fit.json").read_text("utf-8"))
    typical = 20 * np.exp(-record["estimates"][0]["value"] * np.array([0, 2, 4, 6]))
    np.testing.assert_allclose([float(r["typical"]) for r in rows[4:]], typical, rtol=1e-6)
    for r in rows:
        x = {name: float(r[name]) for name in list(r)[4:-1]}
        assert x["lower"] < x["predicted"] < x["upper"] and r["measured"] == ""
        assert x["population_lower"] < x["typical"] < x["population_upper"]
        assert x["typical_lower"] <= x["typical"] <= x["typical_upper"]
    assert [r["lower"] for r in rows[4:]] == [r["population_lower"] for r in rows[4:]]
    record = json.loads((desk / "p" / "predictions.json").read_text("utf-8"))
    assert record["new"] == ["9"] and record["seed"] == 5
    assert "noise" in record["columns"]["lower, upper"]


def test_simulation_by_the_command_line(desk, monkeypatch):
    monkeypatch.chdir(desk)
    done = run("simulate", "model.toml", "new.csv", "--times", "0:6:3", "--set", "sd(k)=0.4",
               "--draws", "50", "--out", "sim", "--quiet")  # fmt: skip
    assert done.exit_code == 2 and "sd(k)" in done.stderr  # it is fixed in the model
    done = run("simulate", "model.toml", "new.csv", "--times", "0:6:3", "--set", "k=0.4",
               "--draws", "50", "--out", "sim", "--quiet")  # fmt: skip
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader((desk / "sim" / "simulation.csv").read_text("utf-8").splitlines()))
    assert list(rows[0]) == ["ID", "TIME", "column", "predicted", "median", "curve_lower",
                             "curve_upper", "lower", "upper", "measured"]  # fmt: skip
    assert float(rows[4]["predicted"]) == pytest.approx(20 * np.exp(-0.4 * 3), rel=1e-6)
    for kind in ("", "curve_"):
        ends = [float(rows[4][name]) for name in (f"{kind}lower", "median", f"{kind}upper")]
        assert ends[0] < ends[1] < ends[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predict", "fit", "--subjects", "7", "--times", "1"], "no subject '7'"),
        (["predict", "fit", "--draws", "2"], "draws"),
        (["predict", "fit", "--data", "short.csv"], "TIME"),
    ],
    ids=lambda x: " ".join(x),
)
def test_what_cannot_be_used_is_code_two_and_writes_nothing(desk, monkeypatch, arguments, said):
    monkeypatch.chdir(desk)
    (desk / "short.csv").write_text("ID,dose\n1,20\n", encoding="utf-8")
    before = {path: path.stat().st_mtime_ns for path in desk.rglob("*")}
    done = run(*arguments, "--out", "never")
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.stderr.split()) and "Traceback" not in done.stderr
    assert {path: path.stat().st_mtime_ns for path in desk.rglob("*")} == before
