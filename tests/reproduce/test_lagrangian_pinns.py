import pytest

from rootflow.reproduce.harness import catalogue


@pytest.mark.slow
def test_the_quick_run_confirms_what_it_measures():
    entry = catalogue.load("lagrangian-pinns")
    seen = []
    outcome = entry.run(lambda done, message="": seen.append(done), True)
    verdicts = {
        claim.id: claim.verdict(outcome.measurements[claim.id])
        for claim in entry.claims
        if claim.id in outcome.measurements
    }
    # So short a training leaves the moving network short of its claim, and the landscapes with it.
    long = {name: verdicts.pop(name) for name in ("sine-moving", "rough")}
    assert "not measured" not in long.values() and outcome.measurements["sine-moving"] < 0.1
    assert set(verdicts.values()) == {"holds"}, (verdicts, outcome.measurements)
    assert len(verdicts) == 6
    assert seen == sorted(seen) and seen[-1] == 1.0
