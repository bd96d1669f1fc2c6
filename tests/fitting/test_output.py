"""The results folder: what is in it, that it is whole, and that the page fits a phone."""

import copy
import csv
import io
import json
import math
import re
import shutil
import struct
import subprocess
from dataclasses import replace

import pytest

from rootflow.errors import InputError
from rootflow.fitting.formats import shown, with_unit
from rootflow.fitting.output import FILES, as_record, check_folder, write_results
from rootflow.fitting.terminal import print_result
from tests.fitting.results import RATES, decay


@pytest.fixture(scope="module", params=[("low",), ("low", "high")], ids=["one", "groups"])
def written(request, tmp_path_factory):
    result = decay(request.param)
    folder = tmp_path_factory.mktemp("results") / "fit-decay"
    return result, folder, write_results(result, folder)


def test_the_folder_holds_what_is_promised(written):
    result, folder, record = written
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert [path.name for path in folder.parent.iterdir()] == ["fit-decay"]

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    text = (folder / "fit.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=refuse) == record
    assert record["seed"] == 7
    assert record["machine"]["jax"] and record["machine"]["rootflow"]
    assert record["estimates"][0]["value"] == 0.5
    assert record["covariance"][0][0] is None
    assert record["starts"][1]["cost"] is None
    assert len(record["residuals"]) == result.observations


def test_residuals_are_standardised_and_point_to_their_rows(written):
    result, _, record = written
    by_place = {(r["row"], r["column"]): r for r in record["residuals"]}
    # x_mg lies 0.1 above and below the curve in turn, and the scale is 0.1.
    for row in range(len(result.dataset.table)):
        assert by_place[row, "x_mg"]["residual"] == pytest.approx((-1) ** row)
    assert by_place[1, "half"]["residual"] == pytest.approx(0.0, abs=1e-12)
    assert (3, "half") not in by_place


def test_predictions_hold_the_curve_and_the_data(written):
    result, folder, _ = written
    rows = list(csv.DictReader(io.StringIO((folder / "predictions.csv").read_text("utf-8"))))
    several = len(result.dataset.groups) > 1
    assert ("dose" in rows[0]) == several
    measured = [row for row in rows if row["measured"]]
    assert len(measured) == result.observations
    for row in rows:
        k = RATES[row["dose"]] if several else 0.5
        exact = 4 * math.exp(-k * float(row["time_h"])) / (1 if row["column"] == "x_mg" else 2)
        assert float(row["predicted"]) == pytest.approx(exact, rel=1e-8)
        assert float(row["lower"]) <= float(row["curve_lower"]) < exact
        assert exact < float(row["curve_upper"]) <= float(row["upper"])
    times = [float(row["time_h"]) for row in rows if row["column"] == "half"][:150]
    assert times == sorted(times)
    # Replicates at one time: a row for each, with the same prediction.
    at_one = [r for r in measured if float(r["time_h"]) == 1 and r["column"] == "x_mg"]
    assert len(at_one) == 2 * len(result.dataset.groups)


@pytest.mark.parametrize("name", ["fit.png", "residuals.png"])
def test_pictures_are_pictures(written, name):
    content = (written[1] / name).read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    assert 700 < width < 2000 and 400 < height < 4000


def test_the_page_needs_nothing_else_and_escapes_text(written):
    page = (written[1] / "report.html").read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:image/png;base64,)', page)
    assert "Decay &lt;b&gt;with&lt;/b&gt; markup &amp; signs." in page
    assert "The data do not determine x &lt;at all&gt;." in page
    assert "x(0)" in page and "on its upper bound" in page and "0.500" in page
    assert "1 of 2 searches" in page


def browser():
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("no chromium here: install it from the distribution's packages")


# The page in frames of phone width: a headless window is never narrower than 500 pixels.
PROBE = """<!doctype html><body><iframe id="page" src="report.html" width="{width}" height="800">
</iframe><script>
document.getElementById("page").onload = event => {{
  const inner = event.target.contentDocument, root = inner.documentElement;
  inner.querySelectorAll("details").forEach(node => {{ node.open = true; }});
  const images = [...inner.images].every(image => image.naturalWidth > 0);
  const right = Math.max(...[...inner.querySelectorAll("p, td, h1, dd, figure, pre")]
    .filter(node => node.closest(".stack") || !node.closest(".wide"))
    .map(node => node.getBoundingClientRect().right));
  document.body.innerHTML = `<output>${{root.scrollWidth}} ${{root.clientWidth}} `
    + `${{Math.ceil(right)}} ${{images}}</output>`;
}};
</script>"""


@pytest.mark.parametrize("width", [340, 390])
def test_the_page_fits_a_phone(written, width, tmp_path):
    chromium = browser()
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE.format(width=width), encoding="utf-8")
    shutil.copy(written[1] / "report.html", tmp_path / "report.html")
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
        "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", "--allow-file-access-from-files", "--virtual-time-budget=10000",
        f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", probe.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r"<output>(\d+) (\d+) (\d+) (\w+)</output>", done.stdout)
    assert found, done.stdout[-500:] + done.stderr[-500:]
    scroll, client, right = map(int, found.groups()[:3])
    assert client <= width
    assert scroll <= client, "the page is wider than the screen"
    assert right <= client
    assert found.group(4) == "true", "a picture does not load"


