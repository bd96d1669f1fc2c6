import importlib
import json
import os
import subprocess
import sys
import time
from types import ModuleType

import numpy as np
import pytest

import benchmarks
from benchmarks import flows
from benchmarks.__main__ import main
from benchmarks.harness import runner, table, timing
from benchmarks.harness.comparison import Comparison, Row
from rootflow import InputError

FAKE = """
import jax.numpy as jnp
from benchmarks.harness.comparison import Comparison, Row

def build(repeats):
    def make():
        def call():
            x = 0.0
            for i in range(repeats):
                x += i
            return jnp.array(x)
        return call
    return make

def missing():
    import PEER
    return build(1)()

def failing():
    raise ValueError("no such problem\\nsecond line")

def rows(quick):
    return [
        Row("faster", build(100), build(100_000), bar=0.5, error=lambda r: abs(float(r) - 4950)),
        Row("slower", build(100_000), build(100), bar=2.0),
        Row("no bar", build(100), build(100), kind="first call"),
        Row("fails", failing, build(1), bar=1.0),
    ]

COMPARISON = Comparison("counting", "PEER", rows)
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of comparisons: `installed`, whose peer is there, and `absent`, whose is not."""
    folder = tmp_path / "fake_benchmarks"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "_helper.py").write_text("")
    (folder / "installed.py").write_text(FAKE.replace("PEER", "numpy"))
    absent = FAKE.replace("PEER", "there_is_no_such_peer").replace("build(100_000),", "missing,")
    (folder / "absent.py").write_text(absent)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("fake_benchmarks")
    for name in [name for name in sys.modules if name.startswith("fake_benchmarks")]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def quiet(request, monkeypatch):
    """Other tests run beside these."""
    if "beside" not in request.node.name:
        monkeypatch.setattr(runner.Load, "others", lambda self: 0.0)


def test_rows_are_judged_by_their_bar(package):
    told = []
    lines = runner.run("fake_benchmarks", ["installed"], quick=True, tell=told.append)
    assert told == lines
    faster, slower, no_bar, fails = lines
    assert faster["meets"] is True and faster["ratio"] < 0.5
    assert slower["meets"] is False and slower["ratio"] > 2.0
    assert no_bar["meets"] is None and no_bar["ratio"] > 0
    assert faster["error_ours"] == 0.0 and faster["error_peer"] == sum(range(100_000)) - 4950
    assert faster["peer_version"] == np.__version__
    assert fails["failure"] == "failed: ValueError" and fails["meets"] is None
    assert "no such problem" in fails["traceback"]


def test_a_peer_that_is_not_installed_gives_a_row_that_says_so(package):
    lines = runner.run("fake_benchmarks", ["absent"], quick=True)
    faster = lines[0]
    assert faster["installed"] is False and faster["failure"] is None
    assert faster["ours"] > 0 and faster["peer"] is faster["ratio"] is faster["meets"] is None
    assert "| not installed |" in table.as_markdown(lines, {"cores": 2}).replace("  ", "")


def test_first_calls_build_anew_each_time():
    built = []

    def build():
        built.append(None)
        return lambda: np.ones(1)

    timing.first_call(build, None, 3)
    assert len(built) == 4  # one more, for what the first of all pays
    built.clear()
    timing.warm(build, None, 3)
    assert len(built) == 1


def test_rows_of_memory_are_in_bytes():
    def needs(size):
        return lambda: lambda: size

    row = Row("gradient", needs(2_500_000), needs(5_000_000), bar=0.6, kind="memory")
    line = runner.measure("sizes", Comparison("sizes", "numpy", lambda quick: [row]), row)
    assert line["ours"] == 2_500_000 and line["ratio"] == 0.5 and line["meets"] is True
    assert "ours 2.5 MB, peer 5 MB, ratio 0.50 (yes)" in table.brief(line)


def test_both_tables_are_written_with_the_machine(package, tmp_path):
    lines = runner.run("fake_benchmarks", ["installed", "absent"], quick=True)
    paths = table.write(tmp_path / "out", lines, {"processor": "P100", "cores": 2})
    markdown, record = (path.read_text() for path in paths)
    content = json.loads(record)
    assert content["machine"]["cores"] == 2 and len(content["rows"]) == 8
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 8 and len({row.count("|") for row in rows}) == 1
    assert "processor P100" in markdown and "failed: ValueError" in markdown
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "benchmarks.json",
        "benchmarks.md",
    ]


