import numpy as np
import pytest

from rootflow.reproduce.harness import catalogue
from rootflow.reproduce.hebbian_experiments import structured


@pytest.mark.slow
def test_the_quick_run_confirms_what_it_measures():
    entry = catalogue.load("dense-hebbian")
    seen = []
    outcome = entry.run(lambda done, message="": seen.append(done), True)
    verdicts = {
        claim.id: claim.verdict(outcome.measurements[claim.id])
        for claim in entry.claims
        if claim.id in outcome.measurements and claim.id != "speed"
    }
    assert set(verdicts.values()) == {"holds"}, (verdicts, outcome.measurements)
    assert len(verdicts) == 9
    assert seen == sorted(seen) and seen[-1] == 1.0
    assert len(outcome.figure.axes) == 4


def test_thresholds_leave_the_order_of_measurements():
    split = structured.tumour_spins(4)
    assert split.train.shape == (380, 120) and set(np.unique(split.train)) == {-1.0, 1.0}
    # A value above a quantile is above all lower ones.
    each = split.train.reshape(380, 4, 30)
    assert np.all(np.diff(each, axis=1) <= 0)
