import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rootflow import materials as mat
from rootflow.materials.examples import EXAMPLES, example_file

from .couples import A, logistic

X, Y = logistic(61, reach=12)


def write(tmp_path, header, rows, name="profile.csv"):
    path = tmp_path / name
    path.write_text(header + "\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def plain(tmp_path, header, scale=1.0, x=X * 1e6, N=Y, comments=""):
    rows = [f"{a:.10g},{scale * b:.12g}" for a, b in zip(x, N)]
    return write(tmp_path, comments + header, rows)


@pytest.mark.parametrize(
    "header, x_scale, N_scale",
    [
        ("x_um,N_Pd", 1e6, 1.0),
        ("distance (µm),Pd at.%", 1e6, 100.0),
        ("position [mm],Pd at%", 1e3, 100.0),
        ("depth_nm,mole fraction Pd", 1e9, 1.0),
        ("dis,X", 1e6, 1.0),
    ],
)
def test_units_are_those_of_the_header(tmp_path, header, x_scale, N_scale):
    path = plain(tmp_path, header, N_scale, X * x_scale)
    found = mat.read_profile(path, time="100h")
    np.testing.assert_allclose(found.profile.x, X, atol=1e-14)
    np.testing.assert_allclose(found.profile.N, Y, atol=1e-10)
    assert float(found.profile.time) == 360000
    assert found.format == ("pyDiffusion" if header == "dis,X" else "table")


def test_weight_percent_becomes_mole_fractions(tmp_path):
    w = Y * 106.42 / ((1 - Y) * 58.693 + Y * 106.42)
    path = plain(tmp_path, "x_um,Pd wt.%", 100.0, N=w)
    found = mat.read_profile(path, time="100h", elements=("Ni", "Pd"))
    np.testing.assert_allclose(found.profile.N, Y, atol=1e-10)
    both = write(
        tmp_path, "x_um,Ni wt.%,Pd wt.%",
        [f"{a * 1e6:.8g},{99 * (1 - b):.10g},{99 * b:.10g}" for a, b in zip(X, w)], "both.csv",
    )  # fmt: skip
    found = mat.read_profile(both, time="100h")
    assert found.elements == ("Ni", "Pd") and found.totals == pytest.approx((0.99, 0.99))
    np.testing.assert_allclose(found.profile.N, Y, atol=1e-8)


def test_scatter_beside_weight_percent_is_carried_to_the_mole_fraction(tmp_path):
    a, b, w = 26.982, 183.84, (Y + 0.01) / 1.02
    slope = jax.vmap(jax.grad(lambda w: (w / b) / ((1 - w) / a + w / b)))(jnp.asarray(w))
    rows = [f"{p * 1e6:.8g},{100 * q:.10g},0.5" for p, q in zip(X, w)]
    path = write(tmp_path, "x_um,W wt.%,sigma", rows)
    found = mat.read_profile(path, time="1h", elements=("Al", "W")).profile
    np.testing.assert_allclose(found.sigma, 0.005 * slope, rtol=1e-4)
    # Of w = B / (A + B), here of a sum of 99 %: dw = ((1 - w) dB - w dA) / 0.99.
    rows = [f"{p * 1e6:.8g},{99 * (1 - q):.10g},{99 * q:.10g},0.5,0.2" for p, q in zip(X, w)]
    of_share = np.hypot((1 - w) * 0.005, w * 0.002) / 0.99
    for names in ("sd W,sd Al", "sigma,error"):
        path = write(tmp_path, f"x_um,Al wt.%,W wt.%,{names}", rows)
        found = mat.read_profile(path, time="1h").profile
        if names == "sigma,error":  # in the order of the compositions
            of_share = np.hypot((1 - w) * 0.002, w * 0.005) / 0.99
        np.testing.assert_allclose(found.sigma, of_share * slope, rtol=1e-4)
    path = write(tmp_path, "x_um,Al wt.%,W wt.%,sd W,sd Cu", rows)
    with pytest.raises(ValueError, match=r"'sd W', 'sd Cu' do not belong to .* Al, W"):
        mat.read_profile(path, time="1h")


def test_the_file_may_say_what_the_table_does_not(tmp_path):
    said = (
        "# time: 2 d\n# elements: Cu, Sn\n# molar_volume: 7.12, 16.24\n# marker: 3 um\n"
        "# temperature: 500 K\n# title: A couple\n"
    )  # fmt: skip
    found = mat.read_profile(plain(tmp_path, "x_um,Sn at.%", 100.0, comments=said))
    assert float(found.profile.time) == 172800 and found.elements == ("Cu", "Sn")
    assert found.marker == pytest.approx(3e-6) and found.title == "A couple"
    assert float(found.profile.temperature) == 500
    np.testing.assert_allclose(found.profile.molar_volume(0.5), 11.68e-6)
    other = mat.read_profile(plain(tmp_path, "x_um,Sn at.%", 100.0, comments=said), time="1h")
    assert float(other.profile.time) == 3600  # what is asked for wins


def test_an_oblique_scan_is_shortened(tmp_path):
    path = plain(tmp_path, "x_um,N_B")
    found = mat.read_profile(path, time="1h", angle=60, marker=4e-6)
    np.testing.assert_allclose(found.profile.x, X / 2, atol=1e-15)
    assert found.marker == pytest.approx(2e-6)


def test_pydiffusions_coefficient_is_kept(tmp_path):
    rows = [f"{a * 1e6:.8g},{b:.10g},1e-15" for a, b in zip(X, Y)]
    found = mat.read_profile(write(tmp_path, "dis,X,DC", rows), time="1h")
    np.testing.assert_allclose(found.coefficient, 1e-15)


def test_an_export_of_probe_for_epma_with_its_errors():
    found = mat.read_profile(example_file("solid-solution"))
    assert found.format == "Probe for EPMA" and found.elements == ("Ni", "Pd")
    assert found.totals[0] > 0.97
    # The stated relative errors stand for a scatter of 0.4 at.% sqrt(N (1 - N)).
    middle = np.argmin(np.abs(np.asarray(found.profile.N) - 0.5))
    np.testing.assert_allclose(found.profile.sigma[middle], 0.002, rtol=0.05)


def test_bundled_examples_are_called_synthetic():
    for name in EXAMPLES:
        assert "synthetic" in mat.read_profile(example_file(name)).title
    with pytest.raises(ValueError, match="Did you mean 'cu-sn'"):
        example_file("cu_sn")


def test_times_and_volumes():
    assert mat.parse_time("90 min") == 5400 and mat.parse_time("1.5h") == 5400
    assert mat.parse_time(10) == 10.0
    np.testing.assert_allclose(mat.parse_volume("0:7.12, 0.25:8.59, 1:16.24")(0.25), 8.59e-6)
    np.testing.assert_allclose(mat.parse_volume("7.1")(0.25), 7.1e-6)


def test_a_table_of_volumes_lies_beside_the_profile(tmp_path):
    (tmp_path / "volumes.csv").write_text("Sn at.%,V\n0,7.12\n25,8.59\n100,16.24\n")
    path = plain(tmp_path, "x_um,N_B", comments="# molar_volume: volumes.csv\n")
    found = mat.read_profile(path, time="1h")
    np.testing.assert_allclose(found.profile.molar_volume(0.25), 8.59e-6)


@pytest.mark.parametrize(
    "text, message",
    [
        ("100", "number with a unit; write 100h"),
        ("0h", "must be positive; got '0h'"),
        ("ten hours", "number with a unit"),
        (None, "annealing time is missing; say --time"),
        ("1.2.3h", "'1.2.3' is not a number"),
    ],
)
def test_bad_times_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        mat.parse_time(text)


@pytest.mark.parametrize("text", ["nothing.csv", "1,2,3", "a:b"])
def test_bad_volumes_are_refused(text):
    with pytest.raises(ValueError, match="neither V_A,V_B"):
        mat.parse_volume(text)


def changed(N, place, value):
    out = [f"{v:.6g}" for v in N]
    out[place] = value
    return out


ROWS = [f"{a * 1e6:.6g}" for a in X]


@pytest.mark.parametrize(
    "header, cells, message",
    [
        ("x_um,N_B", changed(Y, 7, "abc"), r"line 9, column 'N_B': 'abc' is not a number"),
        ("x_um,N_B", changed(Y, 7, ""), r"line 9, column 'N_B': the cell is blank"),
        ("x_um,N_B", changed(Y, 7, "1.7"), r"line 9, column 'N_B': 1.7 is outside of \[0, 1\]"),
        ("x_um,B at.%", changed(100 * Y, 7, "120"), r"line 9, column 'B at.%': 120 is outside"),
        ("x,N_B", changed(Y, 0, "0"), "column 'x' has no unit; write x_um"),
        ("length,N_B", changed(Y, 0, "0"), "no column is a position"),
        ("x_um,signal", changed(Y, 0, "0"), "no column is a composition"),
        ("x_um,Sn wt.%", changed(Y, 0, "0"), "name both with --elements, such as Cu,Sn"),
    ],
)
def test_messages_have_file_line_and_column(tmp_path, header, cells, message):
    path = write(tmp_path, header, [f"{a},{b}" for a, b in zip(ROWS, cells)])
    with pytest.raises(ValueError, match=message) as caught:
        mat.read_profile(path, time="1h")
    assert path.name in str(caught.value)


def test_other_bad_files_are_refused(tmp_path):
    x = ROWS.copy()
    x[20], x[21] = x[21], x[20]
    path = write(tmp_path, "x_um,N_B", [f"{a},{b:.6g}" for a, b in zip(x, Y)])
    with pytest.raises(ValueError, match=r"line 23: the position decreases .* sort the rows"):
        mat.read_profile(path, time="1h")
    short = write(tmp_path, "x_um,N_B", ["0,0", "1,1"], "short.csv")
    with pytest.raises(ValueError, match=r"short.csv: the profile has 2 points"):
        mat.read_profile(short, time="1h")
    three = write(tmp_path, "x_um,Fe at.%,Ni at.%,Cr at.%", ["0,30,30,40"], "three.csv")
    with pytest.raises(ValueError, match=r"elements Fe, Ni, Cr; a couple here is binary"):
        mat.read_profile(three, time="1h")
    with pytest.raises(ValueError, match="asked for; the file has Fe, Ni, Cr"):
        mat.read_profile(three, time="1h", elements=("Fe", "Al"))
    low = write(
        tmp_path, "x_um,Cu at.%,Sn at.%",
        [f"{a},{60 if i == 30 else 100 * (1 - b):.6g},{0 if i == 30 else 100 * b:.6g}"
         for i, (a, b) in enumerate(zip(ROWS, Y))], "low.csv",
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"low.csv, line 32: the total is 60 %, far from 100 %"):
        mat.read_profile(low, time="1h")
    mixed = write(tmp_path, "x_um,Cu at.%,Sn wt.%", ["0,50,50"], "mixed.csv")
    with pytest.raises(ValueError, match="different units"):
        mat.read_profile(mixed, time="1h")


def test_phases_of_a_profile_are_those_of_the_layers():
    # Stairs without scatter: the integral of Wagner's formula is the formula for layers.
    edges, N = [-20, 0, 5, 15, 40], [0.0, 0.25, 5 / 11, 1.0]
    x = np.concatenate([np.linspace(a, b, 21) for a, b in itertools.pairwise(edges)]) * 1e-6
    volume = mat.parse_volume("0:7.12,0.25:8.59,0.4545454545454545:10.59,1:16.24")
    for sign in (1, -1):
        couple = mat.Profile(
            (sign * x)[::sign], np.repeat(N, 21)[::sign], time=360000.0, molar_volume=volume
        )
        found = mat.phases_of(couple)
        layers = mat.layers_of(couple)
        np.testing.assert_allclose(layers.thicknesses, [5e-6, 10e-6], rtol=1e-9)
        np.testing.assert_allclose(
            np.asarray(mat.integrated(layers)) * 1e17, [1.41917, 4.61098], rtol=1e-5
        )
        by_areas = [phase.integrated for phase in found[1:-1]][::sign]
        np.testing.assert_allclose(by_areas, mat.integrated(layers), rtol=1e-6)
        assert all(phase.narrow for phase in found)


def test_a_wide_phase_has_the_integral_of_its_coefficient():
    x, Y = logistic(3001)
    couple = mat.Profile(x, Y, time=360000.0)
    (phase,) = mat.phases_of(couple)
    # int D dY of the logistic couple is pi²/6 a²/t.
    np.testing.assert_allclose(phase.integrated, np.pi**2 / 6 * A**2 / 360000, rtol=1e-4)
    assert not phase.narrow
    with pytest.raises(ValueError, match="has no layers"):
        mat.layers_of(couple)
