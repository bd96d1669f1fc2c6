"""What the command prints: encodings, closed pipes, full disks, control characters, exit codes."""

import io
import json
import os
import subprocess
import sys

import pytest

from rootflow.cli import main as entry
from rootflow.cli import streams
from rootflow.fitting import fit as fitting
from tests.cli.test_fit_errors import DATA, MODEL
from tests.fitting.results import decay


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """An empty folder with a good model and data; the fit itself is made by hand."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.toml").write_text(MODEL, encoding="utf-8")
    (tmp_path / "data.csv").write_text(DATA, encoding="utf-8")
    monkeypatch.setattr(fitting, "fit", lambda *arguments, **options: decay(("low",)))
    return tmp_path


def called(monkeypatch, *arguments, out=None, err=None):
    """Runs `main` as the script does; the exit code."""
    monkeypatch.setattr(sys, "argv", ["rootflow", *arguments])
    if out is not None:
        monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err or io.TextIOWrapper(io.BytesIO(), "utf-8"))
    with pytest.raises(SystemExit) as left:
        entry.main()
    return left.value.code


def opened(path, encoding="utf-8", mode="wb"):
    raw = io.FileIO(path, mode)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_any_encoding_can_print_any_result(desk, monkeypatch, encoding):
    """The error that the data do not determine is infinite, which cp1252 has no character for."""
    code = called(monkeypatch, "fit", "model.toml", "data.csv", out=opened("out", encoding))
    assert code == 0
    text = (desk / "out").read_text(encoding)
    assert ("∞" if encoding == "utf-8" else "inf") in text
    assert "report.html" in text and (desk / "fit-decay" / "report.html").exists()


def test_json_is_ascii_and_whole_in_any_encoding(desk, monkeypatch):
    code = called(
        monkeypatch, "fit", "model.toml", "data.csv", "--json", out=opened("out", "ascii")
    )
    assert code == 0
    record = json.loads((desk / "out").read_text("ascii"))
    assert record == json.loads((desk / "fit-decay" / "fit.json").read_text("utf-8"))


@pytest.mark.parametrize("arguments", [["fit", "--help"], ["fit", "model.toml", "data.csv"]])
def test_a_reader_that_has_seen_enough_is_no_failure(desk, monkeypatch, arguments):
    reading, writing = os.pipe()
    os.close(reading)
    out = io.TextIOWrapper(io.BufferedWriter(io.FileIO(writing, "wb")), "utf-8")
    assert called(monkeypatch, *arguments, out=out) == 0
    assert (desk / "fit-decay").exists() == (len(arguments) == 3)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_full_disk_behind_standard_output_is_told_from_one_behind_the_results(
    desk, monkeypatch, more
):
    err = io.TextIOWrapper(io.BytesIO(), "utf-8")
    monkeypatch.setattr(sys, "argv", [])
    kept = opened(desk / "err")
    code = called(
        monkeypatch, "fit", "model.toml", "data.csv", *more, out=opened("/dev/full"), err=kept
    )
    said = (desk / "err").read_text("utf-8")
    assert code == 1 and (desk / "fit-decay" / "report.html").exists()
    assert said == "Standard output could not be written (No space left on device).\n", said
    del err


def test_a_real_process_behind_a_pipe():
    """At its end Python flushes what is left, and must find nothing that fails."""
    command = "import sys; from rootflow.cli.main import main; sys.argv = ['rootflow', 'fit', '--help']; main()"  # noqa: E501
    shell = f'"{sys.executable}" -c "{command}" | head -n 2; exit "${{PIPESTATUS[0]}}"'
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_messages_and_paths_carry_no_control_characters(desk, monkeypatch):
    evil = "\x1b[2J\x9b1m"
    (desk / "model.toml").write_text(
        MODEL.replace('x = "x"', '"a\\u001b[2J" = "-"'), encoding="utf-8"
    )
    for arguments in (["model.toml", "data.csv"], [f"no{evil}.toml", "data.csv"]):
        kept = opened(desk / "err")
        assert called(monkeypatch, "fit", *arguments, err=kept) == 2
        said = (desk / "err").read_text("utf-8")
        assert said.startswith("Error: ") and all(c.isprintable() or c == "\n" for c in said)


def test_spelling_and_plain_text():
    streams.prepare()
    assert "∞ – ± é".encode("cp1252", "rootflow") == b"inf \x96 \xb1 \xe9"
    assert "∞ – ± é 猫".encode("ascii", "rootflow") == b"inf - +- ? ?"
    assert streams.plain("a\x1bb\tc\nd\u202ee") == "a?b c\nd?e"
