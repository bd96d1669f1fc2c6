from rootflow.reproduce.harness import catalogue
from rootflow.reproduce.hypino_experiments import runs


def test_the_references_of_the_quick_run_are_as_claimed():
    """What needs no training; the networks themselves are tested with the package."""
    claims = {claim.id: claim for claim in catalogue.load("hypino").claims}
    found = runs.references(True)
    assert set(found) == {"HT", "HZ", "PS-L", "WV"}
    worst = max(residual for residual, _ in found.values())
    assert claims["references"].verdict(worst) == "holds"
    assert claims["L"].verdict(found["PS-L"][1]) == "holds"
