import jax
import numpy as np
import pytest

from rootflow.reproduce.harness import catalogue
from rootflow.reproduce.principles_experiments import guided


def test_the_energy_distance_of_two_normal_distributions():
    # In one dimension it is 2 E|X - Y| - E|X - X'| - E|Y - Y'| with E|N(m, s^2)| in closed form.
    from scipy.stats import foldnorm

    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (3000, 1)), rng.normal(1.5, 1, (3000, 1))
    root = np.sqrt(2)
    exact = 2 * foldnorm.mean(1.5 / root, scale=root) - 2 * foldnorm.mean(0, scale=root)
    np.testing.assert_allclose(guided.energy_distance(a, b), exact, rtol=0.1)


def test_the_posterior_is_that_of_weighted_draws():
    x = np.asarray(guided.DATA.draw(jax.random.key(0), 200_000))
    weight = np.exp(-0.5 * ((x[:, 0] - 1.2) / 0.3) ** 2)
    mean = weight @ x / weight.sum()
    found = np.asarray(guided.posterior(50_000, jax.random.key(1)))
    np.testing.assert_allclose(found.mean(0), mean, atol=0.03)


def test_the_tilted_density_with_weight_one_is_the_class():
    np.testing.assert_allclose(guided.tilted(1.0), (1.0, 0.5), atol=1e-6)


@pytest.mark.slow
def test_the_quick_run_confirms_every_claim():
    entry = catalogue.load("diffusion-principles")
    outcome = entry.run(lambda done, message="": None, True)
    verdicts = {c.id: c.verdict(outcome.measurements.get(c.id)) for c in entry.claims}
    assert verdicts.pop("dps-steps") == "not measured"
    assert set(verdicts.values()) == {"holds"}, (verdicts, outcome.measurements)
