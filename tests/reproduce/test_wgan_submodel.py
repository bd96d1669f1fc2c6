"""The entry `wgan-submodel`, in its quick form."""

import pytest

from rootflow.reproduce.harness import catalogue

pytest.importorskip("skfem")


def test_quick_run():
    entry = catalogue.load("wgan-submodel")
    outcome = entry.run(lambda done, message="": None, True)
    assert outcome.measurements == {"identity": 0.0}
    rows = outcome.data["rows"]
    assert len(rows) == 6 and rows["bootstrap"]["memorisation"] == [0.0]
    # A bootstrap is near, what was hardly trained is not.
    assert rows["bootstrap"]["peak"][0] < min(rows["WGAN-GP"]["peak"][0], 0.3)
    softer = outcome.data["softer interior"]
    assert 0 < softer["coupling"] < 0.3
    assert "WGAN-GP is not needed" in outcome.data["verdict"]
