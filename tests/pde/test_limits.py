import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import pde

GRID = pde.Grid(((0.0, 5.0),), (32,))
X = GRID.centres[0]
N0 = 3 * (1 + 0.5 * jnp.cos(jnp.pi * X / 5) + 0.2 * jnp.cos(2 * jnp.pi * X / 5))
ILL = {"n": N0, "c": jnp.zeros_like(N0), "w": 1.5 + jnp.cos(3 * jnp.pi * X / 5)}
PES = pde.IndirectChemotaxis(0.0, 1.0)


def full(eps):
    return pde.IndirectChemotaxis(eps, 1.0)


@pytest.mark.parametrize("start", [{"n": N0}, ILL], ids=["well", "ill"])
def test_rates_of_the_first_limit(start):
    report = pde.compare_limit(full, PES, GRID, start, (0.0, 1.0), epsilons=(0.01, 0.005, 0.0025))
    assert abs(report.rate["n"] - 1) < 0.03 and abs(report.rate_after_layer["c"] - 1) < 0.03
    wanted = (1, 1, 1) if start is not ILL else (0, 0.5, 1)
    found = (report.rate["c"], report.rate_l2["c"], report.rate_l1["c"])
    np.testing.assert_allclose(found, wanted, atol=0.03)
    if start is ILL:
        np.testing.assert_allclose(report.error["c"], report.defect["c"], rtol=1e-3)
        np.testing.assert_allclose(report.error["w"], report.defect["w"], rtol=1e-3)
    # The estimate without a solve is of the right size, and the verdicts are those of the errors.
    for predicted, error in zip(report.predicted, report.error["n"], strict=True):
        assert error / 2 < predicted.n < 6 * error
    assert report.safe(0.05).all() and not report.safe(1e-5).any()
    assert report.predicted[-1].safe(0.05) and not report.predicted[0].safe(1e-5)


def test_the_scheme_gives_the_same_errors_as_the_stiff_solve():
    options = dict(epsilons=(0.02, 0.01))
    stiff = pde.compare_limit(full, PES, GRID, ILL, (0.0, 0.5), **options)
    scheme = pde.compare_limit(full, PES, GRID, ILL, (0.0, 0.5), method="scheme", **options)
    np.testing.assert_allclose(scheme.error["n"], stiff.error["n"], rtol=0.15)


def test_the_layer_is_that_of_the_signals_with_the_density_frozen():
    model = pde.IndirectChemotaxis(0.1, 0.5)
    delta = pde.defects(model, GRID, ILL)

    def relax(t, y, args):
        c, w = y["c"], y["w"]
        return {
            "c": (GRID.laplacian(c) - c + w) / 0.1,
            "w": (0.5 * GRID.laplacian(w) - w) / 0.1,
        }

    exact = rf.solve_ode(relax, delta, (0.0, 0.15), method=rf.Rodas5P(), rtol=1e-10, atol=1e-12).ys
    found = pde.initial_layer(model, GRID, ILL, 0.15)
    for name in ("c", "w"):
        np.testing.assert_allclose(found[name], exact[name][-1], atol=1e-9)
    # With τ = 1 all eigenvalues coincide.
    same = pde.initial_layer(full(0.1), GRID, ILL, 0.15)
    near = pde.initial_layer(pde.IndirectChemotaxis(0.1, 1 + 1e-9), GRID, ILL, 0.15)
    np.testing.assert_allclose(same["c"], near["c"], atol=1e-6)


def test_the_kick_makes_the_limit_second_order():
    gaps, plain = [], []
    for eps in (0.01, 0.005):
        model = full(eps)
        kick = pde.layer_kick(model, GRID, ILL)
        np.testing.assert_allclose(GRID.integrate(kick), 0.0, atol=1e-12)
        tight = dict(method=rf.Rodas5P(), rtol=1e-10, atol=1e-12)

        def end(model, start, tight=tight):
            return rf.solve_ode(model.rates(GRID), start, (0.0, 0.5), **tight).ys["n"][-1]

        ill = end(model, model.prepare(GRID, ILL))
        well = end(model, model.prepare(GRID, {"n": N0}))
        kicked, limit = end(PES, {"n": N0 + eps * kick}), end(PES, {"n": N0})
        plain.append(float(GRID.norm(ill - well)))
        gaps.append(float(GRID.norm(ill - well - (kicked - limit))))
    assert abs(np.log2(plain[0] / plain[1]) - 1) < 0.1
    assert abs(np.log2(gaps[0] / gaps[1]) - 2) < 0.2


def test_the_corrected_model_is_second_order_in_tau():
    start, options = {"n": N0 / 2.5}, dict(method=rf.Rodas5P(), rtol=1e-10, atol=1e-12)

    def end(model):
        return rf.solve_ode(model.rates(GRID), start, (0.0, 0.5), **options).ys["n"][-1]

    direct = end(pde.IndirectChemotaxis(0.0, 0.0))
    first, second = [], []
    for tau in (0.02, 0.01):
        exact = end(pde.IndirectChemotaxis(0.0, tau))
        first.append(float(GRID.norm(exact - direct)))
        second.append(float(GRID.norm(exact - end(pde.CorrectedKellerSegel(tau)))))
    assert abs(np.log2(first[0] / first[1]) - 1) < 0.15
    assert abs(np.log2(second[0] / second[1]) - 2) < 0.25


