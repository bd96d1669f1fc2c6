"""Fits in their folders and back: models of Python functions, and PEtab problems."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

import rootflow as rf

DATA = {"time": [0.0, 1.0, 2.0, 3.0, 4.0], "x": [4.1, 2.3, 1.6, 0.9, 0.53]}


def decay(t, y, p):
    return {"x": -p["k"] * y["x"]}


def described(**changes):
    """The arguments that describe the model."""
    given = {"states": {"x": rf.Parameter(4.0, 0.1, 40.0)},
             "parameters": {"k": rf.Parameter(0.7, 0.01, 10.0, scale="log")},
             "noise": {"x": "lognormal"}}  # fmt: skip
    return given | changes


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store") / "fit"
    fit = rf.fit(decay, DATA, **described(), starts=1)
    fit.write(folder)
    return folder, fit


def test_a_fit_of_functions_is_read_again_with_the_functions(written):
    folder, fit = written
    assert not (folder / "model.toml").exists() and (folder / "data.csv").exists()
    # Logarithms about a straight line: the closed form.
    slope, level = np.polyfit(DATA["time"], np.log(DATA["x"]), 1)
    for other in (
        rf.load_fit(folder, model=decay, **described()),
        rf.load_fit(folder, model=fit.model),
    ):
        assert other["k"] == pytest.approx(fit["k"], rel=1e-14)
        assert other["k"] == pytest.approx(-slope, rel=1e-6)
        assert other["x"] == pytest.approx(np.exp(level), rel=1e-6)
        assert other.nll == pytest.approx(fit.nll, abs=1e-9) and other.starts == fit.starts
        np.testing.assert_allclose(other.predict([6.0])["x"], fit.predict([6.0])["x"], rtol=1e-6)
        np.testing.assert_allclose(other.covariance, fit.covariance, rtol=1e-6)


def grow(t, y, p):
    return {"x": -p["k"] * y["x"] ** 2}


@pytest.mark.parametrize(
    ("model", "changes", "said"),
    [
        (None, {}, r"model from Python functions.*model=\.\.\."),
        (decay, {"states": {"z": rf.Parameter(4.0)}, "observed": {"x": lambda t, y, p: y["z"]}},
         "states of the model are z, of the fit x"),
        (decay, {"parameters": {"rate": rf.Parameter(0.7)}}, "parameters of the model are rate"),
        (decay, {"states": {"x": 4.0}}, "'x' is fitted in the fit, and not in the model"),
        (decay, {"parameters": {"k": rf.Parameter(0.7, 0.01, 20.0, scale="log")}},
         "upper of 'k' is 20.0 in the model, 10.0 in the fit"),
        (decay, {"time": "x", "observed": {"time": lambda t, y, p: y["x"]}, "noise": "normal"},
         "time column of the model is 'x'"),
        (grow, {}, "or the model was changed after the fit"),
    ],
)  # fmt: skip
def test_a_model_that_is_not_that_of_the_fit_is_refused(written, model, changes, said):
    folder, _ = written
    given = {} if model is None else described(**changes)
    with pytest.raises(rf.InputError, match=said):
        rf.load_fit(folder, model=model, **given)


def test_the_text_of_a_model_goes_with_it_but_not_with_another_made_of_it():
    text = '[parameters]\nk = { guess = 0.7 }\n[states]\nx = 1.0\n[equations]\nx = "-k*x"\n'
    text += '[observed]\nx = "x"\n'
    from rootflow.fitting.modelfile import model_from_text

    model = model_from_text(text)
    assert model.text == text == pickle.loads(pickle.dumps(model)).text
    assert replace(model, name="other").text == ""


def test_a_fit_of_a_petab_problem_is_read_again(tmp_path):
    pytest.importorskip("libsbml")
    from tests.fitting.petab import problems

    rows = "\n".join(f"obs_a c0 {t} {x}" for t, x in ((0, 1.1), (1, 0.62), (3, 0.47), (9, 0.4)))
    path = problems.write(tmp_path / "problem", measurements=f"{problems.MEASUREMENTS}\n{rows}",
                          parameters=f"{problems.PARAMETERS}\na0 lin 0 10 1 1\nb0 lin 0 10 0 0\n"
                          f"{problems.RATES}")  # fmt: skip
    model, data = rf.load_petab(path)
    fit = rf.fit(model, data, starts=1)
    fit.write(tmp_path / "fit")
    assert json.loads((tmp_path / "fit" / "fit.json").read_text("utf-8"))["files"] == [
        "model.toml", "data.csv"
    ]  # fmt: skip
    back = rf.load_fit(tmp_path / "fit")
    assert back["k1"] == pytest.approx(fit["k1"], rel=1e-14) and back.nll == pytest.approx(
        fit.nll, abs=1e-9
    )
    # A <=> B from (a, 0): a (k2 + k1 exp(-(k1 + k2) t)) / (k1 + k2)
    k1, k2, t = back["k1"], back["k2"], np.array([2.0, 20.0])
    exact = back["a0"] * (k2 + k1 * np.exp(-(k1 + k2) * t)) / (k1 + k2)
    mean, low, high = back.predict(t, noise=False)["obs_a"]
    np.testing.assert_allclose(mean[0], exact, rtol=1e-6)
    assert np.all(low < mean) and np.all(mean < high)
    at = rf.evaluate(
        back.model, back.dataset, values={"k1": back["k1"], "k2": k2, "a0": back["a0"]}
    )
    assert at.nll == pytest.approx(fit.nll, abs=1e-6)
