import pytest

from rootflow.reproduce.harness import catalogue


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pfgmpp", "flow-maps"])
def test_the_quick_run_confirms_what_it_measures(name):
    entry = catalogue.load(name)
    seen = []
    outcome = entry.run(lambda done, message="": seen.append(done), True)
    verdicts = {
        claim.id: claim.verdict(outcome.measurements.get(claim.id)) for claim in entry.claims
    }
    measured = {id: v for id, v in verdicts.items() if v != "not measured"}
    assert set(measured) == set(outcome.measurements)
    assert set(measured.values()) == {"holds"}, outcome.measurements
    assert seen == sorted(seen) and seen[-1] == 1.0
