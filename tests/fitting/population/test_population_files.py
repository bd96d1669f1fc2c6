"""Functions that take the files `rf.fit` takes: published values from a file and a table."""

import numpy as np
import pytest
import scipy.stats

import rootflow as rf
from rootflow.fitting import population
from rootflow.fitting.petab import at_guess
from rootflow.fitting.petab.convert import csv_text

from .populations import WANG_TABLE

WANG = """\
[model]
name = "wang"
time = "time"
group = "id"
t0 = 0

[parameters]
ke = { guess = 0.5, scale = "log" }

[observed]
y = "10*exp(-ke*t)"

[noise]
y = { kind = "proportional", scale = 0.31622776601683794 }
"""
RANDOM = """
[random]
ke = 0.2
"""


@pytest.fixture
def files(tmp_path):
    columns = {name: np.asarray(column).tolist() for name, column in WANG_TABLE.items()}
    (tmp_path / "wang.csv").write_text(csv_text(columns), encoding="utf-8")
    (tmp_path / "wang.toml").write_text(WANG + RANDOM, encoding="utf-8")
    return tmp_path


def test_the_published_objective_function_from_files(files):
    """Wang (2007), FOCEI and FO."""
    model, table = files / "wang.toml", files / "wang.csv"
    assert population.objf(str(model), str(table)).objf == pytest.approx(39.458, abs=5e-4)
    assert population.objf(model, WANG_TABLE).objf == pytest.approx(39.458, abs=5e-4)
    by_fo = population.estimated(model, "fo")
    assert population.objf(by_fo, table).objf == pytest.approx(39.213, abs=5e-4)


def test_what_is_no_model_is_named(files):
    for call in (
        lambda: population.objf(lambda t, y, p: y, WANG_TABLE),
        lambda: population.estimated(None, "fo"),
        lambda: population.with_random(3, {"ke": 0.2}),
    ):
        with pytest.raises(
            rf.InputError, match=r"rf\.Model\(\.\.\.\), or the path of a model file"
        ):
            call()
    with pytest.raises(rf.InputError, match="nope"):
        population.objf(files / "nope.toml", files / "wang.csv")


DECAY = """\
[model]
name = "decay"
time = "time"

[states]
x = 4

[parameters]
k = { guess = 0.5, lower = 0, upper = 5 }

[equations]
x = "-k*x"

[observed]
x = "x"

[noise]
x = { kind = "normal", scale = 0.1 }
"""


def test_a_model_at_its_guesses_from_files(files):
    """The normal density of 4 exp(-t/2) by hand."""
    t, x = np.array([0.0, 1.0, 3.0]), np.array([3.9, 2.5, 1.0])
    (files / "decay.toml").write_text(DECAY, encoding="utf-8")
    (files / "decay.csv").write_text(csv_text({"time": t.tolist(), "x": x.tolist()}))
    expected = -scipy.stats.norm.logpdf(x, 4 * np.exp(-t / 2), 0.1).sum()
    for data in (files / "decay.csv", {"time": t, "x": x}):
        assert at_guess(files / "decay.toml", data).nll == pytest.approx(expected, rel=1e-7)


def test_random_effects_are_not_left_out_in_silence(files):
    with pytest.raises(rf.InputError, match=r"random effects: .*population\.objf"):
        at_guess(files / "wang.toml", files / "wang.csv")
