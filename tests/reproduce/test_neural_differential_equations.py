import numpy as np
import pytest

from rootflow.reproduce.harness import catalogue
from rootflow.reproduce.neural_experiments import dynamics, series


@pytest.mark.slow
def test_the_quick_run_confirms_what_it_measures():
    entry = catalogue.load("neural-differential-equations")
    seen = []
    outcome = entry.run(lambda done, message="": seen.append(done), True)
    assert seen == sorted(seen) and seen[-1] == 1.0
    measured = outcome.measurements
    assert set(measured) < entry.ids and len(measured) == 10
    verdicts = {c.id: c.verdict(measured[c.id]) for c in entry.claims if c.id in measured}
    timed = verdicts.pop("noise-speed")
    assert timed in ("holds", "falls short") and set(verdicts.values()) == {"holds"}, measured
    assert len(outcome.figure.axes) == 1


def test_sparse_regression_finds_the_terms_of_a_law():
    y = np.random.default_rng(0).uniform(0.5, 2.0, (50, 2))
    law = np.stack([3.0 - 2.0 * y[:, 0] * y[:, 1], 1.5 * y[:, 1] ** 2], axis=1)
    found = dynamics.sparse(y, law)
    np.testing.assert_allclose(found, [[3, 0, 0, 0, -2, 0], [0, 0, 0, 0, 0, 1.5]], atol=1e-8)


def test_the_data_are_what_they_are_said_to_be():
    import jax

    ys = np.asarray(series.ornstein_uhlenbeck(jax.random.key(0), 20_000))[:, :, 0]
    np.testing.assert_allclose(ys[:, -1].mean(), 1 - np.exp(-1.5), atol=0.02)
    variance = (1 - np.exp(-3)) / 3 + 0.01 * np.exp(-3)
    np.testing.assert_allclose(ys[:, -1].var(), variance, rtol=0.03)
    t = np.linspace(0.0, 1.0, 5)
    y = np.asarray(series._oscillators(np.array([1.0, -0.5]), t))
    h = 1e-5
    slope = (series._oscillators(y[0], np.array([h])) - y[0]) / h
    np.testing.assert_allclose(slope[0], series._DAMPED @ y[0], atol=1e-4)
