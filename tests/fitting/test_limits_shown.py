"""Measurements that are limits, where they are shown: none of them is a measured value."""

import csv
import io

import numpy as np
import pytest

import rootflow as rf
from rootflow.fitting import figures

#: x has limits in cells, z an upper limit of quantification: 3.5 and 3.9 are more than 3.2.
TABLE = {
    "time": [0.2, 1.0, 2.0, 5.0, 0.5, 1.0, 2.0, 5.0],
    "g": ["a"] * 4 + ["b"] * 4,
    "x": ["3.6", "2.5", "1.4", "<0.6", ">3", "2.3", "1.6", "0.3"],
    "z": [0.5, 1.6, 2.6, 3.5, 0.9, 1.7, 2.5, 3.9],
}
#: By panel (column, group): times and numbers by marker.
EXPECTED = {
    ("x", "a"): {"o": ([0.2, 1, 2], [3.6, 2.5, 1.4]), "v": ([5], [0.6])},
    ("x", "b"): {"o": ([1, 2, 5], [2.3, 1.6, 0.3]), "^": ([0.5], [3])},
    ("z", "a"): {"o": ([0.2, 1, 2], [0.5, 1.6, 2.6]), "^": ([5], [3.2])},
    ("z", "b"): {"o": ([0.5, 1, 2], [0.9, 1.7, 2.5]), "^": ([5], [3.2])},
}


@pytest.fixture(scope="module")
def result():
    model = rf.Model(
        lambda t, y, p, c: {"x": -p["k"] * y["x"], "z": p["k"] * y["x"]},
        states={"x": 4.0, "z": 0.0},
        parameters={"k": rf.Parameter(0.5, 0.01, 5.0)},
        observed={"x": lambda t, y, p, c: y["x"], "z": lambda t, y, p, c: y["z"]},
        noise={"x": rf.Noise(scale=0.1, censored=True), "z": rf.Noise(scale=0.2, above=3.2)},
        group="g",
    )
    return rf.evaluate(model, TABLE)


def points(axes):
    """Times and numbers of the points of a panel by marker."""
    found = {}
    for line in axes.lines:
        x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
        if line.get_linestyle() == "None" and np.isfinite(y).any():
            found[line.get_marker()] = x[np.isfinite(y)].tolist(), y[np.isfinite(y)].tolist()
    return found


def labels(legend):
    return [text.get_text() for text in legend.get_texts()]


def test_limits_point_to_where_the_value_is(result):
    figure = rf.plot(result)
    assert [points(axes) for axes in figure.axes] == list(EXPECTED.values())
    names = {"o": "data", "v": "data: less than this", "^": "data: more than this"}
    for axes, wanted in zip(figure.axes, EXPECTED.values(), strict=True):
        assert {names[marker] for marker in wanted} <= set(labels(axes.get_legend()))


def test_the_figure_of_the_folder_has_one_legend_for_all(result, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "png", lambda figure: drawn.append(figure) or b"")
    ts = np.tile(np.linspace(0.0, 5.0, 20), (2, 1))
    curve, spread = result.predict(ts, noise=False), result.predict(ts, noise=True)
    figures.fit_figure(result, ts, curve, spread)
    (figure,) = drawn
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [points(axes) for axes in panels] == list(EXPECTED.values())
    (legend,) = figure.legends
    assert labels(legend) == [
        "data", "data: less than this", "data: more than this", "model", "95 %: curve",
        "95 %: new measurement",
    ]  # fmt: skip


def test_the_table_of_predictions_says_which_are_limits(result, tmp_path):
    result.write(tmp_path / "out")
    text = (tmp_path / "out" / "predictions.csv").read_text("utf-8")
    rows = [row for row in csv.DictReader(io.StringIO(text)) if row["measured"]]
    for column, wanted in (
        ("x", ["3.6", "2.5", "1.4", "<0.6", ">3", "2.3", "1.6", "0.3"]),
        ("z", ["0.5", "1.6", "2.6", ">3.2", "0.9", "1.7", "2.5", ">3.2"]),
    ):
        assert [row["measured"] for row in rows if row["column"] == column] == wanted
