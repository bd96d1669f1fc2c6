import pytest

from rootflow.reproduce.harness import catalogue


@pytest.mark.slow
def test_the_quick_run_confirms_what_it_measures():
    entry = catalogue.load("hypino")
    seen = []
    outcome = entry.run(lambda done, message="": seen.append(done), True)
    verdicts = {
        claim.id: claim.verdict(outcome.measurements[claim.id])
        for claim in entry.claims
        if claim.id in outcome.measurements
    }
    assert set(verdicts.values()) == {"holds"}, (verdicts, outcome.measurements)
    assert len(verdicts) == 8
    assert seen == sorted(seen) and seen[-1] == 1.0
