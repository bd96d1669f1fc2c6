"""Compiled programs are kept from one command to the next, where the user lets them."""

import json
import os
import subprocess
import sys

import pytest

from rootflow.cli import compiling

MODEL = """\
[states]
x = 10.0

[parameters]
k = { guess = 0.5, lower = 0.01, upper = 5.0, scale = "log" }

[equations]
x = "-k*x"

[observed]
x = "x"
"""
DATA = "time,x\n0,10.1\n1,7.3\n2,5.6\n3,4.0\n4,3.1\n"


@pytest.fixture
def problem(tmp_path):
    (tmp_path / "decay.toml").write_text(MODEL)
    (tmp_path / "decay.csv").write_text(DATA)
    return tmp_path


def run(problem, out, *options, cache):
    environment = {**os.environ, "ROOTFLOW_CACHE": cache, "JAX_PLATFORMS": "cpu"}
    environment.pop("XLA_FLAGS", None)
    code = "from rootflow.cli.main import main; main()"
    command = ["fit", "decay.toml", "decay.csv", "--quiet", "--out", out, "--starts", "2", *options]
    subprocess.run(
        [sys.executable, "-c", code, *command], cwd=problem, env=environment, check=True,
        capture_output=True,
    )  # fmt: skip
    return json.loads((problem / out / "fit.json").read_text())


def test_the_second_fit_finds_its_programs_and_the_same_numbers(problem):
    cache = problem / "cache"
    first = run(problem, "first", cache=str(cache))
    kept = {path.name for path in cache.rglob("*") if path.is_file() and "-cache" in path.name}
    assert kept
    second = run(problem, "second", cache=str(cache))
    again = {path.name for path in cache.rglob("*") if path.is_file() and "-cache" in path.name}
    assert again == kept
    assert second["estimates"] == first["estimates"]
    run(problem, "third", "--no-cache", cache=str(problem / "none"))
    assert not (problem / "none").exists()


def test_beyond_its_size_the_oldest_go(tmp_path):
    for age in range(5):
        (tmp_path / f"version-{age % 2}").mkdir(exist_ok=True)
        file = tmp_path / f"version-{age % 2}" / f"{age}-cache"
        file.write_bytes(bytes(100))
        os.utime(file, (1000 - age, 1000 - age))
    compiling.prune(tmp_path, 250)
    assert sorted(path.name for path in tmp_path.rglob("*-cache")) == ["0-cache", "1-cache"]
    compiling.prune(tmp_path / "nowhere", 0)


def test_where_there_is_no_place_nothing_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("ROOTFLOW_CACHE", "")
    assert compiling.folder() is None
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ROOTFLOW_CACHE", str(tmp_path / "file" / "below"))
    assert compiling.folder() is None
    monkeypatch.setenv("ROOTFLOW_CACHE", str(tmp_path / "new"))
    place = compiling.folder()
    assert place is not None and place.is_dir() and place.parent == tmp_path / "new"