def test_an_earlier_fit_is_replaced_and_other_folders_are_left_alone(tmp_path):
    result = decay(("low",))
    ours = tmp_path / "ours"
    write_results(result, ours)
    write_results(replace(result, seed=8), ours)
    assert json.loads((ours / "fit.json").read_text("utf-8"))["seed"] == 8

    other = tmp_path / "other"
    other.mkdir()
    check_folder(other)  # empty: may be used
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds other files"):
        write_results(result, other)
    (other / "fit.json").write_text('{"program": "something else"}')
    with pytest.raises(InputError, match="holds other files"):
        check_folder(other)
    assert sorted(path.name for path in other.iterdir()) == ["fit.json", "thesis.txt"]
    with pytest.raises(InputError, match="is a file"):
        check_folder(other / "thesis.txt")


def test_nothing_appears_when_a_picture_fails(tmp_path, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("no picture")

    monkeypatch.setattr("rootflow.fitting.output.report_page", fail)
    with pytest.raises(RuntimeError, match="no picture"):
        write_results(decay(("low",)), tmp_path / "results")
    assert list(tmp_path.iterdir()) == []


def test_the_terminal_table():
    from rich.console import Console

    stream = io.StringIO()
    print_result(decay(("low", "high")), Console(file=stream, width=100))
    text = stream.getvalue()
    assert re.search(r"low +k +0\.500 +0\.012 +0\.475 to 0\.525 +1/h", text)
    assert re.search(r"x\(0\).*mg on its upper bound", text)
    assert re.search(r"noise of half +0\.1 +– +– +given", text)
    assert "Warning: The data do not determine x <at all>." in text


def printed(result, width):
    from rich.console import Console

    stream = io.StringIO()
    print_result(result, Console(file=stream, width=width))
    return stream.getvalue()


@pytest.mark.parametrize("width", [20, 40, 60, 79, 80, 120])
def test_nothing_is_lost_in_a_narrow_terminal(width):
    """Every name, number and unit, and no line wider than the terminal."""
    result = decay(("low", "high"))
    whole = replace(result.estimates[0], profile=(0.46, 0.54))
    text = printed(replace(result, estimates=[whole, *result.estimates[1:]]), width)
    assert max(map(len, text.splitlines())) <= width
    words = " ".join(text.split())
    for piece in ("low", "high", "x(0)", "noise of x_mg", "1/h", "mg", "0.500", "0.012", "1.500",
                  "0.460 to 0.540", "0.475 to 0.525"):  # fmt: skip
        found = piece in words or piece.replace(" ", "") in words.replace(" ", "")
        assert found, (piece, text)


def test_control_characters_do_not_reach_the_terminal():
    """Escape sequences in names, units, groups and warnings: some terminals would obey them."""
    result = decay(("low", "high"))
    evil = "\x1b[2J\x1b]0;title\x07\x9b1m\u202e[red]"
    estimates = [
        replace(result.estimates[0], name=f"k{evil}", unit=f"1/h{evil}", group=f"low{evil}"),
        *result.estimates[1:],
    ]
    for width in (40, 200):
        text = printed(replace(result, estimates=estimates, warnings=[f"Look{evil}."]), width)
        assert all(c.isprintable() or c == "\n" for c in text)
        assert "[red]" in text.replace("\n", "").replace(" ", "") and "Look" in text


def test_texts_with_dollars_are_no_formulas_in_figures(tmp_path):
    """Matplotlib would set what is between dollars as mathematics, or fail."""
    result = decay(("low", "high"))
    model = copy.copy(result.model)
    for name, value in (("units", {"x_mg": "$\\frac$", "time_h": "$^$"}), ("group", "$_{$")):
        object.__setattr__(model, name, value)
    write_results(replace(result, model=model), tmp_path / "out")
    assert (tmp_path / "out" / "fit.png").stat().st_size > 10_000


def test_a_record_has_no_nan():
    assert as_record(decay(("low",)))["estimates"][1]["se"] is None


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.5402, 0.0594, "0.540"),
        (0.0996, 0.0249, "0.100"),
        (34.6, 2.93, "34.6"),
        (-0.2345, 0.01, "-0.234"),
        (12345678.0, 1200.0, "1.23457e7"),
        (1e-9, 1e-10, "1.00e-9"),
        (0.5, 1e6, "0.50"),
        (0.5, 1e-12, "0.50000000"),
        (2.0, None, "2"),
        (12345.6, None, "12346"),
        (math.nan, None, "–"),
        (-math.inf, 1.0, "-∞"),
    ],
)
def test_numbers_have_the_digits_their_error_justifies(value, error, text):
    assert shown(value, error) == text


def test_units_are_said_once():
    assert with_unit("time_h", "h") == "time (h)"
    assert with_unit("concentration_mg_per_l", "mg/l") == "concentration (mg/l)"
    assert with_unit("year", "") == "year"
    assert with_unit("x", "mg") == "x (mg)"
