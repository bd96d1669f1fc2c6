"""`rf.fit`: published estimates, SciPy's answers, closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.optimize

import rootflow as rf
from rootflow.fitting import problem
from rootflow.fitting.examples import example_files
from rootflow.fitting.modelfile import load_model
from rootflow.fitting.table import assemble, load_table


@functools.cache
def example(name):
    model_file, data_file = example_files(name)
    model = load_model(model_file)
    return model, assemble(model, load_table(data_file))


@functools.cache
def hare_lynx():
    return rf.fit(*example("hare-lynx"), starts=4, seed=1)


#: SciPy (solve_ivp at 1e-8, least_squares on logarithms), and the standard errors it implies.
HARE_LYNX = {
    "alpha": (0.5402, 0.059),
    "beta": (0.02717, 0.0038),
    "gamma": (0.7964, 0.084),
    "delta": (0.02369, 0.0033),
    "hare": (34.60, 2.93),
    "lynx": (5.845, 0.479),
}


def test_hare_lynx_reference():
    result = hare_lynx()
    assert result.converged and not result.warnings
    for e in result.estimates:
        if e.kind == "scale":
            np.testing.assert_allclose(e.value, {"hare": 0.218, "lynx": 0.220}[e.name], rtol=0.01)
        else:
            value, se = HARE_LYNX[e.name]
            np.testing.assert_allclose(e.value, value, rtol=0.02, err_msg=e.name)
            np.testing.assert_allclose(e.se, se, rtol=0.02, err_msg=e.name)
            assert e.lower < e.value < e.upper
            assert result[e.name] == e.value
    assert result.dof == 36 and result.observations == 42


def test_twenty_starts_reach_the_best_or_are_reported():
    model, data = example("hare-lynx")
    result = rf.fit(model, data, starts=20, seed=0)
    assert len(result.starts) == 20 and result.starts[0].reached_best
    best = min(s.cost for s in result.starts)
    assert result.nll == best
    for start in result.starts:
        assert start.reached_best == (start.cost <= best + 1e-3)
    np.testing.assert_allclose(best, hare_lynx().nll, rtol=1e-9)


def test_standard_errors_are_those_of_least_squares_with_an_exact_jacobian():
    """For log data the Fisher information is the sum of J^T J / s^2 of the columns' log residuals.

    Each fitted scale counts as root(RSS / (n - q)), q the trace of its part of the hat matrix.
    """
    result = hare_lynx()
    names = ("alpha", "beta", "gamma", "delta", "hare", "lynx")
    x = np.log([result[name] for name in names])
    years = np.arange(21.0)

    def logs(x):
        a, b, c, d, h, l = np.exp(x)
        sol = scipy.integrate.solve_ivp(
            lambda t, y: [a * y[0] - b * y[0] * y[1], d * y[0] * y[1] - c * y[1]], (0, 20), [h, l],
            t_eval=years, rtol=1e-10, atol=1e-10,
        )  # fmt: skip
        return np.log(sol.y)

    step = 1e-5
    jacobian = np.stack(
        [(logs(x + step * e) - logs(x - step * e)) / (2 * step) for e in np.eye(6)], -1
    )
    scales = np.array([result.scales["hare"], result.scales["lynx"]])[:, None, None]
    scaled = jacobian / scales
    plain = np.linalg.inv(np.einsum("ctm,ctk->mk", scaled, scaled))
    paid = np.einsum("ctm,mk,ctk->c", scaled, plain, scaled)
    np.testing.assert_allclose(paid.sum(), 6)
    corrected = scaled * np.sqrt((21 - paid) / 21)[:, None, None]
    covariance = np.linalg.inv(np.einsum("ctm,ctk->mk", corrected, corrected))
    se = [next(e for e in result.estimates if e.name == n and e.kind != "scale").se for n in names]
    np.testing.assert_allclose(se, np.exp(x) * np.sqrt(np.diag(covariance)), rtol=1e-3)


def test_model_and_data_as_files():
    result = rf.fit(*example_files("hare-lynx"), starts=1, max_iterations=1)
    assert result.dataset.table.from_file and result.observations == 42
    with pytest.raises(rf.InputError, match=r"nowhere\.csv"):
        rf.fit(example_files("hare-lynx")[0], "nowhere.csv")


def test_theophylline_subject_one_reference():
    model, _ = example("theophylline-subjects")
    table = load_table(example_files("theophylline")[1])
    rows = [i for i, s in enumerate(table.columns["subject"]) if s == "1"]
    subject = {name: [cells[i] for i in rows] for name, cells in table.columns.items()}
    result = rf.fit(model, subject, starts=1)
    found = [np.log(result[f"{name}[1]"]) for name in ("ke", "ka", "cl")]
    np.testing.assert_allclose(found, [-2.9196, 0.5752, -3.9159], atol=2e-3)
    np.testing.assert_allclose(result.rss, 4.2860, rtol=1e-3)


def test_theophylline_all_subjects_at_once_are_the_subjects_one_by_one():
    model, data = example("theophylline-subjects")
    result = rf.fit(model, data, starts=1)
    assert result.converged and len(result.estimates) == 37
    np.testing.assert_allclose(np.log(result["ke[1]"]), -2.9196, atol=2e-3)
    # Subject 5 alone, by SciPy on the closed form of the two compartments.
    g = data.groups.index("5")
    t, y = data.ts[g], data.values["concentration_mg_per_l"][g]
    dose = data.covariates["dose_mg_per_kg"][g]

    def residual(x):
        ke, ka, cl = np.exp(x)
        return dose * ke * ka / (cl * (ka - ke)) * (np.exp(-ke * t) - np.exp(-ka * t)) - y

    alone = scipy.optimize.least_squares(residual, [-2.5, 0.5, -3.2], xtol=1e-12, ftol=1e-12)
    found = [np.log(result[f"{name}[5]"]) for name in ("ke", "ka", "cl")]
    np.testing.assert_allclose(found, alone.x, atol=1e-3)


def straight_line(t, y, p):
    return {"x": p["slope"] + 0.0 * y["x"]}


TIMES = np.arange(8.0)
LINE = 2.0 + 0.5 * TIMES + np.array([0.3, -0.2, 0.1, 0.0, -0.4, 0.2, 0.1, -0.1])


def fit_line(y, **options):
    return rf.fit(
        straight_line, {"time": TIMES, "x": y, **options.pop("columns", {})},
        states={"x": rf.Parameter(1.0)}, parameters={"slope": rf.Parameter(0.1)}, starts=1,
        **options,
    )  # fmt: skip


def test_linear_regression_in_closed_form():
    result = fit_line(LINE)
    design = np.stack([np.ones(8), TIMES], 1)
    best = np.linalg.lstsq(design, LINE, rcond=None)[0]
    np.testing.assert_allclose([result["x"], result["slope"]], best, rtol=1e-6)
    rss = np.sum((LINE - design @ best) ** 2)
    covariance = np.linalg.inv(design.T @ design) * rss / 6
    order = [result.free_names.index(n) for n in ("x", "slope")]
    np.testing.assert_allclose(result.covariance[np.ix_(order, order)], covariance, rtol=1e-6)
    slope = next(e for e in result.estimates if e.name == "slope")
    half = scipy.stats.t.ppf(0.975, 6) * np.sqrt(covariance[1, 1])
    np.testing.assert_allclose([slope.lower, slope.upper], best[1] + np.array([-half, half]))
    np.testing.assert_allclose(result.rss, rss, rtol=1e-8)
    s2 = rss / 8
    np.testing.assert_allclose(result.nll, 4 * np.log(2 * np.pi * s2) + 4, rtol=1e-8)
    # Prediction band of a straight line, in closed form, beyond the data.
    mean, low, high = result.predict([10.0], noise=False)["x"]
    spread = np.sqrt(np.array([1.0, 10.0]) @ covariance @ np.array([1.0, 10.0]))
    np.testing.assert_allclose(mean[0, 0], best @ [1, 10], rtol=1e-7)
    np.testing.assert_allclose((high - low)[0, 0] / 2, scipy.stats.t.ppf(0.975, 6) * spread)


def test_missing_cells_and_weights():
    weights = np.array([1.0, 4.0, 1.0, 1.0, 9.0, 1.0, 0.25, 1.0])
    y = LINE.copy()
    y[3] = np.nan
    result = fit_line(
        y, noise={"x": rf.Noise("normal", weights="w")}, columns={"w": weights}
    )  # fmt: skip
    kept = np.isfinite(y)
    root = np.sqrt(weights[kept])[:, None]
    design = np.stack([np.ones(8), TIMES], 1)[kept]
    best = np.linalg.lstsq(design * root, y[kept] * root[:, 0], rcond=None)[0]
    np.testing.assert_allclose([result["x"], result["slope"]], best, rtol=1e-6)
    assert result.observations == 7 and len(result.residuals) == 7


def test_given_scale_is_not_inflated():
    result = fit_line(LINE, noise={"x": rf.Noise("normal", scale=0.5)})
    design = np.stack([np.ones(8), TIMES], 1)
    covariance = np.linalg.inv(design.T @ design) * 0.25
    order = [result.free_names.index(n) for n in ("x", "slope")]
    np.testing.assert_allclose(result.covariance[np.ix_(order, order)], covariance, rtol=1e-6)


def test_proportional_noise_is_the_maximum_of_its_likelihood():
    result = fit_line(LINE, noise="proportional")

    def nll(v):
        mean = v[0] + v[1] * TIMES
        s2 = np.mean((LINE / mean - 1) ** 2)
        return 4 * np.log(2 * np.pi * s2) + 4 + np.sum(np.log(np.abs(mean)))

    best = scipy.optimize.minimize(nll, [2.0, 0.5], method="Nelder-Mead", options={"xatol": 1e-9})
    np.testing.assert_allclose([result["x"], result["slope"]], best.x, rtol=1e-4)
    np.testing.assert_allclose(result.nll, best.fun, rtol=1e-8)


def test_gradient_of_the_likelihood_and_its_information():
    """Gradient against finite differences; the information against simulated scores."""
    model, data = example("hare-lynx")
    lay = problem.layout(model, 1)
    arrays = jax.tree.map(jnp.asarray, problem.group_data(model, data))
    solver = problem.Solver(rtol=1e-11, atol=1e-11, max_steps=1024, t0=1900.0)
    local = jax.jit(problem.objective(model, lay, solver, arrays))
    u = jnp.asarray(lay.start)
    at = local(u)
    for i in range(lay.size):
        step = jnp.zeros(lay.size).at[i].set(1e-6)
        slope = (local(u + step).value - local(u - step).value) / 2e-6
        np.testing.assert_allclose(at.gradient[i], slope, rtol=2e-4, atol=1e-4)
    np.testing.assert_allclose(at.curvature, at.curvature.T, rtol=1e-9)
    assert np.linalg.eigvalsh(at.curvature).min() > 0


def test_dose_is_a_jump_and_is_seen_at_its_own_time():
    """Two doses into one decaying compartment: a sum of exponentials."""

    def elimination(t, y, p):
        return {"x": -p["k"] * y["x"]}

    t = np.array([0.0, 1.0, 2.0, 2.5, 4.0])
    k = 0.7
    exact = 3 * np.exp(-k * t) + np.where(t >= 2.0, 5 * np.exp(-k * (t - 2.0)), 0.0)
    result = rf.fit(
        elimination, {"time": t, "x": exact}, states={"x": 0.0},
        parameters={"k": rf.Parameter(0.3, 0.01, 5.0, scale="log")},
        doses=(rf.Dose(2.0, "x", 5.0), rf.Dose(0.0, "x", 3.0)), starts=1,
    )  # fmt: skip
    np.testing.assert_allclose(result["k"], k, rtol=1e-6)
    between = result.predict([1.999, 2.001], noise=False)["x"][0][0]
    np.testing.assert_allclose(between[1] - between[0], 5.0, atol=0.02)


def test_time_and_amount_of_a_dose_can_be_fitted():
    def elimination(t, y, p):
        return {"x": -0.7 * y["x"]}

    t = np.linspace(0.0, 4.0, 17)
    exact = np.exp(-0.7 * t) + np.where(t >= 1.6, 5 * np.exp(-0.7 * (t - 1.6)), 0.0)
    result = rf.fit(
        elimination, {"time": t, "x": exact}, states={"x": 1.0},
        parameters={
            "when": rf.Parameter(1.55, 1.51, 1.74),
            "much": rf.Parameter(3.0, 0.1, 50.0, scale="log"),
        },
        doses=(rf.Dose(lambda p, c: p["when"], "x", lambda p, c: p["much"]),), starts=1,
        noise={"x": rf.Noise("normal", scale=0.1)},
    )  # fmt: skip
    # Only the state after the dose matters, much * exp(0.7 when): a ridge, and it is said so.
    np.testing.assert_allclose(
        result["much"] * np.exp(0.7 * result["when"]), 5 * np.exp(0.7 * 1.6), rtol=1e-5
    )
    assert any("when" in w and "much" in w for w in result.warnings)


def test_combination_that_the_data_do_not_determine_is_named():
    def product(t, y, p):
        return {"x": -p["a"] * p["b"] * y["x"]}

    y = np.exp(-0.3 * TIMES) * (1 + 0.01 * np.cos(7 * TIMES))
    parameters = {
        "a": rf.Parameter(1.0, 0.01, 100.0, scale="log"),
        "b": rf.Parameter(0.2, 0.01, 100.0, scale="log"),
    }
    result = rf.fit(
        product, {"time": TIMES, "x": y}, states={"x": 1.0}, parameters=parameters, starts=1
    )
    assert len(result.warnings) == 1
    assert "log(a)" in result.warnings[0] and "log(b)" in result.warnings[0]
    assert all(np.isinf(e.se) for e in result.estimates if e.name in ("a", "b"))
    np.testing.assert_allclose(result["a"] * result["b"], 0.3, rtol=0.02)


def test_estimate_on_a_bound_is_said():
    result = rf.fit(
        straight_line, {"time": TIMES, "x": LINE}, states={"x": rf.Parameter(1.0)},
        parameters={"slope": rf.Parameter(0.1, 0.0, 0.3)}, starts=1,
    )  # fmt: skip
    slope = next(e for e in result.estimates if e.name == "slope")
    assert slope.value == 0.3 and slope.at_bound == "upper"
    assert any("upper bound" in w and "slope" in w for w in result.warnings)
    np.testing.assert_allclose(result["x"], np.mean(LINE - 0.3 * TIMES), rtol=1e-6)


def test_groups_share_what_is_shared():
    """Two lines with one slope: analysis of covariance in closed form."""
    group = np.repeat(["a", "b"], 8)
    y = np.concatenate([LINE, LINE + 3 + 0.1 * np.sin(TIMES)])
    result = rf.fit(
        straight_line, {"time": np.tile(TIMES, 2), "x": y, "plot": group}, group="plot",
        states={"x": rf.Parameter(1.0, per_group=True)}, parameters={"slope": rf.Parameter(0.1)},
        starts=2,
    )  # fmt: skip
    design = np.stack([group == "a", group == "b", np.tile(TIMES, 2)], 1).astype(float)
    best = np.linalg.lstsq(design, y, rcond=None)[0]
    found = [result["x[a]"], result["x[b]"], result["slope"]]
    np.testing.assert_allclose(found, best, rtol=1e-6)
    with pytest.raises(KeyError, match=r"x\[a\]"):
        result["x"]


def test_same_seed_same_result_and_progress_is_told():
    told = []
    one = fit_line(LINE, progress=lambda *news: told.append(news))
    two = fit_line(LINE)
    np.testing.assert_allclose(one["slope"], two["slope"], rtol=1e-12)
    fractions = [fraction for fraction, _, _ in told]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"starts": 0}, "starts must be"),
        ({"states": None}, "needs states"),
        ({"model": 3}, "function f"),
        ({"data": {"time": TIMES, "y": LINE}}, "No data column"),
        ({"data": {"x": LINE}}, "'time'"),
    ],
)
def test_bad_arguments(change, message):
    call = {
        "model": straight_line,
        "data": {"time": TIMES, "x": LINE},
        "states": {"x": 1.0},
        "parameters": {"slope": rf.Parameter(0.1)},
    } | change
    with pytest.raises(rf.InputError, match=message):
        rf.fit(call.pop("model"), call.pop("data"), **call)


def test_model_that_cannot_be_solved_at_the_guess():
    def explosive(t, y, p):
        return {"x": p["a"] * y["x"] ** 2}

    with pytest.raises(rf.InputError, match="cannot be solved at the guess"):
        rf.fit(
            explosive, {"time": TIMES, "x": LINE}, states={"x": 1.0},
            parameters={"a": rf.Parameter(1.0)}, starts=1,
        )  # fmt: skip


def test_model_value_that_the_noise_cannot_produce():
    with pytest.raises(rf.InputError, match="lognormal noise needs it positive"):
        rf.fit(
            straight_line, {"time": TIMES, "x": LINE}, states={"x": 1.0}, noise="lognormal",
            parameters={"slope": rf.Parameter(-1.0)}, starts=1,
        )  # fmt: skip


def test_without_convergence_it_is_said():
    model, data = example("hare-lynx")
    result = rf.fit(model, data, starts=1, max_iterations=2)
    assert not result.converged and "did not converge in 2" in result.warnings[0]
