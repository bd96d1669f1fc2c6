"""Multiple shooting: windows of a fit."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import rootflow as rf
from rootflow.fitting import problem, shooting
from rootflow.fitting.assembly import prepared
from rootflow.fitting.described import described
from rootflow.fitting.solving import Solving
from rootflow.fitting.table import assemble

TIMES = np.arange(12.0)


def dosed():
    """Doses (between windows, within one, at a computed time), per-group and start parameters."""
    model = rf.Model(
        states={"gut": 0.0, "blood": rf.Parameter(0.5, 0.01, 10, scale="log")},
        parameters={
            "ka": rf.Parameter(0.8, 0.01, 10, scale="log", per_group=True),
            "ke": rf.Parameter(0.2, 0.01, 10, scale="log"),
            "late": rf.Parameter(6.3, 5.0, 8.0),
        },
        vector_field=lambda t, y, p, c: {
            "gut": -p["ka"] * y["gut"],
            "blood": p["ka"] * y["gut"] - p["ke"] * y["blood"],
        },
        observed={"blood": lambda t, y, p, c: y["blood"]},
        noise={"blood": "lognormal"},
        doses=(
            rf.Dose(0.0, "gut", lambda p, c: c["amount"]),
            rf.Dose(5.0, "gut", 2.0),
            rf.Dose(lambda p, c: p["late"], "gut", 1.0),
        ),
        group="who",
        covariates=("amount",),
        t0=0.0,
    )
    rng = np.random.default_rng(1)
    who = np.repeat(["a", "b"], 12)
    blood = np.exp(rng.normal(size=24) * 0.2)
    blood[[3, 20]] = np.nan
    table = {"time": np.tile(TIMES, 2), "who": who, "amount": np.where(who == "a", 3.0, 5.0)}
    return model, {**table, "blood": blood}


def tabled():
    """Doses from the table: an infusion over two boundaries, one at a boundary, a steady state."""
    model = rf.Model(
        states={"gut": 0.0, "blood": rf.Parameter(0.5, 0.01, 10, scale="log")},
        parameters={
            "ka": rf.Parameter(0.8, 0.01, 10, scale="log"),
            "ke": rf.Parameter(0.2, 0.01, 10, scale="log"),
            "late": rf.Parameter(0.3, 0.0, 1.0),
        },
        vector_field=lambda t, y, p, c: {
            "gut": -p["ka"] * y["gut"],
            "blood": p["ka"] * y["gut"] - p["ke"] * y["blood"],
        },
        observed={"blood": lambda t, y, p, c: y["blood"]},
        noise={"blood": "lognormal"},
        dosing=rf.Dosing(
            amount="AMT", rate="RATE", additional="ADDL", interval="II", steady="SS",
            compartment="CMT", lag={"gut": lambda p, c: p["late"]},
            bioavailability=lambda p, c: 0.9,
        ),
        group="who",
        t0=0.0,
    )  # fmt: skip
    rng = np.random.default_rng(1)
    blood = np.exp(rng.normal(size=24) * 0.2)
    rows = [
        # who, time, AMT, RATE, ADDL, II, SS, CMT
        ("a", 0.0, 3.0, 0.0, 2, 3.9, 0, "gut"),
        ("a", 3.0, 4.0, 0.6, 0, 0.0, 0, "blood"),  # until 9
        ("a", 4.0, 2.0, 0.0, 0, 0.0, 0, "blood"),
        ("b", 0.0, 2.0, 1.0, 1, 6.0, 1, "gut"),
        *[(who, t, 0.0, 0.0, 0, 0.0, 0, "gut") for who in "ab" for t in TIMES],
    ]
    names = ("who", "time", "AMT", "RATE", "ADDL", "II", "SS", "CMT")
    table = {
        name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)
    }
    return model, {**table, "blood": [*[np.nan] * 4, *blood]}


def switched():
    """Conditions with initial values of their own, one of which comes to rest first; an event."""
    model = rf.Model(
        states={"x": lambda p, c: p["x0"], "m": 1.0},
        parameters={
            "k": rf.Parameter(1.0, 0.01, 10, scale="log"),
            "x0": rf.Parameter(2.0, 0.1, 10),
            "s": rf.Parameter(0.3, 0.01, 3, scale="log"),
        },
        vector_field=lambda t, y, p, c: {"x": p["s"] - p["k"] * y["x"], "m": -0.1 * y["m"]},
        observed={"x": lambda t, y, p, c: 2 * y["x"] + y["m"]},
        noise={"x": rf.Noise("normal", scale=lambda t, y, p, c: 0.1 + 0.1 * y["m"])},
        events=(
            rf.Event(
                lambda t, y, args: t - 7.5,
                jump=lambda t, y, args: {"m": y["m"] + 1},
                terminal=False,
            ),
        ),
        conditions={
            "rest": {"k": 0.5},
            "low": {"x": 0.1, "k": lambda p, c: 2 * p["k"]},
            "plain": {},
        },
        group="g",
        condition="cond",
        preequilibration="pre",
        t0=0.0,
    )
    rng = np.random.default_rng(2)
    table = {
        "time": np.tile(TIMES, 3),
        "g": np.repeat(["1", "2", "3"], 12),
        "cond": np.repeat(["low", "plain", "plain"], 12),
        "pre": np.repeat(["", "", "rest"], 12),
        "x": 1 + 0.3 * rng.normal(size=36),
    }
    return model, table


@pytest.mark.parametrize("case", [dosed, switched, tabled])
def test_windows_without_gaps_are_the_fit_itself(case):
    model, table = case()
    dataset = assemble(model, table)
    search = prepared(model, dataset, Solving(rtol=1e-9, atol=1e-11))
    lay, data, solver = search.lay, search.data, search.solver
    points = lay.start[None] + np.array([[0.0], [0.1]])
    split = shooting.windows(model, lay, solver, data, 3, points)
    assert split is not None and split.where.shape[1] == 2
    states = shooting.at_boundaries(model, lay, solver, data, split.where, points)
    # Of measured states `points` takes the measurements, which leaves gaps.
    exact = replace(split, known=np.full_like(split.known, np.nan))
    u = exact.points(points, np.asarray(states))

    @jax.jit
    def whole(u):
        of = lambda u: problem.value(model, lay, solver, data, u)[0]
        return of(u), jax.jacfwd(of)(u)

    @jax.jit
    def pieces(u, data):
        local = problem.objective(split.model, split.lay, replace(solver, t0=None), data)(u)
        return local.value, local.gradient, local.curvature

    gaps, n = split.inner.sum() * len(model.states), lay.size
    for point, all_of_it in zip(points, u, strict=True):
        expected, slope = whole(point)
        value, _, _ = pieces(all_of_it, split.stage(1.0))
        np.testing.assert_allclose(value - gaps * 0.5 * np.log(2 * np.pi), expected, rtol=1e-7)
        # With gaps held shut the states follow the parameters, by the implicit function theorem.
        _, gradient, curvature = pieces(all_of_it, split.stage(1e-4))
        follow = -np.linalg.solve(curvature[n:, n:], curvature[n:, :n])
        np.testing.assert_allclose(
            gradient[:n] + follow.T @ gradient[n:], slope, rtol=2e-3, atol=2e-3
        )


def test_the_windows_start_at_measurements_of_states():
    model, table = dosed()
    dataset = assemble(model, table)
    search = prepared(model, dataset, Solving())
    lay = search.lay
    split = shooting.windows(model, lay, search.solver, search.data, 4, lay.start[None])
    assert split is not None
    # By the number of measured times, of which there are eleven.
    np.testing.assert_array_equal(split.where[0], [4.0, 7.0, 9.0])
    np.testing.assert_allclose(split.known[0, :, 1], np.asarray(table["blood"])[[4, 7, 9]])
    assert np.isnan(split.known[..., 0]).all() and split.log.all()
    # A second fit finds its programs: they are kept for these very objects.
    more = search.data._replace(values=2 * np.asarray(search.data.values))
    again = shooting.windows(model, lay, search.solver, more, 4, lay.start[None])
    assert again is not None and again.model is split.model and again.lay is split.lay
    for bad in (np.inf, -1.0):  # no solution, and one that another point had not warned of
        u = split.points(lay.start[None], np.full((1, *split.known.shape), bad))
        assert np.isfinite(u).all()
    states = np.exp(u[0, lay.size :]).reshape(-1, 2)
    np.testing.assert_allclose(states[0, 1], np.asarray(table["blood"])[4])
    one = shooting.windows(model, lay, search.solver, search.data, 1, lay.start[None])
    assert one is None


def fitzhugh_nagumo():
    """Ten periods, of which the ones at the guess are others; more steps than the guess needs."""

    def field(t, y, p):
        v, r = y["V"], y["R"]
        return {"V": p["c"] * (v - v**3 / 3 + r), "R": -(v - p["a"] + p["b"] * r) / p["c"]}

    ts = np.linspace(0, 40, 81)
    true = {"a": 0.2, "b": 0.2, "c": 3.0}
    sol = rf.solve_ode(
        lambda t, y, args: field(t, y, true), {"V": jnp.array(-1.0), "R": jnp.array(1.0)},
        (0.0, 40.0), saveat=ts, rtol=1e-9, atol=1e-9,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    table = {"time": ts, **{n: np.asarray(x) + 0.1 * rng.normal(size=81)
                            for n, x in sorted(sol.ys.items())}}  # fmt: skip
    bounds = {"a": (0.01, 10.0), "b": (0.01, 10.0), "c": (0.1, 30.0)}
    parameters = {n: rf.Parameter(1.0, *pair, scale="log") for n, pair in bounds.items()}
    return field, table, parameters, true


def test_an_oscillator_is_found_from_far_away():
    field, table, parameters, true = fitzhugh_nagumo()
    kwargs = {"states": {"V": -1.0, "R": 1.0}, "parameters": parameters}
    found = rf.fit(field, table, starts=6, screen=1, shooting=8, **kwargs)
    assert sum(s.reached_best for s in found.starts) >= 5
    assert found.starts[0].reached_best  # from the guess too, which is on a plateau of its own
    for name, value in true.items():
        estimate = next(e for e in found.estimates if e.name == name)
        assert abs(estimate.value - value) < 4 * estimate.se
    scales = [e.value for e in found.estimates if e.kind == "scale"]
    np.testing.assert_allclose(scales, 0.1, rtol=0.2)
    # At the guess 512 steps do; at the best fit they do not, and no search is lost by it.
    assert found.solving.max_steps is None and found.solver == "Tsit5"
    assert "512" in found.solver_reason


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shooting": -1}, "shooting must be an integer, at least 0; got -1"),
        ({"shooting": 2.5}, "shooting must be an integer"),
        ({"shooting": 4, "random": {"c": 0.1}, "group": "g"}, "shooting=4 is not there for"),
    ],
)
def test_windows_that_cannot_be_are_refused(options, said):
    field, table, parameters, _ = fitzhugh_nagumo()
    if "group" in options:
        table = {**table, "g": ["a"] * 81}
    with pytest.raises(rf.InputError, match=said):
        rf.fit(field, table, states={"V": -1.0, "R": 1.0}, parameters=parameters, **options)


def test_more_unknowns_than_fit_are_refused():
    field, table, parameters, _ = fitzhugh_nagumo()
    model, dataset, _ = described(
        field, {n: np.tile(x, 14) for n, x in table.items()} | {"g": np.repeat(np.arange(14), 81)},
        {"V": -1.0, "R": 1.0}, parameters, None, "normal", (), "time", "g",
    )  # fmt: skip
    search = prepared(model, dataset, Solving())
    with pytest.raises(rf.InputError, match=r"shooting=50 makes .* unknowns .* take fewer windows"):
        shooting.windows(model, search.lay, search.solver, search.data, 50, search.lay.start[None])


@pytest.mark.parametrize(
    ("start", "row", "said"),
    [
        (2, ("a", 6.0, 3.0, 0, 0, 2.0, 1, 1), r"steady-state dose \(at time 6\).*fewer windows"),
        (3, ("a", 6.0, 3.0, 0, 0, 2.0, 1, 1), r"steady-state dose \(at time 6\).*fewer windows"),
        (2, ("a", 6.0, 0.0, 0, 0, 0.0, 0, 3), r"resets within the data .*at time 6.*another group"),
    ],
)
def test_doses_that_windows_do_not_take(start, row, said):
    model, _ = tabled()
    names = ("who", "time", "AMT", "RATE", "ADDL", "II", "SS", "EVID")
    rows = [
        ("a", 0.0, 0.0, 0, 0, 0.0, 0, start),
        row,
        *[("a", t, 0.0, 0, 0, 0.0, 0, 0) for t in TIMES],
    ]
    table = {
        name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)
    }
    assert model.dosing is not None
    dosing = replace(model.dosing, event="EVID", compartment=None, state="gut", lag=0.0)
    model = replace(model, dosing=dosing)
    search = prepared(
        model, assemble(model, {**table, "blood": [np.nan, np.nan, *[1.0] * 12]}), Solving()
    )
    with pytest.raises(rf.InputError, match=said):
        shooting.windows(model, search.lay, search.solver, search.data, 3, search.lay.start[None])


def test_windows_lead_to_the_fit_without_them():
    """Doses from a table: a bolus within a window, an infusion over a boundary."""
    model = rf.Model(
        states={"blood": 0.0},
        parameters={
            "ke": rf.Parameter(0.1, 0.01, 10, scale="log"),
            "v": rf.Parameter(1.0, 0.1, 10, scale="log"),
        },
        vector_field=lambda t, y, p, c: {"blood": -p["ke"] * y["blood"]},
        observed={"level": lambda t, y, p, c: y["blood"] / p["v"]},
        noise={"level": "normal"},
        dosing=rf.Dosing(amount="AMT", rate="RATE", state="blood"),
        t0=0.0,
    )
    ts = np.arange(1.0, 11.0)
    hours = np.clip(ts - 4.0, 0.0, 4.0)  # of the infusion of 1.5 an hour

    def exact(ke, v):
        infused = 1.5 / ke * (1 - np.exp(-ke * hours)) * np.exp(-ke * np.maximum(ts - 8.0, 0.0))
        return (10 * np.exp(-ke * ts) + infused) / v

    level = exact(0.3, 2.0) + 0.02 * np.cos(7 * ts)
    table = {
        "time": [0.0, 4.0, *ts], "AMT": [10.0, 6.0, *[0.0] * 10], "RATE": [0.0, 1.5, *[0.0] * 10],
        "level": [np.nan, np.nan, *level],
    }  # fmt: skip
    fit = rf.fit(model, table, starts=3, shooting=2)
    assert fit.converged
    # The best there is, by SciPy on the closed form.
    best = scipy.optimize.least_squares(lambda x: exact(*x) - level, [0.3, 2.0], xtol=1e-12)
    found = [e.value for e in fit.estimates if e.kind == "parameter"]
    np.testing.assert_allclose(found, best.x, rtol=1e-5)
    assert fit.rss == pytest.approx(2 * best.cost, rel=1e-6)
