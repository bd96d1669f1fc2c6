"""`rootflow predict`, `simulate` and `sample`: what they write, and what they refuse."""

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from rootflow.cli.main import app
from tests.cli.test_fit_errors import DATA, MODEL


def run(*arguments):
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A folder with a model, data and a fit by the command line."""
    desk = tmp_path_factory.mktemp("desk")
    (desk / "model.toml").write_text(MODEL, encoding="utf-8")
    (desk / "data.csv").write_text(DATA, encoding="utf-8")
    done = run("fit", desk / "model.toml", desk / "data.csv", "--out", desk / "fit", "--starts",
               "1", "--quiet")  # fmt: skip
    assert done.exit_code == 0, done.output
    return desk


@pytest.fixture
def desk(fitted, monkeypatch):
    monkeypatch.chdir(fitted)
    return fitted


def rows(path):
    return list(csv.DictReader(path.open(encoding="utf-8")))


def line():
    """The fit in closed form: a straight line in the logarithms."""
    slope, level = np.polyfit(range(5), np.log([4.1, 2.3, 1.6, 0.9, 0.53]), 1)
    return -slope, np.exp(level)


def test_predict(desk):
    assert {"model.toml", "data.csv"} <= {path.name for path in (desk / "fit").iterdir()}
    assert (desk / "fit" / "model.toml").read_text("utf-8") == MODEL
    done = run("predict", "fit", "--times", "0:10:6")
    assert done.exit_code == 0 and "predict-decay" in done.stdout, done.output
    names = sorted(path.name for path in (desk / "predict-decay").iterdir())
    assert names == ["predictions.csv", "predictions.json", "predictions.png"]
    k, x = line()
    found = rows(desk / "predict-decay" / "predictions.csv")
    assert [float(r["time"]) for r in found] == [0, 2, 4, 6, 8, 10]
    for r in found:
        t = float(r["time"])
        assert float(r["predicted"]) == pytest.approx(x * np.exp(-k * t), rel=1e-3)
        assert float(r["lower"]) < float(r["curve_lower"]) < float(r["predicted"])
        assert float(r["predicted"]) < float(r["curve_upper"]) < float(r["upper"])
    done = run("predict", "fit", "--times", "0,1", "--json", "--out", "p2")
    assert json.loads(done.stdout) == json.loads((desk / "p2/predictions.json").read_text("utf-8"))
    (desk / "new.csv").write_text("time,x\n5,\n7,0.2\n", encoding="utf-8")
    done = run("predict", "fit", "--data", "new.csv", "--out", "p3", "--quiet")
    assert done.exit_code == 0 and done.stdout == "", done.output
    found = rows(desk / "p3" / "predictions.csv")
    # The fit started at 0, and the curve does; the new measurement stands beside it.
    assert float(found[0]["time"]) == 0 and float(found[0]["predicted"]) == pytest.approx(
        x, rel=1e-3
    )
    assert [r["measured"] for r in found if r["measured"]] == ["0.2"]


def test_simulate(desk):
    done = run("simulate", "model.toml", "--times", "0:4:5", "--set", "k=0.25", "--set", "x=2")
    assert done.exit_code == 0, done.output
    found = rows(desk / "simulate-decay" / "simulation.csv")
    assert list(found[0]) == ["time", "column", "predicted", "measured"]
    exact = 2 * np.exp(-0.25 * np.arange(5.0))
    np.testing.assert_allclose([float(r["predicted"]) for r in found], exact, rtol=1e-6)
    record = json.loads((desk / "simulate-decay" / "simulation.json").read_text("utf-8"))
    assert record["values"] == pytest.approx({"k": 0.25, "x": 2.0})
    done = run("simulate", "model.toml", "data.csv", "--out", "s2", "--quiet")
    found = rows(desk / "s2" / "simulation.csv")
    assert sum(r["measured"] != "" for r in found) == 5
    assert float(found[-1]["predicted"]) == pytest.approx(4 * np.exp(-0.7 * 4), rel=1e-6)


def test_simulate_a_fit(desk):
    """At what was fitted, over the rows of the fit; other values go before."""
    done = run("simulate", "fit", "--out", "s3", "--quiet")
    assert done.exit_code == 0, done.output
    k, x = line()
    found = rows(desk / "s3" / "simulation.csv")
    assert sum(r["measured"] != "" for r in found) == 5
    assert float(found[-1]["predicted"]) == pytest.approx(x * np.exp(-k * 4), rel=1e-3)
    done = run("simulate", "fit", "--times", "0,2", "--set", "k=0.25", "--out", "s4", "--json")
    assert json.loads(done.stdout)["values"] == pytest.approx({"k": 0.25, "x": x}, rel=1e-3)


UNUSABLE = [
    (["predict"], "FIT"),
    (["predict", "none"], "holds no fit"),
    (["predict", "fit", "--times", "soon"], "START:STOP:COUNT"),
    (["predict", "fit", "--times", "none.csv"], "none.csv"),
    (["predict", "fit", "--data", "none.csv"], "none.csv"),
    (["predict", "fit", "--data", "model.toml"], "model.toml"),
    (["predict", "fit", "--times", "0,1", "--out", "fit"], "no earlier prediction"),
    (["simulate"], "MODEL"),
    (["simulate", "none.toml", "--times", "0,1"], "none.toml"),
    (["simulate", "model.toml"], "Give --times"),
    (["simulate", "model.toml", "--times", "0,1", "--set", "k"], "write NAME=VALUE"),
    (["simulate", "model.toml", "--times", "0,1", "--set", "k=fast"], "write NAME=VALUE"),
    (["simulate", "model.toml", "--times", "0,1", "--set", "k=1", "--set", "k=2"], "k twice"),
    (["simulate", "model.toml", "--times", "0,1", "--set", "q=1"], "no parameter"),
    (["simulate", "model.toml", "--times", "0,1", "--set", "k=99"], "outside of its bounds"),
    (["simulate", "model.toml", "--times", "0,1", "--out", "data.csv"], "is a file"),
    (["sample"], "FIT"),
    (["sample", "none"], "holds no fit"),
    (["sample", "fit", "--draws", "1"], "draws"),
    (["sample", "fit", "--target", "2"], "target must be"),
]


@pytest.mark.parametrize(("arguments", "said"), UNUSABLE, ids=lambda x: " ".join(x))
def test_what_cannot_be_used_is_code_two_and_writes_nothing(desk, arguments, said):
    before = {path: path.stat().st_mtime_ns for path in desk.rglob("*")}
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.stderr.split()) and "Traceback" not in done.stderr
    assert {path: path.stat().st_mtime_ns for path in desk.rglob("*")} == before


def test_sample_says_whether_to_trust_it(desk):
    """Too few draws are written all the same, and are exit code 1."""
    pytest.importorskip("blackjax")
    done = run("sample", "fit", "--draws", "40", "--warmup", "60", "--chains", "2", "--json")
    assert done.exit_code == 1 and "not to be trusted yet" in done.stderr, done.output
    record = json.loads(done.stdout)
    assert record["warnings"] and not record["trusted"]
    names = {path.name for path in (desk / "sample-decay").iterdir()}
    assert names == {"pairs.png", "posterior.csv", "posterior.json", "trace.png"}
    assert len(rows(desk / "sample-decay" / "posterior.csv")) == 80
