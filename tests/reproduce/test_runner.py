import json
import re

import pytest

from rootflow.errors import InputError
from rootflow.reproduce.harness import catalogue, runner

from .entries import CRASHING, GOOD, write


def run_all(names, out, *, quick=False, fresh=False):
    """The records, and which of them were read back."""
    resumed = []
    records = runner.run_all(
        names,
        out,
        quick=quick,
        fresh=fresh,
        report_for=lambda name: lambda done, message="": None,
        done=lambda record, was_kept: resumed.append(was_kept),
    )
    return records, resumed


def verdicts(record):
    return {claim["id"]: claim["verdict"] for claim in record["claims"]}


def test_a_record_says_what_came_out(shelf, tmp_path):
    write(shelf, "one", GOOD)
    out = tmp_path / "out"
    (record,), _ = run_all(["one"], out)
    assert json.loads((out / "one.json").read_text()) == record
    assert verdicts(record) == {"big": "holds", "small": "falls short", "slow": "falls short"}
    assert [claim["measured"] for claim in record["claims"]] == [3.0, 0.5, "nan"]
    assert record["data"] == {"x": [0.0, 1.0, 2.0], "y": ["inf"]}
    assert record["error"] is None and record["machine"]["cores"] >= 1
    assert (out / "one.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in out.iterdir()) == [
        "index.html",
        "one.html",
        "one.json",
        "one.png",
    ]


def test_a_quick_run_may_leave_claims_unmeasured(shelf, tmp_path):
    write(shelf, "one", GOOD)
    (record,), _ = run_all(["one"], tmp_path / "out", quick=True)
    assert verdicts(record)["slow"] == "not measured"
    assert "1 of 3 claims hold, 1 not measured" in (tmp_path / "out/index.html").read_text()


def test_pages_need_no_other_file_and_escape_what_they_quote(shelf, tmp_path):
    write(shelf, "one", GOOD)
    run_all(["one"], tmp_path)
    page = (tmp_path / "one.html").read_text()
    assert 'name="viewport"' in page and "data:image/png;base64," in page
    assert not re.search(r'<(script|link)|src="(?!data:)|@import|url\(', page)
    assert "A &lt;made&gt; entry &amp; its claims" in page and "<b>small" not in page
    index = (tmp_path / "index.html").read_text()
    assert 'href="one.html"' in index and 'src="one.png"' in index


def test_a_crash_is_reported_and_the_others_go_on(shelf, tmp_path):
    write(shelf, "a-crash", CRASHING)
    write(shelf, "b-good", GOOD)
    write(shelf, "c-broken", "import there_is_no_such_module\n")
    (crash, good, broken), _ = run_all(catalogue.names(), tmp_path)
    assert crash["error"] == "ValueError: the tank is [empty]"
    assert verdicts(crash) == {"one": "not measured"}
    assert "there_is_no_such_module" in broken["error"]
    assert good["error"] is None
    assert "the tank is [empty]" in (tmp_path / "a-crash.html").read_text()
    assert not (tmp_path / "a-crash.png").exists()
    assert (tmp_path / "index.html").read_text().count("crashed") == 2


def test_a_crash_replaces_an_earlier_success(shelf, tmp_path):
    write(shelf, "one", GOOD)
    run_all(["one"], tmp_path)
    (tmp_path / "one.json").write_text("{}")
    catalogue.load("one").__dict__["run"] = lambda report, quick: {}["gone"]
    (record,), _ = run_all(["one"], tmp_path)
    assert record["status"] == "crashed" and not (tmp_path / "one.png").exists()


def test_an_interrupted_run_is_resumed(shelf, tmp_path):
    write(shelf, "a", GOOD)
    write(shelf, "b", GOOD.replace("report(0.5", "raise KeyboardInterrupt; report(0.5"))
    with pytest.raises(KeyboardInterrupt):
        run_all(["a", "b"], tmp_path)
    assert (tmp_path / "a.json").exists() and not (tmp_path / "b.json").exists()

    write(shelf, "c", GOOD)
    records, resumed = run_all(["a", "c"], tmp_path)
    assert resumed == [True, False] and [r["name"] for r in records] == ["a", "c"]
    assert run_all(["a", "c"], tmp_path)[1] == [True, True]
    assert run_all(["a", "c"], tmp_path, fresh=True)[1] == [False, False]
    # The other size, another version and a crash are all run again.
    assert run_all(["a"], tmp_path, quick=True)[1] == [False]
    record = json.loads((tmp_path / "c.json").read_text())
    (tmp_path / "c.json").write_text(json.dumps(record | {"version": "0.0.1"}))
    assert run_all(["c"], tmp_path)[1] == [False]
    (tmp_path / "c.json").write_text(json.dumps(record | {"status": "crashed"}))
    assert run_all(["c"], tmp_path)[1] == [False]
    # So is one whose picture was deleted, or whose record is damaged.
    (tmp_path / "c.png").unlink()
    assert run_all(["c"], tmp_path)[1] == [False]
    (tmp_path / "c.json").write_text('{"format": 1, "na')
    assert run_all(["c"], tmp_path)[1] == [False]


def test_other_files_in_the_folder_are_left_alone(shelf, tmp_path):
    write(shelf, "one", GOOD)
    (tmp_path / "notes.json").write_text('{"mine": 1}')
    (tmp_path / "bad.json").write_text("not JSON")
    run_all(["one"], tmp_path)
    assert (tmp_path / "notes.json").read_text() == '{"mine": 1}'
    assert (tmp_path / "index.html").read_text().count('class="card"') == 1


def test_a_measurement_of_no_claim_is_an_error(shelf, tmp_path):
    write(shelf, "one", GOOD.replace('{"big":', '{"huge": 1.0, "big":'))
    write(shelf, "two", GOOD.replace("np.float64(3.0)", "np.ones(2)"))
    (one, two), _ = run_all(["one", "two"], tmp_path)
    assert "huge" in one["error"]
    assert "one number or a word" in two["error"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="is a file"):
        run_all([], tmp_path / "out")


def test_the_catalogue_knows_entries_by_their_files(shelf):
    write(shelf, "first-thing", GOOD)
    write(shelf, "second", GOOD.replace('name="NAME"', 'name="other"'))
    write(shelf, "third", "ENTRY = 1\n")
    (shelf / "_helper.py").write_text("")
    assert catalogue.names() == ["first-thing", "second", "third"]
    assert catalogue.find("First_Thing") == "first-thing"
    with pytest.raises(InputError, match=r"Did you mean first-thing\?.*first-thing, second, third"):
        catalogue.find("frist-thing")
    with pytest.raises(InputError, match="after its file"):
        catalogue.load("second")
    with pytest.raises(InputError, match="must declare ENTRY"):
        catalogue.load("third")


def test_every_entry_that_ships_loads():
    for name in catalogue.names():
        assert catalogue.load(name).claims
