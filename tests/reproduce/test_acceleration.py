import numpy as np
import pytest

from rootflow.reproduce.harness import catalogue


@pytest.fixture(scope="module")
def entry():
    return catalogue.load("acceleration")


@pytest.mark.slow
def test_the_quick_run_confirms_what_it_measures(entry):
    seen = []
    outcome = entry.run(lambda done, message="": seen.append(done), True)
    assert seen == sorted(seen) and seen[-1] == 1.0
    verdicts = {c.id: c.verdict(outcome.measurements.get(c.id)) for c in entry.claims}
    short = {name for name, verdict in verdicts.items() if verdict == "falls short"}
    assert not short, {name: outcome.measurements[name] for name in short}
    missing = {name for name, verdict in verdicts.items() if verdict == "not measured"}
    assert missing == {"basins", "iterations-3321", "tmm-3321", "unknown-3321"}
    assert len(outcome.figure.axes) == 6
    # The starts of the coarse scan that cycle are among those of the fine one.
    fine = np.array([(-4.37, -4.10), (-3.37, -3.22), (-3.05, -2.89), (0.98, 1.03), (2.76, 2.92),
                     (3.07, 3.46), (5.40, 5.55)])  # fmt: skip
    for low, high in outcome.data["basins"]:
        assert np.any((fine[:, 0] <= low + 1e-9) & (high - 1e-9 <= fine[:, 1]))
