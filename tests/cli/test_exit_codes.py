"""The exit codes that the documentation gives, and that nothing is written with code 2."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

import rootflow as rf
from rootflow.cli import generate
from rootflow.cli.main import app
from rootflow.fitting import fit as fitting
from tests.cli.test_fit_errors import DATA, MODEL
from tests.fitting.results import decay
from tests.reproduce.entries import CRASHING, GOOD, write


@pytest.fixture
def desk(tmp_path, monkeypatch, shelf):
    """A folder with a model, data, a file in the way, and two entries to reproduce."""
    desk = tmp_path / "desk"
    desk.mkdir()
    monkeypatch.chdir(desk)
    (desk / "model.toml").write_text(MODEL, encoding="utf-8")
    (desk / "data.csv").write_text(DATA, encoding="utf-8")
    write(shelf, "good", GOOD)
    write(shelf, "crash", CRASHING)
    monkeypatch.setattr(fitting, "fit", lambda *arguments, **options: decay(("low",)))
    return desk


def contents(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def run(*arguments):
    done = CliRunner().invoke(app, list(arguments))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


UNUSABLE = [
    ["fit"],
    ["fit", "model.toml"],
    ["fit", "model.toml", "none.csv"],
    ["fit", "model.toml", "data.csv", "--out", "data.csv"],
    ["fit", "model.toml", "data.csv", "--starts", "none"],
    ["fit", "model.toml", "data.csv", "--decimal", ";"],
    ["fit", "model.toml", "data.csv", "--colour"],
    ["fit", "--example", "hare-lynx", "--missing", "-"],
    ["generate", "--sampler", "none"],
    ["generate", "--steps", "1"],
    ["generate", "--sampler", "heun", "--schedule", "rectified-flow"],
    ["generate", "--model", "data.csv"],
    ["generate", "--out", "data.csv"],
    ["generate", "--out", "data.csv/deeper"],
    ["reproduce"],
    ["reproduce", "none"],
    ["reproduce", "good", "--out", "data.csv"],
    ["reproduce", "--all", "--list"],
    ["none"],
]


@pytest.mark.parametrize("arguments", UNUSABLE, ids=" ".join)
def test_two_is_what_cannot_be_used_and_nothing_is_written(desk, arguments):
    before = contents(desk)
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    assert done.stdout == "" and done.stderr.strip() and "Traceback" not in done.stderr
    assert contents(desk) == before


def test_options_that_only_the_fit_knows_to_be_wrong(desk, monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(desk)
    before = contents(desk)
    done = run("fit", "model.toml", "data.csv", "--rtol", "-1", "--quiet")
    assert done.exit_code == 2 and "rtol must be a number from 1e-14 to 0.1" in done.stderr
    assert contents(desk) == before


def test_zero_is_success_and_one_a_result_that_falls_short(desk, monkeypatch):
    assert run("fit", "model.toml", "data.csv").exit_code == 0
    assert (desk / "fit-decay" / "report.html").exists()
    assert run("reproduce", "good", "--out", "r").exit_code == 0  # one claim falls short: still 0
    assert run("reproduce", "--list").exit_code == 0
    assert run("--version").exit_code == 0 and run("fit", "--help").exit_code == 0
    stopped = replace(decay(("low",)), converged=False, message="Stopped early.")
    monkeypatch.setattr(fitting, "fit", lambda *arguments, **options: stopped)
    done = run("fit", "model.toml", "data.csv", "--out", "stopped")
    assert done.exit_code == 1 and (desk / "stopped" / "report.html").exists()
    done = run("reproduce", "--all", "--out", "all")
    assert done.exit_code == 1 and (desk / "all" / "good.json").exists()


def raising(error):
    def raises(*arguments, **options):
        raise error

    return raises


def test_a_computation_that_fails_after_something_was_written_is_one(desk, monkeypatch):
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(generate, "_train", raising(full))
    done = run("generate", "--quick", "--out", "g")
    assert done.exit_code == 1 and "No space left on device" in done.stderr
    monkeypatch.setattr(generate, "_train", raising(rf.SolveError("It blew up.")))
    done = run("generate", "--quick", "--out", "g")
    assert done.exit_code == 1 and "It blew up." in done.stderr
    monkeypatch.setattr("rootflow.reproduce.harness.runner.run_all", raising(full))
    done = run("reproduce", "good", "--out", "r")
    assert done.exit_code == 1 and "Finished entries are kept" in done.stderr


def test_an_interrupt_is_130(desk, monkeypatch):
    before = contents(desk)
    monkeypatch.setattr(fitting, "fit", raising(KeyboardInterrupt()))
    done = run("fit", "model.toml", "data.csv")
    assert done.exit_code == 130 and "nothing is written" in done.stderr
    assert contents(desk) == before
    monkeypatch.setattr(generate, "_train", raising(KeyboardInterrupt()))
    assert run("generate", "--quick", "--out", "g").exit_code == 130
    monkeypatch.setattr("rootflow.reproduce.harness.runner.run_all", raising(KeyboardInterrupt()))
    assert run("reproduce", "good", "--out", "r").exit_code == 130


def test_what_the_command_line_passes_on(desk, monkeypatch):
    given = {}

    def fit(*arguments, **options):
        given.update(options, dataset=arguments[1])
        return decay(("low",))

    monkeypatch.setattr(fitting, "fit", fit)
    (desk / "data.csv").write_text("sep=;\ntime;x\n0;4,1\n1;-\n2;1,6\n3;-99\n", encoding="utf-8")
    options = "--rtol 1e-10 --atol 1e-12 --max-iterations 7 --missing - --missing -99 --decimal ,"
    done = run("fit", "model.toml", "data.csv", *options.split())
    assert done.exit_code == 0, done.output
    assert (given["rtol"], given["atol"], given["max_iterations"]) == (1e-10, 1e-12, 7)
    assert given["dataset"].observations == 2
    assert given["dataset"].values["x"][0, 0] == 4.1


COMMANDS = [command.callback.__name__ for command in app.registered_commands if command.callback]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_what_was_written(command):
    """Rich makes pictures of words between colons, START:END:COUNT among them."""
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert not [c for c in shown.output if ord(c) >= 0x2600]
