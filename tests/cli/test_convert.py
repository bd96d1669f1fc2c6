"""`rootflow convert`, and PEtab problems in `rootflow fit`: files, exit codes."""

import pytest
from typer.testing import CliRunner

from rootflow.cli.main import app
from rootflow.fitting.modelfile import load_model

pytest.importorskip("libsbml")
from tests.fitting.petab import problems


def test_a_problem_is_written_once(tmp_path):
    path = problems.write(tmp_path / "case")
    run = CliRunner().invoke(app, ["convert", str(path), str(tmp_path / "out")])
    assert run.exit_code == 0, run.output
    assert "rootflow fit" in run.output
    assert load_model(tmp_path / "out" / "model.toml").name == "problem"
    assert (tmp_path / "out" / "data.csv").read_text().startswith("condition,time,obs_a\n")
    again = CliRunner().invoke(app, ["convert", str(path), str(tmp_path / "out")])
    assert again.exit_code == 2 and "is there already" in again.output


@pytest.mark.parametrize("command", [["convert", "{}", "{}-out"], ["fit", "{}"]])
def test_a_problem_that_cannot_be_used(command, tmp_path):
    path = problems.write(tmp_path / "case", conditions="conditionId q\nc0 1")
    run = CliRunner().invoke(app, [part.format(path) for part in command])
    assert run.exit_code == 2 and "'q' is neither a parameter" in run.output
    assert {x.name for x in tmp_path.iterdir()} == {"case"}


def test_a_problem_names_its_own_data(tmp_path):
    path = problems.write(tmp_path / "case")
    run = CliRunner().invoke(app, ["fit", str(path), "data.csv"])
    assert run.exit_code == 2 and "names its own data" in run.output
