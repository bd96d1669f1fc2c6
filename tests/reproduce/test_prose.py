import pytest

from rootflow.reproduce.harness import catalogue


@pytest.mark.slow
def test_the_quick_run_confirms_what_needs_no_long_training():
    entry = catalogue.load("prose")
    seen = []
    outcome = entry.run(lambda done, message="": seen.append(done), True)
    assert set(outcome.measurements) <= {claim.id for claim in entry.claims}
    verdicts = {
        claim.id: claim.verdict(outcome.measurements[claim.id])
        for claim in entry.claims
        if claim.id in outcome.measurements
    }
    assert set(verdicts.values()) == {"holds"}, outcome.measurements
    assert {"valid", "nominal", "refine-lorenz"} <= set(verdicts)
    assert seen == sorted(seen) and seen[-1] == 1.0
    assert len(outcome.figure.axes) == 4