def test_rows_that_are_known_are_not_measured_again(package, tmp_path):
    out, machine = tmp_path / "out", {"cores": 2}
    lines = runner.run("fake_benchmarks", ["installed"], quick=True)
    table.write(out, lines[:2] + lines[3:], machine)
    known = table.read(out, machine)
    again = runner.run("fake_benchmarks", ["installed"], quick=True, known=known)
    assert again[:2] == lines[:2] and [line["row"] for line in again][2:] == ["no bar", "fails"]
    assert again[3]["traceback"] is not None  # a row that failed is tried again
    # Nothing that an earlier run has is lost on the way, or because others are asked for.
    assert table.merged(again[:1], known) == lines[:2] + lines[3:]
    for changed in ({"busy": True}, {"quick": False}):
        doubtful = [lines[0] | changed, *lines[1:]]
        fresh = runner.run("fake_benchmarks", ["installed"], quick=True, known=doubtful)
        assert fresh[0] is not doubtful[0] and fresh[0]["quick"] and fresh[1] is lines[1]
    with pytest.raises(InputError, match=r"cores differ.*--resume"):
        table.read(out, {"cores": 4})
    (out / "benchmarks.json").write_text("{")
    with pytest.raises(InputError, match="not a table of benchmarks"):
        table.read(out, machine)
    assert table.read(tmp_path / "none", machine) == []


def test_a_comparison_without_rows_is_a_row_that_says_so(package, tmp_path):
    (tmp_path / "fake_benchmarks" / "broken.py").write_text("import there_is_no_such_module")
    importlib.invalidate_caches()
    lines = runner.run("fake_benchmarks", ["broken", "installed"], quick=True)
    assert lines[0]["failure"] == "failed: ModuleNotFoundError" and len(lines) == 5
    assert "failed: ModuleNotFoundError" in table.as_markdown(lines, {})


@pytest.mark.skipif(not os.path.exists("/proc/stat"), reason="only Linux tells")
def test_rows_beside_other_work_are_not_judged(monkeypatch):
    started = [sys.executable, "-c", "print(1, flush=True)\nwhile True: pass"]
    row = Row("sleeps", lambda: lambda: time.sleep(0.3), lambda: lambda: time.sleep(0.3), bar=9.0)
    declared = Comparison("sleep", "numpy", lambda quick: [row])
    with subprocess.Popen(started, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        line = runner.measure("sleep", declared, row, quick=True)
        other.kill()
    assert line["busy"] and line["meets"] is None and line["load"] > 0.3
    assert "(busy)" in table.brief(line)
    monkeypatch.setattr(runner.Load, "others", lambda self: 0.1)
    assert runner.measure("sleep", declared, row, quick=True)["meets"] is True


def test_the_command_refuses_what_it_does_not_know(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["no_such_comparison"])
    assert stopped.value.code == 2 and "flows" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as stopped:
        main(["flows", "--out", str(tmp_path / "file")])
    assert stopped.value.code == 2


def test_every_comparison_that_ships_is_declared_and_imports_no_peer():
    names = runner.names(benchmarks.__path__)
    assert "flows" in names
    for name in names:
        comparison = importlib.import_module(f"benchmarks.{name}").COMPARISON
        assert isinstance(comparison, Comparison) and comparison.title
        inside = vars(sys.modules[f"benchmarks.{name}"]).values()
        imported = {thing.__name__ for thing in inside if isinstance(thing, ModuleType)}
        assert not imported & {"diffrax", "jaxopt", "torchdiffeq"}


def test_comparisons_run_beside_another_package_that_is_called_tests(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "__init__.py").write_text("")
    program = "import tests, benchmarks.stiff, benchmarks.work_precision; print(tests.__file__)"
    result = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(str(tmp_path))


def test_the_reference_of_the_flows_comparison_agrees_with_its_own_differences(monkeypatch):
    parameters, step = flows.PARAMETERS, 1e-6
    _, slopes = flows.reference(flows.START[None], 0.5)

    def final(p):
        monkeypatch.setattr(flows, "PARAMETERS", p)
        return flows.reference(flows.START[None], 0.5)[0][0]

    for k, shift in enumerate(step * np.eye(3)):
        difference = (final(parameters + shift) - final(parameters - shift)) / (2 * step)
        np.testing.assert_allclose(slopes[0][:, k], difference, rtol=1e-6)
