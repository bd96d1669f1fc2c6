"""How a fit solves its equations: stiff models, what fails and is tried again, and the options."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

import rootflow as rf
from rootflow.fitting import search, solving
from rootflow.fitting.modelfile import load_model
from rootflow.roots.solvers import damped_newton

ROBERTSON = """\
[states]
A = 1.0
B = 0.0
C = 0.0

[parameters]
k1 = { guess = 0.1, lower = 1e-3, upper = 1.0, scale = "log" }
k2 = { guess = 1e7, lower = 1e6, upper = 1e9, scale = "log" }
k3 = { guess = 3e3, lower = 1e3, upper = 1e5, scale = "log" }

[equations]
A = "-k1*A + k3*B*C"
B = "k1*A - k3*B*C - k2*B**2"
C = "k2*B**2"

[observed]
A = "A"
B = "1e4*B"

[noise]
scale = 0.02
"""
HIRES = """\
[states]
y1 = 1.0
y2 = 0.0
y3 = 0.0
y4 = 0.0
y5 = 0.0
y6 = 0.0
y7 = 0.0
y8 = 0.0057

[parameters]
k = { guess = 100.0, lower = 30.0, upper = 1000.0, scale = "log" }
m = { guess = 3.0, lower = 0.1, upper = 10.0, scale = "log" }

[equations]
y1 = "-1.71*y1 + 0.43*y2 + 8.32*y3 + 0.0007"
y2 = "1.71*y1 - 8.75*y2"
y3 = "-10.03*y3 + 0.43*y4 + 0.035*y5"
y4 = "8.32*y2 + 1.71*y3 - 1.12*y4"
y5 = "-1.745*y5 + 0.43*y6 + 0.43*y7"
y6 = "-k*y6*y8 + 0.69*y4 + 1.71*y5 - 0.43*y6 + 0.69*y7"
y7 = "k*y6*y8 - m*y7"
y8 = "-k*y6*y8 + m*y7"

[observed]
y5 = "y5"
scaled = "1e3*y7"

[noise]
scale = 0.02

[solve]
method = "stiff"
rtol = 1e-7
"""
VAN_DER_POL = """\
[states]
x = 2.0
y = 0.0

[parameters]
mu = { guess = 700.0, lower = 100.0, upper = 3000.0, scale = "log" }

[equations]
x = "y"
y = "mu*(1 - x**2)*y - x"

[observed]
x = "x"

[noise]
scale = 0.05
"""


def model_of(text, tmp_path):
    path = tmp_path / "model.toml"
    path.write_text(text, encoding="utf-8")
    return load_model(path)


def reference(model, values, times):
    """The observed columns by SciPy's Radau method."""
    names = list(model.states)

    def slope(t, y):
        found = model.vector_field(t, dict(zip(names, y, strict=True)), values, {})
        return [float(found[name]) for name in names]

    start = list(model.states.values())
    ys = scipy.integrate.solve_ivp(
        slope, (times[0], times[-1]), start, "Radau", times, rtol=1e-8, atol=1e-11
    ).y
    at = [(t, dict(zip(names, y, strict=True))) for t, y in zip(times, ys.T, strict=True)]
    return {c: np.array([float(g(t, y, values, {})) for t, y in at])
            for c, g in model.observed.items()}  # fmt: skip


def measured(model, truth, times):
    rng = np.random.default_rng(1)
    exact = reference(model, truth, times)
    scatter = {c: model.noise[c].scale * rng.normal(size=len(times)) for c in exact}
    return {"time": times, **{c: exact[c] + scatter[c] for c in exact}}


def near_the_truth(result, truth):
    for e in result.estimates:
        if e.kind == "parameter":
            assert abs(np.log(e.value / truth[e.name])) < 3.5 * e.se / e.value, e.name


