from rootflow.reproduce.harness import catalogue


def test_the_quick_run_measures_what_it_says():
    entry = catalogue.load("diff2")
    seen = []
    outcome = entry.run(lambda done, message="": seen.append(done), True)
    verdicts = {
        claim.id: claim.verdict(outcome.measurements.get(claim.id)) for claim in entry.claims
    }
    expected = dict.fromkeys(entry.ids, "not measured") | dict.fromkeys(
        ("account", "account-rdp", "estimate", "estimate-rate", "utility-1e5"), "holds"
    )
    assert verdicts == expected, outcome.measurements
    assert seen == sorted(seen) and seen[-1] == 1.0
    # Published error ratios of the estimate: 0.226 at R = 100 and 0.117 at R = 400.
    ratios = outcome.data["estimate"]
    assert abs(ratios["100"] - 0.226) < 0.05 and abs(ratios["400"] - 0.117) < 0.025
    # And squared gradients on the chain with 1e5 records: 1.2e-2 and 1.14e-4.
    row = outcome.data["utility"]["100000"]
    assert 0.9e-2 < row["dp-gd"] < 1.6e-2 and 0.8e-4 < row["diff2"] < 1.6e-4
