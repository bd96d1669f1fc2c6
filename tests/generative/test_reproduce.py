import numpy as np
import pytest

from rootflow.reproduce.digits_experiments import network
from rootflow.reproduce.harness import catalogue


def verdicts_of(entry, outcome):
    """Without the claims on a trained network, which a quick run leaves out."""
    left_out = {claim.id for claim in entry.claims} - set(outcome.measurements)
    assert all(name.startswith(("digits", "audit")) for name in left_out)
    return {
        claim.id: claim.verdict(outcome.measurements[claim.id])
        for claim in entry.claims
        if claim.id not in left_out
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dpm-solver", "bdia-inversion"])
def test_the_quick_run_confirms_every_claim(name):
    entry = catalogue.load(name)
    seen = []
    outcome = entry.run(lambda done, message="": seen.append(done), True)
    verdicts = verdicts_of(entry, outcome)
    assert set(verdicts.values()) == {"holds"}, (verdicts, outcome.measurements)
    assert seen == sorted(seen) and seen[-1] == 1.0


@pytest.mark.slow
def test_the_adjoint_falls_short_with_euler_steps_and_says_so():
    entry = catalogue.load("adjoint-dpm")
    outcome = entry.run(lambda done, message="": None, True)
    verdicts = verdicts_of(entry, outcome)
    # At 20 steps of this size Euler's adjoint is off by about its own length.
    assert verdicts.pop("euler") == "falls short" and outcome.measurements["euler"] > 0.3
    assert set(verdicts.values()) == {"holds"}, outcome.measurements


def test_the_frechet_distance_of_normal_features():
    # |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)), here with C = 4 I and C' = I in three dimensions.
    rng = np.random.default_rng(0)
    a, b = 2 * rng.normal(size=(200_000, 3)) + 1, rng.normal(size=(200_000, 3))
    np.testing.assert_allclose(network.frechet(a, b), 3 + 3 * (4 + 1 - 2 * 2), rtol=0.01)