def test_robertson_is_solved_by_the_stiff_method_from_the_guess_to_the_profiles(tmp_path):
    model = model_of(ROBERTSON, tmp_path)
    truth = {"k1": 0.04, "k2": 3e7, "k3": 1e4}
    times = np.concatenate([[0.0], np.geomspace(0.1, 1e5, 24)])
    data = measured(model, truth, times)
    result = rf.fit(model, data, profile=True)
    assert result.solver == "Rodas5P" and "Rodas5P" in result.method
    assert "steps of Tsit5 do not reach the last measurement" in result.solver_reason
    assert result.converged and result.outcome == "converged" and result.message == "converged"
    assert all(s.reached_best and s.solver == "Rodas5P" for s in result.starts)
    near_the_truth(result, truth)
    for e in result.estimates:
        if e.kind == "parameter":
            assert e.profile is not None and e.profile[0] < truth[e.name] < e.profile[1]
            np.testing.assert_allclose(np.log(e.profile), np.log([e.lower, e.upper]), atol=0.02)
    # The likelihood and the curve at the estimate, by SciPy.
    exact = reference(model, {name: result[name] for name in truth}, times)
    squares = sum(np.sum((exact[c] - data[c]) ** 2) for c in exact)
    expected = 0.5 * squares / 0.02**2 + 50 * (np.log(0.02) + 0.5 * np.log(2 * np.pi))
    np.testing.assert_allclose(result.nll, expected, rtol=1e-6)
    np.testing.assert_allclose([r.predicted for r in result.residuals if r.column == "A"],
                               exact["A"], atol=1e-6)  # fmt: skip


def test_hires_by_the_method_of_its_model_file(tmp_path):
    model = model_of(HIRES, tmp_path)
    truth = {"k": 280.0, "m": 1.81}
    result = rf.fit(model, measured(model, truth, np.linspace(0.0, 321.8122, 60)), starts=1)
    assert result.solver == "Rodas5P" and not result.solver_reason and "1e-07" in result.method
    assert result.converged
    near_the_truth(result, truth)


def test_van_der_pol_by_a_method_object(tmp_path):
    model = model_of(VAN_DER_POL, tmp_path)
    data = measured(model, {"mu": 1000.0}, np.linspace(0.0, 750.0, 25))
    result = rf.fit(model, data, starts=1, method=rf.Kvaerno5(), max_steps=4000, max_iterations=60)
    assert result.solver == "Kvaerno5" and not result.solver_reason
    assert result.starts[0].solver == "Kvaerno5"
    assert np.isfinite(result.nll)


def follows(t, y, p):
    """x follows s: at rates k from 1 (which Tsit5 likes) to 1e6 (which only stiff methods do)."""
    return {"x": p["k"] * (y["s"] - y["x"]), "s": -0.3 * y["s"]}


TIMES = np.linspace(0.0, 20.0, 30)


def fit_follower(x, **options):
    return rf.fit(
        follows, {"time": TIMES, "x": x}, states={"x": rf.Parameter(0.2, 0.0, 2.0), "s": 1.0},
        parameters={"k": rf.Parameter(2.0, 1.0, 1e6, scale="log")},
        noise={"x": rf.Noise("normal", scale=0.01)}, starts=4, **options,
    )  # fmt: skip


def test_a_search_that_fails_is_tried_again_by_the_stiff_method():
    k, x0 = 3.0, 0.5
    share = k / (k - 0.3)
    x = share * np.exp(-0.3 * TIMES) + (x0 - share) * np.exp(-k * TIMES)
    result = fit_follower(x + 0.01 * np.sin(9 * TIMES), screen=0)
    # The guess is easy, and the best search may stay with the explicit method; no start is lost.
    used = {s.solver for s in result.starts}
    assert used == {"Tsit5", "Rodas5P"}
    assert all(np.isfinite(s.cost) and s.converged for s in result.starts)
    assert result.starts[0].solver == "Tsit5"
    assert abs(result["k"] - k) < 0.5 and abs(result["x"] - x0) < 0.05
    # All other searches end as well as the first.
    np.testing.assert_allclose([s.cost for s in result.starts], result.nll, atol=1e-3)


def test_the_best_search_decides_for_all_that_follows():
    """The data ask for k = 400: the search from the easy guess goes over to the stiff method.

    Where it may not, it ends as blocked.
    """
    share = 400 / (400 - 0.3)
    close = np.linspace(0.0, 20.0, 30)
    close[1:8] = np.geomspace(5e-4, 1e-2, 7)
    x = share * np.exp(-0.3 * close) + (0.3 - share) * np.exp(-400 * close)

    def fitted(**options):
        return rf.fit(
            follows, {"time": close, "x": x + 0.01 * np.sin(9 * np.arange(30))},
            states={"x": 0.3, "s": 1.0},
            parameters={"k": rf.Parameter(50.0, 1.0, 1e5, scale="log")},
            noise={"x": rf.Noise("normal", scale=0.01)}, starts=1, **options,
        )  # fmt: skip

    held = fitted(method="explicit", max_steps=512)
    assert held.outcome == "blocked" and not held.converged and held["k"] < 200
    assert "512 steps of Tsit5: let a stiff method" in held.message
    result = fitted()
    assert result.solver == "Rodas5P" and result.converged
    assert "could not go on by 512 steps of Tsit5" in result.solver_reason
    assert result["k"] == pytest.approx(400, rel=0.1)
    mean, _, _ = result.predict([25.0], noise=False)["x"]
    assert mean[0, 0] == pytest.approx(np.exp(-7.5), rel=1e-3)


