"""The entry `stochastic-interpolants`: its quick run, and the parts that only the full run uses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rootflow.reproduce.harness import catalogue
from rootflow.reproduce.interpolant_experiments import divergence, laws, training


@pytest.mark.slow
def test_the_quick_run_confirms_what_it_measures():
    entry = catalogue.load("stochastic-interpolants")
    seen = []
    outcome = entry.run(lambda done, message="": seen.append(done), True)
    verdicts = {c.id: c.verdict(outcome.measurements.get(c.id)) for c in entry.claims}
    for name in ("feynman-kac", "entropy", "learned-antithetic", "learned-ends", "board-flow",
                 "board-noise", "board-little"):  # fmt: skip
        assert verdicts.pop(name) == "not measured"
    assert set(verdicts.values()) == {"holds"}, (verdicts, outcome.measurements)
    assert seen == sorted(seen) and seen[-1] == 1.0


def test_the_checkerboard():
    x = training.checkerboard(jax.random.key(0), 4000)
    assert training.off_the_squares(x) == 0.0
    # Half of the plane about it is white, and a square has a thirty-second of what is on it.
    everywhere = jax.random.uniform(jax.random.key(1), (4000, 2), minval=-4.0, maxval=4.0)
    assert abs(training.off_the_squares(everywhere) - 0.5) < 5 * 0.5 / np.sqrt(4000)
    corner = np.all((np.asarray(x) > 0) & (np.asarray(x) < 2), axis=1).mean()
    assert abs(corner - 1 / 8) < 5 * np.sqrt(1 / 8 / 4000)


def test_the_distance_of_samples_from_the_target():
    x = laws.DATA.draw(jax.random.key(0), 5000)
    assert laws.distance(x) < 1.63 / np.sqrt(5000)  # at the one per cent level
    np.testing.assert_allclose(laws.distance(jnp.full((10, 1), 100.0)), 1.0)


def test_the_equation_of_the_density_has_the_exact_one_as_its_solution():
    coarse, fine = (divergence.of_diffusion(1.0, 0.0, 0.0, 1.0, n) for n in (200, 400))
    assert 0 <= fine < coarse < 1e-3
