"""`rootflow fit` on bad input: one clear message, exit code 2, nothing written."""

import json
import os
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from rootflow.cli.main import app
from rootflow.fitting import fit as fitting
from tests.fitting.results import decay

MODEL = """\
[model]
name = "decay"

[states]
x = { guess = 4.0, lower = 0.1 }

[parameters]
k = { guess = 0.7, lower = 0.01, upper = 10.0, scale = "log", unit = "1/h" }

[equations]
x = "-k*x"

[observed]
x = "x"

[noise]
kind = "lognormal"
"""
DATA = "time,x\n0,4.1\n1,2.3\n2,1.6\n3,0.9\n4,0.53\n"


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """An empty current folder with a good model and good data in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.toml").write_text(MODEL, encoding="utf-8")
    (tmp_path / "data.csv").write_text(DATA, encoding="utf-8")
    return tmp_path


def contents(folder):
    return {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def refused(desk, *arguments):
    before = contents(desk)
    done = CliRunner().invoke(app, ["fit", *arguments])
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert contents(desk) == before
    return done.stderr


def changed(old, new):
    assert old in MODEL
    return MODEL.replace(old, new, 1)


@pytest.mark.parametrize(
    ("model", "data", "said"),
    [
        (MODEL, DATA.replace("x", "y"), ["data.csv", "no column 'x'", "Columns: 'time', 'y'"]),
        (MODEL, DATA.replace("1.6", "n.d."), ["data.csv, line 4, column 'x'", "'n.d.'", "blank"]),
        (MODEL, DATA.replace("1.6", "1.6,7"), ["data.csv, line 4", "3 cells"]),
        (MODEL, "time,x\n", ["data.csv", "no data rows"]),
        (MODEL, "", ["data.csv", "the file is empty"]),
        (MODEL, DATA.replace("1.6", "-1.6"), ["data.csv, line 4", "-1.6", "lognormal"]),
        (MODEL, "time,x\n0,\n1,\n", ["column 'x' has no measurements"]),
        (changed("-k*x", "-k*y"), DATA, ["model.toml, line 11, equations.x", "unknown name 'y'"]),
        (changed("-k*x", "-k*"), DATA, ["equations.x", "the formula ends", "^"]),
        (changed("-k*x", "-x"), DATA, ["parameters.k", "appears in no formula"]),
        (changed("lower = 0.1", "lower = 5"), DATA, ["states.x", "exclude the guess 4"]),
        (changed("-k*x", "__import__('os').remove('data.csv')"), DATA, ["no Python runs in it"]),
        (changed("-k*x", "-k*x.__class__"), DATA, ["attribute access"]),
        (changed("-k*x", "x" * 900_000), DATA, ["equations.x", "900,000 characters"]),
        (
            MODEL + '[solve]\nmethod = "stif"\n',
            DATA,
            ["model.toml, line 19, solve.method", "'stif' is not known", "Did you mean 'stiff'"],
        ),
        (
            MODEL + "[solve]\nmax_steps = 0\n",
            DATA,
            ["model.toml, line 19, solve.max_steps", "positive integer"],
        ),
        (changed("[equations]", "[equation"), DATA, ["model.toml", "line 10", "not valid TOML"]),
        (changed("-k*x", "-k*x + x**9"), DATA, ["cannot be solved at the guess"]),
        (changed("-k*x", "k - x*0 - 9"), DATA, ["At the guess", "'x'", "lognormal"]),
    ],
)
def test_bad_input_is_refused(desk, model, data, said):
    (desk / "model.toml").write_text(model, encoding="utf-8")
    (desk / "data.csv").write_text(data, encoding="utf-8")
    message = refused(desk, "model.toml", "data.csv", "--starts", "1")
    for words in said:
        assert words in message
    assert message.startswith("Error: ")


def test_a_hundred_megabytes_of_formula(desk):
    with open(desk / "model.toml", "wb") as file:
        file.write(b'[equations]\nx = "')
        file.truncate(100_000_000)  # sparse: takes no room
    assert "100.0 MB; the limit for a model file" in refused(desk, "model.toml", "data.csv")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], ["Give MODEL.toml and DATA.csv", "--example hare-lynx"]),
        (["model.toml"], ["the data are missing"]),
        (["data.csv", "model.toml"], ["comes first", "rootflow fit model.toml data.csv"]),
        (["model.toml", "data.csv", "--example", "hare-lynx"], ["give it alone"]),
        (["--example", "hare-linx"], ["no example 'hare-linx'", "Did you mean 'hare-lynx'"]),
        (["absent.toml", "data.csv"], ["absent.toml", "no such file"]),
        (["model.toml", "absent.csv"], ["absent.csv", "no such file"]),
        (["model.toml", "."], ["is a folder"]),
        (["model.toml", "data.csv", "--out", "data.csv"], ["data.csv is a file", "--out"]),
        (["model.toml", "data.csv", "--out", "."], ["holds other files", "--out"]),
        (["model.toml", "data.csv", "--out", "data.csv/sub"], ["data.csv is a file"]),
        (["model.toml", "data.csv", "--starts", "0"], ["--starts"]),
        (["model.toml", "data.csv", "--seed", "-1"], ["--seed"]),
        (
            ["model.toml", "data.csv", "--method", "Kvaerno"],
            ["'Kvaerno' is not known", "Did you mean 'Kvaerno", "'auto', 'explicit', 'stiff'"],
        ),
        (["model.toml", "data.csv", "--method", "EulerMaruyama"], ["is not known", "'Rodas5P'"]),
        (["model.toml", "data.csv", "--rtol", "-1e-8"], ["rtol must be", "-1e-08"]),
        (["model.toml", "data.csv", "--atol", "-1"], ["atol must be", "-1"]),
        (["model.toml", "data.csv", "--max-steps", "0"], ["max_steps must be", "got 0"]),
    ],
)
def test_bad_arguments_are_refused(desk, arguments, said):
    message = refused(desk, *arguments)
    for words in said:
        assert words in message


def test_results_are_written_and_json_goes_alone_to_standard_output(desk):
    done = CliRunner().invoke(app, ["fit", "model.toml", "data.csv", "--json", "--starts", "2"])
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert done.stderr == ""
    assert record == json.loads((desk / "fit-decay" / "fit.json").read_text("utf-8"))
    # For a straight line in the logarithms, least squares has a closed form (NumPy's polyfit).
    import numpy as np

    slope, level = np.polyfit(range(5), np.log([4.1, 2.3, 1.6, 0.9, 0.53]), 1)
    found = {e["name"]: e["value"] for e in record["estimates"] if e["kind"] != "scale"}
    assert found["k"] == pytest.approx(-slope, rel=1e-4)
    assert found["x"] == pytest.approx(np.exp(level), rel=1e-4)


def test_how_the_equations_are_solved_is_said_everywhere(desk):
    """The option goes before the model file; table, JSON and report name what was used."""
    (desk / "model.toml").write_text(f'{MODEL}[solve]\nmethod = "stiff"\nrtol = 1e-6\n', "utf-8")
    call = ["fit", "model.toml", "data.csv", "--starts", "1", "--max-steps", "600"]
    done = CliRunner().invoke(app, call, env={"COLUMNS": "300"})
    assert done.exit_code == 0, done.output
    assert "Solved by Rodas5P." in done.stdout
    record = json.loads((desk / "fit-decay" / "fit.json").read_text("utf-8"))
    assert record["solver"] == "Rodas5P" and record["solver_reason"] == ""
    assert record["outcome"] == "converged" and record["starts"][0]["solver"] == "Rodas5P"
    assert "rtol 1e-06" in record["method"]
    assert "<dt>solved by</dt><dd>Rodas5P</dd>" in (desk / "fit-decay/report.html").read_text()
    done = CliRunner().invoke(app, [*call, "--method", "explicit", "--rtol", "1e-7", "--json"])
    record = json.loads(done.stdout)
    assert record["solver"] == "Tsit5" and "rtol 1e-07" in record["method"]


def test_a_fit_that_does_not_converge_says_so_and_is_written(desk, monkeypatch):
    stopped = replace(decay(("low",)), converged=False, message="Stopped early.")
    monkeypatch.setattr(fitting, "fit", lambda *arguments, **options: stopped)
    done = CliRunner().invoke(app, ["fit", "model.toml", "data.csv", "--quiet", "--starts", "2"])
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr == "The fit did not converge. Stopped early.\n"
    assert "did not converge" in (desk / "fit-decay" / "report.html").read_text("utf-8")


def test_a_disk_that_fills_up(desk, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fitting, "fit", lambda *arguments, **options: decay(("low",)))
    monkeypatch.setattr("rootflow.fitting.output.write_results", full)
    message = refused(desk, "model.toml", "data.csv", "--quiet")
    assert "No space left on device" in message and "--out" in message


no_root = pytest.mark.skipif(
    os.name != "posix" or os.geteuid() == 0, reason="root may read and write everything"
)


@no_root
def test_a_folder_that_may_not_be_written(desk):
    (desk / "locked").mkdir(mode=0o500)
    message = refused(desk, "model.toml", "data.csv", "--out", "locked/results")
    assert "locked may not be written to" in message


@no_root
def test_a_file_that_may_not_be_read(desk):
    (desk / "data.csv").chmod(0)
    assert "cannot be read (Permission denied)" in refused(desk, "model.toml", "data.csv")