def test_predictions_go_over_to_the_stiff_method_where_the_equations_get_stiff():
    """A rate k exp(t): easy for Tsit5 up to t = 3, not to t = 12, where x follows the cosine."""

    def faster(t, y, p):
        return {"x": -p["k"] * jnp.exp(t) * (y["x"] - jnp.cos(t))}

    times = np.linspace(0.0, 3.0, 12)
    (x,) = scipy.integrate.solve_ivp(
        lambda t, y: -2 * np.exp(t) * (y - np.cos(t)), (0, 3), [0.0], t_eval=times, rtol=1e-9
    ).y
    result = rf.fit(
        faster, {"time": times, "x": x + 0.01 * np.sin(5 * times)}, states={"x": 0.0},
        parameters={"k": rf.Parameter(1.0, 0.1, 10.0, scale="log")}, starts=1,
    )  # fmt: skip
    assert result.solver == "Tsit5" and result.converged
    mean, low, high = result.predict([12.0], noise=False)["x"]
    assert mean[0, 0] == pytest.approx(np.cos(12.0), abs=1e-5)
    assert high[0, 0] - low[0, 0] < 1e-5  # k no longer matters


def test_an_objective_that_is_not_finite_is_a_step_back():
    """Newton's first step on x**4 - 3 x from 0.3 goes to 2.4, and beyond 1 nothing is known."""

    def objective(x):
        value = jnp.where(x[0] < 1.0, x[0] ** 4 - 3 * x[0], jnp.nan)
        curvature = jnp.where(x[0] < 1.0, 12 * x[0] ** 2, jnp.nan)
        return damped_newton.Local(value, 4 * x**3 - 3, curvature[None, None], (), 7)

    done = damped_newton.advance(
        objective, damped_newton.init(np.array([[0.3], [2.0]])), jnp.full(1, -9.0),
        jnp.full(1, 9.0), jnp.ones((2, 1), bool), steps=jnp.asarray(200), tolerance=1e-9,
        max_iterations=100,
    )  # fmt: skip
    assert done.status[0] == damped_newton.CONVERGED and done.blocked[0] == 0
    assert done.x[0, 0] == pytest.approx(0.75 ** (1 / 3), rel=1e-5)
    # The second starts where there is nothing: it ends, and says for what reason.
    assert done.status[1] == damped_newton.STALLED and done.blocked[1] == 7


def test_a_model_that_is_not_stiff_pays_nothing(monkeypatch):
    calls = []
    run = search.Search.run
    monkeypatch.setattr(search.Search, "run", lambda *a, **o: calls.append(a) or run(*a, **o))
    monkeypatch.setattr(search, "_values", None)  # not called
    result = rf.fit(
        lambda t, y, p: {"x": -p["k"] * y["x"]},
        {"time": TIMES, "x": np.exp(-0.3 * TIMES) + 0.01 * np.sin(TIMES)}, states={"x": 1.0},
        parameters={"k": rf.Parameter(1.0, 0.01, 10.0)}, starts=3,
    )  # fmt: skip
    assert len(calls) == 1
    assert result.solver == "Tsit5" and not result.solver_reason
    assert {s.solver for s in result.starts} == {"Tsit5"}


@pytest.mark.parametrize("name", solving.METHODS)
def test_every_method_has_its_name(name):
    for written in (name, name.lower()):
        solver = solving.Solving(method=written).solvers(0.0)[0]
        assert solving.name_of(solver) == {"explicit": "Tsit5", "stiff": "Rodas5P"}.get(name, name)


def test_what_is_tried_in_turn():
    def tried(**options):
        found = solving.Solving(**options).solvers(None)
        return [(solving.name_of(s), s.max_steps) for s in found]

    assert tried() == [
        ("Tsit5", 512), ("Tsit5", 16384), ("Rodas5P", 512), ("Rodas5P", 16384),
    ]  # fmt: skip
    assert tried(max_steps=100) == [("Tsit5", 100), ("Rodas5P", 100)]
    assert tried(method="stiff") == [("Rodas5P", 512), ("Rodas5P", 16384)]
    assert tried(method=rf.BDF(), max_steps=9) == [("BDF", 9)]
    both = rf.AutoSwitch(rf.Tsit5(), rf.Kvaerno3())
    assert tried(method=both, max_steps=9) == [("Tsit5 and Kvaerno3", 9)]


