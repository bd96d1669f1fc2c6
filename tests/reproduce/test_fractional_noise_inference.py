import pytest

from rootflow.reproduce.harness import catalogue


@pytest.mark.slow
def test_the_quick_run_measures_what_it_says_and_type_1_falls_short():
    entry = catalogue.load("fractional-noise-inference")
    seen = []
    outcome = entry.run(lambda done, message="": seen.append(done), True)
    measured = outcome.measurements
    verdicts = {c.id: c.verdict(measured.get(c.id)) for c in entry.claims}
    for name in ("optimal", "error-type-2", "fitted-1-8", "fitted-exact"):
        assert verdicts[name] == "holds", measured
    # A small largest and smallest rate cannot hold the infinite past.
    assert verdicts["error-type-1"] == verdicts["fitted-1-5"] == "falls short"
    assert measured["error-type-1"] > 0.7
    # A short training brings the bound and the curve half way.
    assert measured["bridge-2-07"] < 0.5 and 0 < measured["gap-2-07"] < 3
    assert verdicts["learned-03"] == "not measured"
    assert seen == sorted(seen) and seen[-1] == 1.0
