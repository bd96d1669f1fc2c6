import numpy as np

from rootflow.reproduce.harness import catalogue


def test_the_quick_run_confirms_every_claim():
    entry = catalogue.load("discrete-adjoint")
    seen = []
    outcome = entry.run(lambda done, message="": seen.append(done), True)
    verdicts = {claim.id: claim.verdict(outcome.measurements[claim.id]) for claim in entry.claims}
    assert set(verdicts.values()) == {"holds"}, (verdicts, outcome.measurements)
    assert seen == sorted(seen) and seen[-1] == 1.0
    assert len(outcome.figure.axes) == 3
    # The gradient of the prey at the end: Lotka-Volterra solved by an independent code (DOP853 of
    # SciPy, tolerance 1e-12) and differenced.
    np.testing.assert_allclose(outcome.data["gradient"], reference_gradient(), rtol=1e-4)


def reference_gradient():
    from scipy.integrate import solve_ivp

    def final(p):
        sol = solve_ivp(
            lambda t, y: [p[0] * y[0] - p[1] * y[0] * y[1], p[3] * y[0] * y[1] - p[2] * y[1]],
            (0.0, 10.0),
            [10.0, 5.0],
            method="DOP853",
            rtol=1e-12,
            atol=1e-13,
        )
        return sol.y[0, -1]

    rates, h = np.array([1.1, 0.4, 0.4, 0.1]), 1e-5
    return np.array([(final(rates + h * e) - final(rates - h * e)) / (2 * h) for e in np.eye(4)])