def test_the_second_limit_is_predicted_from_tau():
    start = {"n": N0 / 2.5}
    report = pde.compare_limit(
        lambda e: pde.IndirectChemotaxis(e, tau=e), pde.IndirectChemotaxis(0.0, 0.0), GRID, start,
        (0.0, 1.0), epsilons=(0.01, 0.005, 0.0025),
    )  # fmt: skip
    assert abs(report.rate["n"] - 1) < 0.05
    assert report.error["n"][0] / 4 < report.predicted[0].n < 8 * report.error["n"][0]


def test_critical_masses():
    assert pde.critical_mass(2) == 8 * math.pi
    assert pde.critical_mass(2, place="boundary", chi=2.0) == 2 * math.pi
    assert pde.critical_mass(2, place="corner") == pytest.approx(2 * math.pi)
    assert pde.critical_mass(4, signalling="indirect") == pytest.approx((8 * math.pi) ** 2)
    assert pde.critical_mass(3, signalling="indirect") == math.inf
    assert pde.critical_mass(1) == math.inf


def blob(q):
    def start(grid):
        n = jnp.exp(-((grid.centres / 0.1) ** 2))
        return {"n": q * 8 * jnp.pi * n / grid.integrate(n)}

    return start


def test_two_grids_tell_a_collapse_from_a_profile():
    disk = pde.RadialGrid(1.0, 40, dim=2)
    direct = pde.IndirectChemotaxis(0.0, 0.0)
    bounded = pde.detect_blow_up(direct, disk, blob(0.7), (0.0, 0.05))
    assert bounded.verdict == "bounded" and abs(bounded.ratio - 1) < 0.1
    collapse = pde.detect_blow_up(direct, disk, blob(2.0), (0.0, 0.05))
    assert collapse.verdict == "grid-limited" and collapse.ratio > 3
    for run in (collapse.coarse, collapse.fine):
        assert run.result == rf.Result.event_occurred and run.certificate.mass_drift < 1e-12
    # With a signal that is indirect there is none in two dimensions.
    indirect = pde.detect_blow_up(pde.IndirectChemotaxis(0.0, 1.0), disk, blob(2.0), (0.0, 0.05))
    assert indirect.verdict == "bounded"


def test_the_virial_identity_in_four_dimensions():
    ball = pde.RadialGrid(1.0, 300, dim=4, grading=3.0)
    width = 0.01

    @jax.jit
    def slope(q):
        n = jnp.exp(-((ball.centres / width) ** 2))
        n = n * (q * pde.critical_mass(4, signalling="indirect") / ball.integrate(n))
        span = 1e-3 * width**2
        run = pde.evolve(PES, ball, {"n": n}, (0.0, span), dt=span / 20)
        second = [ball.integrate(ball.centres**2 * each) for each in (n, run.fields["n"][-1])]
        return (second[1] - second[0]) / ball.integrate(n) / span

    for q in (0.9, 1.1):
        np.testing.assert_allclose(slope(q), 8 * (1 - q), rtol=0.015)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: compare(epsilons=(0.1,)), "at least two"),
        (lambda: compare(epsilons=(0.1, 0.2)), "decrease"),
        (lambda: compare(epsilons=(0.1, -0.2)), "positive"),
        (lambda: compare(method="fast"), "method must be"),
        (lambda: compare(limit=full(0.1)), "epsilon = 0"),
        (lambda: compare(start={}), "start has no 'n'"),
        (lambda: pde.initial_layer(full(0.1), pde.RadialGrid(1.0, 4), {}, 0.1), "not a ball"),
        (lambda: pde.initial_layer(PES, GRID, {"n": N0}, 0.1), "epsilon must be positive"),
        (lambda: pde.predict_error(PES, GRID, {"n": N0}, limit="KS"), "limit must be"),
        (lambda: pde.critical_mass(3), "no critical mass is known"),
        (lambda: pde.critical_mass(2, chi=0.0), "chi must be positive"),
        (lambda: pde.critical_mass(2, place="corner", angle=-1.0), "angle"),
        (lambda: pde.detect_blow_up(PES, GRID, blob(1), (0.0, 1.0), share=2.0), "share"),
        (
            lambda: pde.detect_blow_up(
                PES,
                pde.RadialGrid(1.0, 4),
                lambda g: {"n": jnp.exp(-99 * g.centres**2)},
                (0.0, 1.0),
            ),
            "at the start already",
        ),
    ],
)
def test_bad_questions_are_refused(call, words):
    with pytest.raises(rf.InputError, match=words):
        call()


def compare(limit=PES, start=ILL, epsilons=(0.1, 0.05), **options):
    return pde.compare_limit(full, limit, GRID, start, (0.0, 1.0), epsilons=epsilons, **options)
