import jax
import jax.numpy as jnp
import numpy as np

from rootflow.reproduce.harness import catalogue
from rootflow.reproduce.solver_heuristics import digits


def test_the_quick_run_confirms_what_it_measures():
    entry = catalogue.load("solver-heuristic-regularization")
    seen = []
    outcome = entry.run(lambda done, message="": seen.append(done), True)
    measured = dict(outcome.measurements)
    # Times depend on what else the machine does: that they were measured is all that is certain.
    assert min(float(measured.pop(name)) for name in ("training-time", "prediction-time")) > 0
    verdicts = {c.id: c.verdict(measured[c.id]) for c in entry.claims if c.id in measured}
    assert verdicts == dict.fromkeys(("evaluations", "accuracy", "growth"), "holds"), measured
    assert seen == sorted(seen) and seen[-1] == 1.0
    assert len(outcome.figure.axes) == 2
    # Six evaluations a step, one at the start and one for the first step size.
    trials = outcome.data["vanilla"] + outcome.data["ERNODE"]
    assert all(trial["evaluations"] % 6 == 2 for trial in trials)


def test_the_integrand_of_the_taylor_baseline_is_the_third_derivative():
    model = digits.initial(jax.random.key(3))
    images = jax.random.uniform(jax.random.key(4), (2, 64))
    t0, h = jnp.asarray(0.3), 1e-2
    slope, bend = digits._bent(t0, (images, jnp.zeros(())), model)
    np.testing.assert_allclose(slope, digits.field(t0, images, model), rtol=1e-12)

    # The slope along the solution, by steps whose error is far below that of the differences.
    def step(t, x, h):
        k1 = digits.field(t, x, model)
        k2 = digits.field(t + h / 2, x + h / 2 * k1, model)
        k3 = digits.field(t + h / 2, x + h / 2 * k2, model)
        k4 = digits.field(t + h, x + h * k3, model)
        return digits.field(t + h, x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), model)

    second_difference = (step(t0, images, h) - 2 * slope + step(t0, images, -h)) / h**2
    np.testing.assert_allclose(bend, np.mean(np.sum(second_difference**2, axis=1)), rtol=1e-3)