def test_what_is_given_with_the_fit_goes_before_the_model_file(tmp_path):
    given = dict(load_model_options(tmp_path))
    assert given == {"method": "stiff", "rtol": 1e-7}
    assert solving.options(given, {"rtol": 1e-5, "atol": None}).rtol == 1e-5
    assert solving.options(given, {"rtol": None}) == solving.Solving("stiff", 1e-7)


def load_model_options(tmp_path):
    return model_of(HIRES, tmp_path).solve


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "Rodas5"}, r"'Rodas5' is not known. Did you mean 'Rodas5P'.*'Kvaerno5', 'BDF'"),
        ({"method": "runge"}, r"'runge' is not known.*Methods: 'auto', 'explicit', 'stiff'"),
        ({"method": 5}, "method 5 is not known"),
        ({"method": rf.Rodas5P}, r"an instance: write Rodas5P\(\)"),
        ({"method": rf.Euler()}, r"Euler\(\) has no error estimate"),
        ({"method": rf.EulerMaruyama()}, r"EulerMaruyama\(\) has no error estimate"),
        ({"method": rf.SRA1()}, r"SRA1\(\) cannot solve the equations of a fit.*stochastic"),
        ({"method": rf.KenCarp4()}, r"KenCarp4\(\) cannot solve the equations of a fit"),
        ({"rtol": -1e-8}, "rtol must be a number from 1e-14 to 0.1; got -1e-08"),
        ({"atol": -1.0}, "atol must be a number and at least 0; got -1"),
        ({"atol": np.nan}, "atol must be"),
        ({"max_steps": 0}, "max_steps must be a positive integer; got 0"),
        ({"max_steps": 10.0}, "max_steps must be a positive integer; got 10.0"),
        ({"max_steps": True}, "max_steps must be a positive integer; got True"),
    ],
)
def test_options_that_cannot_be_used(options, said):
    with pytest.raises(rf.InputError, match=said):
        fit_follower(np.ones(30), **options)


def test_a_method_that_no_program_can_be_kept_for():
    method = rf.Reversible(rf.Tsit5())
    object.__setattr__(method, "coupling", jnp.asarray(0.9))
    with pytest.raises(rf.InputError, match=r"Reversible\(\.\.\.\) holds an array"):
        fit_follower(np.ones(30), method=method)


def test_an_option_of_a_model_that_there_is_not():
    model = rf.Model(
        vector_field=lambda t, y, p, c: {"x": -p["k"] * y["x"]}, states={"x": 1.0},
        parameters={"k": rf.Parameter(1.0)}, observed={"x": lambda t, y, p, c: y["x"]},
        solve={"steps": 3},
    )  # fmt: skip
    with pytest.raises(rf.InputError, match=r"no option 'steps'.*max_steps"):
        rf.fit(model, {"time": [0.0, 1.0], "x": [1.0, 0.5]})


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('method = "Rodas"', r"model.toml, line 24, solve.method: method 'Rodas' is not known"),
        ("method = 3", "solve.method: method 3 is not known"),
        ("rtol = -1.0", "solve.rtol: rtol must be a number"),
        ('atol = "small"', "solve.atol: atol must be a number"),
        ("max_steps = 0", "solve.max_steps: max_steps must be a positive integer; got 0"),
        ("steps = 10", "solve.steps: unknown key 'steps'.*Known here: method, rtol, atol"),
    ],
)
def test_a_table_of_the_model_file_that_cannot_be_used(table, said, tmp_path):
    with pytest.raises(rf.InputError, match=said):
        model_of(f"{ROBERTSON}\n[solve]\n{table}\n", tmp_path)


def test_a_guess_that_no_method_can_solve_with_the_steps_given():
    with pytest.raises(rf.InputError, match="3 steps of Tsit5 and of Rodas5P do not reach"):
        fit_follower(np.ones(30), max_steps=3)
    with pytest.raises(rf.InputError, match=r'of Tsit5 do not.*give method = "stiff"'):
        fit_follower(np.ones(30), max_steps=3, method="explicit")
