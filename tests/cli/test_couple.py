"""`rootflow couple`: what it leaves behind, and one clear message for what it cannot use."""

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from rootflow.cli.main import app


def run(*arguments):
    return CliRunner().invoke(app, ["couple", *map(str, arguments)])


@pytest.fixture(scope="module")
def solid(tmp_path_factory):
    out = tmp_path_factory.mktemp("couple") / "solid"
    done = run("--example", "solid-solution", "--out", out, "--json", "--scale-error", 1)
    assert done.exit_code == 0, done.output
    return out, json.loads(done.stdout)


def test_a_solid_solution_leaves_coefficients_with_bands(solid):
    out, record = solid
    assert sorted(path.name for path in out.iterdir()) == [
        "coefficients.csv", "coefficients.png", "couple.json", "phases.csv", "profile.png",
        "report.html",
    ]  # fmt: skip
    assert json.loads((out / "couple.json").read_text("utf-8")) == record
    rows = list(csv.DictReader((out / "coefficients.csv").open(encoding="utf-8")))
    N = np.array([float(row["mole_fraction_B"]) for row in rows])
    D, low, high = (
        np.array([float(row[f"D_{name}_m2_per_s"]) for row in rows])
        for name in ("fit", "fit_lower", "fit_upper")
    )
    truth = 1e-15 * 10 ** (N - 0.5)
    inner = (N > 0.15) & (N < 0.85)
    np.testing.assert_allclose(D[inner], truth[inner], rtol=0.03)
    # 1 % of length is 2 % of D, so a band of 4 %.
    assert np.all(low[inner] < truth[inner]) and np.all(truth[inner] < high[inner])
    np.testing.assert_allclose((high / D)[inner], 1.04, atol=0.01)
    wagner = np.array([float(row["D_wagner_m2_per_s"]) for row in rows])
    np.testing.assert_allclose(wagner[inner], truth[inner], rtol=0.1)


def test_the_page_needs_nothing_else(solid):
    page = (solid[0] / "report.html").read_text("utf-8")
    assert "synthetic" in page and page.count("data:image/png;base64,") == 2
    assert "http" not in page.replace("http-equiv", "")
    assert "The fit converged" in page and "nan" not in page.lower().split("</style>")[1][:4000]


def test_compounds_leave_integrated_coefficients(tmp_path):
    done = run("--example", "cu-sn", "--out", tmp_path / "cu-sn", "--thickness-error", 0.2)
    assert done.exit_code == 0, done.output
    assert "Results:" in done.stdout and "integrated coefficient" in done.stdout
    record = json.loads((tmp_path / "cu-sn" / "couple.json").read_text("utf-8"))
    rows = record["phases"]["rows"][1:-1]
    integrated = record["phases"]["columns"].index("integrated_m2_per_s")
    found = [row[integrated] * 1e17 for row in rows]
    np.testing.assert_allclose(found, [1.419, 4.611], rtol=0.01)
    error = record["phases"]["columns"].index("integrated_error_m2_per_s")
    assert all(0.01 < row[error] / row[integrated] < 0.1 for row in rows) and "±" in done.stdout
    np.testing.assert_allclose(record["tracer_ratio"], 1.40, rtol=0.01)
    assert record["fit"] is None and not (tmp_path / "cu-sn" / "coefficients.png").exists()


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = np.linspace(-100, 100, 101)
    lines = ["x_um,N_B", *(f"{a:g},{1 / (1 + np.exp(-a / 8)):.8f}" for a in x)]
    (tmp_path / "couple.csv").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


def test_one_method_markers_and_a_folder_of_its_own(table):
    done = run(
        "couple.csv", "--time", "100h", "--method", "wagner", "--marker", "2",
        "--molar-volume", "7,9", "--quiet",
    )  # fmt: skip
    assert done.exit_code == 0 and done.stdout == "", done.output
    record = json.loads((table / "couple-couple" / "couple.json").read_text("utf-8"))
    assert record["coefficients"]["columns"] == ["mole_fraction_B", "D_wagner_m2_per_s"]
    assert record["markers"]["A"] > 0 and record["markers"]["B"] > 0
    # Earlier results are replaced, other files are not.
    assert run("couple.csv", "--time", "1h", "--method", "wagner", "--quiet").exit_code == 0
    (table / "mine").mkdir()
    (table / "mine" / "notes.txt").write_text("mine")
    refused = run("couple.csv", "--time", "1h", "--out", "mine")
    assert refused.exit_code == 2 and "no earlier analysis" in refused.stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "Give PROFILE.csv, or --example cu-sn"),
        (["nothing.csv", "--time", "1h"], "there is no such file"),
        (["couple.csv"], "annealing time is missing"),
        (["couple.csv", "--time", "0h"], "must be positive"),
        (["couple.csv", "--time", "1h", "--method", "boltzmann"], "method must be one of"),
        (["couple.csv", "--time", "1h", "--ends", "0"], "give two mole fractions"),
        (["couple.csv", "--time", "1h", "--marker", "500"], "marker at 500 µm lies outside"),
        (["couple.csv", "--time", "1h", "--molar-volume", "none"], "neither V_A,V_B"),
        (["couple.csv", "--example", "cu-sn"], "brings its own profile"),
        (["--example", "cu-zn"], "there is no example 'cu-zn'"),
        (["--example", "cu-sn", "--method", "fit"], "the fit is for one phase"),
    ],
)
def test_what_cannot_be_used_is_refused(table, arguments, message):
    before = sorted(table.iterdir())
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    assert message in done.stderr and "Traceback" not in done.stderr
    assert sorted(table.iterdir()) == before


def test_a_fit_that_does_not_converge_is_exit_code_one(table, monkeypatch):
    from rootflow.materials import analysis

    fit = analysis.fit_profile
    monkeypatch.setattr(
        analysis,
        "fit_profile",
        lambda *a, **o: fit(*a, **o)._replace(converged=False, message="no"),
    )
    done = run("couple.csv", "--time", "100h", "--method", "fit", "--quiet")
    assert done.exit_code == 1 and "did not converge" in done.stderr
    assert (table / "couple-couple" / "report.html").exists()
