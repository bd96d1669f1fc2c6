import json
import re

import pytest
from typer.testing import CliRunner

from rootflow.cli.main import app
from rootflow.reproduce.harness import catalogue

from ..reproduce.entries import CRASHING, GOOD, write


def run(*arguments, columns=200):
    env = {"COLUMNS": str(columns)}
    return CliRunner().invoke(app, ["reproduce", *map(str, arguments)], env=env)


def test_one_entry_prints_its_table_and_writes_its_files(shelf, tmp_path):
    write(shelf, "one", GOOD)
    out = tmp_path / "out"
    result = run("one", "--out", out)
    assert result.exit_code == 0, result.output
    for words in ("claim", "published", "measured", "verdict", "It is big.", "falls short"):
        assert words in result.output
    assert str(out / "index.html") in result.output
    # A log shows how far a long run is.
    assert re.search(r"^one:  50%, \d+ s, half way$", result.stderr, re.MULTILINE)
    assert json.loads((out / "one.json").read_text())["quick"] is False
    assert run("one", "--out", out, "--quick").exit_code == 0  # never resumed
    assert json.loads((out / "one.json").read_text())["quick"] is True


def test_all_goes_on_after_a_crash_and_says_so(shelf, tmp_path):
    write(shelf, "a-crash", CRASHING)
    write(shelf, "b-good", GOOD)
    result = run("--all", "--out", tmp_path)
    assert result.exit_code == 1
    assert "ValueError: the tank is [empty]" in result.output and "It is big." in result.output
    again = run("--all", "--out", tmp_path)
    assert again.exit_code == 1 and again.output.count("finished before") == 1
    assert "finished before" not in run("--all", "--fresh", "--out", tmp_path).output


def test_an_interrupt_says_how_to_go_on(shelf, tmp_path):
    write(shelf, "one", GOOD.replace("report(0.5", "raise KeyboardInterrupt; report(0.5"))
    result = run("one", "--out", tmp_path)
    assert result.exit_code == 130 and "--all picks up from here" in result.stderr


def test_the_list(shelf):
    write(shelf, "one", GOOD)
    write(shelf, "two", "import there_is_no_such_module\n")
    result = run("--list")
    assert result.exit_code == 0
    assert "A <made> entry & its claims" in result.output and "Nobody (1999)" in result.output
    assert "does not load" in result.output


def test_the_list_never_cuts_a_name():
    result = run("--list", columns=70)
    assert result.exit_code == 0
    for name in catalogue.names():
        assert name in result.output
    assert max(map(len, result.output.splitlines())) <= 70


def test_an_unknown_name_lists_the_names(tmp_path):
    result = run("discrete-adjiont", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "Did you mean discrete-adjoint?" in result.stderr
    for name in catalogue.names():
        assert name in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments", [(), ("one", "--all"), ("--list", "--all"), ("one", "--list"), ("one", "--fresh")]
)
def test_contradictory_arguments_are_refused(arguments):
    result = run(*arguments)
    assert result.exit_code == 2 and "Error:" in result.stderr


def test_an_out_that_cannot_be_a_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "deeper"):
        result = run("discrete-adjoint", "--out", out)
        assert result.exit_code == 2 and str(out) in result.stderr
