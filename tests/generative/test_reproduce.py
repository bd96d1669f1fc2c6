import pytest

from rootflow.reproduce.harness import catalogue


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dpm-solver", "bdia-inversion"])
def test_the_quick_run_confirms_every_claim(name):
    entry = catalogue.load(name)
    seen = []
    outcome = entry.run(lambda done, message="": seen.append(done), True)
    verdicts = {claim.id: claim.verdict(outcome.measurements[claim.id]) for claim in entry.claims}
    assert set(verdicts.values()) == {"holds"}, (verdicts, outcome.measurements)
    assert seen == sorted(seen) and seen[-1] == 1.0


@pytest.mark.slow
def test_the_adjoint_falls_short_with_euler_steps_and_says_so():
    entry = catalogue.load("adjoint-dpm")
    outcome = entry.run(lambda done, message="": None, True)
    verdicts = {claim.id: claim.verdict(outcome.measurements[claim.id]) for claim in entry.claims}
    # At 20 steps of this size Euler's adjoint is off by about its own length.
    assert verdicts.pop("euler") == "falls short" and outcome.measurements["euler"] > 0.3
    assert set(verdicts.values()) == {"holds"}, outcome.measurements
