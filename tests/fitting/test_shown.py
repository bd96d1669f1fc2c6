"""What a fit says of itself."""

import dataclasses

import numpy as np
import pytest

import rootflow as rf
from rootflow.errors import SolveError
from rootflow.fitting.population.result import PopulationResult

from .results import decay


def test_a_fit_in_about_ten_lines():
    said = repr(decay(("low",)))
    lines = said.splitlines()
    assert lines[0] == "Fit of decay: converged" and len(lines) <= 13
    assert max(map(len, lines)) <= 100
    row = next(line for line in lines if line.split()[0] == "k")
    assert "0.500" in row and "0.012" in row and "0.475 to 0.525" in row and "1/h" in row
    assert "on its upper bound" in said and "The data do not determine x <at all>." in said
    assert "7 measurements" in said and "rf.plot(fit)" in said and "array(" not in said


def test_groups_have_a_column_and_many_estimates_are_cut():
    fit = decay(("low", "high"))
    assert "dose" in repr(fit).splitlines()[1]
    many = dataclasses.replace(fit, estimates=fit.estimates * 10)
    assert "and 42 more" in repr(many) and len(repr(many).splitlines()) <= 16
    assert many._repr_html_().count("<td>1/h</td>") == 20
    failed = dataclasses.replace(fit, converged=False, outcome="stalled", message="It stood still.")
    assert "stalled" in repr(failed) and "It stood still." in repr(failed)


def test_a_fit_is_drawn_beside_its_data():
    fit = decay(("low", "high"))
    figure = rf.plot(fit)
    assert len(figure.axes) == 4
    axes = figure.axes[1]
    curve, points = axes.lines
    x, y = curve.get_data()
    np.testing.assert_allclose(y, 4 * np.exp(-1.5 * x), rtol=1e-12)
    np.testing.assert_array_equal(points.get_ydata(), fit.dataset.values["x_mg"][1])
    assert axes.get_ylabel() == "x (mg)" and axes.get_xlabel() == "time (h)"
    assert "data:image/png" in fit._repr_html_()


def test_a_curve_that_cannot_be_computed_is_told():
    def fails(ts, noise):
        raise SolveError("the equations end at t = 1")

    html = dataclasses.replace(decay(("low",)), _predict=fails)._repr_html_()
    assert "No picture: the equations end at t = 1" in html and "0.500" in html


def test_a_population_says_who_was_in_it():
    fit = decay(("low", "high"))
    given = {f.name: getattr(fit, f.name) for f in dataclasses.fields(fit)}
    said = repr(
        PopulationResult(
            **given, approximation="focei", objf=12.34, effects=("k",), eta_shrinkage={"k": 0.125}
        )
    )
    assert "2, random effects on k; FOCEI, OBJF 12.3" in said and "k 12 %" in said
    assert "array(" not in said


def test_the_table_by_the_name_that_others_have():
    pytest.importorskip("pandas")
    fit = decay(("low",))
    assert fit.to_pandas().equals(fit.frame())


@pytest.mark.parametrize(
    "kind, note",
    [("laplace", ""), ("log10normal", "of the decadic logarithm"), ("loglaplace", "logarithm")],
)
def test_the_scale_of_every_kind_of_noise_has_its_note(kind, note):
    fit = decay(("low",))
    noise = {**fit.model.noise, "x_mg": rf.Noise(kind)}
    told = repr(dataclasses.replace(fit, model=dataclasses.replace(fit.model, noise=noise)))
    (row,) = (line for line in told.splitlines() if "noise of x_mg" in line)
    assert row.endswith(note) and "0.100" in row
