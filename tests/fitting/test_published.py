"""Published models and their published optima."""

import warnings
from pathlib import Path

import pytest

import rootflow as rf

MODELS = Path(__file__).parents[2] / "benchmarks" / "models"


def test_boehm_2014_has_its_published_optimum():
    files = MODELS / "boehm.toml", MODELS / "boehm.csv"
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # upper ends of intervals overflow
        there = rf.evaluate(*files, method="stiff")
        assert there.nll == pytest.approx(138.2220, abs=2e-3)
        found = rf.fit(*files, starts=1, method="stiff")
    assert found.converged and found.nll == pytest.approx(138.2220, abs=2e-3)
    assert found["phosphorylation"] == pytest.approx(15766.5, rel=2e-3)
